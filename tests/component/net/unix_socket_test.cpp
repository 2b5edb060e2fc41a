#include "tests/component/net/server_fixture.hpp"
#include "tests/component/net/wire.hpp"

#include <catch2/catch.hpp>

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

using namespace ghost;
using namespace ghost::test;
using namespace std::chrono_literals;

namespace {

constexpr uid_t somebody = 54'321;
const char* const a_group = "daemon";  // on every Debian

gid_t a_gid() { return ::getgrnam(a_group)->gr_gid; }  // NOLINT(concurrency-mt-unsafe): nobody else asks

mode_t mode_of(const std::string& path) {
    struct stat info{};
    REQUIRE(::lstat(path.c_str(), &info) == 0);
    return info.st_mode & 07777U;
}

net::UnixEndpoint at(std::string path, std::string group = {}, unsigned mode = 0660) {
    return {.path = std::move(path), .mode = mode, .group = std::move(group)};
}

std::string who(const std::string& path) {
    auto wire = Wire::unix_socket(path);
    REQUIRE(wire.send(get("/who")));
    return body_of(wire.response());
}

// What /who answers to a process of user `uid` with the groups given; "refused" when it may not connect.
std::string who_as(const std::string& path, uid_t uid, gid_t gid, const std::vector<gid_t>& groups) {
    std::array<int, 2> pipe{};
    REQUIRE(::pipe(pipe.data()) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        std::string answer;
        if (::setgroups(groups.size(), groups.data()) == 0 && ::setgid(gid) == 0 && ::setuid(uid) == 0) {
            try {
                auto wire = Wire::unix_socket(path);
                answer = wire.send(get("/who")) ? body_of(wire.response()) : "refused";
            } catch (const std::exception&) {
                answer = "refused";
            }
        }
        ::_exit(::write(pipe[1], answer.data(), answer.size()) < 0 ? 1 : 0);
    }
    ::close(pipe[1]);
    std::array<char, 256> text{};
    const auto count = ::read(pipe[0], text.data(), text.size());
    ::close(pipe[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return count > 0 ? std::string(text.data(), static_cast<std::size_t>(count)) : std::string{};
}

}  // namespace

TEST_CASE("a Unix socket has the mode and group that were asked, and goes with the server") {
    const fakes::ScratchFolder folder;
    const auto path = folder.path("a.sock");
    {
        ServerFixture server;
        REQUIRE(server.listen(at(path, ::geteuid() == 0 ? a_group : "", 0640)));
        CHECK(mode_of(path) == 0640);
        struct stat info{};
        REQUIRE(::lstat(path.c_str(), &info) == 0);
        if (::geteuid() == 0) CHECK(info.st_gid == a_gid());
        CHECK(who(path).ends_with(" admin"));
    }
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("root and the group's members are admin on the socket, others are known by their user") {
    if (::geteuid() != 0) {
        WARN("not run: only root can become others");
        return;
    }
    const fakes::ScratchFolder folder;
    std::filesystem::permissions(folder.path(), std::filesystem::perms{0755});
    const auto path = folder.path("b.sock");
    ServerFixture server;
    REQUIRE(server.listen(at(path, a_group, 0666)));
    CHECK(who(path) == "socket:uid:0 admin");
    CHECK(who_as(path, somebody, somebody, {}) == "socket:uid:54321");
    CHECK(who_as(path, somebody, a_gid(), {}) == "socket:uid:54321 admin");
    std::vector<gid_t> many;
    many.reserve(101);
    for (gid_t gid = 60'000; gid < 60'100; ++gid) many.push_back(gid);
    CHECK(who_as(path, somebody, somebody, many) == "socket:uid:54321");
    many.push_back(a_gid());
    CHECK(who_as(path, somebody, somebody, many) == "socket:uid:54321 admin");

    const auto closed = folder.path("closed.sock");
    REQUIRE(server.listen(at(closed, "no-such-group", 0660)));
    CHECK(who_as(closed, somebody, somebody, {}) == "refused");
    CHECK(who(closed) == "socket:uid:0 admin");
}

TEST_CASE("a socket left by a dead process is replaced, one that somebody answers on is not") {
    const fakes::ScratchFolder folder;
    const auto path = folder.path("c.sock");
    ServerFixture server;
    REQUIRE(server.listen(at(path)));
    ServerFixture rival;
    const auto refused = rival.listen(at(path));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::io_error);
    CHECK(refused.error().detail == "cannot listen on " + path + ": another process answers on it");
    CHECK(who(path).starts_with("socket:"));

    // A name that is kept when its listener goes is what a dead process leaves.
    std::filesystem::create_hard_link(path, folder.path("stale.sock"));
    server.shut_down(0ms);
    CHECK_FALSE(std::filesystem::exists(path));
    REQUIRE(rival.listen(at(folder.path("stale.sock"))));
    CHECK(who(folder.path("stale.sock")).starts_with("socket:"));
}

TEST_CASE("a socket that has become another's is left alone") {
    const fakes::ScratchFolder folder;
    const auto path = folder.path("d.sock");
    ServerFixture server;
    REQUIRE(server.listen(at(path)));
    std::filesystem::remove(path);
    ServerFixture heir;
    REQUIRE(heir.listen(at(path)));
    server.shut_down(0ms);
    CHECK(who(path).starts_with("socket:"));
}

TEST_CASE("a path that can't be a socket is a fault that names it, and what is there stays") {
    const fakes::ScratchFolder folder;
    ServerFixture server;
    const auto file = folder.write("file", "precious");
    const auto refused = server.listen(at(file));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().detail.find(file) != std::string::npos);
    CHECK(folder.read("file") == "precious");
    CHECK_FALSE(server.listen(at(folder.path("no/such/folder.sock"))));
    CHECK_FALSE(server.listen(at(folder.path(std::string(200, 'x')))));
    CHECK_FALSE(server.listen(at("")));
}
