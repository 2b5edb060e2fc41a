#include "tests/unit/agent/config/config_folder.hpp"

using namespace ghost;
using test::ConfigFolder;

TEST_CASE_METHOD(ConfigFolder, "a wrong value is told with file, line, path, what is allowed and what stood there") {
    CHECK(fault("# one\nresources:\n  reserved_ram_gb: 1\n  reserved_cpu: two\n") ==
          R"(agent.yaml:4: resources.reserved_cpu: expected a number of at least 0, got "two")");
    CHECK(fault("resources: {reserved_cpu: -1}") ==
          R"(agent.yaml:1: resources.reserved_cpu: expected a number of at least 0, got "-1")");
    CHECK(fault("resources: {cpu_overcommit: 5000}") ==
          R"(agent.yaml:1: resources.cpu_overcommit: expected a number of at most 1000, got "5000")");
    CHECK(fault("defaults: {vcpus: 0}") ==
          R"(agent.yaml:1: defaults.vcpus: expected a whole number from 1 to 1024, got "0")");
    // No default that a create wouldn't take.
    CHECK(fault("defaults: {memory_mib: 31}") ==
          R"(agent.yaml:1: defaults.memory_mib: expected a whole number from 32 to 67108864, got "31")");
    CHECK(fault("metrics: {enabled: maybe}") ==
          R"(agent.yaml:1: metrics.enabled: expected true or false, got "maybe")");
    CHECK(
        fault("agent: {heartbeat_interval: soon}") ==
        R"(agent.yaml:1: agent.heartbeat_interval: expected a duration such as 30s or 5m, from 1s to 1h, got "soon")");
    CHECK(fault("agent: {heartbeat_interval: 10ms}").find("from 1s to 1h") != std::string::npos);
    CHECK(fault("images: {cache_max: much}") ==
          R"(agent.yaml:1: images.cache_max: expected a size such as 100MB or 10GiB, got "much")");
    CHECK(fault("state_dir: var/lib") == R"(agent.yaml:1: state_dir: expected an absolute path, got "var/lib")");
    CHECK(fault("metrics: {path: metrics}") ==
          R"(agent.yaml:1: metrics.path: expected a path such as /metrics, got "metrics")");
    CHECK(fault("libvirt: {uri: ''}") == R"(agent.yaml:1: libvirt.uri: expected text that isn't empty, got "")");
}

TEST_CASE_METHOD(ConfigFolder, "a listen address is judged wherever it stands") {
    CHECK(
        fault("metrics: {listen_addr: 'localhost:9091'}") ==
        R"(agent.yaml:1: metrics.listen_addr: expected a numeric address and port such as 127.0.0.1:9092, got "localhost:9091")");
    CHECK(
        fault("api:\n  listen_addr:\n    - 127.0.0.1:1\n    - '9092'\n") ==
        R"(agent.yaml:4: api.listen_addr[1]: expected numeric addresses and ports such as 127.0.0.1:9092, or tailscale:9092, got "9092")");
    for (const std::string address : {"tailscale:", "tailscale:0", "tailscale:65536", "tailscale:x", "tailscale"})
        CHECK_THAT(fault("api: {listen_addr: '" + address + "'}"), Catch::Contains("or tailscale:9092, got"));
    for (const std::string section : {"metrics", "health"})
        CHECK_THAT(fault(section + ": {listen_addr: 'tailscale:9091'}"),
                   Catch::Contains("(tailscale:PORT is for api.listen_addr only), got"));
}

TEST_CASE_METHOD(ConfigFolder, "a section or a list where a value should stand is a fault") {
    CHECK(fault("agent:\n  name:\n    first: x\n") == "agent.yaml:2: agent.name: expected text, got a section");
    CHECK(fault("agent:\n  name: [a, b]\n") == "agent.yaml:2: agent.name: expected text, got a list");
    CHECK(fault("images:\n  import_dirs:\n    - {a: b}\n") ==
          "agent.yaml:3: images.import_dirs[0]: expected absolute paths, got a section");
    CHECK(fault("agent: web\n") == "agent.yaml:1: agent: expected a section with keys below it");
    CHECK(fault("agent: [a]\n") == "agent.yaml:1: agent: expected a section with keys below it");
}

TEST_CASE_METHOD(ConfigFolder, "an unknown key is a fault that names the nearest known one or all there are") {
    CHECK(fault("resources:\n  reserved_cpus: 1\n") ==
          "agent.yaml:2: resources.reserved_cpus: unknown key; did you mean resources.reserved_cpu?");
    CHECK(fault("metrics: {port: 1}") ==
          "agent.yaml:1: metrics.port: unknown key; metrics has enabled, listen_addr, path");
    CHECK(fault("loging: {level: info}") == "agent.yaml:1: loging: unknown key; did you mean logging?");
    CHECK_THAT(fault("networking: {}"), Catch::Contains("unknown key; there are agent, api, core"));
    CHECK(fault("agent: {reserved_cpu: 1}") ==
          "agent.yaml:1: agent.reserved_cpu: unknown key; did you mean resources.reserved_cpu?");
    CHECK_THAT(fault("api: {tls: {cert: /c}}"), Catch::Contains("api.tls: unknown key"));
    CHECK_THAT(fault("api.socket: /run/x.sock"), Catch::Contains("write a section's keys below its name"));
    CHECK_THAT(fault("metrics: {port: null}"), Catch::Contains("metrics.port: unknown key"));
}

