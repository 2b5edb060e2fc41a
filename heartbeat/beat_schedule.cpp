#include "heartbeat/beat_schedule.hpp"

#include <algorithm>

namespace ghost::heartbeat {

std::string_view name_of(Reason reason) noexcept {
    switch (reason) {
        case Reason::periodic: return "periodic";
        case Reason::change: return "change";
        case Reason::network: return "network";
        case Reason::wake: return "wake";
        case Reason::suspend: return "suspend";
        case Reason::shutdown: return "shutdown";
    }
    return "periodic";
}

void BeatSchedule::answered(base::Instant sent, base::Duration ttl, base::Random& random) {
    const auto bounded = std::clamp<base::Duration>(ttl, shortest_ttl, longest_ttl);
    periodic_ = sent + std::chrono::duration_cast<base::Duration>(bounded * (0.85 + 0.15 * random.uniform()));
    told_ = Reason::periodic;
}

void BeatSchedule::sent(base::Instant now) noexcept {
    told_ = reason();
    last_sent_ = now;
    not_before_ = now;
    first_change_.reset();
    asked_ = Reason::periodic;
}

void BeatSchedule::lost() noexcept {
    if (asked_ == Reason::periodic && (told_ == Reason::wake || told_ == Reason::network)) {
        asked_ = told_;
        asked_at_ = *last_sent_;
    }
    if (told_ == Reason::change) changed(*last_sent_);
    told_ = Reason::periodic;
}

void BeatSchedule::changed(base::Instant now) noexcept {
    if (!first_change_) first_change_ = now;
    last_change_ = now;
}

void BeatSchedule::ask(Reason reason, base::Instant when) noexcept {
    const bool replaces = asked_ == Reason::periodic || asked_ == Reason::suspend;
    asked_at_ = replaces ? when : std::min(asked_at_, when);
    asked_ = replaces ? reason : std::max(asked_, reason);
}

// Changes without a pause are told once a second all the same.
base::Instant BeatSchedule::change_due() const noexcept {
    auto when = std::max<base::Instant>(not_before_, std::min(last_change_ + quiet, *first_change_ + between_changes));
    if (last_sent_) when = std::max<base::Instant>(when, *last_sent_ + between_changes);
    return when;
}

base::Instant BeatSchedule::due() const noexcept {
    auto when = periodic_;
    if (first_change_) when = std::min(when, change_due());
    if (asked_ != Reason::periodic) when = std::min(when, asked_at_);
    return when;
}

Reason BeatSchedule::reason() const noexcept {
    if (asked_ != Reason::periodic) return asked_;
    return first_change_ ? Reason::change : Reason::periodic;
}

}  // namespace ghost::heartbeat
