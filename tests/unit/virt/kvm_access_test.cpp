#include "virt/kvm_access.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

using namespace ghost;
using virt::kvm_fault;
using virt::QemuUser;

namespace {

// A file in the device's place, owned by whoever runs the test.
struct Device {
    explicit Device(mode_t mode) {
        std::string form = (std::filesystem::temp_directory_path() / "ghost-kvm-XXXXXX").string();
        const int file = ::mkstemp(form.data());
        REQUIRE(file >= 0);
        REQUIRE(::fchmod(file, mode) == 0);
        ::close(file);
        path = form;
    }
    ~Device() { std::filesystem::remove(path); }
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    std::string path;
};

constexpr uid_t nobodys_uid = 4'000'000'001;  // in no user database
constexpr gid_t nobodys_gid = 4'000'000'002;

}  // namespace

TEST_CASE("KVM needs a device that QEMU's user can read and write") {
    CHECK(kvm_fault("/nowhere/kvm", QemuUser{0, 0}) == "there is no /nowhere/kvm");
    CHECK(kvm_fault("/nowhere/kvm", std::nullopt) == "there is no /nowhere/kvm");

    const Device closed{0600};
    const QemuUser stranger{nobodys_uid, nobodys_gid};
    const auto fault = kvm_fault(closed.path, stranger);
    CHECK(fault.starts_with(closed.path + " (mode 0600, uid "));
    CHECK(fault.ends_with("is closed to uid 4000000001, which QEMU runs as"));
    CHECK(kvm_fault(closed.path, QemuUser{0, 0}).empty());
    CHECK(kvm_fault(closed.path, QemuUser{::getuid(), nobodys_gid}).empty());
    CHECK(kvm_fault(closed.path, std::nullopt).empty());

    const Device everybodys{0666};
    CHECK(kvm_fault(everybodys.path, stranger).empty());
    const Device readable{0644};
    CHECK_FALSE(kvm_fault(readable.path, stranger).empty());

    // The group the label names counts; what the group may not, its members may not, whatever others may.
    const Device groups{0660};
    CHECK(kvm_fault(groups.path, QemuUser{nobodys_uid, ::getgid()}).empty());
    CHECK_FALSE(kvm_fault(groups.path, stranger).empty());
    const Device not_the_groups{0606};
    CHECK_FALSE(kvm_fault(not_the_groups.path, QemuUser{nobodys_uid, ::getgid()}).empty());
    CHECK(kvm_fault(not_the_groups.path, stranger).empty());
}
