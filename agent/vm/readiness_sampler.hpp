// Asks managed guests that run how far cloud-init is, until they have said their
// last word on it. Each is asked by itself: one whose agent hangs, or whose
// program doesn't end, holds up nobody, and is asked ever more rarely.
#pragma once

#include "agent/vm/guest_ready.hpp"
#include "agent/vm/guest_rounds.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>

namespace ghost::agent {

// Loop thread only.
class ReadinessSampler {
public:
    ReadinessSampler(const boost::asio::any_io_executor& executor, virt::Hypervisor& hypervisor, VmIndex& index,
                     base::Clock& clock, base::Log& log);

    // Until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run() { return rounds_.run(ready); }
    // The guest is off, gone, or boots anew: what it said doesn't hold any more, nor what it is just saying.
    void forget(std::string_view id) { rounds_.forget(id); }

    // While it lives, somebody waits for the guest to be ready. Mustn't outlive the sampler.
    class Awaited {
    public:
        Awaited(ReadinessSampler& sampler, const std::string& id) : all_(sampler.awaited_), place_(all_.insert(id)) {}
        ~Awaited() { all_.erase(place_); }
        Awaited(const Awaited&) = delete;
        Awaited& operator=(const Awaited&) = delete;

    private:
        std::multiset<std::string, std::less<>>& all_;
        std::multiset<std::string, std::less<>>::iterator place_;
    };

    // While it says no, nobody is asked.
    std::function<bool()> ready = [] { return true; };

    static constexpr std::chrono::seconds awaited_interval{3};
    static constexpr std::chrono::seconds early_interval{15};  // in a guest's first ten minutes
    static constexpr std::chrono::seconds late_interval{60};
    static constexpr std::size_t at_once = 16;

private:
    struct Told {
        bool settled = false;
        unsigned unanswered = 0;  // programs in a row that didn't end
        CloudInitDialect dialect = CloudInitDialect::json;
    };
    using Rounds = GuestRounds<Told>;

    [[nodiscard]] bool is_due(const std::string& id, const Rounds::Guest& guest, base::Instant now) const;
    boost::asio::awaitable<void> ask(std::string id, std::uint64_t start);
    boost::asio::awaitable<base::Result<GuestReadiness>> question(std::string id, CloudInitDialect& dialect);
    void take(Rounds::Guest& guest, const Vm& vm, GuestReadiness answer);

    virt::Hypervisor& hypervisor_;
    VmIndex& index_;
    base::Log& log_;
    std::multiset<std::string, std::less<>> awaited_;
    Rounds rounds_;
};

}  // namespace ghost::agent
