#include "storage/volumes.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/scratch_folder.hpp"
#include "qemu_files.hpp"
#include "small_disk.hpp"
#include "storage/local_files.hpp"

#include <catch2/catch.hpp>

#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <thread>

using namespace ghost;
using base::Errc;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t mib = 1U << 20U;

struct Fixture {
    fakes::TestLoop loop;
    fakes::ScratchFolder folder;
    storage::LocalFiles files;
    base::ChildProcesses processes;
    storage::Volumes volumes{files, processes};

    std::string image() {
        auto path = folder.path("image.qcow2");
        qemu_img("create -f qcow2 " + path + " 8M");
        return path;
    }
};

unsigned mode_of(const std::string& path) {
    struct stat found = {};
    REQUIRE(::stat(path.c_str(), &found) == 0);
    return found.st_mode & 07777U;
}

}  // namespace

TEST_CASE_METHOD(Fixture, "an overlay is private, sized and names its backing file and that file's format") {
    const auto backing = image();
    const auto path = folder.path("disk.qcow2");
    const auto made = loop.await(volumes.create_overlay(path, backing, "qcow2", 20 * mib));
    REQUIRE(made);
    CHECK(mode_of(path) == 0600);
    const auto info = loop.await(volumes.inspect(path));
    REQUIRE(info);
    CHECK(info->format == "qcow2");
    CHECK(info->virtual_size == 20 * mib);
    CHECK(info->backing_path == backing);
    CHECK(info->backing_format == "qcow2");
    qemu_img("check -q -f qcow2 " + path);

    const auto raw = folder.write("raw", std::string(mib, 'r'));
    REQUIRE(loop.await(volumes.create_overlay(folder.path("over-raw.qcow2"), raw, "raw", 2 * mib)));
    CHECK(loop.await(volumes.inspect(folder.path("over-raw.qcow2")))->backing_format == "raw");
}

TEST_CASE_METHOD(Fixture, "a blank volume stands alone, grows and never shrinks") {
    const auto path = folder.path("data.qcow2");
    REQUIRE(loop.await(volumes.create_blank(path, 10 * mib)));
    CHECK(loop.await(volumes.inspect(path))->backing_path.empty());
    REQUIRE(loop.await(volumes.grow(path, 10 * mib)));
    REQUIRE(loop.await(volumes.grow(path, 30 * mib)));
    CHECK(loop.await(volumes.inspect(path))->virtual_size == 30 * mib);
    const auto less = loop.await(volumes.grow(path, 20 * mib));
    REQUIRE_FALSE(less);
    CHECK(less.error().code == Errc::validation_failed);
    CHECK(loop.await(volumes.inspect(path))->virtual_size == 30 * mib);
    CHECK(mode_of(path) == 0600);
    REQUIRE(loop.await(volumes.remove(path)));
    CHECK_FALSE(fs::exists(path));
    const auto gone = loop.await(volumes.inspect(path));
    REQUIRE_FALSE(gone);
    CHECK(gone.error().code == Errc::not_found);
}

TEST_CASE_METHOD(Fixture, "what is there is not overwritten") {
    const auto path = folder.write("taken.qcow2", "precious");
    const auto made = loop.await(volumes.create_blank(path, mib));
    REQUIRE_FALSE(made);
    CHECK(made.error().code == Errc::already_exists);
    CHECK(folder.read("taken.qcow2") == "precious");
}

TEST_CASE_METHOD(Fixture, "a creation that fails leaves no file") {
    const auto path = folder.path("disk.qcow2");
    const auto no_backing = loop.await(volumes.create_overlay(path, folder.path("nothing"), "qcow2", mib));
    REQUIRE_FALSE(no_backing);
    CHECK(no_backing.error().code == Errc::io_error);
    CHECK(no_backing.error().detail.find("nothing") != std::string::npos);
    const auto no_image = loop.await(volumes.create_overlay(path, folder.write("text", "hello"), "qcow2", mib));
    REQUIRE_FALSE(no_image);
    CHECK(no_image.error().code == Errc::invalid_image);
    for (const auto* odd : {"json:{\"driver\":\"null-co\"}", "nbd:127.0.0.1:1", "relative.qcow2", "-U"}) {
        const auto refused = loop.await(volumes.create_overlay(path, odd, "qcow2", mib));
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Errc::validation_failed);
    }
    CHECK_FALSE(loop.await(volumes.create_overlay(path, image(), "vmdk", mib)));
    CHECK_FALSE(loop.await(volumes.create_blank(path, 0)));
    CHECK_FALSE(fs::exists(path));
}

TEST_CASE_METHOD(Fixture, "a volume on a full file system is insufficient_storage and leaves no file") {
    const SmallDisk disk{folder.path("disk"), 128U << 10U};
    if (!disk.mounted()) {
        WARN("no right to mount a tmpfs: not run");
        return;
    }
    const auto made = loop.await(volumes.create_blank(disk.path("d.qcow2"), 100 * mib));
    REQUIRE_FALSE(made);
    CHECK(made.error().code == Errc::insufficient_storage);
    CHECK(made.error().facts.at("free").at("disk_bytes").to_number<std::uint64_t>() <= 128U << 10U);
    CHECK(fs::is_empty(disk.path()));
}

TEST_CASE_METHOD(Fixture, "a volume that another process has open can be inspected and not grown") {
    const auto path = folder.path("busy.qcow2");
    REQUIRE(loop.await(volumes.create_blank(path, mib)));
    std::array<std::string, 6> words{"qemu-io", "-f", "qcow2", "-c", "sleep 60000", path};
    std::array<char*, 7> argv{};
    std::transform(words.begin(), words.end(), argv.begin(), [](std::string& word) { return word.data(); });
    pid_t pid = -1;
    REQUIRE(::posix_spawnp(&pid, "qemu-io", nullptr, nullptr, argv.data(), environ) == 0);
    // It has the lock as soon as a plain open for writing is refused.
    bool refused = false;
    for (int tries = 0; tries < 200 && !refused; ++tries) {
        const auto grown = loop.await(volumes.grow(path, (2 + static_cast<std::uint64_t>(tries)) * mib));
        if (!grown) {
            CHECK(grown.error().code == Errc::state_conflict);
            refused = true;
        }
    }
    CHECK(refused);
    CHECK(loop.await(volumes.inspect(path)));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
}
