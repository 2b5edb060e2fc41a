#include "heartbeat/inbox.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace ghost;
namespace json = boost::json;
using heartbeat::Command;
using heartbeat::CommandState;
using heartbeat::Inbox;

namespace {

const auto noon = base::from_unix_ms(1'767'355'200'000);

struct Scene {
    Inbox inbox{[](const json::object& params) { return params.contains("secret"); }};
    std::vector<std::string> ready;
    std::vector<std::string> faults;
    int news = 0;

    Scene() {
        inbox.on_ready = [this](const std::string& id) { ready.push_back(id); };
        inbox.on_news = [this] { ++news; };
    }
    std::vector<Command> take(std::string_view text) { return inbox.take(json::parse(text).as_array(), noon, faults); }
    std::vector<Command> come(std::string_view text) {
        auto fresh = take(text);
        inbox.admit(fresh);
        return fresh;
    }
    std::string acks() {
        told.clear();
        return json::serialize(inbox.acks(Inbox::max_acks, told));
    }
    std::vector<Command> answered() { return inbox.confirm(told); }
    std::vector<Inbox::Told> told;
};

constexpr auto start_web = R"([{"id": "c1", "kind": "vm.start", "target": "web"}])";

}  // namespace

TEST_CASE("a command is acked and begins once it is kept", "[heartbeat]") {
    Scene s;
    const auto fresh = s.take(start_web);
    REQUIRE(fresh.size() == 1);
    CHECK(fresh[0].kind == "vm.start");
    CHECK_FALSE(fresh[0].deadline);
    CHECK(s.acks() == "[]");
    CHECK(s.ready.empty());
    s.inbox.admit(fresh);
    CHECK(s.acks() == R"([{"cmd_id":"c1","state":"accepted"}])");
    CHECK(s.ready == std::vector<std::string>{"c1"});
    CHECK(s.news == 1);
}

TEST_CASE("a command that comes again is told of again and begins no more", "[heartbeat]") {
    Scene s;
    s.come(start_web);
    CHECK(s.take(start_web).empty());
    (void)s.inbox.change("c1", CommandState::running, "op-1");
    (void)s.inbox.change("c1", CommandState::succeeded);
    CHECK(s.acks() == R"([{"cmd_id":"c1","state":"succeeded","operation":"op-1"}])");
    CHECK(s.answered().size() == 1);
    CHECK(s.acks() == "[]");
    CHECK(s.take(start_web).empty());
    CHECK(s.acks() == R"([{"cmd_id":"c1","state":"succeeded","operation":"op-1"}])");
    CHECK(s.answered().empty());  // that Core has heard of its end is kept already
    CHECK(s.ready.size() == 1);
}

TEST_CASE("two of a kind in one answer are one", "[heartbeat]") {
    Scene s;
    CHECK(s.come(R"([{"id": "c1", "kind": "vm.start", "target": "a"},
                     {"id": "c1", "kind": "vm.stop", "target": "a"}])")
              .size() == 1);
    CHECK(s.inbox.find("c1")->kind == "vm.start");
}

TEST_CASE("news that came while a beat was under way is still to be told", "[heartbeat]") {
    Scene s;
    s.come(start_web);
    (void)s.acks();
    (void)s.inbox.change("c1", CommandState::running, "op-1");
    CHECK(s.answered().empty());
    CHECK(s.inbox.has_news());
    CHECK(s.acks() == R"([{"cmd_id":"c1","state":"running","operation":"op-1"}])");
}

TEST_CASE("older names of kinds are taken", "[heartbeat]") {
    Scene s;
    s.come(
        R"([{"id": "1", "kind": "create_vm", "params": {"name": "x"}}, {"id": "2", "kind": "stop_vm", "target": "x"}])");
    CHECK(s.inbox.find("1")->kind == "vm.create");
    CHECK(s.inbox.find("2")->kind == "vm.stop");
    CHECK(s.ready.size() == 2);
}

