// The agent.yaml that is installed: every key, each at its default.
#include "agent/config/config_keys.hpp"
#include "tests/unit/agent/config/config_folder.hpp"

#include <nlohmann/json.hpp>

#include <sstream>

using namespace ghost;

namespace {

std::string read(const std::string& name) {
    std::ostringstream text;
    text << std::ifstream{std::string{GHOST_PACKAGING "/"} + name}.rdbuf();
    return text.str();
}
std::string packaged() { return read("agent.yaml"); }

// The packaged file with the comment mark taken off every line that holds a key.
std::string uncommented() {
    std::istringstream in{packaged()};
    std::string out;
    for (std::string line; std::getline(in, line);) {
        const auto start = line.find_first_not_of(' ');
        const bool key = start != std::string::npos && line.compare(start, 1, "#") == 0 &&
                         line.compare(start, 2, "# ") != 0 && line.size() > start + 1;
        if (key) line.erase(start, 1);
        out += line + '\n';
    }
    return out;
}

}  // namespace

TEST_CASE_METHOD(test::ConfigFolder, "the packaged agent.yaml is sound and means the defaults") {
    REQUIRE_FALSE(packaged().empty());
    CHECK(agent::print_config(sound(packaged())) == agent::print_config(agent::Config{}));
}

TEST_CASE_METHOD(test::ConfigFolder, "the packaged agent.yaml with nothing commented out still means the defaults") {
    CHECK(agent::print_config(sound(uncommented())) == agent::print_config(agent::Config{}));
}

TEST_CASE("the packaged agent.yaml names every key there is") {
    const agent::Config config;
    const auto text = uncommented();
    agent::keys::each_key(config, [&text](std::string_view path, const auto&, const auto&) {
        const auto dot = path.find('.');
        const auto section = text.find("\n" + std::string{path.substr(0, dot)} + ":");
        CAPTURE(path);
        REQUIRE(section != std::string::npos);
        if (dot == std::string_view::npos) return;
        auto end = section + 1;
        do end = text.find('\n', end) + 1;
        while (end != 0 && (text[end] == ' ' || text[end] == '#' || text[end] == '\n'));
        CHECK(text.substr(section, end - section).find("\n  " + std::string{path.substr(dot + 1)} + ":") !=
              std::string::npos);
    });
}

TEST_CASE("the manual page names every key there is") {
    const agent::Config config;
    const auto page = read("man/agent.yaml.5");
    agent::keys::each_key(config, [&page](std::string_view path, const auto&, const auto&) {
        CAPTURE(path);
        CHECK(page.find(path) != std::string::npos);
    });
}
