#include "agent/vm/vm_document.hpp"

#include "agent/json_reader.hpp"
#include "agent/vm/cloud_init.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::agent;
namespace json = boost::json;

namespace {

const std::string key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPp9mYb7Zb9 someone@home";

json::value full_body() {
    return {
        {"name", "web-1"},
        {"owner", "alice"},
        {"labels", {{"tier", "web"}}},
        {"wait_for", "address"},
        {"spec",
         {{"image", "debian-12"},
          {"disk_gib", 30},
          {"vcpus", 4},
          {"memory_mib", 4096},
          {"autostart", "always"},
          {"protected", true},
          {"firmware", "uefi"},
          {"cloud_init",
           {{"hostname", "web.example"},
            {"user", "deb"},
            {"ssh_authorized_keys", {key}},
            {"user_data", "#!/bin/sh\n"}}},
          {"disks", {{"data", {{"size_gib", 10}}}}},
          {"nics", {{"eth0", {{"network", "default"}}}, {"eth1", {{"network", "lan"}}}}},
          {"forwards",
           {{"web", {{"host_port", 8080}, {"guest_port", 80}}},
            {"dns", {{"host_address", "tailscale"}, {"host_port", 5353}, {"guest_port", 53}, {"protocol", "udp"}}}}},
          {"guest_access", true}}}};
}

// A VM with these forwards, as its record says.
Vm forwarding(std::map<std::string, Forward> forwards) {
    Vm vm;
    vm.spec.forwards = std::move(forwards);
    return vm;
}

base::Result<VmPatch> patch_forwards(const Vm& vm, const std::string& forwards, const ForwardRules& rules = {}) {
    const auto body = parse_json(R"({"spec": {"forwards": )" + forwards + "}}");
    REQUIRE(body);
    return read_patch(*body, vm, rules);
}
// What the patch makes of them.
std::map<std::string, Forward> patched(const Vm& vm, const std::string& forwards) {
    const auto patch = patch_forwards(vm, forwards);
    REQUIRE(patch);
    auto after = vm.spec.forwards;
    apply_forwards(*patch, after);
    return after;
}
// Where it is at fault.
std::vector<std::string> faults_of(const Vm& vm, const std::string& forwards, const ForwardRules& rules = {}) {
    const auto patch = patch_forwards(vm, forwards, rules);
    std::vector<std::string> pointers;
    if (!patch)
        for (const auto& fault : patch.error().faults) pointers.push_back(fault.pointer);
    return pointers;
}

}  // namespace

TEST_CASE("a create body is read whole") {
    const auto create = read_create(full_body(), {});
    REQUIRE(create);
    CHECK(create->name == "web-1");
    CHECK(create->wait_for == WaitFor::address);
    CHECK(create->spec.vcpus == 4);
    CHECK(create->spec.disks.at("data").size_gib == 10);
    CHECK(create->spec.nics.at("eth1").network == "lan");
    CHECK(create->spec.firmware == virt::Firmware::uefi);
    CHECK(create->user_data == "#!/bin/sh\n");
    CHECK(create->spec.cloud_init.user_data_sha256.size() == 64);
    CHECK(create->spec.forwards.at("web") == Forward{"127.0.0.1", 8080, 80, Protocol::tcp});
    CHECK(create->spec.forwards.at("dns") == Forward{"tailscale", 5353, 53, Protocol::udp});
    CHECK(create->spec.guest_access);
}

TEST_CASE("a VM that stays off is waited for in no way") {
    for (const auto* wait : {"address", "guest_ready"}) {
        auto body = json::object{{"name", "a"}, {"wait_for", wait}, {"spec", {{"image", "x"}}}};
        REQUIRE(read_create(body, {}));
        CHECK(read_create(body, {})->wait_for == wait_for_named(wait));
        body["spec"].as_object()["power"] = "off";
        const auto refused = read_create(body, {});
        REQUIRE_FALSE(refused);
        CHECK(refused.error().faults.front().pointer == "/wait_for");
    }
}

