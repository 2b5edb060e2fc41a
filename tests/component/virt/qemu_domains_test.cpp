// LibvirtHypervisor against the system's libvirtd and a real QEMU, with diskless guests that need no image. Passes with
// a warning where no libvirtd answers.
#include "tests/component/virt/hypervisor_harness.hpp"
#include "virt/connection.hpp"
#include "virt/domain_xml.hpp"
#include "virt/host_objects.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <fmt/format.h>
#include <pugixml.hpp>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <tuple>

using namespace ghost;
using base::Errc;
using tests::diskless;
using tests::HypervisorHarness;
using virt::Power;
using namespace std::chrono_literals;

namespace {

constexpr const char* qemu = "qemu:///system";

// Takes its domain away whatever happens.
struct Guest {
    Guest(HypervisorHarness& h, virt::DomainSpec s) : harness(h), spec(std::move(s)) {
        const auto defined = harness.call(harness->define(spec, {}));
        INFO((defined ? "" : defined.error().detail));
        REQUIRE(defined.has_value());
    }
    ~Guest() {
        static_cast<void>(harness.call(harness->power_off(spec.uuid)));
        CHECK(harness.call(harness->undefine(spec.uuid, {})).has_value());
    }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;
    [[nodiscard]] base::Result<virt::DomainInfo> read() { return harness.call(harness->domain(spec.uuid)); }

    HypervisorHarness& harness;
    virt::DomainSpec spec;
};

void require(const base::Result<void>& done) {
    INFO((done ? "" : done.error().detail));
    REQUIRE(done.has_value());
}

struct Folder {
    explicit Folder(const std::string& name) : path(std::filesystem::temp_directory_path() / name) {
        std::filesystem::create_directory(path);
    }
    ~Folder() { std::filesystem::remove_all(path); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    const std::filesystem::path path;
};

pid_t pid_of(const std::string& name) {
    std::ifstream file{"/run/libvirt/qemu/" + name + ".pid"};
    pid_t pid = 0;
    REQUIRE(file >> pid);
    return pid;
}

// Two that run; the first one's QEMU is stopped.
struct StuckAndHealthy {
    explicit StuckAndHealthy(HypervisorHarness& harness)
        : first(harness, diskless(harness)),
          second(harness, diskless(harness)),
          uuids{first.spec.uuid, second.spec.uuid} {
        for (const auto& uuid : uuids) require(harness.call(harness->start(uuid, {})));
        pid = pid_of(first.spec.name);
        REQUIRE(::kill(pid, SIGSTOP) == 0);
    }
    void go_on() const { REQUIRE(::kill(pid, SIGCONT) == 0); }

