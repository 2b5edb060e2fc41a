// A response's body that is sent while it comes into being.
#pragma once

#include "net/http.hpp"
#include "net/transport.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>

#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>

namespace ghost::net {

class BodyStream {
public:
    enum class Framing : std::uint8_t { chunked, until_close };
    // `each_write`: the time the peer has for each piece.
    BodyStream(boost::asio::any_io_executor executor, Transport& transport, Framing framing,
               std::chrono::milliseconds each_write);

    enum class End : std::uint8_t {
        complete,  // by the source's word or by stop(): the peer can tell that nothing is missing
        too_slow,  // the peer didn't take a piece in time
        gone,      // the connection broke
        failed,    // the source threw: see fault()
    };
    // Once.
    [[nodiscard]] boost::asio::awaitable<End> send(const BodySource& source);
    // Ends send() soon: the source is cancelled, and the peer has little time for what is being sent.
    void stop() noexcept;
    [[nodiscard]] const std::string& fault() const noexcept { return fault_; }

private:
    [[nodiscard]] boost::asio::awaitable<Io> write(const std::string& piece);
    [[nodiscard]] boost::asio::awaitable<Io> write_end();
    void note(const std::exception_ptr& fault);

    boost::asio::any_io_executor executor_;
    Transport& transport_;
    Framing framing_;
    std::chrono::milliseconds each_write_;
    std::shared_ptr<boost::asio::cancellation_signal> cancel_source_;
    std::string fault_;
    bool stopped_ = false;
};

}  // namespace ghost::net
