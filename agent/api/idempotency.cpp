#include "agent/api/idempotency.hpp"

#include "agent/api/problem.hpp"
#include "agent/api/request.hpp"
#include "net/digest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::milliseconds look_again{100};

bool is_key(std::string_view text) {
    return !text.empty() && text.size() <= Idempotency::max_key_length &&
           std::ranges::all_of(text, [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

// All that makes it the same request; how long the client waits doesn't.
std::string fingerprint_of(const net::Request& request) {
    auto text = fmt::format("{} {}\n", net::name_of(request.method), request.path);
    for (const auto& [name, value] : request.query)
        if (name != "wait") text += fmt::format("{}={}\n", net::percent_encode(name), net::percent_encode(value));
    text += fmt::format("{}\n", request.headers.find("If-Match").value_or(""));
    text += request.body;
    return net::sha256_hex(text);
}

bool is_dry_run(const net::Request& request) { return request.query_value("dry_run") == "true"; }

}  // namespace

// While it lives, the key's request is being decided.
class Idempotency::Claim {
public:
    Claim(Idempotency& of, const base::IdempotencyKey& key) : of_(of), key_(key.key) {
        of_.undecided_.emplace(key.key, key.fingerprint);
    }
    ~Claim() {
        of_.undecided_.erase(key_);
        of_.decided_.notify();
    }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

private:
    Idempotency& of_;
    std::string key_;
};

asio::awaitable<net::Response> Idempotency::handle(net::Request request, const net::Handler& next) {
    const auto header = request.headers.find("Idempotency-Key");
    if (!header || is_dry_run(request)) co_return co_await next(std::move(request));
    if (!is_key(*header)) {
        base::Error fault{base::Errc::validation_failed, "Idempotency-Key: expected 1 to 255 visible ASCII characters"};
        fault.faults.push_back({"Idempotency-Key", "expected 1 to 255 visible ASCII characters"});
        co_return to_problem(fault, request.context);
    }
    const base::IdempotencyKey key{fmt::format("{} {}", request.context.who.text(), *header), fingerprint_of(request)};
    const auto deadline = clock_.now() + patience;
    for (;;) {
        const auto begun = answers_.operations.begun_with(key);
        if (!begun) co_return to_problem(begun.error(), request.context);
        if (*begun) co_return co_await repeat(request, *begun);
        const auto first = undecided_.find(key.key);
        if (first == undecided_.end()) break;
        if (first->second != key.fingerprint)
            co_return to_problem({base::Errc::idempotency_mismatch,
                                  "another request with this Idempotency-Key is being handled right now"},
                                 request.context);
        if (clock_.now() >= deadline)
            co_return to_problem(
                {base::Errc::overloaded, "the first request with this Idempotency-Key isn't decided yet"},
                request.context);
        // What it begins is known before it is answered.
        co_await decided_.wait_until(clock_, std::min(deadline, clock_.now() + look_again));
    }
    const Claim claim{*this, key};
    request.context.idempotency = key;
    co_return co_await next(std::move(request));
}

asio::awaitable<net::Response> Idempotency::repeat(const net::Request& request, OperationService::Ptr op) {
    auto again = request;
    const auto wait = read_change(again);
    if (!wait) co_return to_problem(wait.error(), request.context);
    auto response = request.path.ends_with("/cancel")
                        ? co_await answers_.cancelled(std::move(op), *wait)
                        : co_await answers_.accepted(std::move(op), *wait, request.context);
    response.headers.set("Idempotency-Replayed", "true");
    co_return response;
}

}  // namespace ghost::agent::api
