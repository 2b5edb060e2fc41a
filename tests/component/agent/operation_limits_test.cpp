#include "agent/operations/operation_service.hpp"
#include "fakes/memory_store.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"
#include "unit/base/recording_sink.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

struct Engine {
    asio::io_context loop{1};
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    test::Recorded logged;
    base::Log log = test::recording_log(logged, base::Level::info);
    fakes::MemoryStore store;
    agent::OperationService operations{
        loop.get_executor(), clock, random, store, log, {.running = 3, .of_kind = {{"slow", 1}}}};
    std::map<std::string, base::Notifier> gates;
    int targets = 0;

    ~Engine() {
        asio::co_spawn(loop, operations.stop(), asio::detached);
        settle();
    }

    void settle() {
        loop.restart();
        while (loop.poll() > 0) loop.restart();
    }

    // An operation that runs until let_go(); its id.
    std::string begin(const std::string& kind, bool exclusive = true,
                      const std::function<void(agent::OperationControl&)>& first = {}) {
        return begin_work(kind, exclusive,
                          [this, first](agent::OperationControl& control) -> asio::awaitable<agent::Outcome> {
                              if (first) first(control);
                              auto& gate = gates.try_emplace(control.operation().id, loop.get_executor()).first->second;
                              agent::Outcome outcome;
                              const auto wait = [](base::Notifier& until) -> asio::awaitable<base::Result<void>> {
                                  co_await until.wait();
                                  co_return base::Result<void>{};
                              };
                              outcome.result = co_await control.cancellable(wait(gate));
                              co_return outcome;
                          });
    }
    std::string begin_work(const std::string& kind, bool exclusive, agent::Work work) {
        agent::OperationRequest request;
        request.kind = kind;
        request.target = {"thing", "thing-" + std::to_string(++targets), "thing"};
        request.cancellable = true;
        request.exclusive = exclusive;
        std::string id;
        asio::co_spawn(loop, operations.begin(std::move(request), std::move(work)),
                       [&id](const std::exception_ptr&, const base::Result<agent::OperationService::Ptr>& begun) {
                           id = (*begun)->id;
                       });
        settle();
        return id;
    }
    void let_go(const std::string& id) {
        gates.at(id).notify();
        settle();
    }
    [[nodiscard]] std::string_view state(const std::string& id) const {
        return agent::name_of(operations.find(id)->state);
    }
};

}  // namespace

TEST_CASE("of one kind only so many run, of all only so many, and the others wait in their order") {
    Engine engine;
    const auto first = engine.begin("slow");
    const auto second = engine.begin("slow");
    const auto third = engine.begin("slow");
    CHECK(engine.state(first) == "running");
    CHECK(engine.state(second) == "pending");
    const auto other = engine.begin("quick");
    const auto another = engine.begin("quick");
    const auto late = engine.begin("quick");
    CHECK(engine.state(other) == "running");
    CHECK(engine.state(another) == "running");
    CHECK(engine.state(late) == "pending");
    CHECK_FALSE(engine.operations.find(late)->started_at);
    engine.let_go(first);
    CHECK(engine.state(first) == "succeeded");
    CHECK(engine.state(second) == "running");
    CHECK(engine.state(third) == "pending");
    CHECK(engine.state(late) == "pending");
    engine.let_go(other);
    CHECK(engine.state(third) == "pending");
    CHECK(engine.state(late) == "running");
}

TEST_CASE("what passes every queue waits for nothing") {
    Engine engine;
    for (int i = 0; i < 3; ++i) engine.begin("quick");
    CHECK(engine.state(engine.begin("quick", false)) == "running");
}

TEST_CASE("one that stalls or waits for a guest gives its place to the next") {
    const bool stalls = GENERATE(false, true);
    Engine engine;
    const auto first = engine.begin("slow", true, [stalls](agent::OperationControl& control) {
        if (stalls)
            control.stalled()();
        else
            control.let_others_pass();
    });
    const auto second = engine.begin("slow");
    CHECK(engine.state(first) == "running");
    CHECK(engine.state(second) == "running");
}

TEST_CASE("one that waits is cancelled at once") {
    Engine engine;
    engine.begin("slow");
    const auto second = engine.begin("slow");
    const auto third = engine.begin("slow");
    REQUIRE(engine.operations.cancel(second));
    engine.settle();
    CHECK(engine.state(second) == "cancelled");
    CHECK(engine.state(third) == "pending");
}

TEST_CASE("one that waits to try again shows why, gives its place to the next, and goes on when its pause is over") {
    Engine engine;
    int tries = 0;
    const auto first =
        engine.begin_work("slow", true, [&tries](agent::OperationControl& control) -> asio::awaitable<agent::Outcome> {
            agent::Outcome outcome;
            while (++tries < 3)
                if (!co_await control.wait_to_retry({base::Errc::io_error, "no luck"}, 10s)) break;
            co_return outcome;
        });
    const auto second = engine.begin("slow");
    CHECK(engine.state(second) == "running");
    const auto waits = engine.operations.find(first);
    CHECK(waits->progress.phase == "retry");
    REQUIRE(waits->error);
    CHECK(waits->error->detail == "no luck");
    CHECK(waits->cancellable);
    engine.clock.advance(10s);
    engine.settle();
    CHECK(tries == 2);
    engine.clock.advance(10s);
    engine.settle();
    CHECK(tries == 3);
    CHECK(engine.state(first) == "succeeded");
    CHECK_FALSE(engine.operations.find(first)->error);
    CHECK(engine.state(second) == "running");
}

TEST_CASE("one that is accepted while the engine stops is left to the next start") {
    Engine engine;
    engine.store.more_turns = 20;
    bool ran = false;
    std::string id;
    agent::OperationRequest request;
    request.kind = "slow";
    request.target = {"thing", "thing", "thing"};
    auto work = [&ran](agent::OperationControl&) -> asio::awaitable<agent::Outcome> {
        ran = true;
        co_return agent::Outcome{};
    };
    asio::co_spawn(engine.loop, engine.operations.begin(std::move(request), std::move(work)),
                   [&id](const std::exception_ptr&, const base::Result<agent::OperationService::Ptr>& begun) {
                       REQUIRE(begun);
                       id = (*begun)->id;
                   });
    for (int i = 0; i < 5; ++i) engine.loop.poll_one();
    asio::co_spawn(engine.loop, engine.operations.stop(), asio::detached);
    engine.settle();
    CHECK_FALSE(ran);
    REQUIRE_FALSE(id.empty());
    CHECK(engine.state(id) == "pending");
    CHECK(engine.store.operations().at(id).document.find("\"pending\"") != std::string::npos);
    CHECK(engine.operations.unfinished() == 0);
}

TEST_CASE("a cancel that comes while the end is being written takes nothing of it back") {
    Engine engine;
    const auto id = engine.begin("slow");
    engine.store.more_turns = 20;
    engine.gates.at(id).notify();
    for (int i = 0; i < 10; ++i) engine.loop.poll_one();
    REQUIRE(engine.state(id) == "running");
    const auto refused = engine.operations.cancel(id);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::state_conflict);
    engine.settle();
    CHECK(engine.state(id) == "succeeded");
    CHECK(engine.store.operations().at(id).document.find("\"succeeded\"") != std::string::npos);
}
