#include "agent/guest/ssh_host_keys.hpp"

#include "base/base64.hpp"

#include <algorithm>
#include <array>

namespace ghost::agent {
namespace {

constexpr std::array<std::string_view, 8> key_types{"ssh-ed25519",
                                                    "ssh-rsa",
                                                    "ssh-dss",
                                                    "ecdsa-sha2-nistp256",
                                                    "ecdsa-sha2-nistp384",
                                                    "ecdsa-sha2-nistp521",
                                                    "sk-ssh-ed25519@openssh.com",
                                                    "sk-ecdsa-sha2-nistp256@openssh.com"};

// A key begins with its type once more, after the four bytes of that one's length (RFC 4253, section 6.6).
bool is_key_of(std::string_view type, std::string_view base64) {
    const auto bytes = base::from_base64(base64, base64.size());
    if (base::to_base64(bytes) != base64) return false;  // not all of it is Base64
    const std::string length{'\0', '\0', '\0', static_cast<char>(type.size())};
    return bytes.size() > 4 + type.size() && bytes.starts_with(length + std::string{type});
}

std::string_view word(std::string_view& rest) {
    const auto start = std::min(rest.find_first_not_of(" \t"), rest.size());
    rest.remove_prefix(start);
    const auto end = std::min(rest.find_first_of(" \t\r"), rest.size());
    const auto out = rest.substr(0, end);
    rest.remove_prefix(end);
    return out;
}

}  // namespace

std::vector<std::string> host_keys_question() {
    return {"/bin/sh", "-c",
            "cat /etc/ssh/ssh_host_*_key.pub /usr/local/etc/ssh/ssh_host_*_key.pub /etc/dropbear/*.pub 2>/dev/null; "
            "for k in /etc/dropbear/*_host_key; do [ -e \"$k\" ] && dropbearkey -y -f \"$k\" 2>/dev/null; done; "
            "exit 0"};
}

std::vector<std::string> host_keys_in(std::string_view output) {
    std::vector<std::string> keys;
    while (!output.empty() && keys.size() < max_host_keys) {
        const auto end = std::min(output.find('\n'), output.size());
        auto line = output.substr(0, end);
        output.remove_prefix(std::min(end + 1, output.size()));
        if (line.size() > max_host_key) continue;
        const auto type = word(line);
        const auto base64 = word(line);
        if (std::ranges::find(key_types, type) == key_types.end() || !is_key_of(type, base64)) continue;
        auto key = std::string{type} + ' ' + std::string{base64};
        if (std::ranges::find(keys, key) == keys.end()) keys.push_back(std::move(key));
    }
    std::ranges::sort(keys);
    return keys;
}

}  // namespace ghost::agent
