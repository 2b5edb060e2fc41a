#include "fakes/fake_client.hpp"
#include "tests/unit/agent/cli/bench.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;
using fakes::json_answer;

namespace {

struct Agent {
    std::string end =
        R"("state":"succeeded","result":{"exit_code":0,"stdout":"a\u001b[0m\n","stderr":"","truncated":false})";
    fakes::FakeClient client{fakes::FakeClient::Table{[this](const net::ClientRequest& request) {
        const auto operation = [](std::string_view state) {
            return fmt::format(R"({{"id":"op-1","kind":"vm.exec","target":{{"type":"vm","id":"u","name":"web"}},{}}})",
                               state);
        };
        return request.method == net::Method::post ? json_answer(202, operation(R"("state":"running")"))
                                                   : json_answer(200, operation(end));
    }}};
};

ExecCommand run_it() { return {{"/v1/vms/web", "web"}, {"ls", "-l"}}; }

}  // namespace

TEST_CASE("exec shows what the command wrote") {
    Bench bench;
    Agent agent;
    CHECK(bench.run(with(run_it()), agent.client) == ExitCode::done);
    CHECK(bench.console.written == "a\x1b[0m\n");  // as it is
    CHECK(bench.console.complained.empty());
    REQUIRE(agent.client.requests.size() == 2);
    const auto& request = agent.client.requests.front();
    CHECK(request.target == "/v1/vms/web/exec");
    CHECK(request.headers.find("Idempotency-Key"));
    CHECK(json::parse(request.body) == json::parse(R"({"command":["ls","-l"],"timeout_s":60})"));
}

TEST_CASE("exec ends with the command's exit code") {
    Bench bench;
    Agent agent;
    agent.end = R"("state":"succeeded","result":{"exit_code":42,"stdout":"out","stderr":"err\n","truncated":true})";
    CHECK(to_int(bench.run(with(run_it()), agent.client)) == 42);
    CHECK(bench.console.written == "out");
    CHECK_THAT(bench.console.complained, Catch::StartsWith("err\n") && Catch::Contains("not all of the output"));
}

TEST_CASE("exec's operation is shown to scripts, with the same exit code") {
    Bench bench;
    Agent agent;
    agent.end = R"("state":"succeeded","result":{"exit_code":3,"stdout":"x","stderr":"y","truncated":false})";
    CHECK(to_int(bench.run(with(run_it(), Format::json), agent.client)) == 3);
    CHECK(json::parse(bench.console.written).at("result").at("stdout") == "x");
    CHECK(bench.console.complained.empty());
}

TEST_CASE("a command that couldn't be run is a failure") {
    Bench bench;
    Agent agent;
    SECTION("of the operation") {
        agent.end = R"("state":"failed","error":{"code":"state_conflict","status":409,"detail":"no guest agent"})";
        CHECK(bench.run(with(run_it()), agent.client) == ExitCode::refused);
        CHECK_THAT(bench.console.complained, Catch::StartsWith("ghostctl: no guest agent\n"));
    }
    SECTION("of which nothing is known") {
        agent.end = R"("state":"succeeded","result":{})";
        CHECK(bench.run(with(run_it()), agent.client) == ExitCode::failed);
    }
    SECTION("by an agent that refuses") {
        auto client = answering(403, R"({"code":"forbidden","detail":"VM web lets nobody in"})");
        CHECK(bench.run(with(run_it()), client) == ExitCode::refused);
        CHECK_THAT(bench.console.complained, Catch::Contains("VM web lets nobody in"));
    }
    CHECK(bench.console.written.empty());
}

TEST_CASE("standard input is the command's when that was said") {
    Bench bench;
    Agent agent;
    auto action = run_it();
    action.with_input = true;
    action.environment = {{"A", "b"}};
    bench.person.types("one\n");
    SECTION("all of it") {
        bench.person.types("two\n");
        bench.person.ends_typing();
        CHECK(bench.run(with(action), agent.client) == ExitCode::done);
        const auto body = json::parse(agent.client.requests.front().body);
        CHECK(body.at("stdin") == "one\ntwo\n");
        CHECK(body.at("env") == json::parse(R"({"A":"b"})"));
    }
    SECTION("but no more than the agent takes") {
        bench.person.types(std::string(64 * 1024, 'x'));
        bench.person.ends_typing();
        CHECK(bench.run(with(action), agent.client) == ExitCode::usage);
        CHECK_THAT(bench.console.complained, Catch::Contains("larger than 64 KiB"));
        CHECK(agent.client.requests.empty());
    }
    SECTION("and nothing that JSON can't hold") {
        bench.person.types("\xff\xfe");
        bench.person.ends_typing();
        CHECK(bench.run(with(action), agent.client) == ExitCode::usage);
        CHECK(agent.client.requests.empty());
    }
}
