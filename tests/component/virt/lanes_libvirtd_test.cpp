// Lanes and the event bridge on libvirt itself: its test driver in process, and behind a libvirtd that is stopped,
// killed and started again.
#include "tests/component/virt/private_libvirtd.hpp"
#include "tests/unit/virt/loop_fixture.hpp"
#include "virt/event_bridge.hpp"
#include "virt/lane_pool.hpp"

#include <boost/asio/steady_timer.hpp>

#include <dirent.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

using namespace ghost;
using namespace std::chrono_literals;
using base::Errc;
using test::patience;
using virt::LaneClass;
using virt::LaneOptions;

namespace {

// Event callbacks registered for each link, and what came.
struct Events {
    std::atomic<int> id{-1};
    std::atomic<int> registered{0};
    std::atomic<int> freed{0};
    std::atomic<int> came{0};
    std::thread::id came_on;
};

struct Live : test::RealTimeLanes {
    virt::EventBridge bridge{context};
    std::shared_ptr<Events> events = std::make_shared<Events>();
    std::ptrdiff_t threads_before = test::thread_count();

    [[nodiscard]] virt::LaneHooks hooks() const {
        virt::LaneHooks hooks;
        hooks.on_connected = [events = events](virConnectPtr connection) -> base::Result<void> {
            auto opaque = std::make_unique<std::shared_ptr<Events>>(events);
            const auto on_event = [](virConnectPtr, virDomainPtr, int, int, void* self) -> int {
                const auto& seen = *static_cast<std::shared_ptr<Events>*>(self);
                seen->came_on = std::this_thread::get_id();
                ++seen->came;
                return 0;
            };
            const auto on_free = [](void* self) {
                const std::unique_ptr<std::shared_ptr<Events>> seen{static_cast<std::shared_ptr<Events>*>(self)};
                ++(*seen)->freed;
            };
            // By way of void(): libvirt casts it back by the event's id.
            const auto generic =
                reinterpret_cast<virConnectDomainEventGenericCallback>(reinterpret_cast<void (*)()>(+on_event));
            events->id = virConnectDomainEventRegisterAny(connection, nullptr, VIR_DOMAIN_EVENT_ID_LIFECYCLE, generic,
                                                          opaque.get(), on_free);
            if (events->id < 0) return std::unexpected{virt::last_error("cannot register events")};
            static_cast<void>(opaque.release());
            ++events->registered;
            return {};
        };
        hooks.on_closing = [events = events](virConnectPtr connection) {
            const int id = events->id.exchange(-1);
            if (id >= 0) virConnectDomainEventDeregisterAny(connection, id);
        };
        return hooks;
    }
    // Quick keep-alive and backoff.
    [[nodiscard]] static LaneOptions impatient() {
        LaneOptions options;
        options.open_limit = 500ms;
        options.backoff_min = 50ms;
        options.backoff_max = 200ms;
        options.connect.keepalive_seconds = 1;
        options.connect.keepalive_count = 2;
        return options;
    }

