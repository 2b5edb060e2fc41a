#include "agent/access/relay.hpp"

#include "agent/access/socket_end.hpp"
#include "unit/agent/access/scene.hpp"

#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/write.hpp>
#include <catch2/catch.hpp>

#include <string>
#include <utility>

using namespace ghost;
using namespace ghost::agent;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

using Pair = asio::local::stream_protocol::socket;

// A client, a guest's service at the other end of a socket, and the relay between them.
struct Line : test::AccessScene {
    explicit Line(const std::string& protocol = {},
                  SocketEnd::Manner manner = {.peer = "the guest", .half_close = true})
        : web(client(protocol)) {
        Pair near{loop};
        asio::local::connect_pair(guest, near);
        guest.non_blocking(true);
        far = std::make_unique<SocketEnd>(net::StreamSocket{std::move(near)}, clock, std::move(manner));
        Relay::Terms terms{.events = !protocol.empty(), .idle = 1h, .vm = "vm-1"};
        terms.from_client = [this](std::size_t bytes) { in += bytes; };
        terms.to_client = [this](std::size_t bytes) { out += bytes; };
        relay = std::make_unique<Relay>(loop.get_executor(), *web, *far, vms, clock, std::move(terms));
        ending = begin(relay->run());
    }
    ~Line() {
        relay->stop();
        web->abort();
        pass(30s);
    }
    Line(const Line&) = delete;
    Line& operator=(const Line&) = delete;

    void guest_says(std::string_view text) {
        asio::write(guest, asio::buffer(text));
        settle();
    }
    // What has come to it; "<end>" when nothing will any more.
    std::string guest_hears() {
        settle();
        std::string text;
        for (;;) {
            char room[4096];
            boost::system::error_code error;
            const auto bytes = guest.read_some(asio::buffer(room), error);
            if (error == asio::error::eof) return text + "<end>";
            if (error) return text;
            text.append(room, bytes);
            settle();
        }
    }
    void client_says(std::string text) {
        web->send(std::move(text));
        settle();
    }
    void client_tells(std::string event) {
        web->send_text(std::move(event));
        settle();
    }

    std::unique_ptr<fakes::FakeWebSocket> web;
    Pair guest{loop};
    std::unique_ptr<SocketEnd> far;
    std::unique_ptr<Relay> relay;
    std::shared_ptr<std::optional<Ending>> ending;
    std::size_t in = 0;
    std::size_t out = 0;
};

std::pair<std::uint16_t, std::string> said(std::uint16_t code, std::string reason) { return {code, std::move(reason)}; }

constexpr auto events = "ghost.stream.v1";
constexpr auto eof = R"({"event":"eof"})";

}  // namespace

