// A LibvirtHypervisor on a loop of its own, for tests that wait for it in real time, within generous limits.
#pragma once

#include "base/clock.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "virt/libvirt_hypervisor.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::tests {

// Runs `run()` from its making until close().
class HypervisorHarness {
public:
    explicit HypervisorHarness(std::string uri, virt::LibvirtOptions options = {});
    ~HypervisorHarness();  // closes; every watch of libvirt's must be gone then
    HypervisorHarness(const HypervisorHarness&) = delete;
    HypervisorHarness& operator=(const HypervisorHarness&) = delete;

    [[nodiscard]] virt::LibvirtHypervisor& operator*() noexcept { return *hypervisor_; }
    [[nodiscard]] virt::LibvirtHypervisor* operator->() noexcept { return hypervisor_.get(); }

    // Runs the loop until `done`, at most a minute. Returns done().
    bool wait(const std::function<bool()>& done);
    // False when there is nothing to connect to.
    bool connected();

    template <class T>
    base::Result<T> call(boost::asio::awaitable<base::Result<T>> task) {
        auto slot = std::make_shared<std::optional<base::Result<T>>>();
        boost::asio::co_spawn(context_, std::move(task), [slot](std::exception_ptr error, base::Result<T> result) {
            slot->emplace(error ? base::Result<T>{base::fail(base::Errc::internal, "threw")} : std::move(result));
        });
        if (!wait([&slot] { return slot->has_value(); })) return base::fail(base::Errc::internal, "never came back");
        return std::move(**slot);
    }

    // What was read from next_event() so far.
    std::vector<virt::Event> events;
    [[nodiscard]] bool saw(const std::string& uuid, const std::string& what) const;

    [[nodiscard]] std::string new_uuid() { return base::make_uuid(clock_, random_); }
    // Unlike any other on this machine.
    [[nodiscard]] std::string new_name() { return "ghost-test-" + new_uuid().substr(24); }

private:
    boost::asio::io_context context_;
    base::SystemClock clock_;
    base::SystemRandom random_;
    base::Log log_;
    std::unique_ptr<virt::LibvirtHypervisor> hypervisor_;
    boost::asio::cancellation_signal stop_running_;
    boost::asio::cancellation_signal stop_reading_;
    bool running_ = true;
    bool reading_ = true;
};

// Small and diskless: it boots into nothing and stays there.
[[nodiscard]] virt::DomainSpec diskless(HypervisorHarness& harness);

}  // namespace ghost::tests
