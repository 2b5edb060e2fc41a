#include "agent/forwards/forward_service.hpp"
#include "component/agent/forwards_scene.hpp"
#include "fakes/fake_tailscaled.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <unistd.h>

#include <algorithm>
#include <utility>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace ip = boost::asio::ip;
namespace json = boost::json;

namespace {

ip::udp::endpoint at(std::uint16_t port) { return {ip::address_v4::loopback(), port}; }

// The VM web, whose port 80 is forwarded.
struct OneForward : ForwardsScene {
    TcpGuest guest{*this};
    std::uint16_t port = free_tcp_port();
    std::string id = create("web", {{"http", forward_to(port, 80)}}, lead_to(guest));

    // A connection through it: the client's end and the guest's.
    std::pair<End, End> use() {
        auto client = connect(port);
        auto inside = guest.accept();
        return {std::move(client), std::move(inside)};
    }
};

}  // namespace

TEST_CASE("a forward leads to the guest's port and back") {
    OneForward scene;
    CHECK(scene.forwards_ready("web") == "true listening");
    auto [client, inside] = scene.use();
    client.send("hello");
    CHECK(inside.receive(5) == "hello");
    inside.send("welcome");
    CHECK(client.receive(7) == "welcome");
    CHECK(scene.guests.asked == std::vector<std::uint16_t>{80});
}

TEST_CASE("a client that sends no more is still answered") {
    OneForward scene;
    auto [client, inside] = scene.use();
    client.send("that is all");
    client.send_no_more();
    CHECK(inside.receive_all() == "that is all");
    inside.send("and this, too");
    CHECK(client.receive(13) == "and this, too");
    inside.send_no_more();
    CHECK(client.receive_all().empty());
}

TEST_CASE("a guest's failure is the client's, too") {
    ForwardsScene scene;
    const auto port = free_tcp_port();
    std::optional<TcpGuest> guest{std::in_place, scene};
    scene.create("web", {{"http", forward_to(port, 80)}}, scene.lead_to(*guest));
    auto client = scene.connect(port);
    {
        auto inside = guest->accept();
        client.send("unread");  // so that closing it is a reset
        scene.settle();
    }
    CHECK(client.ends() == asio::error::connection_reset);
    guest.reset();
    CHECK(scene.connect(port).ends() == asio::error::connection_reset);
    CHECK(scene.connect(port).ends() == asio::error::connection_reset);
    scene.log.flush();
    const auto messages = scene.logged.messages();
    CHECK(std::ranges::count(messages, "a forward doesn't reach the guest") == 1);
}

TEST_CASE("each new connection goes to the address that the guest has then") {
    ForwardsScene scene;
    TcpGuest before{scene};
    TcpGuest after{scene, second_address};
    const auto port = free_tcp_port();
    const auto id = scene.create("web", {{"http", forward_to(port, 80)}}, scene.lead_to(before));
    auto old_client = scene.connect(port);
    auto old_inside = before.accept();
    scene.give_address(id, scene.lead_to(after));
    auto client = scene.connect(port);
    auto inside = after.accept();
    client.send("new");
    CHECK(inside.receive(3) == "new");
    old_client.send("old");
    CHECK(old_inside.receive(3) == "old");
    scene.guests.tcp.erase(second_address);
    CHECK(scene.connect(port).ends() == asio::error::connection_reset);
}

TEST_CASE("a port that another program has is named with it, and taken once it is free") {
    ForwardsScene scene;
    TcpGuest guest{scene};
    std::optional<ip::tcp::acceptor> other{std::in_place, scene.loop, ip::tcp::endpoint{ip::address_v4::loopback(), 0}};
    const auto port = other->local_endpoint().port();
    scene.create("web", {{"http", forward_to(port, 80)}}, scene.lead_to(guest));
    CHECK_THAT(scene.forwards_ready("web"),
               Catch::StartsWith("false port_taken: http: 127.0.0.1:" + std::to_string(port) + " is taken by ") &&
                   Catch::EndsWith("(pid " + std::to_string(::getpid()) + ")"));
    const auto etag = [&scene] { return std::string{scene.get("/v1/vms/web").headers.find("ETag").value_or("")}; };
    const auto before = etag();
    scene.pass(10s);
    CHECK(etag() == before);
    other.reset();
    scene.pass(agent::ForwardService::retry + 1s);
    CHECK(scene.forwards_ready("web") == "true listening");
    auto client = scene.connect(port);
    (void)guest.accept();
}

