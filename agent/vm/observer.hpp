// Keeps the index true: reads everything at each (re)connection, single domains
// on events, cheap states and dearer figures in the background.
#pragma once

#include "agent/vm/guest_sampler.hpp"
#include "agent/vm/host_keys_sampler.hpp"
#include "agent/vm/readiness_sampler.hpp"
#include "agent/vm/reading_order.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/task_group.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>

#include <functional>
#include <set>
#include <string>

namespace ghost::agent {

class Observer {
public:
    Observer(boost::asio::any_io_executor executor, virt::Hypervisor& hypervisor, VmIndex& index, base::Clock& clock,
             base::Log& log);

    // Follows events until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> follow_events();
    // States of all every few seconds, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> sample_states_forever();
    // Figures and addresses of each running VM, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> sample_guests_forever() { return guests_.run(); }

    // How far cloud-init is in each, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> sample_readiness_forever() { return readiness_.run(); }
    // The keys of each one's SSH server, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> sample_host_keys_forever() { return host_keys_.run(); }
    // While what it returns lives, the guest is asked every few seconds.
    [[nodiscard]] ReadinessSampler::Awaited await_readiness(const std::string& id) { return {readiness_, id}; }

    // Everything again every few minutes, should an event ever have been lost, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> reread_forever();

    // Reads one domain now; for the end of an operation, so that its answer shows the truth.
    [[nodiscard]] boost::asio::awaitable<void> refresh(std::string id);

    // Everything was read at least once since the link last came up.
    [[nodiscard]] bool synced() const noexcept { return synced_; }
    // Whether a record found on a domain was written by this agent: another one may use the same hypervisor.
    std::function<bool(const Vm&)> is_ours;
    // Whether a VM of ours was deleted, or its create undone, before its domain came to be: libvirt carries a call of
    // an agent that died to its end.
    std::function<bool(const Vm&)> is_gone;
    // Such a domain turned up: it is to be taken away.
    std::function<void(const Vm&)> on_leftover;
    // A domain carries our record and the database doesn't know it: it was taken up as the record says.
    std::function<void(const Vm&)> on_recognised;
    // Called after each full reading, before synced() turns true the first time; host objects are made sure of here.
    std::function<boost::asio::awaitable<void>()> on_sync;
    [[nodiscard]] base::Notifier& synced_changed() noexcept { return synced_changed_; }

    static constexpr std::chrono::minutes reread_interval{5};
    static constexpr std::chrono::seconds sample_interval{10};
    static constexpr std::size_t refreshes_at_once = 2;

private:
    boost::asio::awaitable<void> take_events();
    boost::asio::awaitable<void> resync();
    boost::asio::awaitable<base::Result<std::size_t>> read_all();
    boost::asio::awaitable<void> refresh_pending();
    boost::asio::awaitable<void> sample_states();
    void want_refresh(std::string id);
    void apply(const virt::DomainInfo& domain);
    const Vm* take_up(const virt::DomainInfo& domain);
    void vanished(std::string_view id);
    void forget_guest(std::string_view id);
    void boots_anew(std::string_view id);
    void link_lost();

    virt::Hypervisor& hypervisor_;
    VmIndex& index_;
    base::Clock& clock_;
    base::Log& log_;
    ReadingOrder order_;
    GuestSampler guests_;
    ReadinessSampler readiness_;
    HostKeysSampler host_keys_;
    base::TaskGroup refreshers_;
    std::set<std::string> pending_;
    base::Notifier synced_changed_;
    bool synced_ = false;
};

}  // namespace ghost::agent
