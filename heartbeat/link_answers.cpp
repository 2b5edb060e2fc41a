// What an answer of Ghost Core, or none, comes to.
#include "heartbeat/json_fields.hpp"
#include "heartbeat/link.hpp"
#include "heartbeat/link_rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::heartbeat {
namespace json = boost::json;
using namespace link_rules;

void Link::say(LinkState state, std::string detail, base::Wall wall) {
    if (status_.state != state) status_.since = wall;
    status_.state = state;
    status_.detail = std::move(detail);
    status_.url = urls_[url_];
    status_.failing = failing();
}

void Link::succeeded(base::Instant now) {
    retry_.succeeded();
    last_ok_ = now;
    not_before_ = {};
}

// Nobody is there, or nobody who can answer: the next of Core's addresses, later.
void Link::failed(std::string why, std::optional<std::chrono::seconds> retry_after, base::Instant now,
                  base::Wall wall) {
    ++status_.failures;
    attempt_at_ = now + retry_.after_failure(p_.random, retry_after);
    if (retry_after) not_before_ = attempt_at_;
    url_ = (url_ + 1) % urls_.size();
    const bool is_lasting = phase_ == Phase::duplicate || phase_ == Phase::left;
    if (is_lasting) {
        attempt_at_ = std::max<base::Instant>(attempt_at_, now + between(slow_first, slow_last, p_.random));
        return;
    }
    say(LinkState::unreachable, std::move(why), wall);
}

// Core is there, and trying soon changes nothing.
void Link::slow_down(LinkState state, std::string why, base::Instant now, base::Wall wall) {
    ++status_.failures;
    (void)retry_.after_failure(p_.random, {});
    attempt_at_ = now + between(slow_first, slow_last, p_.random);
    say(state, std::move(why), wall);
}

void Link::lose_session(base::Instant now) {
    phase_ = Phase::sessionless;
    session_id_.clear();
    attempt_at_ = now;
}

Link::Effects Link::took(const CoreCall& call, const base::Result<CoreAnswer>& answer, base::Instant sent,
                         base::Instant now, base::Wall wall) {
    Effects effects;
    weigh(call, answer, effects, sent, now, wall);
    look_for_faults(wall);
    return effects;
}

void Link::weigh(const CoreCall& call, const base::Result<CoreAnswer>& answer, Effects& effects, base::Instant sent,
                 base::Instant now, base::Wall wall) {
    if (call.call == Call::heartbeat) {
        status_.last_beat_succeeded = answer && answer->status == 200;
        if (!status_.last_beat_succeeded) {
            ++status_.beats_failed;
            schedule_.lost();
        }
        if (beat_.reason == Reason::suspend) suspend_through(answer, now);
    }
    if (!answer) return fault(call, answer.error(), effects, now, wall);
    const bool good = answer->status / 100 == 2;
    if (!good) return refusal(call, *answer, effects, now, wall);
    std::optional<std::string> unusable;
    switch (call.call) {
        case Call::enroll: {
            auto enrolled = read_enrolled(answer->body, settings_.key);
            if (enrolled)
                effects.enrolled = std::move(*enrolled);
            else
                unusable = enrolled.error().detail;
            break;
        }
        case Call::renew: {
            auto renewed = read_renewed(answer->body, settings_.key, member_.agent_id);
            if (renewed)
                effects.renewed = std::move(*renewed);
            else
                unusable = renewed.error().detail;
            break;
        }
        case Call::session: unusable = opened(*answer, now, wall); break;
        case Call::heartbeat: unusable = beaten(*answer, effects, sent, now, wall); break;
        case Call::facts: {
            const auto body = object_of(*answer);
            const auto up_to = body ? whole_member(*body, "ack_rev") : std::nullopt;
            if (!up_to || *up_to < 0) {
                unusable = "ack_rev: expected a number of at least 0";
                break;
            }
            const auto rev = static_cast<std::uint64_t>(*up_to);
            const auto before = p_.outbox.size();
            p_.outbox.ack(rev);
            effects.facts_up_to = rev;
            // An answer that takes nothing would be asked for without end.
            if (p_.outbox.size() == before)
                facts_at_ = now + facts_retry_.after_failure(p_.random, std::chrono::seconds{1});
            else
                facts_retry_.succeeded();
            facts_limit_ = Outbox::max_batch;
            facts_refused_since_.reset();
            fact_refused_ = 0;
            renewed_for_facts_ = false;
            succeeded(now);
            break;
        }
        case Call::leave: break;
    }
    if (!unusable) return;
    const auto why = fmt::format("the answer of {} to {} can't be used: {}", call.url, name_of(call.call), *unusable);
    if (call.call == Call::heartbeat) {
        status_.last_beat_succeeded = false;
        ++status_.beats_failed;
        schedule_.lost();
    }
    fault(call, {base::Errc::source_unavailable, why}, effects, now, wall);
}

