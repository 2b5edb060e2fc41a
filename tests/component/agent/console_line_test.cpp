#include "agent/access/console_line.hpp"

#include "base/descriptor.hpp"
#include "fakes/awaiting.hpp"
#include "fakes/memory_files.hpp"
#include "fakes/scratch_folder.hpp"

#include <boost/asio/local/stream_protocol.hpp>
#include <catch2/catch.hpp>

#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <string>

using namespace ghost;
using namespace ghost::agent;
using virt::ConsoleDevice;
namespace asio = boost::asio;

namespace {

struct Bench {
    base::Result<std::shared_ptr<ConsoleLine>> open(ConsoleDevice::Kind kind, std::string path) {
        const auto answer = [this]() -> asio::awaitable<bool> { co_return still_its; };
        return loop.await(open_console_line(loop.context.get_executor(), {kind, std::move(path)}, files, answer));
    }
    std::string read(ConsoleLine& line) {
        std::string room(100, '\0');
        room.resize(loop.await(line.read(asio::buffer(room))));
        return room;
    }

    fakes::TestLoop loop;
    fakes::MemoryFiles files;
    bool still_its = true;
};

// The hypervisor's end of a pseudo-terminal.
struct Terminal {
    Terminal() {
        REQUIRE(end);
        REQUIRE(::grantpt(end.get()) == 0);
        REQUIRE(::unlockpt(end.get()) == 0);
        char name[64];
        REQUIRE(::ptsname_r(end.get(), name, sizeof name) == 0);
        path = name;
    }
    void says(std::string_view text) const {
        REQUIRE(::write(end.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    }
    std::string hears() const {
        std::string text(100, '\0');
        const auto bytes = ::read(end.get(), text.data(), text.size());
        text.resize(bytes < 0 ? 0 : static_cast<std::size_t>(bytes));
        return text;
    }

    base::Descriptor end{::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    std::string path;
};

}  // namespace

TEST_CASE("a console behind a socket is read, written to and ends with its peer") {
    Bench bench;
    const fakes::ScratchFolder folder;
    const auto path = folder.path("console.sock");
    asio::local::stream_protocol::acceptor acceptor{bench.loop.context, asio::local::stream_protocol::endpoint{path}};
    const auto line = bench.open(ConsoleDevice::Kind::socket, path);
    REQUIRE(line);
    auto guest = acceptor.accept();
    std::string room(100, '\0');
    CHECK((*line)->read_ready(asio::buffer(room)) == 0);
    guest.write_some(asio::buffer("login: ", 7));
    CHECK((*line)->read_ready(asio::buffer(room)) == 7);
    guest.write_some(asio::buffer("again", 5));
    CHECK(bench.read(**line) == "again");
    CHECK(bench.loop.await((*line)->write("root\n")));
    CHECK(guest.read_some(asio::buffer(room)) == 5);
    guest.close();
    CHECK(bench.read(**line).empty());
    CHECK_FALSE(bench.loop.await((*line)->write("x")));
}

TEST_CASE("a socket that isn't there, or can't be one, is told") {
    Bench bench;
    const fakes::ScratchFolder folder;
    const auto missing = bench.open(ConsoleDevice::Kind::socket, folder.path("nothing"));
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == base::Errc::source_unavailable);
    CHECK(missing.error().detail == "the console can't be opened: No such file or directory");
    for (const auto& path : {std::string{}, "/" + std::string(200, 'x')})
        CHECK(bench.open(ConsoleDevice::Kind::socket, path).error().code == base::Errc::hypervisor_error);
}

TEST_CASE("a console behind a terminal is read as it is, and echoes nothing to its guest") {
    Bench bench;
    const Terminal terminal;
    const auto line = bench.open(ConsoleDevice::Kind::pty, terminal.path);
    REQUIRE(line);
    terminal.says("one\r\ntwo\x03");
    CHECK(bench.read(**line) == "one\r\ntwo\x03");
    CHECK(terminal.hears().empty());
    CHECK(bench.loop.await((*line)->write("\x04\r")));
    CHECK(terminal.hears() == "\x04\r");
}

TEST_CASE("a terminal whose guest is gone ends") {
    Bench bench;
    Terminal terminal;
    const auto line = bench.open(ConsoleDevice::Kind::pty, terminal.path);
    REQUIRE(line);
    terminal.says("last words");
    CHECK(bench.read(**line) == "last words");
    terminal.end.reset();
    CHECK(bench.read(**line).empty());
}

TEST_CASE("a terminal that somebody is attached to is theirs, as long as they live") {
    Bench bench;
    const Terminal terminal;
    const auto lock = "/run/lock/LCK..pts-" + terminal.path.substr(std::string_view{"/dev/pts/"}.size());
    bench.files.put(lock, "      4242\n");
    bench.files.put_directory("/proc/4242");
    const auto refused = bench.open(ConsoleDevice::Kind::pty, terminal.path);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::state_conflict);
    CHECK(refused.error().detail == "another program (process 4242) is attached to the console, such as virsh console");
    SECTION("they ended and left it") { bench.files.erase("/proc/4242"); }
    SECTION("it names nobody") { bench.files.put(lock, "somebody\n"); }
    SECTION("it is empty") { bench.files.put(lock, ""); }
    SECTION("it is no lock") { bench.files.put(lock, std::string(1000, '1')); }
    CHECK(bench.open(ConsoleDevice::Kind::pty, terminal.path));
}

TEST_CASE("only a pseudo-terminal is opened as one") {
    Bench bench;
    for (const auto* path : {"/dev/null", "/dev/pts/", "/dev/pts/../null", "/dev/pts/1x", "/etc/passwd", ""}) {
        CAPTURE(path);
        CHECK(bench.open(ConsoleDevice::Kind::pty, path).error().code == base::Errc::hypervisor_error);
    }
    CHECK(bench.open(ConsoleDevice::Kind::pty, "/dev/pts/999999999").error().code == base::Errc::source_unavailable);
}

TEST_CASE("a terminal whose number is another program's by now is left as it is") {
    Bench bench;
    bench.still_its = false;
    const Terminal others;
    termios before{};
    REQUIRE(::tcgetattr(others.end.get(), &before) == 0);
    REQUIRE((before.c_lflag & ECHO) != 0);
    const auto line = bench.open(ConsoleDevice::Kind::pty, others.path);
    REQUIRE_FALSE(line);
    CHECK(line.error().code == base::Errc::source_unavailable);
    termios after{};
    REQUIRE(::tcgetattr(others.end.get(), &after) == 0);
    CHECK(after.c_lflag == before.c_lflag);
}
