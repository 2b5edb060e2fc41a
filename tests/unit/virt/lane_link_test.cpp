#include "tests/unit/virt/loop_fixture.hpp"
#include "virt/lane_pool.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

using namespace ghost;
using namespace std::chrono_literals;
using base::Errc;
using test::Gate;
using test::Lanes;
using test::patience;
using virt::LaneClass;
using virt::LaneOptions;

namespace {

constexpr auto limit = 5s;  // passes when a test says so

// A daemon that can be switched off, or made to accept no connection. Shared with the lanes.
struct Daemon {
    std::atomic<bool> refuses{false};
    std::mutex mutex;
    std::vector<std::string> opened_by;  // names of threads
    std::string held_thread;             // prefix of the threads held at `gate`
    Gate gate;

    [[nodiscard]] std::size_t attempts() {
        const std::scoped_lock lock{mutex};
        return opened_by.size();
    }
};

LaneOptions connecting_to(const std::shared_ptr<Daemon>& daemon) {
    LaneOptions options;
    options.connect.open = [daemon](const std::string& uri) -> virConnectPtr {
        bool hold = false;
        {
            const std::scoped_lock lock{daemon->mutex};
            daemon->opened_by.push_back(test::thread_name());
            hold = !daemon->held_thread.empty() && daemon->opened_by.back().starts_with(daemon->held_thread);
        }
        if (hold) daemon->gate.pass();
        if (daemon->refuses) return virConnectOpen("test+unix:///default?socket=/nonexistent/socket");
        return virConnectOpen(uri.c_str());
    };
    return options;
}

// Nothing is under way but the wait for the next attempt.
bool backing_off(Lanes& lanes) {
    lanes.settle();
    return lanes.stats(LaneClass::events).busy == 0 && lanes.clock.sleepers() == 1;
}

}  // namespace

TEST_CASE_METHOD(Lanes, "the probe tries again with growing waits and tells why once") {
    const auto daemon = std::make_shared<Daemon>();
    daemon->refuses = true;
    start(connecting_to(daemon));
    auto least = 500ms;
    for (std::size_t attempt = 1; attempt <= 7; ++attempt) {
        REQUIRE(until([&] { return daemon->attempts() == attempt && backing_off(*this); }));
        const auto wait = *clock.next() - clock.now();
        CHECK(wait >= std::min<base::Duration>(least, 15s));
        CHECK(wait <= std::min<base::Duration>(least * 2, 30s));
        least *= 2;
        clock.advance(wait);
    }
    REQUIRE(links.size() == 1);
    CHECK_FALSE(links[0].first);
    CHECK(links[0].second.starts_with("cannot connect to libvirt: "));

    const auto refused = read(LaneClass::query, "", patience, answering(1));
    settle();
    REQUIRE(refused->done());
    CHECK(refused->result->error().code == Errc::hypervisor_unavailable);
    CHECK(refused->result->error().detail == links[0].second);

    REQUIRE(until([&] { return backing_off(*this); }));
    daemon->refuses = false;
    clock.advance(30s);
    REQUIRE(until([&] { return pool->up(); }));
    CHECK(links.back() == std::pair{true, std::string{}});
    close();
}

TEST_CASE_METHOD(Lanes, "only the probe opens while the link is down, and a lane opens when it is first needed") {
    const auto daemon = std::make_shared<Daemon>();
    daemon->refuses = true;
    start(connecting_to(daemon));
    REQUIRE(until([&] { return backing_off(*this); }));
    daemon->refuses = false;
    clock.advance(1s);
    REQUIRE(until([&] { return pool->up(); }));
    const auto call = read(LaneClass::query, "", patience, answering(1));
    const auto again = read(LaneClass::query, "", patience, answering(1));
    REQUIRE(until([&] { return call->done() && again->done(); }));
    close();
    CHECK(daemon->opened_by[0] == "lv-events-0");
    CHECK(daemon->opened_by[1] == "lv-events-0");
    for (std::size_t i = 2; i < daemon->opened_by.size(); ++i) CHECK(daemon->opened_by[i].starts_with("lv-query-"));
}