// No answer came.
void Link::fault(const CoreCall& call, const base::Error& error, Effects& effects, base::Instant now, base::Wall wall) {
    effects.drop = true;
    if (error.code == base::Errc::cancelled) return;  // by us: what comes next is decided already
    if (error.facts.contains("certificate_refused")) return certificate_refused(call, error.detail, now, wall);
    auto why = error.detail;
    if (const auto* what = error.facts.if_contains("certificate");
        what != nullptr && what->is_string() && what->get_string().find("not yet valid") != json::string::npos)
        why += fmt::format("; this machine's clock says {}: if that is wrong, set it", base::rfc3339(wall));
    if (call.call == Call::facts) return facts_failed(call, nullptr, effects, now, wall);
    if (call.call == Call::renew) {
        ++status_.failures;
        renew_fault_ = one_line(why);
        renew_retry_at_ = now + std::max<base::Duration>(renew_retry_.after_failure(p_.random, {}), soon);
        url_ = (url_ + 1) % urls_.size();
        if (renew_now_) say(LinkState::unreachable, std::move(why), wall);
        return;
    }
    failed(std::move(why), {}, now, wall);
}

void Link::certificate_refused(const CoreCall& call, std::string why, base::Instant now, base::Wall wall) {
    if (call.call == Call::facts) return facts_not_certified(std::move(why), now, wall);
    if (phase_ == Phase::left) lose_session(now);  // a 410 after the renewal puts that back
    const bool can_renew = settings_.own_certificate && call.call != Call::enroll && call.call != Call::renew;
    if (can_renew && !renewed_in_vain_) {
        renew_now_ = renewed_in_vain_ = true;
        renew_retry_at_ = now;
        say(LinkState::refused, fmt::format("Core doesn't take this agent's certificate ({}); renewing it", why), wall);
        return;
    }
    if (call.call == Call::renew) {
        ++status_.failures;
        if (may_enrol()) {  // there is a token that wasn't used
            renew_now_ = false;
            phase_ = Phase::unenrolled;
            attempt_at_ = now;
            return say(LinkState::enrolling, std::move(why), wall);
        }
        renew_fault_ = one_line(why);
        renew_retry_at_ = now + between(slow_first, slow_last, p_.random);
        if (renew_now_ || core_time(wall) >= member_.certificate->not_after)
            say(LinkState::refused, fmt::format("Core doesn't renew this agent's certificate: {}", why), wall);
        return;
    }
    renewed_in_vain_ = false;  // the next time a renewal is tried again
    slow_down(LinkState::refused,
              settings_.own_certificate ? fmt::format("Core doesn't take this agent's certificate: {}", why)
                                        : fmt::format("Core doesn't take the certificate of core.tls_cert: {}", why),
              now, wall);
}

namespace {

// "token_used: the token was used by another installation", as the problem tells.
std::string why_refused(const CoreAnswer& answer) {
    const auto body = object_of(answer);
    const auto detail = body ? text_member(*body, "detail") : std::nullopt;
    auto text = fmt::format("Core answered {}", answer.status);
    if (detail && !detail->empty()) text += fmt::format(" ({})", one_line(*detail));
    return text;
}

// Of the facts that it tells.
std::vector<std::uint64_t> revs_of(const CoreCall& call) {
    std::vector<std::uint64_t> out;
    if (const auto* items = array_member(call.body, "items"))
        for (const auto& item : *items) {
            const auto rev = item.is_object() ? whole_member(item.get_object(), "rev") : std::nullopt;
            out.push_back(static_cast<std::uint64_t>(rev.value_or(0)));
        }
    return out;
}

}  // namespace

