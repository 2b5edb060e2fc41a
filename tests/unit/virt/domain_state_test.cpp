#include "virt/domain_state.hpp"

#include "virt/domain_reads.hpp"
#include "virt/host_probe.hpp"

#include <catch2/catch.hpp>
#include <libvirt/libvirt.h>

using namespace ghost;
using virt::Power;
using virt::power_of;

TEST_CASE("libvirt's states and reasons become power and its reason") {
    const auto check = [](int state, int reason, bool saved, Power power, const char* words) {
        const auto got = power_of(state, reason, saved);
        CHECK(got.power == power);
        CHECK(got.reason == words);
    };
    check(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_BOOTED, false, Power::running, "booted");
    check(VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_RESTORED, false, Power::running, "restored");
    check(VIR_DOMAIN_BLOCKED, 0, false, Power::running, "blocked");
    check(VIR_DOMAIN_SHUTDOWN, 0, false, Power::running, "shutting_down");
    check(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER, false, Power::paused, "user");
    check(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_IOERROR, false, Power::paused, "io_error");
    check(VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_CRASHED, false, Power::crashed, "crashed");
    check(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_SHUTDOWN, false, Power::off, "shutdown");
    check(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_DESTROYED, false, Power::off, "destroyed");
    check(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_CRASHED, false, Power::crashed, "crashed");
    check(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_SAVED, true, Power::suspended, "saved");
    check(VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_UNKNOWN, true, Power::suspended, "saved");
    check(VIR_DOMAIN_CRASHED, 0, false, Power::crashed, "crashed");
    check(VIR_DOMAIN_PMSUSPENDED, 0, false, Power::running, "guest_sleeps");
    check(VIR_DOMAIN_NOSTATE, 0, false, Power::unknown, "unknown");
}

TEST_CASE("a state or reason of a newer libvirt is unknown, not a crash") {
    CHECK(power_of(99, 0, false).power == Power::unknown);
    CHECK(power_of(VIR_DOMAIN_RUNNING, 4711, false).reason == "unknown");
    CHECK(power_of(VIR_DOMAIN_PAUSED, -1, false).reason == "unknown");
}

TEST_CASE("a stop after a crash is told as a crash") {
    CHECK(virt::lifecycle_word(VIR_DOMAIN_EVENT_STOPPED, VIR_DOMAIN_EVENT_STOPPED_CRASHED) == "crashed");
    CHECK(virt::lifecycle_word(VIR_DOMAIN_EVENT_STOPPED, VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) == "stopped");
    CHECK(virt::lifecycle_word(4711, 0) == "changed");
}

TEST_CASE("loopback and link-local addresses reach nobody") {
    for (const auto* const address : {"192.168.122.7", "10.0.0.1", "8.8.8.8", "2001:db8::7", "fd00::1", "169.253.1.1"})
        CHECK(virt::reachable_address(address) == address);
    for (const auto* const address : {"127.0.0.1", "::1", "169.254.7.7", "fe80::5054:ff:fe01:203", "0.0.0.0", "::",
                                      "224.0.0.1", "ff02::1", "::ffff:10.0.0.1", "", "example.org", "10.0.0.1/24"})
        CHECK_FALSE(virt::reachable_address(address));
    // What a guest says is nobody's text.
    CHECK(virt::reachable_address("2001:DB8:0::1%anything\nat all") == "2001:db8::1");
}

TEST_CASE("guest types are those of the host's own architecture") {
    const auto support = virt::guest_support(R"(<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
        <guest><os_type>hvm</os_type><arch name='i686'><domain type='xen'/></arch></guest>
        <guest><os_type>hvm</os_type><arch name='x86_64'><domain type='qemu'/><domain type='kvm'/></arch></guest>
        <guest><os_type>exe</os_type><arch name='x86_64'><domain type='lxc'/></arch></guest></capabilities>)");
    REQUIRE(support);
    CHECK(support->architecture == "x86_64");
    CHECK(support->types == std::vector<std::string>{"qemu", "kvm"});
    CHECK_FALSE(support->qemu_user);
    CHECK_FALSE(virt::guest_support("<domain/>"));
}

TEST_CASE("the user that QEMU runs as is read from libvirt's security label") {
    const auto support = virt::guest_support(R"(<capabilities><host><cpu><arch>x86_64</arch></cpu>
        <secmodel><model>apparmor</model><doi>0</doi></secmodel>
        <secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+107</baselabel>
        <baselabel type='qemu'>+1:+2</baselabel></secmodel></host></capabilities>)");
    REQUIRE(support);
    CHECK(support->qemu_user == virt::QemuUser{64055, 107});
    for (const auto* const label : {"", "+64055", "64055:107", "+:+", "+1:+2x", "+99999999999:+1", "qemu:kvm"})
        CHECK_FALSE(virt::qemu_user_from(label));
}

TEST_CASE("the best CPU that is supported is taken") {
    const auto with = [](const char* passthrough, const char* maximum) {
        return virt::best_cpu_mode(std::string{"<domainCapabilities><cpu><mode name='host-passthrough' supported='"} +
                                   passthrough + "'/><mode name='maximum' supported='" + maximum +
                                   "'/></cpu></domainCapabilities>");
    };
    CHECK(with("yes", "yes") == "host-passthrough");
    CHECK(with("no", "yes") == "maximum");
    CHECK(with("no", "no").empty());
    CHECK(virt::best_cpu_mode("nonsense").empty());
}
