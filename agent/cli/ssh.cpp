#include "agent/cli/ssh.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <utility>

namespace ghost::cli {
namespace json = boost::json;
namespace {

bool is_letter_or_digit(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

bool is_plain(char c) {
    // Beyond ASCII nothing means anything to a shell.
    return is_letter_or_digit(c) || std::string_view{"_-./:@+=,%"}.contains(c) || static_cast<unsigned char>(c) >= 0x80;
}

// ssh puts its own values in for % and a letter.
std::string without_tokens(std::string_view text) {
    std::string out;
    for (const char c : text) out.append(c == '%' ? 2 : 1, c);
    return out;
}

// "ssh-ed25519 AAAA...", without the comment; empty when it isn't of that form.
std::string key_in(std::string_view text) {
    const auto blank = text.find(' ');
    if (blank == std::string_view::npos) return {};
    const auto kind = text.substr(0, blank);
    auto key = text.substr(blank + 1);
    key = key.substr(0, key.find(' '));
    const auto of = [](std::string_view part, std::string_view others) {
        return !part.empty() &&
               std::ranges::all_of(part, [&](char c) { return is_letter_or_digit(c) || others.contains(c); });
    };
    const bool is_key = of(kind, "-@.") && is_letter_or_digit(kind.front()) && of(key, "+/=");
    return is_key ? fmt::format("{} {}", kind, key) : std::string{};
}

std::string alias_of(const json::object& vm) { return "ghost-" + text_at(vm, "id"); }

bool is_id(std::string_view id) {
    return !id.empty() && std::ranges::all_of(id, [](char c) { return is_letter_or_digit(c) || c == '-'; });
}

}  // namespace

std::string shell_word(std::string_view word) {
    if (word.empty()) return "''";
    std::string out;
    for (const char c : word) {
        if (!is_plain(c)) out += '\\';
        out += c;
    }
    return out;
}

std::string proxy_command(const std::vector<std::string>& words) {
    std::vector<std::string> quoted;
    quoted.reserve(words.size());
    for (const auto& word : words) quoted.push_back(without_tokens(shell_word(word)));
    return fmt::format("{}", fmt::join(quoted, " "));
}

std::string plain_command(const std::vector<std::string>& words) {
    std::vector<std::string> quoted;
    quoted.reserve(words.size());
    for (const auto& word : words) {
        if (!word.empty() && std::ranges::all_of(word, is_plain)) {
            quoted.push_back(without_tokens(word));
            continue;
        }
        std::string out = "\"";
        for (const char c : word) {
            if (c == '"' || c == '\\') out += '\\';
            out += c;
        }
        quoted.push_back(without_tokens(out + '"'));
    }
    return fmt::format("{}", fmt::join(quoted, " "));
}

std::vector<std::string> host_keys_of(const json::object& vm) {
    std::vector<std::string> keys;
    if (const auto* said = array_at(part(vm, "status"), "ssh_host_keys"))
        for (const auto& text : *said)
            if (auto key = text.is_string() ? key_in(text.get_string()) : std::string{}; !key.empty())
                keys.push_back(std::move(key));
    return keys;
}

std::string known_hosts_lines(const json::object& vm) {
    std::string out;
    if (!is_id(text_at(vm, "id"))) return out;
    for (const auto& key : host_keys_of(vm)) out += fmt::format("{} {}\n", alias_of(vm), key);
    return out;
}

std::expected<std::vector<std::string>, Failure> ssh_command(const StartSsh& action, const json::object& vm) {
    if (!is_id(text_at(vm, "id")))
        return std::unexpected{Failure{ExitCode::failed, "the agent's answer is no VM", {}, "is that a ghost-agent?"}};
    const auto breaks = [](const std::string& word) { return word.find_first_of("\r\n") != std::string::npos; };
    if (std::ranges::any_of(action.caller, breaks) || breaks(action.known_hosts) || breaks(action.vm.name))
        return std::unexpected{Failure{ExitCode::usage, "ssh can't be told names with line breaks"}};
    const auto alias = alias_of(vm);
    const auto called = [&action](std::initializer_list<std::string> more) {
        auto words = action.caller;
        words.insert(words.end(), more);
        return words;
    };
    std::vector<std::string> words{
        "ssh",
        "-o",
        "ProxyCommand=" + proxy_command(called({"forward", action.vm.name, "--stdio", "22"})),
        "-o",
        "HostKeyAlias=" + alias,
    };
    const auto set = [&words](std::string option) {
        words.emplace_back("-o");
        words.push_back(std::move(option));
    };
    if (host_keys_of(vm).empty()) {
        set("UserKnownHostsFile=" + plain_command({action.known_hosts}));
        set("GlobalKnownHostsFile=/dev/null");
        set("StrictHostKeyChecking=accept-new");
    } else {
        set("KnownHostsCommand=" + plain_command(called({"ssh-host-keys", action.vm.name})));
        set("UserKnownHostsFile=/dev/null");
        set("GlobalKnownHostsFile=/dev/null");
        set("StrictHostKeyChecking=yes");
    }
    const auto made_for = text_at(part(vm, "spec"), "cloud_init", "user");
    if (const auto& user = action.user.empty() ? made_for : action.user; !user.empty()) {
        words.emplace_back("-l");
        words.push_back(user);
    }
    // A name of its own, so that no section of the user's configuration that is for another host gets in the way.
    words.push_back(alias);
    words.insert(words.end(), action.words.begin(), action.words.end());
    return words;
}

}  // namespace ghost::cli
