#include "virt/lane_pool.hpp"

#include "tests/unit/virt/loop_fixture.hpp"

#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

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

constexpr auto limit = 5s;  // passes when a test says so; patience doesn't

LaneOptions with_lanes(std::size_t each) {
    LaneOptions options;
    options.lanes = {each, each, each, 1, 1};
    return options;
}

}  // namespace

TEST_CASE_METHOD(Lanes, "work runs on a named lane of its class with an open connection") {
    connect({});
    for (const auto lane : {LaneClass::query, LaneClass::mutate, LaneClass::guest, LaneClass::control}) {
        const auto call =
            test::launch(context, pool->read<std::string>(lane, "", patience, [](virConnectPtr connection) {
                const auto type = virConnectGetType(connection);
                return base::Result<std::string>{test::thread_name() + " " + (type != nullptr ? type : "?")};
            }));
        REQUIRE(until([&] { return call->done(); }));
        CHECK(**call->result == "lv-" + std::string{virt::name_of(lane)} + "-0 TEST");
    }
    close();
}

TEST_CASE_METHOD(Lanes, "while the link is down calls fail at once") {
    LaneOptions options;
    const Gate opening;
    options.connect.open = [opening](const std::string& uri) {
        opening.pass();
        return virConnectOpen(uri.c_str());
    };
    start(options);
    const auto call = read(LaneClass::query, "", patience, answering(1));
    settle();
    CHECK(code_of(*call) == Errc::hypervisor_unavailable);
    opening.open();
    REQUIRE(until([&] { return pool->up(); }));
    const auto again = read(LaneClass::query, "", patience, answering(1));
    REQUIRE(until([&] { return again->done(); }));
    CHECK(answer_of(*again) == 1);
    close();
}

TEST_CASE_METHOD(Lanes, "changes of one key run one at a time in the order given, others pass them") {
    connect(with_lanes(3));
    const Gate first_gate;
    auto order = std::make_shared<std::vector<int>>();  // touched under the key's lock only
    const auto noting = [order](int number) {
        return [order, number](virConnectPtr) -> base::Result<int> {
            order->push_back(number);
            return number;
        };
    };
    const auto first = change("a", patience, held(first_gate, 1));
    const auto second = change("a", patience, noting(2));
    const auto third = change("a", patience, noting(3));
    const auto other = change("b", patience, answering(4));
    REQUIRE(until([&] { return other->done(); }));
    CHECK_FALSE(first->done());
    CHECK_FALSE(second->done());
    CHECK(stats(LaneClass::mutate).queued == 2);

    first_gate.open();
    REQUIRE(until([&] { return third->done(); }));
    CHECK(answer_of(*first) == 1);
    CHECK(answer_of(*second) == 2);
    CHECK(*order == std::vector{2, 3});
    close();
}

TEST_CASE_METHOD(Lanes, "a slow read resumes at its limit, its lane stays overdue, its result dies on the loop") {
    connect(with_lanes(2));
    const Gate gate;
    auto buried_on = std::make_shared<std::thread::id>();
    const auto call = test::launch(
        context, pool->read<std::shared_ptr<int>>(LaneClass::query, "vm", limit, [gate, buried_on](virConnectPtr) {
            gate.pass();
            return base::Result<std::shared_ptr<int>>{std::shared_ptr<int>{new int{1}, [buried_on](int* p) {
                                                                               delete p;
                                                                               *buried_on = std::this_thread::get_id();
                                                                           }}};
        }));
    REQUIRE(until([&] { return gate.arrived() == 1; }));
    CHECK_FALSE(call->done());
    clock.advance(limit);
    REQUIRE(until([&] { return call->done(); }));
    CHECK(call->result->error().code == Errc::deadline_exceeded);
    CHECK(stats(LaneClass::query).overdue == 1);
    CHECK(stats(LaneClass::query).busy == 1);
    CHECK_FALSE(stats(LaneClass::query).breaker_open);

    const auto same_key = read(LaneClass::query, "vm", limit, answering(1));
    const auto other_key = read(LaneClass::query, "other", patience, answering(2));
    REQUIRE(until([&] { return other_key->done(); }));
    CHECK_FALSE(same_key->done());
    clock.advance(limit);
    REQUIRE(until([&] { return same_key->done(); }));
    CHECK(code_of(*same_key) == Errc::deadline_exceeded);
    CHECK(answer_of(*other_key) == 2);

    gate.open();
    REQUIRE(until([&] { return stats(LaneClass::query).overdue == 0; }));
    CHECK(*buried_on == std::this_thread::get_id());
    const auto after = read(LaneClass::query, "vm", patience, answering(3));
    REQUIRE(until([&] { return after->done(); }));
    CHECK(answer_of(*after) == 3);
    close();
}