    Guest first;
    Guest second;
    std::array<std::string, 2> uuids;
    pid_t pid = 0;
};

bool connect_to(const std::string& path) {
    const base::Descriptor socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof address.sun_path);
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

std::string read_text(const base::Descriptor& from, std::size_t length) {
    std::string text;
    while (text.size() < length) {
        std::array<char, 64> some{};
        pollfd ready{from.get(), POLLIN, 0};
        if (::poll(&ready, 1, 30'000) <= 0) break;
        const auto got = ::read(from.get(), some.data(), std::min(some.size(), length - text.size()));
        if (got <= 0) break;
        text.append(some.data(), static_cast<std::size_t>(got));
    }
    return text;
}

// How many TCP sockets that listen the domain's QEMU has.
std::size_t listening_ports(const std::string& name) {
    const auto pid = pid_of(name);
    std::set<std::string> ports;  // by the inode of their sockets
    for (const auto* const table : {"tcp", "tcp6"}) {
        std::ifstream file{fmt::format("/proc/{}/net/{}", pid, table)};
        for (std::string line; std::getline(file, line);) {
            std::istringstream words{line};
            std::vector<std::string> columns{std::istream_iterator<std::string>{words}, {}};
            constexpr auto listens = "0A";
            if (columns.size() > 9 && columns[3] == listens) ports.insert(fmt::format("socket:[{}]", columns[9]));
        }
    }
    std::size_t found = 0;
    for (const auto& open : std::filesystem::directory_iterator{fmt::format("/proc/{}/fd", pid)}) {
        std::error_code gone;
        found += ports.count(std::filesystem::read_symlink(open.path(), gone).string());
    }
    return found;
}

// Root ports of the running domain that no device is plugged into.
std::size_t free_ports(const std::string& uuid) {
    const virt::ConnectPtr connection{virConnectOpen(qemu)};
    REQUIRE(connection);
    const virt::DomainPtr domain{virDomainLookupByUUIDString(connection.get(), uuid.c_str())};
    REQUIRE(domain);
    const virt::CharPtr xml{virDomainGetXMLDesc(domain.get(), 0)};
    pugi::xml_document document;
    REQUIRE(document.load_string(xml.get()));
    std::set<int> free;
    for (const auto port : document.select_nodes("//controller[@model='pcie-root-port']/@index"))
        free.insert(port.attribute().as_int());
    for (const auto used : document.select_nodes("//address[@type='pci']/@bus")) free.erase(used.attribute().as_int());
    return free.size();
}

#define NEEDS_LIBVIRTD(harness)                                 \
    if (!(harness).connected()) {                               \
        WARN("no libvirtd answers at " << qemu << ": not run"); \
        return;                                                 \
    }

}  // namespace

TEST_CASE("a real host says what it runs guests with") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    const auto& host = harness->link().host;
    CHECK((host.kind == "kvm" || host.kind == "qemu"));
    CHECK((host.kind == "kvm") == host.no_kvm.empty());
    if (host.kind == "kvm") CHECK(std::filesystem::exists("/dev/kvm"));
    CHECK_FALSE(host.qemu_version.empty());
    CHECK(host.cpus > 0);
}

TEST_CASE("guests are emulated where KVM is closed to QEMU, where there is none and where the operator says so") {
    const auto closed = std::filesystem::temp_directory_path() / ("ghost-kvm-" + std::to_string(::getpid()));
    std::ofstream{closed} << "";
    std::filesystem::permissions(closed, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    struct Case {
        virt::VirtType wanted;
        std::string device;
        std::string reason;
    };
    for (const auto& [wanted, device, reason] : {Case{virt::VirtType::automatic, closed, "is closed to"},
                                                 Case{virt::VirtType::automatic, "/nowhere", "there is no /nowhere"},
                                                 Case{virt::VirtType::qemu, "/dev/kvm", "the configuration says so"}}) {
        HypervisorHarness harness{qemu, {.virt_type = wanted, .kvm_device = device}};
        NEEDS_LIBVIRTD(harness)
        CHECK(harness->link().host.kind == "qemu");
        CHECK_THAT(harness->link().host.no_kvm, Catch::Contains(reason));
    }
    std::filesystem::remove(closed);
}

TEST_CASE("where KVM is a must and can't be had, the hypervisor is not connected and says why") {
    {
        HypervisorHarness harness{qemu};
        NEEDS_LIBVIRTD(harness)
    }
    HypervisorHarness harness{qemu, {.virt_type = virt::VirtType::kvm, .kvm_device = "/nowhere"}};
    CHECK(harness.wait([&harness] { return harness->link().reason.contains("there is no /nowhere"); }));
    CHECK_FALSE(harness->link().connected);
    CHECK_THAT(harness->link().reason, Catch::Contains("guests are to run by KVM only"));
}

TEST_CASE("a real guest lives through its life") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    auto spec = diskless(harness);
    const auto folder = std::filesystem::temp_directory_path() / spec.name;
    std::filesystem::create_directory(folder);
    spec.console_log = folder / "console.log";
    {
        Guest guest{harness, spec};
        CHECK(guest.read()->power == Power::off);
        CHECK(guest.read()->record == spec.record);

        require(harness.call(harness->start(spec.uuid, {})));
        auto info = guest.read();
        REQUIRE(info.has_value());
        CHECK(info->power == Power::running);
        CHECK(info->power_reason == "booted");
        CHECK(info->live_vcpus == 1);
        CHECK(info->live_memory_mib == 64);
        REQUIRE(info->running_since.has_value());
        CHECK(*info->running_since <= std::chrono::system_clock::now());
        CHECK(*info->running_since > std::chrono::system_clock::now() - 5min);
        CHECK(harness.call(harness->start(spec.uuid, {})).error().code == Errc::state_conflict);

        require(harness.call(harness->pause(spec.uuid, {})));
        CHECK(guest.read()->power == Power::paused);
        CHECK(guest.read()->power_reason == "user");
        require(harness.call(harness->resume(spec.uuid, {})));
        CHECK(guest.read()->power_reason == "unpaused");
        require(harness.call(harness->reset(spec.uuid, {})));

        const auto usage = harness.call(harness->usage(spec.uuid));
        REQUIRE(usage.has_value());
        CHECK(usage->cpu_time_ns > 0);
        CHECK(usage->memory_mib > 0);
        CHECK(harness.call(harness->addresses(spec.uuid, true))->leases.empty());

        // Nothing runs in it that could set its clock.
        CHECK(harness.call(harness->set_guest_time(spec.uuid, std::chrono::system_clock::now())).error().code ==
              Errc::state_conflict);

        require(harness.call(harness->save(spec.uuid, {})));
        info = guest.read();
        CHECK(info->power == Power::suspended);
        CHECK(info->has_saved_state);
        CHECK(info->live_vcpus == 0);
        const auto states = harness.call(harness->states());
        REQUIRE(states.has_value());
        const auto state = std::ranges::find(*states, spec.uuid, &virt::DomainState::uuid);
        REQUIRE(state != states->end());
        CHECK(state->power == Power::suspended);
        require(harness.call(harness->start(spec.uuid, {})));
        CHECK(guest.read()->power_reason == "restored");

        // No system runs in it: the request is taken and nothing comes of it.
        require(harness.call(harness->request_shutdown(spec.uuid)));
        CHECK(guest.read()->power == Power::running);
        require(harness.call(harness->power_off(spec.uuid)));
        CHECK(guest.read()->power == Power::off);
        CHECK(guest.read()->power_reason == "destroyed");
        require(harness.call(harness->power_off(spec.uuid)));
        CHECK(harness.call(harness->usage(spec.uuid)).error().code == Errc::state_conflict);
        CHECK(harness.call(harness->pause(spec.uuid, {})).error().code == Errc::state_conflict);
        for (const auto* const what : {"defined", "started", "suspended", "resumed", "rebooted", "stopped"}) {
            INFO(what);
            CHECK(harness.wait([&] { return harness.saw(spec.uuid, what); }));
        }
    }
    CHECK(std::filesystem::exists(spec.console_log));
    std::filesystem::remove_all(folder);
}

TEST_CASE("a real definition is edited in place while its guest runs") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    Guest guest{harness, diskless(harness)};
    const auto& uuid = guest.spec.uuid;
    require(harness.call(harness->start(uuid, {})));
    require(harness.call(harness->resize(uuid, 2, 96, {})));
    const std::string record = R"({"v":2,"text":"]]> <&> ü"})";
    require(harness.call(harness->set_record(uuid, record, {})));
    require(harness.call(harness->set_autostart(uuid, true, {})));
    auto info = guest.read();
    REQUIRE(info.has_value());
    CHECK(info->vcpus == 2);
    CHECK(info->memory_mib == 96);
    CHECK(info->live_vcpus == 1);
    CHECK(info->live_memory_mib == 64);
    CHECK(info->record == record);
    CHECK(info->autostart);
    CHECK(harness.wait([&] { return harness.saw(uuid, "metadata_changed"); }));
    require(harness.call(harness->power_off(uuid)));
    require(harness.call(harness->start(uuid, {})));
    info = guest.read();
    CHECK(info->live_vcpus == 2);
    CHECK(info->live_memory_mib == 96);
    CHECK(info->record == record);

    auto same = guest.spec;
    CHECK(harness.call(harness->define(same, {})).error().code == Errc::already_exists);
    same.uuid = harness.new_uuid();
    CHECK(harness.call(harness->define(same, {})).error().code == Errc::already_exists);
}

