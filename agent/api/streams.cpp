// The ways into a VM: console, display and ports as WebSockets, and what of them
// is read at once.
#include "agent/access/stream_service.hpp"
#include "agent/api/origin.hpp"
#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"
#include "agent/json_reader.hpp"
#include "net/websocket.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

using base::Errc;

constexpr std::uint64_t default_tail = 64 * 1024;
constexpr std::uint64_t max_tail = 1024 * 1024;

struct StreamRoute {
    std::string_view pattern;
    StreamKind kind;
};
constexpr std::array<StreamRoute, 3> stream_routes{{{"/v1/vms/{vm}/console", StreamKind::console},
                                                    {"/v1/vms/{vm}/vnc", StreamKind::vnc},
                                                    {"/v1/vms/{vm}/forward", StreamKind::forward}}};

// What a client asks of a stream.
struct Wish {
    StreamKind kind = StreamKind::console;
    std::optional<std::string> ticket = {};
    StreamService::ConsoleWish console = {};
    std::uint16_t port = 0;
};

base::Result<Wish> read_wish(const net::Request& request, StreamKind kind) {
    QueryReader query{request};
    Wish wish{.kind = kind, .ticket = query.text("ticket")};
    if (kind == StreamKind::console) {
        wish.console.force = query.boolean("force").value_or(false);
        wish.console.read_only = query.boolean("read_only").value_or(false);
        if (wish.console.force && wish.console.read_only)
            query.fault("force", "is for writers; with read_only nothing is written");
    }
    if (kind == StreamKind::forward) {
        const bool given = request.query_value("port").has_value();
        if (const auto port = query.integer("port", 1, UINT16_MAX)) wish.port = static_cast<std::uint16_t>(*port);
        if (!given) query.fault("port", "is required: the guest's port to connect to");
    }
    if (const auto done = query.finish(); !done) return base::fail(done.error());
    return wish;
}

// What the client has to do first, or who asks: by a ticket whoever it was issued to.
base::Result<void> admit(StreamService& streams, net::Request& request, const Wish& wish) {
    if (request.method != net::Method::get)
        return base::fail(Errc::upgrade_required, "it is served as a WebSocket; GET it with Upgrade: websocket");
    if (const auto asks = net::asks_for_websocket(request); !asks) return asks;
    if (wish.ticket) {
        auto who = streams.redeem(*wish.ticket, request.params.at("vm"), wish.kind, wish.port);
        if (!who) return base::fail(std::move(who).error());
        request.context.who = *std::move(who);
        return {};
    }
    if (!from_own_page(request))
        return base::fail(Errc::forbidden, "a page of another origin needs a ticket (POST /v1/vms/{vm}/tickets)");
    return {};
}

StreamService::Task<StreamService::Serve> open(StreamService& streams, const net::Request& request, const Wish& wish) {
    auto vm = request.params.at("vm");
    switch (wish.kind) {
        case StreamKind::console: return streams.console(request.context, std::move(vm), wish.console);
        case StreamKind::vnc: return streams.display(request.context, std::move(vm));
        case StreamKind::forward: break;
    }
    return streams.forward(request.context, std::move(vm), wish.port);
}

asio::awaitable<net::Response> stream(StreamService& streams, net::Request request, StreamKind kind) {
    const auto wish = read_wish(request, kind);
    if (!wish) co_return to_problem(wish.error(), request.context);
    if (const auto admitted = admit(streams, request, *wish); !admitted) {
        auto refused = to_problem(admitted.error(), request.context);
        if (admitted.error().code == Errc::upgrade_required) refused.headers.set("Upgrade", "websocket");
        co_return refused;
    }
    auto serve = co_await open(streams, request, *wish);
    if (!serve) co_return to_problem(serve.error(), request.context);
    co_return net::websocket_reply(request, {StreamService::protocol}, *std::move(serve));
}

struct TicketWish {
    StreamKind kind = StreamKind::console;
    std::uint16_t port = 0;
};

base::Result<TicketWish> read_ticket_wish(const net::Request& request) {
    const auto body = read_body(request);
    if (!body) return base::fail(body.error());
    TicketWish wish;
    const auto read = read_object(*body, [&](JsonReader& reader) {
        reader.require("for");
        if (const auto what = reader.one_of("for", {"console", "vnc", "forward"}))
            for (const auto& route : stream_routes)
                if (name_of(route.kind) == *what) wish.kind = route.kind;
        if (const auto port = reader.integer("port", 1, UINT16_MAX)) wish.port = static_cast<std::uint16_t>(*port);
        if (wish.kind == StreamKind::forward)
            reader.require("port");
        else if (reader.has("port"))
            reader.fault("port", "is for forward alone");
    });
    if (!read) return base::fail(read.error());
    return wish;
}

net::Response issue(StreamService& streams, const net::Request& request) {
    if (const auto none = no_query(request); !none) return to_problem(none.error(), request.context);
    const auto wish = read_ticket_wish(request);
    if (!wish) return to_problem(wish.error(), request.context);
    const auto issued = streams.issue(request.context.who, request.params.at("vm"), wish->kind, wish->port);
    if (!issued) return to_problem(issued.error(), request.context);
    auto response =
        json_reply(201, json::object{{"ticket", issued->text}, {"expires_at", base::rfc3339(issued->expires_at)}});
    response.headers.set("Cache-Control", "no-store");
    return response;
}

asio::awaitable<net::Response> console_log(StreamService& streams, net::Request request) {
    QueryReader query{request};
    const auto tail = query.integer("tail", 1, max_tail).value_or(default_tail);
    if (const auto done = query.finish(); !done) co_return to_problem(done.error(), request.context);
    auto text = co_await streams.console_log(request.params.at("vm"), static_cast<std::size_t>(tail));
    if (!text) co_return to_problem(text.error(), request.context);
    net::Response response;
    response.content_type = "text/plain; charset=utf-8";
    response.body = *std::move(text);
    mark_as_guests(response);
    co_return response;
}

asio::awaitable<net::Response> screenshot(StreamService& streams, net::Request request) {
    if (const auto none = no_query(request); !none) co_return to_problem(none.error(), request.context);
    const auto taken = co_await streams.screenshot(request.params.at("vm"));
    if (!taken) co_return to_problem(taken.error(), request.context);
    const auto& shot = **taken;
    net::Response response;
    if (not_modified(request, shot.etag)) {
        response = not_modified_reply(shot.etag);
    } else {
        response.content_type = shot.picture.media_type;
        response.body = shot.picture.bytes;
        response.headers.set("ETag", shot.etag);
    }
    mark_as_guests(response);
    co_return response;
}

}  // namespace

bool takes_ticket(net::Method method, std::string_view pattern) {
    return method == net::Method::get &&
           std::ranges::any_of(stream_routes, [&](const auto& route) { return route.pattern == pattern; });
}

void add_stream_routes(net::Router& router, StreamService& streams) {
    using net::Method;
    for (const auto& route : stream_routes)
        router.add(Method::get, route.pattern,
                   [&streams, kind = route.kind](net::Request r) { return stream(streams, std::move(r), kind); });
    router.add(Method::post, "/v1/vms/{vm}/tickets",
               [&streams](net::Request r) -> asio::awaitable<net::Response> { co_return issue(streams, r); });
    router.add(Method::get, "/v1/vms/{vm}/console/log",
               [&streams](net::Request r) { return console_log(streams, std::move(r)); });
    router.add(Method::get, "/v1/vms/{vm}/screenshot",
               [&streams](net::Request r) { return screenshot(streams, std::move(r)); });
}

}  // namespace ghost::agent::api
