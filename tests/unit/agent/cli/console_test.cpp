#include "fakes/fake_client.hpp"
#include "tests/unit/agent/cli/bench.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;

namespace {

struct AtConsole {
    Bench bench;
    std::shared_ptr<FakeStream> stream = std::make_shared<FakeStream>(bench.loop.get_executor());
    fakes::FakeClient client = answering(500, "{}");

    AtConsole() { bench.streams.coming.emplace_back(stream); }
    ExitCode run(OpenConsole action = {{"/v1/vms/web", "web"}}) { return bench.run(with(std::move(action)), client); }
};

}  // namespace

TEST_CASE("the console says how to leave it, who writes, and that the VM stopped") {
    AtConsole at;
    at.bench.stdio.terminal = true;
    at.stream->tells(R"({"event":"writer","writer":true})");
    at.stream->sends("login: ");
    at.stream->tells(R"({"event":"writer","writer":false,"by":"uid 1001\u001b[2J"})");
    at.stream->tells(R"({"event":"skipped","bytes":70000})");
    at.stream->closes(4001, "the VM stopped");
    CHECK(at.run() == ExitCode::done);
    CHECK(at.bench.streams.targets == std::vector<std::string>{"/v1/vms/web/console"});
    CHECK(at.bench.person.seen == "login: ");
    CHECK_FALSE(at.bench.person.is_raw);
    CHECK(at.bench.console.complained ==
          "\r\n[ghostctl: connected to the console of web; Ctrl-] leaves it]\r\n"
          "\r\n[ghostctl: you write]\r\n"
          "\r\n[ghostctl: uid 1001\\x1b[2J writes now, you only read]\r\n"
          "\r\n[ghostctl: 68.4 KiB of output left out: this end was too slow]\r\n"
          "\nghostctl: the VM stopped\n");
}

TEST_CASE("who isn't the writer is told how to become it") {
    AtConsole at;
    at.bench.stdio.terminal = true;
    at.stream->tells(R"({"event":"writer","writer":false,"by":"alice"})");
    at.stream->closes(1000, "");
    CHECK(at.run() == ExitCode::done);
    CHECK_THAT(at.bench.console.complained, Catch::Contains("alice writes, you only read; --force takes over") &&
                                                Catch::EndsWith("ghostctl: the console was closed\n"));
}

TEST_CASE("Ctrl-] leaves the console") {
    AtConsole at;
    at.bench.stdio.terminal = true;
    at.bench.person.types("ls\r\x1d");
    CHECK(at.run() == ExitCode::done);
    CHECK(at.stream->got == "ls\r");
    CHECK(at.stream->closed == 1000);
    CHECK_FALSE(at.bench.person.is_raw);
    CHECK_THAT(at.bench.console.complained, Catch::EndsWith("ghostctl: left the console of web\n"));
}

TEST_CASE("through pipes every byte is the guest's") {
    AtConsole at;
    at.bench.person.types(
        "a\x1d"
        "b");
    at.bench.person.ends_typing();
    at.stream->sends("output");
    at.bench.once([&] { return at.stream->got.size() == 3; }, [&] { at.stream->closes(4001, "the VM stopped"); });
    CHECK(at.run() == ExitCode::done);
    CHECK(at.stream->got ==
          "a\x1d"
          "b");
    CHECK(at.bench.person.seen == "output");
    CHECK(at.bench.console.complained == "ghostctl: connected to the console of web\nghostctl: the VM stopped\n");
}

TEST_CASE("how the console was asked for goes with the request") {
    AtConsole at;
    at.stream->closes(1000, "");
    OpenConsole action{{"/v1/vms/web", "web"}};
    SECTION("--force") {
        action.force = true;
        CHECK(at.run(action) == ExitCode::done);
        CHECK(at.bench.streams.targets.front() == "/v1/vms/web/console?force=true");
    }
    SECTION("--read-only") {
        action.read_only = true;
        CHECK(at.run(action) == ExitCode::done);
        CHECK(at.bench.streams.targets.front() == "/v1/vms/web/console?read_only=true");
        CHECK_THAT(at.bench.console.complained, Catch::Contains("; you only read\n"));
    }
}

TEST_CASE("the console's end has an exit code") {
    AtConsole at;
    SECTION("a connection that is lost") {
        at.stream->breaks();
        CHECK(at.run() == ExitCode::no_agent);
        CHECK_THAT(at.bench.console.complained,
                   Catch::EndsWith("ghostctl: the console of web: the connection to the agent was lost\n"));
    }
    SECTION("an agent that stops") {
        at.stream->closes(1001, "");
        CHECK(at.run() == ExitCode::no_agent);
    }
    SECTION("nothing for too long") {
        at.stream->closes(4000, "idle for 4 hours");
        CHECK(at.run() == ExitCode::failed);
        CHECK_THAT(at.bench.console.complained, Catch::Contains("the console of web: idle for 4 hours\n"));
    }
    SECTION("a VM that was deleted") {
        at.stream->closes(4002, "the VM was deleted");
        CHECK(at.run() == ExitCode::done);
    }
    SECTION("an agent that refuses") {
        at.bench.streams.coming.clear();
        at.bench.streams.coming.emplace_back(std::unexpected{Failure{ExitCode::refused, "VM web is off"}});
        CHECK(at.run() == ExitCode::refused);
        CHECK(at.bench.console.complained == "ghostctl: VM web is off\n");
    }
}

TEST_CASE("the guest is told the terminal's size, at first and when it changes") {
    AtConsole at;
    at.bench.stdio.terminal = true;
    at.bench.stdio.window = Screen{80, 24};
    at.bench.once([&] { return at.stream->texts.size() == 1; },
                  [&] {
                      at.bench.stdio.window = Screen{132, 50};
                      at.bench.person.resized.notify();
                  });
    at.bench.once([&] { return at.stream->texts.size() == 2; }, [&] { at.bench.person.types("\x1d"); });
    CHECK(at.run() == ExitCode::done);
    REQUIRE(at.stream->texts.size() == 2);
    CHECK(json::parse(at.stream->texts[0]) == json::parse(R"({"event":"resize","rows":24,"columns":80})"));
    CHECK(json::parse(at.stream->texts[1]) == json::parse(R"({"event":"resize","rows":50,"columns":132})"));
}

TEST_CASE("who becomes the writer says the size again") {
    AtConsole at;
    at.bench.stdio.terminal = true;
    at.bench.stdio.window = Screen{80, 24};
    at.stream->tells(R"({"event":"writer","writer":false,"by":"alice"})");
    at.bench.once([&] { return at.stream->texts.size() == 1; },
                  [&] { at.stream->tells(R"({"event":"writer","writer":true})"); });
    at.bench.once([&] { return at.stream->texts.size() == 2; }, [&] { at.bench.person.types("\x1d"); });
    CHECK(at.run() == ExitCode::done);
    REQUIRE(at.stream->texts.size() == 2);
    CHECK(at.stream->texts[0] == at.stream->texts[1]);
    CHECK_THAT(at.bench.console.complained, Catch::Contains("you write now"));
}
