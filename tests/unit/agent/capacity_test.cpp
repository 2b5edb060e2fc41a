#include "agent/host/capacity.hpp"

#include "fakes/virtual_clock.hpp"

#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::agent;

namespace {

constexpr std::uint64_t gib = 1ULL << 30;

struct Host {
    boost::asio::io_context loop;
    fakes::VirtualClock clock;
    VmIndex index{loop.get_executor(), clock, 1};
    Capacity capacity{index, {.cpus = 1, .memory_mib = 2048, .disk_bytes = 10 * gib, .cpu_overcommit = 4}};

    Host() {
        capacity.set_host(4, 16384);
        capacity.set_disk({100 * gib, 80 * gib}, 0);
    }
    void add(const std::string& id, virt::Power power, bool managed = true) {
        Vm vm;
        vm.id = vm.name = id;
        vm.managed = managed;
        vm.phase = Phase::ready;
        vm.spec.vcpus = 2;
        vm.spec.memory_mib = 4096;
        vm.spec.disk_gib = 20;
        index.put(vm);
        index.observe(id, {.present = true, .power = power, .live_vcpus = 2, .live_memory_mib = 4096});
    }
};

}  // namespace

TEST_CASE("the owner's share comes off first") {
    Host host;
    const auto r = host.capacity.resources();
    CHECK(r.cpus.free == 12);
    CHECK(r.memory_mib.free == 16384 - 2048);
    CHECK(r.disk_bytes.free == 70 * gib);  // 20 are others', 10 reserved
}

TEST_CASE("running VMs count for CPU and memory, anybody's, managed ones for disk, always") {
    Host host;
    host.add("a", virt::Power::running);
    host.add("b", virt::Power::off);
    host.add("c", virt::Power::paused, false);
    const auto r = host.capacity.resources();
    CHECK(r.cpus.allocated == 4);
    CHECK(r.memory_mib.allocated == 8192);
    CHECK(r.disk_bytes.allocated == 40 * gib);
    CHECK(r.disk_bytes.free == 30 * gib);
    CHECK(host.capacity.resources("a").memory_mib.allocated == 4096);
    host.index.claim("b");
    CHECK(host.capacity.resources().memory_mib.allocated == 12288);
}

TEST_CASE("a running VM counts with the larger of what it has and what it will have") {
    Host host;
    host.add("a", virt::Power::running);
    host.index.change("a", [](Vm& vm) { vm.spec.memory_mib = 1024; });
    CHECK(host.capacity.resources().memory_mib.allocated == 4096);
    host.index.change("a", [](Vm& vm) { vm.spec.memory_mib = 8192; });
    CHECK(host.capacity.resources().memory_mib.allocated == 8192);
}

TEST_CASE("what doesn't fit is refused with what is needed and free") {
    Host host;
    CHECK(host.capacity.fits({12, 100, gib}).error().code ==
          base::Errc::insufficient_resources);  // of one VM: the host's 4
    CHECK(host.capacity.fits({4, 14336, 70 * gib}));
    const auto memory = host.capacity.fits({1, 14337, 0});
    REQUIRE_FALSE(memory);
    CHECK(memory.error().code == base::Errc::insufficient_resources);
    CHECK(memory.error().facts.at("needed").at("memory_mib").to_number<int>() == 14337);
    CHECK(memory.error().facts.at("free").at("memory_mib").to_number<int>() == 14336);
    const auto disk = host.capacity.fits({0, 0, 70 * gib + 1});
    REQUIRE_FALSE(disk);
    CHECK(disk.error().code == base::Errc::insufficient_storage);
    CHECK(disk.error().facts.at("free").at("disk_bytes").to_number<std::uint64_t>() == 70 * gib);
}

TEST_CASE("all that is short is told at once") {
    Host host;
    const auto all = host.capacity.fits({5, 14337, 70 * gib + 1});
    REQUIRE_FALSE(all);
    CHECK(all.error().code == base::Errc::insufficient_resources);
    CHECK(all.error().facts.at("needed").as_object().size() == 3);
    CHECK(all.error().facts.at("free").at("vcpus").to_number<int>() == 4);
    CHECK(all.error().facts.at("free").at("disk_bytes").to_number<std::uint64_t>() == 70 * gib);
}

TEST_CASE("what an import is about to write is nobody else's") {
    Host host;
    CHECK(host.capacity.hold_disk("one", 40 * gib));
    CHECK_FALSE(host.capacity.hold_disk("two", 31 * gib));
    CHECK_FALSE(host.capacity.fits({0, 0, 31 * gib}));
    CHECK(host.capacity.hold_disk("one", 70 * gib));  // what it held makes room for what it asks for
    host.capacity.release_disk("one");
    CHECK(host.capacity.fits({0, 0, 70 * gib}));
}

TEST_CASE("what could never run here doesn't fit the host, whatever is free") {
    Host host;
    host.add("a", virt::Power::running);
    CHECK(host.capacity.fits_host(4, 14336));
    CHECK_FALSE(host.capacity.fits_host(5, 1));
    const auto memory = host.capacity.fits_host(1, 14337);
    REQUIRE_FALSE(memory);
    CHECK(memory.error().code == base::Errc::insufficient_resources);
    CHECK(memory.error().facts.at("free").at("memory_mib").to_number<int>() == 14336);
}

TEST_CASE("free never goes below zero and never above what the disk has") {
    Host host;
    host.capacity.set_disk({100 * gib, 5 * gib}, 90 * gib);
    CHECK(host.capacity.resources().disk_bytes.free == 0);
    CHECK_FALSE(host.capacity.fits({0, 0, 1}));
    Capacity unknown{host.index, {}};
    CHECK(unknown.fits({1, 1, 1}).error().code == base::Errc::hypervisor_unavailable);
}
