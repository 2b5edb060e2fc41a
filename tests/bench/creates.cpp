// How many operations a second the agent carries out when nothing but itself takes time: creates in rounds of 20 at a
// time against a hypervisor, files and a database in memory, beside the same journal writes alone.
//
// Usage: bench_creates
#include "component/agent/world.hpp"

#include <boost/asio/co_spawn.hpp>
#include <fmt/core.h>

#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>

#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::tests;

namespace {

using Time = std::chrono::steady_clock;

constexpr int at_a_time = 20;

double seconds_since(Time::time_point start) { return std::chrono::duration<double>(Time::now() - start).count(); }

// Creates and deletes them again; how many operations that were.
int one_round(World& world, int round) {
    std::vector<std::shared_ptr<std::optional<Reply>>> replies;
    const auto name = [round](int i) { return fmt::format("vm-{}-{}", round, i); };
    for (int i = 0; i < at_a_time; ++i)
        replies.push_back(world.send(net::Method::post, "/v1/vms?wait=300", vm_body(name(i), {{"memory_mib", 128}})));
    world.settle();
    for (int i = 0; i < at_a_time; ++i)
        replies.push_back(world.send(net::Method::del, fmt::format("/v1/vms/{}?wait=300", name(i))));
    world.settle();
    for (const auto& reply : replies)
        if (!reply->has_value() || (*reply)->status >= 300) throw std::runtime_error("an operation failed");
    return static_cast<int>(replies.size());
}

void measure(int rounds) {
    World world;
    world.config.resources.cpu_overcommit = 100;
    world.boot();
    world.add_image();
    const auto commits_before = world.store.commits();
    const auto start = Time::now();
    int operations = 0;
    for (int round = 0; round < rounds; ++round) operations += one_round(world, round);
    const auto took = seconds_since(start);
    const auto commits = world.store.commits() - commits_before;
    fmt::print("{} operations, {} at a time: {:.0f} a second, {:.1f} commits each\n", operations, at_a_time,
               operations / took, static_cast<double>(commits) / operations);

    const auto alone = Time::now();
    for (unsigned i = 0; i < commits; ++i) {
        storage::Changes changes;
        changes.emplace_back(storage::FactRow{"bench", std::to_string(i)});
        boost::asio::co_spawn(world.loop, world.store.commit(std::move(changes)),
                              [](const std::exception_ptr&, const base::Result<void>&) {});
        world.settle();
    }
    fmt::print("as many commits alone, one at a time: {:.0f} a second\n", commits / seconds_since(alone));
}

}  // namespace

TEST_CASE("creates and deletes") { measure(50); }