TEST_CASE("of two VMs that want a port the second is told of the first, and follows it") {
    ForwardsScene scene;
    TcpGuest first{scene};
    TcpGuest second{scene, second_address};
    const auto port = free_tcp_port();
    const auto address = std::to_string(port);
    scene.create("one", {{"http", forward_to(port, 80)}}, scene.lead_to(first));
    scene.create("two", {{"web", forward_to(port, 80)}}, scene.lead_to(second));
    CHECK(scene.forwards_ready("one") == "true listening");
    CHECK(scene.forwards_ready("two") ==
          "false port_taken: web: 127.0.0.1:" + address + " is taken by VM one's forward http");
    REQUIRE(scene.patch("one", {{"forwards", {{"http", nullptr}}}}).status == 200);
    CHECK(scene.forwards_ready("one").empty());
    CHECK(scene.forwards_ready("two") == "true listening");
    auto client = scene.connect(port);
    (void)second.accept();
}

TEST_CASE("a forward that is taken away ends with what goes through it") {
    ForwardsScene scene;
    TcpGuest guest{scene};
    const auto port = free_tcp_port();
    const auto other = free_tcp_port();
    scene.create("web", {{"http", forward_to(port, 80)}, {"ssh", forward_to(other, 22)}}, scene.lead_to(guest));
    auto client = scene.connect(port);
    auto inside = guest.accept();
    auto stays = scene.connect(other);
    auto stays_inside = guest.accept();
    SECTION("by a patch") { REQUIRE(scene.patch("web", {{"forwards", {{"http", nullptr}}}}).status == 200); }
    SECTION("by another port") {
        REQUIRE(scene.patch("web", {{"forwards", {{"http", {{"host_port", free_tcp_port()}}}}}}).status == 200);
    }
    CHECK(client.ends());
    CHECK(inside.ends());
    CHECK(scene.is_refused(port));
    stays.send("on");
    CHECK(stays_inside.receive(2) == "on");
}

TEST_CASE("a VM that is stopped or deleted gives its ports back at once") {
    OneForward scene;
    auto [client, inside] = scene.use();
    if (GENERATE(true, false)) {
        REQUIRE(scene.post("/v1/vms/web/stop?wait=60").status == 200);
        CHECK(scene.forwards_ready("web").empty());
    } else {
        REQUIRE(scene.call(net::Method::del, "/v1/vms/web?wait=60").status == 200);
    }
    CHECK(client.ends());
    CHECK(inside.ends());
    CHECK(scene.is_refused(scene.port));
}

TEST_CASE("a guest that turns itself off is waited for, as it is wanted on") {
    OneForward scene;
    auto [client, inside] = scene.use();
    scene.hypervisor->guest_powers_off(scene.id);
    scene.pass(1s);
    CHECK(client.ends());
    CHECK(inside.ends());
    CHECK(scene.forwards_ready("web") == "true listening");
    CHECK(scene.connect(scene.port).ends() == asio::error::connection_reset);
}

TEST_CASE("an agent that starts again listens as before, and one that stops listens no more") {
    OneForward scene;
    auto [client, inside] = scene.use();
    scene.shut_down();
    CHECK(client.ends());
    CHECK(inside.ends());
    CHECK(scene.is_refused(scene.port));
    scene.boot();
    scene.give_address(scene.id, first_address);
    CHECK(scene.forwards_ready("web") == "true listening");
    auto again = scene.connect(scene.port);
    (void)scene.guest.accept();
}

