#include "agent/cli/command_line.hpp"

#include "tests/unit/agent/cli/words.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;

TEST_CASE("vm create takes the words people know") {
    const auto change = action_of<Change>(
        {"vm", "create", "--name", "web", "--vcpu", "2", "--ram", "4", "--disk", "50", "--template", "ubuntu-22.04"});
    CHECK(change.method == net::Method::post);
    CHECK(change.target == "/v1/vms");
    CHECK(change.subject == "VM web");
    CHECK(change.question.empty());
    CHECK(json::parse(change.body) ==
          json::parse(R"({"name":"web","spec":{"image":"ubuntu-22.04","vcpus":2,"memory_mib":4096,"disk_gib":50}})"));
}

TEST_CASE("vm create sends only what was said") {
    CHECK(body_of({"vm", "create", "web", "--image", "debian-12"}) ==
          json::parse(R"({"name":"web","spec":{"image":"debian-12"}})"));
}

TEST_CASE("vm create sends everything that can be said") {
    World world;
    world.files["me.pub"] = "# mine\nssh-ed25519 AAAA me@a\n\n  ecdsa-sha2-nistp256 BBBB me@b\r\n";
    world.files["ud.yaml"] = "#cloud-config\n";
    const auto body = body_of(
        {"vm",           "create",    "web",          "--image",   "debian-12",    "--vcpus",     "4",
         "--memory-mib", "1536",      "--extra-disk", "data=10",   "--extra-disk", "log=1T",      "--network",
         "default",      "--network", "lan",          "--ssh-key", "me.pub",       "--ssh-key",   "ssh-ed25519 CCCC x",
         "--user",       "ada",       "--hostname",   "web.lan",   "--user-data",  "ud.yaml",     "-l",
         "tier=web",     "--label",   "eq=a=b",       "--owner",   "alice",        "--protected", "--wait-for",
         "address"},
        world);
    CHECK(body == json::parse(R"({"name":"web","owner":"alice","labels":{"tier":"web","eq":"a=b"},"wait_for":"address",
        "spec":{"image":"debian-12","vcpus":4,"memory_mib":1536,"protected":true,
          "cloud_init":{"hostname":"web.lan","user":"ada","user_data":"#cloud-config\n",
             "ssh_authorized_keys":["ssh-ed25519 AAAA me@a","ecdsa-sha2-nistp256 BBBB me@b","ssh-ed25519 CCCC x"]},
          "disks":{"data":{"size_gib":10},"log":{"size_gib":1024}},
          "nics":{"eth0":{"network":"default"},"eth1":{"network":"lan"}}}})"));
    CHECK(body_of({"vm", "create", "web", "--image", "i", "--no-start"}).at("spec").at("power") == "off");
}

TEST_CASE("sizes that make no sense are usage faults") {
    const auto create = [](const char* option, const char* value) {
        return usage_fault_of({"vm", "create", "web", "--image", "i", option, value});
    };
    CHECK_THAT(create("--ram", "0"), Catch::Contains("--ram '0'"));
    CHECK_THAT(create("--ram", "lots"), Catch::Contains("expected GiB"));
    CHECK_THAT(create("--ram", "99999999999"), Catch::Contains("--ram"));
    CHECK_THAT(create("--disk", "0.5"), Catch::Contains("whole number of GiB"));
    CHECK_THAT(create("--vcpu", "-1"), Catch::Contains("vcpu"));
    CHECK_THAT(create("--vcpu", "two"), Catch::Contains("vcpu"));
    CHECK_THAT(create("--extra-disk", "data"), Catch::Contains("NAME=GIB"));
    CHECK_THAT(create("--label", "=x"), Catch::Contains("KEY=VALUE"));
    CHECK_THAT(create("--timeout", "soon"), Catch::Contains("--timeout 'soon'"));
    CHECK(body_of({"vm", "create", "web", "--image", "i", "--ram", "512M"}).at("spec").at("memory_mib") == 512);
    CHECK(body_of({"vm", "create", "web", "--image", "i", "--ram", "0.5"}).at("spec").at("memory_mib") == 512);
}

