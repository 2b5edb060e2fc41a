#include "agent/cli/json_access.hpp"
#include "agent/cli/table.hpp"
#include "agent/cli/text.hpp"
#include "agent/cli/views.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

namespace ghost::cli {
namespace json = boost::json;
namespace {

std::string quantity(const json::object& from, std::string_view key, std::string (*show)(double)) {
    const auto number = number_at(from, key);
    return number ? show(*number) : std::string{};
}

// A disk whose size isn't known (of a domain that others defined) has none.
std::string human_gib(double gib) { return gib > 0 ? human_mib(gib * 1024) : std::string{}; }

std::string addresses(const json::object& vm) {
    std::vector<std::string> out;
    if (const auto* list = array_at(part(vm, "status"), "addresses"))
        for (const auto& address : *list) out.push_back(to_text(address));
    return fmt::format("{}", fmt::join(out, ", "));
}

std::string labels(const json::object& vm) {
    std::vector<std::string> out;
    for (const auto& label : part(vm, "labels"))
        out.push_back(fmt::format("{}={}", std::string_view{label.key()}, to_text(label.value())));
    return fmt::format("{}", fmt::join(out, ", "));
}

// The members of a map by name, each with what `show` makes of it.
template <class Show>
std::string each_of(const json::object& map, Show show) {
    std::vector<std::string> out;
    for (const auto& member : map)
        if (member.value().is_object()) out.push_back(show(std::string{member.key()}, member.value().get_object()));
    return fmt::format("{}", fmt::join(out, ", "));
}

std::string cloud_init(const json::object& settings) {
    std::vector<std::string> out;
    for (const auto* key : {"hostname", "user"})
        if (const auto text = text_at(settings, key); !text.empty()) out.push_back(fmt::format("{} {}", key, text));
    if (const auto* keys = array_at(settings, "ssh_authorized_keys"); keys != nullptr && !keys->empty())
        out.push_back(fmt::format("{} SSH key{}", keys->size(), keys->size() == 1 ? "" : "s"));
    if (!text_at(settings, "user_data_sha256").empty()) out.emplace_back("own user data");
    return fmt::format("{}", fmt::join(out, ", "));
}

// "web 127.0.0.1:8080 -> 80", "dns 0.0.0.0:53 -> 53/udp"
std::string forward_text(const std::string& name, const json::object& forward) {
    auto address = text_at(forward, "host_address");
    if (address.empty()) address = "127.0.0.1";
    const auto udp = text_at(forward, "protocol") == "udp" ? "/udp" : "";
    return fmt::format("{} {}:{} -> {}{}", name, address, quantity(forward, "host_port", human_number),
                       quantity(forward, "guest_port", human_number), udp);
}

std::string usage(const json::object& usage) {
    std::vector<std::string> out;
    if (const auto cpu = number_at(usage, "cpu_percent")) out.push_back(fmt::format("CPU {} %", human_number(*cpu)));
    if (const auto memory = number_at(usage, "memory_mib")) out.push_back(fmt::format("memory {}", human_mib(*memory)));
    if (const auto disk = number_at(usage, "disk_bytes")) out.push_back(fmt::format("disk {}", human_bytes(*disk)));
    return fmt::format("{}", fmt::join(out, ", "));
}

std::string operation_of(const json::object& status) {
    const auto* operation = status.if_contains("operation");
    if (operation == nullptr || operation->is_null()) return {};
    const auto link = operation->is_object() ? text_at(operation->get_object(), "id") : to_text(*operation);
    return link.substr(link.rfind('/') + 1);
}

std::string conditions(const json::object& status, base::Wall now) {
    const auto* list = array_at(status, "conditions");
    if (list == nullptr || list->empty()) return {};
    Table table{{"CONDITION", "STATUS", "REASON", "FOR"}};
    std::string messages;
    for (const auto& item : *list) {
        if (!item.is_object()) continue;
        const auto& condition = item.get_object();
        table.add({text_at(condition, "type"), text_at(condition, "status"), text_at(condition, "reason"),
                   age(text_at(condition, "since"), now)});
        if (const auto message = text_at(condition, "message"); !message.empty())
            messages += printable(fmt::format("{}: {}", text_at(condition, "type"), message)) + "\n";
    }
    return "\n" + table.text() + messages;
}

}  // namespace

std::string vm_phase(const json::object& vm) {
    const auto& status = part(vm, "status");
    auto phase = text_at(status, "phase");
    return phase.empty() || phase == "ready" ? text_at(status, "power") : phase;
}

std::string vm_state(const json::object& vm) {
    auto state = vm_phase(vm);
    if (bool_at(vm, "managed") == false) state += " (unmanaged)";
    return state;
}

std::string vm_state_and_addresses(const json::object& vm) {
    const auto at = addresses(vm);
    return at.empty() ? vm_state(vm) : fmt::format("{} at {}", vm_state(vm), at);
}

std::string vm_table(const json::array& vms, base::Wall now) {
    if (vms.empty()) return "No VMs.\n";
    Table table{{"NAME", "STATE", "VCPUS", "MEMORY", "DISK", "IMAGE", "ADDRESSES", "OWNER", "AGE"}};
    for (const auto& item : vms) {
        if (!item.is_object()) continue;
        const auto& vm = item.get_object();
        const auto& spec = part(vm, "spec");
        const auto created = text_at(vm, "created_at");
        table.add({text_at(vm, "name"), vm_state(vm), quantity(spec, "vcpus", human_number),
                   quantity(spec, "memory_mib", human_mib), quantity(spec, "disk_gib", human_gib),
                   text_at(spec, "image"), addresses(vm), text_at(vm, "owner"),
                   created.empty() ? std::string{} : age(created, now)});
    }
    return table.text();
}

std::string vm_page(const json::object& vm, base::Wall now) {
    const auto& spec = part(vm, "spec");
    const auto& status = part(vm, "status");
    auto state = vm_state(vm);
    if (const auto uptime = number_at(status, "uptime_s")) state += fmt::format(", up {}", human_seconds(*uptime));
    const auto created = text_at(vm, "created_at");

    Page page;
    page.add("Name", text_at(vm, "name"));
    page.add("Id", text_at(vm, "id"));
    page.add("State", state);
    page.add("Wanted", text_at(spec, "power"));
    page.add("Addresses", addresses(vm));
    page.add("Image", text_at(spec, "image"));
    page.add("vCPUs", quantity(spec, "vcpus", human_number));
    page.add("Memory", quantity(spec, "memory_mib", human_mib));
    page.add("Root disk", quantity(spec, "disk_gib", human_gib));
    page.add("Disks", each_of(part(spec, "disks"), [](const std::string& name, const json::object& disk) {
                 const auto size = quantity(disk, "size_gib", human_gib);
                 return size.empty() ? name : fmt::format("{} {}", name, size);
             }));
    page.add("Networks", each_of(part(spec, "nics"), [](const std::string& name, const json::object& nic) {
                 return fmt::format("{} on {}", name, text_at(nic, "network"));
             }));
    page.add("Forwards", each_of(part(spec, "forwards"), forward_text));
    if (const auto let_in = bool_at(spec, "guest_access")) page.add("Guest access", *let_in ? "yes" : "no");
    page.add("Usage", usage(part(status, "usage")));
    page.add("Cloud-init", cloud_init(part(spec, "cloud_init")));
    page.add("Firmware", text_at(spec, "firmware"));
    page.add("Autostart", text_at(spec, "autostart"));
    if (const auto kept = bool_at(spec, "protected")) page.add("Protected", *kept ? "yes" : "no");
    page.add("Owner", text_at(vm, "owner"));
    page.add("Labels", labels(vm));
    page.add("Created", created.empty() ? created : fmt::format("{} ({} ago)", created, age(created, now)));
    page.add("Operation", operation_of(status));
    const auto observed = text_at(status, "observed_at");
    page.add("Observed", observed.empty() ? observed : fmt::format("{} ago", age(observed, now)));
    return page.text() + conditions(status, now);
}

std::string done_line(std::string_view subject, std::string_view done, const json::object& resource) {
    auto line = fmt::format("{} {}", printable(subject), done);
    if (resource.contains("status")) {
        line += fmt::format(": {}", printable(vm_state_and_addresses(resource)));
    } else if (resource.contains("size_bytes")) {
        line += fmt::format(": {} {}", printable(text_at(resource, "format")),
                            quantity(resource, "size_bytes", human_bytes));
        if (const auto digest = text_at(resource, "digest"); !digest.empty())
            line += fmt::format(", {}", printable(digest));
    }
    return line + "\n";
}

}  // namespace ghost::cli
