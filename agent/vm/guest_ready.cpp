#include "agent/vm/guest_ready.hpp"

#include "agent/json_reader.hpp"
#include "net/text.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace ghost::agent {
namespace {

namespace json = boost::json;

constexpr std::size_t longest_text = 300;
constexpr std::size_t most_faults = 3;
constexpr int no_such_program = 127;  // by the shell
constexpr int wrong_usage = 2;        // of options, by Python; a degraded cloud-init ends so too, but says something

struct Report {
    std::string status;    // "not run", "running", "done", "error", "disabled", ...
    std::string extended;  // the same with more, as "degraded done" and "error - running"
    std::string detail;
    std::vector<std::string> errors;
    std::vector<std::string> warnings;
};

// One line of printable text. What Python wrote as \n is a line's end, too.
std::string plain(std::string_view text) {
    const bool readable = net::is_utf8(text);
    std::string out;
    for (std::size_t i = 0; i < text.size() && out.size() < longest_text + 4; ++i) {
        char c = text[i];
        const bool escaped = c == '\\' && i + 1 < text.size();
        if (escaped) {
            ++i;
            c = text[i] == 'n' || text[i] == 't' || text[i] == 'r' ? ' ' : text[i];
        }
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !readable)) c = ' ';
        if (c != ' ' || (!out.empty() && out.back() != ' ')) out.push_back(c);
    }
    if (out.size() > longest_text) {
        auto end = longest_text;
        while (end > 0 && (static_cast<unsigned char>(out[end]) & 0xc0U) == 0x80U) --end;
        out.resize(end);
        out += "...";
    }
    while (out.ends_with(' ')) out.pop_back();
    return out;
}

void add(std::vector<std::string>& list, std::string text) {
    if (!text.empty() && std::ranges::find(list, text) == list.end()) list.push_back(std::move(text));
}

std::string text_at(const json::object& from, std::string_view key) {
    const auto* value = from.if_contains(key);
    return value == nullptr || !value->is_string() ? std::string{} : std::string{value->get_string()};
}

void add_texts(const json::value* list, std::vector<std::string>& into) {
    if (list == nullptr || !list->is_array()) return;
    for (const auto& each : list->get_array())
        if (each.is_string()) add(into, std::string{each.get_string()});
}

// Faults stand for all stages together, and by stage in some versions: all are taken, once.
void read_faults(const json::object& from, Report& report) {
    add_texts(from.if_contains("errors"), report.errors);
    if (const auto* recoverable = from.if_contains("recoverable_errors"); recoverable && recoverable->is_object())
        for (const auto& level : recoverable->get_object()) add_texts(&level.value(), report.warnings);
}

std::optional<Report> read_json(std::string_view output) {
    // Versions before 23.1 may warn before the document begins.
    const auto start = output.find('{');
    if (start == std::string_view::npos) return std::nullopt;
    const auto parsed = parse_json(output.substr(start));
    if (!parsed || !parsed->is_object()) return std::nullopt;
    const auto& document = parsed->get_object();
    Report report{.status = text_at(document, "status"),
                  .extended = text_at(document, "extended_status"),
                  .detail = text_at(document, "detail"),
                  .errors = {},
                  .warnings = {}};
    read_faults(document, report);
    for (const auto& stage : document)
        if (stage.value().is_object() && stage.key() != "schemas" && stage.key() != "recoverable_errors")
            read_faults(stage.value().get_object(), report);
    return report;
}

std::string_view without_bullet(std::string_view line) {
    const auto at = line.find_first_not_of(" \t-");
    return at == std::string_view::npos ? std::string_view{} : line.substr(at);
}

// "key: value", where what belongs to detail and errors stands on the lines after them.
Report read_lines(std::string_view output) {
    Report report;
    std::string section;
    while (!output.empty()) {
        const auto end = std::min(output.find('\n'), output.size());
        const auto line = output.substr(0, end);
        output.remove_prefix(std::min(end + 1, output.size()));
        const auto colon = line.find(':');
        const auto key = colon == std::string_view::npos ? std::string_view{} : line.substr(0, colon);
        const auto rest = colon == std::string_view::npos ? line : without_bullet(line.substr(colon + 1));
        const bool known = key == "status" || key == "extended_status" || key == "detail" || key == "errors" ||
                           key == "recoverable_errors" || key == "time" || key == "last_update" ||
                           key == "boot_status_code";
        if (known) section = key;
        const auto value = known ? rest : without_bullet(line);
        if (value.empty() || value == "[]" || value == "{}") continue;
        if (section == "status" && known) report.status = value;
        if (section == "extended_status" && known) report.extended = value;
        if (section == "detail") (report.detail += report.detail.empty() ? "" : "\n") += value;
        if (section == "errors") add(report.errors, std::string{value});
        if (section == "recoverable_errors" && line.starts_with('\t')) add(report.warnings, std::string{value});
        // Before there was a list of them, the errors were the detail.
        if (section == "detail" && value.starts_with("('")) add(report.errors, std::string{value});
    }
    return report;
}

