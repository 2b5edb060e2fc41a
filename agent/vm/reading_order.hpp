// Readings of domains overlap, and the one that was asked for last may answer first: only what is newer than what is
// known already may change it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>

namespace ghost::agent {

// Loop thread only. Remembers domains only while a reading older than they is under way.
class ReadingOrder {
public:
    // One reading, from before its request until what it found was applied. Must not outlive its order.
    class Reading {
    public:
        explicit Reading(ReadingOrder& order);
        ~Reading();
        Reading(const Reading&) = delete;
        Reading& operator=(const Reading&) = delete;

        // True when nothing newer is known of the domain `id`; from then on this reading is what is known.
        [[nodiscard]] bool accept(std::string_view id) const;

    private:
        ReadingOrder& order_;
        std::uint64_t number_;
    };

    // The domain `id` was deleted: no reading that is under way says anything about it any more.
    void deleted(std::string_view id);

    [[nodiscard]] std::size_t remembered() const noexcept { return known_.size(); }

private:
    std::uint64_t next_ = 1;
    std::set<std::uint64_t> under_way_;
    std::map<std::string, std::uint64_t, std::less<>> known_;  // the number of the reading that was accepted last
};

}  // namespace ghost::agent
