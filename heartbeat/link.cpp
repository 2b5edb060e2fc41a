#include "heartbeat/link.hpp"

#include "heartbeat/json_fields.hpp"
#include "heartbeat/link_rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::heartbeat {
namespace json = boost::json;
using namespace link_rules;

std::string_view name_of(LinkState state) noexcept {
    switch (state) {
        case LinkState::not_enrolled: return "not_enrolled";
        case LinkState::enrolling: return "enrolling";
        case LinkState::connecting: return "connecting";
        case LinkState::connected: return "connected";
        case LinkState::unreachable: return "unreachable";
        case LinkState::refused: return "refused";
        case LinkState::duplicate: return "duplicate";
        case LinkState::left: return "left";
    }
    return "connecting";
}

Link::Link(LinkSettings settings, Membership member, Parts parts)
    : settings_(std::move(settings)), member_(std::move(member)), p_(parts) {
    urls_ = urls_of(settings_.url, member_.core_urls);
    status_.url = urls_.front();
    status_.agent_id = member_.agent_id;
    if (member_.agent_id.empty() || !member_.certificate) phase_ = Phase::unenrolled;
    if (phase_ == Phase::unenrolled) status_.state = may_enrol() ? LinkState::enrolling : LinkState::not_enrolled;
    if (status_.state == LinkState::not_enrolled)
        status_.detail = "core.enroll_token is not set, or was used: nothing proves this agent to Core";
    plan_renewal();
}

bool Link::may_enrol() const {
    return settings_.own_certificate && !settings_.token.empty() && token_digest(settings_.token) != member_.used_token;
}

void Link::plan_renewal() {
    renew_at_.reset();
    renew_fault_.clear();
    if (!member_.certificate) return;
    status_.certificate_expires = member_.certificate->not_after;
    if (!settings_.own_certificate) return;
    renew_at_ = renewal_time(*member_.certificate, p_.random);
}

// When a renewal is to be tried; nullopt: not in sight.
std::optional<base::Instant> Link::renewal_due(base::Instant now, base::Wall wall) const {
    if (phase_ == Phase::unenrolled || phase_ == Phase::duplicate || phase_ == Phase::left) return std::nullopt;
    if (renew_now_) return std::max(renew_retry_at_, renew_not_before_);
    if (!renew_at_) return std::nullopt;
    const auto left = *renew_at_ - core_time(wall);
    if (left > longest_idle) return std::nullopt;
    return std::max({renew_retry_at_, renew_not_before_, now + std::max(base::Duration{left}, base::Duration::zero())});
}

CoreCall Link::call(Call kind, json::object body) const {
    return {kind, urls_[url_], member_.agent_id, std::move(body), call_limit};
}

// There is one connection: what hangs on it mustn't keep a beat waiting.
CoreCall Link::beside_beats(CoreCall call, base::Instant now) const {
    if (phase_ != Phase::in_session || renew_now_) return call;
    const auto left = (failing() ? attempt_at_ : schedule_.due()) + beside_margin - now;
    call.timeout = std::clamp<std::chrono::milliseconds>(std::chrono::duration_cast<std::chrono::milliseconds>(left),
                                                         shortest_limit, call_limit);
    return call;
}

CoreCall Link::enrol() const {
    auto body = p_.node.about();
    body["token"] = settings_.token;
    body["install_id"] = settings_.install_id;
    body["csr"] = settings_.csr;
    body["resources"] = p_.node.resources();
    body["addresses"] = p_.node.addresses();
    auto out = call(Call::enroll, std::move(body));
    out.agent_id.clear();
    return out;
}

CoreCall Link::open_session() {
    told_addresses_ = p_.node.addresses();
    addresses_stale_ = false;
    auto body = p_.node.about();
    body["epoch"] = settings_.epoch;
    body["boot_id"] = settings_.boot_id;
    body["features"] = p_.node.features();
    body["resources"] = p_.node.resources();
    body["addresses"] = told_addresses_;
    return call(Call::session, std::move(body));
}

