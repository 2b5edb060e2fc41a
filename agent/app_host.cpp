// What becomes of the host while the agent runs: it sleeps, wakes, and moves between networks.
#include "agent/app.hpp"

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds network_interval{30};  // between tries to watch it
constexpr std::chrono::seconds network_pause{1};      // an address that flaps would else leave no time for a beat

}  // namespace

asio::awaitable<void> App::follow_network() {
    if (s_.network == nullptr) co_return;
    bool watched = true;
    do {
        while (co_await s_.network->changed()) {
            watched = true;
            tailnet_.look_again();
            core_.network_changed();
            // What changes meanwhile is told with the next call.
            if (!co_await s_.clock.sleep_for(network_pause)) co_return;
        }
        if (!stopping_ && std::exchange(watched, false)) s_.log.warn("the network isn't watched; trying again");
    } while (co_await s_.clock.sleep_for(network_interval));
}

asio::awaitable<void> App::before_sleep() {
    s_.log.info("the host goes to sleep");
    co_await core_.before_sleep(SleepWatch::patience);
}

void App::woke(base::Duration slept) {
    s_.log.info("the host woke up", {{"slept_s", std::chrono::duration_cast<std::chrono::seconds>(slept).count()}});
    guest_clocks_.set_all();
    tailnet_.look_again();
    core_.woke();
}

}  // namespace ghost::agent
