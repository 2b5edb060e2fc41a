#include "agent/vm/vm_fields.hpp"

#include "agent/images/image.hpp"
#include "base/ids.hpp"
#include "net/digest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <map>
#include <utility>

namespace ghost::agent::fields {
namespace json = boost::json;
namespace {

constexpr std::string_view name_rule =
    "lower-case letters, digits and inner dashes, at most 63 characters, and not of a UUID's form";
constexpr std::string_view part_rule = "lower-case letters, digits and inner dashes, at most 15 characters";

bool is_part_name(std::string_view name) { return name.size() <= 15 && is_vm_name(name); }

// A label's key or value, an owner: printable ASCII that is harmless in logs, URLs and tables.
bool is_plain(std::string_view text) {
    return std::ranges::all_of(text, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view{"-_./:@+"}.contains(c);
    });
}

std::optional<Autostart> autostart(JsonReader& reader) {
    const auto text = reader.one_of("autostart", {"never", "last", "always"});
    if (!text) return std::nullopt;
    return *text == "never" ? Autostart::never : *text == "last" ? Autostart::last : Autostart::always;
}

std::optional<bool> power(JsonReader& reader) {
    const auto text = reader.one_of("power", {"on", "off"});
    return text ? std::optional{*text == "on"} : std::nullopt;
}

std::optional<unsigned> vcpus(JsonReader& reader) {
    const auto n = reader.integer("vcpus", 1, max_vcpus);
    return n ? std::optional{static_cast<unsigned>(*n)} : std::nullopt;
}

std::optional<std::string> image_name(JsonReader& reader) {
    auto name = reader.string("image", 128);
    if (!name) return std::nullopt;
    if (is_image_name(*name)) return name;
    reader.fault("image",
                 "expected an image's name: letters, digits, '-', '_' and '.', starting with a letter or digit");
    return std::nullopt;
}

bool is_ssh_key(std::string_view key) {
    if (std::ranges::any_of(key, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }))
        return false;
    const auto type_end = key.find(' ');
    if (type_end == std::string_view::npos) return false;
    const auto type = key.substr(0, type_end);
    return (type.starts_with("ssh-") || type.starts_with("ecdsa-") || type.starts_with("sk-")) &&
           key.size() > type_end + 16;
}

bool is_user_name(std::string_view name) {
    if (name.empty() || name.size() > 32 ||
        (std::islower(static_cast<unsigned char>(name.front())) == 0 && name.front() != '_'))
        return false;
    return std::ranges::all_of(name, [](char c) {
        return std::islower(static_cast<unsigned char>(c)) != 0 || std::isdigit(static_cast<unsigned char>(c)) != 0 ||
               c == '_' || c == '-';
    });
}

bool is_host_name(std::string_view name) {
    if (name.empty() || name.size() > 253) return false;
    while (true) {
        const auto dot = name.find('.');
        if (!is_vm_name(name.substr(0, dot))) return false;
        if (dot == std::string_view::npos) return true;
        name.remove_prefix(dot + 1);
    }
}

void read_cloud_init(JsonReader& reader, CreateVm& create) {
    auto& out = create.spec.cloud_init;
    out.hostname = reader.string("hostname", 253).value_or("");
    if (!out.hostname.empty() && !is_host_name(out.hostname))
        reader.fault("hostname", "expected a host name: labels of lower-case letters, digits and inner dashes");
    out.user = reader.string("user", 32).value_or("");
    if (!out.user.empty() && !is_user_name(out.user))
        reader.fault("user",
                     "expected a user name: lower-case letters, digits, '_' and '-', starting with a letter or '_'");
    if (auto keys = reader.strings("ssh_authorized_keys", 64, 16 * 1024)) {
        for (std::size_t i = 0; i < keys->size(); ++i)
            if (!is_ssh_key(keys->at(i)))
                reader.faults().push_back(
                    {fmt::format("{}/{}", reader.at("ssh_authorized_keys"), i),
                     "expected one public key in OpenSSH's form: \"ssh-ed25519 AAAA... comment\""});
        out.ssh_authorized_keys = std::move(*keys);
    }
    if (auto data = reader.string("user_data", max_user_data)) {
        if (!data->empty()) out.user_data_sha256 = net::sha256_hex(*data);
        create.user_data = std::move(*data);
    }
    reader.finish();
}

// Of a merge patch; null: it changes none of them, or with null, `clears`, takes all away.
const json::object* changed_members(JsonReader& reader, std::string_view key, bool& clears) {
    clears = reader.is_null(key);
    return clears ? nullptr : reader.object(key);
}