TEST_CASE_METHOD(Lanes, "a slow change says once that it stalls and ends with the truth") {
    connect({});
    const Gate gate;
    int stalls = 0;
    const auto call = change("vm", limit, held(gate, 7), [&] { ++stalls; });
    REQUIRE(until([&] { return gate.arrived() == 1; }));
    CHECK(stalls == 0);
    clock.advance(limit);
    REQUIRE(until([&] { return stalls == 1; }));
    clock.advance(limit);
    settle();
    CHECK_FALSE(call->done());
    CHECK(stats(LaneClass::mutate).overdue == 1);
    gate.open();
    REQUIRE(until([&] { return call->done(); }));
    CHECK(answer_of(*call) == 7);
    CHECK(stalls == 1);
    CHECK(stats(LaneClass::mutate).overdue == 0);
    close();
}

TEST_CASE_METHOD(Lanes, "a change that had no lane by its limit was not done") {
    connect(with_lanes(1));
    const Gate gate;
    auto ran = std::make_shared<std::atomic<bool>>(false);
    int stalls = 0;
    const auto first = change("a", patience, held(gate));
    const auto second = change(
        "b", limit,
        [ran](virConnectPtr) -> base::Result<int> {
            *ran = true;
            return 0;
        },
        [&] { ++stalls; });
    REQUIRE(until([&] { return gate.arrived() == 1; }));
    clock.advance(limit);
    REQUIRE(until([&] { return second->done(); }));
    CHECK(code_of(*second) == Errc::hypervisor_unavailable);
    gate.open();
    REQUIRE(until([&] { return first->done() && stats(LaneClass::mutate).busy == 0; }));
    CHECK_FALSE(*ran);
    CHECK(stalls == 0);
    close();
}

TEST_CASE_METHOD(Lanes,
                 "with every lane of a class overdue its breaker is open until one returns, while others go on") {
    connect(with_lanes(2));
    const Gate first_gate;
    const Gate second_gate;
    const auto first = read(LaneClass::query, "a", limit, held(first_gate));
    const auto second = read(LaneClass::query, "b", limit, held(second_gate));
    REQUIRE(until([&] { return first_gate.arrived() + second_gate.arrived() == 2; }));
    clock.advance(limit);
    REQUIRE(until([&] { return first->done() && second->done(); }));
    CHECK(stats(LaneClass::query).breaker_open);

    const auto refused = read(LaneClass::query, "c", patience, answering(1));
    settle();
    CHECK(code_of(*refused) == Errc::hypervisor_unavailable);
    const auto forced = read(LaneClass::control, "", patience, answering(2));
    REQUIRE(until([&] { return forced->done(); }));
    CHECK(answer_of(*forced) == 2);
    CHECK(pool->up());

    first_gate.open();
    REQUIRE(until([&] { return !stats(LaneClass::query).breaker_open; }));
    const auto served = read(LaneClass::query, "c", patience, answering(3));
    REQUIRE(until([&] { return served->done(); }));
    CHECK(answer_of(*served) == 3);
    second_gate.open();
    close();
}

TEST_CASE_METHOD(Lanes, "a change waits for its lane as long as others get done") {
    connect(with_lanes(1));
    const Gate first_gate;
    const Gate second_gate;
    int stalls = 0;
    const auto first = change("a", limit, held(first_gate, 1), [&] { ++stalls; });
    const auto second = change("b", limit, held(second_gate, 2), [&] { ++stalls; });
    const auto third = change("c", limit, answering(3));
    const auto fourth = change("d", limit, answering(4));
    REQUIRE(until([&] { return first_gate.arrived() == 1; }));
    first_gate.open();
    REQUIRE(until([&] { return first->done() && second_gate.arrived() == 1; }));
    clock.advance(limit);
    settle();
    CHECK(stalls == 1);  // the second's, which has had its time since it began
    CHECK_FALSE(third->done());
    second_gate.open();
    REQUIRE(until([&] { return third->done() && fourth->done(); }));
    CHECK(answer_of(*third) == 3);
    CHECK(answer_of(*fourth) == 4);
    close();
}

TEST_CASE_METHOD(Lanes, "a full queue refuses at once") {
    auto options = with_lanes(1);
    options.max_queued = {2, 2, 2, 2, 2};
    connect(options);
    const Gate gate;
    std::vector<std::shared_ptr<test::Call<base::Result<int>>>> calls;
    calls.reserve(3);
    for (int i = 0; i < 3; ++i) calls.push_back(read(LaneClass::query, "", patience, held(gate, i)));
    settle();
    const auto refused = read(LaneClass::query, "", patience, answering(9));
    settle();
    CHECK(code_of(*refused) == Errc::overloaded);
    CHECK(stats(LaneClass::query).queued == 2);
    gate.open();
    REQUIRE(until([&] { return calls.back()->done(); }));
    for (int i = 0; i < 3; ++i) CHECK(answer_of(*calls[static_cast<std::size_t>(i)]) == i);
    close();
}

