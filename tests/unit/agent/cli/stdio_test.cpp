// A process's own streams, in processes of the test's.
#include "agent/cli/stdio.hpp"

#include "base/descriptor.hpp"
#include "fakes/awaiting.hpp"
#include "fakes/scratch_folder.hpp"
#include "tests/unit/agent/cli/child.hpp"

#include <boost/asio/detached.hpp>
#include <catch2/catch.hpp>

#include <fcntl.h>
#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <stdexcept>
#include <string>

using namespace ghost;
using namespace ghost::cli;

namespace {

// All that comes in goes out.
boost::asio::awaitable<void> copy(ByteChannel& channel) {
    std::array<char, 4096> piece{};
    for (;;) {
        const auto got = co_await channel.read(boost::asio::buffer(piece));
        if (!got) throw std::runtime_error{got.error().detail};
        if (*got == 0) break;
        if (!co_await channel.write(boost::asio::buffer(piece.data(), *got))) throw std::runtime_error{"nobody reads"};
    }
    channel.end_writing();
}

void copy_streams() {
    fakes::TestLoop loop;
    ProcessStdio stdio{loop.context.get_executor()};
    auto channel = stdio.open(false);
    if (!channel) throw std::runtime_error{channel.error().detail};
    loop.await(copy(**channel));
}

bool same_mode(const termios& a, const termios& b) {
    return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag && a.c_lflag == b.c_lflag;
}

}  // namespace

TEST_CASE("the terminal is left as it was found, however the process ends") {
    int primary = -1;
    int secondary = -1;
    REQUIRE(::openpty(&primary, &secondary, nullptr, nullptr, nullptr) == 0);
    const base::Descriptor person{primary};
    const base::Descriptor terminal{secondary};
    termios found{};
    REQUIRE(::tcgetattr(secondary, &found) == 0);
    const int flags = ::fcntl(secondary, F_GETFL);

    enum class Way : std::uint8_t { well, exception, signal };
    const auto way = GENERATE(Way::well, Way::exception, Way::signal);
    const int signal = way == Way::signal ? GENERATE(SIGHUP, SIGQUIT, SIGABRT, SIGTERM) : 0;
    const bool is_raw = GENERATE(true, false);
    Pipe ready;
    Pipe go;
    const auto child = start(secondary, secondary, [&] {
        go.in.reset();
        fakes::TestLoop loop;
        ProcessStdio stdio{loop.context.get_executor()};
        const auto channel = stdio.open(is_raw);
        std::array<char, 1> typed{};
        boost::asio::co_spawn(loop.context, channel.value()->read(boost::asio::buffer(typed)), boost::asio::detached);
        (void)loop.context.poll();
        if (signal == SIGTERM) end_restored_by({SIGTERM});
        (void)::write(ready.in.get(), "x", 1);
        char byte = 0;
        (void)::read(go.out.get(), &byte, 1);  // until the test has looked
        if (signal != 0) (void)::raise(signal);
        if (way == Way::exception) throw std::runtime_error{"a bug"};
    });
    char byte = 0;
    CHECK(::read(ready.out.get(), &byte, 1) == 1);
    termios raw{};
    CHECK(::tcgetattr(secondary, &raw) == 0);
    CHECK(same_mode(raw, found) != is_raw);
    if (is_raw) CHECK((raw.c_lflag & (ICANON | ECHO | ISIG)) == 0);
    CHECK(::fcntl(secondary, F_GETFL) != flags);
    go.in.reset();
    CHECK(end_of(child) == (signal != 0 ? 128 + signal : way == Way::exception ? 1 : 0));
    termios left{};
    CHECK(::tcgetattr(secondary, &left) == 0);
    CHECK(same_mode(left, found));
    CHECK(::fcntl(secondary, F_GETFL) == flags);
}

TEST_CASE("bytes go through pipes and files, which stay as they were") {
    const fakes::ScratchFolder folder;
    Pipe out;
    const int flags = ::fcntl(out.in.get(), F_GETFL);
    SECTION("a file") {
        const std::string content(100'000, 'x');
        const base::Descriptor file{::open(folder.write("in", content).c_str(), O_RDONLY | O_CLOEXEC)};
        const auto child = start(file.get(), out.in.get(), copy_streams);
        const base::Descriptor kept{::fcntl(out.in.get(), F_DUPFD_CLOEXEC, 3)};
        out.in.reset();
        std::string got(content.size(), '\0');
        for (std::size_t at = 0; at < got.size();) {
            const auto bytes = ::read(out.out.get(), got.data() + at, got.size() - at);
            REQUIRE(bytes > 0);
            at += static_cast<std::size_t>(bytes);
        }
        CHECK(got == content);
        CHECK(end_of(child) == 0);
        CHECK(::fcntl(kept.get(), F_GETFL) == flags);
    }
    SECTION("nothing") {
        const base::Descriptor nothing{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
        const auto child = start(nothing.get(), out.in.get(), copy_streams);
        out.in.reset();
        CHECK(read_all(out.out.get()).empty());
        CHECK(end_of(child) == 0);
    }
    SECTION("a file at the other end") {
        Pipe in;
        (void)::write(in.in.get(), "hello", 5);
        in.in.reset();
        const base::Descriptor file{::open(folder.path("out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
        CHECK(end_of(start(in.out.get(), file.get(), copy_streams)) == 0);
        CHECK(folder.read("out") == "hello");
    }
}

TEST_CASE("whoever reads standard output sees its end while the process goes on") {
    Pipe in;
    Pipe out;
    Pipe go;
    (void)::write(in.in.get(), "last words", 10);
    in.in.reset();
    const auto child = start(in.out.get(), out.in.get(), [&] {
        go.in.reset();
        out.in.reset();
        fakes::TestLoop loop;
        ProcessStdio stdio{loop.context.get_executor()};
        auto channel = stdio.open(false);
        if (!channel) throw std::runtime_error{channel.error().detail};
        loop.await(copy(**channel));
        char byte = 0;
        (void)::read(go.out.get(), &byte, 1);
    });
    out.in.reset();
    CHECK(read_all(out.out.get()) == "last words");
    go.in.reset();
    CHECK(end_of(child) == 0);
}