TEST_CASE("vm update sends a merge patch of what was said") {
    const auto change = action_of<Change>({"vm", "update", "web", "--unprotected"});
    CHECK(change.method == net::Method::patch);
    CHECK(change.target == "/v1/vms/web");
    CHECK(change.done == "updated");
    CHECK(json::parse(change.body) == json::parse(R"({"spec":{"protected":false}})"));
    CHECK(body_of({"vm", "update", "web", "--vcpus", "2", "--ram", "0.5", "--disk", "1T", "-l", "a=b=c",
                   "--remove-label", "old", "--owner", "", "--protected"}) ==
          json::parse(R"({"owner":null,"labels":{"a":"b=c","old":null},
              "spec":{"vcpus":2,"memory_mib":512,"disk_gib":1024,"protected":true}})"));
    CHECK(body_of({"vm", "update", "web", "--owner", "bob"}) == json::parse(R"({"owner":"bob"})"));
    CHECK(body_of({"vm", "update", "web", "--memory-mib", "300"}) == json::parse(R"({"spec":{"memory_mib":300}})"));
}

TEST_CASE("a vm update that says nothing or too much is a usage fault") {
    const auto update = [](std::vector<std::string> words) {
        words.insert(words.begin(), {"vm", "update", "web"});
        return usage_fault_of(words);
    };
    CHECK_THAT(update({}), Catch::Contains("nothing to change was said"));
    CHECK_THAT(update({"-l", "a=1", "--remove-label", "a"}), Catch::Contains("label 'a' is there twice"));
    CHECK_THAT(update({"-l", "novalue"}), Catch::Contains("KEY=VALUE"));
    CHECK_THAT(update({"--ram", "lots"}), Catch::Contains("--ram 'lots'"));
    CHECK_THAT(update({"--vcpus", "0"}), Catch::Contains("vcpu"));
    (void)update({"--ram", "1", "--memory-mib", "1024"});
}

TEST_CASE("files that can't serve are usage faults") {
    World world;
    world.files["id"] = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n";
    world.files["empty"] = "# nothing\n";
    const auto with = [&world](const char* option, const char* file) {
        return usage_fault_of({"vm", "create", "web", "--image", "i", option, file}, world);
    };
    CHECK_THAT(with("--ssh-key", "id"), Catch::Contains("private key"));
    CHECK_THAT(with("--ssh-key", "empty"), Catch::Contains("no key in it"));
    CHECK_THAT(with("--ssh-key", "missing"), Catch::Contains("--ssh-key: cannot open missing"));
    CHECK_THAT(with("--user-data", "missing"), Catch::Contains("--user-data: cannot open missing"));
}

TEST_CASE("words that exclude each other are usage faults") {
    (void)usage_fault_of({"vm", "create", "web", "--image", "i", "--ram", "4", "--memory-mib", "4096"});
    (void)usage_fault_of({"vm", "create", "web", "--image", "i", "--no-start", "--wait-for", "address"});
    (void)usage_fault_of({"vm", "create", "web", "--image", "i", "--wait-for", "christmas"});
    (void)usage_fault_of({"vm", "create", "web", "--name", "web2", "--image", "i"});
    (void)usage_fault_of({"vm", "create", "web"});
    (void)usage_fault_of({"vm", "create", "--image", "i"});
    (void)usage_fault_of({"image", "add", "--file", "a", "--source", "b"});
    (void)usage_fault_of({"--socket", "/a", "--agent", "https://b", "status"});
    for (const auto& words : {std::vector<std::string>{"resources", "-o", "name"}, {"-o", "name", "resources"}})
        CHECK_THAT(usage_fault_of(words), Catch::Contains("resources have no names; use -o json, yaml or table"));
}