TEST_CASE("what the configuration doesn't allow is refused, and ends when it is taken back") {
    ForwardsScene scene;
    const auto port = free_tcp_port();
    const json::object wide{{"http", forward_to(port, 80, {{"host_address", "0.0.0.0"}})}};
    const auto refused = scene.post("/v1/vms", vm_body("web", {{"forwards", wide}}));
    CHECK(refused.status == 422);
    CHECK(refused.text("/errors/0/pointer") == "/spec/forwards/http/host_address");
    CHECK_THAT(refused.text("/detail"), Catch::Contains("forwards.all_addresses"));

    auto config = scene.config;
    config.forwards.all_addresses = true;
    scene.app->reload({config, nullptr});
    TcpGuest guest{scene};
    scene.create("web", wide, scene.lead_to(guest));
    CHECK(scene.forwards_ready("web") == "true listening");
    auto client = scene.connect(port);
    auto inside = guest.accept();

    scene.app->reload({scene.config, nullptr});
    CHECK_THAT(scene.forwards_ready("web"), Catch::StartsWith("false not_allowed: http: 0.0.0.0 is every address"));
    CHECK(client.ends());
    CHECK(scene.is_refused(port));
    // What stands there doesn't keep the VM from being changed.
    CHECK(scene.patch("web", {{"guest_access", true}}).status == 200);
    CHECK(scene.patch("web", {{"forwards", {{"http", {{"guest_port", 81}}}}}}).status == 422);
}

TEST_CASE("a dry run says what would be forwarded") {
    ForwardsScene scene;
    const auto port = free_tcp_port();
    const auto text = "forward 127.0.0.1:" + std::to_string(port) + "/tcp to the guest's port 80 (http)";
    const auto says = [](const Reply& reply, std::string_view wanted) {
        INFO(json::serialize(reply.body));
        REQUIRE(reply.status == 200);
        const auto& would = reply.at("/would").as_array();
        return std::ranges::find(would, json::value(wanted)) != would.end();
    };
    CHECK(says(scene.post("/v1/vms?dry_run=true", vm_body("web", {{"forwards", {{"http", forward_to(port, 80)}}}})),
               text));
    scene.create_vm("web");
    const auto dry = [&](json::object spec) {
        return scene.call(net::Method::patch, "/v1/vms/web?dry_run=true", json::object{{"spec", std::move(spec)}});
    };
    CHECK(says(dry({{"forwards", {{"http", forward_to(port, 80)}}}}), text));
    CHECK(says(dry({{"guest_access", true}}), "change spec.guest_access from false to true"));
    REQUIRE(scene.patch("web", {{"forwards", {{"http", forward_to(port, 80)}}}}).status == 200);
    CHECK(says(dry({{"forwards", {{"http", {{"guest_port", 81}}}}}}),
               "change the forward http from 127.0.0.1:" + std::to_string(port) +
                   "/tcp to the guest's port 80 to 127.0.0.1:" + std::to_string(port) + "/tcp to the guest's port 81"));
    CHECK(says(dry({{"forwards", nullptr}}), "no longer " + text));
}

TEST_CASE("forwards are part of the VM's record") {
    ForwardsScene scene;
    const auto port = free_tcp_port();
    const auto id = scene.create("web", {{"http", forward_to(port, 80)}}, "");
    const auto record = scene.hypervisor->all().at(id).record;
    REQUIRE(record);
    CHECK(agent::vm_from_document(*record)->spec.forwards.at("http").host_port == port);
    REQUIRE(scene.patch("web", {{"forwards", {{"http", {{"guest_port", 81}}}}}}).status == 200);
    CHECK(agent::vm_from_document(*scene.hypervisor->all().at(id).record)->spec.forwards.at("http").guest_port == 81);
    const auto shown = scene.get("/v1/vms/web");
    CHECK(shown.at("/spec/forwards/http") ==
          json::value{{"host_address", "127.0.0.1"}, {"host_port", port}, {"guest_port", 81}, {"protocol", "tcp"}});
    CHECK(shown.at("/generation").to_number<int>() == 2);
}

