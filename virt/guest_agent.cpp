#include "virt/guest_agent.hpp"

#include "virt/domain_reads.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>
#include <libvirt/libvirt-qemu.h>

#include <algorithm>
#include <utility>

namespace ghost::virt {
namespace {

namespace json = boost::json;
using base::Result;

constexpr std::size_t longest_output = 64 * 1024;  // of a program's, in Base64

json::value returned(std::string_view answer) {
    json::parse_options options;
    options.max_depth = 16;
    boost::system::error_code failed;
    const auto parsed = json::parse(answer, failed, {}, options);
    const auto* object = failed ? nullptr : parsed.if_object();
    const auto* value = object == nullptr ? nullptr : object->if_contains("return");
    return value == nullptr ? json::value{} : *value;
}

std::optional<std::int64_t> integer(const json::object& from, std::string_view key) {
    const auto* value = from.if_contains(key);
    if (value == nullptr || !value->is_int64()) return std::nullopt;
    return value->get_int64();
}

int bits_of(char c) noexcept {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+') return 62;
    return c == '/' ? 63 : -1;
}

// As far as it is Base64.
std::string from_base64(std::string_view text) {
    std::string out;
    unsigned held = 0;
    unsigned bits = 0;
    for (const char c : text.substr(0, longest_output)) {
        const int value = bits_of(c);
        if (value < 0) break;
        held = ((held << 6U) | static_cast<unsigned>(value)) & 0xffffU;
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        out.push_back(static_cast<char>(static_cast<unsigned char>(held >> bits)));
    }
    return out;
}

// Whether none is there, or none that answers.
bool is_no_agent(int code) {
    return code == VIR_ERR_AGENT_UNRESPONSIVE || code == VIR_ERR_AGENT_UNSYNCED ||
           code == VIR_ERR_ARGUMENT_UNSUPPORTED ||  // the domain has no channel for one
           code == VIR_ERR_NO_SUPPORT;
}

struct Answer {
    std::optional<std::string> text = {};
    bool no_agent = false;  // none is there, or none that answers
    std::string why = {};   // the agent's own words, when it answered with an error
};

Result<Answer> ask(virDomainPtr domain, const std::string& command, int agent_seconds) {
    if (virDomainAgentSetResponseTimeout(domain, agent_seconds, 0) >= 0) {
        const CharPtr text{virDomainQemuAgentCommand(domain, command.c_str(), agent_seconds, 0)};
        if (text) return Answer{.text = text.get()};
    }
    const auto code = virGetLastErrorCode();
    if (is_no_agent(code)) return Answer{.no_agent = true};
    if (code != VIR_ERR_INTERNAL_ERROR) return base::fail(last_error("cannot ask the guest agent"));
    auto error = last_error();
    if (error.code == base::Errc::hypervisor_unavailable) return base::fail(std::move(error));
    return Answer{.why = std::move(error.detail)};
}

GuestRun failed(std::string why) { return {.how = GuestRun::How::failed, .output = std::move(why)}; }

}  // namespace

std::string guest_exec_command(const std::vector<std::string>& command) {
    json::object arguments{{"path", command.front()}, {"capture-output", true}};
    arguments["arg"] = json::array(command.begin() + 1, command.end());
    return json::serialize(json::object{{"execute", "guest-exec"}, {"arguments", std::move(arguments)}});
}

std::optional<std::int64_t> read_guest_exec(std::string_view answer) {
    const auto value = returned(answer);
    return value.is_object() ? integer(value.get_object(), "pid") : std::nullopt;
}

std::optional<GuestRun> read_guest_exec_status(std::string_view answer) {
    const auto value = returned(answer);
    if (!value.is_object()) return failed("the guest agent's answer can't be read");
    const auto& status = value.get_object();
    const auto* exited = status.if_contains("exited");
    if (exited == nullptr || !exited->is_bool()) return failed("the guest agent's answer can't be read");
    if (!exited->get_bool()) return std::nullopt;
    GuestRun run{.how = GuestRun::How::exited};
    const auto code = integer(status, "exitcode");
    run.exit_code = code ? static_cast<int>(std::clamp<std::int64_t>(*code, 0, 255)) : 128;  // a signal ended it
    const auto* output = status.if_contains("out-data");
    if (output != nullptr && output->is_string()) run.output = from_base64(output->get_string());
    return run;
}

bool allows_guest_exec(std::string_view guest_info) {
    const auto value = returned(guest_info);
    const auto* info = value.if_object();
    const auto* commands = info == nullptr ? nullptr : info->if_contains("supported_commands");
    if (commands == nullptr || !commands->is_array()) return true;
    for (const auto& each : commands->get_array()) {
        const auto* command = each.if_object();
        const auto* name = command == nullptr ? nullptr : command->if_contains("name");
        const auto* enabled = command == nullptr ? nullptr : command->if_contains("enabled");
        if (name != nullptr && name->is_string() && name->get_string() == "guest-exec")
            return enabled == nullptr || !enabled->is_bool() || enabled->get_bool();
    }
    return false;
}

Result<GuestStart> begin_guest_run(virConnectPtr connection, const std::string& uuid,
                                   const std::vector<std::string>& command, int agent_seconds) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    const auto begun = ask(domain->get(), guest_exec_command(command), agent_seconds);
    if (!begun) return std::unexpected{begun.error()};
    if (begun->text) {
        const auto pid = read_guest_exec(*begun->text);
        return GuestStart{pid, failed("the guest agent's answer can't be read")};
    }
    if (begun->no_agent) return GuestStart{};
    // Its words differ between versions and languages; what it was told to refuse stands in its list.
    const auto info = ask(domain->get(), R"({"execute":"guest-info"})", agent_seconds);
    if (!info) return std::unexpected{info.error()};
    if (!info->text) return GuestStart{};
    if (!allows_guest_exec(*info->text)) return GuestStart{{}, {.how = GuestRun::How::not_allowed}};
    return GuestStart{{}, failed(begun->why)};
}

Result<std::optional<GuestRun>> look_at_guest_run(virConnectPtr connection, const std::string& uuid, std::int64_t pid,
                                                  int agent_seconds) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    const auto seen =
        ask(domain->get(), fmt::format(R"({{"execute":"guest-exec-status","arguments":{{"pid":{}}}}})", pid),
            agent_seconds);
    if (!seen) return std::unexpected{seen.error()};
    if (seen->text) return read_guest_exec_status(*seen->text);
    return seen->no_agent ? GuestRun{} : failed(seen->why);
}

Result<void> set_guest_clock(virConnectPtr connection, const std::string& uuid, base::Wall time, int agent_seconds) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    // Drivers without agents know no timeouts either.
    if (virDomainAgentSetResponseTimeout(domain->get(), agent_seconds, 0) < 0 &&
        virGetLastErrorCode() != VIR_ERR_NO_SUPPORT)
        return base::fail(last_error("cannot ask the guest agent"));
    const auto since_epoch = time.time_since_epoch();
    const auto seconds = std::chrono::floor<std::chrono::seconds>(since_epoch);
    const auto rest = std::chrono::duration_cast<std::chrono::nanoseconds>(since_epoch - seconds);
    if (virDomainSetTime(domain->get(), seconds.count(), static_cast<unsigned>(rest.count()), 0) == 0) return {};
    const auto code = virGetLastErrorCode();
    auto error = last_error("cannot set the guest's clock");
    if (is_no_agent(code)) error.code = base::Errc::state_conflict;
    return base::fail(std::move(error));
}

}  // namespace ghost::virt
