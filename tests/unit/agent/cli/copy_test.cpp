#include "fakes/fake_client.hpp"
#include "fakes/scratch_folder.hpp"
#include "tests/unit/agent/cli/bench.hpp"

#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <filesystem>

using namespace ghost;
using namespace ghost::cli;
namespace asio = boost::asio;
namespace fs = std::filesystem;
using Answer = base::Result<net::ClientResponse>;

namespace {

struct Copy {
    Bench bench;
    fakes::ScratchFolder folder;
    std::string sent;  // of a body
    bool refuses = false;
    bool breaks_off = false;
    fakes::FakeClient client{fakes::FakeClient::Script{[this](net::ClientRequest r) { return answer(std::move(r)); }}};

    asio::awaitable<Answer> answer(net::ClientRequest request) {
        if (refuses) co_return fakes::json_answer(404, R"({"code":"not_found","detail":"there is no such file"})");
        net::ClientResponse response;
        response.status = request.method == net::Method::put ? 204 : 200;
        if (request.body_source) {
            for (;;) {
                auto piece = co_await request.body_source();
                if (!piece) co_return base::fail(piece.error());
                if (!*piece) break;
                sent += **piece;
            }
            co_return response;
        }
        response.headers.set("Content-Length", "10");
        if (request.on_head) (void)request.on_head(response);
        if (request.on_body("12345") && !breaks_off) (void)request.on_body("67890");
        if (breaks_off) co_return base::fail(base::Errc::source_unavailable, "the answer broke off: end of file");
        co_return response;
    }
    ExitCode get(const std::string& local) {
        return bench.run(with(CopyFile{{"/v1/vms/web", "web"}, "/etc/a b", local, false}), client);
    }
    ExitCode put(const std::string& local) {
        return bench.run(with(CopyFile{{"/v1/vms/web", "web"}, "/etc/a b", local, true}), client);
    }
    [[nodiscard]] std::size_t files() const {
        return static_cast<std::size_t>(std::distance(fs::directory_iterator{folder.path()}, {}));
    }
};

::mode_t mode_of(const std::string& path) {
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_mode & 0777;
}

}  // namespace

TEST_CASE("a file comes out of a VM whole") {
    Copy copy;
    CHECK(copy.get(copy.folder.path("out")) == ExitCode::done);
    CHECK(copy.client.requests.front().target == "/v1/vms/web/files?path=%2Fetc%2Fa%20b");
    CHECK(copy.folder.read("out") == "1234567890");
    CHECK(copy.files() == 1);
    CHECK(copy.bench.console.written == "web:/etc/a b copied to " + copy.folder.path("out") + ": 10 B\n");
}

TEST_CASE("a file that is replaced keeps its mode, and a link stays one") {
    Copy copy;
    const auto path = copy.folder.write("real", "old");
    REQUIRE(::chmod(path.c_str(), 0750) == 0);
    fs::create_symlink("real", copy.folder.path("link"));
    CHECK(copy.get(copy.folder.path("link")) == ExitCode::done);
    CHECK(copy.folder.read("real") == "1234567890");
    CHECK(mode_of(path) == 0750);
    CHECK(fs::is_symlink(copy.folder.path("link")));
}

TEST_CASE("what didn't come whole leaves nothing behind") {
    Copy copy;
    copy.folder.write("out", "old");
    SECTION("a connection that broke") {
        copy.breaks_off = true;
        CHECK(copy.get(copy.folder.path("out")) == ExitCode::no_agent);
    }
    SECTION("an agent that refuses") {
        copy.refuses = true;
        CHECK(copy.get(copy.folder.path("out")) == ExitCode::not_found);
        CHECK_THAT(copy.bench.console.complained, Catch::StartsWith("ghostctl: there is no such file\n"));
    }
    CHECK(copy.folder.read("out") == "old");
    CHECK(copy.files() == 1);
}

