#include "component/agent/guest_scene.hpp"

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;
using How = virt::GuestRun::How;

namespace {

std::string text_of(const json::object& object, std::string_view key) {
    return std::string{object.at(key).as_string()};
}

std::string documents_of(const World& world) {
    std::string all;
    for (const auto& [id, row] : world.store.operations()) all += row.document;
    for (const auto& [id, row] : world.store.events()) all += row.document;
    return all;
}

bool logged_of(World& world, std::string_view message) {
    world.log.flush();
    const auto messages = world.logged.messages();
    return std::ranges::find(messages, message) != messages.end();
}

}  // namespace

TEST_CASE("a program runs in the guest, and its operation tells what it came to") {
    GuestScene world;
    const auto watcher = world.watch();
    world.program = [](const virt::GuestCommand&) { return GuestScene::exited(0, "out\n", "err\n"); };
    const auto ran = world.exec(
        {{"command", {"ls", "-l", "/a b"}}, {"env", {{"TOKEN", "secret-1"}}}, {"stdin", "secret-2"}, {"timeout_s", 7}});
    REQUIRE(ran.status == 200);
    CHECK(ran.text("/kind") == "vm.exec");
    CHECK(ran.text("/state") == "succeeded");
    CHECK(ran.text("/target/id") == world.id);
    CHECK(ran.at("/result") ==
          json::value{{"exit_code", 0}, {"truncated", false}, {"stdout", "out\n"}, {"stderr", "err\n"}});
    REQUIRE(world.programs.size() == 1);
    const auto& given = world.programs.front();
    CHECK(given.argv == std::vector<std::string>{"ls", "-l", "/a b"});
    REQUIRE(given.environment.size() == 2);
    CHECK(given.environment[0] == "TOKEN=secret-1");
    CHECK(given.environment[1].starts_with("PATH=/usr/local/sbin:"));
    CHECK(given.input == "secret-2");
    CHECK(given.limit == 7s);

    const auto told = accesses(*watcher);
    REQUIRE(told.size() == 1);
    CHECK(text_of(told[0], "vm") == world.id);
    CHECK(text_of(told[0], "action") == "exec");
    CHECK(text_of(told[0], "command") == "ls -l '/a b'");
    CHECK(text_of(told[0], "by") == "socket:uid:0");
    CHECK(text_of(told[0], "result") == "succeeded");
    CHECK(told[0].at("exit_code") == 0);
    CHECK(text_of(told[0], "operation") == "/v1/operations/" + ran.text("/id"));
    CHECK(logged_of(world, "guest access"));

    // What is secret, and what is long, is where it belongs.
    CHECK_FALSE(documents_of(world).contains("secret-"));
    for (const auto& [event_id, row] : world.store.events()) CHECK_FALSE(row.document.contains("stdout"));
    const auto listed = world.get("/v1/operations?kind=vm.exec");
    CHECK(listed.at("/items/0/result") == json::value{{"exit_code", 0}, {"truncated", false}});
    CHECK(world.get("/v1/operations/" + ran.text("/id")).text("/result/stdout") == "out\n");
}

TEST_CASE("a program that ends with another code is a success of its operation") {
    GuestScene world;
    world.program = [](const virt::GuestCommand&) { return GuestScene::exited(3, "", "no\n"); };
    const auto ran = world.exec();
    CHECK(ran.status == 200);
    CHECK(ran.text("/state") == "succeeded");
    CHECK(ran.at("/result/exit_code") == 3);
    CHECK(ran.text("/result/stderr") == "no\n");
}

