#include "agent/api/openapi.hpp"
#include "agent/api/problem.hpp"
#include "component/agent/world.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <functional>
#include <set>

using namespace ghost;
using namespace ghost::tests;
namespace json = boost::json;

namespace {

void as_anonymous(net::Request& request) { request.context.who = {}; }

}  // namespace

TEST_CASE("without proof of identity only the health paths answer, and without reasons") {
    World world;
    world.boot();
    for (const auto* path : {"/v1", "/v1/vms", "/v1/operations", "/v1/openapi.json", "/nothing"}) {
        CAPTURE(path);
        const auto refused = world.call(net::Method::get, path, {}, as_anonymous);
        CHECK(refused.status == 401);
        CHECK(refused.text("/code") == "unauthenticated");
    }
    const auto health = world.call(net::Method::get, "/health", {}, as_anonymous);
    CHECK(health.status == 200);
    CHECK(health.text("/checks/libvirt/status") == "up");
    CHECK_FALSE(json::serialize(health.body).contains("since"));
    CHECK(world.call(net::Method::get, "/ready", {}, as_anonymous).status == 200);
    CHECK(world.call(net::Method::get, "/live", {}, as_anonymous).status == 200);
}

TEST_CASE("a health path of the operator's own stands beside /health") {
    World world;
    world.config.health.path = "/healthz";
    world.config.health.listen_addr = "127.0.0.1:9093";
    world.boot();
    for (const auto* path : {"/health", "/healthz", "/ready", "/live"}) {
        CAPTURE(path);
        CHECK(world.call(net::Method::get, path, {}, as_anonymous).status == 200);
        CHECK(world.call_at("127.0.0.1:9093", path).status == 200);
    }
    CHECK(world.call(net::Method::get, "/healthy", {}, as_anonymous).status == 401);
    CHECK(world.call_at("127.0.0.1:9093", "/v1").status == 404);
}

TEST_CASE("a listener that can't be opened is told with its setting") {
    World world;
    world.config.metrics.enabled = true;
    world.config.metrics.listen_addr = "127.0.0.1:9093";
    world.config.health.listen_addr = "127.0.0.1:9093";
    CHECK_THROWS_WITH(world.boot(), Catch::StartsWith("metrics.listen_addr: cannot listen on 127.0.0.1:9093: "));
}

TEST_CASE("certificates that can't be used are told with their settings") {
    World world;
    world.config.api.listen_addr = {"127.0.0.1:9092"};
    world.config.api.tls = {.cert = "/nowhere/a.crt", .key = "/nowhere/a.key", .ca = "/nowhere/ca.crt"};
    CHECK_THROWS_WITH(world.boot(),
                      Catch::StartsWith("api.tls_cert, api.tls_key, api.tls_ca: cannot open /nowhere/a.crt: "));
}

TEST_CASE("a page of another origin changes nothing, whatever certificate its browser sends along") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    const auto reset_from = [&world, &id](const char* origin) {
        return world.call(net::Method::post, "/v1/vms/" + id + "/reset?wait=60", {}, [&](net::Request& request) {
            request.headers.set("Host", "node.example:9092");
            request.headers.set("Origin", origin);
            request.headers.set("Content-Type", "application/x-www-form-urlencoded");
        });
    };
    for (const auto* origin :
         {"https://elsewhere.example", "https://node.example", "http://node.example:9092.evil", "null", ""}) {
        CAPTURE(origin);
        const auto refused = reset_from(origin);
        CHECK(refused.status == 403);
        CHECK(refused.text("/code") == "forbidden");
    }
    CHECK(world.hypervisor->count("reset") == 0);
    CHECK(reset_from("https://node.example:9092").status == 200);
    // Who reads changes nothing; an answer is shown to pages of its own origin alone.
    CHECK(world
              .call(net::Method::get, "/v1/vms", {},
                    [](net::Request& request) { request.headers.set("Origin", "https://elsewhere.example"); })
              .status == 200);
}

TEST_CASE("a known peer that is no admin is forbidden") {
    World world;
    world.boot();
    const auto reply = world.call(net::Method::get, "/v1/vms", {}, [](net::Request& request) {
        request.context.who = {base::Principal::Kind::socket, "uid:1000", false};
    });
    CHECK(reply.status == 403);
}

TEST_CASE("every fault of a body is told with its place, and nothing changes") {
    World world;
    world.boot();
    world.add_image();
    const auto reply = world.post("/v1/vms", json::object{{"name", "../x"},
                                                          {"colour", "red"},
                                                          {"spec",
                                                           {{"image", "tiny"},
                                                            {"memory_mib", -1},
                                                            {"vcpus", "two"},
                                                            {"power", "maybe"},
                                                            {"nics", {{"eth0", {{"network", "a<b"}}}}}}}});
    CHECK(reply.status == 422);
    std::set<std::string> pointers;
    for (const auto& fault : reply.at("/errors").as_array()) pointers.emplace(fault.at("pointer").as_string());
    CHECK(pointers == std::set<std::string>{"/name", "/colour", "/spec/memory_mib", "/spec/vcpus", "/spec/power",
                                            "/spec/nics/eth0/network"});
    CHECK(world.get("/v1/vms").at("/items").as_array().empty());
    CHECK(world.get("/v1/operations?kind=vm.create").at("/items").as_array().empty());
}