CoreCall Link::beat(base::Instant now, base::Wall wall) {
    if (p_.state.set_resources(p_.node.resources())) schedule_.changed(now);
    if (now >= full_sync_at_) {
        p_.state.want_full();
        full_sync_at_ = now + part_of(full_sync_every_, 0.8 + 0.4 * p_.random.uniform());
    }
    beat_ = {};
    auto reason = schedule_.reason();
    if (reason == Reason::periodic && p_.state.wants_full() && p_.state.acked() == 0) reason = Reason::change;
    beat_.reason = reason;
    auto conditions = p_.node.conditions();
    for (auto& own : this->conditions()) conditions.push_back(std::move(own));
    if (conditions.size() > max_conditions) conditions.resize(max_conditions);
    json::object body{{"session_id", session_id_},
                      {"epoch", settings_.epoch},
                      {"seq", ++seq_},
                      {"reason", name_of(reason)},
                      {"wall", base::rfc3339_ms(wall)},
                      {"base_rev", p_.state.acked()},
                      {"state_rev", p_.state.rev()},
                      {"conditions", std::move(conditions)},
                      {"acks", p_.inbox.acks(now < no_acks_before_ ? 0 : acks_limit_, beat_.told)}};
    beat_.rev = p_.state.rev();
    if (now >= lease_only_until_) {
        beat_.full = p_.state.wants_full();
        if (auto delta = p_.state.delta()) {
            body["delta"] = std::move(*delta);
            beat_.with_delta = true;
        }
    }
    schedule_.sent(now);
    auto out = call(Call::heartbeat, std::move(body));
    if (reason == Reason::suspend || reason == Reason::shutdown) out.timeout = hurried_limit;
    return out;
}

Link::Step Link::next(base::Instant now, base::Wall wall) {
    look_for_faults(wall);
    auto step = plan(now, wall);
    status_.next_attempt.reset();
    const auto* idle = std::get_if<Idle>(&step);
    if (idle != nullptr && status_.state != LinkState::connected && idle->until < now + never)
        status_.next_attempt = idle->until == now + longest_idle ? std::max(attempt_at_, idle->until) : idle->until;
    return step;
}

Link::Step Link::plan(base::Instant now, base::Wall wall) {
    if (held_until_ && now >= *held_until_) {  // it doesn't sleep after all
        held_until_.reset();
        suspend_pending_ = false;
        if (network_changed_) come_soon(Reason::network, now, wall);
    }
    if (phase_ == Phase::unenrolled) {
        if (!may_enrol()) return Idle{now + never};
        return now >= attempt_at_ ? Step{enrol()} : Idle{attempt_at_};
    }
    if (phase_ == Phase::duplicate) return Idle{now + never};
    if (phase_ == Phase::left) return now >= attempt_at_ ? Step{open_session()} : Idle{attempt_at_};

    const bool held = held_until_ && !suspend_pending_;
    if (held) return Idle{*held_until_};
    auto until = now + longest_idle;
    if (const auto renewal = suspend_pending_ ? std::nullopt : renewal_due(now, wall)) {
        if (now >= *renewal) {
            auto body = json::object{{"csr", settings_.csr}};
            return beside_beats(call(Call::renew, std::move(body)), now);
        }
        until = std::min(until, *renewal);
        if (renew_now_) return Idle{until};  // all else would be refused
    }
    const bool in_session = phase_ == Phase::in_session;
    const auto due = in_session && (!failing() || suspend_pending_) ? schedule_.due() : attempt_at_;
    if (now >= due) {
        const bool forgotten = now - last_ok_ > ttl_ + grace_;
        if (in_session && !suspend_pending_ && failing() && (retry_.failures() >= outage_after || forgotten)) {
            outage_ = retry_.failures() >= outage_after;
            lose_session(now);
        }
        return phase_ == Phase::in_session ? beat(now, wall) : open_session();
    }
    until = std::min(until, due);
    if (in_session && settled_ && addresses_stale_ && !failing()) {
        if (now >= readdress_at_) {
            readdress_at_ = now + between_addresses;
            lose_session(now);
            return open_session();
        }
        until = std::min(until, readdress_at_);
    }
    if (in_session && settled_ && !failing() && p_.outbox.has_news()) {
        if (now >= facts_at_) {
            json::object body{
                {"session_id", session_id_}, {"epoch", settings_.epoch}, {"items", p_.outbox.batch(facts_limit_)}};
            return beside_beats(call(Call::facts, std::move(body)), now);
        }
        until = std::min(until, facts_at_);
    }
    return Idle{until};
}

void Link::adopt(const Enrolled& answer, std::string token_hash, base::Instant now, base::Wall wall) {
    member_.agent_id = answer.agent_id;
    member_.used_token = std::move(token_hash);
    member_.core_urls = answer.core_urls;
    member_.certificate = facts_of(answer.certificate);
    urls_ = urls_of(settings_.url, answer.core_urls);
    url_ = 0;
    status_.agent_id = answer.agent_id;
    renew_now_ = renewed_in_vain_ = renewed_for_facts_ = false;
    plan_renewal();
    retry_.succeeded();
    phase_ = Phase::sessionless;
    attempt_at_ = now;
    say(LinkState::connecting, "enrolled", wall);
}