TEST_CASE("a real definition with everything in it is accepted") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    auto spec = diskless(harness);
    spec.vcpus = 3;
    spec.disks = {{"root", "/nowhere/root <&>.qcow2", "/nowhere/base.qcow2", "qcow2"},
                  {"data", "/nowhere/d.qcow2", "", ""}};
    spec.seed_path = "/nowhere/seed.iso";
    spec.nics = {{"eth0", "default", "52:54:00:11:22:33"}, {"eth1", "other", "52:54:00:11:22:34"}};
    spec.console_log = "/nowhere/console.log";
    spec.console_socket = "/nowhere/console <&>.sock";
    spec.autostart = true;
    spec.firmware = GENERATE(virt::Firmware::bios, virt::Firmware::uefi);
    Guest guest{harness, spec};
    const auto info = guest.read();
    REQUIRE(info.has_value());
    CHECK(info->firmware == spec.firmware);
    CHECK(info->autostart);
    REQUIRE(info->disks.size() == 3);
    CHECK(info->disks[0].path == "/nowhere/root <&>.qcow2");
    CHECK(info->disks[0].serial == "root");
    CHECK(info->nics.size() == 2);
    // Its files aren't there: the start fails in libvirt's words and leaves it off.
    const auto started = harness.call(harness->start(spec.uuid, {}));
    REQUIRE_FALSE(started.has_value());
    CHECK_FALSE(started.error().detail.empty());
    CHECK(guest.read()->power == Power::off);
}