TEST_CASE("what isn't said comes from the defaults") {
    const auto create = read_create({{"name", "a"}, {"spec", {{"image", "x"}}}}, {3, 777, 9, "lan"});
    REQUIRE(create);
    CHECK(create->spec.vcpus == 3);
    CHECK(create->spec.memory_mib == 777);
    CHECK(create->spec.disk_gib == 9);
    CHECK(create->spec.nics.at("eth0").network == "lan");
    CHECK(create->spec.power_on);
    CHECK(create->spec.forwards.empty());
    CHECK_FALSE(create->spec.guest_access);
    CHECK_FALSE(create->disk_given);
}

TEST_CASE("ports below 1024 and every address are the configuration's to allow") {
    const auto create = [](const char* forward, ForwardRules rules) {
        VmDefaults defaults;
        defaults.forwards = rules;
        const auto body =
            parse_json(R"({"name": "a", "spec": {"image": "x", "forwards": {"web": )" + std::string{forward} + "}}}");
        REQUIRE(body);
        return read_create(*body, defaults);
    };
    constexpr auto low = R"({"host_port": 1023, "guest_port": 80})";
    constexpr auto wide = R"({"host_address": "0.0.0.0", "host_port": 1024, "guest_port": 80})";
    CHECK(create(low, {.privileged_ports = true}));
    CHECK(create(wide, {.all_addresses = true}));
    const auto too_low = create(low, {.all_addresses = true});
    REQUIRE_FALSE(too_low);
    CHECK(too_low.error().faults.front().pointer == "/spec/forwards/web/host_port");
    CHECK_THAT(too_low.error().detail, Catch::Contains("forwards.privileged_ports"));
    const auto too_wide = create(wide, {.privileged_ports = true});
    REQUIRE_FALSE(too_wide);
    CHECK(too_wide.error().faults.front().pointer == "/spec/forwards/web/host_address");
    CHECK_THAT(too_wide.error().detail, Catch::Contains("forwards.all_addresses"));
}

TEST_CASE("a patch of forwards is merged name by name and member by member") {
    const Forward web{"127.0.0.1", 8080, 80, Protocol::tcp};
    const Forward dns{"tailscale", 5353, 53, Protocol::udp};
    const auto vm = forwarding({{"web", web}, {"dns", dns}});
    CHECK(patched(vm, R"({})") == vm.spec.forwards);
    CHECK(patched(vm, R"({"web": null, "none": null})") == std::map<std::string, Forward>{{"dns", dns}});
    CHECK(patched(vm, "null").empty());
    CHECK(patched(vm, R"({"web": {"host_port": 8081}})").at("web") == Forward{"127.0.0.1", 8081, 80, Protocol::tcp});
    CHECK(patched(vm, R"({"dns": {"host_address": null, "protocol": null}})").at("dns") ==
          Forward{"127.0.0.1", 5353, 53, Protocol::tcp});
    CHECK(patched(vm, R"({"ssh": {"host_port": 2222, "guest_port": 22}})").size() == 3);
    // What changes places is judged as it is in the end.
    CHECK(patched(vm, R"({"web": {"host_port": 1234}, "two": {"host_port": 8080, "guest_port": 1}})").size() == 3);
    CHECK(read_patch({{"spec", {{"guest_access", true}}}}, vm)->guest_access == true);
}

TEST_CASE("a patch of forwards that can't be names what is wrong") {
    const auto vm = forwarding({{"web", {"127.0.0.1", 8080, 80, Protocol::tcp}}});
    using Faults = std::vector<std::string>;
    CHECK(faults_of(vm, R"({"two": {"host_port": 8080, "guest_port": 81}})") == Faults{"/spec/forwards/two/host_port"});
    CHECK(faults_of(vm, R"({"two": {"host_port": 8080, "guest_port": 81, "protocol": "udp"}})").empty());
    CHECK(faults_of(vm, R"({"two": {"guest_port": 81}})") == Faults{"/spec/forwards/two/host_port"});
    CHECK(faults_of(vm, R"({"web": {"host_port": null}})") == Faults{"/spec/forwards/web/host_port"});
    CHECK(faults_of(vm, R"({"web": {"host_port": 0}})") == Faults{"/spec/forwards/web/host_port"});
    CHECK(faults_of(vm, R"({"web": {"guest_port": 65536}})") == Faults{"/spec/forwards/web/guest_port"});
    CHECK(faults_of(vm, R"({"web": {"host_address": "::"}})") == Faults{"/spec/forwards/web/host_address"});
    CHECK(faults_of(vm, R"({"web": {"protocol": "sctp"}})") == Faults{"/spec/forwards/web/protocol"});
    CHECK(faults_of(vm, R"({"web": {"to": 1}})") == Faults{"/spec/forwards/web/to"});
    CHECK(faults_of(vm, R"({"Web": {"host_port": 9000, "guest_port": 1}})") == Faults{"/spec/forwards/Web"});
    CHECK(faults_of(vm, R"({"web": []})") == Faults{"/spec/forwards/web"});
    CHECK(faults_of(vm, "[]") == Faults{"/spec/forwards"});
    std::string many = "{";
    for (int i = 0; i < 32; ++i)
        many += (i == 0 ? "\"p" : ", \"p") + std::to_string(i) + R"(": {"guest_port": 1, "host_port": )" +
                std::to_string(9000 + i) + "}";
    CHECK(faults_of(vm, many + "}") == Faults{"/spec/forwards"});
    CHECK(faults_of(forwarding({}), many + "}").empty());
}

