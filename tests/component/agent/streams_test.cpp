// The ways into a VM, through the whole agent: the client is a WebSocket in memory, the guest a socket.
#include "component/agent/world.hpp"
#include "fakes/fake_websocket.hpp"
#include "fakes/scratch_folder.hpp"
#include "net/digest.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <deque>
#include <list>
#include <string>
#include <utility>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace json = boost::json;

namespace {

using Socket = asio::local::stream_protocol::socket;

// Guests' ports are sockets of the test.
class FakeDialer final : public agent::GuestDialer {
public:
    explicit FakeDialer(asio::io_context& loop) : loop_(loop) {}

    Task<net::StreamSocket> connect(agent::GuestPlace to, std::uint16_t port, base::Instant) override {
        places.push_back(std::move(to));
        ports.push_back(port);
        if (fault) co_return base::fail(*fault);
        Socket near{loop_};
        asio::local::connect_pair(guests.emplace_back(loop_), near);
        guests.back().non_blocking(true);
        co_return net::StreamSocket{std::move(near)};
    }
    Task<asio::ip::udp::socket> connect_udp(agent::GuestPlace, std::uint16_t, base::Instant) override {
        co_return base::fail(base::Errc::source_unavailable, "no such thing here");
    }
    bool leads_to(const agent::GuestPlace&, const asio::ip::address&) override { return true; }

    std::vector<agent::GuestPlace> places;
    std::vector<std::uint16_t> ports;
    std::list<Socket> guests;
    std::optional<base::Error> fault;

private:
    asio::io_context& loop_;
};

// A client's connection, once it is a WebSocket.
struct Client {
    explicit Client(World& world, std::string protocol) : web(world.loop.get_executor(), std::move(protocol)) {}
    fakes::FakeWebSocket web;
    bool served = false;
};

struct Answer {
    net::Response response;
    json::value body;
    std::unique_ptr<Client> client;  // of status 101

    [[nodiscard]] std::string code() const { return std::string{body.at("code").as_string()}; }
    [[nodiscard]] std::string detail() const { return std::string{body.at("detail").as_string()}; }
};

using Arrange = std::function<void(net::Request&)>;

void upgrade(net::Request& request) {
    request.headers.set("Connection", "Upgrade");
    request.headers.set("Upgrade", "websocket");
    request.headers.set("Sec-WebSocket-Version", "13");
    request.headers.set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
}
void as_anonymous(net::Request& request) { request.context.who = {}; }

struct Ways : World {
    Ways() {
        make_dialer = [this](const agent::VmIndex&) {
            auto made = std::make_unique<FakeDialer>(loop);
            dialer = made.get();
            return made;
        };
        boot();
        add_image();
        id = create_vm();
        console.non_blocking(true);
        hypervisor->set_console(id, {virt::ConsoleDevice::Kind::socket, console_path});
        hypervisor->set_display(id, [this] {
            Socket near{loop};
            display = Socket{loop};
            asio::local::connect_pair(display, near);
            display.non_blocking(true);
            return base::Descriptor{near.release()};
        });
    }

