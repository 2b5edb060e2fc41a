#include "tests/unit/virt/loop_fixture.hpp"
#include "virt/lane_pool.hpp"

#include <memory>
#include <thread>

using namespace ghost;
using namespace std::chrono_literals;
using base::Errc;
using test::answer_of;
using test::code_of;
using test::Gate;
using test::Lanes;
using test::patience;
using virt::LaneClass;
using virt::LaneOptions;

namespace {

LaneOptions single_lanes() {
    LaneOptions options;
    options.lanes = {1, 1, 1, 1, 1};
    return options;
}

}  // namespace

TEST_CASE_METHOD(Lanes, "closing ends queued calls, lets running ones finish and stops every thread") {
    const auto threads = test::thread_count();
    connect(single_lanes());
    const Gate gate;
    const auto running_call = change("a", patience, held(gate, 1));
    const auto queued = change("b", patience, answering(2));
    REQUIRE(until([&] { return gate.arrived() == 1; }));
    running->stop.emit(boost::asio::cancellation_type::terminal);
    const auto closed = test::launch(context, pool->close(patience));
    settle();
    CHECK(code_of(*queued) == Errc::hypervisor_unavailable);
    CHECK_FALSE(closed->done());
    const auto late = read(LaneClass::query, "", patience, answering(3));
    settle();
    CHECK(code_of(*late) == Errc::hypervisor_unavailable);

    gate.open();
    REQUIRE(until([&] { return closed->done(); }));
    CHECK(answer_of(*running_call) == 1);
    CHECK(until([&] { return test::thread_count() == threads; }));
}

TEST_CASE("a lane that never returns is left behind, and finds its way out when pool and loop are long gone") {
    const Gate gate;
    auto kept = std::make_shared<int>(0);
    const std::weak_ptr<int> alive = kept;
    std::ptrdiff_t threads = 0;
    {
        const auto before = test::thread_count();
        Lanes lanes;
        threads = before;
        lanes.connect({});
        const auto call =
            lanes.change("vm", patience, [gate, kept = std::move(kept)](virConnectPtr) -> base::Result<int> {
                gate.pass();
                return *kept;
            });
        REQUIRE(lanes.until([&] { return gate.arrived() == 1; }));
        lanes.close(10ms);
        REQUIRE(lanes.until([&] { return call->done(); }));
        CHECK(code_of(*call) == Errc::hypervisor_unavailable);
    }
    CHECK_FALSE(alive.expired());
    gate.open();
    const auto end = std::chrono::steady_clock::now() + patience;
    while (test::thread_count() > threads && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    CHECK(alive.expired());
    CHECK(test::thread_count() == threads);
}

TEST_CASE("a pool may go without being closed") {
    const auto threads = test::thread_count();
    {
        Lanes lanes;
        lanes.connect({});
        lanes.running->stop.emit(boost::asio::cancellation_type::terminal);
        REQUIRE(lanes.until([&] { return lanes.running->done(); }));
    }
    const auto end = std::chrono::steady_clock::now() + patience;
    while (test::thread_count() > threads && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    CHECK(test::thread_count() == threads);
}
