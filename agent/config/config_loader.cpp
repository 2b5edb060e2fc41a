#include "agent/config/config_loader.hpp"

#include "agent/config/catalogue_reader.hpp"
#include "agent/config/config_keys.hpp"
#include "agent/config/config_layers.hpp"
#include "agent/config/config_reader.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <system_error>
#include <type_traits>
#include <utility>

namespace ghost::agent {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t largest_file = 1UL << 20;

struct ReadFile {
    std::string text;
    std::error_code error;
};

ReadFile read_file(const fs::path& path) {
    std::error_code ec;
    if (fs::is_directory(path, ec)) return {{}, std::make_error_code(std::errc::is_a_directory)};
    errno = 0;
    std::ifstream in{path, std::ios::binary};
    if (!in) return {{}, {errno == 0 ? EIO : errno, std::system_category()}};
    std::string text(largest_file + 1, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (in.bad()) return {{}, std::make_error_code(std::errc::io_error)};
    text.resize(static_cast<std::size_t>(in.gcount()));
    if (text.size() > largest_file) return {{}, std::make_error_code(std::errc::file_too_large)};
    return {std::move(text), {}};
}

// "agent.d/10-local.yaml" and the like, by name. A folder that isn't there has none.
std::vector<fs::path> drop_ins(const fs::path& folder, std::error_code& error) {
    std::vector<fs::path> found;
    for (fs::directory_iterator it{folder, error}, end; !error && it != end; it.increment(error))
        if (it->path().extension() == ".yaml" && !it->path().filename().string().starts_with('.'))
            found.push_back(it->path());
    if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) error.clear();
    std::ranges::sort(found);
    return found;
}

class Layers {
public:
    explicit Layers(FaultList& faults) : faults_(faults) {}

    void add_file(const fs::path& path, const std::string& source, bool must_exist) {
        const auto number = ++count_;
        auto file = read_file(path);
        if (file.error == std::errc::no_such_file_or_directory && !must_exist) return;
        if (file.error)
            faults_.add({number, path.string(), 0, 0}, "cannot be read: " + file.error.message());
        else
            add(read_yaml(file.text, source, number, faults_));
    }
    void add_folder(const fs::path& folder) {
        std::error_code error;
        const auto name = folder.filename().string();
        for (const auto& path : drop_ins(folder, error)) add_file(path, name + '/' + path.filename().string(), true);
        if (error) faults_.add({++count_, folder.string(), 0, 0}, "cannot be read: " + error.message());
    }
    void add_environment(const std::map<std::string, std::string>& environment) {
        add(read_environment(environment, ++count_, faults_));
    }
    [[nodiscard]] const Layer& merged() const noexcept { return merged_; }

private:
    void add(const Layer& layer) {
        check_known(layer, faults_);
        merged_.merge(layer);
    }

    FaultList& faults_;
    std::size_t count_ = 0;
    Layer merged_;
};

// The catalogue that is built in, and images.d/*.yaml beside the configuration over it.
Catalogue load_catalogue(const fs::path& folder, FaultList& faults) {
    auto merged = read_yaml(std::string{built_in_catalogue()}, "the built-in catalogue", 0, faults);
    std::error_code error;
    std::size_t number = 1000;  // after all of the configuration's
    for (const auto& path : drop_ins(folder, error)) {
        const auto file = read_file(path);
        const auto source = folder.filename().string() + '/' + path.filename().string();
        if (file.error)
            faults.add({++number, source, 0, 0}, "cannot be read: " + file.error.message());
        else
            merged.merge(read_yaml(file.text, source, ++number, faults));
    }
    if (error) faults.add({++number, folder.string(), 0, 0}, "cannot be read: " + error.message());
    const auto find_keyring = [&folder](const std::string& name) -> std::optional<std::string> {
        if (name.find('/') != std::string::npos && !name.starts_with('/')) return std::nullopt;
        auto file = read_file(folder / name);
        if (!file.error && !file.text.empty()) return std::move(file.text);
        if (name == "ubuntu-cloudimage.gpg") return std::string{ubuntu_keyring()};
        return std::nullopt;
    };
    utsname machine{};
    return read_catalogue(merged, ::uname(&machine) == 0 ? machine.machine : "", find_keyring, faults);
}

// A member as JSON shows it, in the form the file takes.
struct Shown {
    bool secrets = false;  // show them too

