#include "agent/cli/commands.hpp"
#include "agent/cli/option_values.hpp"
#include "agent/cli/port_words.hpp"
#include "agent/cli/text.hpp"

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <memory>
#include <optional>
#include <vector>

namespace ghost::cli {
namespace json = boost::json;
namespace {

struct UpdateWords {
    std::string name;
    std::optional<std::int64_t> vcpus;
    MemoryWords memory;
    std::string disk;
    std::vector<std::string> labels;
    std::vector<std::string> labels_removed;
    std::string owner;
    std::vector<std::string> forwards;
    std::vector<std::string> forwards_removed;
    bool guest_access = false;
    bool is_protected = false;
    // Whether they were said: CLI11 makes nothing of an empty text, and false of a flag that wasn't.
    const CLI::Option* said_owner = nullptr;
    const CLI::Option* said_protected = nullptr;
    const CLI::Option* said_guest_access = nullptr;
    Waiting waiting;
};

json::object labels_of(const UpdateWords& words) {
    json::object labels;
    const auto add = [&labels](const std::string& key, json::value value) {
        if (!labels.emplace(key, std::move(value)).second) usage_fault(fmt::format("label '{}' is there twice", key));
    };
    for (const auto& text : words.labels) {
        auto [key, value] = key_and_value("--label", text, "KEY=VALUE");
        add(key, json::value(value));
    }
    for (const auto& key : words.labels_removed) add(key, nullptr);
    return labels;
}

json::object forwards_of(const UpdateWords& words) {
    json::object forwards;
    const auto add = [&forwards](const std::string& name, json::value forward) {
        if (!forwards.emplace(name, std::move(forward)).second)
            usage_fault(fmt::format("forward '{}' is there twice", printable(name)));
    };
    for (const auto& text : words.forwards) {
        auto [name, forward] = lasting_forward_of("--forward", text);
        // A forward is what was said of it, whatever there was by its name.
        if (!forward.contains("host_address")) forward["host_address"] = "127.0.0.1";
        if (!forward.contains("protocol")) forward["protocol"] = "tcp";
        add(name, std::move(forward));
    }
    for (const auto& name : words.forwards_removed) add(name, nullptr);
    return forwards;
}

// A merge patch (RFC 7396) of what was said.
std::string patch_of(const UpdateWords& words) {
    json::object spec;
    if (words.vcpus) spec["vcpus"] = *words.vcpus;
    if (const auto mib = words.memory.mib()) spec["memory_mib"] = *mib;
    if (!words.disk.empty()) spec["disk_gib"] = gib_of("--disk", words.disk);
    if (words.said_protected->count() > 0) spec["protected"] = words.is_protected;
    if (words.said_guest_access->count() > 0) spec["guest_access"] = words.guest_access;
    if (auto forwards = forwards_of(words); !forwards.empty()) spec["forwards"] = std::move(forwards);
    json::object patch;
    if (words.said_owner->count() > 0) {
        auto& owner = patch["owner"];  // null: nobody
        if (!words.owner.empty()) owner = words.owner;
    }
    if (auto labels = labels_of(words); !labels.empty()) patch["labels"] = std::move(labels);
    if (!spec.empty()) patch["spec"] = std::move(spec);
    if (patch.empty()) usage_fault("nothing to change was said; 'ghostctl vm update --help' lists what can be");
    return json::serialize(patch);
}

}  // namespace

void add_vm_update(CLI::App& vm, Grammar grammar) {
    auto words = std::make_shared<UpdateWords>();
    auto& command = *vm.add_subcommand("update", "Change its size, forwards, labels, owner or protection");
    command.add_option("name", words->name, "Name or id of the VM")->required()->type_name("NAME");
    add_vcpus(command, words->vcpus, "Virtual CPUs");
    add_memory(command, words->memory);
    command.add_option("--disk", words->disk, "New size of its root disk in GiB; it can only grow")->type_name("GIB");
    command.add_option("-l,--label", words->labels, "Set a label; may be repeated")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    command.add_option("--remove-label", words->labels_removed, "Take a label away; may be repeated")
        ->type_name("KEY")
        ->allow_extra_args(false);
    command
        .add_option("--forward", words->forwards,
                    "A port of the agent's machine that leads to the guest's; may be repeated")
        ->type_name("NAME=[ADDRESS:]HOST_PORT:GUEST_PORT[/udp]")
        ->allow_extra_args(false);
    command.add_option("--no-forward", words->forwards_removed, "Take a forward away; may be repeated")
        ->type_name("NAME")
        ->allow_extra_args(false);
    words->said_guest_access = command.add_flag("--guest-access,!--no-guest-access", words->guest_access,
                                                "Let exec and cp into it, through its guest agent, or no more");
    words->said_owner = command.add_option("--owner", words->owner, "Whose it is; '' for nobody's")->type_name("OWNER");
    words->said_protected =
        command.add_flag("--protected,!--unprotected", words->is_protected, "Refuse to delete it, or allow it again");
    add_waiting(command, words->waiting);
    command.footer("A running VM takes a new size at its next stop and start.");
    command.final_callback([words, grammar] {
        auto change = change_of({View::vm, target_of("vms", words->name), words->name}, "updated", words->waiting);
        change.method = net::Method::patch;
        change.body = patch_of(*words);
        grammar.invocation.action = std::move(change);
    });
}

}  // namespace ghost::cli
