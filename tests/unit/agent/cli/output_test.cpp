#include "agent/cli/output.hpp"

#include "agent/cli/progress.hpp"
#include "agent/cli/text.hpp"
#include "agent/cli/views.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <yaml-cpp/yaml.h>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;

namespace {

const auto now = base::from_unix_ms(1'767'323'045'000);  // 2026-01-02T03:04:05Z

json::object object(std::string_view text) { return json::parse(text).get_object(); }

constexpr std::string_view web = R"({"id":"0198","name":"web-1","owner":"alice","managed":true,"labels":{"tier":"web"},
  "generation":3,"created_at":"2026-01-01T03:04:05Z",
  "spec":{"image":"debian-12","disk_gib":20,"vcpus":2,"memory_mib":2048,"power":"on","autostart":"last",
    "protected":false,"firmware":"bios","cloud_init":{"hostname":"web-1","user":"debian",
      "ssh_authorized_keys":["ssh-ed25519 A"],"user_data_sha256":"ab"},
    "disks":{"data":{"size_gib":10}},"nics":{"eth0":{"network":"default"}}},
  "status":{"phase":"ready","power":"running","addresses":["192.168.122.10","fd00::1"],"uptime_s":3600,
    "usage":{"cpu_percent":25.5,"memory_mib":1200,"disk_bytes":1073741824},
    "conditions":[{"type":"HasAddress","status":"true","reason":"dhcp_lease","since":"2026-01-02T03:00:05Z"}],
    "operation":"/v1/operations/op-7","observed_at":"2026-01-02T03:04:00Z"}})";

// Defined by somebody else, with a name meant for the terminal.
constexpr std::string_view stranger = R"({"id":"6695","name":"\u001b[31mred\nline","managed":false,"labels":null,
  "spec":{"vcpus":1,"disk_gib":0,"disks":{"vda":{"size_gib":0}}},"status":{"phase":"ready","power":"off","addresses":null,"conditions":"?"}})";

}  // namespace

TEST_CASE("a list of VMs is an aligned table") {
    auto vms = json::array{};
    vms.push_back(object(web));
    vms.push_back(object(stranger));
    CHECK(
        vm_table(vms, now) ==
        "NAME               STATE            VCPUS  MEMORY  DISK    IMAGE      ADDRESSES                OWNER  AGE\n"
        "web-1              running          2      2 GiB   20 GiB  debian-12  192.168.122.10, fd00::1  alice  1d\n"
        "\\x1b[31mred\\nline  off (unmanaged)  1      -       -       -          -                        -      -\n");
    CHECK(vm_table({}, now) == "No VMs.\n");
}

TEST_CASE("a VM's page shows what was asked for and what is") {
    const auto page = vm_page(object(web), now);
    for (const auto* line :
         {"Name:        web-1\n", "State:       running, up 1h\n", "Wanted:      on\n",
          "Addresses:   192.168.122.10, fd00::1\n", "Memory:      2 GiB\n", "Disks:       data 10 GiB\n",
          "Networks:    eth0 on default\n", "Usage:       CPU 25.5 %, memory 1.2 GiB, disk 1 GiB\n",
          "Cloud-init:  hostname web-1, user debian, 1 SSH key, own user data\n", "Protected:   no\n",
          "Labels:      tier=web\n", "Created:     2026-01-01T03:04:05Z (1d ago)\n", "Operation:   op-7\n",
          "CONDITION   STATUS  REASON      FOR\nHasAddress  true    dhcp_lease  4m\n"})
        CHECK_THAT(page, Catch::Contains(line));
    const auto strange = vm_page(object(stranger), now);
    CHECK(strange.find('\x1b') == std::string::npos);
    CHECK_THAT(strange,
               Catch::Contains("off (unmanaged)") && Catch::Contains("vda\n") && !Catch::Contains("CONDITION"));
}

TEST_CASE("what a condition has to say stands below the table") {
    auto vm = object(web);
    vm["status"].as_object()["conditions"].as_array().push_back(
        object(R"({"type":"GuestReady","status":"false","reason":"cloud_init_error","since":"2026-01-02T03:00:05Z",
          "message":"the module x failed: \u001b[31m"})"));
    CHECK_THAT(vm_page(vm, now), Catch::Contains("GuestReady  false   cloud_init_error  4m\n"
                                                 "GuestReady: the module x failed: \\x1b[31m\n"));
}