TEST_CASE("bytes are carried both ways and counted") {
    Line line;
    line.client_says("SSH-2.0-client\r\n");
    CHECK(line.guest_hears() == "SSH-2.0-client\r\n");
    line.guest_says("SSH-2.0-server\r\n");
    CHECK(line.web->received == "SSH-2.0-server\r\n");
    const std::string much(300'000, 'x');
    line.client_says(much);
    CHECK(line.guest_hears() == much);
    CHECK(line.in == 16 + much.size());
    CHECK(line.out == 16);
    CHECK_FALSE(line.ending->has_value());
}

TEST_CASE("without events text is data, and the guest's end is the stream's") {
    Line line;
    line.client_tells(eof);
    CHECK(line.guest_hears() == eof);
    line.guest_says("bye");
    line.guest.shutdown(Pair::shutdown_send);
    line.settle();
    CHECK(line.web->received == "bye");
    CHECK(line.web->texts.empty());
    CHECK(line.web->goodbye == said(1000, "the guest closed the connection"));
    REQUIRE(line.ending->has_value());
    CHECK(line.guest_hears() == "<end>");
}

TEST_CASE("each direction ends by itself, the client's first") {
    Line line{events};
    line.client_says("all of it");
    line.client_tells(eof);
    CHECK(line.guest_hears() == "all of it<end>");
    line.guest_says("here is the answer");
    CHECK(line.web->received == "here is the answer");
    CHECK_FALSE(line.ending->has_value());
    line.guest.close();
    line.settle();
    CHECK(line.web->texts == std::vector<std::string>{eof});
    CHECK(line.web->goodbye == said(1000, "the guest closed the connection"));
    CHECK(line.ending->has_value());
}

TEST_CASE("each direction ends by itself, the guest's first") {
    Line line{events};
    line.guest_says("a banner");
    line.guest.shutdown(Pair::shutdown_send);
    line.settle();
    CHECK(line.web->received == "a banner");
    CHECK(line.web->texts == std::vector<std::string>{eof});
    CHECK_FALSE(line.web->goodbye);
    line.client_says("still here");
    CHECK(line.guest_hears() == "still here");
    line.client_tells(eof);
    CHECK(line.guest_hears() == "<end>");
    CHECK(line.web->goodbye == said(1000, "the guest closed the connection"));
}

TEST_CASE("events that aren't known are passed over, and what is no event breaks the rules") {
    Line line{events};
    line.client_tells(R"({"event":"resize","rows":24,"columns":80})");
    line.client_tells(R"({"event":"dance"})");
    CHECK(line.guest_hears().empty());
    CHECK_FALSE(line.web->goodbye);
    SECTION("no JSON") { line.client_tells("eof"); }
    SECTION("no object") { line.client_tells("[]"); }
    SECTION("no event") { line.client_tells("{}"); }
    SECTION("no text") { line.client_tells(R"({"event":1})"); }
    REQUIRE(line.web->goodbye);
    CHECK(line.web->goodbye->first == 1008);
    CHECK(line.guest_hears() == "<end>");
}

TEST_CASE("a client that leaves, or is lost, ends the guest's connection") {
    Line line;
    SECTION("with a word") { line.web->leave(); }
    SECTION("without") { line.web->break_off(); }
    line.settle();
    CHECK(line.ending->has_value());
    CHECK(line.guest_hears() == "<end>");
    CHECK_FALSE(line.web->goodbye);
}

TEST_CASE("a connection that the guest resets ends with that") {
    Line line{events};
    line.web->hold();
    line.guest_says("x");
    asio::socket_base::linger linger{true, 0};
    line.guest.set_option(linger);
    line.client_says("unread");  // which makes the close a reset
    line.guest.close();
    line.settle();
    line.web->hold(false);
    line.settle();
    REQUIRE(line.web->goodbye);
    CHECK(line.web->goodbye->first == 4003);
    CHECK(line.web->goodbye->second == "the guest reset the connection");
}

TEST_CASE("streams end with their VM") {
    Line line{events};
    SECTION("that stops") {
        line.set_power(virt::Power::off);
        line.settle();
        CHECK(line.web->goodbye == said(4001, "the VM stopped"));
    }
    SECTION("that is suspended") {
        line.set_power(virt::Power::suspended);
        line.settle();
        CHECK(line.web->goodbye == said(4001, "the VM stopped"));
    }
    SECTION("that is deleted") {
        line.vms.erase("vm-1");
        line.settle();
        CHECK(line.web->goodbye == said(4002, "the VM was deleted"));
    }
    CHECK(line.guest_hears() == "<end>");
    CHECK(line.ending->has_value());
}

TEST_CASE("streams go on while their VM is paused, and while nobody knows how it is") {
    Line line;
    line.set_power(virt::Power::paused);
    line.set_power(virt::Power::unknown);
    line.client_says("hello");
    CHECK(line.guest_hears() == "hello");
    CHECK_FALSE(line.ending->has_value());
}

TEST_CASE("a stream on which nothing is sent ends after a while, and data is what counts") {
    Line line{events};
    line.pass(59min);
    line.client_says("x");
    line.pass(59min);
    line.guest_says("y");
    line.pass(59min);
    line.client_tells(R"({"event":"dance"})");
    CHECK_FALSE(line.web->goodbye);
    line.pass(1min);
    CHECK(line.web->goodbye == said(4000, "nothing was sent for too long"));
}

TEST_CASE("a client that doesn't read holds up the guest, and nothing is lost") {
    Line line;
    line.web->hold();
    std::size_t sent = 0;
    boost::system::error_code full;
    const std::string piece(64 * 1024, 'z');
    for (int i = 0; i < 1000 && !full; ++i) {
        sent += line.guest.write_some(asio::buffer(piece), full);
        line.settle();
    }
    CHECK(full);
    CHECK(line.web->received.empty());
    line.web->hold(false);
    line.settle();
    CHECK(line.web->received.size() == sent);
}

TEST_CASE("when the agent stops, clients are told") {
    Line line{events};
    SECTION("by the server") { line.web->stop(); }
    SECTION("by the service, also those that wait for the guest") {
        std::string much;
        much.resize(10'000'000, 'x');
        line.client_says(std::move(much));
        CHECK(line.web->unread() > 0);
        line.relay->stop();
    }
    line.settle();
    CHECK(line.web->goodbye == said(1001, "the agent is stopping"));
    CHECK(line.ending->has_value());
}

TEST_CASE("a client that doesn't take the last message is cut off") {
    Line line;
    line.web->hold();
    line.guest_says("never taken");
    line.set_power(virt::Power::off);
    line.settle();
    CHECK_FALSE(line.web->aborted);
    line.pass(Relay::farewell);
    CHECK(line.web->aborted);
    CHECK(line.ending->has_value());
}

TEST_CASE("the end of a display waits a moment for that of its VM") {
    Line line{{}, {.peer = "the display's server", .patience = 2s}};
    line.guest.close();
    line.pass(1s);
    CHECK_FALSE(line.web->goodbye);
    SECTION("which comes") {
        line.set_power(virt::Power::off);
        line.settle();
        CHECK(line.web->goodbye == said(4001, "the VM stopped"));
    }
    SECTION("which doesn't") {
        line.pass(1s);
        CHECK(line.web->goodbye == said(1000, "the display's server closed the connection"));
    }
}
