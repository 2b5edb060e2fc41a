#include "storage/local_files.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/scratch_folder.hpp"
#include "small_disk.hpp"
#include "storage/boot_id.hpp"
#include "storage/copy_file.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

using namespace ghost;
using base::Errc;
namespace fs = std::filesystem;

namespace {

struct Fixture {
    fakes::TestLoop loop;
    fakes::ScratchFolder folder;
    storage::LocalFiles files;

    // Data, a hole, data, a hole to the end.
    std::string sparse(const std::string& name) {
        auto path = folder.write(name, std::string(100'000, 'a'));
        fs::resize_file(path, 40 << 20);
        const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
        REQUIRE(::pwrite(fd, "middle", 6, 20 << 20) == 6);
        ::close(fd);
        return path;
    }
};

unsigned mode_of(const std::string& path) {
    struct stat found = {};
    REQUIRE(::stat(path.c_str(), &found) == 0);
    return found.st_mode & 07777U;
}
std::uint64_t blocks_of(const std::string& path) {
    struct stat found = {};
    REQUIRE(::stat(path.c_str(), &found) == 0);
    return static_cast<std::uint64_t>(found.st_blocks) * 512;
}

}  // namespace

TEST_CASE_METHOD(Fixture, "what is written is read back, with its mode, and leaves no temporary") {
    const auto path = folder.path("a");
    REQUIRE(loop.await(files.write(path, "first", 0644)));
    REQUIRE(loop.await(files.write(path, "second", 0600)));
    CHECK(loop.await(files.read(path, 6)) == "second");
    CHECK(mode_of(path) == 0600);
    CHECK(loop.await(files.list(folder.path())) == std::vector<std::string>{"a"});
}

TEST_CASE_METHOD(Fixture, "a write that a crash cut off leaves nothing that stays") {
    folder.write(".a.new", std::string(1000, 'x'));  // as the crash left it
    const auto path = folder.path("a");
    REQUIRE(loop.await(files.write(path, "whole", 0600)));
    CHECK(loop.await(files.read(path, 6)) == "whole");
    CHECK(loop.await(files.list(folder.path())) == std::vector<std::string>{"a"});

    folder.write(".a.new", "half");
    REQUIRE(loop.await(files.remove(path)));
    CHECK(loop.await(files.list(folder.path())) == std::vector<std::string>{});
    folder.write(".a.new", "half, and the file itself never came to be");
    REQUIRE(loop.await(files.remove(path)));
    CHECK(loop.await(files.list(folder.path())) == std::vector<std::string>{});
}

TEST_CASE_METHOD(Fixture, "a file larger than allowed is refused, its head can be read") {
    const auto path = folder.write("a", "0123456789");
    const auto whole = loop.await(files.read(path, 9));
    REQUIRE_FALSE(whole);
    CHECK(whole.error().code == Errc::io_error);
    CHECK(loop.await(files.read_head(path, 4)) == "0123");
    CHECK(loop.await(files.read_head(path, 400)) == "0123456789");
}

TEST_CASE_METHOD(Fixture, "the tail of a file is read, and it may be all of it") {
    const auto path = folder.write("a", "0123456789");
    CHECK(loop.await(files.read_tail(path, 4)) == "6789");
    CHECK(loop.await(files.read_tail(path, 10)) == "0123456789");
    CHECK(loop.await(files.read_tail(path, 400)) == "0123456789");
    CHECK(loop.await(files.read_tail(path, 0)) == "");
    CHECK(loop.await(files.read_tail(folder.write("empty", ""), 4)) == "");
    CHECK(loop.await(files.read_tail(folder.path("nothing"), 4)).error().code == Errc::not_found);
    CHECK(loop.await(files.read_tail(folder.path(), 4)).error().code == Errc::io_error);
}

TEST_CASE_METHOD(Fixture, "the kernel's files, which say that they are empty, are read") {
    const auto boot = loop.await(storage::boot_id(files));
    REQUIRE(boot);
    CHECK(boot->size() == 36);
    const auto all = loop.await(files.read("/proc/self/status", 1 << 20));
    REQUIRE(all);
    CHECK(all->find("VmRSS") != std::string::npos);
    CHECK(loop.await(files.read_head("/proc/self/status", 5)) == "Name:");
    CHECK(loop.await(files.read("/proc/self/status", 5)).error().code == Errc::io_error);
}

TEST_CASE_METHOD(Fixture, "what isn't there: stat says so, read is not_found, remove is content") {
    const auto path = folder.path("nothing");
    const auto found = loop.await(files.stat(path));
    REQUIRE(found);
    CHECK_FALSE(found->has_value());
    const auto bytes = loop.await(files.read(path, 10));
    REQUIRE_FALSE(bytes);
    CHECK(bytes.error().code == Errc::not_found);
    CHECK(bytes.error().detail.find(path) != std::string::npos);
    CHECK(loop.await(files.remove(path)));
    CHECK_FALSE(loop.await(files.write(folder.path("no/such/folder"), "x", 0600)));
}

TEST_CASE_METHOD(Fixture, "directories are made with their parents, listed, renamed into and removed") {
    REQUIRE(loop.await(files.make_directories(folder.path("x/y/z"), 0750)));
    REQUIRE(loop.await(files.make_directories(folder.path("x/y/z"), 0750)));
    CHECK(mode_of(folder.path("x/y")) == 0750);
    REQUIRE(loop.await(files.write(folder.path("file"), "1", 0600)));
    REQUIRE(loop.await(files.rename(folder.path("file"), folder.path("x/y/z/file"))));
    CHECK(folder.read("x/y/z/file") == "1");
    CHECK_FALSE(loop.await(files.remove(folder.path("x/y/z"))));
    REQUIRE(loop.await(files.remove(folder.path("x/y/z/file"))));
    CHECK(loop.await(files.remove(folder.path("x/y/z"))));
    const auto over = loop.await(files.make_directories(folder.write("plain", "") + "/sub", 0700));
    REQUIRE_FALSE(over);
    CHECK(over.error().code == Errc::io_error);
}

TEST_CASE_METHOD(Fixture, "a path is resolved through symbolic links") {
    folder.write("real", "");
    fs::create_symlink(folder.path("real"), folder.path("link"));
    CHECK(loop.await(files.resolve(folder.path("./link"))) == fs::canonical(folder.path("real")).string());
    const auto nothing = loop.await(files.resolve(folder.path("nothing")));
    REQUIRE_FALSE(nothing);
    CHECK(nothing.error().code == Errc::not_found);
}

TEST_CASE_METHOD(Fixture, "the space of a file system is told") {
    const auto space = loop.await(files.space(folder.path()));
    REQUIRE(space);
    CHECK(space->free <= space->total);
    CHECK(space->total > 0);
}

TEST_CASE_METHOD(Fixture, "a copy has the bytes, the digests, the mode and the holes of its source") {
    const auto from = sparse("from");
    const auto to = folder.path("to");
    storage::CopyOptions options;
    options.sha512 = true;
    std::uint64_t last = 0;
    options.progress = [&](std::uint64_t done, std::uint64_t) { last = done; };
    const auto copied = loop.await(files.copy(from, to, options));
    REQUIRE(copied);
    CHECK(copied->size == 40U << 20U);
    // Of sha256sum and sha512sum for the same bytes.
    CHECK(copied->sha256 == "5e208deb620889e5b4466d8b088d9bc17981bb9e5644755df64009d8fccfd838");
    CHECK(copied->sha512.substr(0, 32) == "63d7294a080c2b9dc3482bfda9f96639");
    CHECK(last == copied->size);
    CHECK(mode_of(to) == 0444);
    CHECK(folder.read("to") == folder.read("from"));
    CHECK(blocks_of(to) <= 4U << 20U);
}

TEST_CASE_METHOD(Fixture, "copying an empty file and one without holes") {
    const auto empty = loop.await(files.copy(folder.write("0", ""), folder.path("copy0"), {}));
    REQUIRE(empty);
    CHECK(empty->sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(empty->sha512.empty());
    const auto bytes = std::string(3'000'001, 'q');
    REQUIRE(loop.await(files.copy(folder.write("1", bytes), folder.path("copy1"), {})));
    CHECK(folder.read("copy1") == bytes);
}

TEST_CASE_METHOD(Fixture, "a copy refuses what it can't copy and touches nothing that is there") {
    const auto from = folder.write("from", "new");
    const auto taken = loop.await(files.copy(from, folder.write("to", "old"), {}));
    REQUIRE_FALSE(taken);
    CHECK(taken.error().code == Errc::already_exists);
    CHECK(folder.read("to") == "old");

    const auto missing = loop.await(files.copy(folder.path("nothing"), folder.path("x"), {}));
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == Errc::not_found);

    const auto fifo = folder.path("fifo");
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    for (const auto& odd : {fifo, folder.path()}) {
        const auto refused = loop.await(files.copy(odd, folder.path("x"), {}));
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Errc::io_error);
    }
    CHECK_FALSE(fs::exists(folder.path("x")));
}

TEST_CASE_METHOD(Fixture, "a cancelled copy stops soon and leaves nothing") {
    const auto from = folder.write("huge", "");
    fs::resize_file(from, 4ULL << 40);  // hashing that many zeros would take an hour
    storage::CopyOptions options;
    int after = 0;
    options.progress = [&](std::uint64_t, std::uint64_t) {
        if (after++ == 0) loop.cancel();
    };
    const auto copied = loop.await(files.copy(from, folder.path("to"), options));
    REQUIRE_FALSE(copied);
    CHECK(copied.error().code == Errc::cancelled);
    CHECK_FALSE(fs::exists(folder.path("to")));
}

TEST_CASE_METHOD(Fixture, "a source that grows while it is copied fails the copy") {
    const auto from = folder.write("from", std::string(1000, 'x'));
    fs::resize_file(from, 2ULL << 30);
    storage::CopyOptions options;
    options.progress = [&](std::uint64_t, std::uint64_t) { fs::resize_file(from, (2ULL << 30) + 512); };
    const auto copied = loop.await(files.copy(from, folder.path("to"), options));
    REQUIRE_FALSE(copied);
    CHECK(copied.error().code == Errc::io_error);
    CHECK(copied.error().detail.find("changed") != std::string::npos);
    CHECK_FALSE(fs::exists(folder.path("to")));
}

TEST_CASE_METHOD(Fixture, "a full file system is insufficient_storage and leaves nothing behind") {
    const SmallDisk disk{folder.path("disk"), 2U << 20U};
    if (!disk.mounted()) {
        WARN("no right to mount a tmpfs: not run");
        return;
    }
    const auto from = folder.write("from", std::string(5 << 20, 'x'));
    const auto copied = loop.await(files.copy(from, disk.path("to"), {}));
    REQUIRE_FALSE(copied);
    CHECK(copied.error().code == Errc::insufficient_storage);
    CHECK(copied.error().facts.at("needed").at("disk_bytes").to_number<std::uint64_t>() >= 5U << 20U);
    CHECK(copied.error().facts.at("free").at("disk_bytes").to_number<std::uint64_t>() <= 2U << 20U);

    REQUIRE(loop.await(files.write(disk.path("kept"), "old", 0600)));
    const auto written = loop.await(files.write(disk.path("kept"), std::string(5 << 20, 'x'), 0600));
    REQUIRE_FALSE(written);
    CHECK(written.error().code == Errc::insufficient_storage);
    CHECK(loop.await(files.read(disk.path("kept"), 10)) == "old");
    CHECK(loop.await(files.list(disk.path())) == std::vector<std::string>{"kept"});
}
