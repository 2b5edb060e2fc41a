#include "virt/guest_agent.hpp"

#include "base/base64.hpp"
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
using base::from_base64;
using base::Result;
using base::to_base64;

constexpr std::string_view unreadable = "the guest agent's answer can't be read";
// Of libvirt, which passes no longer answers on (and its client no messages beyond 4 MiB).
constexpr std::string_view too_long = "exceeds buffer size";

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

bool is_true(const json::object& from, std::string_view key) {
    const auto* value = from.if_contains(key);
    return value != nullptr && value->is_bool() && value->get_bool();
}

// What a program printed: at most `most` bytes. Returns whether there was more.
bool take_output(const json::object& status, std::string_view data_key, std::string_view truncated_key,
                 std::size_t most, std::string& out) {
    const auto* data = status.if_contains(data_key);
    if (data != nullptr && data->is_string()) out = from_base64(data->get_string(), most + 1);
    const bool more = out.size() > most;
    if (more) out.resize(most);
    return more || is_true(status, truncated_key);
}

// libvirt puts what it was doing in front of what the agent says.
std::string agents_words(const std::string& detail) {
    constexpr std::string_view doing = "unable to execute QEMU agent command '";
    const auto begin = detail.find(doing);
    const auto end = begin == std::string::npos ? begin : detail.find("': ", begin + doing.size());
    return end == std::string::npos ? detail : detail.substr(end + 3);
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
    auto error = last_error();
    const bool unfit = code == VIR_ERR_RPC || (code == VIR_ERR_INTERNAL_ERROR && error.detail.contains(too_long));
    if (unfit) return Answer{.why = "the guest agent's answer is longer than libvirt passes on"};
    if (code != VIR_ERR_INTERNAL_ERROR) return base::fail(last_error("cannot ask the guest agent"));
    if (error.code == base::Errc::hypervisor_unavailable) return base::fail(std::move(error));
    return Answer{.why = agents_words(error.detail)};
}

// What came of a command about a file.
Result<std::string> ask_about_file(virConnectPtr connection, const std::string& uuid, const std::string& command,
                                   int agent_seconds) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    auto answer = ask(domain->get(), command, agent_seconds);
    if (!answer) return std::unexpected{std::move(answer.error())};
    if (answer->text) return *std::move(answer->text);
    return base::fail(base::Errc::state_conflict, answer->no_agent
                                                      ? "no guest agent answers"
                                                      : fmt::format("the guest agent says: {}", answer->why));
}

std::unexpected<base::Error> unreadable_answer() {
    return base::fail(base::Errc::state_conflict, std::string{unreadable});
}

GuestRun failed(std::string why) { return {.how = GuestRun::How::failed, .output = std::move(why)}; }

}  // namespace

std::string guest_exec_command(const GuestCommand& command) {
    json::object arguments{{"path", command.argv.front()}, {"capture-output", true}};
    arguments["arg"] = json::array(command.argv.begin() + 1, command.argv.end());
    if (!command.environment.empty())
        arguments["env"] = json::array(command.environment.begin(), command.environment.end());
    if (!command.input.empty()) arguments["input-data"] = to_base64(command.input);
    return json::serialize(json::object{{"execute", "guest-exec"}, {"arguments", std::move(arguments)}});
}

Result<std::string> check_guest_command(const GuestCommand& command) {
    if (command.input.size() > max_guest_input)
        return base::fail(
            base::Errc::body_too_large,
            fmt::format("a program in a guest takes no more than {} KiB of input", max_guest_input >> 10U));
    auto text = guest_exec_command(command);
    if (text.size() > max_guest_command)
        return base::fail(base::Errc::body_too_large,
                          "the command's arguments and environment are longer than a guest agent can be handed");
    return text;
}

std::optional<std::int64_t> read_guest_exec(std::string_view answer) {
    const auto value = returned(answer);
    return value.is_object() ? integer(value.get_object(), "pid") : std::nullopt;
}

