#include "agent/access/relay.hpp"

#include "agent/json_reader.hpp"
#include "agent/json_text.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>

#include <array>
#include <memory>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

Relay::Relay(const asio::any_io_executor& executor, net::WebSocket& client, FarEnd& far, VmIndex& vms,
             base::Clock& clock, Terms terms)
    : client_(client),
      far_(far),
      vms_(vms),
      clock_(clock),
      terms_(std::move(terms)),
      changed_(executor),
      last_data_(clock.now()) {}

void Relay::end(Ending how) {
    if (ending_) return;
    ending_ = std::move(how);
    far_.close();
    changed_.notify();
}

asio::awaitable<Ending> Relay::run() {
    using namespace asio::experimental::awaitable_operators;
    far_.begin(terms_.events);
    co_await (carry_up() && carry_down() && look_after());
    co_return ending_.value_or(Ending{Ending::our_fault, "it ended without a reason"});
}

asio::awaitable<void> Relay::carry_up() {
    // Most streams wait most of the time, for the few bytes with which a message begins.
    std::array<char, net::WebSocket::first_read> small;
    std::unique_ptr<char[]> large;
    while (!ending_) {
        const auto room = large ? asio::buffer(large.get(), buffer) : asio::buffer(small);
        auto got = co_await client_.read(room);
        if (ending_) break;
        const bool more = got.more;
        if (auto over = co_await take(std::move(got), static_cast<const char*>(room.data()))) end(*std::move(over));
        if (!more)
            large.reset();
        else if (!large)
            large = std::make_unique_for_overwrite<char[]>(buffer);
    }
}

asio::awaitable<std::optional<Ending>> Relay::take(net::WebSocket::Read got, const char* room) {
    std::string_view data;
    switch (got.kind) {
        case net::WebSocket::Kind::data: data = {room, got.bytes}; break;
        case net::WebSocket::Kind::text:
            if (terms_.events) co_return take_event(got.text);
            data = got.text;
            break;
        case net::WebSocket::Kind::closed: client_gone_ = true; co_return Ending{Ending::finished, "the client left"};
        case net::WebSocket::Kind::broken:
            client_gone_ = true;
            co_return Ending{Ending::finished, "the client's connection broke off"};
        case net::WebSocket::Kind::stopped: co_return Ending{Ending::agent_stops, "the agent is stopping"};
    }
    if (data.empty()) co_return std::nullopt;
    last_data_ = clock_.now();
    terms_.from_client(data.size());
    co_return co_await far_.write(data);
}

std::optional<Ending> Relay::take_event(const std::string& text) {
    const auto event = parse_json(text, 4);
    if (!event || !event->is_object() || !event->get_object().contains("event") ||
        !event->get_object().at("event").is_string())
        return Ending{Ending::broke_rules, "a text message is a JSON object with the text \"event\""};
    return far_.take(event->get_object());
}

asio::awaitable<void> Relay::carry_down() {
    while (!ending_) {
        co_await far_.ready();
        if (ending_) break;
        // No longer than there is something in it: most streams wait most of the time.
        const auto room = std::make_unique_for_overwrite<char[]>(buffer);
        auto got = co_await far_.read(asio::buffer(room.get(), buffer));
        if (ending_) break;
        if (got.kind == FarEnd::Got::Kind::ended) {
            end(std::move(got.ending));
        } else if (!co_await give(std::move(got), room.get())) {
            // Whoever reads from the client knows more, unless it waits for the far end.
            const auto limit = clock_.now() + second_thought;
            while (!ending_ && clock_.now() < limit) co_await changed_.wait_until(clock_, limit);
            end({Ending::finished, "the client's connection broke off"});
        }
    }
    // Here, since no write may be beside it.
    if (!client_gone_) co_await client_.close(ending_->code, ending_->reason);
    carries_down_ = false;
    changed_.notify();
}

asio::awaitable<bool> Relay::give(FarEnd::Got got, const char* room) {
    if (got.kind == FarEnd::Got::Kind::event)
        co_return !terms_.events || co_await client_.write_text(json_text(got.event));
    last_data_ = clock_.now();
    terms_.to_client(got.bytes);
    co_return co_await client_.write(asio::const_buffer(room, got.bytes));
}

asio::awaitable<void> Relay::look_after() {
    using namespace asio::experimental::awaitable_operators;
    while (!ending_) {
        const auto idle_at = last_data_ + terms_.idle;
        if (clock_.now() >= idle_at) end({Ending::idle, "nothing was sent for too long"});
        if (!terms_.vm.empty())
            if (auto over = ending_of(vms_.find(terms_.vm))) end(*std::move(over));
        if (!ending_) co_await (changed_.wait_until(clock_, idle_at) || vms_.changed().wait());
    }
    const auto limit = clock_.now() + farewell;
    while (carries_down_ && clock_.now() < limit) co_await changed_.wait_until(clock_, limit);
    if (carries_down_) client_.abort();
}

}  // namespace ghost::agent
