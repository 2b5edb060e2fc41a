#include "virt/domain_access.hpp"

#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <string>

using namespace ghost;
using base::Errc;
using virt::console_of;
using virt::ConsoleDevice;
using virt::vnc_display_of;

namespace {

std::string domain(std::string_view devices) {
    return fmt::format("<domain type='kvm' id='3'><name>web-1</name><devices>{}</devices></domain>", devices);
}

}  // namespace

TEST_CASE("a domain's console is a socket that QEMU listens on, or a pseudo-terminal") {
    const auto socket = console_of(domain(R"(
      <serial type='unix'><source mode='bind' path='/run/a &amp; b.sock'/><target type='isa-serial' port='0'/>
        <alias name='serial0'/></serial>
      <console type='unix'><source mode='bind' path='/run/a &amp; b.sock'/></console>)"));
    REQUIRE(socket);
    CHECK(socket->kind == ConsoleDevice::Kind::socket);
    CHECK(socket->path == "/run/a & b.sock");
    const auto terminal = console_of(domain(R"(
      <serial type='pty'><source path='/dev/pts/4'/><target type='isa-serial' port='0'/></serial>
      <console type='pty' tty='/dev/pts/4'><source path='/dev/pts/4'/></console>)"));
    REQUIRE(terminal);
    CHECK(terminal->kind == ConsoleDevice::Kind::pty);
    CHECK(terminal->path == "/dev/pts/4");
}

TEST_CASE("the first console that can be reached is taken, serial ones first") {
    const auto found = console_of(domain(R"(
      <console type='pty'><source path='/dev/pts/1'/><target type='virtio'/></console>
      <serial type='file'><source path='/log/a.log'/></serial>
      <serial type='unix'><source mode='connect' path='/run/theirs.sock'/></serial>
      <serial type='pty'><source path='/dev/pts/2'/></serial>)"));
    REQUIRE(found);
    CHECK(found->path == "/dev/pts/2");
    CHECK(
        console_of(domain("<console type='pty'><source path='/dev/pts/1'/><target type='virtio'/></console>"))->path ==
        "/dev/pts/1");
}

TEST_CASE("a domain whose consoles lead elsewhere, or that has none, has none to be reached") {
    for (const auto* const devices : {
             "",
             "<serial type='pty'><target port='0'/></serial>",
             "<serial type='pty'><source path='/etc/passwd'/></serial>",
             "<serial type='unix'><source mode='connect' path='/run/theirs.sock'/></serial>",
             "<serial type='unix'><source mode='bind' path='relative.sock'/></serial>",
             "<serial type='tcp'><source mode='bind' host='0.0.0.0' service='4555'/></serial>",
             "<serial type='stdio'/><console type='null'/>",
         }) {
        INFO(devices);
        const auto console = console_of(domain(devices));
        REQUIRE_FALSE(console);
        CHECK(console.error().code == Errc::state_conflict);
    }
    CHECK(console_of("<network/>").error().code == Errc::hypervisor_error);
    CHECK(console_of("").error().code == Errc::hypervisor_error);
}

TEST_CASE("a VNC display is found among others") {
    CHECK(vnc_display_of(domain("<graphics type='vnc'><listen type='socket' socket='/run/v.sock'/></graphics>")) == 0);
    CHECK(vnc_display_of(domain("<graphics type='spice'/><graphics type='vnc' port='5900'/>")) == 1);
    for (const auto* const devices : {"", "<graphics type='spice'/>", "<video><model type='vga'/></video>"})
        CHECK(vnc_display_of(domain(devices)).error().code == Errc::state_conflict);
    CHECK(vnc_display_of("<network/>").error().code == Errc::hypervisor_error);
}
