#include "agent/state_directory.hpp"

#include "component/storage/small_disk.hpp"
#include "fakes/scratch_folder.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

using namespace ghost;

namespace {

struct Start {
    fakes::ScratchFolder folder;
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    std::string path = folder.path("state");

    heartbeat::Identity operator()() {
        auto directory = agent::StateDirectory::open(path);
        if (!directory) FAIL(directory.error().detail);
        auto identity = directory->next_identity(clock, random);
        if (!identity) FAIL(identity.error().detail);
        return *identity;
    }
};

// Others take every block.
void take_all(const std::string& path) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    REQUIRE(file >= 0);
    const std::string bytes(4096, 'x');
    while (::write(file, bytes.data(), bytes.size()) > 0) {
    }
    ::close(file);
}

}  // namespace

TEST_CASE("each start has the next epoch and the same identity") {
    Start start;
    const auto first = start();
    const auto second = start();
    const auto third = start();
    CHECK(second.epoch == first.epoch + 1);
    CHECK(third.epoch == first.epoch + 2);
    CHECK(third.install_id == first.install_id);
}

TEST_CASE("what a crash left half written beside the identity is written over") {
    Start start;
    const auto first = start();
    std::ofstream{start.path + "/identity.json.new"} << std::string(300, '{');
    CHECK(start().epoch == first.epoch + 1);
    CHECK(start().epoch == first.epoch + 2);
    std::filesystem::remove(start.path + "/identity.json.new");
    CHECK(start().epoch == first.epoch + 3);
}

TEST_CASE("a second agent is told that the first one holds the directory") {
    Start start;
    const auto held = agent::StateDirectory::open(start.path);
    REQUIRE(held);
    const auto second = agent::StateDirectory::open(start.path);
    REQUIRE_FALSE(second);
    CHECK_THAT(second.error().detail, Catch::Contains("another ghost-agent"));
}

TEST_CASE("a full disk keeps no agent from starting, however often") {
    Start start;
    const SmallDisk disk{start.folder.path("disk"), 1U << 20U};
    if (!disk.mounted()) {
        WARN("no right to mount a tmpfs: not run");
        return;
    }
    start.path = disk.path("state");
    const auto first = start();
    take_all(disk.path("others"));
    for (unsigned n = 1; n <= 3; ++n) {
        CHECK(start().epoch == first.epoch + n);
        take_all(disk.path("others"));
    }
}
