// Limits of one VM, whatever the host has.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ghost::agent {

inline constexpr std::uint64_t max_vcpus = 1024;
inline constexpr std::uint64_t min_memory_mib = 32;
inline constexpr std::uint64_t max_memory_mib = 64ULL << 20;  // 64 TiB
inline constexpr std::uint64_t max_disk_gib = 64ULL << 10;    // 64 TiB
inline constexpr std::size_t max_extra_disks = 16;
inline constexpr std::size_t max_nics = 8;
inline constexpr std::size_t max_labels = 64;
inline constexpr std::size_t max_forwards = 32;
inline constexpr std::uint64_t first_unprivileged_port = 1024;
inline constexpr std::size_t max_user_data = 512 * 1024;

}  // namespace ghost::agent
