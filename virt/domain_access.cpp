#include "virt/domain_access.hpp"

#include "virt/domain_reads.hpp"
#include "virt/xml_text.hpp"

#include <fmt/format.h>

#include <array>
#include <memory>
#include <utility>

namespace ghost::virt {
namespace {

using base::Errc;
using base::Result;
using pugi::xml_node;

constexpr std::string_view png = "image/png";
constexpr std::string_view png_signature = "\x89PNG\r\n\x1a\n";

using StreamPtr = std::unique_ptr<virStream, FreeBy<virStreamFree>>;

struct Running {
    DomainPtr domain;
    std::string xml;  // as it runs
};

Result<Running> find_running(virConnectPtr connection, const std::string& uuid) {
    auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{std::move(domain.error())};
    const int active = virDomainIsActive(domain->get());
    if (active < 0) return base::fail(last_error("cannot tell whether the domain runs"));
    if (active == 0) return base::fail(Errc::state_conflict, "the domain does not run");
    const CharPtr xml{virDomainGetXMLDesc(domain->get(), 0)};
    if (!xml) return base::fail(last_error("cannot read how the domain runs"));
    return Running{std::move(*domain), xml.get()};
}

std::optional<ConsoleDevice> device_of(xml_node console) {
    const std::string_view type = console.attribute("type").value();
    const auto source = console.child("source");
    std::string path = source.attribute("path").value();
    // One that QEMU connects to by itself is in other hands.
    const bool listens = std::string_view{source.attribute("mode").value()} == "bind";
    if (type == "unix" && listens && path.starts_with('/'))
        return ConsoleDevice{ConsoleDevice::Kind::socket, std::move(path)};
    if (type == "pty" && path.starts_with("/dev/pts/")) return ConsoleDevice{ConsoleDevice::Kind::pty, std::move(path)};
    return std::nullopt;
}

Result<std::string> receive_all(virStreamPtr stream) {
    std::string bytes;
    std::array<char, std::size_t{64} * 1024> piece{};
    for (;;) {
        const int got = virStreamRecv(stream, piece.data(), piece.size());
        if (got < 0) return base::fail(last_error("cannot receive the domain's picture"));
        if (got == 0) return bytes;
        bytes.append(piece.data(), static_cast<std::size_t>(got));
        if (bytes.size() <= max_picture) continue;
        virStreamAbort(stream);
        return base::fail(Errc::hypervisor_error, "the domain's picture is larger than 32 MiB");
    }
}

}  // namespace

Result<ConsoleDevice> console_of(std::string_view xml) {
    pugi::xml_document document;
    if (auto loaded = load(document, xml, "domain"); !loaded) return std::unexpected{std::move(loaded.error())};
    const auto devices = document.document_element().child("devices");
    for (const auto* const name : {"serial", "console"})
        for (const auto console : devices.children(name))
            if (auto device = device_of(console)) return *std::move(device);
    return base::fail(Errc::state_conflict, "the domain has no serial console that can be reached");
}

Result<unsigned> vnc_display_of(std::string_view xml) {
    pugi::xml_document document;
    if (auto loaded = load(document, xml, "domain"); !loaded) return std::unexpected{std::move(loaded.error())};
    unsigned index = 0;
    for (const auto graphics : document.document_element().child("devices").children("graphics")) {
        if (std::string_view{graphics.attribute("type").value()} == "vnc") return index;
        ++index;
    }
    return base::fail(Errc::state_conflict, "the domain has no VNC display");
}

Result<ConsoleDevice> find_console(virConnectPtr connection, const std::string& uuid) {
    const auto running = find_running(connection, uuid);
    if (!running) return base::fail(running.error());
    return console_of(running->xml);
}

Result<base::Descriptor> connect_display(virConnectPtr connection, const std::string& uuid) {
    const auto running = find_running(connection, uuid);
    if (!running) return base::fail(running.error());
    const auto display = vnc_display_of(running->xml);
    if (!display) return base::fail(display.error());
    // A password that others set is asked for.
    base::Descriptor connected{virDomainOpenGraphicsFD(running->domain.get(), *display, 0)};
    if (!connected) return base::fail(last_error("cannot connect to the domain's display"));
    return connected;
}

Result<Picture> take_picture(virConnectPtr connection, const std::string& uuid) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return base::fail(domain.error());
    const StreamPtr stream{virStreamNew(connection, 0)};
    if (!stream) return base::fail(last_error("cannot receive the domain's picture"));
    const CharPtr type{virDomainScreenshot(domain->get(), stream.get(), 0, 0)};
    if (!type) return base::fail(last_error("cannot take a picture of the domain's screen"));
    if (type.get() != png) {
        virStreamAbort(stream.get());
        return base::fail(
            Errc::hypervisor_error,
            fmt::format("the domain's picture is {} and no PNG; QEMU 7.1 and libvirt 9 make these", type.get()));
    }
    auto bytes = receive_all(stream.get());
    if (!bytes) return std::unexpected{std::move(bytes.error())};
    if (virStreamFinish(stream.get()) < 0) return base::fail(last_error("cannot receive the domain's picture"));
    if (!bytes->starts_with(png_signature))
        return base::fail(Errc::hypervisor_error, "the domain's picture is called a PNG and is none");
    return Picture{std::string{png}, std::move(*bytes)};
}

}  // namespace ghost::virt
