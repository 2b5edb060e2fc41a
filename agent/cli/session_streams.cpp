// What a session follows until Ctrl-C.
#include "agent/cli/event_stream.hpp"
#include "agent/cli/output.hpp"
#include "agent/cli/session.hpp"
#include "agent/cli/vm_watch.hpp"
#include "base/cancelled.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

// After events were missed, so that an agent that only ever says so isn't asked without pause.
constexpr std::chrono::seconds pause{1};

class EventPrinter final : public EventReader {
public:
    EventPrinter(const EventFilter& filter, Format format, Console& console)
        : filter_(filter), format_(format), console_(console) {}

    void take(const json::object& event) override {
        if (!filter_.accepts(event)) return;
        console_.out(format_ == Format::table ? event_line(event) : render_next(event, View::vm, format_));
    }
    [[nodiscard]] bool settle() override { return console_.has_reader(); }

private:
    const EventFilter& filter_;
    Format format_;
    Console& console_;
};

}  // namespace

asio::awaitable<Session::Done> Session::perform(FollowEvents action) {
    EventPrinter printer{action.filter, invocation_.format, console_};
    EventStream stream{agent_, clock_, console_};
    stream.resume_after(action.after);
    for (;;) {
        const auto end = co_await stream.follow(printer);
        if (!end) co_return std::unexpected{end.error()};
        if (*end == EventStream::End::stopped) co_return std::string{};
        console_.error("ghostctl: events were missed, which the agent keeps no more; going on from now\n");
        if (!co_await clock_.sleep_for(pause)) co_return std::string{};
    }
}

asio::awaitable<Session::Done> Session::perform(WatchVms action) {
    VmWatch watch{action.filter, invocation_.format, clock_, console_};
    EventStream stream{agent_, clock_, console_};
    Backoff backoff;
    for (bool listed = false;;) {
        auto listing = co_await agent_.list(action.filter.target());
        if (co_await base::is_cancelled()) co_return std::string{};
        if (!listing && !(listed && listing.error().passing)) co_return std::unexpected{std::move(listing.error())};
        if (!listing) {
            if (!co_await clock_.sleep_for(backoff.next())) co_return std::string{};
            continue;
        }
        listed = true;
        backoff.reset();
        watch.list(listing->items);
        stream.resume_after(std::move(listing->event_id));
        const auto end = co_await stream.follow(watch);
        if (!end) co_return std::unexpected{end.error()};
        if (*end == EventStream::End::stopped) co_return std::string{};
        if (!co_await clock_.sleep_for(pause)) co_return std::string{};
    }
}

}  // namespace ghost::cli