TEST_CASE("what stands in a VM's forwards already isn't refused with a patch of something else") {
    const auto vm = forwarding({{"web", {"0.0.0.0", 80, 80, Protocol::tcp}}});
    CHECK(faults_of(vm, R"({"ssh": {"host_port": 2222, "guest_port": 22}})").empty());
    CHECK(faults_of(vm, R"({"web": {"host_port": 80}})").empty());
    CHECK(faults_of(vm, R"({"web": {"guest_port": 81}})") == std::vector<std::string>{"/spec/forwards/web/host_port"});
    CHECK(faults_of(vm, R"({"web": {"guest_port": 81}})", {true, true}).empty());
}

TEST_CASE("a disk that can't be called so is named itself") {
    const auto name = GENERATE(as<std::string>{}, "root", "Data");
    const auto body =
        parse_json(R"({"name": "a", "spec": {"image": "x", "disks": {")" + name + R"(": {"size_gib": 1}}}})");
    REQUIRE(body);
    const auto create = read_create(*body, {});
    REQUIRE_FALSE(create);
    REQUIRE(create.error().faults.size() == 1);
    CHECK(create.error().faults.front().pointer == "/spec/disks/" + name);
}

TEST_CASE("each member has its bounds") {
    const auto refused = [](const char* spec) {
        auto body = parse_json(std::string{R"({"name": "a", "spec": )"} + spec + "}");
        REQUIRE(body);
        return !read_create(*body, {});
    };
    for (
        const auto* spec :
        {R"({})",
         R"({"image": ""})",
         R"({"image": "../x"})",
         R"({"image": "x", "memory_mib": 0})",
         R"({"image": "x", "memory_mib": 9223372036854775808})",
         R"({"image": "x", "vcpus": 0})",
         R"({"image": "x", "vcpus": 1e99})",
         R"({"image": "x", "disk_gib": 0})",
         R"({"image": "x", "autostart": "sometimes"})",
         R"({"image": "x", "protected": "yes"})",
         R"({"image": "x", "disks": {"root": {"size_gib": 1}}})",
         R"({"image": "x", "disks": {"../x": {"size_gib": 1}}})",
         R"({"image": "x", "disks": {"d": {}}})",
         R"({"image": "x", "disks": {"d": {"size_gib": 1, "path": "/etc"}}})",
         R"({"image": "x", "nics": {"e": {"network": "a'b"}}})",
         R"({"image": "x", "guest_access": 1})",
         R"({"image": "x", "forwards": {"f": {}}})",
         R"({"image": "x", "forwards": {"f": null}})",
         R"({"image": "x", "forwards": {"f": {"host_port": 8080}}})",
         R"({"image": "x", "forwards": {"f": {"host_port": 8080, "guest_port": 0}}})",
         R"({"image": "x", "forwards": {"f": {"host_port": 8080, "guest_port": 1, "protocol": null}}})",
         R"({"image": "x", "forwards": {"f": {"host_port": 8080, "guest_port": 1, "host_address": "10.0.0.1"}}})",
         R"({"image": "x", "forwards": {"f": {"host_port": 8080, "guest_port": 1},
                                        "g": {"host_port": 8080, "guest_port": 2}}})",
         R"({"image": "x", "cloud_init": {"ssh_authorized_keys": ["nonsense"]}})",
         R"({"image": "x", "cloud_init": {"ssh_authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPp9\nroot"]}})",
         R"({"image": "x", "cloud_init": {"hostname": "a b"}})",
         R"({"image": "x", "cloud_init": {"user": "Root"}})"}) {
        CAPTURE(spec);
        CHECK(refused(spec));
    }
}