TEST_CASE_METHOD(ConfigFolder, "every fault is told at once, in the order of the lines") {
    const auto all = faults(
        "resources:\n  reserved_cpu: two\n  reserved_ram: 1\nlogging:\n  level: loud\nstate_dir: here\nagnet: {}\n");
    REQUIRE(all.size() == 5);
    CHECK_THAT(all[0], Catch::StartsWith("agent.yaml:2: resources.reserved_cpu:"));
    CHECK_THAT(all[1], Catch::StartsWith("agent.yaml:3: resources.reserved_ram:"));
    CHECK_THAT(all[2], Catch::StartsWith("agent.yaml:5: logging.level:"));
    CHECK_THAT(all[3], Catch::StartsWith("agent.yaml:6: state_dir:"));
    CHECK_THAT(all[4], Catch::StartsWith("agent.yaml:7: agnet:"));
}

TEST_CASE_METHOD(ConfigFolder, "a key that stands twice is a fault that shows both places") {
    CHECK(fault("agent:\n  name: a\n  version: b\n  name: c\n") ==
          "agent.yaml:4: agent.name: stands twice, first at line 2");
    CHECK(fault("agent:\n  name: a\napi:\n  socket: /s\nagent:\n  name: b\n") ==
          "agent.yaml:5: agent: stands twice, first at line 1");
}

TEST_CASE_METHOD(ConfigFolder, "text that is no YAML is told with its line and column") {
    for (const auto* open : {"'open", "\"open", "'it''s", "\"a\\\"", "'", "\""})
        CHECK(faults("agent:\n  name: " + std::string{open} + "\n  version: 1\n").front().starts_with("agent.yaml:2:"));
    CHECK(faults("agent:\n  name: 'it''s'\n  version: \"\\\"1\\\"\"\n").empty());
    CHECK_THAT(fault("agent:\n\tname: x\n"), Catch::StartsWith("agent.yaml:2: is no valid YAML at column"));
    CHECK_THAT(fault("agent: {name: x"), Catch::Contains("is no valid YAML"));
    CHECK_THAT(fault("just words\n"), Catch::Contains("agent.yaml:1: expected sections"));
    CHECK_THAT(fault("- a\n- b\n"), Catch::Contains("agent.yaml:1: expected sections"));
    CHECK_THAT(fault("agent: {name: a}\n---\nagent: {name: b}\n"), Catch::Contains("more than one document"));
}

TEST_CASE_METHOD(ConfigFolder, "anchors and aliases are refused, so that no file can grow without bound") {
    const auto all = faults("agent: &a {name: x}\ncore: *a\n");
    REQUIRE_FALSE(all.empty());
    CHECK_THAT(all.front(), Catch::Contains("agent.yaml:1: anchors (&name) are not supported"));
}

TEST_CASE_METHOD(ConfigFolder, "odd YAML ends in faults, never in a crash") {
    for (const auto* yaml : {"? [a, b]\n: c\n", "? {a: b}\n: {c: d}\n", "{}: x\n", ": x\n", "~: x\n", "'': x\n",
                             "agent:\n  ? {x: y}\n  : z\n", "? ? a\n: b\n", "*x : y\n", "[[[[]]]]\n",
                             "!!int agent: x\n", "agent: !custom {name: x, name: y}\n", "agent: |\n  text\n",
                             "%YAML 9.9\n---\n", "agent: {name: \"\\u0000\"}\n", "a: b: c\n"}) {
        CAPTURE(yaml);
        CHECK_FALSE(faults(yaml).empty());
    }
    CHECK_FALSE(faults(std::string(5000, '[')).empty());
    CHECK_FALSE(faults(std::string(5000, '{')).empty());
}

TEST_CASE_METHOD(ConfigFolder, "faults without end are told up to a number") {
    const auto told = faults("a: " + std::string(500, '[') + "\n");
    CHECK(told.size() <= 21);
}

TEST_CASE_METHOD(ConfigFolder, "what a fault shows is short and harmless to print") {
    const auto sentence = fault("logging: {level: \"" + std::string(500, 'x') + "\\e[2J\"}");
    CHECK(sentence.size() < 250);
    CHECK_THAT(fault("logging: {level: \"a\\e[2J\\nb\"}"), Catch::EndsWith(R"(got "a\u001b[2J\nb")"));
}

TEST_CASE_METHOD(ConfigFolder, "a secret never stands in a fault") {
    const auto sentence = fault("core: {enroll_token: \"hush\\nhush\"}");
    CHECK_THAT(sentence, Catch::StartsWith("agent.yaml:1: core.enroll_token:"));
    CHECK(sentence.find("hush") == std::string::npos);
}
