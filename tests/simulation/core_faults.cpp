#include "simulation/core_faults.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

namespace ghost::simulation {
namespace {

using fakes::FakeCore;
using Way = fakes::MemoryCoreLink::Way;

constexpr std::array<std::pair<std::string_view, FakeCore::Chance FakeCore::Faults::*>, 11> chances{
    {{"drops requests", &FakeCore::Faults::drop_request},
     {"drops replies", &FakeCore::Faults::drop_reply},
     {"has errors", &FakeCore::Faults::server_error},
     {"finds it too much", &FakeCore::Faults::too_many},
     {"is slow", &FakeCore::Faults::slow},
     {"answers garbage", &FakeCore::Faults::garbage},
     {"breaks off", &FakeCore::Faults::truncated},
     {"doubles commands", &FakeCore::Faults::doubled},
     {"reorders commands", &FakeCore::Faults::reordered},
     {"delivers commands again", &FakeCore::Faults::delivered_again},
     {"forgets its sessions", &FakeCore::Faults::forgets_sessions}}};
// 409 and 410 are for good: they would leave nothing to look at.
constexpr std::array<unsigned, 12> statuses{400, 401, 403, 404, 408, 413, 422, 426, 429, 500, 502, 503};
constexpr std::array<std::string_view, 5> routes{"", "session", "heartbeat", "facts", "certificate"};

}  // namespace

void CoreFaults::act() {
    switch (m_.dice.below(12)) {
        case 0:
        case 1:
        case 2:
        case 3: return fail_some();
        case 4:
        case 5: return answer_otherwise();
        case 6:
        case 7: return close_way();
        case 8: return set_clock();
        case 9: return sleep();
        default: return heal();
    }
}

void CoreFaults::fail_some() {
    auto& dice = m_.dice;
    const auto& [what, member] = dice.pick(chances);
    auto& chance = m_.core.faults.*member;
    if (member == &FakeCore::Faults::slow) m_.core.faults.slow_ms = static_cast<unsigned>(dice.between(100, 15'000));
    if (dice.percent(60)) {
        chance.next = static_cast<unsigned>(dice.between(1, 4));
        m_.trace("Core {} {} times", what, chance.next);
    } else {
        chance.probability = 0.1 * static_cast<double>(dice.between(1, 6));
        m_.trace("Core {} with {}", what, chance.probability);
    }
}

void CoreFaults::answer_otherwise() {
    auto& dice = m_.dice;
    const FakeCore::Override made{.route = std::string{dice.pick(routes)},
                                  .status = dice.pick(statuses),
                                  .next = static_cast<unsigned>(dice.between(1, 3)),
                                  .retry_after_s = dice.percent(30) ? std::optional{5U} : std::nullopt};
    m_.trace("Core answers {} times {} to \"{}\"", made.next, made.status, made.route);
    auto& overrides = m_.core.faults.overrides;
    std::erase_if(overrides, [](const auto& each) { return each.next == 0; });
    overrides.push_back(made);
}

void CoreFaults::close_way() {
    constexpr std::array<std::pair<std::string_view, Way>, 3> ways{
        {{"open", Way::open}, {"refused", Way::refused}, {"silent", Way::silent}}};
    const auto& [name, way] = m_.dice.pick(ways);
    m_.trace("the way to Core is {}", name);
    m_.way.way = way;
}

void CoreFaults::set_clock() {
    constexpr std::array<std::int64_t, 4> offsets{-7200, -40, 40, 7200};
    m_.core.faults.clock_off_s = m_.dice.pick(offsets);
    m_.trace("Core's clock is off by {} s", m_.core.faults.clock_off_s);
}

void CoreFaults::sleep() {
    const auto minutes = m_.dice.between(1, 40);
    m_.trace("the host sleeps for {} min", minutes);
    m_.clock.sleep(std::chrono::minutes{minutes});
}

void CoreFaults::heal() {
    m_.trace("Core and the way to it are healed");
    m_.core.faults = {};
    m_.way.way = Way::open;
}

bool CoreFaults::calm() const {
    const auto& faults = m_.core.faults;
    const auto sleeps = [](const FakeCore::Chance& chance) { return chance.next == 0 && chance.probability == 0; };
    return m_.way.way == Way::open &&
           std::ranges::all_of(chances, [&](const auto& each) { return sleeps(faults.*each.second); }) &&
           std::ranges::all_of(faults.overrides, [](const auto& each) { return each.next == 0; });
}

}  // namespace ghost::simulation