template <class Each>
void each_named(JsonReader& reader, std::string_view key, std::size_t max, Each each) {
    const auto* object = reader.object(key);
    if (object == nullptr) return;
    if (object->size() > max) reader.fault(key, fmt::format("at most {}, got {}", max, object->size()));
    JsonReader inner{*object, reader.at(key), reader.faults()};
    for (const auto& member : *object) {
        if (!is_part_name(member.key())) {
            inner.fault(member.key(), fmt::format("a name is {}", part_rule));
            continue;
        }
        if (const auto* value = inner.object(member.key())) {
            JsonReader part{*value, inner.at(member.key()), reader.faults()};
            each(std::string{member.key()}, part);
            part.finish();
        }
    }
}

// The same of what was stored, which other versions may have written.
template <class Each>
void each_stored(JsonReader& reader, std::string_view key, Each each) {
    const auto* object = reader.object(key);
    if (object == nullptr) return;
    for (const auto& member : *object)
        if (member.value().is_object()) {
            JsonReader part{member.value().get_object(), reader.at(key), reader.faults()};
            each(std::string{member.key()}, part);
        }
}

bool is_network_name(std::string_view name) {
    return !name.empty() && name.size() <= 64 && is_plain(name) && !name.contains('/');
}

void read_disks(JsonReader& reader, VmSpec& spec) {
    each_named(reader, "disks", max_extra_disks, [&](std::string name, JsonReader& disk) {
        disk.require("size_gib");
        if (name == "root")
            reader.faults().push_back({reader.at("disks") + "/root", "the root disk's size is spec.disk_gib"});
        spec.disks[std::move(name)] = {disk.integer("size_gib", 1, max_disk_gib).value_or(0)};
    });
}

// What the members say over what `forward` is; in a merge patch null puts one back to its default. Nullopt: a fault.
std::optional<Forward> read_forward(JsonReader& reader, Forward forward, bool null_resets) {
    const auto faults = reader.faults().size();
    const auto is_default = [&](std::string_view key) { return null_resets && reader.is_null(key); };
    const auto port = [&reader](std::string_view key, std::uint16_t otherwise) {
        const auto n = reader.integer(key, 1, UINT16_MAX);
        if (otherwise == 0) reader.require(key);
        return n ? static_cast<std::uint16_t>(*n) : otherwise;
    };
    if (is_default("host_address"))
        forward.host_address = Forward{}.host_address;
    else if (auto address = reader.one_of("host_address", {"127.0.0.1", "0.0.0.0", "tailscale"}))
        forward.host_address = std::move(*address);
    forward.host_port = port("host_port", forward.host_port);
    forward.guest_port = port("guest_port", forward.guest_port);
    if (is_default("protocol"))
        forward.protocol = Protocol::tcp;
    else if (const auto protocol = reader.one_of("protocol", {"tcp", "udp"}))
        forward.protocol = *protocol == "udp" ? Protocol::udp : Protocol::tcp;
    return reader.faults().size() == faults ? std::optional{forward} : std::nullopt;
}

void judge_forward(JsonReader& reader, const Forward& forward, const ForwardRules& rules) {
    if (auto refused = refusal_of(forward, rules)) reader.fault(refused->member, std::move(refused->reason));
}

bool is_same_port(const Forward& a, const Forward& b) {
    return a.host_address == b.host_address && a.host_port == b.host_port && a.protocol == b.protocol;
}

// A fault for each of those that `is_new` holds for and that has the port of another one.
void refuse_shared_ports(JsonReader& reader, const std::map<std::string, Forward>& forwards,
                         const std::function<bool(const std::string&)>& is_new) {
    for (auto it = forwards.begin(); it != forwards.end(); ++it)
        for (auto other = forwards.begin(); other != it; ++other) {
            if (!is_same_port(it->second, other->second)) continue;
            const auto& [name, rival] =
                is_new(it->first) ? std::pair{it->first, other->first} : std::pair{other->first, it->first};
            if (!is_new(name)) continue;
            reader.faults().push_back(
                {fmt::format("{}/{}/host_port", reader.at("forwards"), name),
                 fmt::format("the forward {} has {}:{} ({}) already", rival, it->second.host_address,
                             it->second.host_port, name_of(it->second.protocol))});
        }
}

void read_forwards(JsonReader& reader, const ForwardRules& rules, VmSpec& spec) {
    each_named(reader, "forwards", max_forwards, [&](std::string name, JsonReader& part) {
        const auto forward = read_forward(part, {}, false);
        if (!forward) return;
        judge_forward(part, *forward, rules);
        spec.forwards[std::move(name)] = *forward;
    });
    refuse_shared_ports(reader, spec.forwards, [](const std::string&) { return true; });
}

