#include "base/log.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

using namespace ghost::base;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

struct Folder {
    fs::path path = make();
    Folder() = default;
    ~Folder() { fs::remove_all(path); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    static fs::path make() {
        auto name = (fs::temp_directory_path() / "ghost-log-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw std::system_error{errno, std::system_category(), "mkdtemp"};
        return name;
    }
    [[nodiscard]] std::string read(const std::string& name) const {
        std::ostringstream text;
        text << std::ifstream{path / name}.rdbuf();
        return text.str();
    }
    [[nodiscard]] std::string log() const { return (path / "agent.log").string(); }
};

Record record(std::string message) { return {from_unix_ms(0), Level::info, std::move(message), {}}; }
const std::string stamp = "1970-01-01T00:00:00.000Z INFO ";

}  // namespace

TEST_CASE_METHOD(Folder, "the file sink appends lines to what is there, readable by owner and group alone") {
    {
        make_file_sink(log(), LogFormat::text, 1000, 24h)->write(record("one"));
    }
    {
        make_file_sink(log(), LogFormat::text, 1000, 24h)->write(record("two"));
    }
    CHECK(read("agent.log") == stamp + "one\n" + stamp + "two\n");
    struct stat status{};
    REQUIRE(::stat(log().c_str(), &status) == 0);
    CHECK((status.st_mode & 0027U) == 0);
}

TEST_CASE_METHOD(Folder, "the file sink rotates before a line would pass the limit, the newest at .1") {
    const auto sink = make_file_sink(log(), LogFormat::text, 80, 24h);
    for (const auto* message : {"1", "2", "3", "4", "5"}) sink->write(record(message));
    CHECK(read("agent.log") == stamp + "5\n");
    CHECK(read("agent.log.1") == stamp + "3\n" + stamp + "4\n");
    CHECK(read("agent.log.2") == stamp + "1\n" + stamp + "2\n");
    CHECK_FALSE(fs::exists(log() + ".3"));
}

TEST_CASE_METHOD(Folder, "a line longer than the limit gets a file of its own instead of turning in circles") {
    const auto sink = make_file_sink(log(), LogFormat::text, 10, 24h);
    sink->write(record("first"));
    sink->write(record("second"));
    CHECK(read("agent.log") == stamp + "second\n");
    CHECK(read("agent.log.1") == stamp + "first\n");
    CHECK_FALSE(fs::exists(log() + ".2"));
}

TEST_CASE_METHOD(Folder, "at most ten rotated files are kept") {
    const auto sink = make_file_sink(log(), LogFormat::text, 10, 24h);
    for (int i = 0; i < 30; ++i) sink->write(record(std::to_string(i)));
    CHECK(read("agent.log.10") == stamp + "19\n");
    CHECK_FALSE(fs::exists(log() + ".11"));
}

TEST_CASE_METHOD(Folder, "rotated files past their age are deleted, younger ones and foreign ones stay") {
    for (const auto* name : {"agent.log.1", "agent.log.2", "agent.log.old"}) std::ofstream{path / name} << "x\n";
    const auto now = fs::file_time_type::clock::now();
    fs::last_write_time(path / "agent.log.1", now - 10h);
    fs::last_write_time(path / "agent.log.2", now - 30h);
    fs::last_write_time(path / "agent.log.old", now - 30h);
    const auto sink = make_file_sink(log(), LogFormat::text, 1000, 24h);
    CHECK(fs::exists(path / "agent.log.1"));
    CHECK_FALSE(fs::exists(path / "agent.log.2"));
    CHECK(fs::exists(path / "agent.log.old"));
}

TEST_CASE_METHOD(Folder, "a log file moved away is opened anew") {
    const auto sink = make_file_sink(log(), LogFormat::text, 1000, 24h);
    sink->write(record("old"));
    fs::rename(log(), log() + ".moved");
    sink->flush();
    sink->write(record("new"));
    CHECK(read("agent.log") == stamp + "new\n");
    CHECK(read("agent.log.moved") == stamp + "old\n");
}

TEST_CASE_METHOD(Folder, "a log file that can't be opened is an exception that names it") {
    const auto missing = (path / "no" / "agent.log").string();
    CHECK_THROWS_AS(make_file_sink(missing, LogFormat::text, 1000, 24h), std::system_error);
    CHECK_THROWS_WITH(make_file_sink(missing, LogFormat::text, 1000, 24h), Catch::Contains(missing));
    fs::create_symlink("/dev/null", log());
    CHECK_THROWS_AS(make_file_sink(log(), LogFormat::text, 1000, 24h), std::system_error);
}

TEST_CASE("the stream sink leaves lines out while its reader stalls, then says how many") {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    REQUIRE(::fcntl(ends[1], F_SETPIPE_SZ, 4 * 4096) > 0);
    const auto sink = make_stream_sink(ends[1], LogFormat::text);
    const std::string filler(1000, 'x');
    for (int i = 0; i < 40; ++i) sink->write(record(filler));

    std::string received;
    std::array<char, 65536> buffer{};
    const auto drain = [&] {
        const auto got = ::read(ends[0], buffer.data(), buffer.size());
        if (got > 0) received.append(buffer.data(), static_cast<std::size_t>(got));
    };
    drain();
    sink->write(record("after"));
    drain();
    ::close(ends[0]);
    ::close(ends[1]);
    CHECK(received.find("log lines left out: the reader had stalled dropped=") != std::string::npos);
    CHECK(received.ends_with(stamp + "after\n"));
}

TEST_CASE("a log whose reader has gone neither dies nor hangs") {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    ::close(ends[0]);
    std::vector<std::unique_ptr<LogSink>> sinks;
    sinks.push_back(make_stream_sink(ends[1], LogFormat::json));
    {
        Log log{Level::info, std::move(sinks)};
        for (int i = 0; i < 100; ++i) log.info("into the void");
        log.flush();
        CHECK(log.dropped() == 0);
    }
    ::close(ends[1]);
}

TEST_CASE("standard error is the journal only when systemd's variable names this very stream") {
    struct stat status{};
    REQUIRE(::fstat(STDERR_FILENO, &status) == 0);
    const auto here = std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
    // NOLINTBEGIN(concurrency-mt-unsafe): one thread
    ::setenv("JOURNAL_STREAM", here.c_str(), 1);
    CHECK(stderr_is_journal());
    ::setenv("JOURNAL_STREAM", (here + "0").c_str(), 1);
    CHECK_FALSE(stderr_is_journal());
    ::setenv("JOURNAL_STREAM", "", 1);
    CHECK_FALSE(stderr_is_journal());
    ::unsetenv("JOURNAL_STREAM");
    CHECK_FALSE(stderr_is_journal());
    // NOLINTEND(concurrency-mt-unsafe)
}

TEST_CASE("the journal sink takes any field name and value, also without a journal") {
    const auto sink = make_journal_sink();
    auto odd = record("m\n");
    odd.fields = {{"", ""}, {std::string(100, 'k'), "v\n\x01"}, {"a=b", "c"}};
    CHECK_NOTHROW(sink->write(odd));
    CHECK_NOTHROW(sink->flush());
}
