// What happened, for Ghost Core, in order, until Core has it. No I/O.
#pragma once

#include "base/clock.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::heartbeat {

struct Fact {
    std::uint64_t rev = 0;  // grows; never used twice
    base::Wall at = {};
    std::string document = {};  // {"rev", "at", "kind", ...} as it is sent
};

class Outbox {
public:
    // `first_rev`: above those of all earlier runs.
    explicit Outbox(std::uint64_t first_rev) : next_rev_(first_rev) {}

    void restore(std::vector<Fact> facts);  // by rev

    // A fact to be kept. It, and all after it, is held back until it is released (it is on disk) or taken back (it
    // won't be).
    [[nodiscard]] const Fact& add(base::Wall at, std::string_view kind, boost::json::object members);
    void release(std::uint64_t rev);
    void take_back(std::uint64_t rev);

    // The oldest that may be sent, at most `limit`.
    [[nodiscard]] boost::json::array batch(std::size_t limit = max_batch) const;
    // Core takes the oldest in no way: lets go of it, and counts it as lost. False: by now another is the oldest.
    [[nodiscard]] bool give_up(std::uint64_t rev, base::Wall now);
    [[nodiscard]] bool has_news() const noexcept { return !facts_.empty() && !facts_.front().held; }
    // Core has all up to `rev`.
    void ack(std::uint64_t rev);
    // Lets go of the oldest beyond `max_bytes` or `max_age`; up to which rev, and counts them as lost.
    // `now` not given: the clock can't be trusted, so that nothing is too old.
    [[nodiscard]] std::optional<std::uint64_t> prune(std::optional<base::Wall> now);

    [[nodiscard]] std::size_t size() const noexcept { return facts_.size(); }
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::uint64_t lost() const noexcept { return lost_; }  // since the start
    [[nodiscard]] base::Wall lost_since() const noexcept { return lost_since_; }

    static constexpr std::size_t max_batch = 100;
    static constexpr std::size_t max_bytes = 50'000'000;
    static constexpr std::chrono::hours max_age{24 * 14};

private:
    struct Entry {
        Fact fact;
        bool held = false;
    };
    void drop_front();
    void lose_front(base::Wall now);
    [[nodiscard]] std::deque<Entry>::iterator find(std::uint64_t rev);

    std::deque<Entry> facts_;
    std::size_t bytes_ = 0;
    std::uint64_t lost_ = 0;
    base::Wall lost_since_{};
    std::uint64_t next_rev_;
};

}  // namespace ghost::heartbeat
