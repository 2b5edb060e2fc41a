#include "component/agent/forwards_scene.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <chrono>
#include <thread>
#include <utility>

namespace ghost::tests {
namespace asio = boost::asio;
namespace ip = boost::asio::ip;
namespace json = boost::json;
using boost::system::error_code;

namespace {

// Knows no network: addresses lead to where the scene says, others nowhere.
class SceneDialer final : public agent::GuestDialer {
public:
    explicit SceneDialer(GuestAddresses& guests) : guests_(guests) {}

    Task<net::StreamSocket> connect(agent::GuestPlace to, std::uint16_t port, base::Instant) override {
        guests_.asked.push_back(port);
        if (to.addresses.empty()) co_return base::fail(base::Errc::state_conflict, "the guest has no address yet");
        const auto guest = guests_.tcp.find(to.addresses.front());
        if (guest == guests_.tcp.end()) co_return base::fail(base::Errc::source_unavailable, "nobody is there");
        ip::tcp::socket socket{co_await asio::this_coro::executor};
        const auto [error] = co_await socket.async_connect(guest->second, asio::as_tuple(asio::use_awaitable));
        if (error) co_return base::fail(base::Errc::source_unavailable, error.message());
        co_return net::StreamSocket{std::move(socket)};
    }

    Task<ip::udp::socket> connect_udp(agent::GuestPlace to, std::uint16_t port, base::Instant) override {
        guests_.asked.push_back(port);
        if (to.addresses.empty()) co_return base::fail(base::Errc::state_conflict, "the guest has no address yet");
        const auto guest = guests_.udp.find(to.addresses.front());
        if (guest == guests_.udp.end()) co_return base::fail(base::Errc::source_unavailable, "nobody is there");
        ip::udp::socket socket{co_await asio::this_coro::executor, ip::udp::v4()};
        socket.connect(guest->second);
        co_return std::move(socket);
    }

