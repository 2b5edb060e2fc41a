// The agent's REST API as a client sees it: JSON in and out, problems and
// connection faults as Failures, pages followed.
#pragma once

#include "agent/cli/errors.hpp"
#include "agent/cli/invocation.hpp"
#include "net/client.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::cli {

template <class T>
using Outcome = std::expected<T, Failure>;

struct Listing {
    boost::json::array items;  // of all pages
    std::string event_id;      // the event that the first page reflects; empty: the agent doesn't say
};

class AgentClient {
public:
    // Both must outlive it.
    AgentClient(net::Client& client, const Address& address) : client_(client), address_(address) {}

    // One request. An answer of 204 or without a body is an empty object; one that isn't a JSON object, a failure.
    [[nodiscard]] boost::asio::awaitable<Outcome<boost::json::object>> send(net::Method method, std::string target,
                                                                            std::string body,
                                                                            std::string idempotency_key);
    // `allowance`: how much longer than usual the agent may take, for long polls.
    [[nodiscard]] boost::asio::awaitable<Outcome<boost::json::object>> get(
        std::string target, std::chrono::seconds allowance = std::chrono::seconds{0});
    // `has_pages`: the route knows ?limit.
    [[nodiscard]] boost::asio::awaitable<Outcome<Listing>> list(std::string target, bool has_pages = true);
    // The last event that there was; empty: the agent doesn't say. (Why it says no, the request for the stream tells.)
    [[nodiscard]] boost::asio::awaitable<Outcome<std::string>> last_event();
    // The stream of the events that follow `after`, or of those from now on when it is empty; see
    // ClientRequest::on_body. An answer that says no is no failure here.
    [[nodiscard]] boost::asio::awaitable<Outcome<net::ClientResponse>> events(
        std::string after, std::function<bool(std::string_view piece)> take);
    // The body of an answer that says yes, as it comes; see ClientRequest. Neither function may throw.
    [[nodiscard]] boost::asio::awaitable<Outcome<net::ClientResponse>> download(
        std::string target, std::function<bool(const net::ClientResponse& head)> begin,
        std::function<bool(std::string_view piece)> take);
    // A PUT of bytes as they come into being; see ClientRequest::body_source.
    [[nodiscard]] boost::asio::awaitable<Outcome<net::ClientResponse>> upload(
        std::string target, std::function<boost::asio::awaitable<base::Result<std::optional<std::string>>>()> next,
        std::optional<std::uint64_t> size);
    // GET /health: an agent that isn't well says so with 503 and the same document.
    [[nodiscard]] boost::asio::awaitable<Outcome<boost::json::object>> health();

    static constexpr std::string_view events_target = "/v1/events";
    static constexpr std::chrono::seconds patience{30};  // for one answer
    static constexpr std::size_t most_pages = 1000;      // of 1000 items

private:
    // Any answer.
    [[nodiscard]] boost::asio::awaitable<Outcome<net::ClientResponse>> exchange(net::ClientRequest request);
    // An answer that says yes.
    [[nodiscard]] boost::asio::awaitable<Outcome<net::ClientResponse>> agreed(net::ClientRequest request);

    net::Client& client_;
    const Address& address_;
};

}  // namespace ghost::cli
