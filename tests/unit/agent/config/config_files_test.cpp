#include "tests/unit/agent/config/config_folder.hpp"

using namespace ghost;
using namespace std::chrono_literals;
using test::ConfigFolder;

TEST_CASE_METHOD(ConfigFolder, "drop-ins beside the file lie over it in the order of their names") {
    write("agent.d/20-second.yaml", "agent: {name: second}\n");
    write("agent.d/10-first.yaml", "agent: {name: first}\nlogging: {level: warn}\n");
    write("agent.d/30.yaml.disabled", "agent: {name: disabled}\n");
    write("agent.d/.hidden.yaml", "agent: {name: hidden}\n");
    const auto config = sound("agent: {name: file, heartbeat_interval: 5s}\nlogging: {level: error, format: text}\n");
    CHECK(config.agent.name == "second");
    CHECK(config.agent.heartbeat_interval == 5s);
    CHECK(config.logging.level == base::Level::warn);
    CHECK(config.logging.format == base::LogFormat::text);
}

TEST_CASE_METHOD(ConfigFolder, "drop-ins are read without the file they stand beside") {
    write("other.d/a.yaml", "agent: {name: dropped}\n");
    const auto config = agent::load_config({.file = {}, .default_file = path / "other.yaml", .environment = {}});
    REQUIRE(config);
    CHECK(config->agent.name == "dropped");
}

TEST_CASE_METHOD(ConfigFolder, "a drop-in replaces a list whole and puts a key back with null") {
    write("agent.d/a.yaml", "api: {listen_addr: ['127.0.0.1:3']}\nagent: {name: null}\n");
    const auto config = sound("api: {listen_addr: ['127.0.0.1:1', '127.0.0.1:2']}\nagent: {name: file}\n");
    CHECK(config.api.listen_addr == std::vector<std::string>{"127.0.0.1:3"});
    CHECK(config.agent.name.empty());
}

TEST_CASE_METHOD(ConfigFolder, "the environment lies over the files") {
    write("agent.d/a.yaml", "agent: {name: dropped}\n");
    environment = {{"GHOST_AGENT__NAME", "env"},
                   {"GHOST_API__LISTEN_ADDR", "127.0.0.1:5,[::1]:6"},
                   {"GHOST_RESOURCES__RESERVED_CPU", "0.5"},
                   {"GHOST_METRICS__ENABLED", "false"},
                   {"GHOST_STATE_DIR", "/srv/state"}};
    const auto config = sound("agent: {name: file}\nstate_dir: /file\n");
    CHECK(config.agent.name == "env");
    CHECK(config.api.listen_addr == std::vector<std::string>{"127.0.0.1:5", "[::1]:6"});
    CHECK(config.resources.reserved_cpu == 0.5);
    CHECK_FALSE(config.metrics.enabled);
    CHECK(config.state_dir == "/srv/state");
}

TEST_CASE_METHOD(ConfigFolder, "an empty variable sets an empty value") {
    environment = {{"GHOST_AGENT__NAME", ""}, {"GHOST_API__LISTEN_ADDR", ""}};
    const auto config = sound("agent: {name: file}\n");
    CHECK(config.agent.name.empty());
    CHECK(config.api.listen_addr.empty());
}

TEST_CASE_METHOD(ConfigFolder, "variables of other programs are left alone") {
    environment = {{"GHOST_SANITIZE", "x"},
                   {"GHOST_NODE__ENV", "production"},
                   {"GHOST__", "x"},
                   {"PATH", "/bin"},
                   {"MY_GHOST_AGENT__NAME", "x"},
                   {"ghost_agent__name", "x"},
                   {"GHOST_DATABASE__HOST", "x"}};
    CHECK(agent::print_config(sound("")) == agent::print_config(agent::Config{}));
}

TEST_CASE_METHOD(ConfigFolder, "a variable of a section of ours that matches no key is a fault, also when misspelt") {
    environment = {{"GHOST_RESOURCES__RESERVED_CPUS", "1"}};
    CHECK(fault("") ==
          "GHOST_RESOURCES__RESERVED_CPUS: resources.reserved_cpus: unknown key; did you mean resources.reserved_cpu?");
    environment = {{"GHOST_LOGING__LEVEL", "info"}};
    CHECK(fault("") == "GHOST_LOGING__LEVEL: loging.level: unknown key; did you mean logging.level?");
    environment = {{"GHOST_API__LISTEN__ADDR", "127.0.0.1:1"}};
    CHECK(fault("") == "GHOST_API__LISTEN__ADDR: api.listen.addr: unknown key; did you mean api.listen_addr?");
    environment = {{"GHOST_API__", "x"}};
    CHECK_FALSE(fault("").empty());
}

TEST_CASE_METHOD(ConfigFolder, "faults name the drop-in or the variable they come from") {
    write("agent.d/10-cpu.yaml", "\nresources:\n  reserved_cpu: two\n");
    environment = {{"GHOST_DEFAULTS__VCPUS", "none"}};
    CHECK(faults("logging: {level: loud}\n") ==
          std::vector<std::string>{
              R"(agent.yaml:1: logging.level: expected one of debug, info, warn, error, got "loud")",
              R"(agent.d/10-cpu.yaml:3: resources.reserved_cpu: expected a number of at least 0, got "two")",
              R"(GHOST_DEFAULTS__VCPUS: defaults.vcpus: expected a whole number from 1 to 1024, got "none")"});
}

TEST_CASE_METHOD(ConfigFolder, "a value that a later layer replaces isn't judged") {
    environment = {{"GHOST_RESOURCES__RESERVED_CPU", "3"}};
    CHECK(sound("resources: {reserved_cpu: two}\n").resources.reserved_cpu == 3);
}

TEST_CASE_METHOD(ConfigFolder, "a named file must be there, and a folder is no file") {
    const auto missing = (path / "none.yaml").string();
    const auto none = agent::load_config({.file = missing, .environment = {}});
    REQUIRE_FALSE(none);
    CHECK(none.error().sentences == std::vector{missing + ": cannot be read: No such file or directory"});

    const auto folder = agent::load_config({.file = path, .environment = {}});
    REQUIRE_FALSE(folder);
    CHECK(folder.error().sentences == std::vector{path.string() + ": cannot be read: Is a directory"});
}

TEST_CASE_METHOD(ConfigFolder, "an enormous file is refused") {
    CHECK_THAT(fault("# " + std::string(2UL << 20, 'x')), Catch::Contains("cannot be read: File too large"));
}
