// How a change is asked for: once, whatever becomes of the connection, or not at all.
#include "fakes/fake_client.hpp"
#include "tests/unit/agent/cli/bench.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <set>

using namespace ghost;
using namespace ghost::cli;
namespace asio = boost::asio;
namespace json = boost::json;
using fakes::FakeClient;
using fakes::json_answer;
using Answer = base::Result<net::ClientResponse>;

namespace {

Change start() {
    Change change;
    change.target = "/v1/vms/web/start";
    change.subject = "VM web";
    change.done = "started";
    return change;
}

Change dry_start() {
    auto change = start();
    change.target += "?dry_run=true";
    change.dry_run = true;
    return change;
}

// Gives its answers one after the other, the last one for ever.
struct Answers {
    std::vector<Answer> answers;
    FakeClient client{FakeClient::Table{[this](const net::ClientRequest&) {
        return answers.at(std::min(client.requests.size(), answers.size()) - 1);
    }}};

    [[nodiscard]] std::set<std::string> keys() const {
        std::set<std::string> out;
        for (const auto& request : client.requests)
            out.emplace(request.headers.find("Idempotency-Key").value_or("none"));
        return out;
    }
};

const Answer done = json_answer(200, R"({"id":"u","name":"web","status":{"phase":"ready","power":"running"}})");
const Answer cut = base::fail(base::Errc::source_unavailable,
                              "no answer from /s: the connection was closed before the response was complete");
const Answer away = base::fail(base::Errc::source_unavailable, "cannot connect to /s: Connection refused");
const Answer draining = json_answer(503, R"({"code":"draining","detail":"the agent is stopping"})");
const Answer overloaded = json_answer(429, R"({"code":"overloaded"})");

}  // namespace

TEST_CASE("a change has a key of its own, or the one that was given") {
    Bench bench;
    Answers agent{{done}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::done);
    CHECK(bench.run(with(start()), agent.client) == ExitCode::done);
    const auto keys = agent.keys();
    CHECK(keys.size() == 2);
    for (const auto& key : keys) CHECK(key.size() == 36);
    auto mine = start();
    mine.idempotency_key = "deploy-42";
    CHECK(bench.run(with(mine), agent.client) == ExitCode::done);
    CHECK(agent.keys().contains("deploy-42"));
}

TEST_CASE("a change whose connection breaks is asked for again with the same key") {
    Bench bench;
    Answers agent{{cut, away, draining, done}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::done);
    CHECK(bench.console.written == "VM web started: running\n");
    CHECK(bench.console.complained.empty());
    CHECK(agent.client.requests.size() == 4);
    CHECK(agent.keys().size() == 1);
}

TEST_CASE("a connection that keeps breaking ends the change, which may have begun") {
    Bench bench;
    const auto which = GENERATE(0U, 1U, 2U);
    const auto last = std::vector{cut, away, draining}.at(which);
    Answers agent{{cut, cut, last}};
    CHECK(bench.run(with(start()), agent.client) == (last ? ExitCode::failed : ExitCode::no_agent));
    CHECK(agent.client.requests.size() == 1 + Session::most_repeats);
    CHECK_THAT(bench.console.complained, Catch::Contains("the change may have begun") &&
                                             Catch::Contains("--idempotency-key " + *agent.keys().begin()));
}

TEST_CASE("what the agent says after a cut is the last word") {
    Bench bench;
    Answers agent{{cut, json_answer(409, R"({"code":"state_conflict","detail":"it runs"})")}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::refused);
    CHECK(agent.client.requests.size() == 2);
    CHECK_THAT(bench.console.complained, !Catch::Contains("may have begun"));
}

TEST_CASE("an agent that isn't there, or says no, isn't asked again") {
    Bench bench;
    const auto which = GENERATE(0U, 1U, 2U);
    Answers agent{{std::vector{away, draining, overloaded}.at(which)}};
    CHECK(bench.run(with(start()), agent.client) != ExitCode::done);
    CHECK(agent.client.requests.size() == 1);
    CHECK_THAT(bench.console.complained, !Catch::Contains("may have begun"));
}

