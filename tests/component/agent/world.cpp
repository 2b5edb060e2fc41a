#include "component/agent/world.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <exception>
#include <utility>

namespace ghost::tests {
namespace json = boost::json;

World::World() {
    config.state_dir = "/var/lib/ghost";
    config.api.listen_addr = {};
    config.metrics.enabled = false;
    config.resources.reserved_disk_gb = 1;
    files.put_directory("/var/lib/ghost");
    files.put(boot_id_file, "first\n");
}

World::~World() {
    if (app) shut_down();
}

// One that knows a Core keeps what that calls it.
heartbeat::Identity World::next_identity() {
    heartbeat::Identity identity{installation, "", ++epoch_};
    if (core == nullptr) return identity;
    const auto path = config.state_dir + "/identity.json";
    if (const auto* kept = files.find(path)) identity = heartbeat::next_identity(kept->bytes, clock, random).value();
    files.put(path, heartbeat::to_text(identity), 0600);
    return identity;
}

void World::boot() {
    REQUIRE(app == nullptr);
    auto domains = hypervisor ? hypervisor->all() : std::map<std::string, virt::DomainInfo>{};
    auto next = std::make_unique<fakes::FakeHypervisor>(loop, clock);
    for (auto& [uuid, domain] : domains) next->put(std::move(domain));
    if (before_boot) before_boot(*next);
    hypervisor = std::move(next);
    server = std::make_unique<fakes::MemoryServer>();
    store.reopen();
    app = std::make_unique<agent::App>(config, next_identity(),
                                       agent::Seams{.executor = loop.get_executor(),
                                                    .clock = clock,
                                                    .random = random,
                                                    .log = log,
                                                    .processes = processes,
                                                    .files = files,
                                                    .store = store,
                                                    .hypervisor = *hypervisor,
                                                    .server = *server,
                                                    .web = web,
                                                    .service_manager = service_manager,
                                                    .core = core,
                                                    .local_addresses = [this] { return local_addresses; },
                                                    .tailscaled = tailscaled,
                                                    .network = network,
                                                    .make_dialer = make_dialer,
                                                    .ports = ports,
                                                    .logind = logind});
    std::exception_ptr fault;
    boost::asio::co_spawn(loop, app->start(), [&fault](const std::exception_ptr& e) { fault = e; });
    settle();
    if (fault) std::rethrow_exception(fault);
}

void World::shut_down() {
    bool done = false;
    boost::asio::co_spawn(loop, app->stop(), [&done](const std::exception_ptr&) { done = true; });
    for (int i = 0; i < 1000 && !done; ++i) pass(std::chrono::milliseconds{100});
    REQUIRE(done);
    settle();
    app.reset();
    settle();
}

void World::crash() {
    // What the disks, the database and the hypervisor hold now is what the next agent finds; whatever this one still
    // does on its way out never happened.
    const auto disks = files;
    const auto rows = store;
    const auto domains = hypervisor->all();
    store.on_commit({});
    shut_down();
    files = disks;
    store = rows;
    store.on_commit({});
    hypervisor = std::make_unique<fakes::FakeHypervisor>(loop, clock);
    for (const auto& [uuid, domain] : domains) hypervisor->put(domain);
}

void World::settle() {
    loop.restart();
    while (loop.poll() > 0) loop.restart();
}

void World::pass(base::Duration span) {
    settle();
    clock.run_for(loop, span);
    settle();
}

net::Request World::make_request(net::Method method, const std::string& target, std::optional<json::value> body) const {
    net::Request request;
    const auto parsed = net::parse_target(target);
    REQUIRE(parsed);
    request.method = method;
    request.path = parsed->path;
    request.query = parsed->query;
    request.context = {"req-1", "", {base::Principal::Kind::socket, "uid:0", true}};
    if (body) {
        request.body = json::serialize(*body);
        request.headers.set("Content-Type", "application/json");
    }
    return request;
}

Reply World::to_reply(const net::Response& response) const {
    Reply reply{response.status, nullptr, response.headers};
    if (!response.body.empty()) reply.body = json::parse(response.body);
    return reply;
}

Reply World::call(net::Method method, std::string target, std::optional<json::value> body,
                  const std::function<void(net::Request&)>& arrange) {
    auto request = make_request(method, target, std::move(body));
    if (arrange) arrange(request);
    std::optional<Reply> reply;
    boost::asio::co_spawn(loop, app->api()(std::move(request)),
                          [&](const std::exception_ptr& e, const net::Response& r) {
                              if (e) std::rethrow_exception(e);
                              reply = to_reply(r);
                          });
    settle();
    for (int i = 0; i < 4000 && !reply; ++i) pass(std::chrono::milliseconds{100});
    REQUIRE(reply);
    return *reply;
}

Reply World::call_at(const std::string& address, const std::string& path) {
    auto request = make_request(net::Method::get, path, {});
    request.context.who = {};
    std::optional<Reply> reply;
    boost::asio::co_spawn(loop, server->serve(net::parse_tcp_endpoint(address).value(), std::move(request)),
                          [&](const std::exception_ptr& e, const net::Response& r) {
                              if (e) std::rethrow_exception(e);
                              reply = to_reply(r);
                          });
    settle();
    REQUIRE(reply);
    return *reply;
}

std::shared_ptr<std::optional<Reply>> World::send(net::Method method, std::string target,
                                                  std::optional<json::value> body,
                                                  const std::function<void(net::Request&)>& arrange) {
    auto reply = std::make_shared<std::optional<Reply>>();
    auto request = make_request(method, target, std::move(body));
    if (arrange) arrange(request);
    boost::asio::co_spawn(loop, app->api()(std::move(request)),
                          [this, reply](const std::exception_ptr& e, const net::Response& r) {
                              if (e) std::rethrow_exception(e);
                              *reply = to_reply(r);
                          });
    return reply;
}

std::shared_ptr<std::optional<Reply>> World::begin(net::Method method, std::string target,
                                                   std::optional<json::value> body) {
    auto reply = send(method, std::move(target), std::move(body));
    settle();
    return reply;
}

void World::add_image() {
    files.put("/images/tiny.qcow2", fakes::qcow2_bytes(1ULL << 30));
    const auto added = post("/v1/images?wait=60", {{"source", "file:///images/tiny.qcow2"}});
    INFO(json::serialize(added.body));
    REQUIRE(added.status == 201);
}

std::string World::create_vm(std::string name) {
    const auto made = post("/v1/vms?wait=60", vm_body(std::move(name)));
    INFO(json::serialize(made.body));
    REQUIRE(made.status == 201);
    return made.text("/id");
}

json::object vm_body(std::string name, json::object spec) {
    if (!spec.contains("image")) spec["image"] = "tiny";
    if (!spec.contains("disk_gib")) spec["disk_gib"] = 2;
    if (!spec.contains("memory_mib")) spec["memory_mib"] = 512;
    if (!spec.contains("vcpus")) spec["vcpus"] = 1;
    return {{"name", std::move(name)}, {"spec", std::move(spec)}};
}

}  // namespace ghost::tests
