// Every VM in memory: what the database wants and what the hypervisor shows.
// Fed by the services and the observer; every GET is answered from here.
#pragma once

#include "agent/vm/vm.hpp"
#include "base/clock.hpp"
#include "base/notifier.hpp"

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

// Loop thread only.
class VmIndex {
public:
    // Revisions start at `first_revision`, which must exceed those of earlier runs so that no ETag comes twice.
    VmIndex(const boost::asio::any_io_executor& executor, const base::Clock& clock, std::uint64_t first_revision)
        : clock_(clock), next_revision_(first_revision), changed_(executor) {}

    [[nodiscard]] const Vm* find(std::string_view id) const;
    // By id, else by name; a managed VM before another domain of that name.
    [[nodiscard]] const Vm* find_ref(std::string_view id_or_name) const;
    [[nodiscard]] const std::map<std::string, Vm, std::less<>>& all() const noexcept { return vms_; }

    // Adds or replaces; what was observed of it stays.
    void put(Vm vm);
    void erase(std::string_view id);
    // Changes a VM in place; false when it isn't there.
    bool change(std::string_view id, const std::function<void(Vm&)>& how);
    // What the hypervisor shows now. Volatile figures alone don't raise the revision.
    void observe(std::string_view id, Observed seen);
    // Something else that shows with the VM changed (its operation).
    void touch(std::string_view id);

    // VMs that will run in a moment: they count in admission as if they did.
    void claim(const std::string& id) { claims_.insert(id); }
    void release(const std::string& id) { claims_.erase(id); }
    [[nodiscard]] bool claimed(const std::string& id) const { return claims_.contains(id); }

    // Told of each VM that is erased.
    std::function<void(std::string_view)> on_erased;
    // Told of each VM that changes visibly, comes or goes.
    std::function<void(std::string_view)> on_changed;
    // Woken by every visible change.
    [[nodiscard]] base::Notifier& changed() noexcept { return changed_; }

private:
    void bump(Vm& vm);

    const base::Clock& clock_;
    std::uint64_t next_revision_;
    base::Notifier changed_;
    std::map<std::string, Vm, std::less<>> vms_;
    std::set<std::string> claims_;
};

// The conditions of a VM as it stands; those that held before keep their `since`.
[[nodiscard]] std::vector<Condition> conditions_of(const Vm& vm, base::Wall now);

}  // namespace ghost::agent