TEST_CASE_METHOD(Lanes, "a cancelled caller resumes while the lane stays busy and the key locked") {
    connect(with_lanes(2));
    const Gate gate;
    int stalls = 0;
    const auto first = change("vm", limit, held(gate), [&] { ++stalls; });
    const auto second = change("vm", patience, answering(2));
    REQUIRE(until([&] { return gate.arrived() == 1; }));
    first->stop.emit(boost::asio::cancellation_type::terminal);
    REQUIRE(until([&] { return first->done(); }));
    CHECK(code_of(*first) == Errc::cancelled);
    clock.advance(limit);
    REQUIRE(until([&] { return stats(LaneClass::mutate).overdue == 1; }));
    CHECK(stalls == 0);
    CHECK_FALSE(second->done());
    gate.open();
    REQUIRE(until([&] { return second->done(); }));
    CHECK(answer_of(*second) == 2);
    close();
}

TEST_CASE_METHOD(Lanes, "a call cancelled in the queue is never begun") {
    connect(with_lanes(1));
    const Gate gate;
    auto ran = std::make_shared<std::atomic<bool>>(false);
    const auto first = read(LaneClass::query, "", patience, held(gate));
    const auto second = read(LaneClass::query, "", patience, [ran](virConnectPtr) -> base::Result<int> {
        *ran = true;
        return 0;
    });
    settle();
    second->stop.emit(boost::asio::cancellation_type::terminal);
    settle();
    CHECK(code_of(*second) == Errc::cancelled);
    CHECK(stats(LaneClass::query).queued == 0);
    gate.open();
    REQUIRE(until([&] { return first->done(); }));
    close();
    CHECK_FALSE(*ran);
}

TEST_CASE_METHOD(Lanes, "a stuck lane is replaced, up to the cap, and ends itself when it comes back") {
    auto options = with_lanes(1);
    options.stuck_after = limit;
    options.max_left_behind = 1;
    connect(options);
    const auto threads = test::thread_count();
    const Gate first_gate;
    const Gate second_gate;
    const auto first = change("a", limit, held(first_gate, 1));
    REQUIRE(until([&] { return first_gate.arrived() == 1; }));
    clock.advance(limit);
    REQUIRE(until([&] { return stats(LaneClass::mutate).breaker_open; }));
    clock.advance(limit);
    REQUIRE(until([&] { return stats(LaneClass::mutate).replaced == 1; }));
    CHECK(test::thread_count() == threads + 1);
    CHECK(stats(LaneClass::mutate).lanes == 1);
    CHECK(stats(LaneClass::mutate).overdue == 0);

    const auto served = change("b", patience, answering(2));
    const auto locked = change("a", patience, answering(3));
    REQUIRE(until([&] { return served->done(); }));
    CHECK(answer_of(*served) == 2);
    CHECK_FALSE(locked->done());
    CHECK_FALSE(first->done());  // a change waits for the truth

    const auto second = change("c", limit, held(second_gate, 4));
    REQUIRE(until([&] { return second_gate.arrived() == 1; }));
    clock.advance(limit);
    REQUIRE(until([&] { return stats(LaneClass::mutate).breaker_open; }));
    clock.advance(limit);
    settle();
    CHECK(stats(LaneClass::mutate).replaced == 1);  // the cap

    first_gate.open();
    REQUIRE(until([&] { return first->done(); }));
    CHECK(answer_of(*first) == 1);
    clock.advance(limit);
    REQUIRE(until([&] { return stats(LaneClass::mutate).replaced == 2; }));
    second_gate.open();
    REQUIRE(until([&] { return second->done() && locked->done(); }));
    CHECK(answer_of(*second) == 4);
    CHECK(answer_of(*locked) == 3);
    CHECK(until([&] { return test::thread_count() == threads; }));
    close();
}

TEST_CASE_METHOD(Lanes, "the number of threads doesn't depend on the calls") {
    connect({});
    const auto threads = test::thread_count();
    std::size_t most = 0;
    for (int round = 0; round < 5; ++round) {
        std::vector<std::shared_ptr<test::Call<base::Result<int>>>> calls;
        for (int i = 0; i < 30; ++i) {
            calls.push_back(read(LaneClass::query, std::to_string(i), patience, answering(i)));
            calls.push_back(change(std::to_string(i), patience, answering(i)));
        }
        REQUIRE(until([&] { return std::ranges::all_of(calls, [](const auto& call) { return call->done(); }); }));
        for (const auto& call : calls) CHECK(call->result->has_value());
        most = std::max(most, static_cast<std::size_t>(test::thread_count()));
    }
    CHECK(most == static_cast<std::size_t>(threads));
    CHECK(stats(LaneClass::query).completed == 150);
    close();
}

TEST_CASE_METHOD(Lanes, "work that throws is a bug of its caller and harms no lane") {
    connect(with_lanes(1));
    const auto thrown =
        read(LaneClass::query, "", patience, [](virConnectPtr) -> base::Result<int> { throw std::runtime_error{"x"}; });
    const auto next = read(LaneClass::query, "", patience, answering(1));
    REQUIRE(until([&] { return next->done(); }));
    CHECK(code_of(*thrown) == Errc::internal);
    CHECK(answer_of(*next) == 1);
    close();
}
