#include "fakes/fake_web.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace ghost::fakes {
namespace {

namespace asio = boost::asio;
using base::Errc;

std::uint64_t first_byte(const net::Headers& headers) {
    auto range = headers.find("Range").value_or("");
    if (!range.starts_with("bytes=")) return 0;
    range.remove_prefix(6);
    std::uint64_t from = 0;
    std::from_chars(range.data(), range.data() + range.size(), from);
    return from;
}

net::WebFailure cut() {
    return {{Errc::source_unavailable, "the connection was closed before the response was complete"}};
}

asio::awaitable<bool> is_cancelled() {
    co_return (co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none;
}

}  // namespace

std::size_t FakeWeb::asked_for(std::string_view url) const {
    return static_cast<std::size_t>(std::ranges::count(asked, url, &Asked::url));
}

asio::awaitable<FakeWeb::Answer> FakeWeb::get(net::WebRequest request) {
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    ++under_way_;
    co_await asio::post(asio::use_awaitable);
    auto result = co_await answer(request);
    --under_way_;
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return result;
}

asio::awaitable<FakeWeb::Answer> FakeWeb::answer(const net::WebRequest& request) {
    const auto from = first_byte(request.headers);
    const auto if_range = request.headers.find("If-Range");
    asked.push_back({request.url, from, std::string{if_range.value_or("")}});
    net::WebResponse head{.status = 404, .url = request.url};
    const auto found = sites.find(request.url);
    if (found == sites.end()) co_return head;
    auto& site = found->second;
    Fault fault;
    if (!site.faults.empty()) {
        fault = std::move(site.faults.front());
        site.faults.pop_front();
    }
    if (fault.failure) co_return std::unexpected{*fault.failure};
    head.headers = fault.headers;
    head.status = fault.status != 0 ? fault.status : 200;
    if (fault.status != 0) co_return head;
    auto body = site.bytes;
    if (!site.etag.empty()) head.headers.add("ETag", site.etag);
    if (site.ranges && from > 0 && (!if_range || *if_range == site.etag)) {
        if (from >= body.size()) {
            head.status = 416;
            co_return head;
        }
        head.status = 206;
        head.headers.add("Content-Range", fmt::format("bytes {}-{}/{}", from, body.size() - 1, body.size()));
        body.erase(0, from);
    }
    if (site.length) head.headers.add("Content-Length", std::to_string(body.size()));
    body.append(fault.extra, 'x');
    co_return co_await send(request, std::move(head), std::move(body), fault.cut_after);
}

asio::awaitable<FakeWeb::Answer> FakeWeb::send(const net::WebRequest& request, net::WebResponse head, std::string body,
                                               std::optional<std::uint64_t> cut_after) {
    if (!request.on_body) {
        if (body.size() > request.max_body)
            co_return std::unexpected{net::WebFailure{{Errc::body_too_large, "the answer is too large"}, true}};
        head.body = std::move(body);
        co_return head;
    }
    if (request.on_head && !request.on_head(head)) co_return head;
    const auto end = std::min<std::uint64_t>(body.size(), cut_after.value_or(body.size()));
    for (std::uint64_t at = 0; at < end; at += piece) {
        if (before_piece) co_await before_piece(request.url, at);
        co_await asio::post(asio::use_awaitable);
        if (co_await is_cancelled()) co_return std::unexpected{net::WebFailure{{Errc::cancelled, {}}}};
        if (!request.on_body(std::string_view{body}.substr(at, std::min<std::uint64_t>(piece, end - at))))
            co_return head;
        if (request.ready_for_more && !co_await request.ready_for_more()) co_return head;
    }
    if (cut_after && *cut_after < body.size()) co_return std::unexpected{cut()};
    co_return head;
}

}  // namespace ghost::fakes