TEST_CASE("a command that can't be read is rejected with its faults, and never begins", "[heartbeat]") {
    Scene s;
    const auto* bad =
        GENERATE(R"([{"id": "c1", "kind": "vm.explode", "target": "web"}])", R"([{"id": "c1", "kind": "vm.start"}])",
                 R"([{"id": "c1", "target": "web"}])", R"([{"id": "c1", "kind": "vm.start", "target": 7}])",
                 R"([{"id": "c1", "kind": "vm.start", "target": "web", "not_after": "soon"}])",
                 R"([{"id": "c1", "kind": "vm.start", "target": "web", "deadline_s": 0}])",
                 R"([{"id": "c1", "kind": "vm.start", "target": "web", "if_generation": "3"}])",
                 R"([{"id": "c1", "kind": "vm.start", "target": "web", "priority": 3}])",
                 R"([{"id": "c1", "kind": "vm.start", "target": "web", "params": []}])");
    INFO(bad);
    const auto fresh = s.come(bad);
    REQUIRE(fresh.size() == 1);
    CHECK(fresh[0].state == CommandState::rejected);
    CHECK(s.ready.empty());
    const auto ack = json::parse(s.acks()).at_pointer("/0");
    CHECK(ack.at("state") == "rejected");
    CHECK(ack.at_pointer("/problem/code") == "validation_failed");
    CHECK(ack.at_pointer("/problem/errors/0/pointer").as_string().starts_with("/"));
    CHECK(s.inbox.unfinished() == 0);
    CHECK(s.answered().size() == 1);
}

TEST_CASE("what has no id can't be acked and is left out", "[heartbeat]") {
    Scene s;
    const auto fresh = s.come(R"([{"kind": "vm.start", "target": "web"}, {"id": "a b"}, "x", {"id": ""}, {"id": "ok",
                                   "kind": "vm.start", "target": "web"}])");
    CHECK(fresh.size() == 1);
    CHECK(s.faults ==
          std::vector<std::string>{"4 commands without an id of 1 to 64 letters, digits, '.', '_' and '-'"});
}

TEST_CASE("when too many wait, the rest is left with Core", "[heartbeat]") {
    Scene s;
    const auto send = [&s](std::size_t first, std::size_t count) {
        json::array some;
        for (std::size_t i = first; i < first + count; ++i)
            some.push_back({{"id", std::to_string(i)}, {"kind", "vm.start"}, {"target", "web"}});
        s.inbox.admit(s.inbox.take(some, noon, s.faults));
    };
    for (std::size_t first = 0; first < Inbox::max_unfinished + 5; first += 87) send(first, 87);
    CHECK(s.inbox.unfinished() == Inbox::max_unfinished);
    CHECK(s.faults.size() == 1);
    (void)s.inbox.change("0", CommandState::succeeded);
    send(Inbox::max_unfinished - 5, 10);
    CHECK(s.inbox.unfinished() == Inbox::max_unfinished);
    CHECK(s.inbox.find(std::to_string(Inbox::max_unfinished)) != nullptr);
}

TEST_CASE("commands survive a restart as they were", "[heartbeat]") {
    Scene before;
    const auto fresh = before.come(
        R"([{"id": "c1", "kind": "vm.create", "params": {"name": "x"}, "not_after": "2026-01-02T12:00:05.5+00:00",
             "deadline_s": 5, "if_generation": 3}])");
    Scene after;
    after.inbox.restore({*heartbeat::command_from_document(heartbeat::to_document(fresh[0]))});
    const auto& command = *after.inbox.find("c1");
    CHECK(command.params == fresh[0].params);
    CHECK(command.not_after == noon + 5500ms);
    CHECK(command.deadline == 5s);
    CHECK(command.if_generation == 3U);
    CHECK(command.received == noon);
    CHECK(after.acks() == R"([{"cmd_id":"c1","state":"accepted"}])");
    CHECK(after.inbox.unfinished() == 1);
    CHECK(after.take(R"([{"id": "c1", "kind": "vm.create", "params": {"name": "x"}}])").empty());
}

TEST_CASE("a command's params aren't kept once it has begun", "[heartbeat]") {
    Scene s;
    s.come(R"([{"id": "c1", "kind": "vm.create", "params": {"name": "x"}}])");
    const auto& running = s.inbox.change("c1", CommandState::running, "op");
    CHECK(heartbeat::to_document(running).find("params") == std::string::npos);
}

