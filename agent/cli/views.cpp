#include "agent/cli/views.hpp"

#include "agent/cli/facts.hpp"
#include "agent/cli/json_access.hpp"
#include "agent/cli/progress.hpp"
#include "agent/cli/table.hpp"
#include "agent/cli/text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <vector>

namespace ghost::cli {
namespace json = boost::json;
namespace {

std::string bytes_at(const json::object& from, std::string_view key) {
    const auto number = number_at(from, key);
    return number ? human_bytes(*number) : std::string{};
}

std::string age_at(const json::object& from, std::string_view key, base::Wall now) {
    const auto time = text_at(from, key);
    return time.empty() ? time : age(time, now);
}

std::string ago(const json::object& from, std::string_view key, base::Wall now) {
    const auto time = text_at(from, key);
    return time.empty() ? time : fmt::format("{} ({} ago)", time, age(time, now));
}

// "sha256:0123456789ab": enough to tell two apart.
std::string short_digest(const std::string& digest) { return digest.substr(0, 19); }

std::string target_of(const json::object& operation) {
    const auto name = text_at(operation, "target", "name");
    return name.empty() ? text_at(operation, "target", "id") : name;
}

std::string state_of(const json::object& operation) {
    auto state = text_at(operation, "state");
    if (bool_at(operation, "stalled") == true) state += " (stalled)";
    return state;
}

std::string hypervisor(const json::object& agent) {
    const auto& h = part(agent, "hypervisor");
    std::vector<std::string> parts;
    for (const auto& [key, name] : {std::pair{"libvirt_version", "libvirt"}, std::pair{"qemu_version", "QEMU"}})
        if (const auto version = text_at(h, key); !version.empty())
            parts.push_back(fmt::format("{} {}", name, version));
    if (const auto uri = text_at(h, "uri"); !uri.empty()) parts.push_back(uri);
    if (bool_at(h, "connected") == false) parts.emplace_back("not connected");
    const auto kind = text_at(h, "kind");
    const auto named = kind == "qemu" ? std::string{"qemu (no KVM: slow)"} : kind;
    return parts.empty() ? named : fmt::format("{} ({})", named.empty() ? "?" : named, fmt::join(parts, ", "));
}

std::string tailnet(const json::object& agent) {
    const auto& t = part(agent, "tailnet");
    if (bool_at(t, "connected") != true) return text_at(t, "reason");
    std::vector<std::string> parts;
    if (auto name = text_at(t, "dns_name"); !name.empty()) parts.push_back(std::move(name));
    if (const auto* const list = t.if_contains("addresses"); list != nullptr && list->is_array())
        for (const auto& address : list->get_array())
            if (const auto* const text = address.if_string()) parts.emplace_back(*text);
    return fmt::format("connected ({})", fmt::join(parts, ", "));
}

// "connected to https://core.example (last heartbeat 12s ago)"
std::string ghost_core(const json::object& agent, base::Wall now) {
    const auto& core = part(agent, "core");
    auto text = text_at(core, "state");
    if (text == "disabled") return "off (agent.api_url is not set)";
    std::ranges::replace(text, '_', ' ');
    if (const auto url = text_at(core, "url"); !url.empty()) text += (text == "connected" ? " to " : ", ") + url;
    if (const auto since = age_at(core, "last_beat_at", now); !since.empty())
        text += fmt::format(" (last heartbeat {} ago)", since);
    if (const auto reason = text_at(core, "reason"); !reason.empty()) text += ": " + reason;
    return text;
}

// Stands below it.
void add_link(Page& page, const json::object& agent, base::Wall now) {
    const auto& core = part(agent, "core");
    if (const auto next = parse_time(text_at(core, "next_attempt_at")); next && text_at(core, "state") != "connected") {
        const auto left = std::chrono::ceil<std::chrono::seconds>(*next - now);
        page.add("  next try", left.count() > 0 ? fmt::format("in {}", human_span(left)) : "now");
    }
    if (const auto* warnings = array_at(core, "warnings"))
        for (const auto& warning : *warnings)
            if (const auto* text = warning.if_string()) page.add("  warning", std::string_view{*text});
}

void add_agent(Page& page, const json::object& agent, base::Wall now) {
    page.add("Agent", fmt::format("{}, version {}", text_at(agent, "name"), text_at(agent, "version")));
    page.add("Id", text_at(agent, "agent_id"));
    page.add("Up", age_at(agent, "started_at", now));
    page.add("Hypervisor", hypervisor(agent));
    page.add("Ghost Core", ghost_core(agent, now));
    add_link(page, agent, now);
    page.add("Tailnet", tailnet(agent));
    if (const auto* const drain = object_at(agent, "drain")) {
        const auto reason = text_at(*drain, "reason");
        const auto since = age_at(*drain, "since", now);
        page.add("Drained",
                 fmt::format("takes no new VMs{}{}{} (by {}){}{}", since.empty() ? "" : ", since ", since,
                             since.empty() ? "" : " ago", text_at(*drain, "by"), reason.empty() ? "" : ": ", reason));
    }
}

void add_checks(Page& page, const json::object& health, base::Wall now) {
    for (const auto& member : part(health, "checks")) {
        if (!member.value().is_object()) continue;
        const auto& check = member.value().get_object();
        const auto status = text_at(check, "status");
        if (status == "up") continue;
        auto line = status;
        if (const auto since = text_at(check, "since"); !since.empty()) line += fmt::format(" for {}", age(since, now));
        if (const auto reason = text_at(check, "reason"); !reason.empty()) line += fmt::format(": {}", reason);
        page.add(fmt::format("  {}", printable(std::string_view{member.key()})), line);
    }
}

// "4 (1 off, 2 running; unmanaged: 1 running)"
std::string count_of(const json::array& vms) {
    std::map<std::string, std::size_t> states;
    std::map<std::string, std::size_t> others;
    for (const auto& vm : vms) {
        if (!vm.is_object()) continue;
        const auto& one = vm.get_object();
        ++(bool_at(one, "managed") == false ? others : states)[vm_phase(one)];
    }
    const auto told = [](const auto& counts) {
        std::vector<std::string> parts;
        parts.reserve(counts.size());
        for (const auto& [state, count] : counts) parts.push_back(fmt::format("{} {}", count, state));
        return fmt::format("{}", fmt::join(parts, ", "));
    };
    std::vector<std::string> parts;
    if (!states.empty()) parts.push_back(told(states));
    if (!others.empty()) parts.push_back("unmanaged: " + told(others));
    return parts.empty() ? "none" : fmt::format("{} ({})", vms.size(), fmt::join(parts, "; "));
}

struct Pool {
    std::string_view key;
    std::string_view name;
    std::string (*show)(double);
};
constexpr Pool pools[] = {
    {"cpus", "CPUs", human_number}, {"memory_mib", "Memory", human_mib}, {"disk_bytes", "Disk", human_bytes}};

std::string percent_at(const json::object& from, std::string_view key) {
    const auto number = number_at(from, key);
    return number ? fmt::format("{} %", human_number(*number)) : std::string{"?"};
}

std::string load_of(const json::object& resources) {
    const auto* const load = object_at(resources, "load");
    if (load == nullptr) return {};
    std::vector<std::string> parts;
    for (const auto& [key, span] : {std::pair{"1m", "1"}, std::pair{"5m", "5"}, std::pair{"15m", "15"}})
        if (const auto number = number_at(*load, key))
            parts.push_back(fmt::format("{} ({} min)", human_number(*number), span));
    return fmt::format("{}", fmt::join(parts, ", "));
}

// How long some, and all, tasks wait.
std::string pressure_of(const json::object& resources) {
    const auto* const pressure = object_at(resources, "pressure");
    if (pressure == nullptr) return {};
    return fmt::format("CPU {}, memory {} (all {}), I/O {} (all {})", percent_at(*pressure, "cpu_some"),
                       percent_at(*pressure, "memory_some"), percent_at(*pressure, "memory_full"),
                       percent_at(*pressure, "io_some"), percent_at(*pressure, "io_full"));
}

std::string power_of(const json::object& resources) {
    const auto& power = part(resources, "power");
    const auto source = text_at(power, "source");
    const auto percent = number_at(power, "battery_percent");
    auto level = percent ? fmt::format("battery at {} %", human_number(*percent)) : std::string{"battery"};
    if (source == "battery") return level;
    const auto words = source == "ac" ? std::string{"mains"} : source;
    return percent ? fmt::format("{} ({})", words, level) : words;
}

// How many vCPUs there are on the CPUs that aren't reserved. When more are given away than there may be, free is 0 and
// doesn't tell.
std::string overcommit_of(const json::object& resources) {
    const auto& cpus = part(resources, "cpus");
    const auto usable = number_at(cpus, "total").value_or(0) - number_at(cpus, "reserved").value_or(0);
    const auto free = number_at(cpus, "free").value_or(0);
    if (usable <= 0 || free <= 0) return {};
    const auto vcpus = number_at(cpus, "allocated").value_or(0) + free;
    return fmt::format("{} on {} CPUs that aren't reserved ({} on each); allocated and free are vCPUs",
                       human_number(vcpus), human_number(usable), human_number(vcpus / usable));
}

// What the host doesn't tell is left out.
std::string host_page(const json::object& resources) {
    Page page;
    page.add("vCPUs", overcommit_of(resources));
    page.add("Load", load_of(resources));
    page.add("Pressure", pressure_of(resources));
    page.add("Power", power_of(resources));
    const auto text = page.text();
    return text.empty() ? text : "\n" + text;
}

}  // namespace

std::string image_table(const json::array& images, base::Wall now) {
    if (images.empty()) return "No images.\n";
    Table table{{"NAME", "STATE", "FORMAT", "SIZE", "VIRTUAL SIZE", "VERIFIED", "DIGEST", "VMS", "AGE"}};
    for (const auto& item : images) {
        if (!item.is_object()) continue;
        const auto& image = item.get_object();
        const auto* users = array_at(image, "used_by");
        table.add({text_at(image, "name"), text_at(image, "state"), text_at(image, "format"),
                   bytes_at(image, "size_bytes"), bytes_at(image, "virtual_size_bytes"), text_at(image, "verified"),
                   short_digest(text_at(image, "digest")), users == nullptr ? "" : std::to_string(users->size()),
                   age_at(image, "created_at", now)});
    }
    return table.text();
}

std::string catalogue_table(const json::array& images) {
    if (images.empty()) return "The catalogue has no images for this machine.\n";
    Table table{{"NAME", "DESCRIPTION", "USER", "PROOF", "HERE", "URL"}};
    for (const auto& item : images) {
        if (!item.is_object()) continue;
        const auto& image = item.get_object();
        const auto* const proof = text_at(image, "signature").empty() ? "checksum" : "signature";
        table.add({text_at(image, "name"), text_at(image, "description"), text_at(image, "user"), proof,
                   text_at(image, "state"), text_at(image, "url")});
    }
    return table.text();
}

std::string image_page(const json::object& image, base::Wall now) {
    Page page;
    for (const auto& [label, key] :
         {std::pair{"Name", "name"}, std::pair{"State", "state"}, std::pair{"Digest", "digest"},
          std::pair{"Source", "source"}, std::pair{"Format", "format"}, std::pair{"Architecture", "architecture"}})
        page.add(label, text_at(image, key));
    page.add("Size", bytes_at(image, "size_bytes"));
    page.add("Virtual size", bytes_at(image, "virtual_size_bytes"));
    page.add("Verified", text_at(image, "verified"));
    page.add("Checksum", text_at(image, "checksum"));
    page.add("Created", ago(image, "created_at", now));
    page.add("Last used", ago(image, "last_used_at", now));
    page.add("Refreshed", ago(image, "refreshed_at", now));
    if (const auto* users = array_at(image, "used_by")) {
        std::vector<std::string> ids;
        for (const auto& user : *users) ids.push_back(to_text(user));
        page.add("Used by", ids.empty() ? "no VM" : fmt::format("{}", fmt::join(ids, ", ")));
    }
    return page.text();
}

std::string operation_table(const json::array& operations, base::Wall now) {
    if (operations.empty()) return "No operations.\n";
    Table table{{"ID", "KIND", "TARGET", "STATE", "PROGRESS", "BY", "AGE"}};
    for (const auto& item : operations) {
        if (!item.is_object()) continue;
        const auto& operation = item.get_object();
        table.add({text_at(operation, "id"), text_at(operation, "kind"), target_of(operation), state_of(operation),
                   is_finished(operation) ? std::string{} : progress_text(operation),
                   text_at(operation, "requested_by"), age_at(operation, "created_at", now)});
    }
    return table.text();
}

std::string operation_page(const json::object& operation, base::Wall now) {
    Page page;
    page.add("Id", text_at(operation, "id"));
    page.add("Kind", text_at(operation, "kind"));
    page.add("Target", fmt::format("{} {}", text_at(operation, "target", "type"), target_of(operation)));
    page.add("State", state_of(operation));
    if (!is_finished(operation)) {
        page.add("Progress", progress_text(operation));
        if (const auto can = bool_at(operation, "cancellable")) page.add("Cancellable", *can ? "yes" : "no");
    }
    if (const auto& error = part(operation, "error"); !error.empty()) {
        const auto detail = text_at(error, "detail");
        page.add("Error",
                 detail.empty() ? text_at(error, "code") : fmt::format("{} ({})", detail, text_at(error, "code")));
        if (const auto* faults = array_at(error, "errors"))
            for (const auto& fault : *faults)
                if (fault.is_object())
                    page.add("  fault", fmt::format("{}: {}", text_at(fault.get_object(), "pointer"),
                                                    text_at(fault.get_object(), "detail")));
    }
    page.add("Result", text_at(operation, "result", "href"));
    page.add("Requested by", text_at(operation, "requested_by"));
    page.add("Request id", text_at(operation, "request_id"));
    page.add("Created", ago(operation, "created_at", now));
    page.add("Started", ago(operation, "started_at", now));
    page.add("Finished", ago(operation, "finished_at", now));
    return page.text();
}

std::string orphan_table(const json::array& orphans) {
    if (orphans.empty()) return "No orphans.\n";
    Table table{{"KIND", "WHAT", "SIZE", "WHY"}};
    for (const auto& item : orphans) {
        if (!item.is_object()) continue;
        const auto& orphan = item.get_object();
        auto what = text_at(orphan, "path");
        if (what.empty()) what = fmt::format("{} ({})", text_at(orphan, "name"), text_at(orphan, "id"));
        table.add({text_at(orphan, "kind"), std::move(what), bytes_at(orphan, "bytes"), text_at(orphan, "reason")});
    }
    return table.text();
}

std::string resources_table(const json::object& resources) {
    Table table{{"RESOURCE", "TOTAL", "RESERVED", "ALLOCATED", "FREE"}};
    for (const auto& [key, name, show] : pools) {
        const auto& pool = part(resources, key);
        std::vector<std::string> row{std::string{name}};
        for (const auto* column : {"total", "reserved", "allocated", "free"}) {
            const auto number = number_at(pool, column);
            row.push_back(number ? show(*number) : std::string{});
        }
        table.add(std::move(row));
    }
    return table.text() + host_page(resources);
}

std::string agent_page(const json::object& agent, base::Wall now) {
    Page page;
    add_agent(page, agent, now);
    return page.text();
}

std::string status_page(const json::object& agent, const json::object& health, const json::object& resources,
                        const json::array& vms, base::Wall now) {
    Page page;
    add_agent(page, agent, now);
    page.add("Health", text_at(health, "status"));
    add_checks(page, health, now);
    page.add("VMs", count_of(vms));
    for (const auto& [key, name, show] : pools) {
        const auto free = number_at(part(resources, key), "free");
        const auto total = number_at(part(resources, key), "total");
        if (!free || !total) continue;
        // A CPU serves several vCPUs: more may be free than there are CPUs.
        const auto* const words = key == "cpus" ? "{} vCPUs free on {}" : "{} free of {}";
        page.add(std::string{name}, fmt::format(fmt::runtime(words), show(*free), show(*total)));
    }
    return page.text();
}

std::string preview_page(const json::object& preview) {
    std::string out;
    if (const auto* steps = array_at(preview, "would"))
        for (const auto& step : *steps) out += fmt::format("would: {}\n", printable(to_text(step)));
    if (out.empty()) out = "would change nothing\n";
    for (const auto& member : part(preview, "resources"))
        out += fmt::format("{}\n", printable(fact(member.key(), member.value())));
    return out;
}

std::string version_page(const json::object& agent) {
    Page page;
    page.add("ghostctl", GHOST_VERSION);
    page.add("ghost-agent", text_at(agent, "version"));
    page.add("libvirt", text_at(agent, "hypervisor", "libvirt_version"));
    page.add("QEMU", text_at(agent, "hypervisor", "qemu_version"));
    return page.text();
}

}  // namespace ghost::cli