TEST_CASE_METHOD(Lanes, "the owner's hooks run on the events lane, before the link is up and before it is closed") {
    struct Seen {
        std::string connected_on;
        std::string closing_on;
        std::atomic<int> refusals{0};
    };
    const auto seen = std::make_shared<Seen>();
    virt::LaneHooks hooks;
    hooks.on_connected = [seen](virConnectPtr connection) -> base::Result<void> {
        if (connection == nullptr || seen->refusals++ == 0)
            return base::fail(Errc::hypervisor_error, "no events to be had");
        seen->connected_on = test::thread_name();
        return {};
    };
    hooks.on_closing = [seen](virConnectPtr connection) {
        if (connection != nullptr) seen->closing_on = test::thread_name();
    };
    start({}, hooks);
    REQUIRE(until([&] { return backing_off(*this); }));
    CHECK_FALSE(pool->up());
    CHECK(links.back() == std::pair{false, std::string{"no events to be had"}});
    clock.advance(1s);
    REQUIRE(until([&] { return pool->up(); }));
    CHECK(seen->connected_on == "lv-events-0");
    seen->closing_on.clear();  // of the attempt that failed
    close();
    CHECK(seen->closing_on == "lv-events-0");
}

TEST_CASE_METHOD(Lanes, "a change whose lane hangs in opening is taken back, and the link is doubted") {
    const auto daemon = std::make_shared<Daemon>();
    daemon->held_thread = "lv-mutate-";
    auto options = connecting_to(daemon);
    options.open_limit = 2 * limit;
    connect(options);
    auto ran = std::make_shared<std::atomic<bool>>(false);
    int stalls = 0;
    const auto call = change(
        "vm", limit,
        [ran](virConnectPtr) -> base::Result<int> {
            *ran = true;
            return 0;
        },
        [&] { ++stalls; });
    REQUIRE(until([&] { return daemon->gate.arrived() == 1; }));
    clock.advance(limit);
    REQUIRE(until([&] { return call->done(); }));
    CHECK(call->result->error().code == Errc::hypervisor_unavailable);
    CHECK(stats(LaneClass::mutate).overdue == 1);
    CHECK(pool->up());
    clock.advance(limit);
    REQUIRE(until([&] { return links.size() >= 2; }));
    CHECK(links[1] == std::pair{false, std::string{"libvirt accepts no connections"}});

    daemon->gate.open();
    REQUIRE(until([&] { return stats(LaneClass::mutate).overdue == 0; }));
    CHECK_FALSE(*ran);
    CHECK(stalls == 0);
    close();
}

TEST_CASE_METHOD(Lanes, "a probe that hangs is reported and waited for, and its late success brings the link up") {
    const auto daemon = std::make_shared<Daemon>();
    daemon->held_thread = "lv-events-";
    auto options = connecting_to(daemon);
    options.open_limit = limit;
    start(options);
    REQUIRE(until([&] { return daemon->gate.arrived() == 1; }));
    clock.advance(limit);
    REQUIRE(until([&] { return !links.empty(); }));
    CHECK(links[0] == std::pair{false, std::string{"libvirt does not answer"}});
    CHECK(daemon->attempts() == 1);
    daemon->gate.open();
    REQUIRE(until([&] { return pool->up(); }));
    CHECK(daemon->attempts() == 1);
    close();
}

TEST_CASE_METHOD(Lanes, "a probe that hangs too long is replaced, so that the link can come up beside it") {
    const auto daemon = std::make_shared<Daemon>();
    daemon->held_thread = "lv-events-0";
    auto options = connecting_to(daemon);
    options.open_limit = limit;
    options.stuck_after = limit;
    const auto threads = test::thread_count();
    const auto registered = std::make_shared<std::atomic<int>>(0);
    virt::LaneHooks hooks;
    hooks.on_connected = [registered](virConnectPtr) -> base::Result<void> {
        ++*registered;
        return {};
    };
    start(options, hooks);
    REQUIRE(until([&] { return daemon->gate.arrived() == 1; }));
    clock.advance(limit);
    REQUIRE(until([&] { return !links.empty(); }));
    clock.advance(limit);
    REQUIRE(until([&] { return stats(LaneClass::events).replaced == 1; }));
    settle();
    clock.advance(1s);
    REQUIRE(until([&] { return pool->up(); }));
    CHECK(stats(LaneClass::events).lanes == 1);
    daemon->gate.open();
    // Back, it ends itself and leaves the link alone.
    const auto started =
        threads + static_cast<long>(std::accumulate(options.lanes.begin(), options.lanes.end(), std::size_t{0}));
    CHECK(until([&] { return test::thread_count() == started; }));
    CHECK(pool->up());
    CHECK(*registered == 1);
    close();
}

TEST_CASE_METHOD(Lanes, "run() ends when cancelled while it backs off") {
    const auto daemon = std::make_shared<Daemon>();
    daemon->refuses = true;
    start(connecting_to(daemon));
    REQUIRE(until([&] { return backing_off(*this); }));
    running->stop.emit(boost::asio::cancellation_type::total);
    settle();
    running->stop.emit(boost::asio::cancellation_type::terminal);
    REQUIRE(until([&] { return running->done(); }));
    close();
}
