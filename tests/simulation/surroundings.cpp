#include "simulation/surroundings.hpp"

#include "simulation/clients.hpp"

#include <fmt/format.h>

#include <utility>
#include <vector>

namespace ghost::simulation {

void Surroundings::define_one() {
    virt::DomainInfo domain;
    domain.uuid = fmt::format("7d3c0f0e-1111-4222-8333-{:012x}", ++made_);
    // Now and then with the name that a VM of ours has or will have.
    domain.name = m_.dice.percent(20) ? std::string{m_.dice.pick(Clients::names)} : fmt::format("theirs-{}", made_);
    for (const auto& [uuid, other] : m_.hypervisor.all())
        if (other.name == domain.name) return;
    domain.power = m_.dice.percent(50) ? virt::Power::running : virt::Power::off;
    domain.persistent = m_.dice.percent(80);
    domain.vcpus = 1;
    domain.memory_mib = 256;
    if (!domain.persistent) domain.power = virt::Power::running;
    m_.trace("virsh defines {} ({})", domain.name, domain.uuid);
    others_.insert(domain.uuid);
    m_.hypervisor.put(std::move(domain));
}

void Surroundings::litter() {
    const auto path =
        fmt::format("{}/disks/0198c0f0-2222-7222-8333-{:012x}-root.qcow2", std::string{Machine::state_dir}, ++made_);
    m_.trace("somebody leaves {}", path);
    litter_.insert(path);
    m_.files.put(path, "a disk of nobody's");
}

void Surroundings::act() {
    auto& dice = m_.dice;
    auto& hypervisor = m_.hypervisor;
    if (dice.percent(12)) return define_one();
    if (dice.percent(3)) return litter();
    std::vector<std::string> ids;
    for (const auto& [uuid, domain] : hypervisor.all()) ids.push_back(uuid);
    if (ids.empty()) return;
    const auto id = dice.pick(ids);
    const auto& domain = *hypervisor.find(id);
    const bool lives = domain.live_vcpus > 0;
    switch (dice.below(9)) {
        case 0:
            if (!lives) return;
            m_.trace("the guest of {} crashes", id);
            return hypervisor.guest_crashes(id);
        case 1:
        case 2:
            if (!lives) return;
            m_.trace("the guest of {} powers itself off", id);
            return hypervisor.guest_powers_off(id);
        case 3:
            m_.trace("the guest of {} ignores requests to shut down", id);
            return hypervisor.on_shutdown(id, fakes::FakeHypervisor::Shutdown::ignore);
        case 4:
            m_.trace("the guest of {} obeys requests to shut down", id);
            return hypervisor.on_shutdown(id, fakes::FakeHypervisor::Shutdown::obey);
        case 5:
            m_.trace("the guest of {} has an address", id);
            return hypervisor.set_addresses(id, {fmt::format("192.168.122.{}", dice.between(2, 9))});
        case 6:
            if (lives) return;
            m_.trace("virsh starts {}", id);
            return hypervisor.set_power(id, virt::Power::running, "booted");
        case 7:
            if (domain.power != virt::Power::running) return;
            m_.trace("virsh suspends {}", id);
            return hypervisor.set_power(id, virt::Power::paused, dice.percent(50) ? "user" : "io_error");
        default:
            if (!others_.contains(id) && dice.percent(70)) return;
            m_.trace("virsh undefines {}", id);
            undefined_.insert(id);
            return hypervisor.vanish(id);
    }
}

}  // namespace ghost::simulation
