#include "simulation/faults.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include <chrono>
#include <string>

namespace ghost::simulation {
namespace {

using base::Errc;
using When = fakes::FakeHypervisor::When;

constexpr std::array<std::string_view, 13> changes{
    "define", "undefine", "start",  "request_shutdown", "power_off",  "reset",         "pause",
    "resume", "save",     "resize", "set_autostart",    "set_record", "ensure_network"};
constexpr std::array<std::string_view, 5> reads{"domains", "domain", "states", "usage", "addresses"};
constexpr std::uint64_t plenty = 1ULL << 40U;

base::Duration milliseconds(std::size_t count) { return std::chrono::milliseconds{count}; }

}  // namespace

void Faults::act() {
    switch (m_.dice.below(10)) {
        case 0: return in_database();
        case 1:
        case 2: return in_files();
        default: return in_calls();
    }
}

void Faults::slow_down() {
    m_.hypervisor.latency = [this](std::string_view) {
        auto& dice = m_.dice;
        if (dice.percent(60)) return fakes::FakeHypervisor::Latency{};
        return fakes::FakeHypervisor::Latency{milliseconds(dice.percent(50) ? dice.below(3000) : 0),
                                              milliseconds(dice.percent(50) ? dice.below(3000) : 0)};
    };
    m_.files.more_turns = [this] { return static_cast<unsigned>(m_.dice.below(4)); };
}

void Faults::in_calls() {
    auto& dice = m_.dice;
    auto& hypervisor = m_.hypervisor;
    calls_ = true;
    const std::string call{dice.percent(75) ? dice.pick(changes) : dice.pick(reads)};
    switch (dice.below(12)) {
        case 0:
        case 1:
        case 2: {
            const auto code = dice.percent(50) ? Errc::hypervisor_error : Errc::hypervisor_unavailable;
            const auto when = dice.percent(50) ? When::before_effect : When::after_effect;
            const auto times = dice.percent(80) ? dice.between(1, 3) : fakes::FakeHypervisor::always;
            m_.trace("{} fails {} its effect, {} times: {}", call, when == When::before_effect ? "before" : "after",
                     times, base::name_of(code));
            return hypervisor.fail(call, {code, call + " fails"}, times, when);
        }
        case 3: m_.trace("{} fails no more", call); return hypervisor.heal(call);
        case 4:
        case 5:
        case 6: m_.trace("{} hangs", call); return hypervisor.hang(call);
        case 7: m_.trace("{} hangs no more", call); return hypervisor.release(call);
        case 8: {
            const auto late = dice.percent(60) ? dice.below(8000) : 0;
            const std::string read{dice.pick(reads)};
            m_.trace("{} answers {} ms late", read, late);
            return hypervisor.answer_late(read, milliseconds(late));
        }
        case 9:
            if (hypervisor.link().connected) {
                m_.trace("the link drops");
                hypervisor.drop_link("libvirtd is gone");
            } else {
                m_.trace("the link is back");
                hypervisor.restore_link();
            }
            return;
        case 10: {
            const bool lose = dice.percent(50);
            m_.trace("events are {}", lose ? "lost" : "delivered");
            return hypervisor.lose_events(lose);
        }
        default: {
            const bool open = dice.percent(50);
            m_.trace("the breaker is {}", open ? "open" : "closed");
            return hypervisor.open_breaker(open);
        }
    }
}

void Faults::in_files() {
    auto& dice = m_.dice;
    files_ = true;
    const base::Error error{dice.percent(50) ? Errc::io_error : Errc::insufficient_storage, "the disk is no good"};
    switch (dice.below(6)) {
        case 0:
        case 1: {
            const auto n = static_cast<unsigned>(dice.between(1, 6));
            m_.trace("the {}. change of files fails", n);
            return m_.files.fail_change(n, error);
        }
        case 2: {
            constexpr std::array<std::string_view, 5> parts{"-root.qcow2", "-seed.iso", "/images/", "-data",
                                                            "consoles"};
            const std::string part{dice.pick(parts)};
            m_.trace("files with {} fail", part);
            return m_.files.fail_paths(part, error);
        }
        case 3: m_.trace("paths are good again"); return m_.files.fail_paths("", {});
        case 4: {
            const bool full = dice.percent(60);
            m_.trace("the disk is {}", full ? "full" : "empty enough");
            return m_.files.set_capacity(full ? m_.files.used() + dice.below(400'000) : plenty);
        }
        default: {
            const auto n = static_cast<unsigned>(dice.between(1, 3));
            m_.trace("the {}. run of qemu-img fails", n);
            return m_.processes.fail_run(n, base::Exit{1, {}, "qemu-img: no luck\n"});
        }
    }
}

void Faults::in_database() {
    auto& dice = m_.dice;
    database_ = true;
    switch (dice.below(6)) {
        case 0:
        case 1: {
            const auto room = dice.below(60'000);
            m_.trace("the database's disk has {} bytes", room);
            return m_.disk.set_capacity(m_.disk.used() + room);
        }
        case 2: m_.trace("the database's disk has room"); return m_.disk.set_capacity(plenty);
        case 3: m_.trace("the database can't be written"); return m_.disk.fail_writes(SQLITE_IOERR_WRITE);
        case 4:
            syncs_ = true;
            m_.trace("the database can't be synced");
            return m_.disk.fail_syncs(SQLITE_IOERR_FSYNC);
        default:
            m_.trace("the database is well");
            m_.disk.fail_writes(0);
            return m_.disk.fail_syncs(0);
    }
}

void Faults::heal() {
    m_.trace("everything is healed");
    for (const auto call : changes) m_.hypervisor.heal(call), m_.hypervisor.release(call);
    for (const auto call : reads) {
        m_.hypervisor.heal(call);
        m_.hypervisor.release(call);
        m_.hypervisor.answer_late(std::string{call}, {});
    }
    m_.hypervisor.release("ensure_pool");
    m_.hypervisor.latency = {};
    m_.hypervisor.lose_events(false);
    m_.hypervisor.open_breaker(false);
    m_.hypervisor.restore_link();
    m_.files.more_turns = {};
    m_.files.fail_change(0, {});
    m_.files.fail_paths("", {});
    m_.files.set_capacity(plenty);
    m_.processes.fail_run(0, base::Exit{});
    m_.disk.stop_at(0);
    m_.disk.set_capacity(plenty);
    m_.disk.fail_writes(0);
    m_.disk.fail_syncs(0);
}

}  // namespace ghost::simulation
