// Connections to this machine's sockets, which are real.
#include "agent/cli/doorway.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/scratch_folder.hpp"
#include "tests/unit/agent/cli/bench.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <catch2/catch.hpp>

#include <charconv>

using namespace ghost;
using namespace ghost::cli;
namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

std::uint16_t port_in(std::string_view address) {
    const auto digits = address.substr(address.rfind(':') + 1);
    std::uint16_t port = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), port);
    return port;
}

struct Open {
    fakes::TestLoop loop;
    base::SystemClock clock;
    FakeStreams streams;
    FakeConsole console;
    Doorway doorway{loop.context.get_executor(), streams, clock, console, RelayRules{InputEnd::tell}};
    asio::cancellation_signal stop;

    std::shared_ptr<FakeStream> next_stream() {
        auto stream = std::make_shared<FakeStream>(loop.context.get_executor());
        streams.coming.emplace_back(stream);
        return stream;
    }
    void serve() {
        asio::co_spawn(loop.context, doorway.serve(),
                       asio::bind_cancellation_slot(stop.slot(), [](std::exception_ptr) {}));
    }
    ~Open() {
        stop.emit(asio::cancellation_type::terminal);
        loop.await(doorway.close());
    }
};

template <class Socket>
asio::awaitable<std::string> exchange(Socket& socket, std::string request) {
    co_await asio::async_write(socket, asio::buffer(request), asio::use_awaitable);
    socket.shutdown(Socket::shutdown_send);
    std::string answer;
    (void)co_await asio::async_read(socket, asio::dynamic_buffer(answer), asio::as_tuple(asio::use_awaitable));
    co_return answer;
}

void interrupt_when_told(Bench& bench) {
    bench.once([&bench] { return !bench.console.written.empty(); },
               [&bench] { bench.ctrl_c.emit(asio::cancellation_type::terminal); });
}

}  // namespace

TEST_CASE("each connection is a stream of the agent, with an end of its own in each direction") {
    Open open;
    const auto bound = open.doorway.listen(net::TcpEndpoint{"127.0.0.1", 0}, "/v1/vms/web/forward?port=80", "web:80");
    REQUIRE(bound);
    CHECK(bound->starts_with("127.0.0.1:"));
    REQUIRE(port_in(*bound) != 0);
    auto stream = open.next_stream();
    open.serve();
    tcp::socket socket{open.loop.context};
    socket.connect({asio::ip::make_address("127.0.0.1"), port_in(*bound)});
    once(
        open.loop.context.get_executor(), [&] { return !stream->texts.empty(); },
        [&] {
            stream->sends("answer");
            stream->tells(R"({"event":"eof"})");
        });
    CHECK(open.loop.await(exchange(socket, "request")) == "answer");
    CHECK(stream->got == "request");
    CHECK(open.streams.targets == std::vector<std::string>{"/v1/vms/web/forward?port=80"});
    CHECK(open.console.complained.empty());
}

TEST_CASE("what goes wrong with one connection is told, and the next is taken") {
    Open open;
    const auto bound = open.doorway.listen(net::TcpEndpoint{"::1", 0}, "/v1/vms/web/forward?port=80", "web:80");
    if (!bound) return;  // a machine without IPv6
    CHECK(bound->starts_with("[::1]:"));
    open.streams.coming.emplace_back(std::unexpected{Failure{ExitCode::failed, "10.0.0.2:80 refuses connections"}});
    open.next_stream()->closes(4003, "the guest reset the connection");
    open.serve();
    for (int i = 0; i < 2; ++i) {
        tcp::socket socket{open.loop.context};
        socket.connect({asio::ip::make_address("::1"), port_in(*bound)});
        CHECK(open.loop.await(exchange(socket, "")).empty());
    }
    CHECK(open.console.complained ==
          "ghostctl: web:80: 10.0.0.2:80 refuses connections\n"
          "ghostctl: web:80: a connection: the guest reset the connection\n");
}

TEST_CASE("an address that is taken can't be listened on") {
    Open open;
    const auto bound = open.doorway.listen(net::TcpEndpoint{"127.0.0.1", 0}, "/t", "web:80");
    REQUIRE(bound);
    const auto again = open.doorway.listen(net::TcpEndpoint{"127.0.0.1", port_in(*bound)}, "/t", "web:80");
    REQUIRE_FALSE(again);
    CHECK(again.error().detail == "cannot listen on " + *bound + ": Address already in use");
    const auto unix = open.doorway.listen(
        net::UnixEndpoint{.path = "/nonexistent/" + std::string(200, 'x'), .group = {}}, "/t", "web:80");
    CHECK_FALSE(unix);
}

TEST_CASE("Unix sockets lead to streams as well") {
    Open open;
    const fakes::ScratchFolder folder;
    REQUIRE(open.doorway.listen(net::UnixEndpoint{.path = folder.path("vnc.sock"), .group = {}}, "/v1/vms/web/vnc",
                                "the screen of web"));
    auto stream = open.next_stream();
    stream->sends("RFB 003.008\n");
    stream->closes(1000, "");
    open.serve();
    asio::local::stream_protocol::socket socket{open.loop.context};
    socket.connect(folder.path("vnc.sock"));
    CHECK(open.loop.await(exchange(socket, "")) == "RFB 003.008\n");
}

