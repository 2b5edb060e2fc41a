#include "net/router.hpp"

#include "tests/fakes/memory_server.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <stdexcept>

using namespace ghost;

namespace {

template <class T>
T run(boost::asio::awaitable<T> task) {
    boost::asio::io_context context{1};
    std::optional<T> result;
    std::exception_ptr thrown;
    boost::asio::co_spawn(context, std::move(task), [&](std::exception_ptr error, T value) {
        thrown = error;
        result = std::move(value);
    });
    context.run();
    if (thrown) std::rethrow_exception(thrown);
    return std::move(*result);
}

net::Handler says(std::string text) {
    return [text](net::Request request) -> boost::asio::awaitable<net::Response> {
        auto body = text;
        for (const auto& [name, value] : request.params) body += " " + name + "=" + value;
        co_return net::Response{.body = body};
    };
}

net::Router sample() {
    net::Router router;
    router.add(net::Method::get, "/v1/vms/{vm}", says("read"));
    router.add(net::Method::del, "/v1/vms/{vm}", says("delete"));
    router.add(net::Method::get, "/v1/vms", says("list"));
    router.add(net::Method::post, "/v1/vms", says("create"));
    router.add(net::Method::post, "/v1/vms/{vm}/start", says("start"));
    router.add(net::Method::get, "/v1/vms/known", says("known"));
    router.add(net::Method::get, "/", says("root"));
    return router;
}

net::Request request_of(net::Method method, std::string path, std::string id = {}) {
    net::Request request;
    request.method = method;
    request.path = std::move(path);
    request.context.request_id = std::move(id);
    return request;
}

net::Response ask(const net::Router& router, net::Method method, std::string path) {
    return run(router.serve(request_of(method, std::move(path), "id")));
}

}  // namespace

TEST_CASE("a request goes to the route of its method and path, with the parts decoded") {
    const auto router = sample();
    CHECK(ask(router, net::Method::get, "/v1/vms").body == "list");
    CHECK(ask(router, net::Method::post, "/v1/vms").body == "create");
    CHECK(ask(router, net::Method::get, "/v1/vms/web%2F1").body == "read vm=web/1");
    CHECK(ask(router, net::Method::post, "/v1/vms/a/start").body == "start vm=a");
    CHECK(ask(router, net::Method::get, "/v1/%76ms").body == "list");
    CHECK(ask(router, net::Method::get, "/").body == "root");
}

TEST_CASE("a literal part beats a parameter, whichever came first") {
    CHECK(ask(sample(), net::Method::get, "/v1/vms/known").body == "known");
}

TEST_CASE("HEAD is answered by GET's route") {
    CHECK(ask(sample(), net::Method::head, "/v1/vms").body == "list");
    CHECK(sample().pattern_of(net::Method::head, "/v1/vms/a") == "/v1/vms/{vm}");
}

TEST_CASE("unknown paths are 404, also with a slash too many") {
    for (const auto* path : {"/nope", "/v1/vms/", "/v1//vms", "/v1/vms//start", "/v1/vms/a/start/b", "", "*"}) {
        CAPTURE(path);
        CHECK(ask(sample(), net::Method::get, path).status == (std::string_view{path}.empty() ? 200 : 404));
    }
}

TEST_CASE("another method of a known path is 405 with what is allowed") {
    const auto response = ask(sample(), net::Method::put, "/v1/vms");
    CHECK(response.status == 405);
    CHECK(response.headers.find("Allow") == "GET, HEAD, POST, OPTIONS");
    CHECK(ask(sample(), net::Method::other, "/v1/vms/a/start").headers.find("Allow") == "POST, OPTIONS");
    CHECK(ask(sample(), net::Method::head, "/v1/vms/a/start").status == 405);
}

TEST_CASE("OPTIONS says what is allowed") {
    const auto response = ask(sample(), net::Method::options, "/v1/vms/a");
    CHECK(response.status == 204);
    CHECK(response.headers.find("Allow") == "GET, HEAD, DELETE, OPTIONS");
    CHECK(response.body.empty());
    CHECK(ask(sample(), net::Method::options, "*").status == 204);
    CHECK(ask(sample(), net::Method::options, "/nope").status == 404);
}

TEST_CASE("a part that doesn't decode is 400") {
    for (const auto* path : {"/v1/vms/%", "/v1/vms/%zz", "/v1/vms/%00", "/v1/vms/%ff%fe"}) {
        CAPTURE(path);
        CHECK(ask(sample(), net::Method::get, path).status == 400);
    }
}

TEST_CASE("metrics get the template, never the path") {
    const auto router = sample();
    CHECK(router.pattern_of(net::Method::get, "/v1/vms/secret") == "/v1/vms/{vm}");
    CHECK(router.pattern_of(net::Method::put, "/v1/vms/secret") == "unmatched");
    CHECK(router.pattern_of(net::Method::get, "/%zz") == "unmatched");
    CHECK(router.routes().size() == 7);
}

TEST_CASE("the server in memory behaves as the real one does around a handler") {
    fakes::MemoryServer server;
    const net::Endpoint endpoint = net::TcpEndpoint{"127.0.0.1", 1};
    const auto handler = [](net::Request request) -> boost::asio::awaitable<net::Response> {
        if (request.path == "/throw") throw std::runtime_error{"secret"};
        co_return net::Response{.body = request.context.request_id};
    };
    REQUIRE(server.listen(endpoint, nullptr, handler));
    CHECK_FALSE(server.listen(endpoint, nullptr, handler));

    const auto given = run(server.serve(endpoint, request_of(net::Method::get, "/", "mine")));
    CHECK(given.body == "mine");
    const auto made = run(server.serve(endpoint, request_of(net::Method::get, "/")));
    CHECK_FALSE(made.body.empty());
    CHECK(made.headers.find("X-Request-Id") == made.body);
    const auto failed = run(server.serve(endpoint, request_of(net::Method::get, "/throw")));
    CHECK(failed.status == 500);
    CHECK(failed.body.find("secret") == std::string::npos);
    CHECK(run(server.serve(endpoint, request_of(net::Method::head, "/"))).body.empty());

    server.stream_bodies([](net::Method, std::string_view path) { return path == "/file"; });
    const net::Endpoint other = net::TcpEndpoint{"127.0.0.1", 2};
    REQUIRE(server.listen(other, nullptr, [](net::Request request) -> boost::asio::awaitable<net::Response> {
        std::string body = std::move(request.body);
        while (request.body_stream) {
            const auto piece = co_await request.body_stream();
            if (!piece || !*piece) break;
            body += **piece + "|";
        }
        co_return net::Response{.body = std::move(body)};
    }));
    auto upload = request_of(net::Method::put, "/file");
    upload.body = "abc";
    CHECK(run(server.serve(other, upload)).body == "abc|");
    upload.path = "/else";
    CHECK(run(server.serve(other, upload)).body == "abc");
}
