// LibvirtHypervisor against libvirt's own mock driver, in this process.
#include "tests/component/virt/hypervisor_harness.hpp"
#include "tests/component/virt/private_libvirtd.hpp"
#include "virt/connection.hpp"
#include "virt/domain_changes.hpp"
#include "virt/host_objects.hpp"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

using namespace ghost;
using base::Errc;
using tests::diskless;
using tests::HypervisorHarness;
using virt::Power;

namespace {

constexpr const char* mock = "test:///default";

// A /proc/net/route of the test's own.
struct Routes {
    explicit Routes(const std::string& lines) {
        std::ofstream file{path};
        file << "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n" << lines;
    }
    ~Routes() { std::filesystem::remove(path); }
    Routes(const Routes&) = delete;
    Routes& operator=(const Routes&) = delete;
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("ghost-routes-" + std::to_string(::getpid()) + ".txt");
};

}  // namespace

TEST_CASE("the mock driver's host is described once connected") {
    HypervisorHarness harness{mock};
    REQUIRE(harness.connected());
    const auto& link = harness->link();
    CHECK(link.reason.empty());
    CHECK(link.host.kind == "test");
    CHECK(link.host.uri == mock);
    CHECK(link.host.libvirt_version.find('.') != std::string::npos);
    CHECK(link.host.qemu_version.empty());
    CHECK(link.host.cpus > 0);
    CHECK(link.host.memory_mib > 0);
    REQUIRE(harness.wait([&] { return !harness.events.empty(); }));
    CHECK(harness.events.front().kind == virt::Event::Kind::link_up);
}

TEST_CASE("a mock domain lives through its life and its events are told") {
    HypervisorHarness harness{mock};
    REQUIRE(harness.connected());
    auto spec = diskless(harness);
    spec.disks = {{"root", "/pool/<root>&.qcow2", "/images/base.qcow2", "qcow2"}};
    spec.seed_path = "/pool/seed.iso";
    spec.nics = {{"eth0", "default", "52:54:00:11:22:33"}};
    spec.autostart = false;
    const auto defined = harness.call(harness->define(spec, {}));
    INFO((defined ? "" : defined.error().detail));
    REQUIRE(defined.has_value());
    const auto read = [&] { return harness.call(harness->domain(spec.uuid)); };
    auto info = read();
    REQUIRE(info.has_value());
    CHECK(info->name == spec.name);
    CHECK(info->power == Power::off);
    CHECK(info->persistent);
    CHECK(info->record == spec.record);
    CHECK(info->disks.at(0).path == "/pool/<root>&.qcow2");
    CHECK(info->live_vcpus == 0);

    REQUIRE(harness.call(harness->start(spec.uuid, {})).has_value());
    info = read();
    CHECK(info->power == Power::running);
    CHECK(info->live_vcpus == 1);
    CHECK(info->live_memory_mib == 64);
    REQUIRE(harness.call(harness->pause(spec.uuid, {})).has_value());
    CHECK(read()->power == Power::paused);
    REQUIRE(harness.call(harness->resume(spec.uuid, {})).has_value());
    REQUIRE(harness.call(harness->save(spec.uuid, {})).has_value());
    CHECK(read()->power == Power::suspended);
    CHECK(read()->has_saved_state);
    REQUIRE(harness.call(harness->start(spec.uuid, {})).has_value());
    CHECK(read()->power == Power::running);
    REQUIRE(harness.call(harness->power_off(spec.uuid)).has_value());
    CHECK(read()->power == Power::off);
    CHECK(harness.call(harness->power_off(spec.uuid)).has_value());
    // A start that ends late finds its domain taken away: nothing may run on without a definition.
    REQUIRE(harness.call(harness->start(spec.uuid, {})).has_value());
    REQUIRE(harness.call(harness->undefine(spec.uuid, {})).has_value());
    CHECK(harness.call(harness->domain(spec.uuid)).error().code == Errc::not_found);
    CHECK(read().error().code == Errc::not_found);
    CHECK(harness.call(harness->undefine(spec.uuid, {})).has_value());

    for (const auto* const what : {"defined", "started", "suspended", "resumed", "stopped", "undefined"}) {
        INFO(what);
        CHECK(harness.wait([&] { return harness.saw(spec.uuid, what); }));
    }
}