TEST_CASE("a real guest's console and screen are reached over sockets, and no port is opened for them") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    auto spec = diskless(harness);
    const Folder folder{spec.name};
    spec.console_socket = folder.path / "console.sock";
    spec.console_log = folder.path / "console.log";
    Guest guest{harness, spec};
    const auto& uuid = spec.uuid;
    CHECK(harness.call(harness->console(uuid)).error().code == Errc::state_conflict);
    CHECK(harness.call(harness->open_display(uuid)).error().code == Errc::state_conflict);
    CHECK(harness.call(harness->screenshot(uuid)).error().code == Errc::state_conflict);
    CHECK(harness.call(harness->console(harness.new_uuid())).error().code == Errc::not_found);
    require(harness.call(harness->start(uuid, {})));

    CHECK(free_ports(uuid) == virt::spare_root_ports);

    const auto console = harness.call(harness->console(uuid));
    REQUIRE(console.has_value());
    CHECK(console->kind == virt::ConsoleDevice::Kind::socket);
    CHECK(console->path == spec.console_socket);
    const bool root = ::geteuid() == 0;  // others may neither connect nor look
    if (root) CHECK(connect_to(console->path));
    if (root) CHECK(listening_ports(spec.name) == 0);

    const auto display = harness.call(harness->open_display(uuid));
    INFO((display ? "" : display.error().detail));
    REQUIRE(display.has_value());
    CHECK(read_text(*display, 12) == "RFB 003.008\n");
    CHECK((::fcntl(display->get(), F_GETFD) & FD_CLOEXEC) != 0);
    const auto second = harness.call(harness->open_display(uuid));
    REQUIRE(second.has_value());
    CHECK(read_text(*second, 12) == "RFB 003.008\n");

    const auto picture = harness.call(harness->screenshot(uuid));
    INFO((picture ? "" : picture.error().detail));
    REQUIRE(picture.has_value());
    CHECK(picture->media_type == "image/png");
    CHECK(picture->bytes.starts_with("\x89PNG\r\n\x1a\n"));
    CHECK(picture->bytes.ends_with(std::string{"IEND\xae\x42\x60\x82"}));

    CHECK(harness.call(harness->open_guest_file(uuid, "/etc/hostname", virt::GuestFileMode::read)).error().code ==
          Errc::state_conflict);
    CHECK(harness.call(harness->run_in_guest(uuid, {.argv = {"true"}}))->how == virt::GuestRun::How::no_agent);

    require(harness.call(harness->power_off(uuid)));
    CHECK_FALSE(std::filesystem::exists(spec.console_socket));
    CHECK(harness.call(harness->console(uuid)).error().code == Errc::state_conflict);
    require(harness.call(harness->start(uuid, {})));
    if (root) CHECK(connect_to(spec.console_socket));
}

