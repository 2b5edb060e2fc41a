#include "agent/access/console_hub.hpp"

#include "fakes/memory_files.hpp"
#include "unit/agent/access/scene.hpp"

#include <boost/asio/detached.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

using namespace ghost;
using namespace ghost::agent;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

// A guest's serial console: what it says waits to be read, what is typed waits for it.
struct Guest {
    explicit Guest(const asio::any_io_executor& executor) : changed(executor) {}

    void says(std::string_view text) {
        said += text;
        changed.notify();
    }
    void ends() {
        ended = true;
        changed.notify();
    }

    std::string said;
    std::string typed;
    bool listens = true;
    bool ended = false;
    bool closed = false;  // by the agent
    base::Notifier changed;
};

class MemoryLine final : public ConsoleLine {
public:
    explicit MemoryLine(std::shared_ptr<Guest> guest) : guest_(std::move(guest)) {}

    asio::awaitable<std::size_t> read(asio::mutable_buffer room) override {
        const auto guest = guest_;
        while (guest->said.empty() && !guest->ended && !guest->closed) co_await guest->changed.wait();
        co_return guest->closed ? 0 : take(room);
    }
    std::size_t read_ready(asio::mutable_buffer room) noexcept override { return take(room); }
    asio::awaitable<bool> write(std::string_view bytes) override {
        const auto guest = guest_;
        while (!guest->listens && !guest->ended && !guest->closed) co_await guest->changed.wait();
        if (guest->ended || guest->closed) co_return false;
        guest->typed += bytes;
        co_return true;
    }
    void close() noexcept override {
        guest_->closed = true;
        guest_->changed.notify();
    }

private:
    std::size_t take(asio::mutable_buffer room) const {
        const auto bytes = std::min(room.size(), guest_->said.size());
        std::memcpy(room.data(), guest_->said.data(), bytes);
        guest_->said.erase(0, bytes);
        return bytes;
    }
    std::shared_ptr<Guest> guest_;
};

// One who looks at the console: reads on and on, unless told to pause.
struct Viewer {
    explicit Viewer(const asio::any_io_executor& executor) : changed(executor) {}
    std::shared_ptr<FarEnd> seat;
    std::string text;
    std::vector<std::string> events;
    std::optional<Ending> ending;
    bool paused = false;
    base::Notifier changed;
};

asio::awaitable<void> watch(std::shared_ptr<Viewer> viewer) {
    const auto seat = viewer->seat;
    std::string room(1000, '\0');
    while (viewer->seat) {
        if (viewer->paused) {
            co_await viewer->changed.wait();
            continue;
        }
        auto got = co_await seat->read(asio::buffer(room));
        if (got.kind == FarEnd::Got::Kind::data) viewer->text.append(room, 0, got.bytes);
        if (got.kind == FarEnd::Got::Kind::event) viewer->events.push_back(boost::json::serialize(got.event));
        if (got.kind != FarEnd::Got::Kind::ended) continue;
        viewer->ending = std::move(got.ending);
        break;
    }
}

struct Room : test::AccessScene {
    Room() {
        (void)vms.change("vm-1", [](Vm& vm) { vm.plan.console_log = "/consoles/vm-1.log"; });
    }
    ~Room() {
        consoles.end({Ending::agent_stops, "the test is over"});
        settle();
    }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    asio::awaitable<base::Result<std::shared_ptr<ConsoleLine>>> open() {
        ++opened;
        if (delay > base::Duration::zero()) co_await clock.sleep_for(delay);
        if (fault) co_return base::fail(*fault);
        guest = std::make_shared<Guest>(loop.get_executor());
        guest->said = std::exchange(first_words, {});
        co_return std::make_shared<MemoryLine>(guest);
    }
    asio::awaitable<void> resize(WindowSize size) {
        sizes.push_back(std::to_string(size.rows) + "x" + std::to_string(size.columns));
        co_await clock.sleep_for(1s);
    }

