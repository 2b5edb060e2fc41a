#include "agent/vm/cloud_init.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

namespace ghost::agent {
namespace json = boost::json;
namespace {

json::array keys_json(const Vm& vm) {
    const auto& keys = vm.spec.cloud_init.ssh_authorized_keys;
    return json::array(keys.begin(), keys.end());
}

std::string cloud_config(const Vm& vm) {
    json::object config;
    const auto& ci = vm.spec.cloud_init;
    if (!ci.user.empty()) {
        config["users"] = json::array{json::object{{"name", ci.user},
                                                   {"groups", "sudo"},
                                                   {"shell", "/bin/bash"},
                                                   {"sudo", "ALL=(ALL) NOPASSWD:ALL"},
                                                   {"lock_passwd", true},
                                                   {"ssh_authorized_keys", keys_json(vm)}}};
    } else if (!ci.ssh_authorized_keys.empty()) {
        config["ssh_authorized_keys"] = keys_json(vm);
    }
    config["growpart"] = json::object{{"mode", "auto"}};
    return "#cloud-config\n" + json::serialize(config) + "\n";
}

// Each NIC by its MAC: names in the guest are the guest's own business.
std::string network_config(const Vm& vm) {
    json::object ethernets;
    for (const auto& [name, mac] : vm.plan.macs)
        ethernets[name] = json::object{{"match", json::object{{"macaddress", mac}}}, {"dhcp4", true}, {"dhcp6", true}};
    return json::serialize(json::object{{"version", 2}, {"ethernets", std::move(ethernets)}}) + "\n";
}

}  // namespace

storage::SeedFiles seed_files(const Vm& vm, std::string_view user_data) {
    const auto& ci = vm.spec.cloud_init;
    storage::SeedFiles files;
    // One key a line, its value as JSON: simple readers in small guests take that apart with sed.
    files.meta_data = "instance-id: " + json::serialize(json::value(vm.id)) +
                      "\nlocal-hostname: " + json::serialize(json::value(ci.hostname.empty() ? vm.name : ci.hostname)) +
                      "\n";
    if (!ci.ssh_authorized_keys.empty()) files.meta_data += "public-keys: " + json::serialize(keys_json(vm)) + "\n";
    if (user_data.empty()) {
        files.user_data = cloud_config(vm);
    } else {
        files.user_data = user_data;
        files.vendor_data = cloud_config(vm);
    }
    if (!vm.plan.macs.empty()) files.network_config = network_config(vm);
    return files;
}

}  // namespace ghost::agent
