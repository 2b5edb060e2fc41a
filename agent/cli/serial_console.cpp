#include "agent/cli/serial_console.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/query.hpp"
#include "agent/cli/relay.hpp"
#include "agent/cli/stream_end.hpp"
#include "agent/cli/text.hpp"
#include "base/cancelled.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

json::object size_event(const Screen& size) {
    return {{"event", "resize"}, {"rows", size.rows}, {"columns", size.columns}};
}

// Until it is cancelled.
asio::awaitable<void> pass_on_size(Relay& relay, Stdio& stdio) {
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!co_await base::is_cancelled()) {
        if (const auto size = stdio.size()) relay.tell(size_event(*size));
        co_await stdio.resized();
    }
}

struct Connected {
    Stdio& stdio;
    base::Clock& clock;
    ConsoleNotices& notices;
    bool raw;
};

asio::awaitable<Outcome<RelayEnd>> pass_on(net::WebSocket& socket, Connected with) {
    auto channel = with.stdio.open(with.raw);
    if (!channel) {
        co_await socket.close(static_cast<std::uint16_t>(net::CloseCode::normal), {});
        co_return std::unexpected{Failure{ExitCode::failed, channel.error().detail}};
    }
    RelayRules rules{InputEnd::stay};
    if (with.raw) rules.leave_at = leave_key;
    Relay* passing = nullptr;
    rules.on_event = [with, &passing](const json::object& event) {
        with.notices.take(event);
        // The size is the writer's to say, and so is new to the guest when the writer is.
        if (bool_at(event, "writer") == true && with.raw)
            if (const auto size = with.stdio.size()) passing->tell(size_event(*size));
    };
    Relay relay{co_await asio::this_coro::executor, with.clock, socket, **channel, std::move(rules)};
    passing = &relay;
    with.notices.greet();
    if (!with.raw) co_return co_await relay.run();
    using namespace asio::experimental::awaitable_operators;
    auto end = co_await (relay.run() || pass_on_size(relay, with.stdio));
    // The size is passed on for as long as the relay runs, unless all was cancelled.
    co_return end.index() == 0 ? std::get<0>(std::move(end)) : RelayEnd{RelayEnd::Kind::left};
}

}  // namespace

void ConsoleNotices::tell(std::string_view text) {
    console_.error(raw_ ? fmt::format("\r\n[ghostctl: {}]\r\n", printable(text))
                        : fmt::format("ghostctl: {}\n", printable(text)));
}

void ConsoleNotices::greet() {
    tell(fmt::format("connected to the console of {}{}{}", vm_, raw_ ? "; Ctrl-] leaves it" : "",
                     read_only_ ? "; you only read" : ""));
}

void ConsoleNotices::take(const json::object& event) {
    const auto kind = text_at(event, "event");
    if (kind == "skipped") {
        const auto bytes = number_at(event, "bytes");
        tell(fmt::format("{} of output left out: this end was too slow", bytes ? human_bytes(*bytes) : "some"));
    }
    if (kind != "writer" || read_only_) return;
    const bool first = !std::exchange(knows_writer_, true);
    if (bool_at(event, "writer") == true) return tell(first ? "you write" : "you write now");
    auto by = text_at(event, "by");
    if (by.empty()) by = "somebody else";
    tell(fmt::format("{} writes{}, you only read{}", by, first ? "" : " now", first ? "; --force takes over" : ""));
}

asio::awaitable<Outcome<std::string>> use_console(OpenConsole action, AgentStreams& streams, Stdio& stdio,
                                                  base::Clock& clock, Console& console) {
    auto target = action.vm.target + "/console";
    if (action.force) add_query(target, "force", "true");
    if (action.read_only) add_query(target, "read_only", "true");
    auto socket = co_await streams.open(std::move(target));
    if (!socket) co_return std::unexpected{std::move(socket.error())};
    const bool raw = stdio.input_is_terminal();
    ConsoleNotices notices{console, action.vm.name, action.read_only, raw};
    const auto end = co_await pass_on(**socket, {stdio, clock, notices, raw});
    if (!end) co_return std::unexpected{end.error()};
    if (raw) console.error("\n");
    if (auto failure = failure_of_stream(*end, fmt::format("the console of {}", action.vm.name)))
        co_return std::unexpected{std::move(*failure)};
    if (end->kind == RelayEnd::Kind::closed)
        console.error(
            fmt::format("ghostctl: {}\n", end->reason.empty() ? "the console was closed" : printable(end->reason)));
    else if (raw)
        console.error(fmt::format("ghostctl: left the console of {}\n", printable(action.vm.name)));
    co_return std::string{};
}

}  // namespace ghost::cli