TEST_CASE("a real guest without a screen, whose console is a pseudo-terminal") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    auto spec = diskless(harness);
    spec.display = false;
    Guest guest{harness, spec};
    require(harness.call(harness->start(spec.uuid, {})));
    CHECK(free_ports(spec.uuid) == virt::spare_root_ports);
    const auto console = harness.call(harness->console(spec.uuid));
    REQUIRE(console.has_value());
    CHECK(console->kind == virt::ConsoleDevice::Kind::pty);
    CHECK(std::filesystem::is_character_file(console->path));
    CHECK(harness.call(harness->open_display(spec.uuid)).error().code == Errc::state_conflict);
    CHECK(harness.call(harness->screenshot(spec.uuid)).error().code == Errc::state_conflict);
}

TEST_CASE("the screen of a guest whose QEMU is stopped isn't waited for, and holds up no other's") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    const StuckAndHealthy guests{harness};
    const auto& [stuck, healthy] = guests.uuids;
    CHECK(harness.call(harness->open_display(stuck)).error().code == Errc::deadline_exceeded);
    CHECK(harness.call(harness->open_display(healthy)).has_value());
    CHECK(harness.call(harness->console(stuck)).has_value());
    guests.go_on();
    CHECK(harness.wait([&] { return harness.call(harness->open_display(stuck)).has_value(); }));
}

TEST_CASE("a real directory pool is made with its directory, once, and clashes are told") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    const auto name = harness.new_name();
    const auto folder = std::filesystem::temp_directory_path() / name;
    struct Undo {
        std::string name;
        std::filesystem::path folder;
        ~Undo() {
            const virt::ConnectPtr connection{virConnectOpen(qemu)};
            const virt::StoragePoolPtr pool{virStoragePoolLookupByName(connection.get(), name.c_str())};
            if (pool) {
                virStoragePoolDestroy(pool.get());
                virStoragePoolUndefine(pool.get());
            }
            std::filesystem::remove_all(folder);
        }
    };
    const Undo undo{name, folder};
    const auto made = harness.call(harness->ensure_pool(name, folder));
    INFO((made ? "" : made.error().detail));
    REQUIRE(made.has_value());
    CHECK(made->path == folder);
    CHECK(std::filesystem::is_directory(folder));
    CHECK(harness.call(harness->ensure_pool(name, "/elsewhere"))->path == folder);
    const auto clash = harness.call(harness->ensure_pool(harness.new_name(), folder));
    REQUIRE_FALSE(clash.has_value());
    CHECK(clash.error().code == Errc::state_conflict);
    CHECK_THAT(clash.error().detail, Catch::Contains(name));
}

