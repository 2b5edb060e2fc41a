// Idempotency-Key: a change that is asked for again is answered again, and done
// once.
#pragma once

#include "agent/api/answers.hpp"
#include "base/notifier.hpp"
#include "net/http.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <map>
#include <string>

namespace ghost::agent::api {

// Loop thread only.
class Idempotency {
public:
    Idempotency(const boost::asio::any_io_executor& executor, Answers answers, base::Clock& clock)
        : answers_(answers), clock_(clock), decided_(executor) {}

    // Has `next` handle the request, unless its key's operation is there to answer with. A second request with a key
    // whose first is just being decided waits for that.
    [[nodiscard]] boost::asio::awaitable<net::Response> handle(net::Request request, const net::Handler& next);

    static constexpr std::size_t max_key_length = 255;
    static constexpr std::chrono::seconds patience{60};  // for the first of two requests with one key

private:
    class Claim;
    [[nodiscard]] boost::asio::awaitable<net::Response> repeat(const net::Request& request, OperationService::Ptr op);

    Answers answers_;
    base::Clock& clock_;
    std::map<std::string, std::string> undecided_;  // key -> fingerprint, of requests that are being handled
    base::Notifier decided_;
};

}  // namespace ghost::agent::api
