#include "simulation/schedule.hpp"

#include "simulation/beat_watch.hpp"
#include "simulation/clients.hpp"
#include "simulation/core_faults.hpp"
#include "simulation/faults.hpp"
#include "simulation/invariants.hpp"
#include "simulation/machine.hpp"
#include "simulation/ordering.hpp"
#include "simulation/readers.hpp"
#include "simulation/surroundings.hpp"
#include "simulation/vendor.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <list>
#include <set>
#include <string>

namespace ghost::simulation {
namespace {

using State = Machine::State;

constexpr int longest_quiet_s = 7200;  // virtual seconds until nothing is under way any more: creates wait in line
constexpr int quiet_s = 25;            // for so long nothing may be: sampling would have found what events didn't tell

class Schedule {
public:
    Schedule(std::uint64_t seed, Trace& trace)
        : dice_(seed),
          trace_(trace),
          m_(dice_, trace),
          clients_(m_, told_),
          ordering_(m_, clients_),
          surroundings_(m_),
          vendor_(m_),
          faults_(m_),
          core_faults_(m_),
          beats_(m_) {
        m_.on_pause = [this] { watch_beats(); };
        const auto count = dice_.between(1, 3);
        for (std::size_t i = 0; i < count; ++i) readers_.emplace_back(m_, told_, i);
    }

    // While those are there who hear of it.
    ~Schedule() { m_.crash(Machine::Death::kill); }
    Schedule(const Schedule&) = delete;
    Schedule& operator=(const Schedule&) = delete;

    void run() {
        prologue();
        for (auto left = dice_.between(15, 110); left > 0 && trace_.sound(); --left) {
            step();
            watch_beats();
            progress();
        }
        if (trace_.sound()) check();
        if (trace_.sound() && dice_.percent(30)) {
            m_.crash(dice_.percent(50) ? Machine::Death::kill : Machine::Death::power_loss);
            check();
        }
    }

private:
    // Something to make VMs of.
    void prologue() {
        m_.files.put("/images/tiny.qcow2", fakes::qcow2_bytes(1ULL << 30U));
        m_.files.put("/images/small.qcow2", fakes::qcow2_bytes(1ULL << 29U));
        m_.boot();
        m_.settle();
        net::Request request;
        request.method = net::Method::post;
        request.path = "/v1/images";
        request.body = R"({"source": "file:///images/tiny.qcow2"})";
        request.headers.set("Content-Type", "application/json");
        request.context = {"prologue", "", {base::Principal::Kind::socket, "uid:0", true}};
        m_.send(std::move(request), {[](const net::Response&) {}, [](const std::string&) {}, [] {}});
        m_.settle();
        if (dice_.percent(50)) faults_.slow_down();
        calm_ = dice_.percent(10);
    }

    void step() {
        const auto roll = dice_.below(100);
        if (m_.state() == State::down && roll < 50) return m_.boot();
        if (roll < 47) return clients_.act();
        if (roll < 55) return ordering_.act();
        if (roll < 67) return read();
        if (roll < 76) return surroundings_.act();
        if (roll < 79) {
            if (!calm_) vendor_.act();
            return;
        }
        if (roll < 88) {
            if (!calm_) faults_.act();
            return;
        }
        if (roll < 92) {
            if (!calm_) core_faults_.act();
            return;
        }
        if (!calm_ || dice_.percent(30)) die();
    }

    void read() {
        auto at = std::next(readers_.begin(), static_cast<std::ptrdiff_t>(dice_.below(readers_.size())));
        if (dice_.percent(25))
            at->cut_off();
        else
            at->go_on();
    }

    void die() {
        const auto how = dice_.percent(50) ? Machine::Death::kill : Machine::Death::power_loss;
        switch (dice_.below(6)) {
            case 0:
                if (m_.state() == State::up) return m_.stop();
                break;
            case 1: return m_.crash_in_commit(static_cast<unsigned>(dice_.between(1, 12)), how);
            default: break;
        }
        m_.crash(how);
    }

