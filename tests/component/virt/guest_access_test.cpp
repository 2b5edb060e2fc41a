// What LibvirtHypervisor asks of a real guest's agent and console. Needs GHOST_TEST_IMAGE, an image as
// packaging/build-image.sh makes it, and a libvirtd; passes with a warning without.
#include "tests/component/virt/hypervisor_harness.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

using namespace ghost;
using base::Errc;
using tests::HypervisorHarness;
using virt::GuestFileMode;
using virt::GuestRun;
using namespace std::chrono_literals;

namespace {

// A guest with a disk and a folder of its own, which go with it.
struct ImageGuest {
    ImageGuest(HypervisorHarness& h, const std::string& image) : harness(h), spec(tests::diskless(h)) {
        folder = std::filesystem::temp_directory_path() / spec.name;
        std::filesystem::create_directory(folder);
        std::filesystem::permissions(folder, std::filesystem::perms{0711});
        const auto disk = folder / "root.qcow2";
        std::filesystem::copy_file(image, disk);
        spec.memory_mib = 192;
        spec.disks = {{"root", disk, "", ""}};
        spec.console_socket = folder / "console.sock";
        spec.console_log = folder / "console.log";
        const auto defined = harness.call(harness->define(spec, {}));
        INFO((defined ? "" : defined.error().detail));
        REQUIRE(defined.has_value());
        const auto started = harness.call(harness->start(spec.uuid, {}));
        INFO((started ? "" : started.error().detail));
        REQUIRE(started.has_value());
    }
    ~ImageGuest() {
        static_cast<void>(harness.call(harness->power_off(spec.uuid)));
        CHECK(harness.call(harness->undefine(spec.uuid, {})).has_value());
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
    ImageGuest(const ImageGuest&) = delete;
    ImageGuest& operator=(const ImageGuest&) = delete;

    base::Result<GuestRun> run(virt::GuestCommand command) {
        return harness.call(harness->run_in_guest(spec.uuid, std::move(command)));
    }
    bool has_agent() {
        for (int tries = 0; tries < 60; ++tries) {
            const auto run_now = run({.argv = {"true"}});
            if (run_now && run_now->how == GuestRun::How::exited) return true;
            std::this_thread::sleep_for(2s);
        }
        return false;
    }
    [[nodiscard]] std::string console_log() const {
        std::ifstream file{spec.console_log};
        return {std::istreambuf_iterator<char>{file}, {}};
    }
    base::Result<std::string> read(const std::string& path) {
        const auto handle = harness.call(harness->open_guest_file(spec.uuid, path, GuestFileMode::read));
        if (!handle) return base::fail(handle.error());
        std::string bytes;
        for (;;) {
            const auto piece = harness.call(harness->read_guest_file(spec.uuid, *handle));
            if (!piece) return base::fail(piece.error());
            bytes += piece->bytes;
            if (piece->end) break;
        }
        const auto closed = harness.call(harness->close_guest_file(spec.uuid, *handle));
        if (!closed) return base::fail(closed.error());
        return bytes;
    }
    base::Result<void> write(const std::string& path, const std::string& bytes) {
        const auto handle = harness.call(harness->open_guest_file(spec.uuid, path, GuestFileMode::write));
        if (!handle) return base::fail(handle.error());
        for (std::size_t at = 0; at < bytes.size(); at += virt::max_guest_piece) {
            const auto written =
                harness.call(harness->write_guest_file(spec.uuid, *handle, bytes.substr(at, virt::max_guest_piece)));
            if (!written) return written;
        }
        return harness.call(harness->close_guest_file(spec.uuid, *handle));
    }

    HypervisorHarness& harness;
    virt::DomainSpec spec;
    std::filesystem::path folder;
};

// What comes out of the console once `input` was typed, until `wanted` is in it.
std::string type_into(const std::string& path, std::string_view input, std::string_view wanted) {
    const base::Descriptor socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof address.sun_path);
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::write(socket.get(), input.data(), input.size()) == static_cast<ssize_t>(input.size()));
    std::string text;
    while (!text.contains(wanted)) {
        std::array<char, 512> some{};
        pollfd ready{socket.get(), POLLIN, 0};
        if (::poll(&ready, 1, 30'000) <= 0) break;
        const auto got = ::read(socket.get(), some.data(), some.size());
        if (got <= 0) break;
        text.append(some.data(), static_cast<std::size_t>(got));
    }
    return text;
}

}  // namespace

TEST_CASE("a real guest runs programs, keeps files and has a console", "[image]") {
    const auto* const image = std::getenv("GHOST_TEST_IMAGE");  // NOLINT(concurrency-mt-unsafe): nobody sets it
    if (image == nullptr) {
        WARN("no GHOST_TEST_IMAGE: not run");
        return;
    }
    HypervisorHarness harness{"qemu:///system"};
    if (!harness.connected()) {
        WARN("no libvirtd answers: not run");
        return;
    }
    ImageGuest guest{harness, image};
    REQUIRE(guest.has_agent());

    // Nobody was connected to its console meanwhile.
    CHECK_THAT(guest.console_log(), Catch::Contains("ghost-tiny: ready"));

    auto run = guest.run({.argv = {"sh", "-c", "echo out; echo err >&2; exit 3"}});
    REQUIRE(run.has_value());
    CHECK(run->how == GuestRun::How::exited);
    CHECK(run->exit_code == 3);
    CHECK(run->output == "out\n");
    CHECK(run->errors == "err\n");
    CHECK_FALSE(run->truncated);

    std::string input;
    for (std::size_t i = 0; i < virt::max_guest_input; ++i) input.push_back(static_cast<char>(i * i / 7));
    run = guest.run({.argv = {"cat"}, .input = input, .max_output = input.size()});
    REQUIRE(run.has_value());
    CHECK(run->output == input);

    run = guest.run({.argv = {"/bin/sh", "-c", "echo $A $HOME"}, .environment = {"A=b c"}});
    REQUIRE(run.has_value());
    CHECK(run->output == "b c\n");

    run = guest.run({.argv = {"head", "-c", "100000", "/dev/zero"}, .max_output = 1000});
    REQUIRE(run.has_value());
    CHECK(run->output == std::string(1000, '\0'));
    CHECK(run->truncated);

    run = guest.run({.argv = {"/no/such/program"}});
    REQUIRE(run.has_value());
    CHECK(run->how == GuestRun::How::failed);
    CHECK_FALSE(run->output.empty());

    const auto endless = guest.run({.argv = {"sleep", "60"}, .limit = 1s});
    CHECK(endless.error().code == Errc::deadline_exceeded);

    // More than libvirt passes on, and perhaps more than an emulated guest can say in time.
    run = guest.run({.argv = {"head", "-c", "3300000", "/dev/zero"}});
    if (run) {
        CHECK(run->how == GuestRun::How::failed);
        CHECK_THAT(run->output, Catch::Contains("longer than libvirt passes on"));
    } else {
        CHECK(run.error().code == Errc::deadline_exceeded);
    }
    CHECK(guest.has_agent());

    std::string bytes;
    for (std::size_t i = 0; i < 2 * virt::max_guest_piece + 17; ++i) bytes.push_back(static_cast<char>(i * i / 97));
    const auto written = guest.write("/tmp/copy", bytes);
    INFO((written ? "" : written.error().detail));
    REQUIRE(written.has_value());
    CHECK(guest.read("/tmp/copy").value() == bytes);
    REQUIRE(guest.write("/tmp/copy", bytes.substr(0, virt::max_guest_piece)).has_value());
    CHECK(guest.read("/tmp/copy").value() == bytes.substr(0, virt::max_guest_piece));
    REQUIRE(guest.write("/tmp/empty", "").has_value());
    CHECK(guest.read("/tmp/empty").value().empty());
    const auto missing = guest.read("/no/such/file");
    CHECK(missing.error().code == Errc::state_conflict);
    CHECK_THAT(missing.error().detail, Catch::Contains("No such file or directory"));
    CHECK_THAT(missing.error().detail, !Catch::Contains("QEMU"));
    CHECK(harness.call(harness->read_guest_file(guest.spec.uuid, 424242)).error().code == Errc::state_conflict);
    const auto full = guest.write("/dev/full", "x");
    REQUIRE_FALSE(full.has_value());
    CHECK(full.error().code == Errc::state_conflict);

    CHECK_THAT(type_into(guest.spec.console_socket, "echo $((6 * 7))\n", "42\r"), Catch::Contains("42"));
    CHECK_THAT(type_into(guest.spec.console_socket, "echo $((6 * 8))\n", "48\r"), Catch::Contains("48"));
    CHECK_THAT(guest.console_log(), Catch::Contains("48"));
    const auto picture = harness.call(harness->screenshot(guest.spec.uuid));
    REQUIRE(picture.has_value());
    CHECK(picture->bytes.size() > 500);
}
