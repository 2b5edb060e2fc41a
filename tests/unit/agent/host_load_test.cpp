#include "agent/host/host_load.hpp"

#include "agent/json_text.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::agent;
namespace json = boost::json;

namespace {

constexpr std::string_view thinkpad_ac = "POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=";
constexpr std::string_view usb_c = R"(POWER_SUPPLY_NAME=ucsi-source-psy-USBC000:001
POWER_SUPPLY_TYPE=USB
POWER_SUPPLY_ONLINE=0
POWER_SUPPLY_USB_TYPE=[C] PD PD_PPS
POWER_SUPPLY_VOLTAGE_MIN=5000000
POWER_SUPPLY_SCOPE=System
)";

PowerSupply ac(bool online) {
    return parse_power_supply("Mains\n", std::string{thinkpad_ac} + (online ? "1\n" : "0\n"));
}

PowerSupply battery(const std::string& status, int percent, std::uint64_t energy_full = 0) {
    auto text = "POWER_SUPPLY_NAME=BAT0\nPOWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=" + status +
                "\nPOWER_SUPPLY_PRESENT=1\nPOWER_SUPPLY_TECHNOLOGY=Li-poly\nPOWER_SUPPLY_CYCLE_COUNT=212\n";
    if (energy_full > 0)
        text += "POWER_SUPPLY_ENERGY_FULL_DESIGN=57000000\nPOWER_SUPPLY_ENERGY_FULL=" + std::to_string(energy_full) +
                "\nPOWER_SUPPLY_ENERGY_NOW=1\n";
    text += "POWER_SUPPLY_CAPACITY=" + std::to_string(percent) + "\nPOWER_SUPPLY_CAPACITY_LEVEL=Normal\n";
    return parse_power_supply("Battery\n", text);
}

PowerSupply ups(const std::string& status) {
    return parse_power_supply("UPS\n", "POWER_SUPPLY_NAME=hidups\nPOWER_SUPPLY_TYPE=UPS\nPOWER_SUPPLY_STATUS=" +
                                           status + "\nPOWER_SUPPLY_CAPACITY=64\n");
}

const auto mouse = parse_power_supply("Battery\n", R"(POWER_SUPPLY_NAME=hidpp_battery_0
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_ONLINE=1
POWER_SUPPLY_STATUS=Discharging
POWER_SUPPLY_SCOPE=Device
POWER_SUPPLY_MODEL_NAME=MX Master 3
POWER_SUPPLY_CAPACITY=5
)");

void check_power(const std::vector<PowerSupply>& supplies, PowerSource source, std::optional<unsigned> percent) {
    const auto power = power_of(supplies);
    CHECK(name_of(power.source) == name_of(source));
    CHECK(power.battery_percent == percent);
}

constexpr std::string_view cpu =
    "some avg10=11.95 avg60=41.50 avg300=72.04 total=981962197\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
constexpr std::string_view cpu_before_5_13 = "some avg10=1.53 avg60=0.87 avg300=0.73 total=1088168194\n";
constexpr std::string_view memory =
    "some avg10=0.30 avg60=0.10 avg300=0.00 total=4107\n"
    "full avg10=0.20 avg60=0.05 avg300=0.00 total=3911\n";
constexpr std::string_view io =
    "some avg10=3.25 avg60=1.04 avg300=0.51 total=90312\n"
    "full avg10=2.50 avg60=0.90 avg300=0.44 total=70122\n";

}  // namespace

TEST_CASE("load averages are the first three figures") {
    const auto load = parse_load_averages("0.52 0.58 12.59 1/957 108231\n");
    REQUIRE(load);
    CHECK(load->one == 0.52);
    CHECK(load->five == 0.58);
    CHECK(load->fifteen == 12.59);
    for (const auto* text : {"", "0.52", "0.52 0.58", "a b c", "nan nan nan", "-1 0 0"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_load_averages(text));
    }
}

TEST_CASE("pressure is that of the last ten seconds, also of kernels that know none of the whole CPU") {
    for (const auto text : {cpu, cpu_before_5_13}) {
        const auto pressure = parse_pressure(text, memory, io);
        REQUIRE(pressure);
        CHECK(pressure->cpu_some == (text == cpu ? 11.95 : 1.53));
        CHECK(pressure->memory_some == 0.30);
        CHECK(pressure->memory_full == 0.20);
        CHECK(pressure->io_some == 3.25);
        CHECK(pressure->io_full == 2.50);
    }
}

TEST_CASE("a kernel without pressure figures has none") {
    CHECK_FALSE(parse_pressure("", "", ""));
    CHECK_FALSE(parse_pressure(cpu, memory, ""));
    CHECK_FALSE(parse_pressure(cpu, cpu_before_5_13, io));
    CHECK_FALSE(parse_pressure("some avg60=1.00\n", memory, io));
    CHECK_FALSE(parse_pressure("some avg10=\n", memory, io));
}

