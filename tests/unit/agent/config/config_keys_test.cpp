#include "tests/unit/agent/config/config_folder.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

using namespace ghost;
using namespace std::chrono_literals;
using test::ConfigFolder;

TEST_CASE_METHOD(ConfigFolder, "the seed's own sections and keys are read") {
    const auto config = sound(R"(
agent:
  name: "node-1"
  api_url: "https://core.example.org"
  heartbeat_interval: 45s
  version: "1.0.0"
libvirt:
  uri: "qemu:///session"
  storage_pool: "vms"
  network: "lab"
  image_cache: "/srv/images"
resources:
  reserved_cpu: 2
  reserved_ram_gb: 4.5
  reserved_disk_gb: 50
grpc:
  listen_addr: "0.0.0.0:9090"
  tls_enabled: true
  tls_cert: "/etc/ghost/certs/agent.crt"
  tls_key: "/etc/ghost/certs/agent.key"
  tls_ca: "/etc/ghost/certs/ca.crt"
logging:
  level: "debug"
  output: "both"
  file: "/srv/log/agent.log"
  format: "text"
  max_size: 50
  max_age: 7
metrics:
  enabled: false
  listen_addr: "127.0.0.1:9191"
  path: "/stats"
health:
  listen_addr: "127.0.0.1:9192"
  path: "/healthz"
)");
    CHECK(config.agent.name == "node-1");
    CHECK(config.agent.api_url == "https://core.example.org");
    CHECK(config.agent.heartbeat_interval == 45s);
    CHECK(config.agent.version == "1.0.0");
    CHECK(config.libvirt.uri == "qemu:///session");
    CHECK(config.libvirt.storage_pool == "vms");
    CHECK(config.libvirt.network == "lab");
    CHECK(config.libvirt.image_cache == "/srv/images");
    CHECK(config.resources.reserved_cpu == 2);
    CHECK(config.resources.reserved_ram_gb == 4.5);
    CHECK(config.resources.reserved_disk_gb == 50);
    CHECK(config.grpc.configured);
    CHECK(config.grpc.listen_addr == "0.0.0.0:9090");
    CHECK(config.api.tls.cert == "/etc/ghost/certs/agent.crt");
    CHECK(config.api.tls.key == "/etc/ghost/certs/agent.key");
    CHECK(config.api.tls.ca == "/etc/ghost/certs/ca.crt");
    CHECK(config.logging.level == base::Level::debug);
    CHECK(config.logging.output == decltype(config.logging.output)::both);
    CHECK(config.logging.file == "/srv/log/agent.log");
    CHECK(config.logging.format == base::LogFormat::text);
    CHECK(config.logging.max_size == 50ULL << 20);
    CHECK(config.logging.max_age == 24h * 7);
    CHECK_FALSE(config.metrics.enabled);
    CHECK(config.metrics.listen_addr == "127.0.0.1:9191");
    CHECK(config.metrics.path == "/stats");
    CHECK(config.health.listen_addr == "127.0.0.1:9192");
    CHECK(config.health.path == "/healthz");
}

TEST_CASE_METHOD(ConfigFolder, "the keys beyond the seed's are read") {
    const auto config = sound(R"(
state_dir: /srv/ghost
libvirt:
  virt_type: qemu
api:
  listen_addr: ["127.0.0.1:9443", "[::1]:9443"]
  socket: /run/other.sock
  socket_group: wheel
  tls_cert: /c
  tls_key: /k
  tls_ca: /a
resources: {cpu_overcommit: 1.5}
defaults: {vcpus: 4, memory_mib: 512, disk_gib: 5}
images:
  cache_max: 10GiB
  max_rate: 20MB
  import_dirs: [/srv/import, /mnt]
  allow_private_addresses: yes
  tls_ca: /etc/ca.pem
core:
  enroll_token: hush
  tls_ca: /core/ca
  tls_cert: /core/cert
  tls_key: /core/key
logging:
  max_size: 200MB
  max_age: 36h
)");
    CHECK(config.libvirt.virt_type == virt::VirtType::qemu);
    CHECK(config.state_dir == "/srv/ghost");
    CHECK(config.api.listen_addr == std::vector<std::string>{"127.0.0.1:9443", "[::1]:9443"});
    CHECK(config.api.socket == "/run/other.sock");
    CHECK(config.api.socket_group == "wheel");
    CHECK(config.api.tls.complete());
    CHECK(config.resources.cpu_overcommit == 1.5);
    CHECK(config.defaults.vcpus == 4);
    CHECK(config.defaults.memory_mib == 512);
    CHECK(config.defaults.disk_gib == 5);
    CHECK(config.images.cache_max == 10ULL << 30);
    CHECK(config.images.max_rate == 20'000'000);
    CHECK(config.images.import_dirs == std::vector<std::string>{"/srv/import", "/mnt"});
    CHECK(config.images.allow_private_addresses);
    CHECK(config.images.tls_ca == "/etc/ca.pem");
    CHECK(config.core.enroll_token == "hush");
    CHECK(config.core.tls.complete());
    CHECK(config.logging.max_size == 200'000'000);
    CHECK(config.logging.max_age == 36h);
}