TEST_CASE("a reader that is slow holds up its own connection only") {
    OneForward scene;
    auto [slow, slow_inside] = scene.use();
    auto [quick, quick_inside] = scene.use();
    constexpr std::size_t much = 256U << 20U;
    const auto fitted = slow_inside.send_all_that_fits(much);
    CHECK(fitted < much);
    quick_inside.send("quick");
    CHECK(quick.receive(5) == "quick");
    quick.send("too");
    CHECK(quick_inside.receive(3) == "too");
    CHECK(slow.receive(fitted) == std::string(fitted, 'x'));
}

TEST_CASE("a connection over which nothing comes or goes is closed in the end") {
    OneForward scene;
    auto [client, inside] = scene.use();
    scene.pass(3h);
    client.send("still here");
    CHECK(inside.receive(10) == "still here");
    scene.pass(3h);
    inside.send("me, too");
    CHECK(client.receive(7) == "me, too");
    scene.pass(4h + 1min);
    CHECK(client.ends() == asio::error::eof);
    CHECK(inside.ends() == asio::error::eof);
}

TEST_CASE("more connections than a forward may have wait until others end") {
    OneForward scene;
    std::vector<End> clients;
    std::vector<End> inside;
    for (std::size_t i = 0; i < agent::max_connections_of_forward; ++i) {
        auto [client, guests] = scene.use();
        clients.push_back(std::move(client));
        inside.push_back(std::move(guests));
    }
    auto late = scene.connect(scene.port);
    late.send("patience");
    CHECK_FALSE(scene.guest.is_called());
    clients.pop_back();
    inside.pop_back();
    CHECK(scene.guest.accept().receive(8) == "patience");
}

TEST_CASE("a forward in the tailnet listens at the addresses that this host has there") {
    fakes::FakeTailscaled daemon;
    daemon.addresses = {};
    daemon.backend = "Stopped";
    ForwardsScene scene;
    scene.shut_down();
    scene.tailscaled = &daemon.client;
    scene.files.put(fakes::FakeTailscaled::socket, "");
    scene.boot();
    TcpGuest guest{scene};
    const auto port = free_tcp_port();
    scene.create("web", {{"http", forward_to(port, 80, {{"host_address", "tailscale"}})}}, scene.lead_to(guest));
    CHECK(scene.forwards_ready("web") == "false no_tailnet: http: this host has no address in a tailnet now");
    // It is this machine's own, as one in a tailnet is.
    daemon.addresses = {"127.0.0.2"};
    daemon.backend = "Running";
    scene.pass(15s);
    CHECK(scene.forwards_ready("web") == "true listening");
    CHECK(scene.is_refused(port));
    ip::tcp::socket client{scene.loop};
    client.connect({ip::make_address("127.0.0.2"), port});
    (void)guest.accept();
    // Not assigned (yet): RFC 5737's documentation.
    daemon.addresses = {"192.0.2.77"};
    scene.pass(15s);
    CHECK_THAT(
        scene.forwards_ready("web"),
        Catch::StartsWith("false not_listening: http: 192.0.2.77:" + std::to_string(port) + " can't be listened on: "));
}