TEST_CASE("a file that can't be written is no fault of the agent") {
    Copy copy;
    SECTION("no such folder") { CHECK(copy.get(copy.folder.path("no/such/file")) == ExitCode::failed); }
    SECTION("a folder in its place") { CHECK(copy.get(copy.folder.path()) == ExitCode::failed); }
    SECTION("a disk that is full") { CHECK(copy.get("/dev/full") == ExitCode::failed); }
    CHECK(copy.client.requests.empty());
    CHECK_THAT(copy.bench.console.complained, Catch::StartsWith("ghostctl: "));
}

TEST_CASE("standard output gets the bytes and nothing else") {
    Copy copy;
    CHECK(copy.get("-") == ExitCode::done);
    CHECK(copy.bench.console.written == "1234567890");
}

TEST_CASE("a file goes into a VM with its mode") {
    Copy copy;
    const std::string content(300'000, 'x');
    const auto path = copy.folder.write("tool", content);
    REQUIRE(::chmod(path.c_str(), 0751) == 0);
    CHECK(copy.put(path) == ExitCode::done);
    const auto& request = copy.client.requests.front();
    CHECK(request.method == net::Method::put);
    CHECK(request.target == "/v1/vms/web/files?path=%2Fetc%2Fa%20b&mode=0751");
    CHECK(request.body_size == content.size());
    CHECK(copy.sent == content);
}

TEST_CASE("standard input becomes a file in a VM") {
    Copy copy;
    copy.bench.person.types("hello ");
    copy.bench.person.types("there");
    copy.bench.person.ends_typing();
    CHECK(copy.put("-") == ExitCode::done);
    CHECK(copy.sent == "hello there");
    CHECK_FALSE(copy.client.requests.front().body_size);
    CHECK_THAT(copy.client.requests.front().target, Catch::EndsWith("&mode=0644"));
    CHECK(copy.bench.console.written.empty());
}

TEST_CASE("only files are copied") {
    Copy copy;
    CHECK(copy.put(copy.folder.path()) == ExitCode::failed);
    CHECK_THAT(copy.bench.console.complained,
               Catch::Contains("is a folder") && Catch::Contains("hint: for a folder: tar"));
    CHECK(copy.put("/dev/null") == ExitCode::failed);
    CHECK(copy.put(copy.folder.path("none")) == ExitCode::failed);
    CHECK(copy.client.requests.empty());
}

TEST_CASE("a screenshot is written to a file, or a pipe, but to no terminal") {
    Copy copy;
    const auto shoot = [&](std::string file) {
        return copy.bench.run(with(TakeScreenshot{{"/v1/vms/web", "web"}, std::move(file)}), copy.client);
    };
    CHECK(shoot(copy.folder.path("web.png")) == ExitCode::done);
    CHECK(copy.client.requests.front().target == "/v1/vms/web/screenshot");
    CHECK(copy.folder.read("web.png") == "1234567890");
    copy.bench.console.written.clear();
    CHECK(shoot("-") == ExitCode::done);
    CHECK(copy.bench.console.written == "1234567890");
    copy.bench.stdio.terminal = true;
    CHECK(shoot("-") == ExitCode::usage);
    CHECK(copy.client.requests.size() == 2);
}

TEST_CASE("a copy shows how far it is") {
    Copy copy;
    copy.bench.console.columns = 100;
    fakes::FakeClient client{fakes::FakeClient::Script{[&](net::ClientRequest request) -> asio::awaitable<Answer> {
        net::ClientResponse head;
        head.status = 200;
        head.headers.set("Content-Length", "2048");
        (void)request.on_head(head);
        for (int i = 0; i < 2; ++i) {
            (void)co_await copy.bench.clock.sleep_for(std::chrono::seconds{1});
            (void)request.on_body(std::string(1024, 'x'));
        }
        co_return head;
    }}};
    CHECK(copy.bench.run(with(CopyFile{{"/v1/vms/web", "web"}, "/f", copy.folder.path("out"), false}), client) ==
          ExitCode::done);
    CHECK_THAT(copy.bench.console.complained,
               Catch::Contains("web:/f: copying [############------------]  50%  1 KiB of 2 KiB  1 KiB/s  1s left") &&
                   Catch::EndsWith("\r\x1b[K"));
}