void forward_change(JsonReader& all, const json::key_value_pair& member, const VmSpec& current,
                    const ForwardRules& rules, VmPatch& patch) {
    const std::string name{member.key()};
    if (member.value().is_null()) {
        patch.forwards.emplace(name, std::nullopt);
        return;
    }
    if (!is_part_name(name)) {
        all.fault(name, fmt::format("a name is {}", part_rule));
        return;
    }
    const auto* value = all.object(name);
    if (value == nullptr) return;
    const auto before = current.forwards.find(name);
    const bool is_there = before != current.forwards.end();
    JsonReader part{*value, all.at(name), all.faults()};
    const auto forward = read_forward(part, is_there ? before->second : Forward{}, true);
    part.finish();
    if (!forward || (is_there && before->second == *forward)) return;
    judge_forward(part, *forward, rules);
    patch.forwards.emplace(name, *forward);
}

void forward_changes(JsonReader& reader, const VmSpec& current, const ForwardRules& rules, VmPatch& patch) {
    const auto* object = changed_members(reader, "forwards", patch.clear_forwards);
    if (object == nullptr) return;
    JsonReader all{*object, reader.at("forwards"), reader.faults()};
    for (const auto& member : *object) forward_change(all, member, current, rules, patch);
    auto after = current.forwards;
    apply_forwards(patch, after);
    if (after.size() > max_forwards)
        reader.fault("forwards", fmt::format("at most {} forwards, there would be {}", max_forwards, after.size()));
    refuse_shared_ports(reader, after, [&patch](const std::string& name) { return patch.forwards.contains(name); });
}

void read_nics(JsonReader& reader, VmSpec& spec, const std::string& default_network) {
    if (!reader.has("nics")) {
        spec.nics["eth0"] = {default_network};
        return;
    }
    each_named(reader, "nics", max_nics, [&spec, &default_network](std::string name, JsonReader& nic) {
        const auto network = nic.string("network", 64).value_or(default_network);
        if (!is_network_name(network)) nic.fault("network", "expected the name of a libvirt network");
        spec.nics[std::move(name)] = {network};
    });
}

}  // namespace

std::optional<std::string> vm_name(JsonReader& reader, std::string_view key) {
    auto name = reader.string(key, 253);
    if (name && (!is_vm_name(*name) || base::is_uuid(*name))) {
        reader.fault(key, fmt::format("expected {}", name_rule));
        return std::nullopt;
    }
    return name;
}

std::optional<std::string> owner(JsonReader& reader) {
    auto owner = reader.string("owner", 128);
    if (owner && !is_plain(*owner)) {
        reader.fault("owner", "expected letters, digits and -_./:@+");
        return std::nullopt;
    }
    return owner;
}

namespace {

bool check_label(JsonReader& inner, std::string_view key, const json::value& value) {
    if (key.empty() || key.size() > 63 || !is_plain(key)) {
        inner.fault(key, "a label's key is 1 to 63 characters of letters, digits and -_./:@+");
        return false;
    }
    if (!value.is_string() || value.get_string().size() > 255 || !is_plain(value.get_string())) {
        inner.fault(key, "a label's value is a string of at most 255 characters of letters, digits and -_./:@+");
        return false;
    }
    return true;
}

}  // namespace

Labels labels(JsonReader& reader) {
    Labels out;
    const auto* object = reader.object("labels");
    if (object == nullptr) return out;
    if (object->size() > max_labels) reader.fault("labels", fmt::format("at most {}", max_labels));
    JsonReader inner{*object, reader.at("labels"), reader.faults()};
    for (const auto& member : *object)
        if (check_label(inner, member.key(), member.value())) out.emplace(member.key(), member.value().get_string());
    return out;
}

void label_changes(JsonReader& reader, const Labels& current, VmPatch& patch) {
    const auto* object = changed_members(reader, "labels", patch.clear_labels);
    if (object == nullptr) return;
    JsonReader inner{*object, reader.at("labels"), reader.faults()};
    auto count = current.size();
    for (const auto& member : *object) {
        const std::string key{member.key()};
        const bool there = current.contains(key);
        if (member.value().is_null()) {
            patch.labels.emplace(key, std::nullopt);
            if (there) --count;
        } else if (check_label(inner, key, member.value())) {
            patch.labels.emplace(key, std::string{member.value().get_string()});
            if (!there) ++count;
        }
    }
    if (count > max_labels)
        reader.fault("labels", fmt::format("at most {} labels, there would be {}", max_labels, count));
}