    // Pauses or resumes the test driver's domain: one event.
    [[nodiscard]] auto toggle() {
        return change("test", patience, [](virConnectPtr connection) -> base::Result<int> {
            const virt::DomainPtr domain{virDomainLookupByName(connection, "test")};
            if (!domain) return std::unexpected{virt::last_error()};
            int state = 0;
            if (virDomainGetState(domain.get(), &state, nullptr, 0) < 0) return std::unexpected{virt::last_error()};
            const bool paused = state == VIR_DOMAIN_PAUSED;
            if ((paused ? virDomainResume(domain.get()) : virDomainSuspend(domain.get())) < 0)
                return std::unexpected{virt::last_error()};
            return state;
        });
    }
    [[nodiscard]] auto count_domains(base::Duration limit) {
        return read(LaneClass::query, "", limit, [](virConnectPtr connection) -> base::Result<int> {
            const int count = virConnectNumOfDomains(connection);
            if (count < 0) return std::unexpected{virt::last_error()};
            return count;
        });
    }
    void expect_event() {
        const auto before = events->came.load();
        const auto toggled = toggle();
        REQUIRE(until([&] { return toggled->done(); }));
        if (!toggled->result->has_value()) FAIL(toggled->result->error().detail);
        CHECK(until([&] { return events->came > before; }));
        CHECK(events->came_on == std::this_thread::get_id());
    }
    void expect_reads() {
        const auto count = count_domains(patience);
        REQUIRE(until([&] { return count->done(); }));
        if (!count->result->has_value()) FAIL(count->result->error().detail);
        CHECK(**count->result == 1);
    }
    // Both query lanes have their connections.
    void warm_up() {
        const test::Gate gate;
        std::vector<std::shared_ptr<test::Call<base::Result<int>>>> calls;
        calls.reserve(2);
        for (int i = 0; i < 2; ++i) calls.push_back(read(LaneClass::query, "", patience, held(gate)));
        REQUIRE(until([&] { return gate.arrived() == 2; }));
        gate.open();
        REQUIRE(until([&] { return calls[0]->done() && calls[1]->done(); }));
    }
    // Everything has let go of everything.
    void leave() {
        close();
        CHECK(until([&] { return bridge.live() == 0; }));
        CHECK(events->freed == events->registered);
        CHECK(until([&] { return test::thread_count() == threads_before; }));
    }
};

struct Remote : Live {
    test::PrivateLibvirtd libvirtd;
};

}  // namespace

TEST_CASE_METHOD(Live, "events of the driver in this process arrive on the loop, and nothing is live at the end") {
    connect({}, hooks());
    expect_event();
    expect_event();
    expect_reads();
    CHECK(bridge.live() > 0);
    leave();
}

TEST_CASE_METHOD(Remote, "events of a daemon arrive on the loop, and nothing is live at the end") {
    connect({}, hooks(), libvirtd.uri());
    expect_reads();
    for (int i = 0; i < 10; ++i) expect_event();
    CHECK(bridge.live() > 0);
    CHECK(links.size() == 1);
    leave();
}

TEST_CASE_METHOD(Remote, "beside a stopped daemon reads end at their limit, the loop turns, and all heals") {
    LaneOptions options;
    options.connect.keepalive_seconds = 60;  // not what ends the calls here
    connect(options, hooks(), libvirtd.uri());
    warm_up();
    int turns = 0;
    boost::asio::steady_timer ticker{context};
    std::function<void()> tick = [&] {
        ticker.expires_after(5ms);
        ticker.async_wait([&](boost::system::error_code failed) {
            if (failed) return;
            ++turns;
            tick();
        });
    };
    tick();

    libvirtd.stop_answering();
    const auto first = count_domains(1s);
    const auto second = count_domains(1s);
    const auto turns_before = turns;
    REQUIRE(until([&] { return first->done() && second->done(); }));
    CHECK(turns > turns_before + 10);
    CHECK(first->result->error().code == Errc::deadline_exceeded);
    CHECK(second->result->error().code == Errc::deadline_exceeded);
    CHECK(stats(LaneClass::query).breaker_open);
    CHECK(pool->up());
    const auto refused = count_domains(patience);
    settle();
    REQUIRE(refused->done());
    CHECK(refused->result->error().code == Errc::hypervisor_unavailable);

    libvirtd.answer_again();
    REQUIRE(until([&] { return stats(LaneClass::query).overdue == 0; }));
    expect_reads();
    expect_event();
    CHECK(links.size() == 1);
    ticker.cancel();
    leave();
}

TEST_CASE_METHOD(Remote, "a daemon silent for too long is lost to keep-alive, and found again when it answers") {
    connect(impatient(), hooks(), libvirtd.uri());
    warm_up();
    libvirtd.stop_answering();
    const auto cut = count_domains(patience);
    REQUIRE(until([&] { return cut->done(); }));
    CHECK(cut->result->error().code == Errc::hypervisor_unavailable);
    REQUIRE(until([&] { return links.size() >= 3; }));
    CHECK_FALSE(pool->up());
    CHECK_FALSE(links[1].first);
    CHECK(links[2] == std::pair{false, std::string{"libvirt does not answer"}});
    const auto refused = count_domains(patience);
    settle();
    REQUIRE(refused->done());

    libvirtd.answer_again();
    REQUIRE(until([&] { return pool->up(); }));
    expect_reads();
    expect_event();
    CHECK(events->registered == 2);
    leave();
}

