// What Ghost Core hears of, and what it is to this agent's health.
#include "agent/app.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <ranges>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds tailnet_patience{2};

}  // namespace

void App::connect_core() {
    operations_.before_end = [this](const Operation& ended, storage::Changes& changes) {
        vms_.renew(changes);
        images_.renew(changes);
        core_.add_facts(ended, changes);
    };
    index_.on_changed = [this](std::string_view id) {
        announcer_.vm(id);
        core_.vm_changed(id);
    };
    if (!core_.enabled()) return;
    // An agent whose Core is away serves all the same: this is never `down`.
    health_.add("core", [this]() -> CheckResult {
        const auto status = core_.status();
        using enum heartbeat::LinkState;
        const bool well =
            status.state == connected || ((status.state == connecting || status.state == enrolling) && !status.failing);
        if (well && (status.state != connected || status.warnings.empty())) return {};
        const auto sentences = status.warnings | std::views::transform(&heartbeat::LinkWarning::message);
        if (well) return {CheckStatus::degraded, fmt::format("{}", fmt::join(sentences, "; "))};
        return {CheckStatus::degraded,
                status.detail.empty() ? std::string{heartbeat::name_of(status.state)} : status.detail};
    });
}

// Core is told this machine's tailnet address from the first word on, if tailscaled tells it soon.
asio::awaitable<void> App::link_to_core() {
    const auto patience = s_.clock.now() + tailnet_patience;
    while (s_.tailscaled != nullptr && !tailnet_.looked() && s_.clock.now() < patience)
        if (!co_await s_.clock.sleep_for(std::chrono::milliseconds{50})) co_return;
    co_await core_.run();
}

// The link ends before anything that it tells of does.
asio::awaitable<void> App::leave_core() {
    co_await asio::this_coro::throw_if_cancelled(false);
    core_tasks_.cancel();
    co_await core_tasks_.drain();
    co_await core_.leave();
}

std::optional<Metrics::Now::Core> App::core_metrics() const {
    if (!core_.enabled()) return std::nullopt;
    const auto status = core_.status();
    Metrics::Now::Core now{.beat_succeeded = status.last_beat_succeeded,
                           .beat_age = {},
                           .round_trip = std::chrono::duration<double>(status.round_trip).count(),
                           .beats = status.beats,
                           .beats_failed = status.beats_failed,
                           .facts_waiting = core_.facts_waiting(),
                           .commands_unfinished = core_.commands_unfinished()};
    if (status.last_beat) now.beat_age = std::chrono::duration<double>(s_.clock.now() - status.last_beat_at).count();
    return now;
}

}  // namespace ghost::agent