void create_spec(JsonReader& reader, const VmDefaults& defaults, CreateVm& create) {
    auto& spec = create.spec;
    reader.require("image");
    spec.image = image_name(reader).value_or("");
    const auto disk = reader.integer("disk_gib", 1, max_disk_gib);
    create.disk_given = disk.has_value();
    spec.disk_gib = disk.value_or(defaults.disk_gib);
    spec.vcpus = vcpus(reader).value_or(defaults.vcpus);
    spec.memory_mib = reader.integer("memory_mib", min_memory_mib, max_memory_mib).value_or(defaults.memory_mib);
    spec.power_on = power(reader).value_or(true);
    spec.autostart = autostart(reader).value_or(Autostart::last);
    spec.is_protected = reader.boolean("protected").value_or(false);
    if (const auto firmware = reader.one_of("firmware", {"bios", "uefi"}))
        spec.firmware = *firmware == "uefi" ? virt::Firmware::uefi : virt::Firmware::bios;
    if (const auto* cloud_init = reader.object("cloud_init")) {
        JsonReader inner{*cloud_init, reader.at("cloud_init"), reader.faults()};
        read_cloud_init(inner, create);
    }
    read_disks(reader, spec);
    read_nics(reader, spec, defaults.network);
    read_forwards(reader, defaults.forwards, spec);
    spec.guest_access = reader.boolean("guest_access").value_or(false);
}

void patch_spec(JsonReader& reader, const VmSpec& current, const ForwardRules& rules, VmPatch& patch) {
    for (const auto* fixed : {"image", "firmware", "cloud_init", "disks", "nics"})
        if (reader.has(fixed)) {
            (void)reader.is_null(fixed);
            reader.fault(fixed,
                         "is fixed when the VM is created; power, autostart, protected, vcpus, memory_mib, disk_gib, "
                         "forwards and guest_access can be changed");
        }
    patch.vcpus = vcpus(reader);
    patch.memory_mib = reader.integer("memory_mib", min_memory_mib, max_memory_mib);
    patch.disk_gib = reader.integer("disk_gib", 1, max_disk_gib);
    if (patch.disk_gib && *patch.disk_gib < current.disk_gib)
        reader.fault("disk_gib", fmt::format("a disk can only grow: it has {} GiB", current.disk_gib));
    patch.power_on = power(reader);
    patch.autostart = autostart(reader);
    patch.is_protected = reader.boolean("protected");
    forward_changes(reader, current, rules, patch);
    patch.guest_access = reader.boolean("guest_access");
}

void stored_spec(JsonReader& reader, VmSpec& spec) {
    spec.image = reader.string("image", 4096).value_or("");
    spec.disk_gib = reader.integer("disk_gib", 0, UINT64_MAX).value_or(0);
    spec.vcpus = static_cast<unsigned>(reader.integer("vcpus", 0, UINT32_MAX).value_or(0));
    spec.memory_mib = reader.integer("memory_mib", 0, UINT64_MAX).value_or(0);
    spec.power_on = power(reader).value_or(true);
    spec.autostart = autostart(reader).value_or(Autostart::last);
    spec.is_protected = reader.boolean("protected").value_or(false);
    spec.firmware = reader.string("firmware", 16).value_or("") == "uefi" ? virt::Firmware::uefi : virt::Firmware::bios;
    if (const auto* cloud_init = reader.object("cloud_init")) {
        JsonReader inner{*cloud_init, reader.at("cloud_init"), reader.faults()};
        spec.cloud_init.hostname = inner.string("hostname", 4096).value_or("");
        spec.cloud_init.user = inner.string("user", 4096).value_or("");
        spec.cloud_init.ssh_authorized_keys =
            inner.strings("ssh_authorized_keys", 4096, 1 << 20).value_or(std::vector<std::string>{});
        spec.cloud_init.user_data_sha256 = inner.string("user_data_sha256", 64).value_or("");
    }
    each_stored(reader, "disks", [&spec](std::string name, JsonReader& disk) {
        spec.disks[std::move(name)] = {disk.integer("size_gib", 0, UINT64_MAX).value_or(0)};
    });
    each_stored(reader, "nics", [&spec](std::string name, JsonReader& nic) {
        spec.nics[std::move(name)] = {nic.string("network", 4096).value_or("")};
    });
    each_stored(reader, "forwards", [&spec](std::string name, JsonReader& part) {
        if (const auto forward = read_forward(part, {}, false)) spec.forwards[std::move(name)] = *forward;
    });
    spec.guest_access = reader.boolean("guest_access").value_or(false);
}

}  // namespace ghost::agent::fields
