// Who of the guests that run is asked next, when, and whether an answer still
// counts. Asks nobody itself.
#pragma once

#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/task_group.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/this_coro.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ghost::agent {

// `Told`: what is remembered of a guest beside. Loop thread only.
template <class Told>
class GuestRounds {
public:
    struct Guest : Told {  // one that runs, since it was started
        std::uint64_t start = 0;
        base::Instant first_seen{};
        base::Instant asked{};  // last
        bool under_way = false;
    };
    struct Rules {
        std::string_view task;    // as logs name it
        base::Duration interval;  // between looks at who is to be asked
        std::size_t at_once = 0;
        std::function<bool(const Vm&)> may_be_asked;
        std::function<bool(const Vm&, const Guest&, base::Instant now)> is_due;  // of one that isn't being asked
        std::function<boost::asio::awaitable<void>(std::string id, std::uint64_t start)> ask;
    };

    GuestRounds(const boost::asio::any_io_executor& executor, const VmIndex& index, base::Clock& clock, base::Log& log,
                Rules rules)
        : index_(index), clock_(clock), askers_(executor, log), rules_(std::move(rules)) {}

    // Until cancelled. While `ready` says no, nobody is asked.
    [[nodiscard]] boost::asio::awaitable<void> run(const std::function<bool()>& ready) {
        // The askers belong to this coroutine: they end with it.
        co_await boost::asio::this_coro::throw_if_cancelled(false);
        do {
            if (ready()) ask_those_due();
        } while (co_await clock_.sleep_for(rules_.interval));
        askers_.cancel();
        co_await askers_.drain();
    }
    // The guest is off, gone, or boots anew: what it said doesn't hold any more, nor what it is just saying.
    void forget(std::string_view id) {
        if (const auto it = guests_.find(id); it != guests_.end()) guests_.erase(it);
    }
    // The guest that was asked since this start of it; nullptr: it has been forgotten meanwhile.
    [[nodiscard]] Guest* asked_in(std::string_view id, std::uint64_t start) {
        const auto it = guests_.find(id);
        return it == guests_.end() || it->second.start != start ? nullptr : &it->second;
    }
    // The same, and its answer, or that there is none, is here.
    [[nodiscard]] Guest* answered(std::string_view id, std::uint64_t start) {
        auto* guest = asked_in(id, start);
        if (guest == nullptr) return nullptr;
        guest->under_way = false;
        guest->asked = clock_.now();
        return guest;
    }

private:
    void ask_those_due() {
        const auto now = clock_.now();
        std::vector<std::pair<base::Instant, std::string>> due;
        for (const auto& [id, vm] : index_.all()) {
            if (!rules_.may_be_asked(vm)) continue;
            auto& guest = guests_[id];
            if (guest.start == 0) {
                guest.start = ++starts_;
                guest.first_seen = now;
            }
            if (!guest.under_way && rules_.is_due(vm, guest, now)) due.emplace_back(guest.asked, id);
        }
        std::ranges::sort(due);
        for (const auto& [asked, id] : due) {
            if (askers_.size() >= rules_.at_once) break;
            auto& guest = guests_[id];
            guest.under_way = true;
            guest.asked = now;
            askers_.spawn(std::string{rules_.task}, rules_.ask(id, guest.start));
        }
    }

    const VmIndex& index_;
    base::Clock& clock_;
    base::TaskGroup askers_;
    Rules rules_;
    std::map<std::string, Guest, std::less<>> guests_;
    std::uint64_t starts_ = 0;
};

}  // namespace ghost::agent
