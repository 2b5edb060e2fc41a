// The event stream (server-sent events, text/event-stream).
#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"

#include <boost/asio/this_coro.hpp>

#include <memory>
#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds ping_interval{15};

net::Chunk text(std::string_view what) { return std::make_shared<const std::string>(what); }

// One reader's place in the stream. What it hasn't got yet isn't queued for it: it stays in the log that all share, and
// a reader that is slower than the log is long is sent away.
struct Reader {
    EventLog& events;
    base::Clock& clock;
    std::uint64_t seen = 0;
    bool greeted = false;
};

asio::awaitable<net::Chunk> next_chunk(std::shared_ptr<Reader> reader) {
    static const auto greeting = text(": Ghost Agent's events\nretry: 1000\n\n");
    static const auto ping = text(": ping\n\n");
    if (!std::exchange(reader->greeted, true)) co_return greeting;
    const auto pinged_at = reader->clock.now() + ping_interval;
    for (;;) {
        if (reader->events.closed() || !reader->events.can_resume(reader->seen)) co_return nullptr;
        if (const auto event = reader->events.next(reader->seen)) {
            reader->seen = event->id;
            co_return event->text;
        }
        if (reader->clock.now() >= pinged_at) co_return ping;
        co_await reader->events.more().wait_until(reader->clock, pinged_at);
    }
}

// Where the reader wants to go on: after the event that it saw last, or from now.
base::Result<std::uint64_t> read_place(const EventLog& events, const net::Request& request) {
    QueryReader query{request};
    auto after = query.integer("after", 0, UINT64_MAX);
    if (const auto done = query.finish(); !done) return base::fail(done.error());
    // The header is newer: a browser that connects again sends it, and the address as it was.
    if (const auto header = request.headers.find("Last-Event-ID"); header && !header->empty()) {
        after = to_number(*header);
        // What is no number is none of our ids.
        if (!after)
            return base::fail(base::Errc::events_expired, "Last-Event-ID is no id of this agent's events; list again");
    }
    if (!after) return events.last_id();
    if (const auto kept = events.can_resume(*after); !kept) return base::fail(kept.error());
    return *after;
}

net::Response follow(EventLog& events, base::Clock& clock, const net::Request& request) {
    const auto place = read_place(events, request);
    if (!place) return to_problem(place.error(), request.context);
    net::Response response;
    response.content_type = "text/event-stream";
    response.headers.set("Cache-Control", "no-store");
    response.headers.set("Ghost-Event-Id", std::to_string(*place));
    response.stream = [reader = std::make_shared<Reader>(Reader{events, clock, *place})] { return next_chunk(reader); };
    return response;
}

}  // namespace

void add_event_routes(net::Router& router, EventLog& events, base::Clock& clock) {
    router.add(net::Method::get, "/v1/events", [&events, &clock](net::Request r) -> asio::awaitable<net::Response> {
        co_return follow(events, clock, r);
    });
}

}  // namespace ghost::agent::api