TEST_CASE("views stand whatever an agent sends") {
    for (const auto* text :
         {"{}", R"({"name":[],"spec":5,"status":{"conditions":[1,{}],"usage":[]},"target":null})",
          R"({"progress":{"percent":"x","eta_s":1e308},"state":7,"error":{"errors":[1]},"used_by":{}})",
          R"({"status":{"uptime_s":1e300}})"}) {
        CAPTURE(text);
        const auto item = object(text);
        for (const auto view : {View::vm, View::image, View::operation, View::resources, View::orphan, View::agent}) {
            CHECK_NOTHROW(render_one(item, view, Format::table, now));
            CHECK_NOTHROW(render_list({item, 5, nullptr}, view, Format::table, now));
            CHECK_NOTHROW(render_list({item, 5, nullptr}, view, Format::name, now));
        }
        CHECK_NOTHROW(status_page(item, item, item, {item}, now));
    }
}

TEST_CASE("JSON output is indented, complete and safe to look at") {
    CHECK(to_json_text(json::parse(R"({"a":[1,{"b":null}],"c":[],"d":{},"e":25.5,"f":"x\u001b\u009b","g":"q\"\\"})")) ==
          "{\n  \"a\": [\n    1,\n    {\n      \"b\": null\n    }\n  ],\n  \"c\": [],\n  \"d\": {},\n  \"e\": 25.5,\n"
          "  \"f\": \"x\\u001b\\u009b\",\n  \"g\": \"q\\\"\\\\\"\n}\n");
    const auto vm = object(web);
    CHECK(json::parse(render_one(vm, View::vm, Format::json, now)) == json::value(vm));
    CHECK(json::parse(render_list({vm}, View::vm, Format::json, now)) == json::value(json::array{vm}));
    CHECK(render_list({}, View::vm, Format::json, now) == "[]\n");
}

TEST_CASE("YAML output reads back as what it was") {
    const auto text = to_yaml_text(json::parse(
        R"({"power":"on","num":"123","v":"1.0","t":"2026-01-02T03:04:05Z","f":25.5,"i":7,"b":true,"z":null,"s":"null",
            "e":"\u001b\u007f\u009b","l":["a: b","- c",""],"m":{},"o":[],"multi":"a\nb","off":"x"})"));
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(text.find('\x7f') == std::string::npos);
    CHECK(text.find("\xc2\x9b") == std::string::npos);
    CHECK_THAT(text, Catch::Contains("power: \"on\"\n") && Catch::Contains("num: \"123\"\n") &&
                         Catch::Contains("i: 7\n") && Catch::Contains("z: null\n") && Catch::Contains("b: true\n") &&
                         Catch::Contains("f: 25.5\n") && Catch::Contains("s: \"null\"\n") &&
                         Catch::Contains("\"off\": x\n"));
    const auto back = YAML::Load(text);
    CHECK(back["e"].as<std::string>() == "\x1b\x7f\xc2\x9b");
    CHECK(back["l"][0].as<std::string>() == "a: b");
    CHECK(back["multi"].as<std::string>() == "a\nb");
    CHECK(back["z"].IsNull());
    CHECK(back["m"].IsMap());
    CHECK(back["o"].IsSequence());
}

TEST_CASE("names are one a line: VMs and images by name, operations by id") {
    CHECK(render_list({object(web), object(stranger)}, View::vm, Format::name, now) == "web-1\n\\x1b[31mred\\nline\n");
    CHECK(render_one(object(R"({"id":"op-1","name":"x"})"), View::operation, Format::name, now) == "op-1\n");
    CHECK(render_list({}, View::vm, Format::name, now).empty());
}

