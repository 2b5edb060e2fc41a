#include "agent/cli/transport.hpp"

#include "net/tls.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace ghost::cli {
namespace {

// Why connecting to `path` may have failed.
SocketState look_at_socket(const std::string& path) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0)
        return errno == EACCES ? SocketState::forbidden
                               : (errno == ENOENT || errno == ENOTDIR ? SocketState::missing : SocketState::present);
    if (!S_ISSOCK(status.st_mode)) return SocketState::not_a_socket;
    return ::access(path.c_str(), W_OK) != 0 && errno == EACCES ? SocketState::forbidden : SocketState::present;
}

}  // namespace

std::expected<net::Peer, Failure> peer_at(const Address& address) {
    if (const auto* local = std::get_if<SocketAddress>(&address)) return net::UnixPeer{local->path};
    const auto& remote = std::get<HttpsAddress>(address);
    auto tls =
        net::make_client_tls(net::TlsFiles{.certificate = remote.certificate, .key = remote.key, .ca = remote.ca});
    if (!tls)
        return std::unexpected{
            Failure{ExitCode::usage, tls.error().detail, {}, "see --cert, --key and --cacert in 'ghostctl --help'"}};
    return net::HttpsPeer{remote.host, remote.port, std::move(*tls)};
}

Failure failure_of_connection(const base::Error& error, const Address& address) {
    const auto* local = std::get_if<SocketAddress>(&address);
    return failure_of_connection(error, address, local != nullptr ? look_at_socket(local->path) : SocketState::present);
}

}  // namespace ghost::cli
