#include "agent/host/drain.hpp"

#include "agent/json_reader.hpp"
#include "agent/json_text.hpp"

#include <boost/asio/this_coro.hpp>
#include <boost/json/object.hpp>
#include <fmt/format.h>

#include <utility>
#include <vector>

namespace ghost::agent {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

constexpr std::string_view drain_fact = "drain";  // in the database

std::string text_in(const json::object& document, std::string_view key) {
    const auto* const value = document.if_contains(key);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

// What was asked for was done when it was accepted.
asio::awaitable<Outcome> done(OperationControl&) { co_return Outcome{}; }

}  // namespace

// The time in milliseconds since 1970: what is shown is made of it anew.
std::string Drain::to_fact(const std::optional<State>& state) {
    if (!state) return "null";
    return json_text(
        json::object{{"since_ms", base::to_unix_ms(state->since)}, {"reason", state->reason}, {"by", state->by}});
}

void Drain::restore(const std::map<std::string, std::string>& facts) {
    const auto fact = facts.find(std::string{drain_fact});
    if (fact == facts.end()) return;
    const auto document = parse_json(fact->second);
    if (document && document->is_null()) return;
    if (!document || !document->is_object()) {
        state_ = State{clock_.wall(), "the record of a drain is damaged", "agent"};
        return;
    }
    const auto& kept = document->get_object();
    const auto* const since = kept.if_contains("since_ms");
    const bool known = since != nullptr && since->is_int64();
    state_ = State{known ? base::from_unix_ms(since->get_int64()) : clock_.wall(), text_in(kept, "reason"),
                   text_in(kept, "by")};
}

json::value Drain::to_json(const std::optional<State>& state) {
    if (!state) return nullptr;
    const auto reason = state->reason.empty() ? json::value(nullptr) : json::value(state->reason);
    return json::object{{"since", base::rfc3339(state->since)}, {"reason", reason}, {"by", state->by}};
}

json::value Drain::to_json() const { return to_json(state_); }

base::Result<void> Drain::refusal() const {
    if (!state_) return {};
    const auto why = state_->reason.empty() ? std::string{"no reason was given"} : state_->reason;
    base::Error error{base::Errc::draining,
                      fmt::format("the agent has taken no new VMs since {}: {} (said by {}); POST /v1/agent/undrain "
                                  "ends that",
                                  base::rfc3339(state_->since), why, state_->by)};
    error.facts["drain"] = to_json();
    return base::fail(std::move(error));
}

Drain::Begun Drain::begin(base::Context context, std::string reason) {
    const auto turn = co_await turns_.take();
    if (!turn) co_return base::fail(base::Errc::cancelled);
    auto next = state_;
    std::string would;
    if (!next) {
        next = State{clock_.wall(), std::move(reason), context.who.text()};
        would = "take no new VMs";
    } else if (!reason.empty() && reason != next->reason) {
        next = State{next->since, std::move(reason), context.who.text()};
        would = "change the reason for taking no new VMs";
    }
    co_return co_await change(std::move(context), "agent.drain", std::move(next), std::move(would));
}

Drain::Begun Drain::end(base::Context context) {
    const auto turn = co_await turns_.take();
    if (!turn) co_return base::fail(base::Errc::cancelled);
    co_return co_await change(std::move(context), "agent.undrain", std::nullopt, state_ ? "take new VMs again" : "");
}

Drain::Begun Drain::change(base::Context context, std::string kind, std::optional<State> next, std::string would) {
    OperationRequest operation;
    operation.kind = std::move(kind);
    operation.target = {"agent", "agent", "agent"};
    operation.context = std::move(context);
    operation.exclusive = false;
    operation.result_href = "/v1";
    if (operation.context.dry_run) {
        if (!would.empty()) operation.would.push_back(std::move(would));
        co_return operations_.preview(std::move(operation));
    }
    operation.accept_with.emplace_back(storage::FactRow{std::string{drain_fact}, to_fact(next)});
    auto begun = co_await operations_.begin(std::move(operation), done);
    if (!begun) co_return begun;
    state_ = std::move(next);
    if (on_change) on_change();
    co_return begun;
}

void Drain::recover(const Operation& operation) { operations_.resume(operation.id, done); }

base::Result<std::string> drain_reason_of(const json::value& body) {
    std::optional<std::string> reason;
    const auto read =
        read_object(body, [&](JsonReader& reader) { reason = reader.string("reason", Drain::max_reason); });
    if (!read) return base::fail(read.error());
    return std::move(reason).value_or("");
}

}  // namespace ghost::agent