TEST_CASE("images show what they are and who uses them") {
    const auto image = object(R"({"name":"debian-12","digest":"sha256:0123456789abcdef0123","source":"file:///x",
        "format":"qcow2","architecture":"x86_64","size_bytes":367001600,"virtual_size_bytes":3221225472,
        "verified":"local","state":"available","created_at":"2026-01-02T03:03:05Z","last_used_at":null,
        "used_by":["0198"]})");
    CHECK(image_table({image}, now) ==
          "NAME       STATE      FORMAT  SIZE     VIRTUAL SIZE  VERIFIED  DIGEST               VMS  AGE\n"
          "debian-12  available  qcow2   350 MiB  3 GiB         local     sha256:0123456789ab  1    1m\n");
    CHECK_THAT(image_page(image, now), Catch::Contains("Digest:        sha256:0123456789abcdef0123\n") &&
                                           Catch::Contains("Used by:       0198\n"));
    CHECK(done_line("image debian-12", "added", image) ==
          "image debian-12 added: qcow2 350 MiB, sha256:0123456789abcdef0123\n");
}

TEST_CASE("an operation's progress is told in words and as a bar") {
    const auto running = object(R"({"id":"op-1","kind":"image.add","state":"running","stalled":false,
        "target":{"type":"image","id":"i","name":"debian-12"},"created_at":"2026-01-02T03:03:05Z",
        "progress":{"phase":"copy","done":1288490188,"total":2576980377,"unit":"bytes","percent":50.0,
                    "rate":36700160,"eta_s":43},"cancellable":true,"requested_by":"socket:uid:0"})");
    CHECK(progress_text(running) == "copy 50% 1.2 GiB of 2.4 GiB, 35 MiB/s, 43s left");
    CHECK(progress_line("image debian-12", running, std::chrono::seconds{4}, 200) ==
          "image debian-12: copy [############------------]  50%  1.2 GiB of 2.4 GiB  35 MiB/s  43s left");
    CHECK(progress_line("image debian-12", running, std::chrono::seconds{4}, 80) ==
          "image debian-12: copy [############------------]  50%  1.2 GiB of 2.4 GiB");
    CHECK(progress_line("image debian-12", running, std::chrono::seconds{4}, 20) == "image debian-12: cop");
    CHECK_THAT(operation_table({running}, now), Catch::Contains("op-1  image.add  debian-12  running  copy 50%"));
    CHECK_THAT(operation_page(running, now), Catch::Contains("Cancellable:   yes\n"));
    auto unknown = running;
    unknown["progress"] = json::object{{"phase", "start\x1b"}, {"percent", nullptr}};
    CHECK(progress_line("VM web", unknown, std::chrono::seconds{75}, 80) == "VM web: start\\x1b 1m");
    unknown["stalled"] = true;
    CHECK(progress_line("VM web", unknown, std::chrono::seconds{5}, 80) == "VM web: waiting for the hypervisor 5s");
    unknown["progress"] = json::object{{"phase", "p"}, {"done", 2}, {"total", 5}, {"unit", "steps"}};
    CHECK_THAT(progress_line("VM web", unknown, std::chrono::seconds{5}, 80), Catch::Contains(" 40%  2 of 5 steps"));
    unknown["progress"] = json::object{{"percent", 1e9}};
    CHECK_THAT(progress_line("VM web", unknown, std::chrono::seconds{5}, 80),
               Catch::Contains("[########################] 100%"));
    unknown["stalled"] = false;
    unknown["progress"] = json::object{{"phase", "retry"}, {"percent", nullptr}};
    unknown["error"] = json::object{{"detail", "it is busy"}};
    CHECK(progress_line("VM web", unknown, std::chrono::seconds{5}, 80) ==
          "VM web: waiting to try again 5s  (it is busy)");
}

TEST_CASE("an operation that failed tells why") {
    const auto page = operation_page(object(R"({"id":"op-1","kind":"vm.create","state":"failed","error":
        {"code":"validation_failed","detail":"no good","errors":[{"pointer":"/spec","detail":"bad"}]}})"),
                                     now);
    CHECK_THAT(page, Catch::Contains("no good (validation_failed)\n") && Catch::Contains("/spec: bad\n"));
}

