#include "simulation/beat_watch.hpp"

namespace ghost::simulation {
namespace {

// Another call to Core may be under way when a beat is due.
constexpr std::chrono::milliseconds longest_call{100};

}  // namespace

void BeatWatch::look(bool calm) {
    if (m_.core.violations().size() > violations_) m_.trace.violated("Core: {}", m_.core.violations()[violations_]);
    violations_ = m_.core.violations().size();
    if (!calm || m_.state() != Machine::State::up) {
        calm_since_.reset();
        return;
    }
    const auto now = m_.clock.now();
    if (!calm_since_) calm_since_ = now;
    const auto last = m_.core.agent(Machine::agent_id)->last_beat;
    // What went wrong before may still be waited for; a beat since then has told that it isn't.
    if (!last || *last <= *calm_since_) return;
    const auto silent = now - *last;
    if (silent > std::chrono::seconds{m_.core.settings.ttl_s} + longest_call)
        m_.trace.violated("Core has heard nothing for {} ms",
                          std::chrono::duration_cast<std::chrono::milliseconds>(silent).count());
}

}  // namespace ghost::simulation