TEST_CASE_METHOD(Remote, "a killed daemon takes the link down, and its successor gets it back with events") {
    connect(impatient(), hooks(), libvirtd.uri());
    warm_up();
    expect_event();
    libvirtd.kill();
    REQUIRE(until([&] { return !pool->up(); }));
    CHECK_FALSE(links[1].first);
    const auto refused = count_domains(patience);
    settle();
    REQUIRE(refused->done());
    CHECK(refused->result->error().code == Errc::hypervisor_unavailable);
    REQUIRE(until([&] { return links.size() >= 3; }));
    CHECK(links[2].second.starts_with("cannot connect to libvirt: "));

    libvirtd.start();
    REQUIRE(until([&] { return pool->up(); }));
    expect_reads();
    expect_event();
    CHECK(events->registered == 2);
    leave();
}

TEST_CASE_METHOD(Remote, "a daemon killed under a call ends the call") {
    connect(impatient(), hooks(), libvirtd.uri());
    warm_up();
    libvirtd.stop_answering();
    const auto call = count_domains(patience);
    settle();
    CHECK_FALSE(call->done());
    libvirtd.kill();
    REQUIRE(until([&] { return call->done(); }));
    CHECK(call->result->error().code == Errc::hypervisor_unavailable);
    REQUIRE(until([&] { return !pool->up(); }));
    leave();
}

TEST_CASE_METHOD(Remote, "a connection that died while its lane was idle is noticed before it is used") {
    // The sockets that opening made, by lane.
    struct Sockets {
        std::mutex mutex;
        std::vector<int> of_query;
    };
    const auto sockets = std::make_shared<Sockets>();
    const auto open_sockets = [] {
        std::set<int> all;
        for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd"}) {
            std::error_code failed;
            if (std::filesystem::read_symlink(entry, failed).string().starts_with("socket:"))
                all.insert(std::stoi(entry.path().filename()));
        }
        return all;
    };
    auto options = impatient();
    options.lanes = {1, 1, 1, 1, 1};
    options.connect.open = [sockets, open_sockets](const std::string& uri) {
        const auto before = open_sockets();
        const auto connection = virConnectOpen(uri.c_str());
        if (test::thread_name().starts_with("lv-query-")) {
            const std::scoped_lock lock{sockets->mutex};
            std::ranges::set_difference(open_sockets(), before, std::back_inserter(sockets->of_query));
        }
        return connection;
    };
    connect(options, hooks(), libvirtd.uri());
    expect_reads();
    {
        const std::scoped_lock lock{sockets->mutex};
        REQUIRE_FALSE(sockets->of_query.empty());
        for (const int fd : sockets->of_query) ::shutdown(fd, SHUT_RDWR);
    }
    settle();
    const auto call = count_domains(patience);
    REQUIRE(until([&] { return call->done(); }));
    CHECK(call->result->error().code == Errc::hypervisor_unavailable);
    REQUIRE(until([&] { return links.size() >= 3 && pool->up(); }));
    expect_reads();
    expect_event();
    leave();
}

TEST_CASE_METHOD(Remote, "closing beside a stopped daemon leaves the lanes behind, which let go when it answers") {
    connect(impatient(), hooks(), libvirtd.uri());
    warm_up();
    libvirtd.stop_answering();
    const auto call = count_domains(patience);
    settle();
    close(200ms);
    REQUIRE(until([&] { return call->done(); }));
    CHECK(call->result->error().code == Errc::hypervisor_unavailable);
    pool.reset();
    CHECK(bridge.live() > 0);
    libvirtd.answer_again();
    CHECK(until([&] { return test::thread_count() == threads_before; }));
    CHECK(until([&] { return bridge.live() == 0; }));
    CHECK(events->freed == events->registered);
}
