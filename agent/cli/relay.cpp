#include "agent/cli/relay.hpp"

#include "agent/cli/json_access.hpp"
#include "base/cancelled.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/json/serialize.hpp>

#include <utility>
#include <vector>

namespace ghost::cli {
namespace asio = boost::asio;
namespace json = boost::json;
using Kind = net::WebSocket::Kind;
using namespace asio::experimental::awaitable_operators;

namespace {

constexpr auto normal = static_cast<std::uint16_t>(net::CloseCode::normal);

}  // namespace

Relay::Relay(const asio::any_io_executor& executor, base::Clock& clock, net::WebSocket& socket, ByteChannel& channel,
             RelayRules rules)
    : clock_(clock),
      socket_(socket),
      channel_(channel),
      rules_(std::move(rules)),
      to_send_(executor),
      room_(executor),
      never_(executor) {}

// Only collect() reads the channel, only send() writes to the socket, and only receive() reads it: whichever ends first
// cancels the others. So that no goodbye is cut short, receive() waits for send() to have said it.
asio::awaitable<RelayEnd> Relay::run() {
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await (receive() || send() || collect());
    if (co_await base::is_cancelled()) end_ = {RelayEnd::Kind::left};
    if (end_.kind == RelayEnd::Kind::left && !closing_) co_await say_goodbye();
    co_return std::move(end_);
}

asio::awaitable<void> Relay::until_cancelled() {
    while (!co_await base::is_cancelled()) co_await never_.wait();
}

asio::awaitable<void> Relay::say_goodbye() {
    closing_ = true;
    co_await socket_.close(normal, {});
}

void Relay::tell(const json::object& event) {
    if (socket_.protocol().empty()) return;
    event_ = json::serialize(event);
    to_send_.notify();
}

void Relay::take_event(const std::string& text) {
    const auto document = parse_document(text);
    if (!document || !document->is_object()) return;
    const auto& event = document->get_object();
    if (text_at(event, "event") == "eof") {
        output_ended_ = true;
        channel_.end_writing();
        to_send_.notify();
    } else if (rules_.on_event) {
        rules_.on_event(event);
    }
}

asio::awaitable<void> Relay::receive() {
    co_await asio::this_coro::throw_if_cancelled(false);
    std::vector<char> bytes(piece);
    for (;;) {
        const auto read = co_await socket_.read(asio::buffer(bytes));
        switch (read.kind) {
            case Kind::data:
                if (read.bytes > 0 && !co_await channel_.write(asio::buffer(bytes.data(), read.bytes))) {
                    end_ = {RelayEnd::Kind::left};
                    co_return;
                }
                break;
            case Kind::text:
                if (!socket_.protocol().empty()) take_event(read.text);
                break;
            case Kind::closed:
            case Kind::broken:
            case Kind::stopped:
                if (closing_)
                    co_await until_cancelled();
                else if (read.kind == Kind::closed)
                    end_ = {RelayEnd::Kind::closed, read.code, read.text};
                co_return;
        }
        if (co_await base::is_cancelled()) co_return;
    }
}

asio::awaitable<void> Relay::collect() {
    co_await asio::this_coro::throw_if_cancelled(false);
    std::vector<char> bytes(piece);
    while (!input_ended_ && !leaving_) {
        while (waiting_.size() >= most_waiting) {
            co_await room_.wait();
            if (co_await base::is_cancelled()) co_return;
        }
        const auto got = co_await channel_.read(asio::buffer(bytes));
        if (co_await base::is_cancelled()) co_return;
        std::string_view typed{bytes.data(), got.value_or(0)};
        if (const auto at = rules_.leave_at ? typed.find(*rules_.leave_at) : std::string_view::npos;
            at != std::string_view::npos) {
            typed = typed.substr(0, at);
            leaving_ = true;
        }
        waiting_ += typed;
        if (!got) leaving_ = true;
        if (got && *got == 0) input_ended_ = true;
        to_send_.notify();
    }
    if (leaving_) {
        end_ = {RelayEnd::Kind::left};
        // To be cancelled by send(), unless the agent takes nothing any more.
        (void)co_await clock_.sleep_for(farewell);
        co_return;
    }
    co_await until_cancelled();
}

asio::awaitable<void> Relay::send() {
    co_await asio::this_coro::throw_if_cancelled(false);
    const bool has_control = !socket_.protocol().empty();
    bool connected = true;
    while (!co_await base::is_cancelled()) {
        if (!connected) {
            co_await until_cancelled();  // receive() learns why
        } else if (!event_.empty()) {
            connected = co_await socket_.write_text(std::exchange(event_, {}));
        } else if (!waiting_.empty()) {
            const auto bytes = std::exchange(waiting_, {});
            room_.notify();
            connected = co_await socket_.write(asio::buffer(bytes));
        } else if (leaving_) {
            co_return co_await say_goodbye();
        } else if (input_ended_ && !told_end_ && rules_.input_end == InputEnd::tell && has_control) {
            told_end_ = true;
            connected = co_await socket_.write_text(R"({"event":"eof"})");
        } else if (input_ended_ && rules_.input_end != InputEnd::stay && (!told_end_ || output_ended_)) {
            end_ = {RelayEnd::Kind::closed, normal, {}};
            co_return co_await say_goodbye();
        } else {
            co_await to_send_.wait();
        }
    }
}

}  // namespace ghost::cli