TEST_CASE("datagrams go to the guest and their answers back to each client") {
    ForwardsScene scene;
    UdpEnd guest{scene, first_address};
    UdpEnd one{scene};
    UdpEnd two{scene};
    const auto port = free_udp_port();
    scene.create("dns", {{"dns", forward_to(port, 53, {{"protocol", "udp"}})}}, scene.lead_to(guest));
    CHECK(scene.forwards_ready("dns") == "true listening");
    ip::udp::endpoint way_of_one;
    ip::udp::endpoint way_of_two;
    one.send("from one", at(port));
    CHECK(guest.receive(way_of_one) == "from one");
    two.send("from two", at(port));
    CHECK(guest.receive(way_of_two) == "from two");
    CHECK(way_of_one != way_of_two);
    guest.send("to two", way_of_two);
    guest.send("to one", way_of_one);
    guest.send("", way_of_one);
    ip::udp::endpoint from;
    CHECK(one.receive(from) == "to one");
    CHECK(from == at(port));
    CHECK(one.receive().empty());
    CHECK(two.receive() == "to two");
    const std::string largest(65'507, 'x');
    one.send(largest, at(port));
    CHECK(guest.receive(from) == largest);
    CHECK(from == way_of_one);
    guest.send(largest, way_of_one);
    CHECK(one.receive() == largest);
    CHECK(scene.guests.asked == std::vector<std::uint16_t>{53, 53});
}

TEST_CASE("datagrams follow the guest to another address, and a silent client is forgotten") {
    ForwardsScene scene;
    UdpEnd before{scene, first_address};
    UdpEnd after{scene, second_address};
    UdpEnd client{scene};
    const auto port = free_udp_port();
    const auto id = scene.create("dns", {{"dns", forward_to(port, 53, {{"protocol", "udp"}})}}, scene.lead_to(before));
    ip::udp::endpoint way;
    client.send("1", at(port));
    CHECK(before.receive(way) == "1");
    scene.pass(agent::flow_idle / 2);
    REQUIRE(scene.patch("dns", {{"guest_access", true}}).status == 200);  // whatever else changes of the VM
    client.send("2", at(port));
    ip::udp::endpoint same;
    CHECK(before.receive(same) == "2");
    CHECK(same == way);
    scene.pass(agent::flow_idle * 2);
    client.send("3", at(port));
    CHECK(before.receive() == "3");
    CHECK(scene.guests.asked.size() == 2);

    scene.guests.udp.erase(first_address);
    scene.give_address(id, second_address);
    client.send("lost", at(port));
    CHECK_FALSE(before.has_one());
    scene.lead_to(after);
    client.send("4", at(port));
    CHECK(after.receive(way) == "4");
    after.send("5", way);
    CHECK(client.receive() == "5");
}

TEST_CASE("datagrams don't go on to an address that has become somebody else's") {
    ForwardsScene scene;
    UdpEnd guest{scene, first_address};
    UdpEnd client{scene};
    const auto port = free_udp_port();
    scene.create("dns", {{"dns", forward_to(port, 53, {{"protocol", "udp"}})}}, scene.lead_to(guest));
    ip::udp::endpoint way;
    client.send("1", at(port));
    CHECK(guest.receive(way) == "1");
    // The guest goes on claiming it.
    scene.guests.others.insert(first_address);
    scene.guests.udp.erase(first_address);
    scene.pass(6s);
    guest.send("from another", way);
    client.send("2", at(port));
    scene.pass(1s);
    CHECK_FALSE(guest.has_one());
    CHECK_FALSE(client.has_one());
    CHECK(scene.guests.asked.size() == 2);
}

TEST_CASE("a port of UDP is taken, too") {
    ForwardsScene scene;
    std::optional<UdpEnd> other{std::in_place, scene};
    const auto port = other->endpoint().port();
    UdpEnd guest{scene, first_address};
    scene.create("dns", {{"dns", forward_to(port, 53, {{"protocol", "udp"}})}}, scene.lead_to(guest));
    CHECK_THAT(scene.forwards_ready("dns"),
               Catch::StartsWith("false port_taken: dns: 127.0.0.1:" + std::to_string(port) + " is taken by ") &&
                   Catch::EndsWith("(pid " + std::to_string(::getpid()) + ")"));
    other.reset();
    scene.pass(agent::ForwardService::retry + 1s);
    CHECK(scene.forwards_ready("dns") == "true listening");
    UdpEnd client{scene};
    client.send("now", at(port));
    CHECK(guest.receive() == "now");
}
