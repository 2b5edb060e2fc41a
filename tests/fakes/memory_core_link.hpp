// A way to a FakeCore in this process, with the time that it takes and the ways in which it fails.
#pragma once

#include "base/clock.hpp"
#include "heartbeat/core_link.hpp"
#include "tests/fakes/fake_core.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <functional>
#include <string>
#include <utility>

namespace ghost::fakes {

// A call as Core gets it.
[[nodiscard]] net::Request request_at_core(const heartbeat::CoreCall& call);

class MemoryCoreLink final : public heartbeat::CoreLink {
public:
    MemoryCoreLink(FakeCore& core, base::Clock& clock) : core_(core), clock_(clock) {}

    boost::asio::awaitable<base::Result<heartbeat::CoreAnswer>> send(heartbeat::CoreCall call) override;
    void drop() override { ++drops_; }
    base::Result<void> use(heartbeat::Credentials credentials, std::optional<std::string> root) override;

    enum class Way : std::uint8_t {
        open,
        refused,  // nobody listens there
        silent,   // nothing comes back
    };
    Way way = Way::open;
    base::Duration latency = std::chrono::milliseconds{10};  // each way
    // Whether whoever sends is no more: nothing of it arrives.
    std::function<bool()> dead = [] { return false; };
    // Told of each call that reached Core, before its answer goes back.
    std::function<void(const heartbeat::CoreCall& call, const FakeCore::Served& served)> served;
    // Whose certificate was made by hand, and is shown whatever the agent uses.
    std::string shown;

    [[nodiscard]] std::size_t drops() const noexcept { return drops_; }
    [[nodiscard]] std::size_t sent() const noexcept { return sent_; }

private:
    FakeCore& core_;
    base::Clock& clock_;
    heartbeat::Credentials credentials_;
    std::size_t drops_ = 0;
    std::size_t sent_ = 0;
};

}  // namespace ghost::fakes
