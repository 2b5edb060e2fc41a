#include "agent/cli/relay.hpp"

#include "fakes/virtual_clock.hpp"
#include "tests/unit/agent/cli/way_in.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::cli;
namespace asio = boost::asio;
namespace json = boost::json;

namespace {

struct Rig {
    asio::io_context loop{1};
    fakes::VirtualClock clock;
    std::shared_ptr<FakeStream> stream = std::make_shared<FakeStream>(loop.get_executor());
    FakePerson person{loop.get_executor()};
    FakeWebSocket socket{stream};
    FakeChannel channel{person, false};
    asio::cancellation_signal stop;
    std::optional<Relay> relay;
    std::optional<RelayEnd> end;

    void start(RelayRules rules) {
        relay.emplace(loop.get_executor(), clock, socket, channel, std::move(rules));
        asio::co_spawn(loop, relay->run(),
                       asio::bind_cancellation_slot(stop.slot(), [this](std::exception_ptr fault, RelayEnd how) {
                           if (fault) std::rethrow_exception(fault);
                           end = std::move(how);
                       }));
        settle();
    }
    void cancel() {
        stop.emit(asio::cancellation_type::terminal);
        settle();
    }
    void settle() {
        do loop.restart();
        while (loop.poll() > 0);
    }
};

}  // namespace

TEST_CASE("a relay passes bytes on in both directions until the agent closes") {
    Rig rig;
    rig.start({InputEnd::tell});
    rig.person.types("ls\n");
    rig.stream->sends("a b\n");
    rig.settle();
    CHECK(rig.stream->got == "ls\n");
    CHECK(rig.person.seen == "a b\n");
    CHECK_FALSE(rig.end);
    rig.stream->sends("bye");
    rig.stream->closes(4001, "the VM stopped");
    rig.settle();
    REQUIRE(rig.end);
    CHECK(rig.person.seen == "a b\nbye");
    CHECK(rig.end->kind == RelayEnd::Kind::closed);
    CHECK(rig.end->code == 4001);
    CHECK(rig.end->reason == "the VM stopped");
}

TEST_CASE("an end in one direction leaves the other open, whichever comes first") {
    Rig rig;
    rig.start({InputEnd::tell});
    const bool guest_first = GENERATE(false, true);
    if (guest_first) {
        rig.stream->tells(R"({"event":"eof"})");
        rig.settle();
        CHECK(rig.person.saw_end);
        rig.person.types("still here");
        rig.settle();
        CHECK(rig.stream->got == "still here");
        CHECK_FALSE(rig.end);
        rig.person.ends_typing();
    } else {
        rig.person.types("request");
        rig.person.ends_typing();
        rig.settle();
        CHECK(rig.stream->got == "request");
        REQUIRE(rig.stream->texts == std::vector<std::string>{R"({"event":"eof"})"});
        rig.stream->sends("answer");
        rig.settle();
        CHECK(rig.person.seen == "answer");
        CHECK_FALSE(rig.end);
        CHECK_FALSE(rig.person.saw_end);
        rig.stream->tells(R"({"event":"eof"})");
    }
    rig.settle();
    REQUIRE(rig.end);
    CHECK(rig.end->kind == RelayEnd::Kind::closed);
    CHECK(rig.end->code == 1000);
    CHECK(rig.stream->closed == 1000);
    CHECK(rig.stream->texts == std::vector<std::string>{R"({"event":"eof"})"});
}

TEST_CASE("without the control protocol, or for those who want it so, an end closes the stream") {
    Rig rig;
    const bool has_control = GENERATE(false, true);
    if (!has_control) rig.stream->protocol.clear();
    rig.start({has_control ? InputEnd::close : InputEnd::tell});
    rig.person.types("last words");
    rig.person.ends_typing();
    rig.settle();
    REQUIRE(rig.end);
    CHECK(rig.stream->got == "last words");
    CHECK(rig.stream->texts.empty());
    CHECK(rig.stream->closed == 1000);
}

TEST_CASE("who only listens goes on after the end of what it types") {
    Rig rig;
    rig.start({InputEnd::stay});
    rig.person.ends_typing();
    rig.settle();
    rig.stream->sends("log");
    rig.settle();
    CHECK(rig.person.seen == "log");
    CHECK(rig.stream->texts.empty());
    CHECK_FALSE(rig.end);
    rig.stream->breaks();
    rig.settle();
    REQUIRE(rig.end);
    CHECK(rig.end->kind == RelayEnd::Kind::lost);
}

TEST_CASE("a key leaves, and what was typed before it still arrives") {
    Rig rig;
    rig.start({InputEnd::stay, '\x1d'});
    rig.person.types("exit\n\x1dnot this");
    rig.settle();
    REQUIRE(rig.end);
    CHECK(rig.end->kind == RelayEnd::Kind::left);
    CHECK(rig.stream->got == "exit\n");
    CHECK(rig.stream->closed == 1000);
}

TEST_CASE("the key leaves also when the agent takes nothing") {
    Rig rig;
    rig.stream->takes_nothing = true;
    rig.start({InputEnd::stay, '\x1d'});
    rig.person.types("stuck");
    rig.settle();
    rig.person.types("\x1d");
    rig.settle();
    CHECK_FALSE(rig.end);
    rig.clock.advance(Relay::farewell);
    rig.settle();
    REQUIRE(rig.end);
    CHECK(rig.end->kind == RelayEnd::Kind::left);
    CHECK(rig.stream->closed == 1000);
}

TEST_CASE("what waits for the agent is bounded") {
    Rig rig;
    rig.stream->takes_nothing = true;
    rig.start({InputEnd::tell});
    const std::string piece(Relay::piece, 'x');
    for (int i = 0; i < 10; ++i) rig.person.types(piece);
    rig.settle();
    // As much is being written, and as much waits.
    CHECK(rig.person.typing.size() >= 10 - 2 * Relay::most_waiting / Relay::piece);
    rig.cancel();
    REQUIRE(rig.end);
    CHECK(rig.end->kind == RelayEnd::Kind::left);
}

TEST_CASE("a relay ends when nobody takes what the agent sends") {
    Rig rig;
    rig.start({InputEnd::tell});
    rig.person.is_gone = true;
    rig.stream->sends("?");
    rig.settle();
    REQUIRE(rig.end);
    CHECK(rig.end->kind == RelayEnd::Kind::left);
    CHECK(rig.stream->closed == 1000);
}

TEST_CASE("control goes to who asked for it, and what is none is passed over") {
    Rig rig;
    std::vector<std::string> events;
    RelayRules rules{InputEnd::stay};
    rules.on_event = [&events](const json::object& event) { events.emplace_back(event.at("event").as_string()); };
    rig.start(std::move(rules));
    for (const auto* text : {R"({"event":"writer","writer":true})", "no JSON", "[]", R"({"event":"new"})"})
        rig.stream->tells(text);
    rig.relay->tell({{"event", "resize"}, {"rows", 24}, {"columns", 80}});
    rig.relay->tell({{"event", "resize"}, {"rows", 25}, {"columns", 80}});
    rig.settle();
    CHECK(events == std::vector<std::string>{"writer", "new"});
    REQUIRE(rig.stream->texts.size() == 1);
    CHECK(json::parse(rig.stream->texts.front()) == json::parse(R"({"event":"resize","rows":25,"columns":80})"));
    rig.cancel();
    CHECK(rig.end);
}