TEST_CASE("each power verb posts to its own route") {
    for (const auto* verb : {"start", "stop", "restart", "pause", "resume", "suspend", "reset"}) {
        CAPTURE(verb);
        const auto change = action_of<Change>({"vm", verb, "web"});
        CHECK(change.method == net::Method::post);
        CHECK(change.target == std::string{"/v1/vms/web/"} + verb);
        CHECK(change.body.empty());
        CHECK(change.waiting.wait);
        CHECK(change.waiting.limit == std::chrono::minutes{10});
        CHECK(change.question.empty());
    }
}

TEST_CASE("vm stop and vm restart say how hard") {
    for (const auto* verb : {"stop", "restart"}) {
        CAPTURE(verb);
        CHECK(body_of({"vm", verb, "web", "--force"}) == json::parse(R"({"force":true})"));
        CHECK(body_of({"vm", verb, "web", "--grace", "2m"}) == json::parse(R"({"timeout_s":120})"));
        const auto patient = action_of<Change>({"vm", verb, "web", "--timeout", "5m"});
        CHECK(json::parse(patient.body) == json::parse(R"({"timeout_s":300})"));
        CHECK(patient.waiting.limit > std::chrono::minutes{5});
        CHECK(body_of({"vm", verb, "web", "--timeout", "1h"}) == json::parse(R"({"timeout_s":600})"));
        CHECK(body_of({"vm", verb, "web", "--timeout", "5m", "--grace", "10s"}) == json::parse(R"({"timeout_s":10})"));
        CHECK(body_of({"vm", verb, "web", "--timeout", "5m", "--force"}) == json::parse(R"({"force":true})"));
        CHECK_THAT(usage_fault_of({"vm", verb, "web", "--grace", "x"}), Catch::Contains("--grace 'x'"));
    }
}

TEST_CASE("waiting can be left out or limited") {
    CHECK_FALSE(action_of<Change>({"vm", "start", "web", "--no-wait"}).waiting.wait);
    CHECK(action_of<Change>({"vm", "start", "web", "--timeout", "5m"}).waiting.limit == std::chrono::minutes{5});
    const auto wait = action_of<WaitForOperation>({"operation", "wait", "op-1", "--timeout", "90"});
    CHECK(wait.id == "op-1");
    CHECK(wait.waiting.limit == std::chrono::seconds{90});
    (void)usage_fault_of({"operation", "wait", "op-1", "--no-wait"});
}

TEST_CASE("vm delete has a question unless --yes answers it") {
    const auto asked = action_of<Change>({"vm", "delete", "web"});
    CHECK(asked.method == net::Method::del);
    CHECK(asked.target == "/v1/vms/web");
    CHECK(asked.question == "Delete VM web and its disks?");
    CHECK(action_of<Change>({"vm", "delete", "web", "--yes"}).question.empty());
}

TEST_CASE("vm adopt keeps the name, or takes another one") {
    const auto change = action_of<Change>({"vm", "adopt", "db"});
    CHECK(change.target == "/v1/vms/db/adopt");
    CHECK(change.body == "{}");
    CHECK(change.done == "adopted");
    CHECK(body_of({"vm", "adopt", "db", "--name", "db-1"}) == json::parse(R"({"name":"db-1"})"));
}

TEST_CASE("orphans are listed, and purged after a question") {
    const auto list = action_of<ShowList>({"orphans", "list"});
    CHECK(list.target == "/v1/orphans");
    CHECK_FALSE(list.has_pages);
    const auto purge = action_of<Change>({"orphans", "purge"});
    CHECK(purge.target == "/v1/orphans/purge");
    CHECK(purge.question == "Delete all orphans for good?");
    CHECK(action_of<Change>({"orphans", "purge", "--yes"}).question.empty());
    CHECK(action_of<Change>({"orphans", "purge", "--dry-run"}).question.empty());
}

