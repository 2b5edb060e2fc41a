#include "agent/cli/session.hpp"

#include "fakes/fake_client.hpp"
#include "tests/unit/agent/cli/bench.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <map>

using namespace ghost;
using namespace ghost::cli;
namespace asio = boost::asio;
namespace json = boost::json;
using fakes::FakeClient;
using fakes::json_answer;

namespace {

std::string operation(std::string_view state, std::string_view more = "") {
    return fmt::format(
        R"({{"id":"op-1","kind":"vm.start","target":{{"type":"vm","id":"u","name":"web"}},"state":"{}","cancellable":true{}}})",
        state, more);
}
const std::string succeeded = operation("succeeded", R"(,"result":{"href":"/v1/vms/u"})");
constexpr const char* vm =
    R"({"id":"u","name":"web","managed":true,"status":{"phase":"ready","power":"running","addresses":["10.0.0.2"]}})";

Change start() {
    Change change;
    change.target = "/v1/vms/web/start";
    change.subject = "VM web";
    change.done = "started";
    return change;
}

// Answers a start with 202 and its polls with `polls`, one after the other, the last one for ever.
struct Agent {
    std::vector<base::Result<net::ClientResponse>> polls;
    std::size_t polled = 0;
    FakeClient client{FakeClient::Table{[this](const net::ClientRequest& r) { return answer(r); }}};

    base::Result<net::ClientResponse> answer(const net::ClientRequest& request) {
        if (request.method != net::Method::get) return json_answer(202, operation("pending"));
        if (request.target == "/v1/vms/u") return json_answer(200, vm);
        if (!request.target.starts_with("/v1/operations/op-1"))
            return json_answer(404, R"({"code":"not_found","detail":"?"})");
        return polls.at(std::min(polled++, polls.size() - 1));
    }
};

}  // namespace

TEST_CASE("a change is followed to its end and its result shown") {
    Bench bench;
    Agent agent{{json_answer(200, operation("running")), json_answer(200, succeeded)}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::done);
    CHECK(bench.console.written == "VM web started: running at 10.0.0.2\n");
    CHECK(bench.console.complained.empty());  // no terminal, no bar
    REQUIRE(agent.client.requests.size() == 4);
    CHECK(agent.client.requests[0].target == "/v1/vms/web/start");
    CHECK(agent.client.requests[1].target == "/v1/operations/op-1?wait=25");
    CHECK(agent.client.requests[1].timeout > std::chrono::seconds{25});
}

TEST_CASE("scripts get the resource in the format they asked for") {
    Bench bench;
    Agent agent{{json_answer(200, succeeded)}};
    CHECK(bench.run(with(start(), Format::json), agent.client) == ExitCode::done);
    CHECK(json::parse(bench.console.written) == json::parse(vm));
    bench.console.written.clear();
    CHECK(bench.run(with(start(), Format::name), agent.client) == ExitCode::done);
    CHECK(bench.console.written == "web\n");
}

TEST_CASE("the result of a change of the agent is the agent") {
    Bench bench;
    FakeClient client{FakeClient::Table{[](const net::ClientRequest& request) {
        if (request.method == net::Method::get && request.target == "/v1")
            return json_answer(200, R"({"name":"node-1","drain":null})");
        return json_answer(202, operation("succeeded", R"(,"result":{"href":"/v1"})"));
    }}};
    Change change;
    change.target = "/v1/agent/undrain";
    change.view = View::agent;
    change.subject = "agent";
    change.done = "takes new VMs again";
    CHECK(bench.run(with(change, Format::json), client) == ExitCode::done);
    CHECK(json::parse(bench.console.written) == json::parse(R"({"name":"node-1","drain":null})"));
    bench.console.written.clear();
    CHECK(bench.run(with(change), client) == ExitCode::done);
    CHECK(bench.console.written == "agent takes new VMs again\n");
}

