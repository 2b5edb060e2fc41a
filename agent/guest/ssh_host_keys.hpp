// The public keys by which a guest's SSH server is known, as the guest shows
// them. What it prints is of its own choice: only what has the form of such keys
// is taken, and little of that.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

// Prints the public host keys of OpenSSH and Dropbear that are there, one a line.
[[nodiscard]] std::vector<std::string> host_keys_question();

inline constexpr std::size_t max_host_keys = 8;
inline constexpr std::size_t max_host_key = 2048;  // bytes of a line
// "ssh-ed25519 AAAA...", without comments, each once, in a fixed order.
[[nodiscard]] std::vector<std::string> host_keys_in(std::string_view output);

}  // namespace ghost::agent