// Python's RuntimeError('text') is its text.
std::string_view without_exception(std::string_view text) {
    const auto open = text.find('(');
    if (open == std::string_view::npos || open + 3 > text.size() || !text.ends_with(')')) return text;
    const auto quote = text[open + 1];
    const auto name = text.substr(0, open);
    const bool is_name = std::ranges::all_of(
        name, [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.' || c == '_'; });
    if (!is_name || (quote != '\'' && quote != '"')) return text;
    text = text.substr(open + 2);
    const auto close = text.rfind(quote);
    return close == std::string_view::npos ? text : text.substr(0, close);
}

// ('scripts_user', RuntimeError('Runparts: 1 failures (x) in 1 attempted commands')) names a module; others don't.
std::string fault(std::string_view error) {
    const auto comma = error.find("', ");
    if (!error.starts_with("('") || comma == std::string_view::npos || !error.ends_with(')'))
        return fmt::format("cloud-init failed: {}", plain(error));
    const auto module = error.substr(2, comma - 2);
    error = error.substr(comma + 3);
    error.remove_suffix(1);
    return fmt::format("the module {} failed: {}", plain(module), plain(without_exception(error)));
}

std::string faults(const Report& report) {
    std::string out;
    for (std::size_t i = 0; i < std::min(report.errors.size(), most_faults); ++i)
        (out += out.empty() ? "" : "; ") += fault(report.errors[i]);
    if (report.errors.size() > most_faults) out += fmt::format("; and {} more", report.errors.size() - most_faults);
    if (out.empty()) out = report.detail.empty() ? "cloud-init failed" : fault(report.detail);
    return out;
}

GuestReadiness unreadable(const virt::GuestRun& run) {
    return {.ready = Verdict::unknown,
            .reason = "cloud_init_unreadable",
            .message = run.exit_code == 0 ? std::string{"cloud-init's status can't be read"}
                                          : fmt::format("cloud-init status ended with {}", run.exit_code)};
}

GuestReadiness judge(const Report& report, const virt::GuestRun& run) {
    const auto& status = report.status;
    const bool goes_on = report.extended.ends_with("running");
    if (status.starts_with("error") || report.extended.starts_with("error"))
        return {.ready = Verdict::no, .reason = "cloud_init_error", .message = faults(report)};
    if (status == "running" || status == "not run" || status == "not started" || goes_on)
        return {.ready = Verdict::no, .reason = "cloud_init_running", .message = plain(report.detail)};
    if (status == "disabled")
        return {.ready = Verdict::yes, .reason = "cloud_init_disabled", .message = plain(report.detail)};
    if (status != "done" && status != "degraded done") return unreadable(run);
    if (report.extended.starts_with("degraded") || !report.warnings.empty())
        return {.ready = Verdict::yes,
                .reason = "cloud_init_degraded",
                .message = report.warnings.empty() ? std::string{} : plain(report.warnings.front())};
    return {.ready = Verdict::yes, .reason = "cloud_init_done", .message = {}};
}

}  // namespace

std::vector<std::string> cloud_init_question(CloudInitDialect dialect) {
    // By way of the shell, whose exit code tells when there is no such program: the agent's words for it vary.
    return {"/bin/sh", "-c",
            dialect == CloudInitDialect::json ? "exec cloud-init status --format json 2>/dev/null"
                                              : "exec cloud-init status --long 2>/dev/null"};
}

std::optional<GuestReadiness> guest_readiness(const virt::GuestRun& run, CloudInitDialect dialect) {
    using How = virt::GuestRun::How;
    switch (run.how) {
        case How::no_agent: return GuestReadiness{};
        case How::not_allowed:
            return GuestReadiness{.ready = Verdict::unknown,
                                  .reason = "guest_exec_not_allowed",
                                  .message = "the guest forbids its agent to run programs"};
        case How::failed:
            return GuestReadiness{
                .ready = Verdict::unknown, .reason = "guest_exec_failed", .message = plain(run.output)};
        case How::exited: break;
    }
    if (run.exit_code == no_such_program)
        return GuestReadiness{.ready = Verdict::yes, .reason = "no_cloud_init", .message = {}};
    const bool silent = run.output.find_first_not_of(" \t\r\n") == std::string::npos;
    if (dialect == CloudInitDialect::json && run.exit_code == wrong_usage && silent) return std::nullopt;
    if (dialect == CloudInitDialect::lines) return judge(read_lines(run.output), run);
    const auto report = read_json(run.output);
    return report ? judge(*report, run) : unreadable(run);
}

}  // namespace ghost::agent
