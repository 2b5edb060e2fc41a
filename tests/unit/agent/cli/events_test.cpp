// ghostctl events, against an agent whose streams a test writes.
#include "agent/cli/event_stream.hpp"
#include "fakes/fake_client.hpp"
#include "tests/unit/agent/cli/bench.hpp"
#include "tests/unit/agent/cli/streaming_agent.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include <sstream>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;
using fakes::FakeClient;
using fakes::json_answer;

namespace {

const std::string running = R"({"id":"u","name":"web","status":{"phase":"ready","power":"running"}})";

std::string line(std::string_view text) { return fmt::format("2026-01-02T03:04:05Z  vm.power           {}\n", text); }

}  // namespace

TEST_CASE("events are lines, from now on") {
    Bench bench;
    StreamingAgent agent{bench};
    agent.streams = {
        {{": hello\n\n", sse(8, "vm.power", running).substr(0, 30), sse(8, "vm.power", running).substr(30)}}};
    CHECK(bench.run(with(FollowEvents{}), agent.client) == ExitCode::done);
    CHECK(bench.console.written == line("vm web is running"));
    REQUIRE(agent.places.size() == 2);  // the second one is where Ctrl-C came
    CHECK(agent.places.front() == "7");
    CHECK(agent.places.back() == "8");
}

TEST_CASE("Ctrl-C ends the events quietly") {
    Bench bench;
    StreamingAgent agent{bench};
    CHECK(bench.run(with(FollowEvents{}), agent.client) == ExitCode::done);
    CHECK(bench.console.written.empty());
    CHECK(bench.console.complained.empty());
}

TEST_CASE("scripts get one JSON document a line") {
    Bench bench;
    StreamingAgent agent{bench};
    agent.streams = {{{sse(8, "vm.power", running) + sse(9, "vm.updated", running)}}};
    CHECK(bench.run(with(FollowEvents{}, Format::json), agent.client) == ExitCode::done);
    std::istringstream lines{bench.console.written};
    std::vector<std::int64_t> ids;
    for (std::string text; std::getline(lines, text);) ids.push_back(json::parse(text).at("id").as_int64());
    CHECK(ids == std::vector<std::int64_t>{8, 9});
}

TEST_CASE("events that aren't wanted are not shown, but count") {
    Bench bench;
    StreamingAgent agent{bench};
    agent.streams = {{{sse(8, "vm.updated", running)}}};
    CHECK(bench.run(with(FollowEvents{{{"vm.power"}, {}}, "5"}), agent.client) == ExitCode::done);
    CHECK(bench.console.written.empty());
    CHECK(agent.places == std::vector<std::string>{"5", "8"});
}

TEST_CASE("a stream that breaks is taken up again after the last event, and said so once") {
    Bench bench;
    StreamingAgent agent{bench};
    agent.streams = {{{sse(8, "vm.power", running), "id: 9\ndata: {\"lost"}},
                     StreamingAgent::refused(),
                     StreamingAgent::refused(),
                     {{": hello\n\n", sse(9, "vm.power", running)}}};
    CHECK(bench.run(with(FollowEvents{}), agent.client) == ExitCode::done);
    CHECK(bench.console.written == line("vm web is running") + line("vm web is running"));
    CHECK(agent.places == std::vector<std::string>{"7", "8", "8", "8", "9"});
    CHECK_THAT(bench.console.complained, Catch::StartsWith("ghostctl: the stream of events broke: "));
    CHECK_THAT(bench.console.complained, Catch::Contains("connecting again\nghostctl: connected again\n"));
}

TEST_CASE("the waits before connecting again grow to ten seconds, and begin anew") {
    Backoff backoff;
    for (const auto seconds : {1, 2, 4, 8, 10, 10}) CHECK(backoff.next() == std::chrono::seconds{seconds});
    backoff.reset();
    CHECK(backoff.next() == std::chrono::seconds{1});
}

TEST_CASE("events that were missed are told of, and it goes on from the newest") {
    Bench bench;
    StreamingAgent agent{bench};
    agent.streams = {StreamingAgent::expired(), {{sse(41, "vm.power", running)}}};
    CHECK(bench.run(with(FollowEvents{{}, "5"}), agent.client) == ExitCode::done);
    CHECK(bench.console.written == line("vm web is running"));
    CHECK(agent.places == std::vector<std::string>{"5", "40", "41"});
    CHECK_THAT(bench.console.complained, Catch::StartsWith("ghostctl: events were missed"));
}

TEST_CASE("an agent that can't be reached at first, or says no, ends it") {
    Bench bench;
    FakeClient away{
        FakeClient::Table{[](const net::ClientRequest&) { return base::fail(base::Errc::source_unavailable, "no"); }}};
    CHECK(bench.run(with(FollowEvents{}), away) == ExitCode::no_agent);
    FakeClient strict{FakeClient::Table{[](const net::ClientRequest& request) -> base::Result<net::ClientResponse> {
        return json_answer(401, request.method == net::Method::head ? "" : R"({"code":"unauthenticated"})");
    }}};
    CHECK(bench.run(with(FollowEvents{}), strict) == ExitCode::refused);
    CHECK_THAT(bench.console.complained, Catch::Contains("--cert"));
    FakeClient other{FakeClient::Table{
        [](const net::ClientRequest&) -> base::Result<net::ClientResponse> { return json_answer(200, "{}"); }}};
    CHECK(bench.run(with(FollowEvents{}), other) == ExitCode::failed);
    CHECK_THAT(bench.console.complained, Catch::Contains("is that a ghost-agent?"));
}

TEST_CASE("what was cut for good while following ends it") {
    Bench bench;
    StreamingAgent agent{bench};
    agent.streams = {{{": hello\n\n"}}, {{}, json_answer(403, R"({"code":"forbidden","detail":"no more"})")}};
    CHECK(bench.run(with(FollowEvents{}), agent.client) == ExitCode::refused);
    CHECK_THAT(bench.console.complained, Catch::Contains("no more"));
}

TEST_CASE("events end when nobody reads them any more") {
    Bench bench;
    bench.console.read = false;
    StreamingAgent agent{bench};
    agent.streams = {{{sse(8, "vm.power", running), sse(9, "vm.power", running)}}};
    CHECK(bench.run(with(FollowEvents{}), agent.client) == ExitCode::done);
    CHECK(agent.places.size() == 1);
    CHECK(bench.console.written == line("vm web is running"));
}
