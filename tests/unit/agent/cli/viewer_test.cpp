// Programs of this desktop, which are real, and what is left of ghostctl's own.
#include "agent/cli/viewer.hpp"

#include "agent/cli/ghostctl.hpp"
#include "base/cancelled.hpp"
#include "fakes/awaiting.hpp"
#include "fakes/scratch_folder.hpp"
#include "tests/unit/agent/cli/child.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

using namespace ghost;
using namespace ghost::cli;
namespace asio = boost::asio;

namespace {

asio::awaitable<base::Result<int>> run_here(std::vector<std::string> command) {
    co_await asio::this_coro::throw_if_cancelled(false);
    ProcessDesktop desktop;
    co_return co_await desktop.run(std::move(command));
}

// An agent's socket, that of one that knows one VM.
struct Agent {
    explicit Agent(const std::string& path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        REQUIRE(path.size() < sizeof address.sun_path);
        std::memcpy(address.sun_path, path.data(), path.size());
        REQUIRE(listening);
        REQUIRE(::bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        REQUIRE(::listen(listening.get(), 1) == 0);
    }
    base::Descriptor answer_one() const {
        base::Descriptor client{::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC)};
        REQUIRE(client);
        std::string request;
        for (char c = 0; !request.ends_with("\r\n\r\n") && ::read(client.get(), &c, 1) == 1;) request += c;
        const std::string_view body = R"({"id":"u","status":{"power":"running"}})";
        const auto answer = fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
        REQUIRE(::write(client.get(), answer.data(), answer.size()) == static_cast<ssize_t>(answer.size()));
        return client;
    }
    base::Descriptor listening{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
};

}  // namespace

TEST_CASE("a program is waited for, and ended with who waits") {
    fakes::TestLoop loop;
    CHECK(loop.await(run_here({"sh", "-c", "exit 3"})).value() == 3);
    CHECK(loop.await(run_here({"sh", "-c", "kill -9 $$"})).value() == 128 + SIGKILL);
    CHECK_FALSE(loop.await(run_here({"/nonexistent/viewer"})));
    asio::post(loop.context, [&] { asio::post(loop.context, [&] { loop.cancel(); }); });
    CHECK(loop.await(run_here({"sleep", "600"})).value() == 128 + SIGTERM);
}

TEST_CASE("a screen's folder goes with ghostctl, also when the terminal goes") {
    const fakes::ScratchFolder folder;
    const Agent agent{folder.path("agent.sock")};
    const auto temporary = folder.path("tmp");
    std::filesystem::create_directory(temporary);
    const int signal = GENERATE(SIGINT, SIGTERM, SIGHUP);
    Pipe out;
    const base::Descriptor nothing{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    const auto child = start(nothing.get(), out.in.get(), [&] {
        for (const char* name : {"DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "GHOST_AGENT"})
            (void)::unsetenv(name);                      // NOLINT(concurrency-mt-unsafe): one thread
        (void)::setenv("TMPDIR", temporary.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
        std::vector<std::string> words{"ghostctl", "--socket", folder.path("agent.sock"), "vnc", "web"};
        std::vector<char*> pointers;
        pointers.reserve(words.size());
        for (auto& word : words) pointers.push_back(word.data());
        ::_exit(cli::run(static_cast<int>(pointers.size()), pointers.data()));
    });
    out.in.reset();
    const auto client = agent.answer_one();
    std::string told;
    for (char c = 0; !told.contains("until Ctrl-C") && ::read(out.out.get(), &c, 1) == 1;) told += c;
    CHECK_THAT(told, Catch::Contains(temporary));
    CHECK_FALSE(std::filesystem::is_empty(temporary));
    REQUIRE(::kill(child, signal) == 0);
    if (signal == SIGHUP) (void)::kill(child, signal);  // a shell passes on what the terminal says as well
    (void)read_all(out.out.get());
    CHECK(end_of(child) == 0);
    CHECK(std::filesystem::is_empty(temporary));
}
