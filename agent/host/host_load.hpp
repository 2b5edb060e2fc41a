// How busy the host is and what feeds it: load averages, the kernel's pressure
// figures, mains or battery. A host that doesn't tell one of them is fine.
#pragma once

#include "agent/host/capacity.hpp"
#include "base/clock.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

struct LoadAverages {  // runnable and blocked tasks, over so many minutes
    double one = 0;
    double five = 0;
    double fifteen = 0;
};

// In how many percent of the last 10 s some tasks, or all of them at once, waited for it.
struct Pressure {
    double cpu_some = 0;
    double memory_some = 0;
    double memory_full = 0;
    double io_some = 0;
    double io_full = 0;
};

enum class PowerSource : std::uint8_t { unknown, ac, battery };
[[nodiscard]] std::string_view name_of(PowerSource source) noexcept;

struct Power {
    PowerSource source = PowerSource::unknown;
    std::optional<unsigned> battery_percent;  // of all the host's batteries together; without any, of its UPS
};

struct HostLoad {
    std::optional<LoadAverages> load;
    std::optional<Pressure> pressure;
    Power power;
};

// One of /sys/class/power_supply.
struct PowerSupply {
    enum class Kind : std::uint8_t { other, mains, usb, battery, ups };
    Kind kind = Kind::other;
    bool of_host = true;  // false: a mouse's or a headset's, or an empty bay
    bool online = false;  // of mains and usb: it delivers
    std::string status;   // of battery and ups: "Charging", "Discharging", "Not charging", "Full", "Unknown"
    std::optional<double> percent;
    std::optional<double> energy_full;  // uWh
};

// Of the kernel's texts; nullopt: it is none of these.
[[nodiscard]] std::optional<LoadAverages> parse_load_averages(std::string_view loadavg);
// Of /proc/pressure/cpu, memory and io.
[[nodiscard]] std::optional<Pressure> parse_pressure(std::string_view cpu, std::string_view memory,
                                                     std::string_view io);
// Of a supply's files "type" and "uevent".
[[nodiscard]] PowerSupply parse_power_supply(std::string_view type, std::string_view uevent);
// What feeds a host that has these supplies. One without any battery is on the mains.
[[nodiscard]] Power power_of(const std::vector<PowerSupply>& supplies);

// What GET /v1/resources answers and what Ghost Core is told.
[[nodiscard]] boost::json::object resources_json(const Resources& resources, const HostLoad& host);

// Loop thread only.
class LoadWatch {
public:
    LoadWatch(storage::Files& files, base::Clock& clock) : files_(files), clock_(clock) {}

    // Measures now and every few seconds, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();
    // Once.
    [[nodiscard]] boost::asio::awaitable<void> measure();
    [[nodiscard]] const HostLoad& now() const noexcept { return now_; }

    static constexpr std::chrono::seconds interval{10};
    static constexpr std::size_t max_supplies = 16;

private:
    boost::asio::awaitable<std::string> read(std::string path);  // empty: it can't be
    boost::asio::awaitable<Power> read_power();

    storage::Files& files_;
    base::Clock& clock_;
    HostLoad now_;
};

}  // namespace ghost::agent