TEST_CASE("a real network is started, and one that clashes with the host says with what") {
    HypervisorHarness harness{qemu};
    NEEDS_LIBVIRTD(harness)
    const virt::ConnectPtr connection{virConnectOpen(qemu)};
    REQUIRE(connection);
    struct Undo {
        virConnectPtr connection;
        std::string name;
        ~Undo() {
            const virt::NetworkPtr network{virNetworkLookupByName(connection, name.c_str())};
            if (!network) return;
            virNetworkDestroy(network.get());
            virNetworkUndefine(network.get());
        }
    };
    const auto define = [&](const std::string& name, const virt::Subnet& subnet) {
        const virt::NetworkPtr made{virNetworkDefineXML(connection.get(), virt::nat_network_xml(name, subnet).c_str())};
        REQUIRE(made);
    };
    std::ifstream file{"/proc/net/route"};
    const auto routes = virt::route_claims(std::string{std::istreambuf_iterator<char>{file}, {}});

    if (const auto free = virt::first_free({{0xc0a88a00, 24}, {0xc0a88b00, 24}}, routes)) {
        const Undo undo{connection.get(), harness.new_name()};
        define(undo.name, *free);
        const auto started = harness.call(harness->ensure_network(undo.name));
        INFO((started ? "" : started.error().detail));
        REQUIRE(started.has_value());
        CHECK(started->active);
        CHECK_FALSE(started->bridge.empty());
        CHECK(harness.wait([&] { return harness.saw(undo.name, "started"); }));
        CHECK(harness.call(harness->ensure_network(undo.name))->bridge == started->bridge);
    }
    const auto taken = std::ranges::find_if(routes, [](const virt::Claim& c) { return c.subnet.prefix <= 24; });
    if (taken == routes.end()) return;
    const Undo undo{connection.get(), harness.new_name()};
    define(undo.name, taken->subnet);
    const auto clash = harness.call(harness->ensure_network(undo.name));
    REQUIRE_FALSE(clash.has_value());
    CHECK(clash.error().code == Errc::state_conflict);
    CHECK_THAT(clash.error().detail, Catch::Contains(taken->by) && Catch::Contains(taken->subnet.text()));
}

TEST_CASE("a guest whose QEMU is stopped costs only its own figures") {
    virt::LibvirtOptions options;
    options.usage_limit = 2s;
    HypervisorHarness harness{qemu, options};
    NEEDS_LIBVIRTD(harness)
    const StuckAndHealthy guests{harness};
    const auto& [stuck, healthy] = guests.uuids;
    CHECK(harness.call(harness->usage(stuck)).error().code == Errc::deadline_exceeded);
    CHECK(harness.call(harness->usage(stuck)).error().code == Errc::hypervisor_unavailable);
    CHECK(harness.call(harness->usage(healthy)).has_value());
    CHECK(harness.call(harness->states()).has_value());
    CHECK(harness.call(harness->domains()).has_value());
    CHECK(harness.call(harness->domain(stuck))->power == Power::running);
    guests.go_on();
    require(harness.call(harness->power_off(stuck)));
}

TEST_CASE("a guest that waited behind one whose QEMU is stopped isn't left alone for it") {
    virt::LibvirtOptions options;
    options.usage_limit = 2s;
    options.lanes.lanes[static_cast<std::size_t>(virt::LaneClass::guest)] = 1;
    HypervisorHarness harness{qemu, options};
    NEEDS_LIBVIRTD(harness)
    const StuckAndHealthy guests{harness};
    const auto& [stuck, healthy] = guests.uuids;
    auto first = Errc::internal;
    auto second = Errc::internal;
    const auto both = [&]() -> boost::asio::awaitable<base::Result<void>> {
        using namespace boost::asio::experimental::awaitable_operators;
        const auto answers = co_await (harness->usage(stuck) && harness->usage(healthy));
        first = std::get<0>(answers).error().code;
        second = std::get<1>(answers).error().code;
        co_return base::Result<void>{};
    };
    require(harness.call(both()));
    CHECK(first == Errc::deadline_exceeded);
    CHECK(second == Errc::overloaded);
    guests.go_on();
    CHECK(harness.wait([&] { return harness.call(harness->usage(healthy)).has_value(); }));
}
