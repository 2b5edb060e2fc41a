// What running guests use and which addresses they have, asked of a few at a
// time: one whose monitor or agent hangs doesn't make its neighbours' figures
// old, and is passed over until its last answer has come.
#pragma once

#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/task_group.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>

namespace ghost::agent {

// Loop thread only.
class GuestSampler {
public:
    GuestSampler(const boost::asio::any_io_executor& executor, virt::Hypervisor& hypervisor, VmIndex& index,
                 base::Clock& clock, base::Log& log)
        : hypervisor_(hypervisor), index_(index), clock_(clock), log_(log), workers_(executor, log) {}

    // Figures and addresses of each running VM, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();
    // The VM is off, or gone: what comes next has nothing to do with what was.
    void forget(std::string_view id);

    // While it says no, nobody is asked.
    std::function<bool()> ready = [] { return true; };

    static constexpr std::chrono::seconds interval{10};
    static constexpr std::chrono::seconds address_interval{2};  // while a running VM has none yet
    static constexpr std::chrono::seconds agent_interval{30};   // between questions to a guest agent
    static constexpr std::size_t at_once = 4;

private:
    struct Sampled {  // of one running VM
        std::uint64_t cpu_time_ns = 0;
        base::Instant taken{};
        base::Instant asked_guest{};
        base::Instant first_seen{};
    };
    struct Due {
        std::string id;
        bool usage = false;
    };

    void want_all(bool usage);
    boost::asio::awaitable<void> work();
    boost::asio::awaitable<void> sample_usage(std::string id);
    boost::asio::awaitable<void> usage_missing(std::string id, base::Error why);
    boost::asio::awaitable<void> sample_addresses(std::string id);

    virt::Hypervisor& hypervisor_;
    VmIndex& index_;
    base::Clock& clock_;
    base::Log& log_;
    base::TaskGroup workers_;
    std::deque<Due> due_;
    std::set<std::string, std::less<>> under_way_;
    std::map<std::string, Sampled, std::less<>> sampled_;
};

}  // namespace ghost::agent