    base::Result<std::shared_ptr<Viewer>> try_to_look(ConsoleHub::Reader reader) {
        auto joined = begin(consoles.join("vm-1", std::move(reader)));
        for (int i = 0; i < 300 && !*joined; ++i) pass(100ms);
        REQUIRE(*joined);
        if (!**joined) return base::fail((**joined).error());
        auto viewer = std::make_shared<Viewer>(loop.get_executor());
        viewer->seat = ***joined;
        **joined = nullptr;
        asio::co_spawn(loop, watch(viewer), asio::detached);
        settle();
        return viewer;
    }
    std::shared_ptr<Viewer> look(std::string name, bool force = false, bool read_only = false) {
        auto viewer = try_to_look({std::move(name), force, read_only});
        REQUIRE(viewer);
        return *viewer;
    }
    void leave(const std::shared_ptr<Viewer>& viewer) {
        viewer->seat->close();
        viewer->seat = nullptr;
        settle();
    }
    void type(const std::shared_ptr<Viewer>& viewer, std::string text) {
        (void)begin(write(viewer->seat, std::move(text)));
    }
    static asio::awaitable<bool> write(std::shared_ptr<FarEnd> seat, std::string text) {
        co_return !co_await seat->write(text);
    }
    void says(std::string_view text) {
        guest->says(text);
        settle();
    }

    fakes::MemoryFiles files;
    std::shared_ptr<Guest> guest;
    std::string first_words;
    std::optional<base::Error> fault;
    base::Duration delay{};
    int opened = 0;
    std::vector<std::string> sizes;
    Consoles consoles{{loop.get_executor(), vms, files, clock, tasks, [this](std::string) { return open(); },
                       [this](std::string, WindowSize size) { return resize(size); }}};
};

std::string writer(bool self, const std::string& by) {
    return std::string{R"({"event":"writer","writer":)"} + (self ? "true" : "false") + R"(,"by":)" +
           (by.empty() ? "null" : "\"" + by + "\"") + "}";
}

using Events = std::vector<std::string>;

}  // namespace

TEST_CASE("a console shows what it says, and takes what is typed") {
    Room room;
    const auto alice = room.look("alice");
    CHECK(alice->events == Events{writer(true, "alice")});
    room.says("web login: ");
    CHECK(alice->text == "web login: ");
    room.type(alice, "root\n");
    CHECK(room.guest->typed == "root\n");
}