    Answer ask(net::Method method, const std::string& target, std::optional<json::value> body = {},
               const Arrange& arrange = {}) {
        auto request = make_request(method, target, std::move(body));
        if (arrange) arrange(request);
        std::optional<net::Response> response;
        asio::co_spawn(loop, app->api()(std::move(request)), [&](const std::exception_ptr& fault, net::Response r) {
            if (fault) std::rethrow_exception(fault);
            response = std::move(r);
        });
        settle();
        for (int i = 0; i < 300 && !response; ++i) pass(100ms);
        REQUIRE(response);
        Answer answer{std::move(*response), nullptr, nullptr};
        if (answer.response.content_type.find("json") != std::string::npos && !answer.response.body.empty())
            answer.body = json::parse(answer.response.body);
        return answer;
    }
    Answer get_as_is(const std::string& target, const Arrange& arrange = {}) {
        return ask(net::Method::get, target, {}, arrange);
    }
    // Asks for a stream, and begins it when it is given. `protocol`: what the client offers.
    Answer open(const std::string& target, const std::string& protocol = "ghost.stream.v1",
                const Arrange& arrange = {}) {
        auto answer = ask(net::Method::get, target, {}, [&](net::Request& request) {
            upgrade(request);
            if (!protocol.empty()) request.headers.set("Sec-WebSocket-Protocol", protocol);
            if (arrange) arrange(request);
        });
        if (answer.response.status != 101) return answer;
        REQUIRE(answer.response.upgrade);
        answer.client = std::make_unique<Client>(*this, answer.response.upgrade->protocol);
        asio::co_spawn(loop, answer.response.upgrade->serve(answer.client->web),
                       [&served = answer.client->served](const std::exception_ptr& fault) {
                           if (fault) std::rethrow_exception(fault);
                           served = true;
                       });
        settle();
        return answer;
    }
    std::unique_ptr<Client> must_open(const std::string& target, const std::string& protocol = "ghost.stream.v1") {
        auto answer = open(target, protocol);
        INFO(answer.response.body);
        REQUIRE(answer.client);
        return std::move(answer.client);
    }
    // The hypervisor's end of the console, once it was connected to.
    Socket& guest_console() {
        boost::system::error_code none;
        Socket next{loop};
        console.accept(next, none);
        if (!none) {
            guest_end = std::move(next);
            guest_end.non_blocking(true);
        }
        REQUIRE(guest_end.is_open());
        return guest_end;
    }
    void says(Socket& from, std::string_view text) {
        asio::write(from, asio::buffer(text));
        settle();
    }
    std::string hears(Socket& at) {
        settle();
        std::string text(100'000, '\0');
        boost::system::error_code error;
        const auto bytes = at.read_some(asio::buffer(text), error);
        text.resize(bytes);
        if (error == asio::error::eof) text += "<end>";
        return text;
    }
    std::string ticket(const std::string& use, std::optional<int> port = {}) {
        json::object body{{"for", use}};
        if (port) body["port"] = *port;
        const auto issued = post("/v1/vms/web/tickets", body);
        REQUIRE(issued.status == 201);
        CHECK(issued.headers.find("Cache-Control") == "no-store");
        return issued.text("/ticket");
    }
    // The client leaves, and its stream is over.
    void leave(const std::unique_ptr<Client>& client) {
        client->web.leave();
        settle();
        CHECK(client->served);
    }
    std::vector<std::string> logged_of(std::string_view message) {
        log.flush();
        std::vector<std::string> lines;
        for (const auto& record : logged.records())
            if (record.message == message) lines.push_back(base::message_with_fields(record));
        return lines;
    }

    FakeDialer* dialer = nullptr;
    std::string id;
    fakes::ScratchFolder folder;
    std::string console_path = folder.path("console.sock");
    asio::local::stream_protocol::acceptor console{loop, asio::local::stream_protocol::endpoint{console_path}};
    Socket guest_end{loop};
    Socket display{loop};
};

std::pair<std::uint16_t, std::string> said(std::uint16_t code, std::string reason) { return {code, std::move(reason)}; }

}  // namespace

TEST_CASE("the console of a VM is read and typed into") {
    Ways ways;
    const auto client = ways.must_open("/v1/vms/web/console");
    CHECK(client->web.texts == std::vector<std::string>{R"({"event":"writer","writer":true,"by":"socket:uid:0"})"});
    auto& guest = ways.guest_console();
    ways.says(guest, "web login: ");
    CHECK(client->web.received == "web login: ");
    client->web.send("root\n");
    CHECK(ways.hears(guest) == "root\n");
    ways.leave(client);
    // It is kept for a moment, and what was said comes again.
    const auto second = ways.must_open("/v1/vms/" + ways.id + "/console?read_only=true", "");
    CHECK(second->web.received == "web login: ");
    CHECK(second->web.texts.empty());
    second->web.send("no");
    CHECK(ways.hears(guest).empty());
    ways.leave(second);
    ways.pass(11s);
    CHECK(ways.hears(guest) == "<end>");
}

TEST_CASE("the console is taken over") {
    Ways ways;
    const auto first = ways.must_open("/v1/vms/web/console");
    const auto second = ways.must_open("/v1/vms/web/console?force=true");
    CHECK(first->web.texts.back() == R"({"event":"writer","writer":false,"by":"socket:uid:0"})");
    first->web.send("no");
    second->web.send("yes");
    CHECK(ways.hears(ways.guest_console()) == "yes");
    ways.leave(second);
    CHECK(first->web.texts.back() == R"({"event":"writer","writer":true,"by":"socket:uid:0"})");
    ways.leave(first);
}

TEST_CASE("streams end when their VM stops, and when it is deleted") {
    Ways ways;
    const auto console = ways.must_open("/v1/vms/web/console");
    const auto forward = ways.must_open("/v1/vms/web/forward?port=22");
    const auto display = ways.must_open("/v1/vms/web/vnc", "");
    REQUIRE(ways.post("/v1/vms/web/stop?wait=60", {{"force", true}}).status == 200);
    ways.pass(2s);
    for (const auto* client : {&console, &forward, &display}) {
        CHECK((*client)->web.goodbye == said(4001, "the VM stopped"));
        CHECK((*client)->served);
    }
    REQUIRE(ways.post("/v1/vms/web/start?wait=60").status == 200);
    const auto again = ways.must_open("/v1/vms/web/forward?port=22");
    REQUIRE(ways.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    ways.pass(2s);
    REQUIRE(again->web.goodbye);
    CHECK((again->web.goodbye->first == 4001 || again->web.goodbye->first == 4002));
}

TEST_CASE("a port of the guest is connected to, at its own place") {
    Ways ways;
    ways.hypervisor->set_addresses(ways.id, {"192.168.122.10"});
    ways.pass(1min);
    const auto client = ways.must_open("/v1/vms/web/forward?port=22");
    CHECK(ways.dialer->ports == std::vector<std::uint16_t>{22});
    CHECK(ways.dialer->places.front().vm == ways.id);
    CHECK(ways.dialer->places.front().addresses == std::vector<std::string>{"192.168.122.10"});
    auto& guest = ways.dialer->guests.front();
    ways.says(guest, "SSH-2.0-guest\r\n");
    CHECK(client->web.received == "SSH-2.0-guest\r\n");
    client->web.send("SSH-2.0-client\r\n");
    client->web.send_text(R"({"event":"eof"})");
    CHECK(ways.hears(guest) == "SSH-2.0-client\r\n");
    CHECK(ways.hears(guest) == "<end>");
    guest.close();
    ways.settle();
    CHECK(client->web.goodbye == said(1000, "the guest closed the connection"));
    CHECK(client->served);
    CHECK(ways.logged_of("stream begins").front() ==
          "stream begins kind=forward vm=" + ways.id + " name=web port=22 by=socket:uid:0 request_id=req-1");
    CHECK(ways.logged_of("stream ended").front() ==
          "stream ended kind=forward vm=" + ways.id +
              " name=web port=22 by=socket:uid:0 request_id=req-1 bytes_in=16 bytes_out=15 seconds=0 "
              "reason=\"the guest closed the connection\"");
}

TEST_CASE("what stands in a stream's way is told before it begins") {
    Ways ways;
    const auto refused = [&](const std::string& target, unsigned status, const std::string& code) {
        CAPTURE(target);
        const auto answer = ways.open(target);
        CHECK(answer.response.status == status);
        CHECK(answer.code() == code);
        CHECK_FALSE(answer.response.upgrade);
        return answer.detail();
    };
    for (const auto* way : {"console", "vnc", "forward?port=22"}) {
        refused("/v1/vms/nobody/" + std::string{way}, 404, "not_found");
        const auto plain = ways.get_as_is("/v1/vms/web/" + std::string{way});
        CHECK(plain.response.status == 426);
        CHECK(plain.code() == "upgrade_required");
        CHECK(plain.response.headers.find("Upgrade") == "websocket");
    }
    refused("/v1/vms/web/forward", 422, "validation_failed");
    refused("/v1/vms/web/forward?port=0", 422, "validation_failed");
    refused("/v1/vms/web/forward?port=65536", 422, "validation_failed");
    refused("/v1/vms/web/console?port=22", 422, "validation_failed");
    refused("/v1/vms/web/console?force=yes", 422, "validation_failed");
    refused("/v1/vms/web/console?force=true&read_only=true", 422, "validation_failed");
    refused("/v1/vms/web/vnc?read_only=true", 422, "validation_failed");

    ways.dialer->fault = {base::Errc::address_not_allowed, "192.168.122.1 isn't connected to: it is this host's"};
    refused("/v1/vms/web/forward?port=22", 422, "address_not_allowed");
    ways.dialer->fault = {base::Errc::source_unavailable, "the guest refused the connection"};
    CHECK(refused("/v1/vms/web/forward?port=22", 502, "source_unavailable") == "the guest refused the connection");
    ways.dialer->fault = {base::Errc::deadline_exceeded, "the guest didn't answer in time"};
    refused("/v1/vms/web/forward?port=22", 504, "deadline_exceeded");
    ways.hypervisor->set_console(ways.id, {virt::ConsoleDevice::Kind::socket, "/nowhere/console.sock"});
    refused("/v1/vms/web/console", 502, "source_unavailable");

    REQUIRE(ways.post("/v1/vms/web/stop?wait=60", {{"force", true}}).status == 200);
    for (const auto* way : {"console", "vnc", "forward?port=22"})
        CHECK(refused("/v1/vms/web/" + std::string{way}, 409, "state_conflict") == "web is off; start it first");

    virt::DomainInfo others;
    others.uuid = "0b0b0b0b-0000-4000-8000-000000000001";
    others.name = "theirs";
    others.power = virt::Power::running;
    ways.hypervisor->put(others);
    ways.pass(1min);
    for (const auto* way : {"console", "vnc", "forward?port=22"})
        refused("/v1/vms/theirs/" + std::string{way}, 403, "forbidden");
}

TEST_CASE("a VM without a console or a display says so") {
    Ways ways;
    (void)ways.create_vm("bare");
    for (const auto* way : {"console", "vnc"}) {
        const auto answer = ways.open("/v1/vms/bare/" + std::string{way});
        CHECK(answer.response.status == 409);
        CHECK(answer.code() == "state_conflict");
    }
}

TEST_CASE("a display is carried as it is") {
    Ways ways;
    const auto client = ways.must_open("/v1/vms/web/vnc", "");
    ways.says(ways.display, "RFB 003.008\n");
    CHECK(client->web.received == "RFB 003.008\n");
    client->web.send("RFB 003.008\n");
    CHECK(ways.hears(ways.display) == "RFB 003.008\n");
    ways.leave(client);
    CHECK(ways.hears(ways.display) == "<end>");
}

TEST_CASE("a page of another origin needs a ticket") {
    Ways ways;
    const auto from = [&](const std::string& origin, const std::string& host, const std::string& query = "") {
        const auto answer = ways.open("/v1/vms/web/vnc" + query, "", [&](net::Request& request) {
            request.headers.set("Origin", origin);
            request.headers.set("Host", host);
        });
        if (answer.client) ways.leave(answer.client);
        return answer.response.status;
    };
    CHECK(from("https://node.example:9092", "node.example:9092") == 101);
    CHECK(from("https://Node.Example", "node.example:443") == 101);
    CHECK(from("https://[::1]", "[::1]:443") == 101);
    CHECK(from("http://localhost", "localhost") == 101);
    for (const auto* origin : {"https://evil.example", "https://node.example", "https://node.example:9093", "null", "",
                               "https://node.example:9092.evil.example", "https://evil.example/node.example:9092"}) {
        CAPTURE(origin);
        CHECK(from(origin, "node.example:9092") == 403);
    }
    CHECK(from("https://evil.example", "node.example:9092", "?ticket=" + ways.ticket("vnc")) == 101);
    CHECK(from("https://node.example:9092", "node.example:9092", "?ticket=wrong") == 401);
}

TEST_CASE("a ticket opens one stream, for those who show nothing else, in its maker's name") {
    Ways ways;
    const auto knock = [&](const std::string& target) { return ways.open(target, "", as_anonymous); };
    const auto ticket = ways.ticket("forward", 22);
    CHECK(knock("/v1/vms/web/forward?port=22").response.status == 401);
    const auto first = knock("/v1/vms/web/forward?port=22&ticket=" + ticket);
    REQUIRE(first.client);
    CHECK(ways.logged_of("stream begins").front().find(" by=socket:uid:0 ") != std::string::npos);
    ways.leave(first.client);
    const auto sentence = knock("/v1/vms/web/forward?port=22&ticket=" + ticket).detail();
    (void)ways.create_vm("other");
    const auto wrong = [&](const std::string& target) {
        CAPTURE(target);
        const auto answer = knock(target);
        CHECK(answer.response.status == 401);
        CHECK(answer.code() == "unauthenticated");
        CHECK(answer.detail() == sentence);
    };
    wrong("/v1/vms/web/forward?port=23&ticket=" + ways.ticket("forward", 22));
    wrong("/v1/vms/other/forward?port=22&ticket=" + ways.ticket("forward", 22));
    wrong("/v1/vms/nobody/forward?port=22&ticket=" + ways.ticket("forward", 22));
    wrong("/v1/vms/web/console?ticket=" + ways.ticket("vnc"));
    wrong("/v1/vms/web/vnc?ticket=");
    wrong("/v1/vms/nobody/vnc?ticket=x");
    const auto late = ways.ticket("vnc");
    ways.pass(31s);
    wrong("/v1/vms/web/vnc?ticket=" + late);
    // Nothing else is opened by one.
    for (const auto* target :
         {"/v1/vms/web", "/v1/vms/web/screenshot", "/v1/vms/web/console/log", "/v1/events", "/v1"}) {
        CAPTURE(target);
        const auto answer = ways.get_as_is(std::string{target} + "?ticket=" + ways.ticket("console"), as_anonymous);
        CHECK(answer.response.status == 401);
    }
    CHECK(ways.ask(net::Method::post, "/v1/vms/web/tickets?ticket=" + ways.ticket("console"),
                   json::object{{"for", "vnc"}}, as_anonymous)
              .response.status == 401);
    // A look at the address alone doesn't use it up.
    const auto kept = ways.ticket("vnc");
    CHECK(ways.get_as_is("/v1/vms/web/vnc?ticket=" + kept, as_anonymous).response.status == 426);
    const auto client = knock("/v1/vms/web/vnc?ticket=" + kept);
    REQUIRE(client.client);
    ways.leave(client.client);
}

TEST_CASE("tickets are made for what there is, and in bounds") {
    Ways ways;
    const auto issue = [&](const std::string& vm, const json::value& body) {
        return ways.post("/v1/vms/" + vm + "/tickets", body);
    };
    CHECK(issue("nobody", json::object{{"for", "console"}}).status == 404);
    for (const json::value& body :
         {json::value(json::object{{"for", "forward"}}), json::value(json::object{{"for", "sftp"}}),
          json::value(json::object{{"for", "console"}, {"port", 22}}), json::value(json::object{}),
          json::value(json::object{{"for", "forward"}, {"port", 0}}),
          json::value(json::object{{"for", "vnc"}, {"more", 1}}), json::value(json::array{})}) {
        CAPTURE(json::serialize(body));
        const auto refused = issue("web", body);
        CHECK(refused.status == 422);
        CHECK(refused.text("/code") == "validation_failed");
    }
    for (int i = 0; i < 32; ++i) (void)ways.ticket("console");
    const auto refused = issue("web", json::object{{"for", "console"}});
    CHECK(refused.status == 429);
    CHECK(refused.text("/code") == "overloaded");
    ways.pass(30s);
    (void)ways.ticket("console");
    // Each request makes its own.
    const auto keyed = [](net::Request& request) { request.headers.set("Idempotency-Key", "k"); };
    const auto one = ways.call(net::Method::post, "/v1/vms/web/tickets", json::object{{"for", "vnc"}}, keyed);
    const auto two = ways.call(net::Method::post, "/v1/vms/web/tickets", json::object{{"for", "vnc"}}, keyed);
    CHECK(one.status == 201);
    CHECK(two.status == 201);
    CHECK(one.text("/ticket") != two.text("/ticket"));
}

TEST_CASE("the console's log is read from its end") {
    Ways ways;
    const auto path = ways.app->vms().find(ways.id)->plan.console_log;
    REQUIRE_FALSE(path.empty());
    const auto log = [&](const std::string& query) { return ways.get_as_is("/v1/vms/web/console/log" + query); };
    CHECK(log("").response.status == 404);
    ways.files.put(path, "booted\nlogin: \xff");
    ways.files.put(path + ".0", std::string(70'000, '.') + "kernel\n");
    const auto tail = log("?tail=20");
    CHECK(tail.response.status == 200);
    CHECK(tail.response.body == "rnel\nbooted\nlogin: \xff");
    CHECK(tail.response.content_type == "text/plain; charset=utf-8");
    CHECK(tail.response.headers.find("X-Content-Type-Options") == "nosniff");
    CHECK(log("").response.body.size() == 65'536);
    CHECK(log("?tail=1048576").response.body.size() == 70'000 + 7 + 15);
    for (const auto* query : {"?tail=0", "?tail=1048577", "?tail=all", "?head=1"})
        CHECK(log(query).response.status == 422);
    CHECK(ways.get_as_is("/v1/vms/nobody/console/log").response.status == 404);
    REQUIRE(ways.post("/v1/vms/web/stop?wait=60", {{"force", true}}).status == 200);
    CHECK(log("").response.status == 200);
}

TEST_CASE("a screenshot is taken once for all who ask at once, and at most once a second") {
    Ways ways;
    const auto shoot = [&](const std::string& none_match = "") {
        return ways.get_as_is("/v1/vms/web/screenshot", [&](net::Request& request) {
            if (!none_match.empty()) request.headers.set("If-None-Match", none_match);
        });
    };
    CHECK(shoot().response.status == 409);  // no display
    ways.hypervisor->set_screenshot(ways.id, {"image/png", "a picture"});
    const auto before = ways.hypervisor->count("screenshot");
    const auto etag = "\"" + net::sha256_hex("a picture") + "\"";
    const auto shot = shoot();
    CHECK(shot.response.status == 200);
    CHECK(shot.response.content_type == "image/png");
    CHECK(shot.response.body == "a picture");
    CHECK(shot.response.headers.find("ETag") == etag);
    CHECK(shot.response.headers.find("Cache-Control") == "no-store");
    ways.hypervisor->set_screenshot(ways.id, {"image/png", "another"});
    CHECK(shoot().response.body == "a picture");
    const auto same = shoot(etag);
    CHECK(same.response.status == 304);
    CHECK(same.response.body.empty());
    CHECK(same.response.headers.find("Cache-Control") == "no-store");
    CHECK(ways.hypervisor->count("screenshot") == before + 1);
    ways.pass(1s);
    CHECK(shoot(etag).response.body == "another");
    CHECK(ways.hypervisor->count("screenshot") == before + 2);
    ways.pass(1s);
    ways.hypervisor->answer_late("screenshot", 5s);
    std::vector<std::string> seen;
    for (int i = 0; i < 3; ++i) {
        net::Request request;
        request.path = "/v1/vms/web/screenshot";
        request.context = {"req-1", "", {base::Principal::Kind::socket, "uid:0", true}};
        asio::co_spawn(ways.loop, ways.app->api()(std::move(request)),
                       [&](const std::exception_ptr&, const net::Response& r) { seen.push_back(r.body); });
        ways.settle();
    }
    CHECK(ways.hypervisor->count("screenshot") == before + 3);
    CHECK(seen.empty());
    ways.pass(5s);
    CHECK(seen == std::vector<std::string>(3, "another"));
    ways.hypervisor->answer_late("screenshot", 0s);
    REQUIRE(ways.post("/v1/vms/web/stop?wait=60", {{"force", true}}).status == 200);
    CHECK(shoot().response.status == 409);
}

TEST_CASE("the writer's window is told to a guest that programs may be run in") {
    Ways ways;
    std::vector<std::string> ran;
    ways.hypervisor->on_guest_run = [&](const std::string&, const virt::GuestCommand& command) {
        std::string line;
        for (const auto& word : command.argv) line += (line.empty() ? "" : " ") + word;
        if (line.starts_with("stty ")) ran.push_back(line);
        return virt::GuestRun{.how = virt::GuestRun::How::exited};
    };
    const auto client = ways.must_open("/v1/vms/web/console");
    client->web.send_text(R"({"event":"resize","rows":24,"columns":80})");
    ways.pass(1s);
    CHECK(ran.empty());
    REQUIRE(ways.call(net::Method::patch, "/v1/vms/web?wait=60",
                      json::object{{"spec", json::object{{"guest_access", true}}}})
                .status == 200);
    client->web.send_text(R"({"event":"resize","rows":50,"columns":132})");
    ways.pass(1s);
    CHECK(ran == std::vector<std::string>{"stty -F /dev/ttyS0 rows 50 columns 132"});
    ways.leave(client);
}

TEST_CASE("when the agent stops, its streams' clients are told") {
    Ways ways;
    const auto console = ways.must_open("/v1/vms/web/console");
    const auto forward = ways.must_open("/v1/vms/web/forward?port=22", "");
    // The guest of one doesn't listen, so that nobody reads what its client sends.
    std::string much;
    much.resize(10'000'000, 'x');
    forward->web.send(std::move(much));
    ways.settle();
    CHECK(forward->web.unread() > 0);
    ways.shut_down();
    for (const auto* client : {&console, &forward}) {
        CHECK((*client)->web.goodbye == said(1001, "the agent is stopping"));
        CHECK((*client)->served);
    }
}

TEST_CASE("open streams and what they carried are among the figures") {
    Ways ways;
    ways.shut_down();
    ways.config.metrics.enabled = true;
    ways.config.metrics.listen_addr = "127.0.0.1:9091";
    ways.boot();
    const auto client = ways.must_open("/v1/vms/web/forward?port=22");
    client->web.send("12345");
    ways.settle();
    ways.says(ways.dialer->guests.front(), "123");
    net::Request request;
    request.method = net::Method::get;
    request.path = "/metrics";
    std::string figures;
    asio::co_spawn(ways.loop, ways.server->serve(net::parse_tcp_endpoint("127.0.0.1:9091").value(), std::move(request)),
                   [&](const std::exception_ptr&, const net::Response& r) { figures = r.body; });
    ways.settle();
    for (const auto* line : {"ghost_agent_streams{kind=\"forward\"} 1\n", "ghost_agent_streams{kind=\"console\"} 0\n",
                             "ghost_agent_stream_bytes_total{direction=\"in\",kind=\"forward\"} 5\n",
                             "ghost_agent_stream_bytes_total{direction=\"out\",kind=\"forward\"} 3\n"}) {
        CAPTURE(line, figures);
        CHECK(figures.find(line) != std::string::npos);
    }
    ways.leave(client);
}
