// The real Logind against a bus of the test's own and a login manager on it.
#include "agent/host/logind.hpp"
#include "agent/host/sleep_watch.hpp"
#include "component/agent/private_bus.hpp"
#include "fakes/virtual_clock.hpp"
#include "unit/base/recording_sink.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

using Wakes = std::vector<base::Duration>;

std::ptrdiff_t open_descriptors() {
    return std::distance(std::filesystem::directory_iterator{"/proc/self/fd"}, std::filesystem::directory_iterator{});
}

// The real Logind, and whether it waits for an answer.
class Observed final : public agent::Logind {
public:
    explicit Observed(const asio::any_io_executor& executor) : real_(agent::make_logind(executor)) {}

    [[nodiscard]] bool asks() const noexcept { return asks_; }

    Task<void> connect() override { return ask(real_->connect()); }
    Task<void> inhibit() override { return ask(real_->inhibit()); }
    void release() override { real_->release(); }
    Task<News> next() override { return real_->next(); }
    void close() override { real_->close(); }

private:
    Task<void> ask(Task<void> question) {
        struct Asking {
            bool& asks;
            explicit Asking(bool& on) : asks(on) { asks = true; }
            ~Asking() { asks = false; }
        } const asking{asks_};
        co_return co_await std::move(question);
    }

    std::unique_ptr<agent::Logind> real_;
    bool asks_ = false;
};

// A SleepWatch on the real Logind. Its time is virtual, and stands still while the bus is to answer.
struct Host {
    Host() {
        watch.before_sleep = [this]() -> asio::awaitable<void> {
            ++prepared;
            co_return;
        };
        watch.on_wake = [this](base::Duration slept) { wakes.push_back(slept); };
        asio::co_spawn(loop, watch.run(),
                       asio::bind_cancellation_slot(stop.slot(), [this](const std::exception_ptr&) { ended = true; }));
    }
    ~Host() {
        stop.emit(asio::cancellation_type::terminal);
        CHECK(wait([this] { return ended; }));
    }
    // Runs both sides until `done`, at most a minute. `step`: how much virtual time passes at each turn.
    bool wait(const std::function<bool()>& done, base::Duration step = {}) {
        const auto until = std::chrono::steady_clock::now() + 1min;
        while (!done() && std::chrono::steady_clock::now() < until) turn(step);
        return done();
    }
    void turn(base::Duration step) {
        if (manager) manager->turn();
        loop.restart();
        loop.run_one_for(10ms);
        if (!logind.asks()) clock.advance(step);
    }
    bool wait_for_lock(base::Duration step = {}) {
        return wait([this] { return manager && manager->held(); }, step);
    }
    void start_manager() { manager = std::make_unique<LoginManager>(bus.address()); }
    [[nodiscard]] bool told_of_refusal() {
        log.flush();
        return std::ranges::any_of(logged.messages(),
                                   [](const std::string& text) { return text.contains("doesn't wait for us"); });
    }

    PrivateBus bus;
    fakes::VirtualClock clock;
    asio::io_context loop{1};
    test::Recorded logged;
    base::Log log = test::recording_log(logged);
    std::unique_ptr<LoginManager> manager;
    Observed logind{loop.get_executor()};
    agent::SleepWatch watch{loop.get_executor(), &logind, clock, log};
    asio::cancellation_signal stop;
    int prepared = 0;
    Wakes wakes;
    bool ended = false;
};

// What a call comes to, if it has come back.
template <class T>
std::shared_ptr<std::optional<base::Result<T>>> begin(asio::io_context& loop, asio::awaitable<base::Result<T>> task,
                                                      asio::cancellation_slot slot = {}) {
    auto result = std::make_shared<std::optional<base::Result<T>>>();
    asio::co_spawn(
        loop, std::move(task),
        asio::bind_cancellation_slot(slot, [result](const std::exception_ptr& error, base::Result<T> value) {
            result->emplace(error ? base::Result<T>{base::fail(base::Errc::cancelled, "")} : std::move(value));
        }));
    return result;
}

}  // namespace