TEST_CASE("a secret is never kept: Core is told once it is used, and asked for it again until then", "[heartbeat]") {
    constexpr auto secret = R"([{"id": "c1", "kind": "vm.create", "params": {"secret": "s3cr3t"}}])";
    Scene before;
    const auto fresh = before.come(secret);
    const auto kept = heartbeat::to_document(fresh[0]);
    CHECK(kept.find("s3cr3t") == std::string::npos);
    CHECK(before.ready.size() == 1);
    CHECK(before.acks() == "[]");
    SECTION("it begins") {
        (void)before.inbox.change("c1", CommandState::running, "op");
        CHECK(before.acks() == R"([{"cmd_id":"c1","state":"running","operation":"op"}])");
    }
    SECTION("the agent dies first, and gets it again") {
        Scene after;
        after.inbox.restore({*heartbeat::command_from_document(kept)});
        CHECK_FALSE(after.inbox.find("c1")->has_params);
        CHECK(after.acks() == "[]");
        // What comes first can't be kept: it is asked for again.
        CHECK(after.take(secret).size() == 1);
        CHECK(after.ready.empty());
        after.come(secret);
        CHECK(after.ready == std::vector<std::string>{"c1"});
        CHECK(after.inbox.find("c1")->params.at("secret") == "s3cr3t");
        CHECK(after.inbox.unfinished() == 1);
        CHECK(after.take(secret).empty());
    }
}

TEST_CASE("what can't be read back says so", "[heartbeat]") {
    CHECK_FALSE(heartbeat::command_from_document("{"));
    CHECK_FALSE(heartbeat::command_from_document(R"({"id": "x"})"));
    CHECK_FALSE(heartbeat::command_from_document(R"({"id": "x", "state": "flying", "received": 1})"));
}

TEST_CASE("confirmed commands are forgotten after their time, others never", "[heartbeat]") {
    Scene s;
    s.come(R"([{"id": "old", "kind": "vm.start", "target": "a"}, {"id": "open", "kind": "vm.start", "target": "b"}])");
    (void)s.inbox.change("old", CommandState::failed, "op", {{"code", "x"}});
    (void)s.acks();
    (void)s.answered();
    s.inbox.prune(noon);
    CHECK(s.inbox.find("old") != nullptr);
    s.inbox.prune(noon + 1s);
    CHECK(s.inbox.find("old") == nullptr);
    CHECK(s.inbox.find("open") != nullptr);
}

TEST_CASE("what is said of a faulty command is bounded, however large the command", "[heartbeat]") {
    Scene s;
    json::object command{{"id", "c1"}, {"kind", std::string(70'000, 'k')}, {"target", std::string(70'000, 't')}};
    for (int i = 0; i < 10'000; ++i) command[std::string(100, 'm') + std::to_string(i)] = i;
    s.come(json::serialize(json::array{command}));
    CHECK(s.acks().size() < 5'000);
    CHECK(s.acks().find(R"("code":"validation_failed")") != std::string::npos);
    CHECK(heartbeat::to_document(*s.inbox.find("c1")).size() < 6'000);
    s.come(R"([{"id": "c2", "kind": "vm.start", "target": "web", "params": {"a": ")" + std::string(300'000, 'x') +
           "\"}}]");
    CHECK(s.inbox.find("c2")->problem.at("detail") == "/params is larger than 262144 bytes");
}

TEST_CASE("the problem of a request, too, is told briefly", "[heartbeat]") {
    Scene s;
    s.come(start_web);
    json::array errors;
    for (int i = 0; i < 64; ++i)
        errors.push_back({{"pointer", "/spec/" + std::string(9'000, 'p')}, {"detail", "is not known here"}});
    s.inbox.change(
        "c1", CommandState::rejected, {},
        {{"code", "validation_failed"}, {"status", 422}, {"detail", std::string(9'000, 'd')}, {"errors", errors}});
    CHECK(s.acks().size() < 5'000);
    CHECK(s.acks().find(R"("status":422)") != std::string::npos);
}

TEST_CASE("more than an answer may hold is counted, not listed", "[heartbeat]") {
    Scene s;
    CHECK(s.inbox.take(json::array(100'000, 1), noon, s.faults).empty());
    CHECK(s.faults ==
          std::vector<std::string>{"100000 commands in one answer, of which the first 100 count",
                                   "100 commands without an id of 1 to 64 letters, digits, '.', '_' and '-'"});
}