TEST_CASE_METHOD(ConfigFolder, "one listen address may stand without a list, and an empty list listens nowhere") {
    CHECK(sound("api: {listen_addr: '127.0.0.1:1'}").api.listen_addr == std::vector<std::string>{"127.0.0.1:1"});
    CHECK(sound("api: {listen_addr: []}").api.listen_addr.empty());
    CHECK(sound("api: {listen_addr: ''}").api.listen_addr.empty());
}

TEST_CASE_METHOD(ConfigFolder, "a missing, empty or commented-out file means the defaults") {
    const auto defaults = agent::print_config(agent::Config{});
    for (const auto* yaml : {"", "\n", "# nothing\n", "---\n", "agent:\n", "agent:\n  name:\n", "agent: ~\n"}) {
        CAPTURE(yaml);
        CHECK(agent::print_config(sound(yaml)) == defaults);
    }
    const auto none = agent::load_config({.file = {}, .default_file = path / "none.yaml", .environment = {}});
    REQUIRE(none);
    CHECK(agent::print_config(*none) == defaults);
}

TEST_CASE("printed configuration is JSON that shows every key but no secret") {
    agent::Config config;
    const auto plain = nlohmann::json::parse(agent::print_config(config));
    CHECK(plain["state_dir"] == "/var/lib/ghost");
    CHECK(plain["agent"]["heartbeat_interval"] == "30s");
    CHECK(plain["api"]["listen_addr"] == nlohmann::json{"127.0.0.1:9092"});
    CHECK(plain["logging"]["max_size"] == "100MiB");
    CHECK(plain["logging"]["max_age"] == "28d");
    CHECK(plain["logging"]["level"] == "info");
    CHECK(plain["resources"]["reserved_cpu"] == 1);
    CHECK(plain["core"]["enroll_token"] == "");

    config.core.enroll_token = "hush-hush";
    const auto text = agent::print_config(config);
    CHECK(text.find("hush") == std::string::npos);
    CHECK(nlohmann::json::parse(text)["core"]["enroll_token"] == "(set)");
}

TEST_CASE_METHOD(ConfigFolder, "what is printed reads back as the same configuration") {
    environment = {{"GHOST_LOGGING__MAX_SIZE", "123456789B"},
                   {"GHOST_AGENT__HEARTBEAT_INTERVAL", "2500ms"},
                   {"GHOST_RESOURCES__RESERVED_CPU", "1.25"},
                   {"GHOST_IMAGES__CACHE_MAX", "3GiB"},
                   {"GHOST_API__LISTEN_ADDR", "127.0.0.1:1,[::1]:2"}};
    const auto printed = agent::print_config(sound(""));
    environment.clear();
    CHECK(agent::print_config(sound(printed)) == printed);
}

TEST_CASE("a reload can tell which keys changed, secrets included, without showing them") {
    agent::Config before;
    agent::Config after;
    CHECK(agent::changed_keys(before, after).empty());
    after.logging.level = base::Level::debug;
    after.api.listen_addr.emplace_back("[::1]:9092");
    after.core.enroll_token = "new";
    after.state_dir = "/other";
    CHECK(agent::changed_keys(before, after) ==
          std::vector<std::string>{"state_dir", "api.listen_addr", "logging.level", "core.enroll_token"});
}