TEST_CASE("a viewer is started with the socket, and its end is the end") {
    Bench bench;
    const fakes::ScratchFolder folder;
    bench.desktop.folder = folder.path();
    bench.desktop.display = true;
    bench.desktop.programs = {"vncviewer", "remote-viewer"};
    auto client = answering(200, R"({"id":"u","status":{"power":"running"}})");
    const OpenScreen action{{"/v1/vms/web", "web"}};
    SECTION("well") {
        CHECK(bench.run(with(action), client) == ExitCode::done);
        REQUIRE(bench.desktop.ran.size() == 1);
        CHECK(bench.desktop.ran.front() ==
              std::vector<std::string>{"remote-viewer", "vnc+unix://" + folder.path("vnc.sock")});
        CHECK(bench.console.complained.empty());
    }
    SECTION("or not") {
        bench.desktop.programs = {"vncviewer"};
        bench.desktop.viewer_ends_with = 1;
        CHECK(bench.run(with(action), client) == ExitCode::failed);
        CHECK(bench.desktop.ran.front() == std::vector<std::string>{"vncviewer", folder.path("vnc.sock")});
        CHECK_THAT(bench.console.complained, Catch::Contains("vncviewer ended with status 1"));
    }
    CHECK(bench.desktop.removed == std::vector<std::string>{folder.path()});
}

TEST_CASE("without a viewer it is told where one can connect, until Ctrl-C") {
    Bench bench;
    const fakes::ScratchFolder folder;
    bench.desktop.folder = folder.path();
    bench.desktop.display = GENERATE(false, true);
    auto client = answering(200, R"({"id":"u","status":{"power":"running"}})");
    interrupt_when_told(bench);
    OpenScreen action{{"/v1/vms/web", "web"}};
    const bool by_port = GENERATE(false, true);
    if (by_port) action.listen = PortForward{"127.0.0.1", 0, 0};
    CHECK(bench.run(with(action), client) == ExitCode::done);
    CHECK(bench.desktop.ran.empty());
    CHECK_THAT(bench.console.written,
               Catch::Contains(by_port ? "is at vnc://127.0.0.1:" : "vncviewer " + folder.path()));
    CHECK(bench.desktop.removed.empty() == by_port);
}

TEST_CASE("forward says where it listens and ends with Ctrl-C") {
    Bench bench;
    auto client = answering(200, "{}");
    interrupt_when_told(bench);
    CHECK(bench.run(with(ForwardPorts{{"/v1/vms/web", "web"}, {{"127.0.0.1", 0, 80}}}), client) == ExitCode::done);
    CHECK_THAT(bench.console.written, Catch::StartsWith("Forwarding 127.0.0.1:") && Catch::EndsWith(" -> web:80\n"));
}

TEST_CASE("a forward to no VM fails at once") {
    Bench bench;
    auto client = answering(404, R"({"code":"not_found","detail":"there is no VM web"})");
    CHECK(bench.run(with(ForwardPorts{{"/v1/vms/web", "web"}, {{"127.0.0.1", 0, 80}}}), client) == ExitCode::not_found);
    CHECK(bench.console.written.empty());
}

TEST_CASE("one connection goes through standard input and output") {
    Bench bench;
    auto client = answering(500, "{}");
    const ForwardStdio action{{"/v1/vms/web", "web"}, 22};
    auto stream = std::make_shared<FakeStream>(bench.loop.get_executor());
    SECTION("to its end") {
        bench.streams.coming.emplace_back(stream);
        stream->sends("SSH-2.0-x\r\n");
        stream->tells(R"({"event":"eof"})");
        bench.person.types("SSH-2.0-y\r\n");
        bench.person.ends_typing();
        CHECK(bench.run(with(action), client) == ExitCode::done);
        CHECK(bench.streams.targets == std::vector<std::string>{"/v1/vms/web/forward?port=22"});
        CHECK(stream->got == "SSH-2.0-y\r\n");
        CHECK(bench.person.seen == "SSH-2.0-x\r\n");
        CHECK(bench.person.saw_end);
        CHECK(bench.console.written.empty());
        CHECK(bench.console.complained.empty());
    }
    SECTION("or until it is lost") {
        bench.streams.coming.emplace_back(stream);
        stream->breaks();
        CHECK(bench.run(with(action), client) == ExitCode::no_agent);
    }
    SECTION("or not at all") {
        bench.streams.coming.emplace_back(
            std::unexpected{Failure{ExitCode::failed, "10.0.0.2:22 refuses connections"}});
        CHECK(bench.run(with(action), client) == ExitCode::failed);
        CHECK(bench.console.complained == "ghostctl: 10.0.0.2:22 refuses connections\n");
    }
}