std::optional<GuestRun> read_guest_exec_status(std::string_view answer, std::size_t max_output) {
    const auto value = returned(answer);
    if (!value.is_object()) return failed(std::string{unreadable});
    const auto& status = value.get_object();
    const auto* exited = status.if_contains("exited");
    if (exited == nullptr || !exited->is_bool()) return failed(std::string{unreadable});
    if (!exited->get_bool()) return std::nullopt;
    GuestRun run{.how = GuestRun::How::exited};
    const auto code = integer(status, "exitcode");
    run.exit_code = code ? static_cast<int>(std::clamp<std::int64_t>(*code, 0, 255)) : 128;  // a signal ended it
    const bool more_output = take_output(status, "out-data", "out-truncated", max_output, run.output);
    const bool more_errors = take_output(status, "err-data", "err-truncated", max_output, run.errors);
    run.truncated = more_output || more_errors;
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

Result<GuestStart> begin_guest_run(virConnectPtr connection, const std::string& uuid, const std::string& exec_command,
                                   int agent_seconds) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    const auto begun = ask(domain->get(), exec_command, agent_seconds);
    if (!begun) return std::unexpected{begun.error()};
    if (begun->text) {
        const auto pid = read_guest_exec(*begun->text);
        return GuestStart{pid, failed(std::string{unreadable})};
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
                                                  std::size_t max_output, int agent_seconds) {
    const auto domain = find_domain(connection, uuid);
    if (!domain) return std::unexpected{domain.error()};
    const auto seen =
        ask(domain->get(), fmt::format(R"({{"execute":"guest-exec-status","arguments":{{"pid":{}}}}})", pid),
            agent_seconds);
    if (!seen) return std::unexpected{seen.error()};
    if (seen->text) return read_guest_exec_status(*seen->text, max_output);
    if (!seen->no_agent) return failed(seen->why);
    return base::fail(base::Errc::deadline_exceeded,
                      "the guest agent fell silent; what came of the program isn't known");
}

std::string guest_file_open_command(const std::string& path, GuestFileMode mode) {
    json::object arguments{{"path", path}, {"mode", mode == GuestFileMode::read ? "rb" : "wb"}};
    return json::serialize(json::object{{"execute", "guest-file-open"}, {"arguments", std::move(arguments)}});
}

std::string guest_file_write_command(std::int64_t handle, std::string_view bytes) {
    json::object arguments{{"handle", handle}, {"buf-b64", to_base64(bytes)}};
    return json::serialize(json::object{{"execute", "guest-file-write"}, {"arguments", std::move(arguments)}});
}

std::optional<std::int64_t> read_guest_file_open(std::string_view answer) {
    const auto value = returned(answer);
    return value.is_int64() ? std::optional{value.get_int64()} : std::nullopt;
}

std::optional<GuestPiece> read_guest_file_read(std::string_view answer) {
    const auto value = returned(answer);
    const auto* read = value.if_object();
    const auto* data = read == nullptr ? nullptr : read->if_contains("buf-b64");
    const auto count = read == nullptr ? std::nullopt : integer(*read, "count");
    if (data == nullptr || !data->is_string() || !count) return std::nullopt;
    GuestPiece piece{from_base64(data->get_string(), max_guest_piece + 1), is_true(*read, "eof")};
    // Nothing is left out unnoticed, and no piece is empty for ever.
    const bool whole = piece.bytes.size() <= max_guest_piece && static_cast<std::int64_t>(piece.bytes.size()) == *count;
    if (!whole || (piece.bytes.empty() && !piece.end)) return std::nullopt;
    return piece;
}

std::optional<std::int64_t> read_guest_file_write(std::string_view answer) {
    const auto value = returned(answer);
    return value.is_object() ? integer(value.get_object(), "count") : std::nullopt;
}

Result<std::int64_t> open_in_guest(virConnectPtr connection, const std::string& uuid, const std::string& path,
                                   GuestFileMode mode, int agent_seconds) {
    const auto answer = ask_about_file(connection, uuid, guest_file_open_command(path, mode), agent_seconds);
    if (!answer) return std::unexpected{answer.error()};
    const auto handle = read_guest_file_open(*answer);
    if (!handle) return unreadable_answer();
    return *handle;
}

Result<GuestPiece> read_in_guest(virConnectPtr connection, const std::string& uuid, std::int64_t handle,
                                 int agent_seconds) {
    const auto command = fmt::format(R"({{"execute":"guest-file-read","arguments":{{"handle":{},"count":{}}}}})",
                                     handle, max_guest_piece);
    const auto answer = ask_about_file(connection, uuid, command, agent_seconds);
    if (!answer) return std::unexpected{answer.error()};
    auto piece = read_guest_file_read(*answer);
    if (!piece) return unreadable_answer();
    return *std::move(piece);
}

Result<void> write_in_guest(virConnectPtr connection, const std::string& uuid, std::int64_t handle,
                            std::string_view bytes, int agent_seconds) {
    const auto answer = ask_about_file(connection, uuid, guest_file_write_command(handle, bytes), agent_seconds);
    if (!answer) return std::unexpected{answer.error()};
    const auto count = read_guest_file_write(*answer);
    if (!count) return unreadable_answer();
    if (*count == static_cast<std::int64_t>(bytes.size())) return {};
    return base::fail(base::Errc::state_conflict,
                      fmt::format("the guest agent wrote {} bytes of {}", *count, bytes.size()));
}

Result<void> close_in_guest(virConnectPtr connection, const std::string& uuid, std::int64_t handle, int agent_seconds) {
    const auto answer = ask_about_file(
        connection, uuid, fmt::format(R"({{"execute":"guest-file-close","arguments":{{"handle":{}}}}})", handle),
        agent_seconds);
    if (!answer) return std::unexpected{answer.error()};
    return {};
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