TEST_CASE("a name or uuid that is taken is never overwritten") {
    HypervisorHarness harness{mock};
    REQUIRE(harness.connected());
    const auto spec = diskless(harness);
    REQUIRE(harness.call(harness->define(spec, {})).has_value());
    auto same = spec;
    same.memory_mib = 128;
    CHECK(harness.call(harness->define(same, {})).error().code == Errc::already_exists);
    same.uuid = harness.new_uuid();
    CHECK(harness.call(harness->define(same, {})).error().code == Errc::already_exists);
    same.uuid = spec.uuid;
    same.name = harness.new_name();
    CHECK(harness.call(harness->define(same, {})).error().code == Errc::already_exists);
    CHECK(harness.call(harness->domain(spec.uuid))->memory_mib == 64);
    REQUIRE(harness.call(harness->undefine(spec.uuid, {})).has_value());
}

TEST_CASE("record, size and autostart of a mock domain are edited in place") {
    HypervisorHarness harness{mock};
    REQUIRE(harness.connected());
    const auto spec = diskless(harness);
    REQUIRE(harness.call(harness->define(spec, {})).has_value());
    const std::string record = R"({"v":2,"text":"]]> <&> ü"})";
    const auto written = harness.call(harness->set_record(spec.uuid, record, {}));
    INFO((written ? "" : written.error().detail));
    REQUIRE(written.has_value());
    REQUIRE(harness.call(harness->resize(spec.uuid, 2, 96, {})).has_value());
    const auto autostart = harness.call(harness->set_autostart(spec.uuid, true, {}));
    REQUIRE(autostart.has_value());
    const auto info = harness.call(harness->domain(spec.uuid));
    REQUIRE(info.has_value());
    CHECK(info->record == record);
    CHECK(info->vcpus == 2);
    CHECK(info->memory_mib == 96);
    CHECK(info->autostart);
    REQUIRE(harness.call(harness->undefine(spec.uuid, {})).has_value());
}

TEST_CASE("all mock domains are listed with their states, and what isn't there is not found") {
    HypervisorHarness harness{mock};
    REQUIRE(harness.connected());
    const auto domains = harness.call(harness->domains());
    REQUIRE(domains.has_value());
    const auto test = std::ranges::find(*domains, "test", &virt::DomainInfo::name);
    REQUIRE(test != domains->end());
    CHECK(test->power == Power::running);
    CHECK_FALSE(test->record.has_value());
    const auto states = harness.call(harness->states());
    REQUIRE(states.has_value());
    REQUIRE(states->size() == domains->size());
    CHECK(states->front().power == Power::running);

    const auto nobody = harness.new_uuid();
    CHECK(harness.call(harness->domain(nobody)).error().code == Errc::not_found);
    CHECK(harness.call(harness->start(nobody, {})).error().code == Errc::not_found);
    CHECK(harness.call(harness->power_off(nobody)).error().code == Errc::not_found);
    CHECK(harness.call(harness->request_shutdown(nobody)).error().code == Errc::not_found);
    CHECK(harness.call(harness->start(test->uuid, {})).error().code == Errc::state_conflict);
}

TEST_CASE("a mock guest without an agent is shut down by its power button") {
    HypervisorHarness harness{mock};
    REQUIRE(harness.connected());
    const auto spec = diskless(harness);
    REQUIRE(harness.call(harness->define(spec, {})).has_value());
    REQUIRE(harness.call(harness->start(spec.uuid, {})).has_value());
    const auto asked = harness.call(harness->request_shutdown(spec.uuid));
    INFO((asked ? "" : asked.error().detail));
    REQUIRE(asked.has_value());
    CHECK(harness.wait([&] { return harness.saw(spec.uuid, "stopped"); }));
    CHECK(harness.call(harness->domain(spec.uuid))->power == Power::off);
    CHECK_FALSE(harness.call(harness->request_shutdown(spec.uuid)).has_value());
    REQUIRE(harness.call(harness->undefine(spec.uuid, {})).has_value());
}

