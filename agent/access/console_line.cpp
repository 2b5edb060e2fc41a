#include "agent/access/console_line.hpp"

#include "base/descriptor.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <fmt/format.h>

#include <fcntl.h>
#include <sys/un.h>
#include <termios.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

using base::Errc;
using Line = base::Result<std::shared_ptr<ConsoleLine>>;

constexpr auto awaiting = asio::as_tuple(asio::use_awaitable);
constexpr std::string_view pty_folder = "/dev/pts/";
constexpr std::string_view lock_prefix = "/run/lock/LCK..pts-";
constexpr std::size_t longest_lock = 64;

bool is_number(std::string_view text) {
    return !text.empty() && text.size() < 10 && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

template <class Stream>
class LineOf final : public ConsoleLine {
public:
    explicit LineOf(Stream stream) : stream_(std::move(stream)) {}

    asio::awaitable<std::size_t> read(asio::mutable_buffer room) override {
        const auto [error, bytes] = co_await stream_.async_read_some(room, awaiting);
        co_return error ? 0 : bytes;
    }

    std::size_t read_ready(asio::mutable_buffer room) noexcept override {
        boost::system::error_code error;
        stream_.non_blocking(true, error);
        const auto bytes = error ? 0 : stream_.read_some(room, error);
        return error ? 0 : bytes;
    }

    asio::awaitable<bool> write(std::string_view bytes) override {
        const auto [error, written] = co_await asio::async_write(stream_, asio::buffer(bytes), awaiting);
        co_return !error;
    }

    void close() noexcept override {
        boost::system::error_code ignored;
        stream_.close(ignored);
    }

private:
    Stream stream_;
};

asio::awaitable<Line> open_socket(asio::any_io_executor executor, std::string path) {
    using Protocol = asio::local::stream_protocol;
    if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path))
        co_return base::fail(Errc::hypervisor_error, fmt::format("\"{}\" can't be a console's socket", path));
    Protocol::socket socket{executor};
    const auto [error] = co_await socket.async_connect(Protocol::endpoint{path}, awaiting);
    boost::system::error_code unconnected;
    if (!error) (void)socket.remote_endpoint(unconnected);
    // QEMU serves one peer; when as many as it lets wait are waiting, a connection isn't even begun.
    if (error == asio::error::try_again || unconnected)
        co_return base::fail(Errc::state_conflict, "another program is attached to the console");
    if (error)
        co_return base::fail(Errc::source_unavailable, fmt::format("the console can't be opened: {}", error.message()));
    co_return std::make_shared<LineOf<Protocol::socket>>(std::move(socket));
}

// As `virsh console` and others mark a terminal that they are attached to (UUCP's way): by their process.
asio::awaitable<base::Result<void>> free_terminal(storage::Files& files, std::string number) {
    const auto lock = co_await files.read(fmt::format("{}{}", lock_prefix, number), longest_lock);
    if (!lock) co_return base::Result<void>{};
    const auto first = lock->find_first_not_of(" \t");
    const auto end = lock->find_first_not_of("0123456789", first == std::string::npos ? 0 : first);
    const auto process = first == std::string::npos ? std::string{} : lock->substr(first, end - first);
    if (!is_number(process)) co_return base::Result<void>{};
    const auto lives = co_await files.stat("/proc/" + process);
    if (!lives || !*lives) co_return base::Result<void>{};
    co_return base::fail(
        Errc::state_conflict,
        fmt::format("another program (process {}) is attached to the console, such as virsh console", process));
}

asio::awaitable<Line> open_terminal(asio::any_io_executor executor, std::string path, storage::Files& files,
                                    std::function<asio::awaitable<bool>()> still_its) {
    const auto number = path.starts_with(pty_folder) ? path.substr(pty_folder.size()) : std::string{};
    if (!is_number(number))
        co_return base::fail(Errc::hypervisor_error, fmt::format("\"{}\" can't be a console's terminal", path));
    const auto fault = [] {
        return base::fail(Errc::source_unavailable,
                          fmt::format("the console can't be opened: {}", std::generic_category().message(errno)));
    };
    base::Descriptor terminal{::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    if (!terminal) co_return fault();
    if (const auto free = co_await free_terminal(files, number); !free) co_return base::fail(free.error());
    if (!co_await still_its()) co_return base::fail(Errc::source_unavailable, "the console was closed meanwhile");
    termios settings{};
    if (::tcgetattr(terminal.get(), &settings) != 0) co_return fault();
    // Nothing is echoed to the guest, whatever others left here; and what nobody read before stands in the log.
    ::cfmakeraw(&settings);
    (void)::tcsetattr(terminal.get(), TCSANOW, &settings);
    (void)::tcflush(terminal.get(), TCIFLUSH);
    boost::system::error_code error;
    asio::posix::stream_descriptor stream{executor};
    stream.assign(terminal.get(), error);
    if (error)
        co_return base::fail(Errc::source_unavailable, fmt::format("the console can't be opened: {}", error.message()));
    (void)terminal.release();
    co_return std::make_shared<LineOf<asio::posix::stream_descriptor>>(std::move(stream));
}

}  // namespace

asio::awaitable<Line> open_console_line(asio::any_io_executor executor, virt::ConsoleDevice device,
                                        storage::Files& files, std::function<asio::awaitable<bool>()> still_its) {
    if (device.kind == virt::ConsoleDevice::Kind::pty)
        return open_terminal(executor, std::move(device.path), files, std::move(still_its));
    return open_socket(executor, std::move(device.path));
}

}  // namespace ghost::agent
