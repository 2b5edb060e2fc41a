#include "component/agent/world.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;
using namespace std::chrono_literals;
namespace json = boost::json;

namespace {

void put_laptop(World& world, const std::string& online, const std::string& status) {
    const std::string supplies = "/sys/class/power_supply/";
    world.files.put(supplies + "AC/type", "Mains\n");
    world.files.put(supplies + "AC/uevent", "POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_ONLINE=" + online + "\n");
    world.files.put(supplies + "BAT0/type", "Battery\n");
    world.files.put(supplies + "BAT0/uevent", "POWER_SUPPLY_STATUS=" + status + "\nPOWER_SUPPLY_CAPACITY=78\n");
}

void put_pressure(World& world) {
    const std::string text =
        "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\n"
        "full avg10=0.50 avg60=0.00 avg300=0.00 total=1\n";
    for (const auto* what : {"cpu", "memory", "io"}) world.files.put(std::string{"/proc/pressure/"} + what, text);
}

std::string metrics(World& world) {
    auto request = net::Request{};
    request.method = net::Method::get;
    request.path = "/metrics";
    std::string text;
    boost::asio::co_spawn(world.loop,
                          world.server->serve(net::parse_tcp_endpoint("127.0.0.1:9091").value(), std::move(request)),
                          [&text](const std::exception_ptr& e, const net::Response& r) {
                              if (e) std::rethrow_exception(e);
                              text = r.body;
                          });
    world.settle();
    return text;
}

}  // namespace

TEST_CASE("resources tell how busy the host is and what feeds it, and follow it") {
    World world;
    world.files.put("/proc/loadavg", "0.52 0.58 0.59 1/957 108231\n");
    put_pressure(world);
    put_laptop(world, "1", "Charging");
    world.boot();
    const auto before = world.get("/v1/resources");
    CHECK(before.at("/load") == json::parse(R"({"1m":0.52,"5m":0.58,"15m":0.59})"));
    CHECK(before.at("/pressure/cpu_some") == 1.5);
    CHECK(before.at("/pressure/io_full") == 0.5);
    CHECK(before.at("/power") == json::parse(R"({"source":"ac","battery_percent":78})"));
    CHECK(before.at("/memory_mib/total").to_number<int>() > 0);

    put_laptop(world, "0", "Discharging");
    world.files.put("/proc/loadavg", "7.00 0.58 0.59 1/957 108231\n");
    world.pass(10s);
    const auto after = world.get("/v1/resources");
    CHECK(after.at("/load/1m").to_number<double>() == 7);
    CHECK(after.text("/power/source") == "battery");
}

TEST_CASE("a host that tells nothing of its load has resources all the same") {
    World world;
    world.boot();
    const auto resources = world.get("/v1/resources");
    CHECK(resources.status == 200);
    CHECK(resources.at("/load").is_null());
    CHECK(resources.at("/pressure").is_null());
    CHECK(resources.at("/power") == json::parse(R"({"source":"unknown","battery_percent":null})"));
}

TEST_CASE("metrics count heartbeats, and carry no age of the last one while there is none") {
    agent::Metrics metrics{"1"};
    agent::Metrics::Now now;
    now.core = agent::Metrics::Now::Core{.beat_succeeded = true, .beat_age = 7.5, .round_trip = 0.25, .beats = 3};
    now.core->beats_failed = 1;
    CHECK_THAT(metrics.expose(now), Catch::Contains("\nghost_agent_heartbeat_age_seconds 7.5\n"));
    now.core->beats = 5;
    now.core->beat_age = {};
    const auto later = metrics.expose(now);
    CHECK_THAT(later, Catch::Contains("# TYPE ghost_agent_heartbeats_total counter\n") &&
                          Catch::Contains("ghost_agent_heartbeats_total{outcome=\"answered\"} 5\n") &&
                          Catch::Contains("ghost_agent_heartbeats_total{outcome=\"failed\"} 1\n"));
    CHECK_THAT(later, !Catch::Contains("\nghost_agent_heartbeat_age_seconds ") &&
                          !Catch::Contains("\nghost_agent_heartbeat_round_trip_seconds "));
}

TEST_CASE("metrics carry load, pressure and the battery, and no figure that the host doesn't tell") {
    World world;
    world.config.metrics.enabled = true;
    world.boot();
    const auto empty = metrics(world);
    CHECK_THAT(empty, Catch::Contains("ghost_agent_info{"));
    CHECK_THAT(empty, !Catch::Contains("\nghost_agent_host_load1 ") && !Catch::Contains("ghost_agent_host_pressure{") &&
                          !Catch::Contains("\nghost_agent_on_battery "));
    world.files.put("/proc/loadavg", "0.5 0.58 0.59 1/957 108231\n");
    put_pressure(world);
    put_laptop(world, "0", "Discharging");
    world.pass(10s);
    const auto told = metrics(world);
    CHECK_THAT(told,
               Catch::Contains("\nghost_agent_host_load1 0.5\n") && Catch::Contains("\nghost_agent_on_battery 1\n"));
    CHECK_THAT(told, Catch::Contains("ghost_agent_host_pressure{kind=\"some\",resource=\"cpu\"} 1.5\n") &&
                         Catch::Contains("ghost_agent_host_pressure{kind=\"full\",resource=\"io\"} 0.5\n"));
    put_laptop(world, "1", "Charging");
    world.pass(10s);
    CHECK_THAT(metrics(world), Catch::Contains("\nghost_agent_on_battery 0\n"));

    for (const auto* const file :
         {"/proc/loadavg", "/proc/pressure/io", "/sys/class/power_supply/AC/type", "/sys/class/power_supply/BAT0/type"})
        world.files.put(file, "");
    world.pass(10s);
    CHECK(world.get("/v1/resources").text("/power/source") == "ac");
    world.files.put("/sys/class/power_supply/BAT0/type", "Battery\n");
    world.files.put("/sys/class/power_supply/BAT0/uevent", "POWER_SUPPLY_STATUS=Unknown\n");
    world.pass(10s);
    CHECK(world.get("/v1/resources").text("/power/source") == "unknown");
    CHECK_THAT(metrics(world), !Catch::Contains("\nghost_agent_host_load1 ") &&
                                   !Catch::Contains("ghost_agent_host_pressure{") &&
                                   !Catch::Contains("\nghost_agent_on_battery "));
    world.files.put("/proc/loadavg", "0.7 0.58 0.59 1/957 108231\n");
    world.pass(10s);
    CHECK_THAT(metrics(world), Catch::Contains("\nghost_agent_host_load1 0.7\n"));
}
