// A request's body that is sent while it comes into being, with an ear for an
// answer that comes before its end.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "net/client.hpp"
#include "net/transport.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>

namespace ghost::net {

class Upload {
public:
    // What the server says meanwhile is appended to `input`. All of them outlive the upload.
    Upload(const boost::asio::any_io_executor& executor, Transport& transport, const ClientRequest& request,
           std::string& input);
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;

    // Once. True: all of the body is sent. False without a fault: the answer has begun to come before that. Needs
    // throw_if_cancelled(false).
    [[nodiscard]] boost::asio::awaitable<bool> run();

    struct Fault {
        std::optional<base::Error> error = {};  // the source's, or what is wrong with it
        Io io = {};                             // else the connection's
    };
    [[nodiscard]] const std::optional<Fault>& fault() const noexcept { return fault_; }

private:
    // Each in a coroutine of its own.
    [[nodiscard]] boost::asio::awaitable<void> send();
    [[nodiscard]] boost::asio::awaitable<void> listen();
    void begin(boost::asio::awaitable<void> work, boost::asio::cancellation_signal& stop, bool& under_way);

    [[nodiscard]] boost::asio::awaitable<bool> write(std::span<const boost::asio::const_buffer> pieces);
    [[nodiscard]] boost::asio::awaitable<bool> write_piece(std::string piece);
    [[nodiscard]] boost::asio::awaitable<bool> write_end();
    void fail(Fault fault);
    [[nodiscard]] Fault wrong_size() const;
    void stop_what_is_in_vain(bool cancelled);

    boost::asio::any_io_executor executor_;
    Transport& transport_;
    const ClientRequest& request_;
    std::string& input_;
    boost::asio::steady_timer changed_;  // cancelled when there is something to look at
    boost::asio::cancellation_signal stop_sending_;
    boost::asio::cancellation_signal stop_listening_;
    std::array<char, 4096> room_{};
    std::uint64_t sent_ = 0;
    base::Instant piece_until_ = base::Instant::max();  // of the piece that is being written
    base::Instant words_until_ = base::Instant::max();  // of an answer after the sending has failed
    std::optional<Fault> fault_;
    std::exception_ptr thrown_;  // by the source
    bool sending_ = false;
    bool listening_ = false;
    bool stopped_ = false;   // the sending, by us
    bool answered_ = false;  // an answer has begun
    bool whole_ = false;     // all is sent
};

}  // namespace ghost::net