TEST_CASE("the agent is drained, with a reason or without, and undrained") {
    const auto drain = action_of<Change>({"agent", "drain", "--reason", "kernel \"6\""});
    CHECK(drain.method == net::Method::post);
    CHECK(drain.target == "/v1/agent/drain");
    CHECK(drain.subject == "agent");
    CHECK(drain.question.empty());
    CHECK(json::parse(drain.body) == json::parse(R"({"reason":"kernel \"6\""})"));
    CHECK(action_of<Change>({"agent", "drain"}).body.empty());
    CHECK_FALSE(action_of<Change>({"agent", "drain", "--no-wait"}).waiting.wait);
    const auto undrain = action_of<Change>({"agent", "undrain", "--dry-run"});
    CHECK(undrain.target == "/v1/agent/undrain?dry_run=true");
    CHECK(undrain.body.empty());
    (void)usage_fault_of({"agent"});
    (void)usage_fault_of({"agent", "undrain", "--reason", "x"});
}

TEST_CASE("a dry run is asked for in the query, and asks nobody") {
    const auto change = action_of<Change>({"vm", "start", "web", "--dry-run"});
    CHECK(change.target == "/v1/vms/web/start?dry_run=true");
    CHECK(change.dry_run);
    CHECK(action_of<Change>({"--dry-run", "vm", "delete", "web"}).question.empty());
    CHECK_FALSE(action_of<Change>({"vm", "start", "web"}).dry_run);
    CHECK_THAT(usage_fault_of({"vm", "list", "--dry-run"}), Catch::Contains("commands that change something"));
    CHECK_THAT(usage_fault_of({"operation", "wait", "op-1", "--idempotency-key", "k"}),
               Catch::Contains("--idempotency-key goes with commands that change something"));
    CHECK_THAT(usage_fault_of({"vm", "start", "web", "--dry-run", "-o", "name"}), Catch::Contains("-o json"));
}

TEST_CASE("a change may be given the key of another one") {
    CHECK(action_of<Change>({"vm", "start", "web", "--idempotency-key", "k-1"}).idempotency_key == "k-1");
    CHECK(action_of<Change>({"vm", "start", "web"}).idempotency_key.empty());
    for (const auto& bad : {std::string{}, std::string{"a b"}, std::string{"ä"}, std::string(256, 'k')})
        CHECK_THAT(usage_fault_of({"vm", "start", "web", "--idempotency-key", bad}),
                   Catch::Contains("1 to 255 visible ASCII characters"));
    CHECK(
        action_of<Change>({"vm", "start", "web", "--idempotency-key", std::string(255, 'k')}).idempotency_key.size() ==
        255);
}

TEST_CASE("filters of vm list become the query") {
    CHECK(action_of<ShowList>({"vm", "list"}).target == "/v1/vms");
    CHECK(action_of<ShowList>({"vm", "list", "-l", "a=b&c", "--label", "d=e", "--power", "off", "--owner", "al",
                               "--name", "web", "--managed"})
              .target == "/v1/vms?label=a%3Db%26c&label=d%3De&power=off&owner=al&name=web&managed=true");
    CHECK(action_of<ShowList>({"vm", "list", "--unmanaged"}).target == "/v1/vms?managed=false");
    CHECK(action_of<ShowList>({"vm", "list", "--managed=false"}).target == "/v1/vms?managed=false");
    CHECK_THAT(usage_fault_of({"vm", "list", "--label", "x"}), Catch::Contains("KEY=VALUE"));
    (void)usage_fault_of({"vm", "list", "--power", "sideways"});
}

TEST_CASE("a watched list has the same filters") {
    const auto watch = action_of<WatchVms>({"vm", "list", "--watch", "-l", "a=b=c", "--power", "off", "--unmanaged"});
    CHECK(watch.filter.target() == "/v1/vms?label=a%3Db%3Dc&power=off&managed=false");
    CHECK(action_of<WatchVms>({"vm", "list", "-w"}).filter.target() == "/v1/vms");
}