// While beats are taken: a renewal that helps neither isn't tried again for facts.
void Link::facts_not_certified(std::string why, base::Instant now, base::Wall wall) {
    ++status_.failures;
    facts_at_ = now + between(slow_first, slow_last, p_.random);
    facts_refused_since_ = facts_refused_since_.value_or(wall);
    facts_refused_why_ = fmt::format("Core takes no facts with this agent's certificate: {}", why);
    if (settings_.own_certificate && !std::exchange(renewed_for_facts_, true)) renew_at_ = core_time(wall);
}

// Beats go on: what is must not wait for what was.
void Link::facts_failed(const CoreCall& call, const CoreAnswer* answer, Effects& effects, base::Instant now,
                        base::Wall wall) {
    ++status_.failures;
    const bool faulty = answer != nullptr && (answer->status == 400 || answer->status == 413 || answer->status == 422);
    if (!faulty) {
        const auto retry_after = answer == nullptr ? std::nullopt : answer->retry_after;
        facts_at_ = now + std::max<base::Duration>(facts_retry_.after_failure(p_.random, retry_after), soon);
        return;
    }
    const auto why = why_refused(*answer);
    effects.note = fmt::format("Core finds fault with facts: {}", why);
    facts_refused_since_ = facts_refused_since_.value_or(wall);
    facts_refused_why_ = fmt::format("Core finds fault with facts of this agent: {}", why);
    // One among them is at fault, or they are too many: fewer are tried, down to the one that Core never takes. A Core
    // that is at fault itself must not cost them all: the pauses grow.
    facts_at_ = now + std::max<base::Duration>(facts_retry_.after_failure(p_.random, answer->retry_after), soon);
    const auto revs = revs_of(call);
    if (revs.empty()) return;
    if (revs.size() > 1) {
        facts_limit_ = revs.size() / 2;
        return;
    }
    facts_limit_ = 1;
    facts_refused_why_ = fmt::format("Core refuses a fact of this agent, and later ones wait for it: {}", why);
    const auto rev = revs.front();
    if (std::exchange(refused_fact_, rev) != rev) fact_refused_ = 0;
    if (++fact_refused_ < refusals_of_a_fact) return;
    fact_refused_ = 0;
    if (!p_.outbox.give_up(rev, wall)) return;
    effects.note += "; the oldest is given up";
    effects.facts_up_to = rev;
}

void Link::refusal(const CoreCall& call, const CoreAnswer& answer, Effects& effects, base::Instant now,
                   base::Wall wall) {
    const auto status = answer.status;
    auto why = why_refused(answer);
    if (status == 401) return certificate_refused(call, std::move(why), now, wall);
    if (call.call == Call::leave) return;
    if (call.call == Call::facts) {
        facts_failed(call, &answer, effects, now, wall);
        if (status != 404 && status != 409 && status != 410) return;
    }
    if (call.call == Call::enroll) {
        if (member_.certificate && !member_.agent_id.empty()) phase_ = Phase::sessionless;  // it had a place there
        if (status == 403 || status == 422 || status == 400 || status == 404 || status == 409)
            return slow_down(LinkState::refused, fmt::format("Core doesn't enrol this agent: {}", why), now, wall);
    } else if (call.call == Call::renew) {
        if (status == 403 || status == 404) return certificate_refused(call, std::move(why), now, wall);
        if (status != 410 && status != 409) {
            ++status_.failures;
            renew_fault_ = why;
            renew_retry_at_ =
                now + std::max<base::Duration>(renew_retry_.after_failure(p_.random, answer.retry_after), soon);
            if (renew_now_) say(LinkState::unreachable, std::move(why), wall);
            return;
        }
    }
    switch (status) {
        case 400:
        case 422:
            if (call.call == Call::heartbeat && tell_less(status, why, effects, now, wall)) return;
            // What we told isn't understood: told whole, it may be.
            if (phase_ == Phase::in_session) lose_session(now);
            failed(fmt::format("Core finds fault with what this agent sent: {}", why), {}, now, wall);
            attempt_at_ = std::max(attempt_at_, now + session_retry_.after_failure(p_.random, {}));
            return;
        case 404:
            if (call.call == Call::session) {
                if (may_enrol()) {
                    phase_ = Phase::unenrolled;
                    attempt_at_ = now;
                    return say(LinkState::enrolling, "Core doesn't know this agent any more", wall);
                }
                phase_ = Phase::sessionless;
                return slow_down(LinkState::refused, "Core doesn't know this agent: enrol it again with a new token",
                                 now, wall);
            }
            lose_session(now);
            // At once; but a Core that forgets it before the first beat is given time.
            if (!settled_) attempt_at_ = now + session_retry_.after_failure(p_.random, {});
            return say(LinkState::connecting, "Core doesn't know the session any more", wall);
        case 409:
            phase_ = Phase::duplicate;
            session_id_.clear();
            effects.drop = true;
            return say(LinkState::duplicate,
                       "another agent with this identity reports to Core: was this machine, or its disk, copied? "
                       "Remove identity.json and core/ from the state directory of the copy",
                       wall);
        case 410:
            phase_ = Phase::left;
            session_id_.clear();
            effects.drop = true;
            attempt_at_ = now + part_of(day, 0.9 + 0.2 * p_.random.uniform());
            return say(LinkState::left, "Core told this agent to leave; its VMs go on, and Core is asked again daily",
                       wall);
        case 413:
            if (call.call == Call::heartbeat && tell_less(status, why, effects, now, wall)) return;
            return slow_down(LinkState::refused, std::move(why), now, wall);
        case 426:
            return slow_down(LinkState::refused, fmt::format("Core wants a newer version of this agent: {}", why), now,
                             wall);
        case 408:
        case 425:
        case 429: return failed(std::move(why), answer.retry_after, now, wall);
        default: break;
    }
    if (status >= 500) return failed(std::move(why), answer.retry_after, now, wall);
    slow_down(LinkState::refused, std::move(why), now, wall);
}

