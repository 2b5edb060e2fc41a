// The login manager's word on the host's sleep, as a seam: it tells before the
// host is suspended and after, and waits a moment for those who asked it to.
#pragma once

#include "base/error.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <memory>

namespace ghost::agent {

// Loop thread only; one call at a time. Each may be cancelled, and waits without a limit of its own. Errors: io_error
// with the bus's words. After any but a refused inhibit() there is no connection any more.
class Logind {
public:
    template <class T>
    using Task = boost::asio::awaitable<base::Result<T>>;

    enum class News : std::uint8_t {
        goes_to_sleep,
        is_awake,  // after a sleep, or after one that came to nothing
    };

    virtual ~Logind() = default;

    // Gives up the connection that was, and what it held, and makes a new one.
    [[nodiscard]] virtual Task<void> connect() = 0;
    // From now on the host's sleep waits, a few seconds at most, for release(). forbidden: it says no, and tells us of
    // sleep all the same.
    [[nodiscard]] virtual Task<void> inhibit() = 0;
    virtual void release() = 0;
    // What came since the last call, in order. An error when bus or login manager went away.
    [[nodiscard]] virtual Task<News> next() = 0;
    // Lets go of everything, at once.
    virtual void close() = 0;
};

// On the system's bus, or where DBUS_SYSTEM_BUS_ADDRESS says. Mustn't outlive the executor's context.
[[nodiscard]] std::unique_ptr<Logind> make_logind(const boost::asio::any_io_executor& executor);

}  // namespace ghost::agent