TEST_CASE("resources show totals and what is free") {
    const auto resources = object(R"({"cpus":{"total":8,"reserved":1,"allocated":2,"free":26},
        "memory_mib":{"total":16384,"reserved":2048,"allocated":4096,"free":10240},
        "disk_bytes":{"total":107374182400,"reserved":10737418240,"allocated":0,"free":96636764160}})");
    CHECK(resources_table(resources) ==
          "RESOURCE  TOTAL    RESERVED  ALLOCATED  FREE\n"
          "CPUs      8        1         2          26\n"
          "Memory    16 GiB   2 GiB     4 GiB      10 GiB\n"
          "Disk      100 GiB  10 GiB    0 B        90 GiB\n"
          "\n"
          "vCPUs:  28 on 7 CPUs that aren't reserved (4 on each); allocated and free are vCPUs\n");
    // More was given away than there may be: it can't be told how many there are.
    CHECK_THAT(resources_table(object(R"({"cpus":{"total":8,"reserved":1,"allocated":40,"free":0}})")),
               !Catch::Contains("vCPUs"));
}

TEST_CASE("resources show how busy the host is, as far as it tells") {
    const auto shown = [](std::string_view text) {
        const auto table = resources_table(object(text));
        return table.substr(table.find("Disk"));
    };
    CHECK(shown(R"({"load":{"1m":0.52,"5m":1.5,"15m":2},"pressure":{"cpu_some":1.53,"memory_some":0,"memory_full":0,
        "io_some":3.2,"io_full":1.1},"power":{"source":"battery","battery_percent":78}})") ==
          "Disk      -      -         -          -\n"
          "\n"
          "Load:      0.52 (1 min), 1.5 (5 min), 2 (15 min)\n"
          "Pressure:  CPU 1.53 %, memory 0 % (all 0 %), I/O 3.2 % (all 1.1 %)\n"
          "Power:     battery at 78 %\n");
    CHECK_THAT(shown(R"({"load":null,"pressure":null,"power":{"source":"ac","battery_percent":100}})"),
               Catch::EndsWith("\n\nPower:  mains (battery at 100 %)\n"));
    CHECK_THAT(shown(R"({"power":{"source":"ac","battery_percent":null}})"), Catch::EndsWith("\nPower:  mains\n"));
    CHECK_THAT(shown(R"({"power":{"source":"unknown"}})"), Catch::EndsWith("\nPower:  unknown\n"));
    CHECK(shown("{}") == "Disk      -      -         -          -\n");
}

TEST_CASE("orphans show what they are and why") {
    const json::array orphans{
        object(R"({"kind":"file","path":"/var/lib/ghost/disks/a.qcow2","name":"a.qcow2","bytes":1073741824,
            "reason":"no VM uses it","found_at":"2026-01-02T03:03:05Z"})"),
        object(
            R"({"kind":"domain","id":"0198","name":"ghost-x","bytes":null,"reason":"no VM \u001b","found_at":"?"})")};
    CHECK(orphan_table(orphans) ==
          "KIND    WHAT                          SIZE   WHY\n"
          "file    /var/lib/ghost/disks/a.qcow2  1 GiB  no VM uses it\n"
          "domain  ghost-x (0198)                -      no VM \\x1b\n");
    CHECK(orphan_table({}) == "No orphans.\n");
    CHECK(render_list(orphans, View::orphan, Format::name, now) == "/var/lib/ghost/disks/a.qcow2\nghost-x\n");
}

TEST_CASE("status sums up the agent and names what isn't well") {
    const auto agent =
        object(R"({"name":"node-1","agent_id":"a-1","version":"0.1.0","started_at":"2026-01-02T01:04:05Z",
        "features":[],"hypervisor":{"uri":"qemu:///system","kind":"qemu","libvirt_version":"9.0.0",
        "qemu_version":"7.2.0","connected":false},"core":{"state":"disabled"},
        "tailnet":{"connected":true,"addresses":["100.64.0.7","fd7a::7"],"dns_name":"pc.example.org","reason":null}})");
    const auto health = object(R"({"status":"unhealthy","checks":{"libvirt":{"status":"down",
        "since":"2026-01-02T03:02:05Z","reason":"no answer"},"disk":{"status":"up"}}})");
    const auto resources = object(R"({"cpus":{"total":2,"free":4},"memory_mib":{"total":16384,"free":10240}})");
    const auto page = status_page(agent, health, resources, {object(web), object(web), object(stranger)}, now);
    for (const auto* line :
         {"Agent:       node-1, version 0.1.0\n", "Up:          2h\n",
          "Hypervisor:  qemu (no KVM: slow) (libvirt 9.0.0, QEMU 7.2.0, qemu:///system, not connected)\n",
          "Ghost Core:  off (agent.api_url is not set)\n", "Health:      unhealthy\n",
          "  libvirt:   down for 2m: no answer\n", "VMs:         3 (2 running; unmanaged: 1 off)\n",
          "CPUs:        4 vCPUs free on 2\n", "Memory:      10 GiB free of 16 GiB\n"})
        CHECK_THAT(page, Catch::Contains(line));
    CHECK_THAT(page, !Catch::Contains("disk:"));
    CHECK_THAT(page, Catch::Contains("Tailnet:     connected (pc.example.org, 100.64.0.7, fd7a::7)\n"));
}