    bool leads_to(const agent::GuestPlace& to, const ip::address& address) override {
        const auto text = address.to_string();
        return std::ranges::find(to.addresses, text) != to.addresses.end() && !guests_.others.contains(text);
    }

private:
    GuestAddresses& guests_;
};

}  // namespace

End::End(ForwardsScene& scene, ip::tcp::socket socket) : scene_(&scene), socket_(std::move(socket)) {
    socket_.non_blocking(true);
}

std::size_t End::send_all_that_fits(std::size_t limit) {
    const std::string piece(64 * 1024, 'x');
    std::size_t sent = 0;
    for (int idle = 0; sent < limit && idle < 50;) {
        error_code error;
        const auto moved = socket_.write_some(asio::buffer(piece.data(), std::min(piece.size(), limit - sent)), error);
        sent += moved;
        idle = moved > 0 ? 0 : idle + 1;
        scene_->settle();
        if (moved == 0) std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    return sent;
}

void End::send(std::string_view bytes) {
    scene_->until([&] {
        error_code error;
        bytes.remove_prefix(socket_.write_some(asio::buffer(bytes), error));
        return bytes.empty();
    });
    scene_->settle();
}

std::optional<std::string> End::read(std::size_t most, error_code& error) {
    std::string bytes(most, '\0');
    bytes.resize(socket_.read_some(asio::buffer(bytes), error));
    if (error == asio::error::would_block) {
        error.clear();
        return std::nullopt;
    }
    return bytes;
}

std::string End::receive(std::size_t bytes) {
    std::string all;
    scene_->until([&] {
        error_code error;
        if (const auto more = read(bytes - all.size(), error)) all += *more;
        REQUIRE_FALSE(error);
        return all.size() == bytes;
    });
    return all;
}

std::string End::receive_all() {
    std::string all;
    scene_->until([&] {
        error_code error;
        if (const auto more = read(64 * 1024, error)) all += *more;
        REQUIRE((!error || error == asio::error::eof));
        return error == asio::error::eof;
    });
    return all;
}

error_code End::ends() {
    error_code error;
    scene_->until([&] {
        (void)read(64 * 1024, error);
        return static_cast<bool>(error);
    });
    return error;
}

TcpGuest::TcpGuest(ForwardsScene& scene, const char* address)
    : scene_(&scene), acceptor_(scene.loop, {ip::make_address(address), 0}) {
    acceptor_.non_blocking(true);
}

End TcpGuest::accept() {
    std::optional<ip::tcp::socket> accepted;
    scene_->until([&] {
        error_code error;
        ip::tcp::socket socket{scene_->loop};
        acceptor_.accept(socket, error);
        if (!error) accepted.emplace(std::move(socket));
        return accepted.has_value();
    });
    return {*scene_, std::move(*accepted)};
}

bool TcpGuest::is_called() {
    scene_->settle();
    error_code error;
    ip::tcp::socket socket{scene_->loop};
    acceptor_.accept(socket, error);
    return !error;
}

UdpEnd::UdpEnd(ForwardsScene& scene, const char* address)
    : scene_(&scene), socket_(scene.loop, {ip::make_address(address), 0}) {
    socket_.non_blocking(true);
}

void UdpEnd::send(std::string_view datagram, const ip::udp::endpoint& to) {
    socket_.send_to(asio::buffer(datagram), to);
    scene_->settle();
}

std::string UdpEnd::receive(ip::udp::endpoint& from) {
    std::string datagram(64 * 1024, '\0');
    scene_->until([&] {
        error_code error;
        const auto length = socket_.receive_from(asio::buffer(datagram), from, 0, error);
        if (!error) datagram.resize(length);
        return !error;
    });
    return datagram;
}

ForwardsScene::ForwardsScene() : local_ports(agent::make_local_ports(loop.get_executor(), files)) {
    make_dialer = [this](const agent::VmIndex&) { return std::make_unique<SceneDialer>(guests); };
    ports = local_ports.get();
    boot();
    add_image();
}

std::string ForwardsScene::create(const std::string& name, json::object forwards, const std::string& address) {
    const auto made = post("/v1/vms?wait=60", vm_body(name, {{"forwards", std::move(forwards)}}));
    INFO(json::serialize(made.body));
    REQUIRE(made.status == 201);
    auto id = made.text("/id");
    give_address(id, address);
    return id;
}

void ForwardsScene::give_address(const std::string& id, const std::string& address) {
    hypervisor->set_addresses(id, address.empty() ? std::vector<std::string>{} : std::vector{address});
    pass(agent::GuestSampler::agent_interval + std::chrono::seconds{5});
}

std::string ForwardsScene::lead_to(const TcpGuest& guest) {
    auto address = guest.endpoint().address().to_string();
    guests.tcp[address] = guest.endpoint();
    return address;
}

std::string ForwardsScene::lead_to(const UdpEnd& guest) {
    auto address = guest.endpoint().address().to_string();
    guests.udp[address] = guest.endpoint();
    return address;
}

End ForwardsScene::connect(std::uint16_t port) {
    ip::tcp::socket socket{loop};
    socket.connect({ip::address_v4::loopback(), port});
    return {*this, std::move(socket)};
}

bool ForwardsScene::is_refused(std::uint16_t port) {
    ip::tcp::socket socket{loop};
    error_code error;
    socket.connect({ip::address_v4::loopback(), port}, error);
    return error == asio::error::connection_refused;
}

std::string ForwardsScene::forwards_ready(const std::string& vm) {
    settle();
    const auto reply = get("/v1/vms/" + vm);
    for (const auto& condition : reply.at("/status/conditions").as_array()) {
        if (condition.at("type") != "ForwardsReady") continue;
        auto text = std::string{condition.at("status").as_string()} + " " + condition.at("reason").as_string().c_str();
        if (const auto* message = condition.as_object().if_contains("message"))
            text += std::string{": "} + message->as_string().c_str();
        return text;
    }
    return {};
}

Reply ForwardsScene::patch(const std::string& vm, json::object spec) {
    return call(net::Method::patch, "/v1/vms/" + vm + "?wait=60", json::object{{"spec", std::move(spec)}});
}

void ForwardsScene::until(const std::function<bool()>& holds) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    for (settle(); !holds(); settle()) {
        if (std::chrono::steady_clock::now() > limit) FAIL("it doesn't come to be");
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
}

std::uint16_t free_tcp_port() {
    asio::io_context loop;
    return ip::tcp::acceptor{loop, {ip::address_v4::loopback(), 0}}.local_endpoint().port();
}

std::uint16_t free_udp_port() {
    asio::io_context loop;
    return ip::udp::socket{loop, {ip::address_v4::loopback(), 0}}.local_endpoint().port();
}

json::object forward_to(std::uint16_t host_port, std::uint16_t guest_port, json::object more) {
    more["host_port"] = host_port;
    more["guest_port"] = guest_port;
    return more;
}

}  // namespace ghost::tests
