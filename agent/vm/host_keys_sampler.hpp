// By which keys the guests' SSH servers are known, asked of a few at a time once
// their agents answer: when cloud-init moves on, for it makes new ones, and now
// and then while there are none.
#pragma once

#include "agent/vm/guest_rounds.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace ghost::agent {

// Loop thread only.
class HostKeysSampler {
public:
    HostKeysSampler(const boost::asio::any_io_executor& executor, virt::Hypervisor& hypervisor, VmIndex& index,
                    base::Clock& clock, base::Log& log);

    // Until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run() { return rounds_.run(ready); }
    // The guest is off, gone, or boots anew: what it is just saying doesn't hold any more.
    void forget(std::string_view id) { rounds_.forget(id); }

    // While it says no, nobody is asked.
    std::function<bool()> ready = [] { return true; };

    static constexpr std::chrono::seconds interval{3};         // between looks at who is to be asked
    static constexpr std::chrono::seconds early_interval{60};  // while there are none, in a guest's first ten minutes
    static constexpr std::chrono::minutes late_interval{15};
    static constexpr std::size_t at_once = 4;

private:
    struct Told {
        std::string asked_in;     // how far the guest was then, as GuestReadiness::reason
        std::string settled_in;   // likewise, when it had keys
        bool unanswered = false;  // the last question
    };
    using Rounds = GuestRounds<Told>;

    [[nodiscard]] static bool is_due(const Vm& vm, const Rounds::Guest& guest, base::Instant now);
    boost::asio::awaitable<void> ask(std::string id, std::uint64_t start);

    virt::Hypervisor& hypervisor_;
    VmIndex& index_;
    base::Log& log_;
    Rounds rounds_;
};

}  // namespace ghost::agent
