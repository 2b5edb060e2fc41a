#include "agent/access/screenshots.hpp"

#include "base/cancelled.hpp"
#include "net/digest.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

asio::awaitable<void> Screenshots::take(std::string vm, std::shared_ptr<Shot> shot) {
    // However it ends, nobody waits for it any more.
    struct Guard {
        Screenshots& of;
        const std::string& vm;
        Shot& shot;
        ~Guard() {
            if (!shot.result) shot.result = base::fail(base::Errc::cancelled, "the agent is stopping");
            shot.done.notify();
            of.shots_.erase(vm);
        }
    };
    const Guard guard{*this, vm, *shot};
    auto picture = co_await hypervisor_.screenshot(vm);
    if (!picture) {
        shot->result = base::fail(std::move(picture).error());
        co_return;
    }
    // A picture may be of many MiB.
    const auto taken = std::make_shared<Screenshot>(*std::move(picture));
    auto digest =
        co_await files_.make([taken]() -> base::Result<std::string> { return net::sha256_hex(taken->picture.bytes); });
    if (!digest) {
        shot->result = base::fail(std::move(digest).error());
        co_return;
    }
    taken->etag = fmt::format("\"{}\"", *digest);
    shot->result = taken;
    shot->done.notify();
    co_await clock_.sleep_for(fresh);
}

asio::awaitable<base::Result<std::shared_ptr<const Screenshot>>> Screenshots::of(std::string vm) {
    const auto known = shots_.find(vm);
    const auto shot = known != shots_.end() ? known->second : std::make_shared<Shot>(executor_);
    if (known == shots_.end()) {
        shots_.emplace(vm, shot);
        tasks_.spawn("screenshot " + vm, take(vm, shot));
    }
    while (!shot->result) {
        co_await shot->done.wait();
        if (!shot->result && co_await base::is_cancelled())
            co_return base::fail(base::Errc::cancelled, "cancelled while the screenshot was taken");
    }
    co_return *shot->result;
}

}  // namespace ghost::agent
