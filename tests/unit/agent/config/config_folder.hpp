// A folder of configuration files for one test.
#pragma once

#include "agent/config/config_loader.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <system_error>
#include <vector>

namespace ghost::test {

struct ConfigFolder {
    std::filesystem::path path = make();
    std::map<std::string, std::string> environment;

    ConfigFolder() = default;
    ~ConfigFolder() { std::filesystem::remove_all(path); }
    ConfigFolder(const ConfigFolder&) = delete;
    ConfigFolder& operator=(const ConfigFolder&) = delete;

    static std::filesystem::path make() {
        auto name = (std::filesystem::temp_directory_path() / "ghost-config-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw std::system_error{errno, std::system_category(), "mkdtemp"};
        return name;
    }

    std::string write(const std::string& name, const std::string& text) const {
        const auto file = path / name;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream{file, std::ios::binary} << text;
        return file.string();
    }

    [[nodiscard]] auto load(const std::string& yaml, bool check_files = false) const {
        return agent::load_config({.file = write("agent.yaml", yaml),
                                   .default_file = path / "unused.yaml",
                                   .environment = environment,
                                   .check_files = check_files});
    }
    [[nodiscard]] agent::Config sound(const std::string& yaml) const {
        auto config = load(yaml);
        if (!config)
            for (const auto& sentence : config.error().sentences) UNSCOPED_INFO(sentence);
        REQUIRE(config);
        return *config;
    }
    // Every fault, in order; none when it is sound.
    [[nodiscard]] std::vector<std::string> faults(const std::string& yaml, bool check_files = false) const {
        const auto config = load(yaml, check_files);
        return config ? std::vector<std::string>{} : config.error().sentences;
    }
    // The only fault.
    [[nodiscard]] std::string fault(const std::string& yaml, bool check_files = false) const {
        const auto all = faults(yaml, check_files);
        for (const auto& sentence : all) UNSCOPED_INFO(sentence);
        CHECK(all.size() == 1);
        return all.empty() ? "" : all.front();
    }
};

}  // namespace ghost::test