bool Link::tell_less(unsigned status, const std::string& why, Effects& effects, base::Instant now, base::Wall wall) {
    if (beat_.with_delta) {
        lease_only_until_ = now + lease_only_for;
        state_refused_since_ = state_refused_since_.value_or(wall);
        state_too_large_ = status == 413;
        lease_only_why_ =
            state_too_large_
                ? "Core finds this agent's state too large: it only hears that it lives"
                : fmt::format("Core finds fault with this agent's state, and only hears that it lives: {}", why);
        if (!state_too_large_) p_.state.want_full();  // told whole, it may be understood
        say(LinkState::refused, lease_only_why_, wall);
    } else if (beat_.told.size() > 1) {
        acks_limit_ = beat_.told.size() / 2;
    } else if (!beat_.told.empty()) {
        acks_limit_ = 1;
        no_acks_before_ = now + lease_only_for;
        acks_refused_since_ = acks_refused_since_.value_or(wall);
        acks_refused_why_ = fmt::format("Core refuses what this agent tells of a command: {}", why);
    } else {
        return false;
    }
    effects.note = fmt::format("Core finds fault with a heartbeat: {}", why);
    schedule_.due_at(now + BeatSchedule::between_changes);
    return true;
}

// Bounds what Core may ask for: a wrong number must neither flood it nor silence us.
namespace {

std::optional<std::chrono::milliseconds> seconds_in(const json::object& body, std::string_view key,
                                                    std::chrono::seconds min, std::chrono::seconds max) {
    const auto value = number_member(body, key);
    if (!value || *value < 0) return std::nullopt;
    const auto bounded = std::clamp(*value, static_cast<double>(min.count()), static_cast<double>(max.count()));
    return std::chrono::milliseconds{static_cast<std::int64_t>(bounded * 1000)};
}

}  // namespace

std::optional<std::string> Link::opened(const CoreAnswer& answer, base::Instant now, base::Wall wall) {
    const auto body = object_of(answer);
    if (!body) return "expected an object";
    const auto id = text_member(*body, "session_id");
    if (!id || id->empty() || id->size() > 128) return "session_id: expected a text of 1 to 128 characters";
    session_id_ = *id;
    // A Core that doesn't say how often gets what the configuration says.
    ttl_ =
        seconds_in(*body, "ttl_s", BeatSchedule::shortest_ttl, BeatSchedule::longest_ttl).value_or(settings_.interval);
    using namespace std::chrono_literals;
    grace_ = seconds_in(*body, "grace_s", 0s, 24h).value_or(ttl_);
    full_sync_every_ = seconds_in(*body, "full_sync_every_s", 10s, 24h).value_or(1h);
    full_sync_at_ = now + part_of(full_sync_every_, 0.8 + 0.4 * p_.random.uniform());
    compare_clocks(*body, base::Duration::zero(), wall);
    phase_ = Phase::in_session;
    seq_ = 0;
    settled_ = false;
    p_.state.start_over();
    // After an outage on Core's side all come back: they don't all tell everything in one second.
    const bool was_away = outage_ || retry_.failures() >= outage_after;
    succeeded(now);
    schedule_.due_at(was_away ? now + part_of(ttl_ / 2, p_.random.uniform()) : now);
    outage_ = false;
    say(LinkState::connecting, "the session is open, the first heartbeat comes", wall);
    return std::nullopt;
}