TEST_CASE("what a program prints is text, and not too much of it") {
    GuestScene world;
    std::string printed = "a\xff\xe2\x82z";
    printed.append(100'000, 'x');
    world.program = [&](const virt::GuestCommand&) { return GuestScene::exited(0, printed); };
    const auto ran = world.exec();
    CHECK(ran.at("/result/truncated") == true);
    const auto out = ran.text("/result/stdout");
    CHECK(out.starts_with("a\xEF\xBF\xBD\xEF\xBF\xBDzxxx"));
    CHECK(out.size() <= 64 * 1024);
    CHECK(out.size() > 60 * 1024);
    CHECK(ran.text("/result/stderr").empty());
}

TEST_CASE("a program that doesn't end in time may go on, as its operation says") {
    GuestScene world;
    const auto watcher = world.watch();
    world.hypervisor->fail("run_in_guest " + world.id, {base::Errc::deadline_exceeded, "no end"});
    const auto late = world.exec();
    CHECK(late.status == 504);
    CHECK(late.text("/code") == "deadline_exceeded");
    CHECK(late.text("/detail").contains("within 60 s"));
    CHECK(late.text("/detail").contains("may go on"));
    REQUIRE(accesses(*watcher).size() == 1);
    CHECK(text_of(accesses(*watcher)[0], "result") == "deadline_exceeded");
    CHECK_FALSE(accesses(*watcher)[0].contains("exit_code"));
}

TEST_CASE("nothing is done in a guest whose VM doesn't allow it, isn't ours, or doesn't run") {
    GuestScene world{false};
    virt::DomainInfo theirs;
    theirs.uuid = "11111111-1111-4111-8111-111111111111";
    theirs.name = "theirs";
    theirs.power = virt::Power::running;
    theirs.vcpus = 1;
    theirs.memory_mib = 64;
    world.hypervisor->put(std::move(theirs));
    world.settle();
    const auto refused = [&world](const std::string& vm) {
        const auto exec = world.post("/v1/vms/" + vm + "/exec", GuestScene::command({"ls"}));
        const auto read = world.get("/v1/vms/" + vm + "/files?path=/etc/motd");
        const auto write = world.call(net::Method::put, "/v1/vms/" + vm + "/files?path=/etc/motd");
        CHECK(read.status == exec.status);
        CHECK(write.status == exec.status);
        CHECK(read.text("/code") == exec.text("/code"));
        CHECK(write.text("/code") == exec.text("/code"));
        return exec;
    };
    CHECK(refused("web").status == 403);
    CHECK(refused("web").text("/detail").contains("spec.guest_access"));
    CHECK(refused("theirs").status == 403);
    CHECK(refused("theirs").text("/code") == "forbidden");
    CHECK(refused("nobody").status == 404);
    CHECK(
        world.call(net::Method::patch, "/v1/vms/web?wait=9", json::object{{"spec", {{"guest_access", true}}}}).status ==
        200);
    CHECK(world.exec().status == 200);
    CHECK(world.post("/v1/vms/web/pause?wait=9").status == 200);
    CHECK(refused("web").status == 409);
    CHECK(world.post("/v1/vms/web/stop?wait=9", json::object{{"force", true}}).status == 200);
    CHECK(refused("web").text("/code") == "state_conflict");
    CHECK(refused("web").text("/detail").contains("web is off"));
    CHECK(world.programs.size() == 1);
    CHECK(world.tools.empty());
    CHECK(world.hypervisor->count("open_guest_file") == 0);
}

TEST_CASE("a guest without an agent, or with one that may not or can't, fails the operation") {
    const auto [run, words] = GENERATE(table<virt::GuestRun, const char*>({
        {virt::GuestRun{}, "no guest agent answers in web"},
        {virt::GuestRun{.how = How::not_allowed}, "guest-exec"},
        {virt::GuestRun{.how = How::failed, .output = "No such file or directory\xff"}, "No such file or directory"},
    }));
    GuestScene world;
    world.program = [outcome = run](const virt::GuestCommand&) { return outcome; };
    const auto failed = world.exec();
    CHECK(failed.status == 409);
    CHECK(failed.text("/code") == "state_conflict");
    CHECK(failed.text("/detail").contains(words));
    const auto op = world.get("/v1/operations?kind=vm.exec");
    CHECK(op.text("/items/0/state") == "failed");
    CHECK(op.at("/items/0/result").is_null());
}

TEST_CASE("a request to run a program is read closely") {
    GuestScene world;
    const auto [body, pointer] = GENERATE(table<const char*, const char*>({
        {R"({})", "/command"},
        {R"({"command": []})", "/command"},
        {R"({"command": [""]})", "/command"},
        {R"({"command": "ls"})", "/command"},
        {R"({"command": ["ls", "a\u0000b"]})", "/command"},
        {R"({"command": ["ls"], "env": {"A=B": "c"}})", "/env"},
        {R"({"command": ["ls"], "env": {"A": 7}})", "/env"},
        {R"({"command": ["ls"], "stdin": 7})", "/stdin"},
        {R"({"command": ["ls"], "timeout_s": 0})", "/timeout_s"},
        {R"({"command": ["ls"], "timeout_s": 3601})", "/timeout_s"},
        {R"({"command": ["ls"], "shell": true})", "/shell"},
    }));
    const auto long_input = json::object{{"command", {"cat"}}, {"stdin", std::string(64 * 1024 + 1, 'x')}};
    CHECK(world.post("/v1/vms/web/exec", long_input).text("/errors/0/pointer") == "/stdin");
    const auto refused = world.post("/v1/vms/web/exec", json::parse(body));
    CHECK(refused.status == 422);
    CHECK(refused.text("/errors/0/pointer") == pointer);
    CHECK(world.programs.empty());
}

TEST_CASE("a dry run of a program runs nothing") {
    GuestScene world;
    const auto would = world.exec(GuestScene::command({"reboot"}), "?dry_run=true");
    CHECK(would.status == 200);
    CHECK(would.text("/would/0") == "run reboot in web, and wait 60 s for its end");
    CHECK(world.programs.empty());
}

TEST_CASE("a cancel ends the wait for a program, and others go on beside it") {
    GuestScene world;
    const auto watcher = world.watch();
    world.hypervisor->read_deadline = 1h;
    world.hypervisor->hang("run_in_guest " + world.id);
    const auto begun = world.exec(GuestScene::command({"sleep", "9"}), "");
    REQUIRE(begun.status == 202);
    CHECK(begun.at("/cancellable") == true);
    CHECK(world.post("/v1/vms/web/pause?wait=9").status == 200);
    CHECK(world.get("/v1/vms/web").at("/status/operation").is_null());
    const auto cancelled = world.post("/v1/operations/" + begun.text("/id") + "/cancel?wait=9");
    CHECK(cancelled.text("/state") == "cancelled");
    CHECK(cancelled.text("/error/detail").contains("may go on"));
    world.settle();
    REQUIRE(accesses(*watcher).size() == 1);
    CHECK(text_of(accesses(*watcher)[0], "result") == "cancelled");
}

TEST_CASE("a program that the agent's end cuts off is interrupted, is told of, and isn't run again") {
    const bool killed = GENERATE(true, false);
    GuestScene world;
    world.hypervisor->read_deadline = 1h;
    world.hypervisor->hang("run_in_guest " + world.id);
    const auto with_key = [](net::Request& request) { request.headers.set("Idempotency-Key", "once"); };
    const auto begun = world.call(net::Method::post, "/v1/vms/web/exec", GuestScene::command({"make"}), with_key);
    REQUIRE(begun.status == 202);
    const auto list = world.get("/v1/vms");
    const auto place = std::stoull(std::string{list.headers.find("Ghost-Event-Id").value_or("0")});
    if (killed)
        world.crash();
    else
        world.shut_down();
    world.boot();
    const auto op = world.get("/v1/operations/" + begun.text("/id") + "?wait=60");
    CHECK(op.text("/state") == "failed");
    CHECK(op.text("/error/code") == "interrupted");
    CHECK(op.text("/error/detail").contains("may go on"));
    world.settle();
    const auto watcher = world.watch(place);
    REQUIRE(watcher->status == 200);
    REQUIRE(accesses(*watcher).size() == 1);
    CHECK(text_of(accesses(*watcher)[0], "result") == "interrupted");
    CHECK(text_of(accesses(*watcher)[0], "command") == "make");
    const auto again = world.call(net::Method::post, "/v1/vms/web/exec", GuestScene::command({"make"}), with_key);
    CHECK(again.text("/id") == begun.text("/id"));
    CHECK(world.programs.empty());
    // A restart that follows has nothing more to tell.
    world.crash();
    world.boot();
    CHECK(accesses(*world.watch(place)).size() == 1);
}

TEST_CASE("an incident leaves what its VM was told as it was") {
    GuestScene world;
    CHECK(world.exec().status == 200);
    world.pass(30s);
    const auto from = std::stoull(std::string{*world.get("/v1/vms").headers.find("Ghost-Event-Id")});
    world.crash();
    world.boot();
    world.pass(2s);
    const auto watcher = world.watch(from);
    CHECK(accesses(*watcher).empty());
    for (const auto& type : watcher->types_of("/v1/vms/" + world.id)) CHECK(type == "vm.updated");
}

TEST_CASE("programs in a guest have their number") {
    GuestScene world;
    world.hypervisor->read_deadline = 1h;
    world.hypervisor->hang("run_in_guest " + world.id);
    std::vector<std::string> begun;
    for (std::size_t i = 0; i < agent::GuestService::programs_each; ++i) {
        const auto one = world.exec(GuestScene::command({"sleep"}), "");
        REQUIRE(one.status == 202);
        begun.push_back(one.text("/id"));
    }
    CHECK(world.exec().status == 429);
    CHECK(world.post("/v1/operations/" + begun.front() + "/cancel?wait=9").text("/state") == "cancelled");
    CHECK(world.exec(GuestScene::command({"sleep"}), "").status == 202);
}

TEST_CASE("what programs printed is kept up to a bound, the youngest of it") {
    GuestScene world;
    const std::string printed(64 * 1024, 'x');
    world.program = [&](const virt::GuestCommand&) { return GuestScene::exited(0, printed, printed); };
    constexpr auto bound = agent::OperationService::max_texts;
    const auto runs = bound / (2 * printed.size()) + 5;
    std::vector<std::string> ids;
    ids.reserve(runs + 1);
    for (std::size_t i = 0; i < runs; ++i) ids.push_back(world.exec().text("/id"));
    const auto check = [&] {
        const auto oldest = world.get("/v1/operations/" + ids.front());
        CHECK(oldest.at("/result") ==
              json::value{
                  {"exit_code", 0}, {"truncated", false}, {"stdout", nullptr}, {"stderr", nullptr}, {"expired", true}});
        CHECK(world.get("/v1/operations/" + ids.back()).text("/result/stdout") == printed);
        CHECK_FALSE(world.get("/v1/operations/" + ids.back()).body.at("result").as_object().contains("expired"));
        std::size_t rows = 0;
        for (const auto& [id, row] : world.store.operations()) rows += row.document.size();
        CHECK(rows < bound + 1024 * runs);
    };
    check();
    world.crash();
    world.boot();
    check();
    ids.push_back(world.exec().text("/id"));
    check();
}
