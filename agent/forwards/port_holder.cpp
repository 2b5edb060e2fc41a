#include "agent/forwards/port_holder.hpp"

#include <fmt/format.h>

#include <pwd.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>
#include <vector>

namespace ghost::agent {
namespace {

namespace ip = boost::asio::ip;

constexpr std::size_t most_lines = 1 << 20;  // of a table of sockets
constexpr std::size_t most_links = 1 << 20;  // descriptors that are looked at

struct Socket {
    std::string inode;
    uid_t user = 0;
};

template <class N>
std::optional<N> number(std::string_view text, int base) {
    N value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// "0100007F" is 127.0.0.1 on a little-endian machine: words of four bytes, each as a number of this machine's.
std::optional<ip::address> address_in(std::string_view hex) {
    std::array<unsigned char, 16> bytes{};
    if (hex.size() != 8 && hex.size() != 32) return std::nullopt;
    for (std::size_t i = 0; i < hex.size(); i += 8) {
        const auto word = number<std::uint32_t>(hex.substr(i, 8), 16);
        if (!word) return std::nullopt;
        std::memcpy(bytes.data() + i / 2, &*word, sizeof *word);
    }
    if (hex.size() == 8) return ip::address_v4{{bytes[0], bytes[1], bytes[2], bytes[3]}};
    const ip::address_v6 address{bytes};
    if (address.is_v4_mapped()) return ip::make_address_v4(ip::v4_mapped, address);
    return ip::address{address};
}

// Whether a socket at `has` stands in the way of one at `wanted`.
bool overlaps(const ip::address& has, const ip::address& wanted) {
    if (has.is_unspecified()) return has.is_v6() || wanted.is_v4();  // [::] takes IPv4's, too, as a rule
    return has == wanted || (wanted.is_unspecified() && wanted.is_v4() == has.is_v4());
}

// Of the lines `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`.
std::optional<Socket> socket_in(const std::string& table, bool listening, const ip::address& address,
                                std::uint16_t port) {
    constexpr std::string_view listens = "0A";
    std::ifstream file{table};
    std::string line;
    std::getline(file, line);  // the heading
    for (std::size_t i = 0; i < most_lines && std::getline(file, line); ++i) {
        std::istringstream in{line};
        std::array<std::string, 10> word;
        for (auto& each : word) in >> each;
        const auto colon = word[1].find(':');
        if (!in || colon == std::string::npos || (listening && word[3] != listens)) continue;
        if (number<std::uint16_t>(std::string_view{word[1]}.substr(colon + 1), 16) != port) continue;
        const auto has = address_in(std::string_view{word[1]}.substr(0, colon));
        if (!has || !overlaps(*has, address)) continue;
        return Socket{word[9], number<uid_t>(word[7], 10).value_or(0)};
    }
    return std::nullopt;
}

std::vector<std::string> names_in(const std::string& directory) {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator it{directory, error}, end; !error && it != end; it.increment(error))
        names.push_back(it->path().filename().string());
    return names;
}

std::string name_of_process(const std::string& folder) {
    std::string name;
    std::getline(std::ifstream{folder + "/comm"}, name);
    // A program calls itself what it likes.
    for (auto& c : name)
        if (c <= ' ' || c > '~') c = '?';
    return name.empty() ? "a program" : name.substr(0, 32);
}

std::optional<std::string> process_with(const std::string& inode, const std::string& proc) {
    const auto wanted = "socket:[" + inode + "]";
    std::size_t links = 0;
    for (const auto& pid : names_in(proc)) {
        if (!number<unsigned>(pid, 10)) continue;
        const auto folder = proc + "/" + pid;
        for (const auto& fd : names_in(folder + "/fd")) {
            if (++links > most_links) return std::nullopt;
            std::array<char, 64> target{};
            const auto length = ::readlink((folder + "/fd/" + fd).c_str(), target.data(), target.size());
            if (length > 0 && std::string_view{target.data(), static_cast<std::size_t>(length)} == wanted)
                return fmt::format("{} (pid {})", name_of_process(folder), pid);
        }
    }
    return std::nullopt;
}

std::string user_name(uid_t user) {
    std::array<char, 16 * 1024> buffer{};
    passwd entry{};
    passwd* found = nullptr;
    if (::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr)
        return found->pw_name;
    return std::to_string(user);
}

}  // namespace

std::string port_holder(Protocol protocol, const ip::address& address, std::uint16_t port, const std::string& proc) {
    const bool tcp = protocol == Protocol::tcp;
    for (const auto* const table : {tcp ? "tcp" : "udp", tcp ? "tcp6" : "udp6"}) {
        const auto socket = socket_in(fmt::format("{}/net/{}", proc, table), tcp, address, port);
        if (!socket) continue;
        if (auto process = process_with(socket->inode, proc)) return *std::move(process);
        return "a program of the user " + user_name(socket->user);
    }
    return "another program";
}

}  // namespace ghost::agent
