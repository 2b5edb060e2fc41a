#include "heartbeat/sender.hpp"

#include "base/cancelled.hpp"
#include "base/within.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

namespace ghost::heartbeat {
namespace asio = boost::asio;

Sender::Sender(const asio::any_io_executor& executor, Parts parts, Credentials credentials, std::string token_hash)
    : p_(parts),
      credentials_(std::move(credentials)),
      token_hash_(std::move(token_hash)),
      wake_(executor),
      interrupted_(executor),
      told_(executor),
      more_to_keep_(executor) {}

void Sender::changed() {
    p_.link.changed(p_.clock.now());
    wake_.notify();
}

void Sender::facts_added() {
    p_.link.facts_added(p_.clock.now());
    wake_.notify();
}

void Sender::addresses_changed() {
    p_.link.addresses_changed();
    wake_.notify();
}

void Sender::interrupt(Interruption why) {
    interruption_ = std::max(interruption_, why);
    if (why == Interruption::wake || p_.link.suspend_told()) interrupted_.notify();
    wake_.notify();
}

void Sender::apply_interruption() {
    const auto why = std::exchange(interruption_, Interruption::none);
    if (why == Interruption::none) return;
    p_.core.drop();
    if (why == Interruption::wake)
        p_.link.woke(p_.clock.now(), p_.clock.wall());
    else
        p_.link.network_changed(p_.clock.now(), p_.clock.wall());
}

asio::awaitable<void> Sender::run() {
    using namespace asio::experimental::awaitable_operators;
    co_await asio::this_coro::throw_if_cancelled(false);
    running_ = true;
    co_await (send_forever() && keep_forever());
    running_ = false;
    told_.notify();
}

asio::awaitable<void> Sender::send_forever() {
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!co_await base::is_cancelled()) {
        apply_interruption();
        note_state();
        auto step = p_.link.next(p_.clock.now(), p_.clock.wall());
        if (const auto* idle = std::get_if<Link::Idle>(&step)) {
            co_await wake_.wait_until(p_.clock, idle->until);
            continue;
        }
        const auto& call = std::get<CoreCall>(step);
        const auto sent = p_.clock.now();
        const auto answer = co_await send(call);
        if (co_await base::is_cancelled()) break;
        auto effects = p_.link.took(call, answer, sent, p_.clock.now(), p_.clock.wall());
        co_await apply(std::move(effects));
        told_.notify();
    }
}

asio::awaitable<base::Result<CoreAnswer>> Sender::send(CoreCall call) {
    using namespace asio::experimental::awaitable_operators;
    const auto limit = call.timeout;
    if (interruption_ != Interruption::none) co_return base::fail(base::Errc::cancelled, "given up");
    auto first = co_await (base::within(p_.clock, limit, p_.core.send(std::move(call))) || interrupted_.wait());
    if (first.index() == 1) co_return base::fail(base::Errc::cancelled, "given up");
    auto answer = std::get<0>(std::move(first));
    if (!answer && answer.error().code == base::Errc::deadline_exceeded)
        answer.error().detail = "Core didn't answer in time";
    co_return answer;
}

void Sender::note_warnings() {
    std::vector<std::string> now;
    for (const auto& warning : p_.link.status().warnings) {
        now.emplace_back(warning.type);
        if (std::ranges::find(noted_warnings_, warning.type) == noted_warnings_.end())
            p_.log.warn("the link to Ghost Core has a fault", {{"type", warning.type}, {"why", warning.message}});
    }
    for (const auto& type : noted_warnings_)
        if (std::ranges::find(now, type) == now.end())
            p_.log.info("a fault of the link to Ghost Core is over", {{"type", type}});
    noted_warnings_ = std::move(now);
}

// Each change of the link's state is told once, in words.
void Sender::note_state() {
    note_warnings();
    const auto& status = p_.link.status();
    if (status.state == noted_) return;
    noted_ = status.state;
    base::Fields fields{{"state", name_of(status.state)}, {"url", status.url}};
    if (!status.detail.empty()) fields.emplace_back("why", status.detail);
    const bool good = status.state == LinkState::connected || status.state == LinkState::connecting ||
                      status.state == LinkState::enrolling;
    p_.log.write(good ? base::Level::info : base::Level::warn, "the link to Ghost Core", std::move(fields));
}

template <class Kept>
void Sender::warn_unless(const Kept& kept, const char* what) {
    if (!kept) p_.log.error("what Ghost Core said can't be kept", {{"what", what}, {"error", kept.error().detail}});
}