    // Time passes for the machine: some handlers, or all, or seconds.
    void progress() {
        const auto roll = dice_.below(100);
        if (roll < 45) {
            for (auto left = dice_.below(40); left > 0 && m_.turn(); --left) {
            }
        } else if (roll < 75) {
            m_.settle();
        } else if (roll < 97) {
            m_.pass(std::chrono::milliseconds{dice_.below(4000)});
        } else {
            m_.pass(std::chrono::seconds{dice_.below(60)});
        }
    }

    // Those that nobody has go within the hour.
    [[nodiscard]] bool blobs_have_owners() {
        const auto& images = m_.app().images();
        std::set<std::string> owned;
        for (const auto& [name, image] : images.all()) owned.insert(images.path_of(image.digest, image.format));
        for (const auto& [id, vm] : m_.app().vms().all())
            owned.insert(images.path_of(vm.plan.image_digest, vm.plan.image_format));
        const std::string blobs = std::string{Machine::state_dir} + "/images/";
        return std::ranges::all_of(m_.files.files(), [&](const auto& path) {
            return !path.starts_with(blobs) || path.at(blobs.size()) == '.' || owned.contains(path);
        });
    }

    [[nodiscard]] bool at_rest() {
        const bool follow = std::ranges::all_of(readers_, &Reader::follows);
        return m_.state() == State::up && m_.app().operations().unfinished() == 0 && clients_.waiting() == 0 &&
               follow && m_.app().not_ready_because().empty() && ordering_.waiting() == 0 &&
               m_.app().core().facts_waiting() == 0 && m_.app().core().told_all() &&
               m_.app().core().status().state == heartbeat::LinkState::connected && blobs_have_owners();
    }

    // Also to those that are made while Core's last commands are carried out.
    void give_addresses() {
        for (const auto& [id, domain] : m_.hypervisor.all())
            if (addressed_.insert(id).second) m_.hypervisor.set_addresses(id, {"192.168.122.2"});
    }

    // Also where no time passes: a fault that is over before any does keeps beats away for longer.
    void watch_beats() { beats_.look(core_faults_.calm()); }

    void check() {
        watch_beats();
        addressed_.clear();
        faults_.heal();
        vendor_.mend();
        core_faults_.heal();
        ordering_.open_again();
        int quiet = 0;
        for (int s = 0; s < longest_quiet_s && quiet < quiet_s && trace_.sound(); ++s) {
            if (m_.state() == State::down) m_.boot();
            m_.settle();
            for (auto& reader : readers_) reader.go_on();
            give_addresses();
            m_.pass(std::chrono::seconds{1});
            quiet = at_rest() ? quiet + 1 : 0;
        }
        if (trace_.sound() && quiet < quiet_s) {
            trace_.violated("it doesn't come to rest: {} operations, {} requests, {} commands, {}",
                            m_.state() == State::up ? m_.app().operations().unfinished() : 0, clients_.waiting(),
                            ordering_.waiting(), m_.state() == State::up ? m_.app().not_ready_because() : "not up");
            return;
        }
        if (!trace_.sound()) return;
        trace_("looking at everything");
        const Scene scene{m_, clients_, ordering_, readers_, surroundings_, faults_, told_};
        Inspection{scene}.run();
    }

    Dice dice_;
    Trace& trace_;
    Told told_{trace_};
    std::list<Reader> readers_;
    Machine m_;
    Clients clients_;
    Ordering ordering_;
    Surroundings surroundings_;
    Vendor vendor_;
    Faults faults_;
    CoreFaults core_faults_;
    BeatWatch beats_;
    std::set<std::string> addressed_;
    bool calm_ = false;  // nothing goes wrong but what guests do
};

}  // namespace

void run_schedule(std::uint64_t seed, Trace& trace) {
    try {
        Schedule{seed, trace}.run();
    } catch (const std::exception& e) {
        trace.violated("the schedule was ended by an exception: {}", e.what());
    }
}

}  // namespace ghost::simulation
