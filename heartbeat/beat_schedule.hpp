// When the next heartbeat is due, and why. No I/O.
#pragma once

#include "base/clock.hpp"
#include "base/random.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ghost::heartbeat {

// The weightier of two that come together is told.
enum class Reason : std::uint8_t { periodic, change, network, wake, suspend, shutdown };
[[nodiscard]] std::string_view name_of(Reason reason) noexcept;

class BeatSchedule {
public:
    static constexpr std::chrono::milliseconds quiet{200};     // after a change, for the next to come
    static constexpr std::chrono::seconds between_changes{1};  // two beats for the sake of changes
    static constexpr std::chrono::seconds shortest_ttl{1};
    static constexpr std::chrono::hours longest_ttl{1};

    // The next beat is due at `when`, and no change brings it forward.
    void due_at(base::Instant when) noexcept { periodic_ = not_before_ = when; }
    // A beat was answered: the next one comes after ttl * rand(0.85, 1.0), counted from when it was sent.
    void answered(base::Instant sent, base::Duration ttl, base::Random& random);
    // A beat went out: it tells all changes up to now.
    void sent(base::Instant now) noexcept;
    // It didn't arrive: what it was to tell is still to be told, with the next one.
    void lost() noexcept;
    // Something is to be told.
    void changed(base::Instant now) noexcept;
    // A beat for another reason, at `when`. A wake takes back that the machine was about to sleep.
    void ask(Reason reason, base::Instant when) noexcept;

    [[nodiscard]] base::Instant due() const noexcept;
    // Of the next one, whenever that is sent.
    [[nodiscard]] Reason reason() const noexcept;

private:
    [[nodiscard]] base::Instant change_due() const noexcept;

    base::Instant periodic_{};
    base::Instant not_before_{};  // of changes
    std::optional<base::Instant> last_sent_;
    std::optional<base::Instant> first_change_;
    base::Instant last_change_{};
    Reason asked_ = Reason::periodic;  // periodic: for none
    base::Instant asked_at_{};
    Reason told_ = Reason::periodic;  // of the beat under way
};

}  // namespace ghost::heartbeat