TEST_CASE("who comes first sees the log's end, and what was said since once") {
    Room room;
    room.files.put("/consoles/vm-1.log", std::string(100'000, '.') + "booted\nweb login: ");
    room.first_words = "web login: root";
    const auto alice = room.look("alice");
    const std::string all = std::string(100'000, '.') + "booted\nweb login: root";
    CHECK(alice->text == all.substr(all.size() - Replay::size));
}

TEST_CASE("a log that was just turned over goes on in the file before it") {
    Room room;
    room.files.put("/consoles/vm-1.log", "booted\n");
    room.files.put("/consoles/vm-1.log.0", "kernel\n");
    CHECK(room.look("alice")->text == "kernel\nbooted\n");
}

TEST_CASE("many look and one writes, until it leaves") {
    Room room;
    const auto alice = room.look("alice");
    const auto bob = room.look("bob");
    const auto carol = room.look("carol", false, true);
    const auto dave = room.look("dave");
    CHECK(room.opened == 1);
    CHECK(bob->events == Events{writer(false, "alice")});
    CHECK(carol->events == Events{writer(false, "alice")});
    room.says("hello\n");
    for (const auto& viewer : {alice, bob, carol, dave}) CHECK(viewer->text == "hello\n");
    room.type(bob, "not mine");
    room.type(carol, "nor mine");
    room.type(alice, "mine");
    CHECK(room.guest->typed == "mine");
    room.leave(alice);
    CHECK(bob->events.back() == writer(true, "bob"));
    CHECK(carol->events.back() == writer(false, "bob"));
    CHECK(dave->events.back() == writer(false, "bob"));
    room.type(bob, ", and mine");
    CHECK(room.guest->typed == "mine, and mine");
    room.leave(bob);
    room.leave(dave);
    CHECK(carol->events.back() == writer(false, ""));  // who only looks never writes
    room.type(carol, "!");
    CHECK(room.guest->typed == "mine, and mine");
    const auto erin = room.look("erin");
    CHECK(erin->text == "hello\n");
    CHECK(erin->events == Events{writer(true, "erin")});
}

TEST_CASE("the writer's place can be taken") {
    Room room;
    const auto alice = room.look("alice");
    const auto bob = room.look("bob", true);
    CHECK(alice->events == Events{writer(true, "alice"), writer(false, "bob")});
    CHECK(bob->events == Events{writer(true, "bob")});
    room.type(alice, "no");
    room.type(bob, "yes");
    room.says("on\n");
    CHECK(room.guest->typed == "yes");
    CHECK(alice->text == "on\n");
    room.leave(bob);
    CHECK(alice->events.back() == writer(true, "alice"));
}

TEST_CASE("a reader that is too slow skips, and holds up nobody") {
    Room room;
    const auto alice = room.look("alice");
    const auto bob = room.look("bob");
    bob->paused = true;
    bob->changed.notify();
    room.says("x");  // what it waited for
    const auto seen = bob->text.size();
    for (int i = 0; i < 10; ++i) room.says(std::string(16 * 1024, static_cast<char>('a' + i)));
    CHECK(alice->text.size() == 1 + 10 * 16 * 1024);
    CHECK(room.guest->said.empty());
    bob->paused = false;
    bob->changed.notify();
    room.settle();
    const auto lost = 1 + 10 * 16 * 1024 - seen - Replay::size;
    CHECK(bob->events.back() == R"({"event":"skipped","bytes":)" + std::to_string(lost) + "}");
    CHECK(bob->text == alice->text.substr(0, seen) + alice->text.substr(alice->text.size() - Replay::size));
}

TEST_CASE("a guest that doesn't listen holds up its writer, and not for ever") {
    Room room;
    const auto alice = room.look("alice");
    room.guest->listens = false;
    room.type(alice, std::string(16 * 1024, 'a'));  // is being written
    room.type(alice, std::string(16 * 1024, 'b'));  // waits for it
    const auto late = room.begin(Room::write(alice->seat, "c"));
    CHECK_FALSE(*late);
    room.says("still read\n");
    CHECK(alice->text == "still read\n");
    SECTION("until it listens again") {
        room.guest->listens = true;
        room.guest->changed.notify();
        room.settle();
        CHECK(*late == true);
        CHECK(room.guest->typed == std::string(16 * 1024, 'a') + std::string(16 * 1024, 'b') + "c");
    }
    SECTION("until it is dropped") {
        room.pass(ConsoleHub::input_patience);
        CHECK(*late == true);
    }
    SECTION("until another writes") {
        const auto bob = room.look("bob", true);
        CHECK(*late == true);
    }
    SECTION("until it leaves") {
        room.leave(alice);
        CHECK(*late == true);
    }
}

TEST_CASE("a console is kept for a while without readers, and then given back") {
    Room room;
    room.leave(room.look("alice"));
    room.says("meanwhile\n");
    room.pass(9s);
    CHECK_FALSE(room.guest->closed);
    const auto bob = room.look("bob");
    CHECK(bob->text == "meanwhile\n");
    CHECK(room.opened == 1);
    room.pass(1min);
    CHECK_FALSE(room.guest->closed);
    room.leave(bob);
    room.pass(ConsoleHub::linger);
    CHECK(room.guest->closed);
    room.look("carol");
    CHECK(room.opened == 2);
}

TEST_CASE("readers get the rest of a VM that stops, and then its end") {
    Room room;
    const auto alice = room.look("alice");
    alice->paused = true;
    room.guest->says("shutting down\n");
    SECTION("the line ends first") {
        room.guest->ends();
        room.settle();
        room.set_power(virt::Power::off);
    }
    SECTION("the hypervisor tells of it first") {
        room.set_power(virt::Power::off);
        room.guest->says("powered off\n");
        room.guest->ends();
    }
    SECTION("the line never ends") {
        room.set_power(virt::Power::off);
        room.pass(ConsoleHub::last_words);
        CHECK(room.guest->closed);
    }
    room.settle();
    alice->paused = false;
    alice->changed.notify();
    room.settle();
    CHECK(alice->text.starts_with("shutting down\n"));
    REQUIRE(alice->ending);
    CHECK(alice->ending->code == 4001);
    CHECK(alice->ending->reason == "the VM stopped");
}

TEST_CASE("a VM that is deleted says so") {
    Room room;
    const auto alice = room.look("alice");
    room.vms.erase("vm-1");
    room.guest->ends();
    room.settle();
    REQUIRE(alice->ending);
    CHECK(alice->ending->code == 4002);
}

TEST_CASE("a line that breaks off while the VM goes on is opened again") {
    Room room;
    const auto alice = room.look("alice");
    room.says("one\n");
    room.guest->ends();
    SECTION("and comes back") {
        room.first_words = "two\n";
        room.pass(1s);
        CHECK(room.opened == 2);
        CHECK(alice->text == "one\ntwo\n");
        CHECK_FALSE(alice->ending);
        room.type(alice, "typed");
        CHECK(room.guest->typed == "typed");
    }
    SECTION("and doesn't come back") {
        room.fault = {base::Errc::source_unavailable, "no such file"};
        room.pass(ConsoleHub::reopening + 1s);
        REQUIRE(alice->ending);
        CHECK(alice->ending->code == 1011);
        CHECK(alice->ending->reason == "the console broke off: no such file");
        room.fault.reset();
        CHECK(room.look("bob")->events == Events{writer(true, "bob")});
    }
}

TEST_CASE("a console that can't be opened says why, and is tried anew for the next") {
    Room room;
    room.fault = {base::Errc::state_conflict, "another program is attached to the console"};
    const auto refused = room.try_to_look({"alice"});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::state_conflict);
    CHECK(refused.error().detail == "another program is attached to the console");
    room.fault.reset();
    room.look("alice");
    CHECK(room.opened == 2);
}

TEST_CASE("a console that takes too long to open is waited for no longer, and is there for the next") {
    Room room;
    room.delay = 12s;
    const auto refused = room.try_to_look({"alice"});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::deadline_exceeded);
    room.look("alice");
    CHECK(room.opened == 1);
}

TEST_CASE("two who come at once open it once") {
    Room room;
    room.delay = 1s;
    auto first = room.begin(room.consoles.join("vm-1", {"alice"}));
    auto second = room.begin(room.consoles.join("vm-1", {"bob"}));
    room.pass(2s);
    REQUIRE(*first);
    REQUIRE(*second);
    CHECK((*first)->has_value());
    CHECK((*second)->has_value());
    CHECK(room.opened == 1);
}

TEST_CASE("a console's readers are bounded") {
    Room room;
    std::vector<std::shared_ptr<Viewer>> viewers;
    viewers.reserve(ConsoleHub::most_readers);
    for (std::size_t i = 0; i < ConsoleHub::most_readers; ++i) viewers.push_back(room.look("n" + std::to_string(i)));
    const auto refused = room.try_to_look({"one more"});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::overloaded);
    for (const auto& viewer : viewers) room.leave(viewer);
}

TEST_CASE("the guest is told how large its writer's window is, and of several sizes the last") {
    Room room;
    const auto alice = room.look("alice");
    const auto bob = room.look("bob");
    const auto resize = [](int rows, boost::json::value columns) {
        return boost::json::object{{"event", "resize"}, {"rows", rows}, {"columns", std::move(columns)}};
    };
    (void)bob->seat->take(resize(1, 1));
    for (const auto& event :
         {resize(0, 80), resize(24, 1001), resize(24, "80"), resize(-1, 80), boost::json::object{{"event", "resize"}}})
        (void)alice->seat->take(event);
    room.settle();
    CHECK(room.sizes.empty());
    (void)alice->seat->take(resize(24, 80));
    room.settle();
    for (int rows = 25; rows < 50; ++rows) (void)alice->seat->take(resize(rows, 132));
    room.pass(3s);
    CHECK(room.sizes == std::vector<std::string>{"24x80", "49x132"});
}

TEST_CASE("when the agent stops, readers are told") {
    Room room;
    const auto alice = room.look("alice");
    room.consoles.end({Ending::agent_stops, "the agent is stopping"});
    room.settle();
    REQUIRE(alice->ending);
    CHECK(alice->ending->code == 1001);
    CHECK(room.guest->closed);
}