TEST_CASE("logind's lock is held until the host's sleep is prepared, and taken again after the wake") {
    Host host;
    host.start_manager();
    REQUIRE(host.wait_for_lock(1s));
    CHECK(host.manager->asked() == std::vector<std::string>{"sleep", "ghost-agent", "delay"});
    for (int sleeps = 1; sleeps <= 3; ++sleeps) {
        host.manager->tell(true);
        CHECK(host.wait([&] { return !host.manager->held(); }));
        CHECK(host.prepared == sleeps);
        host.clock.sleep(8h);
        host.manager->tell(false);
        CHECK(host.wait_for_lock());
        CHECK(host.wakes == Wakes(static_cast<std::size_t>(sleeps), 8h));
    }
    CHECK(host.manager->locks() == 4);
}

TEST_CASE("a bus that comes late is found, and so is one that was stopped and started again") {
    Host host;
    host.bus.kill();
    for (int n = 0; n < 20; ++n) host.turn(1min);
    host.bus.start();
    host.start_manager();
    REQUIRE(host.wait_for_lock(1s));
    host.bus.kill();
    CHECK(host.wait([&] { return !host.manager->held(); }));
    host.bus.start();
    host.start_manager();
    REQUIRE(host.wait_for_lock(1s));
    host.manager->tell(true);
    CHECK(host.wait([&] { return host.prepared == 1; }));
}

TEST_CASE("a login manager that leaves the bus takes the lock with it, and its successor gives a new one") {
    Host host;
    host.start_manager();
    REQUIRE(host.wait_for_lock(1s));
    const auto former = std::move(host.manager);
    former->leave();
    CHECK(host.wait([&] { return !former->held(); }));
    host.start_manager();
    REQUIRE(host.wait_for_lock(1s));
    host.manager->tell(true);
    CHECK(host.wait([&] { return host.prepared == 1; }));
}

TEST_CASE("a login manager that gives no lock tells of sleep all the same") {
    Host host;
    host.start_manager();
    host.manager->refuse(true);
    REQUIRE(host.wait([&] { return host.told_of_refusal(); }, 1s));
    host.manager->tell(true);
    CHECK(host.wait([&] { return host.prepared == 1; }));
    CHECK(host.manager->locks() == 0);
}

TEST_CASE("a bus that takes a connection and says nothing blocks nobody") {
    const SilentBus bus;
    asio::io_context loop{1};
    auto logind = agent::make_logind(loop.get_executor());
    asio::cancellation_signal stop;
    const auto connected = begin(loop, logind->connect(), stop.slot());
    int turns = 0;
    for (; turns < 20; ++turns) {
        loop.restart();
        loop.run_one_for(1ms);
    }
    CHECK_FALSE(connected->has_value());
    stop.emit(asio::cancellation_type::terminal);
    loop.restart();
    loop.run_for(1min);
    REQUIRE(connected->has_value());
    CHECK((*connected)->error().code == base::Errc::cancelled);
}

TEST_CASE("without a bus, and without a connection to one, logind's calls fail") {
    const SystemBusAddress nowhere{"unix:path=/nonexistent/bus"};
    asio::io_context loop{1};
    auto logind = agent::make_logind(loop.get_executor());
    const auto connected = begin(loop, logind->connect());
    const auto inhibited = begin(loop, logind->inhibit());
    const auto news = begin(loop, logind->next());
    loop.run();
    CHECK((*connected)->error().code == base::Errc::io_error);
    CHECK((*connected)->error().detail == "no bus: No such file or directory");
    CHECK((*inhibited)->error().code == base::Errc::io_error);
    CHECK((*news)->error().code == base::Errc::io_error);
}

TEST_CASE("no descriptor is left over, however often a bus comes and goes") {
    const auto before = open_descriptors();
    {
        Host host;
        for (int n = 0; n < 3; ++n) {
            host.start_manager();
            REQUIRE(host.wait_for_lock(1s));
            host.bus.kill();
            CHECK(host.wait([&] { return !host.manager->held(); }));
            host.bus.start();
        }
    }
    CHECK(open_descriptors() == before);
}