TEST_CASE("hostile names are refused") {
    World world;
    world.boot();
    world.add_image();
    const auto name =
        GENERATE(as<std::string>{}, "", "../etc", "<b>", "a&b", "a\"b", "a'b", "UPPER", "-a", "a-",
                 std::string(300, 'a'), "a b", "0198a7a0-0000-7000-8000-000000000000", "a\nb", "\xc3\xa9");
    CAPTURE(name);
    CHECK(world.post("/v1/vms", vm_body(name)).status == 422);
}

TEST_CASE("broken bodies are refused before anything else") {
    World world;
    world.boot();
    const auto send = [&world](std::string body, const char* type) {
        return world.call(net::Method::post, "/v1/vms", {}, [&](net::Request& request) {
            request.body = std::move(body);
            if (type != nullptr) request.headers.set("Content-Type", type);
        });
    };
    CHECK(send("{", "application/json").text("/code") == "invalid_json");
    CHECK(send("{} x", "application/json").text("/code") == "invalid_json");
    CHECK(send("", "application/json").text("/code") == "invalid_json");
    CHECK(send(std::string(10'000, '[') + std::string(10'000, ']'), "application/json").text("/code") ==
          "invalid_json");
    CHECK(send("{\"name\": \"\xff\xfe\"}", "application/json").text("/code") == "invalid_json");
    for (const auto* const twice : {R"({"name": "a", "name": "b"})", R"({"spec": [{"name": 1, "n\u0061me": 2}]})"}) {
        const auto refused = send(twice, "application/json");
        CHECK(refused.status == 400);
        CHECK(refused.text("/detail") == "the member \"name\" stands twice in its object");
    }
    CHECK(send(R"({"name": "a", "spec": {"name": 1}, "labels": {"name": "x"}})", "application/json").status == 422);
    CHECK(send("[]", "application/json").status == 422);
    CHECK(send("[]", "application/json").text("/detail").starts_with("expected an object"));
    CHECK(send("{}", "text/plain").status == 415);
    CHECK(send("{}", nullptr).status == 415);
}

TEST_CASE("a change without parameters refuses a body it would ignore") {
    World world;
    world.boot();
    world.add_image();
    world.create_vm();
    auto body = vm_body("waiting");
    body["wait_for"] = "address";
    const auto cancel = "/v1/operations/" + world.post("/v1/vms", body).text("/id") + "/cancel";
    const std::pair<net::Method, std::string> changes[] = {{net::Method::post, "/v1/vms/web/start"},
                                                           {net::Method::post, cancel},
                                                           {net::Method::del, "/v1/vms/web"},
                                                           {net::Method::del, "/v1/images/tiny"}};
    for (const auto& [method, path] : changes) {
        CAPTURE(path);
        const auto send = [&, how = method, where = path](const std::string& text) {
            return world.call(how, where, json::object{}, [&text](net::Request& r) { r.body = text; });
        };
        CHECK(send(R"({"keep_disks": true})").text("/code") == "validation_failed");
        CHECK(send("[]").text("/code") == "validation_failed");
        CHECK(send("{").text("/code") == "invalid_json");
    }
    CHECK(world.post(cancel).status == 202);
    CHECK(world.call(net::Method::del, "/v1/vms/web?wait=60", json::object{}).status == 200);
    CHECK(world.call(net::Method::del, "/v1/images/tiny?wait=60", json::object{}).status == 200);
}

TEST_CASE("a query parameter that isn't known is refused rather than ignored") {
    World world;
    world.boot();
    world.add_image();
    CHECK(world.post("/v1/vms?dry_runs=true", vm_body("web")).status == 422);
    CHECK(world.get("/v1/vms?colour=red").status == 422);
    CHECK(world.get("/v1/vms?limit=0").status == 422);
    CHECK(world.get("/v1/vms?limit=1001").status == 422);
    CHECK(world.get("/v1/vms?page_token=zz").status == 422);
    CHECK(world.get("/v1/operations/x?wait=301").status == 422);
}

TEST_CASE("lists are filtered and paged without losing or doubling an item") {
    World world;
    world.boot();
    world.add_image();
    for (int i = 0; i < 5; ++i) {
        auto body = vm_body("vm-" + std::to_string(i), {{"power", "off"}});
        body["labels"] = {{"even", i % 2 == 0 ? "yes" : "no"}};
        body["owner"] = i == 4 ? "bob" : "alice";
        REQUIRE(world.post("/v1/vms?wait=60", body).status == 201);
    }
    std::set<std::string> names;
    std::string token;
    int pages = 0;
    do {
        const auto page = world.get("/v1/vms?limit=2" + (token.empty() ? "" : "&page_token=" + token));
        for (const auto& vm : page.at("/items").as_array()) CHECK(names.emplace(vm.at("name").as_string()).second);
        token = page.at("/next_page_token").is_string() ? page.text("/next_page_token") : "";
        ++pages;
    } while (!token.empty());
    CHECK(names.size() == 5);
    CHECK(pages == 3);
    CHECK(world.get("/v1/vms?label=even%3Dyes").at("/items").as_array().size() == 3);
    CHECK(world.get("/v1/vms?owner=bob").at("/items").as_array().size() == 1);
    CHECK(world.get("/v1/vms?name=vm-1").at("/items").as_array().size() == 1);
    CHECK(world.get("/v1/vms?power=running").at("/items").as_array().empty());
    CHECK(world.get("/v1/vms?managed=false").at("/items").as_array().empty());
    CHECK(world.get("/v1/operations?limit=1").at("/items").as_array().size() == 1);
}

TEST_CASE("a request's trace context is in the log and on its operation, also after a restart") {
    World world;
    world.boot();
    world.add_image();
    const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const auto made = world.call(net::Method::post, "/v1/vms", vm_body("web"),
                                 [&trace](net::Request& r) { r.context.traceparent = trace; });
    REQUIRE(made.status == 202);
    CHECK(made.text("/traceparent") == trace);
    world.log.flush();
    std::multiset<std::string> told;
    for (const auto& record : world.logged.records())
        for (const auto& field : record.fields)
            if (field.key == "traceparent" && field.value == trace) told.insert(record.message);
    CHECK(told == std::multiset<std::string>{"operation accepted", "operation ended", "request"});

    world.shut_down();
    world.boot();
    const auto kept = world.get("/v1/operations/" + made.text("/id"));
    CHECK(kept.text("/traceparent") == trace);
    CHECK(world.get("/v1/operations?kind=image.add").at("/items/0/traceparent").is_null());
}

TEST_CASE("a change that comes while the agent stops is told to come back") {
    World world;
    world.boot();
    world.add_image();
    const auto id = world.create_vm();
    world.app->operations().close_intake();
    const auto refused = world.post("/v1/vms/web/stop");
    CHECK(refused.status == 503);
    CHECK(refused.text("/code") == "draining");
    CHECK(refused.headers.find("Retry-After"));
    CHECK(world.get("/v1/vms/" + id).text("/spec/power") == "on");
}

TEST_CASE("more operations than can be under way are told to come back") {
    World world;
    world.boot();
    world.add_image();
    world.hypervisor->hang("define");
    const auto name = [](std::size_t n) { return "vm-" + std::to_string(n); };
    const auto body = [&](std::size_t n) { return vm_body(name(n), {{"power", "off"}, {"disk_gib", 1}}); };
    std::size_t n = 0;
    for (; n < agent::OperationService::max_unfinished; ++n) REQUIRE(world.post("/v1/vms", body(n)).status == 202);
    const auto refused = world.post("/v1/vms", body(n));
    CHECK(refused.status == 429);
    CHECK(refused.text("/code") == "overloaded");
    CHECK(refused.headers.find("Retry-After"));
    CHECK(world.get("/v1/vms/" + name(n)).status == 404);
    world.hypervisor->release("define");
    world.pass(std::chrono::seconds{1});
    CHECK(world.post("/v1/vms?wait=60", body(n)).status == 201);
}

TEST_CASE("the problems shown in the API's description are as they are sent") {
    std::size_t seen = 0;
    const std::function<void(const json::value&)> walk = [&](const json::value& at) {
        if (at.is_array())
            for (const auto& item : at.get_array()) walk(item);
        if (!at.is_object()) return;
        const auto& object = at.get_object();
        const auto* code = object.if_contains("code");
        if (object.contains("title") && code != nullptr && code->is_string()) {
            ++seen;
            const auto sent = agent::api::problem_json(base::error_from_json(object), "");
            CHECK(sent.at("code") == *code);
            for (const auto* member : {"type", "title", "status"}) CHECK(object.at(member) == sent.at(member));
        }
        for (const auto& member : object) walk(member.value());
    };
    walk(agent::api::openapi_document());
    CHECK(seen >= 5);
}

TEST_CASE("every route stands in the API's description, and the other way round") {
    World world;
    world.boot();
    std::set<std::string> served;
    for (const auto& route : world.app->router().routes()) {
        auto method = std::string{net::name_of(route.method)};
        std::ranges::transform(method, method.begin(),
                               [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        served.insert(method + " " + route.pattern);
    }
    std::set<std::string> described;
    const auto document = agent::api::openapi_document();
    for (const auto& path : document.at("paths").as_object())
        for (const auto& method : path.value().as_object())
            if (method.key() == "get" || method.key() == "post" || method.key() == "patch" ||
                method.key() == "delete" || method.key() == "put")
                described.insert(std::string{method.key()} + " " + std::string{path.key()});
    CHECK(served == described);
    CHECK(world.get("/v1/openapi.json").text("/openapi").starts_with("3.1"));
}
