#include "agent/host/host_load.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

constexpr std::string_view supplies_directory = "/sys/class/power_supply";
constexpr std::size_t most_bytes = 16 * 1024;  // of one file; sysfs gives no more than a page

// The number at the front of `text`.
std::optional<double> number_in(std::string_view text) {
    double value = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
    if (read.ec != std::errc{} || !std::isfinite(value) || value < 0) return std::nullopt;
    return value;
}

// The first word of `text`, which loses it and the blanks around it.
std::string_view take_word(std::string_view& text) {
    constexpr std::string_view blanks = " \t\n";
    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    const auto word = text.substr(0, text.find_first_of(blanks));
    text.remove_prefix(word.size());
    return word;
}

// Calls `use` with each line, without its end.
template <class Use>
void each_line(std::string_view text, Use use) {
    while (!text.empty()) {
        const auto line = text.substr(0, text.find('\n'));
        use(line);
        text.remove_prefix(std::min(line.size() + 1, text.size()));
    }
}

// "some avg10=1.53 avg60=0.87 avg300=0.73 total=1088168194": the first figure of the line that begins with `which`.
std::optional<double> avg10_of(std::string_view text, std::string_view which) {
    std::optional<double> found;
    each_line(text, [&](std::string_view line) {
        constexpr std::string_view key = "avg10=";
        if (take_word(line) != which) return;
        const auto word = take_word(line);
        if (word.starts_with(key)) found = number_in(word.substr(key.size()));
    });
    return found;
}

PowerSupply::Kind kind_named(std::string_view type) {
    if (type == "Mains") return PowerSupply::Kind::mains;
    if (type.starts_with("USB") || type == "Wireless") return PowerSupply::Kind::usb;
    if (type == "Battery") return PowerSupply::Kind::battery;
    return type == "UPS" ? PowerSupply::Kind::ups : PowerSupply::Kind::other;
}

// Each counts by what it holds, or, when one doesn't tell that, as much as the others.
std::optional<unsigned> percent_of(const std::vector<PowerSupply>& supplies, PowerSupply::Kind kind) {
    std::vector<PowerSupply> known;
    std::ranges::copy_if(supplies, std::back_inserter(known), [kind](const PowerSupply& supply) {
        return supply.of_host && supply.kind == kind && supply.percent;
    });
    const bool weighed = std::ranges::all_of(
        known, [](const PowerSupply& supply) { return supply.energy_full && *supply.energy_full > 0; });
    double sum = 0;
    double weights = 0;
    for (const auto& supply : known) {
        const auto weight = weighed ? supply.energy_full.value_or(1) : 1;
        sum += weight * *supply.percent;
        weights += weight;
    }
    if (weights <= 0) return std::nullopt;
    return static_cast<unsigned>(std::lround(std::min(sum / weights, 100.0)));
}

PowerSource source_of(const std::vector<PowerSupply>& supplies) {
    using Kind = PowerSupply::Kind;
    const auto any = [&supplies](auto holds) {
        return std::ranges::any_of(supplies, [&](const PowerSupply& s) { return s.of_host && holds(s); });
    };
    const auto stores = [](const PowerSupply& s) { return s.kind == Kind::battery || s.kind == Kind::ups; };
    if (!any(stores)) return PowerSource::ac;
    // What a UPS delivers looks like the mains.
    if (any([](const PowerSupply& s) { return s.kind == Kind::ups && s.status == "Discharging"; }))
        return PowerSource::battery;
    const bool mains = any([](const PowerSupply& s) { return s.kind == Kind::mains; });
    const auto online = [&any](Kind kind) {
        return any([kind](const PowerSupply& s) { return s.kind == kind && s.online; });
    };
    const bool discharging =
        any([](const PowerSupply& s) { return s.kind == Kind::battery && s.status == "Discharging"; });
    if (online(Kind::mains)) return PowerSource::ac;
    // A port that is online may be one that a phone is charged by.
    if (discharging) return PowerSource::battery;
    if (online(Kind::usb)) return PowerSource::ac;
    // A battery says so a little later. A USB port that delivers nothing says nothing of another plug.
    if (mains && any([](const PowerSupply& s) { return s.kind == Kind::battery; })) return PowerSource::battery;
    if (any([&](const PowerSupply& s) {
            return stores(s) && (s.status == "Charging" || s.status == "Full" || s.status == "Not charging");
        }))
        return PowerSource::ac;
    return PowerSource::unknown;
}

json::value load_json(const std::optional<LoadAverages>& load) {
    if (!load) return nullptr;
    return json::object{{"1m", load->one}, {"5m", load->five}, {"15m", load->fifteen}};
}

