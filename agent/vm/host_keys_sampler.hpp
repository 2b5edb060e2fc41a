// By which keys the guests' SSH servers are known, asked of a few at a time once
// their agents answer: when cloud-init moves on, for it makes new ones, and now
// and then while there are none.
#pragma once

#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/task_group.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace ghost::agent {

// Loop thread only.
class HostKeysSampler {
public:
    HostKeysSampler(const boost::asio::any_io_executor& executor, virt::Hypervisor& hypervisor, VmIndex& index,
                    base::Clock& clock, base::Log& log)
        : hypervisor_(hypervisor), index_(index), clock_(clock), log_(log), askers_(executor, log) {}

    // Until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();
    // The guest is off, gone, or boots anew: what it is just saying doesn't hold any more.
    void forget(std::string_view id);

    // While it says no, nobody is asked.
    std::function<bool()> ready = [] { return true; };

    static constexpr std::chrono::seconds interval{3};         // between looks at who is to be asked
    static constexpr std::chrono::seconds early_interval{60};  // while there are none, in a guest's first ten minutes
    static constexpr std::chrono::minutes late_interval{15};
    static constexpr std::size_t at_once = 4;

private:
    struct Guest {  // one that runs, since it was started
        std::uint64_t start = 0;
        base::Instant first_seen{};
        base::Instant asked{};
        std::string asked_in;    // how far the guest was then, as GuestReadiness::reason
        std::string settled_in;  // likewise, when it had keys
        bool under_way = false;
        bool unanswered = false;  // the last question
    };

    void ask_those_due();
    [[nodiscard]] bool is_due(const Guest& guest, const Vm& vm, base::Instant now) const;
    boost::asio::awaitable<void> ask(std::string id, std::uint64_t start);

    virt::Hypervisor& hypervisor_;
    VmIndex& index_;
    base::Clock& clock_;
    base::Log& log_;
    base::TaskGroup askers_;
    std::map<std::string, Guest, std::less<>> guests_;
    std::uint64_t starts_ = 0;
};

}  // namespace ghost::agent
