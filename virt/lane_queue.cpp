#include "virt/lane_queue.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace ghost::virt {

LaneQueue::LaneQueue(std::size_t lanes, std::size_t max_queued, std::size_t max_per_key)
    : max_queued_(max_queued), max_per_key_(max_per_key), next_lane_(lanes) {
    assert(lanes > 0 && max_queued > 0 && max_per_key > 0);
    for (LaneId lane = 0; lane < lanes; ++lane) lanes_.emplace(lane, Lane{});
}

LaneQueue::Admission LaneQueue::admission(const std::string& key) const {
    if (breaker_open()) return Admission::stuck;
    if (queue_.size() >= max_queued_) return Admission::full;
    if (!key.empty() && std::cmp_greater_equal(std::ranges::count(queue_, key, &Waiting::key), max_per_key_))
        return Admission::full;
    return Admission::open;
}

void LaneQueue::push(JobId job, std::string key) { queue_.push_back({job, std::move(key)}); }

std::optional<LaneQueue::Start> LaneQueue::next() {
    const auto lane = std::ranges::find_if(lanes_, [](const auto& entry) { return !entry.second.busy; });
    if (lane == lanes_.end()) return std::nullopt;
    const auto first = std::ranges::find_if(
        queue_, [this](const Waiting& waiting) { return waiting.key.empty() || !locked_.contains(waiting.key); });
    if (first == queue_.end()) return std::nullopt;

    const auto job = first->job;
    lane->second.busy = true;
    lane->second.key = std::move(first->key);
    if (!lane->second.key.empty()) locked_.insert(lane->second.key);
    queue_.erase(first);
    return Start{job, lane->first};
}

bool LaneQueue::withdraw(JobId job) {
    return std::erase_if(queue_, [job](const Waiting& waiting) { return waiting.job == job; }) != 0;
}

std::vector<JobId> LaneQueue::withdraw_all() {
    std::vector<JobId> jobs;
    jobs.reserve(queue_.size());
    for (const auto& waiting : queue_) jobs.push_back(waiting.job);
    queue_.clear();
    return jobs;
}

void LaneQueue::late(LaneId lane) {
    auto& entry = lanes_.at(lane);
    assert(entry.busy);
    entry.overdue = true;
}

void LaneQueue::finish(LaneId lane) {
    const auto entry = lanes_.find(lane);
    assert(entry != lanes_.end() && entry->second.busy);
    locked_.erase(entry->second.key);
    if (entry->second.replaced)
        lanes_.erase(entry);
    else
        entry->second = {};
}

LaneId LaneQueue::replace(LaneId lane) {
    auto& entry = lanes_.at(lane);
    assert(entry.busy && !entry.replaced);
    entry.replaced = true;
    lanes_.emplace(next_lane_, Lane{});
    return next_lane_++;
}

std::size_t LaneQueue::count(bool Lane::* flag) const noexcept {
    return static_cast<std::size_t>(std::ranges::count_if(
        lanes_, [flag](const auto& entry) { return !entry.second.replaced && entry.second.*flag; }));
}

std::size_t LaneQueue::lanes() const noexcept { return lanes_.size() - left_behind(); }
std::size_t LaneQueue::busy() const noexcept { return count(&Lane::busy); }
std::size_t LaneQueue::overdue() const noexcept { return count(&Lane::overdue); }
std::size_t LaneQueue::left_behind() const noexcept {
    return static_cast<std::size_t>(
        std::ranges::count_if(lanes_, [](const auto& entry) { return entry.second.replaced; }));
}

}  // namespace ghost::virt