TEST_CASE("a mock guest's clock is set, in one that runs") {
    HypervisorHarness harness{mock};
    REQUIRE(harness.connected());
    const auto spec = diskless(harness);
    REQUIRE(harness.call(harness->define(spec, {})).has_value());
    CHECK(harness.call(harness->set_guest_time(spec.uuid, std::chrono::system_clock::now())).error().code ==
          Errc::state_conflict);
    REQUIRE(harness.call(harness->start(spec.uuid, {})).has_value());
    const auto set = harness.call(harness->set_guest_time(spec.uuid, std::chrono::system_clock::now()));
    INFO((set ? "" : set.error().detail));
    CHECK(set.has_value());
    CHECK(harness.call(harness->set_guest_time(harness.new_uuid(), {})).error().code == Errc::not_found);
    REQUIRE(harness.call(harness->undefine(spec.uuid, {})).has_value());
}

TEST_CASE("the mock host's network and pools are found, made and started") {
    HypervisorHarness harness{mock};
    REQUIRE(harness.connected());
    const auto network = harness.call(harness->ensure_network("default"));
    REQUIRE(network.has_value());
    CHECK(network->active);
    CHECK_FALSE(network->bridge.empty());
    CHECK(harness.call(harness->ensure_network("nowhere")).error().code == Errc::not_found);

    CHECK(harness.call(harness->ensure_pool("ghost", "")).error().code == Errc::not_found);
    const auto pool = harness.call(harness->ensure_pool("ghost", "/var/lib/ghost/<disks>"));
    INFO((pool ? "" : pool.error().detail));
    REQUIRE(pool.has_value());
    CHECK(pool->path == "/var/lib/ghost/<disks>");
    CHECK(harness.call(harness->ensure_pool("ghost", "/elsewhere"))->path == "/var/lib/ghost/<disks>");
}

TEST_CASE("a missing default network is made on the first range that no route uses") {
    HypervisorHarness harness{mock};  // libvirt's event loop, which a connection wants
    const virt::ConnectPtr connection{virConnectOpen(mock)};
    REQUIRE(connection);
    const auto remove = [&] {
        const virt::NetworkPtr network{virNetworkLookupByName(connection.get(), "default")};
        if (!network) return;
        virNetworkDestroy(network.get());
        REQUIRE(virNetworkUndefine(network.get()) == 0);
    };
    remove();
    {
        const Routes everywhere{"vpn0 0000A8C0 00000000 0001 0 0 0 0000FFFF 0 0 0\n"};
        const auto clash = virt::ensure_network(connection.get(), "default", everywhere.path);
        REQUIRE_FALSE(clash.has_value());
        CHECK(clash.error().code == Errc::state_conflict);
        CHECK_THAT(clash.error().detail, Catch::Contains("vpn0") && Catch::Contains("192.168.0.0/16"));
        CHECK(virt::ensure_network(connection.get(), "other", everywhere.path).error().code == Errc::not_found);
    }
    const Routes taken{"wg0 007AA8C0 00000000 0001 0 0 0 00FEFFFF 0 0 0\n"};
    const auto made = virt::ensure_network(connection.get(), "default", taken.path);
    INFO((made ? "" : made.error().detail));
    REQUIRE(made.has_value());
    CHECK(made->active);
    const virt::NetworkPtr network{virNetworkLookupByName(connection.get(), "default")};
    REQUIRE(network);
    const virt::CharPtr xml{virNetworkGetXMLDesc(network.get(), 0)};
    const auto claims = virt::network_claims(xml.get());
    REQUIRE(claims.size() == 1);
    CHECK(claims.front().subnet.text() == "192.168.124.0/24");
    CHECK(virt::ensure_network(connection.get(), "default", taken.path)->bridge == made->bridge);
    remove();
}

TEST_CASE("a domain is not taken for off when libvirtd dies over the question") {
    std::signal(SIGPIPE, SIG_IGN);  // as the daemon does
    test::PrivateLibvirtd daemon;
    const virt::ConnectPtr connection{virConnectOpen(daemon.uri().c_str())};
    REQUIRE(connection);
    {
        const virt::DomainPtr domain{virDomainLookupByName(connection.get(), "test")};
        REQUIRE(domain);
        daemon.kill();
        CHECK_FALSE(virt::power_off_domain(domain.get()));
    }
}
