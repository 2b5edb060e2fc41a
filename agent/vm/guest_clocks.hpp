// Guests don't notice that their host slept: their clocks go on where they
// stood. After a wake each guest's agent is asked to set its clock right.
#pragma once

#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/task_group.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

namespace ghost::agent {

// Loop thread only.
class GuestClocks {
public:
    GuestClocks(const boost::asio::any_io_executor& executor, virt::Hypervisor& hypervisor, const VmIndex& index,
                base::Clock& clock, base::Log& log)
        : hypervisor_(hypervisor),
          index_(index),
          clock_(clock),
          log_(log),
          wanted_(executor),
          workers_(executor, log) {}

    // Does what set_all() asks for, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();
    // Of the managed VMs that run now, a few at a time, once each; others' guests are theirs.
    void set_all();

    static constexpr std::size_t at_once = 4;
    static constexpr unsigned tries = 3;  // of each guest; libvirt and agents may need a moment after a wake
    static constexpr std::chrono::seconds between_tries{5};

private:
    struct Due {
        std::string id;
        std::uint64_t wake = 0;
        unsigned failures = 0;
        base::Instant not_before{};
    };

    boost::asio::awaitable<void> work();
    boost::asio::awaitable<void> set(Due due);

    virt::Hypervisor& hypervisor_;
    const VmIndex& index_;
    base::Clock& clock_;
    base::Log& log_;
    base::Notifier wanted_;
    base::TaskGroup workers_;
    std::deque<Due> due_;
    std::uint64_t wake_ = 0;  // which one: what is left of an earlier one is nobody's wish any more
};

}  // namespace ghost::agent