json::value pressure_json(const std::optional<Pressure>& pressure) {
    if (!pressure) return nullptr;
    return json::object{{"cpu_some", pressure->cpu_some},
                        {"memory_some", pressure->memory_some},
                        {"memory_full", pressure->memory_full},
                        {"io_some", pressure->io_some},
                        {"io_full", pressure->io_full}};
}

json::object power_json(const Power& power) {
    json::object out{{"source", name_of(power.source)}, {"battery_percent", nullptr}};
    if (power.battery_percent) out["battery_percent"] = *power.battery_percent;
    return out;
}

}  // namespace

std::string_view name_of(PowerSource source) noexcept {
    switch (source) {
        case PowerSource::ac: return "ac";
        case PowerSource::battery: return "battery";
        case PowerSource::unknown: break;
    }
    return "unknown";
}

std::optional<LoadAverages> parse_load_averages(std::string_view loadavg) {
    const auto one = number_in(take_word(loadavg));
    const auto five = number_in(take_word(loadavg));
    const auto fifteen = number_in(take_word(loadavg));
    if (!one || !five || !fifteen) return std::nullopt;
    return LoadAverages{*one, *five, *fifteen};
}

std::optional<Pressure> parse_pressure(std::string_view cpu, std::string_view memory, std::string_view io) {
    const auto cpu_some = avg10_of(cpu, "some");
    const auto memory_some = avg10_of(memory, "some");
    const auto memory_full = avg10_of(memory, "full");
    const auto io_some = avg10_of(io, "some");
    const auto io_full = avg10_of(io, "full");
    if (!cpu_some || !memory_some || !memory_full || !io_some || !io_full) return std::nullopt;
    return Pressure{*cpu_some, *memory_some, *memory_full, *io_some, *io_full};
}

PowerSupply parse_power_supply(std::string_view type, std::string_view uevent) {
    PowerSupply supply;
    supply.kind = kind_named(take_word(type));
    each_line(uevent, [&supply](std::string_view line) {
        constexpr std::string_view prefix = "POWER_SUPPLY_";
        const auto equals = line.find('=');
        if (!line.starts_with(prefix) || equals == std::string_view::npos) return;
        const auto key = line.substr(prefix.size(), equals - prefix.size());
        const auto value = line.substr(equals + 1);
        if (key == "ONLINE") supply.online = number_in(value).value_or(0) > 0;
        if (key == "STATUS") supply.status = value;
        if (key == "CAPACITY") supply.percent = number_in(value);
        if (key == "ENERGY_FULL") supply.energy_full = number_in(value);
        if ((key == "SCOPE" && value == "Device") || (key == "PRESENT" && value == "0")) supply.of_host = false;
    });
    return supply;
}

Power power_of(const std::vector<PowerSupply>& supplies) {
    const auto of_batteries = percent_of(supplies, PowerSupply::Kind::battery);
    return {source_of(supplies), of_batteries ? of_batteries : percent_of(supplies, PowerSupply::Kind::ups)};
}

json::object resources_json(const Resources& resources, const HostLoad& host) {
    auto out = to_json(resources);
    out["load"] = load_json(host.load);
    out["pressure"] = pressure_json(host.pressure);
    out["power"] = power_json(host.power);
    return out;
}

asio::awaitable<std::string> LoadWatch::read(std::string path) {
    auto bytes = co_await files_.read(std::move(path), most_bytes);
    co_return bytes ? std::move(*bytes) : std::string{};
}

asio::awaitable<Power> LoadWatch::read_power() {
    const std::string directory{supplies_directory};
    const auto names = co_await files_.list(directory);
    if (!names) co_return Power{};
    std::vector<PowerSupply> supplies;
    for (const auto& name : *names) {
        if (supplies.size() == max_supplies) break;
        const auto type = co_await read(directory + "/" + name + "/type");
        const auto uevent = co_await read(directory + "/" + name + "/uevent");
        supplies.push_back(parse_power_supply(type, uevent));
    }
    co_return power_of(supplies);
}

asio::awaitable<void> LoadWatch::measure() {
    HostLoad next;
    next.load = parse_load_averages(co_await read("/proc/loadavg"));
    const auto cpu = co_await read("/proc/pressure/cpu");
    const auto memory = co_await read("/proc/pressure/memory");
    const auto io = co_await read("/proc/pressure/io");
    next.pressure = parse_pressure(cpu, memory, io);
    next.power = co_await read_power();
    now_ = next;
}

asio::awaitable<void> LoadWatch::run() {
    do {
        co_await measure();
    } while (co_await clock_.sleep_for(interval));
}

}  // namespace ghost::agent
