#include "virt/kvm_access.hpp"

#include <fmt/format.h>

#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

namespace ghost::virt {
namespace {

// "+64055": the plus says that it is a number and no name.
std::optional<unsigned> number_from(std::string_view text) {
    if (!text.starts_with('+')) return std::nullopt;
    text.remove_prefix(1);
    unsigned number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return number;
}

struct Account {
    std::string name;
    std::vector<gid_t> groups;
};

// The user's groups as libvirt sets them before it starts QEMU: those of the group database and the label's own.
Account account_of(const QemuUser& user) {
    Account account{fmt::format("uid {}", user.uid), {user.gid}};
    std::array<char, 16 * 1024> buffer{};
    passwd entry{};
    passwd* found = nullptr;
    if (::getpwuid_r(user.uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) return account;
    account.name = entry.pw_name;
    constexpr int most_groups = 1024;
    std::vector<gid_t> groups(most_groups);
    int count = most_groups;
    if (::getgrouplist(entry.pw_name, user.gid, groups.data(), &count) < 0) return account;
    groups.resize(static_cast<std::size_t>(count));
    account.groups = std::move(groups);
    return account;
}

bool may_read_and_write(const struct stat& device, const QemuUser& user, const std::vector<gid_t>& groups) {
    const auto allows = [&device](mode_t both) { return (device.st_mode & both) == both; };
    if (user.uid == 0) return true;
    if (device.st_uid == user.uid) return allows(S_IRUSR | S_IWUSR);
    if (std::ranges::find(groups, device.st_gid) != groups.end()) return allows(S_IRGRP | S_IWGRP);
    return allows(S_IROTH | S_IWOTH);
}

// An access control list says more than the mode does; who is named in it is left for QEMU to find out.
bool has_access_list(const std::string& path) {
    return ::getxattr(path.c_str(), "system.posix_acl_access", nullptr, 0) > 0;
}

}  // namespace

std::optional<QemuUser> qemu_user_from(std::string_view base_label) {
    const auto colon = base_label.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const auto uid = number_from(base_label.substr(0, colon));
    const auto gid = number_from(base_label.substr(colon + 1));
    if (!uid || !gid) return std::nullopt;
    return QemuUser{*uid, *gid};
}

std::string kvm_fault(const std::string& device, const std::optional<QemuUser>& user) {
    struct stat found = {};
    if (::stat(device.c_str(), &found) != 0) return fmt::format("there is no {}", device);
    if (!user) return ::access(device.c_str(), R_OK | W_OK) == 0 ? "" : fmt::format("{} is closed to us", device);
    const auto account = account_of(*user);
    if (may_read_and_write(found, *user, account.groups) || has_access_list(device)) return {};
    return fmt::format("{} (mode {:04o}, uid {}, gid {}) is closed to {}, which QEMU runs as", device,
                       found.st_mode & 07777U, found.st_uid, found.st_gid, account.name);
}

}  // namespace ghost::virt