TEST_CASE("events can be chosen, and begun with one that was seen") {
    const auto all = action_of<FollowEvents>({"events"});
    CHECK(all.after.empty());
    CHECK(all.filter.types.empty());
    const auto some = action_of<FollowEvents>({"events", "--after", "4294967301", "--type", "vm.power,vm.deleted",
                                               "--type", "image.updated", "--subject", "w"});
    CHECK(some.after == "4294967301");
    CHECK(some.filter.types == std::vector<std::string>{"vm.power", "vm.deleted", "image.updated"});
    CHECK(some.filter.subject == "w");
    CHECK_THAT(usage_fault_of({"events", "--type", "vm.powr"}),
               Catch::Contains("'vm.powr': expected some of vm.created"));
    for (const auto* bad : {"-1", "x", ""}) (void)usage_fault_of({"events", "--after", bad});
    CHECK_THAT(usage_fault_of({"events", "-o", "name"}), Catch::Contains("events have no names"));
}

TEST_CASE("a name is encoded into the path, whatever it is") {
    CHECK(action_of<ShowOne>({"vm", "status", "a/../b?x"}).target == "/v1/vms/a%2F..%2Fb%3Fx");
    CHECK(action_of<ShowOne>({"image", "show", "ö"}).target == "/v1/images/%C3%B6");
    CHECK_THAT(usage_fault_of({"vm", "status", ""}), Catch::Contains("empty"));
    (void)usage_fault_of({"vm", "create", "", "--image", "i"});
}

TEST_CASE("a VM may be called like a command") {
    CHECK(action_of<Change>({"vm", "stop", "start"}).target == "/v1/vms/start/stop");
    CHECK(action_of<ShowOne>({"vm", "status", "vm"}).target == "/v1/vms/vm");
    CHECK(action_of<ShowOne>({"vm", "status", "status"}).target == "/v1/vms/status");
}