TEST_CASE("a change that got no answer in time may have begun") {
    Bench bench;
    Answers agent{{base::fail(base::Errc::deadline_exceeded)}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::no_agent);
    CHECK(agent.client.requests.size() == 1);
    CHECK_THAT(bench.console.complained, Catch::Contains("may have begun") && Catch::Contains("--idempotency-key"));
}

TEST_CASE("Ctrl-C before the agent answered says that the change may have begun") {
    Bench bench;
    const bool dry = GENERATE(false, true);
    asio::steady_timer never{bench.loop, asio::steady_timer::time_point::max()};
    FakeClient client{FakeClient::Script{[&](net::ClientRequest) -> asio::awaitable<Answer> {
        asio::post(bench.loop, [&bench] { bench.ctrl_c.emit(asio::cancellation_type::terminal); });
        boost::system::error_code ended;
        co_await never.async_wait(asio::redirect_error(asio::use_awaitable, ended));
        co_return base::fail(base::Errc::cancelled);
    }}};
    CHECK(bench.run(with(dry ? dry_start() : start()), client) == ExitCode::failed);
    CHECK_THAT(bench.console.complained, Catch::StartsWith("ghostctl: interrupted before the agent answered\n"));
    CHECK(bench.console.complained.contains("the change may have begun") == !dry);
    CHECK(bench.console.complained.contains("'ghostctl operation list' shows it") == !dry);
}

TEST_CASE("Ctrl-C ends the repeats") {
    Bench bench;
    FakeClient client{FakeClient::Table{[&](const net::ClientRequest&) {
        asio::post(bench.loop, [&bench] { bench.ctrl_c.emit(asio::cancellation_type::terminal); });
        return cut;
    }}};
    CHECK(bench.run(with(start()), client) == ExitCode::failed);
    CHECK(client.requests.size() == 1);
    CHECK_THAT(bench.console.complained, Catch::Contains("interrupted before"));
}

TEST_CASE("a dry run says what would be done and what it needs") {
    constexpr const char* preview = R"({"valid":true,"would":["create VM web from debian-12","start it\u001b"],
        "resources":{"needed":{"memory_mib":4096,"vcpus":2},"free":{"memory_mib":1536,"vcpus":3}}})";
    Bench bench;
    Answers agent{{json_answer(200, preview)}};
    CHECK(bench.run(with(dry_start()), agent.client) == ExitCode::done);
    CHECK(agent.client.requests.size() == 1);
    CHECK(bench.console.written ==
          "would: create VM web from debian-12\n"
          "would: start it\\x1b\n"
          "needed: memory 4 GiB, vcpus 2\n"
          "free: memory 1.5 GiB, vcpus 3\n");
    bench.console.written.clear();
    CHECK(bench.run(with(dry_start(), Format::json), agent.client) == ExitCode::done);
    CHECK(json::parse(bench.console.written) == json::parse(preview));
    Answers idle{{json_answer(200, R"({"valid":true,"would":[],"resources":{}})")}};
    bench.console.written.clear();
    CHECK(bench.run(with(dry_start()), idle.client) == ExitCode::done);
    CHECK(bench.console.written == "would change nothing\n");
}

TEST_CASE("a dry run that was refused ends as the change would") {
    Bench bench;
    Answers full{{json_answer(409, R"({"code":"insufficient_resources","detail":"no room"})")}};
    CHECK(bench.run(with(dry_start()), full.client) == ExitCode::refused);
    Answers strange{{done}};
    CHECK(bench.run(with(dry_start()), strange.client) == ExitCode::failed);
    CHECK(bench.console.written.empty());
    Answers silent{{base::fail(base::Errc::deadline_exceeded)}};
    CHECK(bench.run(with(dry_start()), silent.client) == ExitCode::no_agent);
    CHECK_THAT(bench.console.complained, !Catch::Contains("may have begun"));
}

TEST_CASE("what a dry run didn't find is hinted at as for the change itself") {
    CHECK_THAT(
        describe(failure_of_answer(404, R"({"code":"not_found","detail":"no image x"})", "", "/v1/vms?dry_run=true")),
        Catch::Contains("ghostctl image list"));
}
