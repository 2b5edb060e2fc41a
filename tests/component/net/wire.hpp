// A blocking peer that says exactly what it is told to, over plain TCP, TLS or a Unix socket.
#pragma once

#include "net/tls.hpp"

#include <openssl/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::test {

class Wire {
public:
    // `receive_buffer`: its bytes in the kernel; 0: the system's choice.
    static Wire tcp(std::uint16_t port, int receive_buffer = 0);
    static Wire tls(std::uint16_t port, const net::TlsContext& context);  // the handshake is left to shake()
    static Wire unix_socket(const std::string& path);
    ~Wire();
    Wire(Wire&& other) noexcept;
    Wire& operator=(Wire&&) = delete;

    [[nodiscard]] bool shake();
    [[nodiscard]] bool renegotiate();  // TLS 1.2's
    [[nodiscard]] std::string peer_common_name() const;
    bool send(std::string_view bytes);  // false: the connection is gone
    void end_sending();                 // half-close
    void hang_up();
    void hang_up_hard();  // with a reset
    // One response with its body; empty when the connection ended before a byte of it. `head`: it has no body.
    [[nodiscard]] std::string response(bool head = false);
    // The next chunk of a body in chunks, "" for the last; nullopt when the connection ended first or it is none.
    [[nodiscard]] std::optional<std::string> chunk();
    [[nodiscard]] std::string take(std::size_t count);  // less when the connection ended first
    // All until the end of the connection; also waits for it.
    [[nodiscard]] std::string rest();
    // The connection ends without a byte more.
    [[nodiscard]] bool ended() { return rest().empty(); }

private:
    explicit Wire(int fd) : fd_(fd) {}
    [[nodiscard]] bool fill();  // reads some into buffer_

    int fd_ = -1;
    SSL* ssl_ = nullptr;
    std::string buffer_;
};

[[nodiscard]] unsigned status_of(std::string_view response);
[[nodiscard]] std::string header_of(std::string_view response, std::string_view name);  // "" without it
[[nodiscard]] std::string body_of(std::string_view response);
[[nodiscard]] std::string get(std::string_view path, std::string_view headers = {});

}  // namespace ghost::test
