#include "heartbeat/state_view.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace ghost::heartbeat {
namespace json = boost::json;
namespace {

// What the owner and the VMs were given, and what the host runs on.
bool is_news(const json::object& before, const json::object& now) {
    for (const auto* pool : {"cpus", "memory_mib", "disk_bytes"})
        for (const auto* part : {"total", "reserved", "allocated"}) {
            const auto at = [&](const json::object& resources) -> const json::value* {
                const auto* of = resources.if_contains(pool);
                return of != nullptr && of->is_object() ? of->get_object().if_contains(part) : nullptr;
            };
            const auto* was = at(before);
            const auto* is = at(now);
            if ((was == nullptr) != (is == nullptr) || (was != nullptr && *was != *is)) return true;
        }
    const auto source = [](const json::object& resources) {
        const auto* power = resources.if_contains("power");
        const auto* of = power != nullptr && power->is_object() ? power->get_object().if_contains("source") : nullptr;
        return of == nullptr ? json::value{} : *of;
    };
    return source(before) != source(now);
}

// Figures near enough to each other to be the same for whoever places VMs.
bool is_near(double a, double b) {
    const auto larger = std::max(std::abs(a), std::abs(b));
    return std::abs(a - b) <= std::max(0.05 * larger, larger < 1000 ? 5.0 : 0.0);
}

// Load is small by nature: half a CPU's work makes a difference.
bool drifts(const json::value& before, const json::value& now, double least) {
    if (before.is_object() && now.is_object()) {
        const auto& was = before.get_object();
        const auto& is = now.get_object();
        if (was.size() != is.size()) return true;
        return std::ranges::any_of(is, [&](const auto& member) {
            const auto* other = was.if_contains(member.key());
            return other == nullptr || drifts(*other, member.value(), member.key() == "load" ? 0.5 : least);
        });
    }
    if (before.is_number() && now.is_number()) {
        const auto a = before.to_number<double>();
        const auto b = now.to_number<double>();
        return !is_near(a, b) || (least > 0 && std::abs(a - b) > std::max(least, 0.25 * std::max(a, b)));
    }
    return before != now;
}

}  // namespace

bool StateView::put_vm(std::string_view id, json::object vm) {
    const auto it = vms_.find(id);
    if (it != vms_.end() && it->second == vm) return false;
    vms_.insert_or_assign(std::string{id}, std::move(vm));
    changed_.insert_or_assign(std::string{id}, ++rev_);
    removed_.erase(std::string{id});
    return true;
}

bool StateView::remove_vm(std::string_view id) {
    const auto it = vms_.find(id);
    if (it == vms_.end()) return false;
    vms_.erase(it);
    changed_.erase(std::string{id});
    removed_.insert_or_assign(std::string{id}, ++rev_);
    if (removed_.size() > max_removed) {
        removed_.clear();
        want_full();
    }
    return true;
}

bool StateView::set_resources(json::object resources) {
    const bool news = resources_rev_ == 0 || is_news(resources_, resources);
    if (!news && !drifts(resources_, resources, 0)) return false;
    resources_ = std::move(resources);
    resources_rev_ = ++rev_;
    return news;
}

std::optional<json::object> StateView::delta() const {
    const bool full = wants_full();
    if (!full && acked_ == rev_) return std::nullopt;
    json::array upsert;
    json::array remove;
    for (const auto& [id, vm] : vms_) {
        const auto changed = changed_.find(id);
        if (full || (changed != changed_.end() && changed->second > acked_)) upsert.emplace_back(vm);
    }
    if (!full)
        for (const auto& [id, rev] : removed_)
            if (rev > acked_) remove.emplace_back(id);
    json::object delta{{"full", full},
                       {"vms", json::object{{"upsert", std::move(upsert)}, {"remove", std::move(remove)}}}};
    if (resources_rev_ > 0 && (full || resources_rev_ > acked_)) delta["resources"] = resources_;
    return delta;
}

void StateView::ack(std::uint64_t rev, bool full) {
    if (rev > rev_ || rev < acked_) {
        start_over();
        return;
    }
    acked_ = rev;
    if (full && full_since_ && rev >= *full_since_) full_since_.reset();
    std::erase_if(changed_, [rev](const auto& entry) { return entry.second <= rev; });
    std::erase_if(removed_, [rev](const auto& entry) { return entry.second <= rev; });
}

void StateView::start_over() noexcept {
    acked_ = 0;
    want_full();
}

}  // namespace ghost::heartbeat