TEST_CASE("a laptop runs on its battery once it is unplugged") {
    check_power({ac(true), battery("Charging", 78)}, PowerSource::ac, 78);
    check_power({ac(true), battery("Not charging", 80)}, PowerSource::ac, 80);
    check_power({ac(false), battery("Discharging", 77)}, PowerSource::battery, 77);
    // Its battery hasn't noticed yet.
    check_power({ac(false), battery("Full", 100)}, PowerSource::battery, 100);
    // A weak charger.
    check_power({ac(true), battery("Discharging", 40)}, PowerSource::ac, 40);
}

TEST_CASE("a laptop that is charged by one of its USB ports, or tells of ports alone") {
    const auto idle = parse_power_supply("USB\n", usb_c);
    auto charging = idle;
    charging.online = true;
    check_power({idle, charging, battery("Charging", 50)}, PowerSource::ac, 50);
    check_power({idle, idle, battery("Discharging", 49)}, PowerSource::battery, 49);
    // A port that is online may be feeding a phone.
    check_power({ac(false), charging, battery("Discharging", 48)}, PowerSource::battery, 48);
    check_power({ac(false), charging, battery("Charging", 48)}, PowerSource::ac, 48);
    check_power({charging, battery("Discharging", 48)}, PowerSource::battery, 48);
    check_power({idle, battery("Full", 100)}, PowerSource::ac, 100);
    check_power({idle, battery("Unknown", 100)}, PowerSource::unknown, 100);
}

TEST_CASE("a desktop without a battery is on the mains, whatever battery its mouse has") {
    check_power({}, PowerSource::ac, {});
    check_power({mouse}, PowerSource::ac, {});
    check_power({parse_power_supply("USB\n", usb_c), mouse}, PowerSource::ac, {});
}

TEST_CASE("several batteries count by what they hold") {
    check_power({ac(false), battery("Discharging", 20, 20'000'000), battery("Not charging", 100, 60'000'000)},
                PowerSource::battery, 80);
    // One that doesn't tell.
    check_power({ac(false), battery("Discharging", 20, 20'000'000), battery("Not charging", 100)}, PowerSource::battery,
                60);
    // Firmware that overshoots, and an empty bay.
    check_power({ac(true), battery("Full", 104),
                 parse_power_supply("Battery", "POWER_SUPPLY_PRESENT=0\nPOWER_SUPPLY_CAPACITY=0\n")},
                PowerSource::ac, 100);
}

TEST_CASE("a UPS that discharges feeds the host, though that looks like the mains") {
    check_power({ac(true), ups("Discharging")}, PowerSource::battery, 64);
    check_power({ac(true), ups("Charging")}, PowerSource::ac, 64);
    check_power({ups("Full")}, PowerSource::ac, 64);
    check_power({ac(true), battery("Charging", 30), ups("Discharging")}, PowerSource::battery, 30);
}

TEST_CASE("a supply is known by its type also where its uevent doesn't tell it, and by nothing that is damaged") {
    const auto supply =
        parse_power_supply("Battery\n", "POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_CAPACITY=x\n=\n\nA");
    CHECK(supply.kind == PowerSupply::Kind::battery);
    CHECK(supply.status == "Discharging");
    CHECK_FALSE(supply.percent);
    CHECK(parse_power_supply("USB_PD\n", "").kind == PowerSupply::Kind::usb);
    CHECK(parse_power_supply("", usb_c).kind == PowerSupply::Kind::other);
    check_power({ac(false), battery("Discharging", 50), parse_power_supply("", "")}, PowerSource::battery, 50);
}

TEST_CASE("what the host doesn't tell is null") {
    CHECK(resources_json({}, {}).at("load").is_null());
    CHECK(resources_json({}, {}).at("pressure").is_null());
    CHECK(resources_json({}, {}).at("power") == json::parse(R"({"source":"unknown","battery_percent":null})"));
    const auto told = resources_json(
        {.cpus = {.total = 4, .reserved = 1, .allocated = 2, .free = 10}, .memory_mib = {}, .disk_bytes = {}},
        {.load = LoadAverages{0.5, 1, 2},
         .pressure = parse_pressure(cpu, memory, io),
         .power = {PowerSource::battery, 78}});
    CHECK(told.at("cpus").at("free").to_number<double>() == 10);
    CHECK(json_text(told.at("load")) == R"({"1m":0.5,"5m":1,"15m":2})");
    CHECK(json_text(told.at("pressure")) ==
          R"({"cpu_some":11.95,"memory_some":0.3,"memory_full":0.2,"io_some":3.25,"io_full":2.5})");
    CHECK(json_text(told.at("power")) == R"({"source":"battery","battery_percent":78})");
}
