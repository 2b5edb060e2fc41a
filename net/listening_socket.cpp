#include "net/listening_socket.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace ghost::net {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

struct Descriptor {
    int fd = -1;
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
    [[nodiscard]] int release() { return std::exchange(fd, -1); }
};

base::Error cannot_listen(const std::string& address, int number) {
    return base::errno_error(number, "cannot listen on " + address);
}

base::Result<ListeningSocket> open_tcp(const asio::any_io_executor& executor, const TcpEndpoint& wanted) {
    const auto name = to_string(wanted);
    error_code error;
    const auto address = asio::ip::make_address(wanted.address, error);
    if (error) return base::fail(base::Errc::io_error, "cannot listen on " + name + ": not a numeric address");
    const asio::ip::tcp::endpoint endpoint{address, wanted.port};
    const int family = endpoint.protocol().family();

    Descriptor socket{::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    // ":9092" on a machine without IPv6 means its IPv4 addresses.
    if (socket.fd < 0 && errno == EAFNOSUPPORT && address == asio::ip::address_v6::any())
        return open_tcp(executor, {"0.0.0.0", wanted.port});
    if (socket.fd < 0) return base::fail(cannot_listen(name, errno));
    const int on = 1;
    const int off = 0;
    ::setsockopt(socket.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (family == AF_INET6) ::setsockopt(socket.fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (::bind(socket.fd, endpoint.data(), static_cast<socklen_t>(endpoint.size())) != 0 ||
        ::listen(socket.fd, SOMAXCONN) != 0)
        return base::fail(cannot_listen(name, errno));

    Acceptor acceptor{executor};
    acceptor.assign(endpoint.protocol(), socket.release());
    asio::ip::tcp::endpoint bound;
    auto size = static_cast<socklen_t>(bound.capacity());
    if (::getsockname(acceptor.native_handle(), bound.data(), &size) != 0)
        return base::fail(cannot_listen(name, errno));
    auto text = to_string(TcpEndpoint{wanted.address, bound.port()});
    return ListeningSocket{.acceptor = std::move(acceptor), .address = std::move(text)};
}

std::optional<gid_t> find_group(const std::string& name) {
    if (name.empty()) return std::nullopt;
    std::vector<char> buffer(4096);
    while (buffer.size() <= 1024 * 1024) {
        group entry{};
        group* found = nullptr;
        const int error = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
        if (error == 0) return found ? std::optional{found->gr_gid} : std::nullopt;
        if (error != ERANGE) return std::nullopt;
        buffer.resize(buffer.size() * 2);
    }
    return std::nullopt;
}

// A socket that nobody answers on is removed; all else that stands at the path is a fault.
base::Result<void> make_room(const sockaddr_un& address) {
    const std::string path = address.sun_path;
    struct stat info{};
    if (::lstat(path.c_str(), &info) != 0) {
        if (errno == ENOENT) return {};
        return base::fail(cannot_listen(path, errno));
    }
    if (!S_ISSOCK(info.st_mode))
        return base::fail(base::Errc::io_error, "cannot listen on " + path + ": something that is no socket is there");
    const Descriptor probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (probe.fd < 0) return base::fail(cannot_listen(path, errno));
    const int result = ::connect(probe.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    if (result == 0 || errno == EAGAIN)
        return base::fail(base::Errc::io_error, "cannot listen on " + path + ": another process answers on it");
    if (errno != ECONNREFUSED) return base::fail(cannot_listen(path, errno));
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return base::fail(cannot_listen(path, errno));
    return {};
}

base::Result<ListeningSocket> open_unix(const asio::any_io_executor& executor, const UnixEndpoint& wanted) {
    const auto& path = wanted.path;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path)
        return base::fail(cannot_listen(path, path.empty() ? ENOENT : ENAMETOOLONG));
    std::memcpy(address.sun_path, path.data(), path.size());
    if (auto room = make_room(address); !room) return base::fail(room.error());

    const auto group = find_group(wanted.group);
    Descriptor socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (socket.fd < 0) return base::fail(cannot_listen(path, errno));
    // The mode of an unbound socket is the mode its name is born with (less the umask): closed to all but its owner
    // until the group is set, and refusing connections until it listens.
    if (::fchmod(socket.fd, wanted.mode & 0600U) != 0 ||
        ::bind(socket.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return base::fail(cannot_listen(path, errno));
    struct stat info{};
    if (::lstat(path.c_str(), &info) != 0) return base::fail(cannot_listen(path, errno));
    auto file = std::make_unique<SocketFile>(path, info.st_dev, info.st_ino);
    if (group && ::lchown(path.c_str(), static_cast<uid_t>(-1), *group) != 0)
        return base::fail(base::errno_error(errno, "cannot give " + path + " to group " + wanted.group));
    if (::chmod(path.c_str(), wanted.mode) != 0 || ::listen(socket.fd, SOMAXCONN) != 0)
        return base::fail(cannot_listen(path, errno));

    Acceptor acceptor{executor};
    acceptor.assign(asio::local::stream_protocol{}, socket.release());
    ListeningSocket listening{
        .acceptor = std::move(acceptor), .address = path, .file = std::move(file), .admins = group};
    if (!wanted.group.empty() && !group)
        listening.warning = "there is no group " + wanted.group + ": only root is admin on " + path;
    return listening;
}

}  // namespace

SocketFile::~SocketFile() {
    struct stat info{};
    if (::lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ && info.st_ino == inode_) ::unlink(path_.c_str());
}

base::Result<ListeningSocket> open_listening_socket(asio::any_io_executor executor, const Endpoint& endpoint) {
    if (const auto* tcp = std::get_if<TcpEndpoint>(&endpoint)) return open_tcp(executor, *tcp);
    return open_unix(executor, std::get<UnixEndpoint>(endpoint));
}

}  // namespace ghost::net
