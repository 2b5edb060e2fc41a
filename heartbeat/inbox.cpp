#include "heartbeat/inbox.hpp"

#include "heartbeat/json_fields.hpp"
#include "net/text.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <span>
#include <utility>

namespace ghost::heartbeat {
namespace json = boost::json;
namespace {

constexpr std::array kinds{"vm.create", "vm.delete",  "vm.start",  "vm.stop",     "vm.restart",   "vm.pause",
                           "vm.resume", "vm.suspend", "image.add", "agent.drain", "agent.undrain"};
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> older_kinds{
    {{"create_vm", "vm.create"}, {"delete_vm", "vm.delete"}, {"start_vm", "vm.start"}, {"stop_vm", "vm.stop"}}};

constexpr std::chrono::seconds longest_deadline = std::chrono::hours{24};

// Of what Core may send.
constexpr std::size_t max_commands = 100;  // in one answer
constexpr std::size_t max_params = 256 * 1024;
constexpr std::size_t longest_kind = 64;
constexpr std::size_t longest_target = 255;
// Of what is said of a fault in it.
constexpr std::size_t max_problem = 4096;
constexpr std::size_t longest_detail = 1024;
constexpr std::size_t longest_fault = 200;
constexpr std::size_t max_faults = 16;

std::string newer_name(std::string_view kind) {
    const auto* const it = std::ranges::find(older_kinds, kind, &std::pair<std::string_view, std::string_view>::first);
    return std::string{it == older_kinds.end() ? kind : it->second};
}

bool needs_target(std::string_view kind) { return kind.starts_with("vm.") && kind != "vm.create"; }

// A problem goes with beats until Core has heard it, and is kept: as much of it as tells what is wrong.
json::object brief(json::object problem) {
    const auto shorten = [](json::value& value, std::size_t limit) {
        if (value.is_string() && value.get_string().size() > limit)
            value = one_line(std::string_view{value.get_string()}, limit);
    };
    for (auto& member : problem) shorten(member.value(), longest_detail);
    auto* const errors = problem.if_contains("errors");
    if (errors != nullptr && errors->is_array()) {
        auto& list = errors->get_array();
        if (list.size() > max_faults) list.resize(max_faults);
        for (auto& fault : list)
            if (fault.is_object())
                for (auto& member : fault.get_object()) shorten(member.value(), longest_fault);
    }
    if (json::serialize(problem).size() <= max_problem) return problem;
    json::object least;
    for (const auto* const key : {"type", "title", "status", "detail", "code", "request_id"})
        if (const auto* const value = problem.if_contains(key); value != nullptr && !value->is_structured())
            least[key] = *value;
    return least;
}

json::object malformed(const std::vector<base::Fault>& faults) {
    json::array errors;
    for (const auto& fault : faults) {
        if (errors.size() == max_faults) break;
        errors.push_back({{"pointer", fault.pointer}, {"detail", fault.detail}});
    }
    return {{"type", "urn:ghost:problem:validation_failed"},
            {"title", "The command has faults"},
            {"status", 422},
            {"detail", faults.size() == 1 ? faults.front().pointer + " " + faults.front().detail
                                          : fmt::format("{} faults in the command", faults.size())},
            {"code", "validation_failed"},
            {"errors", std::move(errors)}};
}

std::optional<CommandState> state_named(std::string_view name) {
    for (const auto state : {CommandState::accepted, CommandState::running, CommandState::succeeded,
                             CommandState::failed, CommandState::rejected})
        if (name_of(state) == name) return state;
    return std::nullopt;
}

}  // namespace

std::string_view name_of(CommandState state) noexcept {
    switch (state) {
        case CommandState::accepted: return "accepted";
        case CommandState::running: return "running";
        case CommandState::succeeded: return "succeeded";
        case CommandState::failed: return "failed";
        case CommandState::rejected: return "rejected";
    }
    return "accepted";
}

Command moved_on(Command command, CommandState state, std::string operation, json::object problem) {
    command.state = state;
    if (!operation.empty()) command.operation = std::move(operation);
    command.problem = brief(std::move(problem));
    command.params.clear();
    command.has_params = false;
    return command;
}

std::string to_document(const Command& command) {
    json::object out{{"id", command.id},
                     {"kind", command.kind},
                     {"target", command.target},
                     {"received", base::to_unix_ms(command.received)},
                     {"state", name_of(command.state)},
                     {"operation", command.operation},
                     {"confirmed", command.confirmed},
                     {"secret", command.secret}};
    if (command.if_generation) out["if_generation"] = *command.if_generation;
    if (command.deadline) out["deadline_s"] = command.deadline->count();
    if (command.not_after) out["not_after"] = base::to_unix_ms(*command.not_after);
    if (!command.problem.empty()) out["problem"] = command.problem;
    if (command.state == CommandState::accepted && !command.secret) out["params"] = command.params;
    return json::serialize(out);
}

base::Result<Command> command_from_document(std::string_view document) {
    boost::system::error_code ec;
    const auto parsed = json::parse({document.data(), document.size()}, ec);
    if (ec || !parsed.is_object()) return base::fail(base::Errc::io_error, "a kept command is no JSON object");
    const auto& in = parsed.get_object();
    const auto state = state_named(text_member(in, "state").value_or(""));
    const auto received = whole_member(in, "received");
    Command command;
    command.id = text_member(in, "id").value_or("");
    if (!net::is_request_id(command.id) || !state || !received)
        return base::fail(base::Errc::io_error, "a kept command has no id, state or time");
    command.kind = text_member(in, "kind").value_or("");
    command.target = text_member(in, "target").value_or("");
    command.received = base::from_unix_ms(*received);
    if (const auto deadline = whole_member(in, "deadline_s")) command.deadline = std::chrono::seconds{*deadline};
    command.state = *state;
    command.operation = text_member(in, "operation").value_or("");
    command.confirmed = flag_member(in, "confirmed").value_or(false);
    command.secret = flag_member(in, "secret").value_or(false);
    if (const auto generation = whole_member(in, "if_generation"); generation && *generation >= 0)
        command.if_generation = static_cast<std::uint64_t>(*generation);
    if (const auto until = whole_member(in, "not_after")) command.not_after = base::from_unix_ms(*until);
    if (const auto* problem = object_member(in, "problem")) command.problem = *problem;
    const auto* params = object_member(in, "params");
    command.has_params = params != nullptr;
    if (params != nullptr) command.params = *params;
    return command;
}

void Inbox::restore(std::vector<Command> commands) {
    for (auto& command : commands) {
        if (!is_final(command.state)) ++unfinished_;
        const auto id = command.id;
        auto [it, fresh] = entries_.try_emplace(id, Entry{std::move(command)});
        assert(fresh && "ids are unique in the database");
        auto& entry = it->second;
        const bool waits_for_params = entry.command.state == CommandState::accepted && !entry.command.has_params;
        entry.admitted = !waits_for_params;
        if (!entry.command.confirmed && !waits_for_params) tell(entry);
    }
}

Command Inbox::read(const json::object& document, std::string id, base::Wall now) const {
    Command command;
    command.id = std::move(id);
    command.received = now;
    std::vector<base::Fault> faults;
    const auto fault = [&faults](std::string pointer, std::string detail) {
        if (faults.size() <= max_faults)
            faults.push_back({one_line(pointer, longest_fault), one_line(detail, longest_detail)});
    };
    for (const auto& member : document) {
        const std::string_view key = member.key();
        const auto& value = member.value();
        if (key == "id") continue;
        if (value.is_null()) continue;
        if (key == "kind" && value.is_string()) {
            command.kind = newer_name(value.get_string());
        } else if (key == "target" && value.is_string()) {
            command.target = one_line(std::string_view{value.get_string()}, longest_target);
            if (value.get_string().size() > longest_target)
                fault("/target", fmt::format("is longer than {} bytes", longest_target));
        } else if (key == "params" && value.is_object()) {
            command.params = value.get_object();
            if (json::serialize(value).size() > max_params)
                fault("/params", fmt::format("is larger than {} bytes", max_params));
        } else if (key == "if_generation" && value.is_int64() && value.get_int64() >= 0) {
            command.if_generation = static_cast<std::uint64_t>(value.get_int64());
        } else if (key == "not_after" && value.is_string()) {
            command.not_after = base::wall_from_rfc3339(value.get_string());
            if (!command.not_after) fault("/not_after", "expected a time such as 2026-01-02T03:04:05Z");
        } else if (key == "deadline_s" && value.is_int64() && value.get_int64() >= 1 &&
                   value.get_int64() <= longest_deadline.count()) {
            command.deadline = std::chrono::seconds{value.get_int64()};
        } else if (key == "kind" || key == "target" || key == "params" || key == "if_generation" ||
                   key == "not_after" || key == "deadline_s") {
            fault("/" + std::string{key}, "is of the wrong type or out of range");
        } else {
            fault("/" + std::string{key}, "is not known here");
        }
    }
    if (std::ranges::find(kinds, command.kind) == kinds.end())
        fault("/kind", fmt::format("expected one of {}, got \"{}\"", fmt::join(kinds, ", "),
                                   one_line(command.kind, longest_kind)));
    else if (needs_target(command.kind) && command.target.empty())
        fault("/target", "is required: the id or name of a VM");
    command.secret = holds_secret_(command.params);
    if (!faults.empty()) {
        command.state = CommandState::rejected;
        command.kind = one_line(command.kind, longest_kind);
        command.problem = brief(malformed(faults));
        command.params.clear();
    }
    return command;
}

std::vector<Command> Inbox::take(const json::array& commands, base::Wall now, std::vector<std::string>& faults) {
    std::vector<Command> fresh;
    const auto is_here = [&](const std::string& id) {
        return std::ranges::find(fresh, id, &Command::id) != fresh.end();
    };
    if (commands.size() > max_commands)
        faults.push_back(
            fmt::format("{} commands in one answer, of which the first {} count", commands.size(), max_commands));
    std::size_t nameless = 0;
    for (const auto& item : std::span{commands.data(), std::min(commands.size(), max_commands)}) {
        const auto* document = item.if_object();
        const auto id = document == nullptr ? std::nullopt : text_member(*document, "id");
        if (!id || !net::is_request_id(*id)) {
            ++nameless;
            continue;
        }
        const auto it = entries_.find(*id);
        if (it == entries_.end()) {
            if (is_here(*id)) continue;
            if (unfinished_ + fresh.size() >= max_unfinished) {
                faults.push_back(fmt::format("{} commands are under way already: the rest waits", unfinished_));
                break;
            }
            fresh.push_back(read(*document, *id, now));
            continue;
        }
        auto& entry = it->second;
        if (!entry.admitted && entry.command.secret) {
            // Its params were lost with the agent that took it. They are here once it is admitted.
            if (is_here(*id)) continue;
            fresh.push_back(entry.command);
            fresh.back().params = read(*document, *id, now).params;
            fresh.back().has_params = true;
            continue;
        }
        // Core sends each until it has heard of its end; that alone is told again, with whatever beat comes next.
        if (entry.admitted && is_final(entry.command.state)) tell_again(entry);
    }
    if (nameless > 0)
        faults.push_back(
            fmt::format("{} commands without an id of 1 to 64 letters, digits, '.', '_' and '-'", nameless));
    return fresh;
}

void Inbox::admit(const std::vector<Command>& commands) {
    for (const auto& command : commands) {
        const auto known = entries_.find(command.id);
        if (known == entries_.end() && !is_final(command.state)) ++unfinished_;
        auto& entry =
            known == entries_.end() ? entries_.emplace(command.id, Entry{command}).first->second : known->second;
        if (entry.admitted) continue;
        entry.command.params = command.params;
        entry.command.has_params = command.has_params;
        entry.admitted = true;
        // One with a secret is told of once it has begun: until then Core goes on sending it.
        if (!entry.command.secret || entry.command.state != CommandState::accepted) tell(entry);
        if (on_ready && entry.command.state == CommandState::accepted) on_ready(command.id);
    }
}

const Command* Inbox::find(std::string_view id) const {
    const auto it = entries_.find(id);
    return it == entries_.end() ? nullptr : &it->second.command;
}

const Command& Inbox::change(std::string_view id, CommandState state, std::string operation, json::object problem) {
    auto& entry = entries_.find(id)->second;
    auto& command = entry.command;
    assert(!is_final(command.state) && "an end is an end");
    if (is_final(state)) --unfinished_;
    command = moved_on(std::move(command), state, std::move(operation), std::move(problem));
    entry.admitted = true;
    tell(entry);
    return command;
}

void Inbox::tell(Entry& entry) {
    tell_again(entry);
    if (on_news) on_news();
}

void Inbox::tell_again(Entry& entry) {
    if (entry.version > 0) news_.erase(entry.version);
    entry.version = ++versions_;
    news_.emplace(entry.version, entry.command.id);
}

json::array Inbox::acks(std::size_t limit, std::vector<Told>& told) const {
    json::array out;
    for (const auto& [version, id] : news_) {
        if (out.size() == limit) break;
        const auto& command = entries_.find(id)->second.command;
        json::object ack{{"cmd_id", id}, {"state", name_of(command.state)}};
        if (!command.operation.empty()) ack["operation"] = command.operation;
        if (!command.problem.empty()) ack["problem"] = command.problem;
        out.push_back(std::move(ack));
        told.push_back({id, version});
    }
    return out;
}

std::vector<Command> Inbox::confirm(const std::vector<Told>& told) {
    std::vector<Command> ended;
    for (const auto& [id, version] : told) {
        const auto it = entries_.find(id);
        if (it == entries_.end() || it->second.version != version) continue;  // there is more to tell
        news_.erase(version);
        auto& command = it->second.command;
        if (!is_final(command.state) || command.confirmed) continue;
        command.confirmed = true;
        ended.push_back(command);
    }
    return ended;
}

void Inbox::prune(base::Wall received_before) {
    std::vector<std::pair<base::Wall, std::string>> confirmed;
    for (const auto& [id, entry] : entries_)
        if (entry.command.confirmed) confirmed.emplace_back(entry.command.received, id);
    std::ranges::sort(confirmed, std::greater{});
    for (std::size_t i = 0; i < confirmed.size(); ++i) {
        if (i < max_kept && confirmed[i].first >= received_before) continue;
        const auto it = entries_.find(confirmed[i].second);
        news_.erase(it->second.version);
        entries_.erase(it);
    }
}

std::vector<const Command*> Inbox::all() const {
    std::vector<const Command*> out;
    out.reserve(entries_.size());
    for (const auto& [id, entry] : entries_) out.push_back(&entry.command);
    std::ranges::sort(out, [](const Command* a, const Command* b) {
        return std::tie(a->received, a->id) < std::tie(b->received, b->id);
    });
    return out;
}

}  // namespace ghost::heartbeat
