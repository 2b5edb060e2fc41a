#include "virt/lane_queue.hpp"

#include <catch2/catch.hpp>

using namespace ghost::virt;
using namespace std::chrono_literals;
using Admission = LaneQueue::Admission;

namespace {

JobId begin(LaneQueue& queue, LaneId expected_lane) {
    const auto start = queue.next();
    REQUIRE(start);
    CHECK(start->lane == expected_lane);
    return start->job;
}

}  // namespace

TEST_CASE("unkeyed jobs start in the order they came, as many as there are lanes") {
    LaneQueue queue{2, 8, 8};
    for (const auto job : {JobId{1}, JobId{2}, JobId{3}}) queue.push(job, "");
    CHECK(begin(queue, 0) == 1);
    CHECK(begin(queue, 1) == 2);
    CHECK_FALSE(queue.next());
    CHECK(queue.queued() == 1);

    queue.finish(1);
    CHECK(begin(queue, 1) == 3);
}

TEST_CASE("a job whose key is locked waits and lets others pass") {
    LaneQueue queue{3, 8, 8};
    queue.push(1, "a");
    queue.push(2, "a");
    queue.push(3, "b");
    queue.push(4, "a");
    CHECK(begin(queue, 0) == 1);
    CHECK(begin(queue, 1) == 3);
    CHECK_FALSE(queue.next());

    queue.finish(0);
    CHECK(begin(queue, 0) == 2);
    CHECK_FALSE(queue.next());
    queue.finish(0);
    CHECK(begin(queue, 0) == 4);
}

TEST_CASE("a queue takes no more than it was told, and from one key no more than its share") {
    LaneQueue queue{1, 4, 2};
    CHECK(queue.admission("a") == Admission::open);
    queue.push(1, "a");
    queue.push(2, "a");
    CHECK(queue.admission("a") == Admission::full);
    CHECK(queue.admission("b") == Admission::open);
    queue.push(3, "");
    queue.push(4, "");
    CHECK(queue.admission("b") == Admission::full);
    CHECK(queue.admission("") == Admission::full);

    CHECK(begin(queue, 0) == 1);
    CHECK(queue.admission("a") == Admission::open);
}

TEST_CASE("a withdrawn job never starts, a begun one can't be withdrawn") {
    LaneQueue queue{1, 8, 8};
    queue.push(1, "a");
    queue.push(2, "b");
    queue.push(3, "c");
    CHECK(begin(queue, 0) == 1);
    CHECK_FALSE(queue.withdraw(1));
    CHECK(queue.withdraw(2));
    CHECK_FALSE(queue.withdraw(2));

    queue.finish(0);
    CHECK(begin(queue, 0) == 3);
    queue.push(4, "");
    queue.push(5, "");
    CHECK(queue.withdraw_all() == std::vector<JobId>{4, 5});
    CHECK(queue.queued() == 0);
}

TEST_CASE("the breaker opens when every lane is overdue and closes when one returns") {
    LaneQueue queue{2, 8, 8};
    queue.push(1, "a");
    queue.push(2, "b");
    CHECK(begin(queue, 0) == 1);
    CHECK(begin(queue, 1) == 2);
    queue.late(0);
    CHECK(queue.overdue() == 1);
    CHECK(queue.admission("c") == Admission::open);
    queue.late(1);
    CHECK(queue.breaker_open());
    CHECK(queue.admission("c") == Admission::stuck);

    queue.finish(0);
    CHECK_FALSE(queue.breaker_open());
    CHECK(queue.admission("c") == Admission::open);
    CHECK(queue.busy() == 1);
}

TEST_CASE("a replaced lane gives way to a new one, keeps its key until it returns, and is then forgotten") {
    LaneQueue queue{1, 8, 8};
    queue.push(1, "a");
    CHECK(begin(queue, 0) == 1);
    queue.late(0);
    const auto upcoming = queue.next_lane();
    CHECK(queue.replace(0) == upcoming);
    CHECK(queue.lanes() == 1);
    CHECK(queue.busy() == 0);
    CHECK(queue.overdue() == 0);
    CHECK(queue.left_behind() == 1);
    CHECK_FALSE(queue.breaker_open());

    queue.push(2, "a");
    queue.push(3, "b");
    CHECK(begin(queue, upcoming) == 3);
    queue.finish(upcoming);
    CHECK_FALSE(queue.next());

    queue.finish(0);
    CHECK(queue.left_behind() == 0);
    CHECK(queue.lanes() == 1);
    CHECK(begin(queue, upcoming) == 2);
}
