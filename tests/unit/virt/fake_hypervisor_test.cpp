#include "tests/fakes/fake_hypervisor.hpp"

#include "virt/event_queue.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace ghost;
using base::Errc;
using fakes::FakeHypervisor;
using virt::Event;
using virt::Power;

namespace {

const std::string uuid = "0198a000-0000-7000-8000-000000000001";

struct World {
    World() { hypervisor.restore_link(); }

    virt::DomainSpec spec(std::string name = "web-1") {
        virt::DomainSpec made;
        made.uuid = uuid;
        made.name = std::move(name);
        made.vcpus = 2;
        made.memory_mib = 512;
        made.disks = {{"root", "/d.qcow2", "", ""}};
        return made;
    }
    // Runs what is ready; the value if the call came back.
    template <class T>
    std::optional<base::Result<T>> call(boost::asio::awaitable<base::Result<T>> task) {
        auto slot = std::make_shared<std::optional<base::Result<T>>>();
        boost::asio::co_spawn(context, std::move(task), [slot](std::exception_ptr error, base::Result<T> result) {
            if (!error) slot->emplace(std::move(result));
        });
        turn();
        return std::move(*slot);
    }
    void turn() {
        context.restart();
        context.poll();
    }
    std::vector<std::string> events() {
        std::vector<std::string> words;
        while (const auto event = call_event()) words.push_back(event->what);
        return words;
    }
    std::optional<Event> call_event() {
        auto slot = std::make_shared<std::optional<Event>>();
        boost::asio::cancellation_signal stop;
        boost::asio::co_spawn(
            context, hypervisor.next_event(),
            boost::asio::bind_cancellation_slot(stop.slot(), [slot](std::exception_ptr error, Event event) {
                if (!error) slot->emplace(std::move(event));
            }));
        turn();
        stop.emit(boost::asio::cancellation_type::terminal);
        turn();
        return *slot;
    }

    boost::asio::io_context context;
    base::SystemClock clock;
    FakeHypervisor hypervisor{context, clock};
};

}  // namespace

TEST_CASE("a fake domain lives through its life, telling each step") {
    World world;
    auto& fake = world.hypervisor;
    REQUIRE(world.call(fake.define(world.spec(), {}))->has_value());
    REQUIRE(world.call(fake.start(uuid, {}))->has_value());
    CHECK(fake.find(uuid)->power == Power::running);
    CHECK(fake.find(uuid)->live_vcpus == 2);
    REQUIRE(world.call(fake.pause(uuid, {}))->has_value());
    REQUIRE(world.call(fake.resume(uuid, {}))->has_value());
    REQUIRE(world.call(fake.save(uuid, {}))->has_value());
    CHECK(fake.find(uuid)->power == Power::suspended);
    REQUIRE(world.call(fake.start(uuid, {}))->has_value());
    CHECK(fake.find(uuid)->power_reason == "restored");
    REQUIRE(world.call(fake.request_shutdown(uuid))->has_value());
    CHECK(fake.find(uuid)->power == Power::off);
    REQUIRE(world.call(fake.undefine(uuid, {}))->has_value());
    CHECK(fake.find(uuid) == nullptr);
    CHECK(world.events() == std::vector<std::string>{"connected", "defined", "started", "suspended", "resumed",
                                                     "stopped", "started", "stopped", "undefined"});
}

TEST_CASE("a fake refuses what libvirt would refuse") {
    World world;
    auto& fake = world.hypervisor;
    CHECK(world.call(fake.start(uuid, {}))->error().code == Errc::not_found);
    REQUIRE(world.call(fake.define(world.spec(), {}))->has_value());
    CHECK(world.call(fake.define(world.spec("other"), {}))->error().code == Errc::already_exists);
    CHECK(world.call(fake.pause(uuid, {}))->error().code == Errc::state_conflict);
    CHECK(world.call(fake.usage(uuid))->error().code == Errc::state_conflict);
    CHECK(world.call(fake.power_off(uuid))->has_value());
    CHECK(world.call(fake.ensure_network("nowhere"))->error().code == Errc::not_found);
    CHECK(world.call(fake.ensure_network("default"))->value().active);
}

