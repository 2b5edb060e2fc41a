#include "virt/lane_pool.hpp"

#include "virt/lane_core.hpp"

namespace ghost::virt {

namespace asio = boost::asio;

std::string_view name_of(LaneClass lane) noexcept {
    switch (lane) {
        case LaneClass::query: return "query";
        case LaneClass::mutate: return "mutate";
        case LaneClass::guest: return "guest";
        case LaneClass::control: return "control";
        case LaneClass::events: return "events";
    }
    return "unknown";
}

LanePool::LanePool(asio::io_context& context, std::string uri, LaneOptions options, base::Clock& clock,
                   base::Random& random, base::Log& log)
    : core_(std::make_shared<LaneCore>(context, std::move(uri), std::move(options), clock, random, log)) {
    core_->start_threads();
}
LanePool::~LanePool() = default;
void LanePool::set_hooks(LaneHooks hooks) { core_->set_hooks(std::move(hooks)); }
asio::awaitable<void> LanePool::run() { return core_->run(); }
asio::awaitable<void> LanePool::close(std::chrono::milliseconds grace) { return core_->close(grace); }
bool LanePool::up() const noexcept { return core_->up(); }
std::vector<LaneStats> LanePool::stats() const { return core_->stats(); }
asio::awaitable<base::Result<void>> LanePool::perform(LaneJob job) { return core_->call(std::move(job)); }

}  // namespace ghost::virt
