#include "agent/cli/commands.hpp"
#include "agent/cli/option_values.hpp"
#include "agent/cli/port_words.hpp"
#include "agent/cli/text.hpp"

#include <CLI/CLI.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <memory>
#include <optional>
#include <vector>

namespace ghost::cli {
namespace json = boost::json;
namespace {

struct CreateWords {
    std::string name;
    std::string image;
    std::optional<std::int64_t> vcpus;
    MemoryWords memory;
    std::string disk;
    std::vector<std::string> extra_disks;
    std::vector<std::string> networks;
    std::vector<std::string> ssh_keys;
    std::string user;
    std::string hostname;
    std::string user_data;
    std::vector<std::string> labels;
    std::string owner;
    bool is_protected = false;
    std::vector<std::string> forwards;
    bool guest_access = false;
    const CLI::Option* said_guest_access = nullptr;
    bool no_start = false;
    std::string wait_for;
    Waiting waiting;
};

std::string content_of(std::string_view option, const std::string& path, const Surroundings& surroundings) {
    auto content = surroundings.read_file(path);
    if (!content) usage_fault(fmt::format("{}: {}", option, content.error().detail));
    return std::move(*content);
}

// A key as it stands, or all keys of a file: one a line, comments and blank lines left out.
void add_ssh_keys(const std::string& given, const Surroundings& surroundings, json::array& keys) {
    const bool is_text =
        given.contains(' ') && (given.starts_with("ssh-") || given.starts_with("ecdsa-") || given.starts_with("sk-"));
    const auto text = is_text ? given : content_of("--ssh-key", given, surroundings);
    if (text.contains("PRIVATE KEY"))
        usage_fault(fmt::format("--ssh-key {}: that is a private key; give the public one (.pub)", printable(given)));
    const auto before = keys.size();
    for (std::string_view rest = text; !rest.empty();) {
        const auto end = rest.find('\n');
        auto line = rest.substr(0, end);
        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        while (!line.empty() && std::string_view{" \t\r"}.contains(line.back())) line.remove_suffix(1);
        while (!line.empty() && std::string_view{" \t"}.contains(line.front())) line.remove_prefix(1);
        if (!line.empty() && line.front() != '#') keys.emplace_back(line);
    }
    if (keys.size() == before) usage_fault(fmt::format("--ssh-key {}: no key in it", printable(given)));
}

json::object cloud_init_of(const CreateWords& words, const Surroundings& surroundings) {
    json::object out;
    if (!words.hostname.empty()) out["hostname"] = words.hostname;
    if (!words.user.empty()) out["user"] = words.user;
    if (!words.ssh_keys.empty()) {
        json::array keys;
        for (const auto& key : words.ssh_keys) add_ssh_keys(key, surroundings, keys);
        out["ssh_authorized_keys"] = std::move(keys);
    }
    if (!words.user_data.empty()) out["user_data"] = content_of("--user-data", words.user_data, surroundings);
    return out;
}

json::object spec_of(const CreateWords& words, const Surroundings& surroundings) {
    json::object spec{{"image", words.image}};
    if (words.vcpus) spec["vcpus"] = *words.vcpus;
    if (const auto mib = words.memory.mib()) spec["memory_mib"] = *mib;
    if (!words.disk.empty()) spec["disk_gib"] = gib_of("--disk", words.disk);
    if (words.no_start) spec["power"] = "off";
    if (words.is_protected) spec["protected"] = true;
    if (auto settings = cloud_init_of(words, surroundings); !settings.empty()) spec["cloud_init"] = std::move(settings);
    json::object disks;
    for (const auto& text : words.extra_disks) {
        const auto [name, size] = key_and_value("--extra-disk", text, "NAME=GIB");
        if (disks.contains(name)) usage_fault(fmt::format("--extra-disk: '{}' is there twice", printable(name)));
        disks[name] = json::object{{"size_gib", gib_of("--extra-disk", size)}};
    }
    if (!disks.empty()) spec["disks"] = std::move(disks);
    json::object nics;
    for (const auto& network : words.networks)
        nics[fmt::format("eth{}", nics.size())] = json::object{{"network", network}};
    if (!nics.empty()) spec["nics"] = std::move(nics);
    json::object forwards;
    for (const auto& text : words.forwards) {
        auto [name, forward] = lasting_forward_of("--forward", text);
        if (forwards.contains(name)) usage_fault(fmt::format("--forward: '{}' is there twice", printable(name)));
        forwards[name] = std::move(forward);
    }
    if (!forwards.empty()) spec["forwards"] = std::move(forwards);
    if (words.said_guest_access->count() > 0) spec["guest_access"] = words.guest_access;
    return spec;
}

std::string body_of(const CreateWords& words, const Surroundings& surroundings) {
    json::object body{{"name", words.name}};
    if (!words.owner.empty()) body["owner"] = words.owner;
    json::object labels;
    for (const auto& text : words.labels) {
        const auto [key, value] = key_and_value("--label", text, "KEY=VALUE");
        labels[key] = value;
    }
    if (!labels.empty()) body["labels"] = std::move(labels);
    body["spec"] = spec_of(words, surroundings);
    if (!words.wait_for.empty()) body["wait_for"] = words.wait_for;
    auto text = json::serialize(body);
    if (text.size() > largest_file) usage_fault("all of it together is larger than 1 MiB");
    return text;
}

}  // namespace

void add_vm_create(CLI::App& vm, Grammar grammar) {
    auto words = std::make_shared<CreateWords>();
    auto& command = *vm.add_subcommand("create", "Make a VM from an image and start it");
    const auto many = [&command](const char* names, std::vector<std::string>& into, const char* help,
                                 const char* type) {
        command.add_option(names, into, help)->type_name(type)->allow_extra_args(false);
    };
    command.add_option("name,--name", words->name, "What it is called; needed: NAME or --name NAME")->type_name("NAME");
    command.add_option("--template,--image", words->image, "The image it starts from ('ghostctl image list')")
        ->required()
        ->type_name("IMAGE");
    add_vcpus(command, words->vcpus, "Virtual CPUs [the agent's default]");
    add_memory(command, words->memory);
    command.add_option("--disk", words->disk, "Size of its root disk in GiB")->type_name("GIB");
    many("--extra-disk", words->extra_disks, "Another, empty disk; may be repeated", "NAME=GIB");
    many("--network", words->networks, "libvirt network of eth0; repeated: of eth1 and so on", "NETWORK");
    many("--forward", words->forwards, "A port of the agent's machine that leads to the guest's; may be repeated",
         "NAME=[ADDRESS:]HOST_PORT:GUEST_PORT[/udp]");
    words->said_guest_access = command.add_flag("--guest-access,!--no-guest-access", words->guest_access,
                                                "Let exec and cp into it, through its guest agent");
    many("--ssh-key", words->ssh_keys, "A public key, or a file with some; may be repeated", "FILE|TEXT");
    command.add_option("--user", words->user, "The user who gets the keys")->type_name("USER");
    command.add_option("--hostname", words->hostname, "The guest's host name [the VM's name]")->type_name("HOST");
    command.add_option("--user-data", words->user_data, "File with cloud-init user data")->type_name("FILE");
    many("-l,--label", words->labels, "A label; may be repeated", "KEY=VALUE");
    command.add_option("--owner", words->owner, "Whose it is")->type_name("OWNER");
    command.add_flag("--protected", words->is_protected, "Refuse to delete it until that is taken back");
    auto* no_start = command.add_flag("--no-start", words->no_start, "Make it, but leave it off");
    command
        .add_option(
            "--wait-for", words->wait_for,
            "Done when it is 'running' (the default), has an 'address', or is 'guest_ready' (cloud-init is done)")
        ->type_name("WHEN")
        ->check(CLI::IsMember({"running", "address", "guest_ready"}))
        ->excludes(no_start);
    add_waiting(command, words->waiting);
    command.final_callback([words, grammar] {
        if (words->name.empty()) usage_fault("a VM needs a name: ghostctl vm create NAME --image IMAGE");
        auto change = change_of({View::vm, "/v1/vms", words->name}, "created", words->waiting);
        change.body = body_of(*words, grammar.surroundings);
        grammar.invocation.action = std::move(change);
    });
}

}  // namespace ghost::cli