TEST_CASE("a fault hits as often as it was told and where it was told") {
    World world;
    auto& fake = world.hypervisor;
    fake.fail("define", {Errc::hypervisor_error, "no"}, 2);
    CHECK(world.call(fake.define(world.spec(), {}))->error().detail == "no");
    CHECK_FALSE(world.call(fake.define(world.spec(), {}))->has_value());
    CHECK(fake.all().empty());
    REQUIRE(world.call(fake.define(world.spec(), {}))->has_value());
    fake.fail("start", {Errc::hypervisor_unavailable, "lost"}, 1, FakeHypervisor::When::after_effect);
    CHECK(world.call(fake.start(uuid, {}))->error().code == Errc::hypervisor_unavailable);
    CHECK(fake.find(uuid)->power == Power::running);
    fake.fail("states", {Errc::overloaded, "full"}, FakeHypervisor::always);
    CHECK_FALSE(world.call(fake.states())->has_value());
    CHECK_FALSE(world.call(fake.states())->has_value());
    fake.heal("states");
    CHECK(world.call(fake.states())->value().size() == 1);
    CHECK(fake.count("define") == 3);
}

TEST_CASE("a hung change says it stalls and ends with the truth") {
    World world;
    auto& fake = world.hypervisor;
    REQUIRE(world.call(fake.define(world.spec(), {}))->has_value());
    fake.hang("start");
    int stalls = 0;
    std::optional<base::Result<void>> done;
    boost::asio::co_spawn(world.context, fake.start(uuid, [&stalls] { ++stalls; }),
                          [&done](std::exception_ptr, base::Result<void> result) { done = std::move(result); });
    world.turn();
    CHECK(stalls == 1);
    CHECK(fake.hung() == 1);
    CHECK_FALSE(done.has_value());
    CHECK(fake.find(uuid)->power == Power::off);
    fake.release("start");
    world.turn();
    REQUIRE(done.has_value());
    CHECK(done->has_value());
    CHECK(stalls == 1);
    CHECK(fake.find(uuid)->power == Power::running);
}

TEST_CASE("a hung change whose waiter left still happens") {
    World world;
    auto& fake = world.hypervisor;
    REQUIRE(world.call(fake.define(world.spec(), {}))->has_value());
    fake.hang("start");
    boost::asio::cancellation_signal stop;
    boost::asio::co_spawn(world.context, fake.start(uuid, {}),
                          boost::asio::bind_cancellation_slot(stop.slot(), [](std::exception_ptr, const auto&) {}));
    world.turn();
    stop.emit(boost::asio::cancellation_type::terminal);
    world.turn();
    CHECK(fake.hung() == 0);
    CHECK(fake.find(uuid)->power == Power::off);
    fake.release("start");
    CHECK(fake.find(uuid)->power == Power::running);
}

TEST_CASE("without a link every call fails and nothing is told") {
    World world;
    auto& fake = world.hypervisor;
    fake.drop_link("libvirtd is gone");
    CHECK(world.call(fake.domains())->error().code == Errc::hypervisor_unavailable);
    CHECK(world.call(fake.define(world.spec(), {}))->error().detail == "libvirtd is gone");
    CHECK_FALSE(fake.link().connected);
    fake.restore_link();
    CHECK(fake.link().connected);
    CHECK(world.events() == std::vector<std::string>{"connected", "libvirtd is gone", "connected"});
}