std::optional<std::string> Link::beaten(const CoreAnswer& answer, Effects& effects, base::Instant sent,
                                        base::Instant now, base::Wall wall) {
    const auto body = object_of(answer);
    if (!body) return "expected an object";
    const auto ack_rev = whole_member(*body, "ack_rev");
    if (!ack_rev || *ack_rev < 0) return "ack_rev: expected a number of at least 0";
    ttl_ = seconds_in(*body, "ttl_s", BeatSchedule::shortest_ttl, BeatSchedule::longest_ttl).value_or(ttl_);
    compare_clocks(*body, now - sent, wall);
    const auto acked = static_cast<std::uint64_t>(*ack_rev);
    const bool lease_only = now < lease_only_until_;
    // What was lost is told whole, but a Core that wants it whole again and again gets it with each beat, not at once.
    const bool was_full = beat_.full && beat_.with_delta;
    p_.state.ack(acked, was_full && acked == beat_.rev);
    if (text_member(*body, "want") == "full") p_.state.want_full();
    schedule_.answered(sent, ttl_, p_.random);
    const bool more = p_.state.wants_full() ? !was_full : p_.state.acked() < beat_.rev;
    if (more && !lease_only) schedule_.changed(now);
    if (!lease_only) state_refused_since_.reset();
    if (!beat_.told.empty()) acks_limit_ = std::min(acks_limit_ * 2, Inbox::max_acks);
    effects.confirmed = p_.inbox.confirm(beat_.told);
    if (p_.inbox.has_news() && now >= no_acks_before_) schedule_.changed(now);  // what came meanwhile, or didn't fit
    if (!beat_.told.empty() || !p_.inbox.has_news()) acks_refused_since_.reset();
    if (const auto* commands = array_member(*body, "commands")) effects.commands = *commands;
    if (const auto* urls = body->if_contains("core_urls"))
        if (const auto told = read_core_urls(*urls); told && !told->empty()) take_urls(*told, effects);
    settled_ = true;
    look_at_addresses();  // they may have changed while there was no session
    session_retry_.succeeded();
    renewed_in_vain_ = false;
    succeeded(now);
    ++status_.beats;
    status_.last_beat = wall;
    status_.last_beat_at = now;
    status_.round_trip = now - sent;
    if (lease_only)
        say(LinkState::refused, lease_only_why_, wall);
    else
        say(LinkState::connected, "", wall);
    return std::nullopt;
}

void Link::take_urls(const std::vector<std::string>& urls, Effects& effects) {
    auto wanted = urls_of(settings_.url, urls);
    if (urls == member_.core_urls) return;
    const auto current = urls_[url_];
    member_.core_urls = urls;
    urls_ = std::move(wanted);
    const auto it = std::ranges::find(urls_, current);
    url_ = it == urls_.end() ? 0 : static_cast<std::size_t>(it - urls_.begin());
    effects.core_urls = urls;
}

void Link::compare_clocks(const json::object& body, base::Duration round_trip, base::Wall wall) {
    const auto text = text_member(body, "server_time");
    const auto server = text ? base::wall_from_rfc3339(*text) : std::nullopt;
    if (!server) return;
    // It was said some time during the round trip; half of it is the best guess.
    const auto guess = *server + std::chrono::duration_cast<base::Wall::duration>(round_trip / 2) - wall;
    offset_ = std::chrono::duration_cast<std::chrono::milliseconds>(guess);
    status_.skew = offset_;
    const bool skewed = std::chrono::abs(offset_) > skew_limit;
    if (!skewed)
        skewed_since_.reset();
    else if (!skewed_since_)
        skewed_since_ = wall;
}

}  // namespace ghost::heartbeat