TEST_CASE("on a terminal a bar moves about once a second and is wiped at the end") {
    Bench bench;
    bench.console.columns = 60;
    Agent agent{{json_answer(200, operation("running", R"(,"progress":{"phase":"disk","percent":40})")),
                 json_answer(200, succeeded)}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::done);
    CHECK(agent.client.requests[1].target == "/v1/operations/op-1?wait=1");
    CHECK_THAT(bench.console.complained,
               Catch::Contains("VM web: disk [#########---------------]  40%") && Catch::EndsWith("\r\x1b[K"));
    CHECK(bench.console.written == "VM web started: running at 10.0.0.2\n");
}

TEST_CASE("without waiting the operation itself is the answer") {
    Bench bench;
    Agent agent{{json_answer(200, succeeded)}};
    auto change = start();
    change.waiting.wait = false;
    CHECK(bench.run(with(change), agent.client) == ExitCode::done);
    CHECK_THAT(bench.console.written, Catch::Contains("ghostctl operation wait op-1"));
    CHECK(agent.client.requests.size() == 1);
    bench.console.written.clear();
    CHECK(bench.run(with(change, Format::name), agent.client) == ExitCode::done);
    CHECK(bench.console.written == "op-1\n");
}

TEST_CASE("a failed operation ends with its error and exit code") {
    Bench bench;
    Agent agent{{json_answer(200, operation("failed", R"(,"request_id":"r-9","error":{"code":"insufficient_storage",
        "status":507,"detail":"the disk is full"})"))}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::refused);
    CHECK_THAT(bench.console.complained, Catch::StartsWith("ghostctl: the disk is full\n") && Catch::Contains("r-9"));
    CHECK(bench.console.written.empty());
}

TEST_CASE("an operation that others cancelled is a failure") {
    Bench bench;
    Agent agent{{json_answer(200, operation("cancelled"))}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::failed);
    CHECK_THAT(bench.console.complained, Catch::Contains("vm.start of VM web was cancelled"));
}

TEST_CASE("a cancel succeeds only when the operation ends cancelled") {
    auto cancel = start();
    cancel.target = "/v1/operations/op-1/cancel";
    cancel.subject = "operation op-1";
    cancel.done = "cancelled";
    cancel.ends_cancelled = true;
    Bench bench;
    Agent agent{{json_answer(200, operation("cancelled"))}};
    CHECK(bench.run(with(cancel), agent.client) == ExitCode::done);
    CHECK(bench.console.written == "operation op-1 cancelled\n");
    Agent late{{json_answer(200, succeeded)}};
    CHECK(bench.run(with(cancel), late.client) == ExitCode::failed);
    CHECK_THAT(bench.console.complained, Catch::Contains("succeeded before it could be cancelled"));
}

TEST_CASE("a delete leaves a sentence, not a resource") {
    Bench bench;
    Agent agent{{json_answer(200, operation("succeeded"))}};
    auto change = start();
    change.method = net::Method::del;
    change.target = "/v1/vms/web";
    change.done = "deleted";
    CHECK(bench.run(with(change), agent.client) == ExitCode::done);
    CHECK(bench.console.written == "VM web deleted\n");
    CHECK(agent.client.requests.front().method == net::Method::del);
}

TEST_CASE("a wait ends at its limit and says how to go on") {
    Bench bench;
    Agent agent{{json_answer(200, operation("running"))}};
    auto change = start();
    change.waiting.limit = std::chrono::minutes{5};
    CHECK(bench.run(with(change), agent.client) == ExitCode::failed);
    CHECK_THAT(bench.console.complained, Catch::Contains("not done after 5m; it goes on") &&
                                             Catch::Contains("ghostctl operation wait op-1") &&
                                             Catch::Contains("ghostctl operation cancel op-1"));
    // An agent that answers at once isn't asked without pause.
    CHECK(agent.client.requests.size() <= 302);
}

TEST_CASE("Ctrl-C on a wait says how to go on waiting and how to cancel") {
    Bench bench;
    asio::steady_timer never{bench.loop, asio::steady_timer::time_point::max()};
    bool polling = false;
    FakeClient client{
        FakeClient::Script{[&](net::ClientRequest request) -> asio::awaitable<base::Result<net::ClientResponse>> {
            if (request.method == net::Method::post) co_return json_answer(202, operation("running"));
            polling = true;
            asio::post(bench.loop, [&bench] { bench.ctrl_c.emit(asio::cancellation_type::terminal); });
            boost::system::error_code ended;
            co_await never.async_wait(asio::redirect_error(asio::use_awaitable, ended));
            co_return base::fail(base::Errc::cancelled);
        }}};
    CHECK(bench.run(with(start()), client) == ExitCode::failed);
    CHECK(polling);
    CHECK(bench.console.complained ==
          "ghostctl: stopped waiting; vm.start of VM web goes on\n"
          "  go on waiting:  ghostctl operation wait op-1\n"
          "  cancel it:      ghostctl operation cancel op-1\n");
    CHECK(bench.console.written.empty());
}

TEST_CASE("an agent that restarts during a wait is asked again") {
    Bench bench;
    const auto away = base::fail(base::Errc::source_unavailable, "Connection refused");
    Agent agent{{away, json_answer(503, R"({"code":"draining"})"), away, json_answer(200, succeeded)}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::done);
    CHECK(bench.console.complained.empty());
}

TEST_CASE("an agent that stays away ends the wait with exit code 5") {
    Bench bench;
    Agent agent{{base::fail(base::Errc::source_unavailable, "Connection refused")}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::no_agent);
    CHECK(agent.polled == Follower::most_faults);
    CHECK_THAT(bench.console.complained,
               Catch::Contains("was accepted and may go on") && Catch::Contains("ghostctl operation wait op-1"));
}

TEST_CASE("an operation that the agent forgot ends the wait") {
    Bench bench;
    Agent agent{{json_answer(404, R"({"code":"not_found","detail":"no operation op-1"})")}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::not_found);
    CHECK(agent.polled == 1);
}

TEST_CASE("operation wait ends as the operation does") {
    Bench bench;
    Agent agent{{json_answer(200, operation("running")), json_answer(200, succeeded)}};
    CHECK(bench.run(with(WaitForOperation{"op-1"}), agent.client) == ExitCode::done);
    CHECK(bench.console.written == "vm.start of VM web succeeded\n");
    Agent failed{{json_answer(200, operation("failed", R"(,"error":{"code":"not_found","detail":"gone"})"))}};
    CHECK(bench.run(with(WaitForOperation{"op-1"}), failed.client) == ExitCode::not_found);
    Agent unknown{{json_answer(404, R"({"code":"not_found","detail":"no operation"})")}};
    CHECK(bench.run(with(WaitForOperation{"op-1"}), unknown.client) == ExitCode::not_found);
    CHECK_THAT(bench.console.complained, Catch::Contains("ghostctl operation list"));
}

TEST_CASE("a list follows its pages") {
    Bench bench;
    FakeClient client{FakeClient::Table{[](const net::ClientRequest& request) -> base::Result<net::ClientResponse> {
        if (request.target == "/v1/vms?power=off&limit=1000")
            return json_answer(200, R"({"items":[{"name":"a"},{"name":"b"}],"next_page_token":"t=/1"})");
        if (request.target == "/v1/vms?power=off&limit=1000&page_token=t%3D%2F1")
            return json_answer(200, R"({"items":[{"name":"c"}],"next_page_token":null})");
        return json_answer(500, "");
    }}};
    CHECK(bench.run(with(ShowList{"/v1/vms?power=off", View::vm}, Format::name), client) == ExitCode::done);
    CHECK(bench.console.written == "a\nb\nc\n");
}

TEST_CASE("a list without pages is asked for as it is") {
    Bench bench;
    FakeClient client{FakeClient::Table{[](const net::ClientRequest& request) -> base::Result<net::ClientResponse> {
        if (request.target != "/v1/orphans") return json_answer(422, R"({"code":"validation_failed"})");
        return json_answer(200, R"({"items":[{"kind":"file","path":"/a"}]})");
    }}};
    CHECK(bench.run(with(ShowList{"/v1/orphans", View::orphan, false}, Format::name), client) == ExitCode::done);
    CHECK(bench.console.written == "/a\n");
}

TEST_CASE("pages that never end are a failure") {
    Bench bench;
    FakeClient client{FakeClient::Table{[](const net::ClientRequest&) -> base::Result<net::ClientResponse> {
        return json_answer(200, R"({"items":[],"next_page_token":"same"})");
    }}};
    CHECK(bench.run(with(ShowList{"/v1/vms", View::vm}), client) == ExitCode::failed);
    CHECK(client.requests.size() == 2);
}

TEST_CASE("status asks for everything it shows, also of an agent that isn't well") {
    Bench bench;
    const std::map<std::string, net::ClientResponse, std::less<>> answers{
        {"/v1", json_answer(200, R"({"name":"node-1","version":"0.1.0"})")},
        {"/health",
         json_answer(503, R"({"status":"unhealthy","checks":{"libvirt":{"status":"down","reason":"gone"}}})")},
        {"/v1/resources", json_answer(200, R"({"memory_mib":{"total":2048,"free":1024}})")},
        {"/v1/vms?limit=1000", json_answer(200, std::string{R"({"items":[)"} + vm + R"(],"next_page_token":null})")}};
    FakeClient client{FakeClient::Table{[&](const net::ClientRequest& request) -> base::Result<net::ClientResponse> {
        return answers.at(request.target);
    }}};
    CHECK(bench.run(with(ShowStatus{}), client) == ExitCode::done);
    CHECK_THAT(bench.console.written, Catch::Contains("node-1, version 0.1.0") && Catch::Contains("down: gone") &&
                                          Catch::Contains("1 (1 running)") && Catch::Contains("1 GiB free of 2 GiB"));
    bench.console.written.clear();
    CHECK(bench.run(with(ShowStatus{}, Format::json), client) == ExitCode::done);
    CHECK(json::parse(bench.console.written).at("vms") == json::parse(R"({"total":1,"states":{"running":1}})"));
}

TEST_CASE("version tells its own also when no agent answers") {
    Bench bench;
    FakeClient client{
        FakeClient::Table{[](const net::ClientRequest&) { return base::fail(base::Errc::source_unavailable, "x"); }}};
    CHECK(bench.run(with(ShowVersion{}), client) == ExitCode::no_agent);
    CHECK_THAT(bench.console.written, Catch::StartsWith("ghostctl:"));
    CHECK_THAT(bench.console.complained, Catch::Contains("there is no socket /nonexistent/agent.sock"));
}

TEST_CASE("an answer that isn't an agent's is said to be so") {
    Bench bench;
    FakeClient client{FakeClient::Table{
        [](const net::ClientRequest&) -> base::Result<net::ClientResponse> { return json_answer(200, "<html>"); }}};
    CHECK(bench.run(with(ShowOne{"/v1/vms/web", View::vm}), client) == ExitCode::failed);
    CHECK_THAT(bench.console.complained, Catch::Contains("is that a ghost-agent?"));
}

TEST_CASE("a result that points elsewhere is not fetched") {
    Bench bench;
    Agent agent{{json_answer(200, operation("succeeded", R"(,"result":{"href":"http://evil/x"})"))}};
    CHECK(bench.run(with(start()), agent.client) == ExitCode::done);
    CHECK(agent.client.requests.size() == 2);
    CHECK(bench.console.written == "VM web started\n");
}

TEST_CASE("a delete asks a person, and refuses when there is none") {
    auto change = start();
    change.question = "Delete VM web and its disks?";
    FakeConsole console;
    CHECK(confirm(with(change), console) == ExitCode::usage);
    CHECK_THAT(console.complained, Catch::Contains("give --yes"));
    for (const auto* yes : {"y", "Y", "yes"}) {
        console.answer = yes;
        CHECK(confirm(with(change), console) == std::nullopt);
    }
    for (const auto* no : {"", "n", "yeah, no"}) {
        console.answer = no;
        CHECK(confirm(with(change), console) == ExitCode::failed);
    }
    change.question.clear();
    CHECK(confirm(with(change), console) == std::nullopt);
    CHECK(confirm(with(ShowStatus{}), console) == std::nullopt);
}