TEST_CASE("lost events never come, a guest may ignore the power button") {
    World world;
    auto& fake = world.hypervisor;
    REQUIRE(world.call(fake.define(world.spec(), {}))->has_value());
    fake.lose_events(true);
    REQUIRE(world.call(fake.start(uuid, {}))->has_value());
    fake.lose_events(false);
    fake.on_shutdown(uuid, FakeHypervisor::Shutdown::ignore);
    REQUIRE(world.call(fake.request_shutdown(uuid))->has_value());
    CHECK(fake.find(uuid)->power == Power::running);
    fake.set_addresses(uuid, {"192.168.122.7"}, {"192.168.122.7", "fd00::7"});
    const auto leases = world.call(fake.addresses(uuid, false))->value();
    CHECK(leases.leases == std::vector<std::string>{"192.168.122.7"});
    CHECK(leases.guest.empty());
    CHECK(world.call(fake.addresses(uuid, true))->value().guest ==
          std::vector<std::string>{"192.168.122.7", "fd00::7"});
    fake.guest_crashes(uuid);
    CHECK(world.events() == std::vector<std::string>{"connected", "defined", "crashed"});
}

TEST_CASE("an event queue that is full keeps the link's last word and says what it lost") {
    boost::asio::io_context context;
    virt::EventQueue queue{context, 4};
    queue.push({Event::Kind::link_up, {}, "first"});
    queue.push({Event::Kind::link_down, {}, "second"});
    for (int i = 0; i < 10; ++i) queue.push({Event::Kind::domain, uuid, "changed"});
    CHECK(queue.size() <= 4);
    std::vector<Event::Kind> kinds;
    std::string link_word;
    boost::asio::co_spawn(
        context,
        [&]() -> boost::asio::awaitable<void> {
            while (queue.size() > 0) {
                const auto event = co_await queue.next();
                kinds.push_back(event.kind);
                if (event.kind == Event::Kind::link_down) link_word = event.what;
            }
        },
        boost::asio::detached);
    context.run();
    CHECK(std::ranges::count(kinds, Event::Kind::overflow) == 1);
    CHECK(std::ranges::count(kinds, Event::Kind::link_up) == 0);
    CHECK(link_word == "second");
}

TEST_CASE("a fake guest's clock is set by its agent, once it runs and has one") {
    World world;
    REQUIRE(world.call(world.hypervisor.define(world.spec(), {})));
    const auto now = base::from_unix_ms(1'767'323'045'000);
    const auto set = [&] { return world.call(world.hypervisor.set_guest_time(uuid, now)).value(); };
    CHECK(set().error().code == Errc::state_conflict);
    REQUIRE(world.call(world.hypervisor.start(uuid, {})));
    CHECK(set().error().code == Errc::state_conflict);
    world.hypervisor.set_guest_run(uuid, {.how = virt::GuestRun::How::exited});
    world.hypervisor.fail("set_guest_time", {Errc::hypervisor_error, "no"});
    CHECK(set().error().code == Errc::hypervisor_error);
    CHECK(world.hypervisor.guest_times(uuid).empty());
    CHECK(set());
    CHECK(world.hypervisor.guest_times(uuid) == std::vector{now});
}

TEST_CASE("a fake guest's console, display and picture are there while it runs, where a test gave it any") {
    World world;
    auto& fake = world.hypervisor;
    REQUIRE(world.call(fake.define(world.spec(), {})));
    fake.set_console(uuid, {virt::ConsoleDevice::Kind::pty, "/dev/pts/7"});
    CHECK(world.call(fake.console(uuid))->error().code == Errc::state_conflict);
    REQUIRE(world.call(fake.start(uuid, {})));
    CHECK(world.call(fake.console(uuid))->value().path == "/dev/pts/7");
    CHECK(world.call(fake.open_display(uuid))->error().code == Errc::state_conflict);
    CHECK(world.call(fake.screenshot(uuid))->error().code == Errc::state_conflict);
    fake.set_display(uuid, [] { return base::Descriptor{::dup(0)}; });
    fake.set_screenshot(uuid, {"image/png", "a picture"});
    CHECK(world.call(fake.open_display(uuid))->value().get() >= 0);
    CHECK(world.call(fake.screenshot(uuid))->value().bytes == "a picture");
    REQUIRE(world.call(fake.pause(uuid, {})));
    CHECK(world.call(fake.screenshot(uuid))->has_value());
    fake.fail("console " + uuid, {Errc::deadline_exceeded, "silent"});
    CHECK(world.call(fake.console(uuid))->error().code == Errc::deadline_exceeded);
    CHECK(fake.count("console") == 3);
    CHECK(world.call(fake.console("another"))->error().code == Errc::not_found);
}