TEST_CASE("image add turns a file into an absolute address") {
    CHECK(body_of({"image", "add", "debian-12", "--file", "im ages/d.qcow2", "--checksum", "sha256:ab"}) ==
          json::parse(R"({"name":"debian-12","source":"file:///cwd/im%20ages/d.qcow2","checksum":"sha256:ab"})"));
    CHECK(body_of({"image", "add", "--source", "file:///x/y.img", "--format", "raw"}) ==
          json::parse(R"({"source":"file:///x/y.img","format":"raw"})"));
    CHECK_THAT(usage_fault_of({"image", "add"}), Catch::Contains("a NAME of the catalogue, --file PATH or --source"));
    CHECK_THAT(usage_fault_of({"image", "add", "x", "--file", "f", "--checksum", "md5:1"}),
               Catch::Contains("sha256:HEX"));
    CHECK(action_of<Change>({"image", "delete", "d"}).target == "/v1/images/d");
}

TEST_CASE("image add takes a name of the catalogue, under another name if wanted, and what nothing proves") {
    CHECK(body_of({"image", "add", "debian-12"}) == json::parse(R"({"source":"debian-12"})"));
    CHECK(body_of({"image", "add", "base", "--source", "debian-12"}) ==
          json::parse(R"({"source":"debian-12","name":"base"})"));
    CHECK(body_of({"image", "add", "--source", "https://a.example/x", "--allow-unverified"}) ==
          json::parse(R"({"source":"https://a.example/x","allow_unverified":true})"));
}

TEST_CASE("images are refreshed by name and pruned together") {
    CHECK(action_of<Change>({"image", "refresh", "debian-12"}).target == "/v1/images/debian-12/refresh");
    const auto prune = action_of<Change>({"image", "prune"});
    CHECK(prune.target == "/v1/image-cache/prune");
    CHECK_FALSE(prune.question.empty());
    CHECK(action_of<Change>({"image", "prune", "--yes"}).question.empty());
    CHECK(action_of<ShowList>({"image", "list", "--remote"}).target == "/v1/images?remote=true");
}

TEST_CASE("image add offers what the agent takes") {
    const auto told = World{}.parse({"image", "add", "--help"});
    REQUIRE_FALSE(told);
    CHECK_THAT(told.error().out,
               Catch::Contains("file:///PATH") && Catch::Contains("https://") && Catch::Contains("catalogue"));
}

TEST_CASE("operation cancel succeeds when the operation ends cancelled") {
    const auto change = action_of<Change>({"operation", "cancel", "op-1"});
    CHECK(change.target == "/v1/operations/op-1/cancel");
    CHECK(change.ends_cancelled);
}

TEST_CASE("options for all commands stand before or after them") {
    CHECK(understood({"-o", "json", "vm", "list"}).format == Format::json);
    CHECK(understood({"vm", "list", "-o", "yaml"}).format == Format::yaml);
    CHECK(understood({"vm", "list", "--output=name"}).format == Format::name);
    CHECK(understood({"vm", "list"}).format == Format::table);
    CHECK_THAT(usage_fault_of({"vm", "list", "-o", "xml"}), Catch::Contains("table, json, yaml or name"));
}

TEST_CASE("the agent's address comes from the command line, then the environment, then the default") {
    const auto socket = [](const Invocation& i) { return std::get<SocketAddress>(i.address).path; };
    CHECK(socket(understood({"status"})) == "/run/ghost/agent.sock");
    CHECK(socket(understood({"status", "--socket", "/s"})) == "/s");
    World world;
    world.environment = {{"GHOST_SOCKET", "/env"}};
    CHECK(socket(understood({"status"}, world)) == "/env");
    world.environment = {{"GHOST_SOCKET", "/env"},
                         {"GHOST_AGENT", "https://node"},
                         {"GHOST_CERT", "c"},
                         {"GHOST_KEY", "k"},
                         {"GHOST_CACERT", "ca"}};
    CHECK(socket(understood({"status", "--socket", "/s"}, world)) == "/s");
    const auto remote = std::get<HttpsAddress>(understood({"status", "--cacert", "mine"}, world).address);
    CHECK(remote.host == "node");
    CHECK(remote.port == "9092");
    CHECK(remote.certificate == "c");
    CHECK(remote.key == "k");
    CHECK(remote.ca == "mine");
}

TEST_CASE("an agent's address is https with a host and perhaps a port") {
    const auto remote = [](const char* url) {
        return std::get<HttpsAddress>(understood({"--agent", url, "status"}).address);
    };
    CHECK(remote("https://10.0.0.1:1234/").port == "1234");
    CHECK(remote("https://[::1]:9092").host == "::1");
    CHECK_THAT(usage_fault_of({"--agent", "http://h:1", "status"}), Catch::Contains("use https://"));
    for (const auto* bad : {"h:9092", "https://", "https://h/v1", "https://u@h", "https://h:99x", "ftp://h", "x"}) {
        CAPTURE(bad);
        CHECK_THAT(usage_fault_of({"--agent", bad, "status"}), Catch::Contains("https://"));
    }
    CHECK_THAT(usage_fault_of({"--agent", "https://h", "--cert", "c", "status"}), Catch::Contains("go together"));
    CHECK_THAT(usage_fault_of({"--cert", "c", "--key", "k", "status"}), Catch::Contains("go with --agent"));
}

TEST_CASE("help and the version go to standard output, faults name the command's help") {
    const World world;
    const auto help = world.parse({"vm", "delete", "--help"});
    REQUIRE_FALSE(help);
    CHECK(help.error().code == ExitCode::done);
    CHECK_THAT(help.error().out, Catch::Contains("--yes") && Catch::Contains("status 2"));
    const auto version = world.parse({"--version"});
    REQUIRE_FALSE(version);
    CHECK_THAT(version.error().out, Catch::StartsWith("ghostctl "));
    CHECK(version.error().code == ExitCode::done);
    CHECK_THAT(usage_fault_of({"vm", "stop"}), Catch::Contains("'ghostctl vm stop --help'"));
    CHECK_THAT(usage_fault_of({}), Catch::Contains("'ghostctl --help'"));
    (void)usage_fault_of({"vm"});
}

TEST_CASE("commands that aren't there are refused, not pretended") {
    CHECK_THAT(usage_fault_of({"volume"}), Catch::Contains("no command 'volume'"));
    CHECK_THAT(usage_fault_of({"vm", "migrate", "x"}), Catch::Contains("no command 'migrate'"));
    (void)usage_fault_of({"vm", "list", "surplus"});
    (void)usage_fault_of({"vm", "list", "--colour"});
}
