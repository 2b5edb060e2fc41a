// Whether guests may use KVM: libvirt lists it where the device is, also when the user that QEMU runs as can't open it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::virt {

// What guests are to run by: KVM where it can be had, KVM or nothing, emulation even where KVM is.
enum class VirtType : std::uint8_t { automatic, kvm, qemu };

// The user that libvirt runs QEMU as.
struct QemuUser {
    uid_t uid = 0;
    gid_t gid = 0;
    bool operator==(const QemuUser&) const = default;
};

// From the base label of libvirt's "dac" security model, such as "+64055:+107"; nullopt: not of that form.
[[nodiscard]] std::optional<QemuUser> qemu_user_from(std::string_view base_label);

// Why guests can't use KVM, in words; empty: they can. Without a user, QEMU is one that runs as ourselves. Blocks a
// moment: reads the device's mode and the user's groups.
[[nodiscard]] std::string kvm_fault(const std::string& device, const std::optional<QemuUser>& user);

}  // namespace ghost::virt
