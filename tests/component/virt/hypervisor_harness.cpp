#include "tests/component/virt/hypervisor_harness.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace ghost::tests {
namespace {

using namespace std::chrono_literals;

boost::asio::awaitable<void> read_events(virt::Hypervisor& hypervisor, std::vector<virt::Event>& events) {
    for (;;) events.push_back(co_await hypervisor.next_event());
}

// GHOST_TEST_VIRT_TYPE=qemu: for machines with a KVM that can't run guests.
virt::LibvirtOptions with_virt_type(virt::LibvirtOptions options) {
    const auto* const type = std::getenv("GHOST_TEST_VIRT_TYPE");  // NOLINT(concurrency-mt-unsafe): nobody sets it
    if (type != nullptr && std::string_view{type} == "qemu" && options.virt_type == virt::VirtType::automatic &&
        options.kvm_device == virt::LibvirtOptions{}.kvm_device)
        options.virt_type = virt::VirtType::qemu;
    return options;
}

}  // namespace

HypervisorHarness::HypervisorHarness(std::string uri, virt::LibvirtOptions given)
    : hypervisor_(std::make_unique<virt::LibvirtHypervisor>(context_, std::move(uri), clock_, random_, log_,
                                                            with_virt_type(std::move(given)))) {
    boost::asio::co_spawn(
        context_, hypervisor_->run(),
        boost::asio::bind_cancellation_slot(stop_running_.slot(), [this](std::exception_ptr) { running_ = false; }));
    boost::asio::co_spawn(
        context_, read_events(*hypervisor_, events),
        boost::asio::bind_cancellation_slot(stop_reading_.slot(), [this](std::exception_ptr) { reading_ = false; }));
}

HypervisorHarness::~HypervisorHarness() {
    stop_running_.emit(boost::asio::cancellation_type::terminal);
    stop_reading_.emit(boost::asio::cancellation_type::terminal);
    CHECK(wait([this] { return !running_ && !reading_; }));
    bool closed = false;
    boost::asio::co_spawn(context_, hypervisor_->close(20s), [&closed](std::exception_ptr) { closed = true; });
    CHECK(wait([&closed] { return closed; }));
    CHECK(wait([this] { return hypervisor_->live_watches() == 0; }));
    hypervisor_.reset();
}

bool HypervisorHarness::wait(const std::function<bool()>& done) {
    const auto until = std::chrono::steady_clock::now() + 60s;
    while (!done() && std::chrono::steady_clock::now() < until) {
        context_.restart();
        context_.run_one_for(100ms);
    }
    return done();
}

bool HypervisorHarness::connected() {
    const auto until = std::chrono::steady_clock::now() + 8s;
    return wait([&] { return hypervisor_->link().connected || std::chrono::steady_clock::now() > until; }) &&
           hypervisor_->link().connected;
}

bool HypervisorHarness::saw(const std::string& uuid, const std::string& what) const {
    return std::ranges::any_of(events, [&](const virt::Event& e) { return e.uuid == uuid && e.what == what; });
}

virt::DomainSpec diskless(HypervisorHarness& harness) {
    virt::DomainSpec spec;
    spec.uuid = harness.new_uuid();
    spec.name = harness.new_name();
    spec.vcpus = 1;
    spec.memory_mib = 64;
    spec.record = R"({"owner":"a <b> & 'c'"})";
    return spec;
}

}  // namespace ghost::tests