TEST_CASE("status says why the tailnet isn't connected, and nothing of one that isn't there") {
    const auto page = [](const char* agent) { return status_page(object(agent), {}, {}, {}, now); };
    CHECK_THAT(page(R"({"tailnet":{"connected":false,"addresses":[],"dns_name":null,
                     "reason":"not connected: NeedsLogin"}})"),
               Catch::Contains("Tailnet:  not connected: NeedsLogin\n"));
    CHECK_THAT(page(R"({"tailnet":null})"), !Catch::Contains("Tailnet"));
    CHECK_THAT(page("{}"), !Catch::Contains("Tailnet"));
}

TEST_CASE("status says what is wrong with the link to Ghost Core, and when it is tried again") {
    const auto page = [](const char* agent) { return status_page(object(agent), {}, {}, {}, now); };
    const auto away = page(R"({"core":{"state":"unreachable","url":"https://core.example","reason":"no answer",
        "last_beat_at":null,"next_attempt_at":"2026-01-02T03:04:50Z",
        "warnings":["the clock is off","a fact\u001b is refused",7]}})");
    CHECK_THAT(away, Catch::Contains("Ghost Core:  unreachable, https://core.example: no answer\n"
                                     "  next try:  in 45s\n"
                                     "  warning:   the clock is off\n"
                                     "  warning:   a fact\\x1b is refused\n"));
    CHECK_THAT(page(R"({"core":{"state":"refused","next_attempt_at":"2026-01-02T03:04:05Z"}})"),
               Catch::Contains("  next try:  now\n"));
    const auto well = page(R"({"core":{"state":"connected","next_attempt_at":null,"warnings":[]}})");
    CHECK_THAT(well, !Catch::Contains("next try") && !Catch::Contains("warning"));
    for (const auto* odd :
         {R"({"core":{"next_attempt_at":5,"warnings":"?"}})", R"({"core":{"next_attempt_at":"soon"}})"})
        CHECK_THAT(page(odd), !Catch::Contains("next try") && !Catch::Contains("warning"));
}

TEST_CASE("status says that the node is drained, since when, by whom and why") {
    const auto agent = object(R"({"name":"node-1","version":"0.1.0","drain":{"since":"2026-01-02T01:04:05Z",
        "reason":"kernel update","by":"socket:uid:0"}})");
    for (const auto& page : {status_page(agent, {}, {}, {}, now), render_one(agent, View::agent, Format::table, now)})
        CHECK_THAT(page,
                   Catch::Contains("Drained:  takes no new VMs, since 2h ago (by socket:uid:0): kernel update\n"));
    CHECK_THAT(status_page(object(R"({"drain":null})"), {}, {}, {}, now), !Catch::Contains("Drained"));
    CHECK_THAT(status_page(object(R"({"drain":{"reason":null,"by":"b"}})"), {}, {}, {}, now),
               Catch::Contains("(by b)\n"));
    CHECK(render_one(agent, View::agent, Format::name, now) == "node-1\n");
    CHECK(done_line("agent", "takes no new VMs", agent) == "agent takes no new VMs\n");
}

TEST_CASE("a change that went well is one line") {
    CHECK(done_line("VM web", "started", object(web)) == "VM web started: running at 192.168.122.10, fd00::1\n");
    CHECK(done_line("VM w\x1b", "deleted", {}) == "VM w\\x1b deleted\n");
}
