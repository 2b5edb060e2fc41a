// Request targets, percent-encoding and routes: whatever comes, what they promise holds.
#include "net/http.hpp"
#include "net/router.hpp"
#include "net/text.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>

using namespace ghost;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

const net::Router& sample() {
    static const net::Router router = [] {
        net::Router made;
        const auto handler = [](net::Request request) -> boost::asio::awaitable<net::Response> {
            for (const auto& [name, value] : request.params) must(!value.empty() && net::is_utf8(value));
            co_return net::Response{};
        };
        made.add(net::Method::get, "/v1/vms", handler);
        made.add(net::Method::get, "/v1/vms/{vm}", handler);
        made.add(net::Method::post, "/v1/vms/{vm}/start", handler);
        made.add(net::Method::get, "/v1/vms/{vm}/{what}/{part}", handler);
        return made;
    }();
    return router;
}

void route(net::Method method, const net::Target& target) {
    net::Request request;
    request.method = method;
    request.path = target.path;
    request.query = target.query;
    boost::asio::io_context loop{1};
    unsigned status = 0;
    boost::asio::co_spawn(loop, sample().serve(std::move(request)),
                          [&](const std::exception_ptr& error, const net::Response& response) {
                              must(!error);
                              status = response.status;
                          });
    loop.run();
    const bool matched = sample().pattern_of(method, target.path) != "unmatched";
    must(matched == (status == 200));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text{reinterpret_cast<const char*>(data), size};
    if (const auto decoded = net::percent_decode(text))
        must(net::percent_decode(net::percent_encode(*decoded)).has_value());
    must(net::percent_decode(net::percent_encode(text)).value_or("") == text || text.find('\0') != text.npos);
    static_cast<void>(net::is_traceparent(text));
    static_cast<void>(net::list_has(text, "close"));
    const auto target = net::parse_target(text);
    if (!target) return 0;
    must(target->path.starts_with('/') || target->path == "*");
    for (const auto& [name, value] : target->query) must(net::is_utf8(name) && net::is_utf8(value));
    route(net::Method::get, *target);
    route(net::Method::post, *target);
    return 0;
}
