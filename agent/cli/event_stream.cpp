#include "agent/cli/event_stream.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/text.hpp"
#include "base/cancelled.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

constexpr unsigned gone = 410;

// The newest event, as a 410 names it.
std::string newest_in(const net::ClientResponse& response) {
    const auto problem = parse_document(response.body);
    if (!problem || !problem->is_object()) return {};
    const auto* newest = problem->get_object().if_contains("newest");
    return newest != nullptr && to_number(*newest) ? to_text(*newest) : std::string{};
}

}  // namespace

std::chrono::seconds Backoff::next() {
    constexpr std::chrono::seconds longest{10};
    span_ = std::clamp(span_ * 2, std::chrono::seconds{1}, longest);
    return span_;
}

// A stream that begins with what happens from now on and is cut before anything did has to know where that was.
asio::awaitable<std::optional<Failure>> EventStream::find_place() {
    auto last = co_await agent_.last_event();
    if (!last) co_return std::move(last.error());
    place_ = std::move(*last);
    co_return std::nullopt;
}

bool EventStream::take(Connection& connection, std::string_view piece) {
    was_connected_ = true;
    backoff_.reset();
    if (std::exchange(outage_told_, false)) console_.error("ghostctl: connected again\n");
    for (const auto& event : connection.parser.feed(piece)) {
        if (const auto document = parse_document(event.data); document && document->is_object())
            connection.reader.take(document->get_object());
        if (!event.id.empty()) place_ = event.id;
    }
    connection.stopped = !connection.reader.settle();
    return !connection.stopped && !connection.parser.overflowed();
}

Failure EventStream::why_ended(const Connection& connection, Outcome<net::ClientResponse> answer) const {
    if (!answer) return std::move(answer.error());
    if (answer->status / 100 != 2) return failure_of_answer(*answer, AgentClient::events_target);
    const bool is_stream = answer->headers.find("Content-Type").value_or("").starts_with("text/event-stream");
    if (!is_stream || connection.parser.overflowed())
        return {ExitCode::failed, "the answer is no stream of events", {}, "is that a ghost-agent?"};
    Failure ended{ExitCode::no_agent, "the agent ended it"};
    ended.passing = true;
    return ended;
}

void EventStream::tell_of_outage(const Failure& why) {
    if (std::exchange(outage_told_, true)) return;
    console_.error(
        fmt::format("ghostctl: the stream of events broke: {}; connecting again\n", printable(why.sentence)));
}

asio::awaitable<Outcome<EventStream::End>> EventStream::follow(EventReader& reader) {
    if (place_.empty()) {
        auto failure = co_await find_place();
        if (co_await base::is_cancelled()) co_return End::stopped;
        if (failure) co_return std::unexpected{std::move(*failure)};
    }
    for (;;) {
        Connection connection{reader};
        auto answer = co_await agent_.events(
            place_, [this, &connection](std::string_view piece) { return take(connection, piece); });
        if (connection.stopped || co_await base::is_cancelled()) co_return End::stopped;
        if (answer && answer->status == gone) {
            place_ = newest_in(*answer);
            co_return End::expired;
        }
        auto why = why_ended(connection, std::move(answer));
        if (!was_connected_ || !why.passing) co_return std::unexpected{std::move(why)};
        tell_of_outage(why);
        if (!co_await clock_.sleep_for(backoff_.next())) co_return End::stopped;
    }
}

}  // namespace ghost::cli
