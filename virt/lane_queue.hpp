// Which job runs when on which lane: the rules of one class of lanes, without
// threads, time or I/O. LanePool tells it what happened and does what it says.
//
// Jobs start in the order they came. A job whose key is locked waits for that
// key and lets others pass; jobs of one key never overlap and keep their order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace ghost::virt {

using JobId = std::uint64_t;
using LaneId = std::uint64_t;

class LaneQueue {
public:
    // Lanes 0 ... lanes-1. `max_per_key` bounds what one stuck key can take of the queue.
    LaneQueue(std::size_t lanes, std::size_t max_queued, std::size_t max_per_key);

    enum class Admission : std::uint8_t { open, full, stuck };
    // `stuck`: every lane is overdue (the breaker is open). `full`: the queue, or the key's share of it.
    [[nodiscard]] Admission admission(const std::string& key) const;

    // An empty key locks nothing.
    void push(JobId job, std::string key);

    struct Start {
        JobId job;
        LaneId lane;
    };
    // The next job that can start now; its lane is busy and its key locked from here on. Call until empty.
    [[nodiscard]] std::optional<Start> next();

    // Takes a job out of the queue; false when it isn't there (begun, or done).
    bool withdraw(JobId job);
    // Empties the queue.
    [[nodiscard]] std::vector<JobId> withdraw_all();

    // The lane's job passed its deadline.
    void late(LaneId lane);
    // The lane's job returned: its key is free, and so is the lane unless it was replaced; a replaced one is forgotten.
    void finish(LaneId lane);
    // Gives up on a busy lane and adds a new one; the old one's key stays locked until finish().
    LaneId replace(LaneId lane);
    [[nodiscard]] bool replaced(LaneId lane) const { return lanes_.at(lane).replaced; }
    // What the next replace() will return.
    [[nodiscard]] LaneId next_lane() const noexcept { return next_lane_; }

    [[nodiscard]] std::size_t lanes() const noexcept;    // without those given up on
    [[nodiscard]] std::size_t busy() const noexcept;     // of them
    [[nodiscard]] std::size_t overdue() const noexcept;  // of them
    [[nodiscard]] std::size_t queued() const noexcept { return queue_.size(); }
    [[nodiscard]] std::size_t left_behind() const noexcept;  // given up on and not yet back
    [[nodiscard]] bool breaker_open() const noexcept { return overdue() == lanes(); }

private:
    struct Waiting {
        JobId job;
        std::string key;
    };
    struct Lane {
        bool busy = false;
        bool overdue = false;
        bool replaced = false;
        std::string key;
    };
    [[nodiscard]] std::size_t count(bool Lane::* flag) const noexcept;

    std::size_t max_queued_;
    std::size_t max_per_key_;
    std::deque<Waiting> queue_;
    std::map<LaneId, Lane> lanes_;
    std::set<std::string> locked_;
    LaneId next_lane_;
};

}  // namespace ghost::virt