asio::awaitable<void> Sender::apply(Link::Effects effects) {
    if (effects.drop) p_.core.drop();
    if (!effects.note.empty()) p_.log.warn(effects.note);
    if (effects.enrolled || effects.renewed) co_await take_credentials(effects);
    if (effects.core_urls) to_keep_.core_urls = std::move(effects.core_urls);
    std::ranges::move(effects.confirmed, std::back_inserter(to_keep_.confirmed));
    if (effects.facts_up_to) to_keep_.facts_up_to = effects.facts_up_to;
    if (to_keep_.commands.empty() && !keeping_) to_keep_.commands = std::move(effects.commands);
    if (!to_keep_.nothing()) more_to_keep_.notify();
}

asio::awaitable<void> Sender::keep_forever() {
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!co_await base::is_cancelled()) {
        if (to_keep_.nothing()) {
            co_await more_to_keep_.wait();
            continue;
        }
        keeping_ = true;
        auto now = std::exchange(to_keep_, {});
        if (now.core_urls) warn_unless(co_await p_.keeper.keep_urls(std::move(*now.core_urls)), "its addresses");
        if (!now.confirmed.empty())
            warn_unless(co_await p_.keeper.keep_commands(std::move(now.confirmed)), "that it has heard of commands");
        if (now.facts_up_to) warn_unless(co_await p_.keeper.forget_facts(*now.facts_up_to), "that it has facts");
        if (!now.commands.empty()) co_await take_commands(std::move(now.commands));
        keeping_ = false;
    }
}

// Used only once they are kept: an agent that died in between would have a certificate that nobody knows.
asio::awaitable<void> Sender::take_credentials(Link::Effects& effects) {
    auto fresh = credentials_;
    auto& enrolled = effects.enrolled;
    auto& renewed = effects.renewed;
    fresh.certificate = enrolled ? enrolled->certificate : renewed->certificate;
    if (enrolled)
        fresh.ca = enrolled->ca;
    else if (!renewed->ca.empty())
        fresh.ca = renewed->ca;
    auto done = p_.core.use(fresh, {});
    if (done)
        done = enrolled ? co_await p_.keeper.keep_enrolment(*enrolled, token_hash_)
                        : co_await p_.keeper.keep_certificate(*renewed);
    if (!done) {
        p_.log.error("what Ghost Core certified can't be used or kept", {{"error", done.error().detail}});
        if (const auto back = p_.core.use(credentials_, {}); !back)
            p_.log.error("nor what was there before", {{"error", back.error().detail}});
        p_.link.not_adopted(done.error(), p_.clock.now(), p_.clock.wall());
        co_return;
    }
    credentials_ = std::move(fresh);
    p_.core.drop();
    if (enrolled)
        p_.link.adopt(*enrolled, token_hash_, p_.clock.now(), p_.clock.wall());
    else
        p_.link.adopt(*renewed, p_.clock.now(), p_.clock.wall());
    p_.log.info(enrolled ? "enrolled with Ghost Core" : "the certificate for Ghost Core was renewed",
                {{"agent_id", p_.link.status().agent_id}});
}

asio::awaitable<void> Sender::take_commands(boost::json::array commands) {
    std::vector<std::string> faults;
    const auto fresh = p_.inbox.take(commands, p_.clock.wall(), faults);
    for (const auto& fault : faults) p_.log.warn("Ghost Core sent what isn't taken", {{"why", fault}});
    if (fresh.empty()) co_return;
    const auto kept = co_await p_.keeper.keep_commands(fresh);
    warn_unless(kept, "its commands; it sends them again");
    if (kept) p_.inbox.admit(fresh);
}

asio::awaitable<void> Sender::tell_of_sleep(base::Duration limit) {
    const auto deadline = p_.clock.now() + limit;
    p_.link.about_to_sleep(p_.clock.now());
    interrupted_.notify();  // what is under way can't be waited for
    wake_.notify();
    while (running_ && !p_.link.suspend_told() && p_.clock.now() < deadline)
        co_await told_.wait_until(p_.clock, deadline);
}

asio::awaitable<void> Sender::say_goodbye(base::Duration limit) {
    co_await asio::this_coro::throw_if_cancelled(false);
    const auto deadline = p_.clock.now() + limit;
    if (auto beat = p_.link.last_beat(p_.clock.now(), p_.clock.wall())) {
        const auto sent = p_.clock.now();
        const auto call = *beat;
        const auto answer = co_await base::within(p_.clock, limit, p_.core.send(std::move(*beat)));
        auto effects = p_.link.took(call, answer, sent, p_.clock.now(), p_.clock.wall());
        // Commands that come with it are sent again to the next start.
        if (!effects.confirmed.empty())
            warn_unless(co_await p_.keeper.keep_commands(std::move(effects.confirmed)),
                        "that it has heard of commands");
    }
    const auto left = deadline - p_.clock.now();
    auto goodbye = p_.link.goodbye();
    if (!goodbye || left <= base::Duration::zero()) co_return;
    (void)co_await base::within(p_.clock, left, p_.core.send(std::move(*goodbye)));
}

}  // namespace ghost::heartbeat