TEST_CASE("a fake guest's files are opened, read and written piece by piece, through its agent") {
    World world;
    auto& fake = world.hypervisor;
    REQUIRE(world.call(fake.define(world.spec(), {})));
    REQUIRE(world.call(fake.start(uuid, {})));
    const auto open = [&](std::string path, virt::GuestFileMode mode) {
        return world.call(fake.open_guest_file(uuid, std::move(path), mode)).value();
    };
    fake.guest_files(uuid)["/etc/hostname"] = std::string(virt::max_guest_piece, 'a') + "b";
    CHECK(open("/etc/hostname", virt::GuestFileMode::read).error().detail == "no guest agent answers");
    fake.set_guest_run(uuid, {.how = virt::GuestRun::How::exited});
    const auto missing = open("/nowhere", virt::GuestFileMode::read);
    CHECK(missing.error().code == Errc::state_conflict);
    CHECK_THAT(missing.error().detail, Catch::Contains("No such file or directory"));

    const auto source = open("/etc/hostname", virt::GuestFileMode::read).value();
    auto piece = world.call(fake.read_guest_file(uuid, source))->value();
    CHECK(piece.bytes.size() == virt::max_guest_piece);
    CHECK_FALSE(piece.end);
    piece = world.call(fake.read_guest_file(uuid, source))->value();
    CHECK(piece.bytes == "b");
    CHECK(piece.end);

    const auto target = open("/tmp/new", virt::GuestFileMode::write).value();
    CHECK(world.call(fake.write_guest_file(uuid, target, "one "))->has_value());
    CHECK(world.call(fake.write_guest_file(uuid, target, "two"))->has_value());
    CHECK(fake.guest_files(uuid).at("/tmp/new") == "one two");
    CHECK(world.call(fake.read_guest_file(uuid, target))->error().code == Errc::state_conflict);
    CHECK(fake.open_guest_files(uuid) == 2);
    CHECK(world.call(fake.close_guest_file(uuid, source))->has_value());
    CHECK(world.call(fake.close_guest_file(uuid, source))->error().code == Errc::state_conflict);
    REQUIRE(world.call(fake.power_off(uuid)));
    REQUIRE(world.call(fake.start(uuid, {})));
    CHECK(world.call(fake.write_guest_file(uuid, target, "three"))->error().code == Errc::state_conflict);
    CHECK(fake.open_guest_files(uuid) == 0);
}

TEST_CASE("a fake guest runs what a test does for it") {
    World world;
    auto& fake = world.hypervisor;
    REQUIRE(world.call(fake.define(world.spec(), {})));
    REQUIRE(world.call(fake.start(uuid, {})));
    fake.on_guest_run = [&fake](const std::string& id, const virt::GuestCommand& command) {
        fake.guest_files(id)["/ran"] = command.argv.front();
        return virt::GuestRun{.how = virt::GuestRun::How::exited, .output = "long output", .errors = "e"};
    };
    const auto run = world.call(fake.run_in_guest(uuid, {.argv = {"true"}, .max_output = 4}))->value();
    CHECK(run.output == "long");
    CHECK(run.errors == "e");
    CHECK(run.truncated);
    CHECK(fake.guest_files(uuid).at("/ran") == "true");
    fake.set_guest_run(uuid, {});
    CHECK(world.call(fake.run_in_guest(uuid, {.argv = {"true"}}))->value().how == virt::GuestRun::How::no_agent);
}