TEST_CASE("a VM survives its document, secrets excepted") {
    const auto create = read_create(full_body(), {});
    REQUIRE(create);
    Vm vm;
    vm.id = "0198a7a0-0000-7000-8000-000000000000";
    vm.name = create->name;
    vm.owner = create->owner;
    vm.labels = create->labels;
    vm.generation = 7;
    vm.created_at = base::from_unix_ms(1'700'000'000'123);
    vm.phase = Phase::ready;
    vm.spec = create->spec;
    vm.plan = {.installation = "install",
               .image_digest = "sha256:ab",
               .image_format = "qcow2",
               .root_disk = "/d/root",
               .root_gib = 30,
               .disks = {{"data", "/d/data"}},
               .seed = "/d/seed",
               .console_log = "/d/log",
               .console_socket = "/d/sock",
               .macs = {{"eth0", "52:54:00:00:00:01"}}};
    const auto document = to_document(vm);
    CHECK_FALSE(document.contains("#!/bin/sh"));
    const auto back = vm_from_document(document);
    REQUIRE(back);
    CHECK(to_document(*back) == document);
    CHECK(back->plan.root_gib == 30);
    CHECK(back->plan.console_socket == "/d/sock");
    auto older = document;
    older.erase(older.find(R"("console_socket":"/d/sock",)"), 27);
    CHECK(vm_from_document(older)->plan.console_socket.empty());
    for (std::size_t cut = 0; cut < document.size(); cut += 7) CHECK_FALSE(vm_from_document(document.substr(0, cut)));
}

TEST_CASE("a resource shows the secret's digest and never the secret") {
    const auto create = read_create(full_body(), {});
    REQUIRE(create);
    Vm vm;
    vm.spec = create->spec;
    const auto shown = json::serialize(to_resource(vm, "", base::Wall{}));
    CHECK(shown.contains(create->spec.cloud_init.user_data_sha256));
    CHECK_FALSE(shown.contains("#!/bin/sh"));
}

TEST_CASE("a patch says what may be changed") {
    Vm vm;
    vm.spec.disk_gib = 20;
    vm.labels = {{"a", "1"}};
    const auto patch =
        read_patch({{"labels", {{"a", nullptr}, {"b", "2"}}}, {"spec", {{"disk_gib", 21}, {"power", "off"}}}}, vm);
    REQUIRE(patch);
    CHECK(patch->labels.at("a") == std::nullopt);
    CHECK(patch->labels.at("b") == "2");
    CHECK(patch->disk_gib == 21);
    CHECK(patch->power_on == false);
    CHECK_FALSE(read_patch({{"name", "other"}}, vm));
    CHECK_FALSE(read_patch({{"spec", {{"disk_gib", 19}}}}, vm));
    CHECK_FALSE(read_patch({{"spec", {{"cloud_init", json::object{}}}}}, vm));
    CHECK_FALSE(read_patch({{"labels", {{"", "x"}}}}, vm));
    CHECK_FALSE(read_patch(json::array{}, vm));
}

TEST_CASE("the seed carries names and keys, and the user's own data as it is") {
    Vm vm;
    vm.id = "0198a7a0-0000-7000-8000-000000000000";
    vm.name = "web-1";
    vm.spec.cloud_init.ssh_authorized_keys = {key};
    vm.plan.macs = {{"eth0", "52:54:00:00:00:01"}};
    auto files = seed_files(vm, "");
    CHECK(files.meta_data.contains("instance-id: \"0198a7a0-0000-7000-8000-000000000000\"\n"));
    CHECK(files.meta_data.contains("local-hostname: \"web-1\"\n"));
    CHECK(files.user_data.starts_with("#cloud-config\n"));
    CHECK(files.user_data.contains(key));
    CHECK(files.vendor_data.empty());
    CHECK(files.network_config.contains("52:54:00:00:00:01"));
    files = seed_files(vm, "#!/bin/sh\necho mine\n");
    CHECK(files.user_data == "#!/bin/sh\necho mine\n");
    CHECK(files.vendor_data.contains(key));
}