    nlohmann::ordered_json operator()(const auto& member, const auto& /*rule*/) const { return member; }
    nlohmann::ordered_json operator()(const std::string& member, const keys::Text& rule) const {
        return rule.secret && !secrets && !member.empty() ? "(set)" : member;
    }
    nlohmann::ordered_json operator()(double member, const keys::Number& /*rule*/) const {
        if (member == std::floor(member) && std::abs(member) < 1e15) return static_cast<std::int64_t>(member);
        return member;
    }
    nlohmann::ordered_json operator()(std::uint64_t member, const keys::Size& /*rule*/) const {
        if (member == 0) return 0;
        return member % (1ULL << 20) == 0 ? fmt::format("{}MiB", member >> 20) : fmt::format("{}B", member);
    }
    template <class D>
    nlohmann::ordered_json operator()(const D& member, const keys::Span& /*rule*/) const {
        const auto ms = std::chrono::milliseconds{member}.count();
        if (ms % 86'400'000 == 0) return fmt::format("{}d", ms / 86'400'000);
        return ms % 1000 == 0 ? fmt::format("{}s", ms / 1000) : fmt::format("{}ms", ms);
    }
    template <class E, std::size_t n>
    nlohmann::ordered_json operator()(const E& member, const keys::Choice<E, n>& rule) const {
        for (const auto& [word, meaning] : rule.words)
            if (meaning == member) return word;
        return nullptr;
    }
};

// Every key's path and value, in the order of the list.
std::vector<std::pair<std::string, nlohmann::ordered_json>> shown(const Config& config, Shown show) {
    std::vector<std::pair<std::string, nlohmann::ordered_json>> all;
    keys::each_key(config, [&](std::string_view path, const auto& member, const auto& rule) {
        all.emplace_back(path, show(member, rule));
    });
    return all;
}

}  // namespace

std::expected<Config, ConfigFaults> load_config(const ConfigSources& sources) {
    FaultList faults;
    Layers layers{faults};
    const auto file = sources.file.value_or(sources.default_file);
    layers.add_file(file, file.filename().string(), sources.file.has_value());
    layers.add_folder(fs::path{file}.replace_extension(".d"));
    layers.add_environment(sources.environment);

    auto config = read_typed(layers.merged(), faults);
    config.images.catalogue = load_catalogue(fs::path{file}.parent_path() / "images.d", faults);
    // Rules across keys would only repeat what is wrong with the keys themselves.
    if (faults.empty()) settle(config, layers.merged(), faults);
    if (faults.empty() && sources.check_files) check_certificate_files(config, layers.merged(), faults);
    if (!faults.empty()) return std::unexpected{ConfigFaults{faults.sentences()}};
    return config;
}

std::map<std::string, std::string> process_environment() {
    std::map<std::string, std::string> all;
    for (char** entry = ::environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text{*entry};
        const auto equals = text.find('=');
        if (equals != std::string_view::npos) all.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
    return all;
}

std::string print_config(const Config& config) {
    nlohmann::ordered_json document = nlohmann::ordered_json::object();
    for (auto& [path, value] : shown(config, Shown{})) {
        const auto dot = path.find('.');
        if (dot == std::string::npos)
            document[path] = std::move(value);
        else
            document[path.substr(0, dot)][path.substr(dot + 1)] = std::move(value);
    }
    return document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::vector<std::string> changed_keys(const Config& before, const Config& after) {
    const auto old = shown(before, Shown{.secrets = true});
    const auto now = shown(after, Shown{.secrets = true});
    std::vector<std::string> changed;
    for (std::size_t i = 0; i < old.size(); ++i)
        if (old[i] != now[i]) changed.push_back(old[i].first);
    return changed;
}

}  // namespace ghost::agent