void Link::adopt(const Renewed& answer, base::Instant now, base::Wall wall) {
    member_.certificate = facts_of(answer.certificate);
    const bool was_refused = std::exchange(renew_now_, false);
    if (was_refused || renewed_for_facts_) renew_not_before_ = now + between_renewals;
    if (renewed_for_facts_) facts_at_ = now;
    plan_renewal();
    // One that is half through already must not be renewed all the time.
    const bool is_due = renew_at_ && *renew_at_ <= core_time(wall);
    if (!is_due) renew_retry_.succeeded();
    renew_retry_at_ = is_due ? now + between_renewals + renew_retry_.after_failure(p_.random, {}) : now;
    if (!was_refused) return;
    // What was refused is tried again with it, at once.
    retry_.succeeded();
    attempt_at_ = now;
    schedule_.due_at(now);
    say(LinkState::connecting, "the certificate was renewed", wall);
}

void Link::certificate_replaced(net::CertificateFacts certificate, base::Wall wall) {
    member_.certificate = std::move(certificate);
    plan_renewal();
    look_for_faults(wall);
}

void Link::not_adopted(const base::Error& why, base::Instant now, base::Wall wall) {
    renew_fault_ = fmt::format("what Core gave can't be used or kept: {}", one_line(why.detail));
    renew_retry_at_ = now + between(slow_first, slow_last, p_.random);
    if (phase_ != Phase::unenrolled && !renew_now_) return;  // the one that is there serves on
    slow_down(LinkState::refused, fmt::format("what Core gave can't be used or kept: {}", why.detail), now, wall);
}

void Link::facts_added(base::Instant now) noexcept {
    if (facts_retry_.failures() == 0) facts_at_ = now;
}

void Link::come_soon(Reason reason, base::Instant now, base::Wall wall) {
    held_until_.reset();
    suspend_pending_ = false;
    network_changed_ = false;
    renew_retry_at_ = std::min(renew_retry_at_, now);
    if (phase_ == Phase::duplicate || phase_ == Phase::left) return;
    // It was our side: Core needn't be spared, and what was waited for has passed.
    auto when = now + part_of(soon, p_.random.uniform());
    const bool was_failing = failing();
    if (attempt_at_ > now) when = std::min(when, attempt_at_);  // as one that came just before has it
    if (reason == Reason::wake) not_before_ = {};               // a sleep has waited for it
    if (not_before_ > when) {
        when = not_before_;
        schedule_.due_at(when);
    }
    retry_.succeeded();
    outage_ = false;
    attempt_at_ = when;
    facts_at_ = when;
    schedule_.ask(reason, when);
    if (was_failing && status_.state == LinkState::unreachable) say(LinkState::connecting, "trying again", wall);
}

void Link::look_at_addresses() { addresses_stale_ = p_.node.addresses() != told_addresses_; }

void Link::woke(base::Instant now, base::Wall wall) { come_soon(Reason::wake, now, wall); }
void Link::network_changed(base::Instant now, base::Wall wall) {
    look_at_addresses();
    if (!held_until_) return come_soon(Reason::network, now, wall);
    // Networks are taken down for a sleep, too.
    network_changed_ = true;
    if (std::exchange(suspend_lost_, false) && std::exchange(suspend_again_, false)) ask_for_suspend(now);
}

void Link::about_to_sleep(base::Instant now) {
    held_until_ = now + settling;
    network_changed_ = suspend_lost_ = false;
    suspend_again_ = true;
    if (phase_ == Phase::in_session && !renew_now_) ask_for_suspend(now);
}

void Link::ask_for_suspend(base::Instant now) {
    suspend_pending_ = true;
    schedule_.ask(Reason::suspend, now);
}

void Link::suspend_through(const base::Result<CoreAnswer>& answer, base::Instant now) {
    suspend_pending_ = false;
    if (answer || !held_until_) return;
    const bool went_with_network = network_changed_ || answer.error().code == base::Errc::cancelled;
    if (went_with_network && std::exchange(suspend_again_, false)) return ask_for_suspend(now);
    suspend_lost_ = true;
}

std::optional<CoreCall> Link::last_beat(base::Instant now, base::Wall wall) {
    if (phase_ != Phase::in_session) return std::nullopt;
    schedule_.ask(Reason::shutdown, now);
    return beat(now, wall);
}

std::optional<CoreCall> Link::goodbye() const {
    if (phase_ != Phase::in_session) return std::nullopt;
    auto out = call(Call::leave, {});
    out.timeout = hurried_limit;
    return out;
}

}  // namespace ghost::heartbeat
