#include "fakes/awaiting.hpp"
#include "fakes/crash_disk.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"
#include "storage/sqlite.hpp"
#include "storage/sqlite_store.hpp"

#include <boost/asio/co_spawn.hpp>
#include <catch2/catch.hpp>
#include <sqlite3.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

using namespace ghost;

namespace {

constexpr const char* path = "/state/state.db";

// A machine that is switched on and off; what was told as done must be there.
struct Machine {
    explicit Machine(std::uint64_t seed, bool exclusive_database = false)
        : random(seed), exclusive(exclusive_database) {}

    fakes::VirtualClock clock;
    fakes::CrashDisk disk{clock};
    fakes::SeededRandom random;
    base::Log log;
    bool exclusive;
    std::map<std::string, std::string> told;   // VMs as the last commit that succeeded left them
    std::map<std::string, std::string> tried;  // and as they would be if what was under way had also been done
    unsigned numbered = 0;

    [[nodiscard]] storage::StoreOptions options() {
        return {.clock = &clock, .files = &disk, .exclusive = exclusive, .inline_jobs = true};
    }

    // Nothing when the power failed before it was open.
    std::unique_ptr<storage::StateStore> live() {
        fakes::TestLoop loop;
        auto opened = storage::open_sqlite_store(path, log, options());
        if (!opened) {
            if (!disk.stopped()) FAIL(opened.error().detail);
            return nullptr;
        }
        auto& store = **opened;
        check(loop, store);
        for (auto left = random.next() % 40; left > 0 && !disk.stopped(); --left) {
            if (random.next() % 15 == 0) {
                static_cast<void>(loop.await(store.back_up()));
            } else {
                change(loop, store);
            }
        }
        if (random.next() % 4 == 0) loop.await(store.close());
        return std::move(*opened);
    }

    void change(fakes::TestLoop& loop, storage::StateStore& store) {
        storage::Changes changes;
        tried = told;
        for (auto rows = 1 + random.next() % 3; rows > 0; --rows) {
            const auto id = std::to_string(random.next() % 30);
            if (random.next() % 4 == 0) {
                tried.erase(id);
                changes.emplace_back(storage::EraseVm{id});
            } else {
                tried[id] = std::to_string(++numbered) + std::string(random.next() % 3000, 'x');
                changes.emplace_back(storage::VmRow{id, id, tried[id]});
            }
        }
        if (loop.await(store.commit(std::move(changes)))) told = tried;
    }

    void check(fakes::TestLoop& loop, storage::StateStore& store) {
        if (!store.health().loss.empty()) FAIL(store.health().loss);
        const auto state = loop.await(store.load());
        if (!state) {
            if (!disk.stopped()) FAIL(state.error().detail);
            return;
        }
        std::map<std::string, std::string> found;
        for (const auto& vm : state->vms) found[vm.id] = vm.document;
        // What was under way may have been done: whole or not at all.
        if (found != told && found != tried) FAIL("committed rows are missing, or others have appeared");
        told = tried = std::move(found);
    }

    // The file itself, without its store.
    void check_file() {
        auto database = storage::sqlite::Database::open(path, {.vfs = disk.vfs()});
        REQUIRE(database);
        REQUIRE(database->execute("PRAGMA locking_mode = EXCLUSIVE"));
        CHECK(database->first_text("PRAGMA quick_check") == "ok");
        if (disk.file(std::string{path} + ".copy")) {
            auto copy = storage::sqlite::Database::open(std::string{path} + ".copy", {disk.vfs(), true});
            REQUIRE(copy);
            CHECK(copy->first_text("PRAGMA quick_check") == "ok");
        }
    }
};

}  // namespace

TEST_CASE("what was committed survives power loss, and nothing else appears") {
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
        INFO("seed " << seed);
        Machine machine{seed, seed % 4 == 0};
        for (int life = 0; life < 4; ++life) {
            if (machine.random.next() % 8 != 0)
                machine.disk.stop_at(1 + static_cast<unsigned>(machine.random.next() % 400));
            const auto left_open = machine.live();
            if (machine.random.next() % 4 == 0)
                machine.disk.kill();
            else
                machine.disk.crash(machine.random);
            if (machine.random.next() % 4 == 0) machine.check_file();
        }
        auto left_open = machine.live();
        machine.disk.crash(machine.random);
        left_open.reset();
        machine.check_file();
    }
}

TEST_CASE("a store on one thread repeats: the same seed leaves the same rows") {
    const auto run = [](std::uint64_t seed) {
        Machine machine{seed};
        for (int life = 0; life < 3; ++life) {
            machine.disk.stop_at(1 + static_cast<unsigned>(machine.random.next() % 200));
            const auto left_open = machine.live();
            machine.disk.crash(machine.random);
        }
        machine.live().reset();
        return std::pair{machine.told, machine.disk.changes()};
    };
    for (std::uint64_t seed = 1; seed <= 5; ++seed) CHECK(run(seed) == run(seed));
}

TEST_CASE("kill -9 loses nothing that was written") {
    Machine machine{1};
    fakes::TestLoop loop;
    for (int life = 0; life < 20; ++life) {
        auto store = storage::open_sqlite_store(path, machine.log, machine.options()).value();
        machine.check(loop, *store);
        for (int i = 0; i < 5; ++i) machine.change(loop, *store);
        machine.disk.kill();
        store.reset();
    }
    auto store = storage::open_sqlite_store(path, machine.log, machine.options()).value();
    machine.check(loop, *store);
}

TEST_CASE("commits that gather behind one another share one sync, and each stands for itself") {
    Machine machine{1};
    fakes::TestLoop loop;
    auto store = storage::open_sqlite_store(path, machine.log, machine.options()).value();
    REQUIRE(loop.await(store->commit({storage::VmRow{"0", "taken", "{}"}})));
    const auto before = machine.disk.changes();
    std::map<int, base::Result<void>> done;
    for (int i = 1; i <= 20; ++i) {
        const auto id = std::to_string(i);
        storage::Changes changes{storage::ImageRow{id, "{}"}, storage::VmRow{id, i == 7 ? "taken" : id, "{}"}};
        boost::asio::co_spawn(loop.context, store->commit(std::move(changes)),
                              [&done, i](std::exception_ptr, base::Result<void> result) { done[i] = result; });
    }
    loop.context.restart();
    loop.context.poll();
    REQUIRE(done.size() == 20);
    for (const auto& [i, result] : done) CHECK(result.has_value() == (i != 7));
    CHECK(done[7].error().code == base::Errc::already_exists);
    const auto state = loop.await(store->load());
    CHECK(state->vms.size() == 20);
    CHECK(state->images.size() == 19);
    // Each of its own would have synced twenty times, and written its pages each time.
    CHECK(machine.disk.changes() - before < 20);
    machine.disk.crash(machine.random);
    store.reset();
    store = storage::open_sqlite_store(path, machine.log, machine.options()).value();
    CHECK(loop.await(store->load())->vms.size() == 20);
}

TEST_CASE("commits that wait together fail together when the disk does, and the store goes on after it") {
    Machine machine{1};
    fakes::TestLoop loop;
    auto store = storage::open_sqlite_store(path, machine.log, machine.options()).value();
    const auto put = [&](int from) {
        std::size_t good = 0;
        std::size_t ended = 0;
        for (int i = from; i < from + 5; ++i) {
            storage::Changes changes{storage::ImageRow{std::to_string(i), "{}"}};
            boost::asio::co_spawn(loop.context, store->commit(std::move(changes)),
                                  [&](std::exception_ptr, base::Result<void> result) {
                                      ++ended;
                                      good += result ? 1U : 0U;
                                  });
        }
        loop.context.restart();
        loop.context.poll();
        CHECK(ended == 5);
        return good;
    };
    CHECK(put(0) == 5);
    SECTION("full") { machine.disk.fail_writes(SQLITE_FULL); }
    SECTION("broken") { machine.disk.fail_writes(SQLITE_IOERR_WRITE); }
    SECTION("not synced") { machine.disk.fail_syncs(SQLITE_IOERR_FSYNC); }
    CHECK(put(5) == 0);
    CHECK_FALSE(store->health().fault.empty());
    CHECK(loop.await(store->load())->images.size() == 5);
    machine.disk.fail_writes(0);
    machine.disk.fail_syncs(0);
    CHECK(put(10) == 5);
    CHECK(store->health().fault.empty());
    CHECK(loop.await(store->load())->images.size() == 10);
}

TEST_CASE("power loss while a lost database is made anew: it is made anew again, with what was safe") {
    for (unsigned at = 1; at < 200; ++at) {
        INFO("at change " << at);
        Machine machine{at};
        fakes::TestLoop loop;
        auto store = storage::open_sqlite_store(path, machine.log, machine.options()).value();
        REQUIRE(loop.await(store->commit({storage::ImageRow{"debian", "{}"}, storage::VmRow{"1", "web", "{}"}})));
        REQUIRE(loop.await(store->back_up()));
        loop.await(store->close());
        machine.disk.put(path, std::string(8192, 'x'));
        machine.disk.stop_at(at);
        const auto tried = storage::open_sqlite_store(path, machine.log, machine.options());
        const bool made = tried && !machine.disk.stopped();
        machine.disk.crash(machine.random);
        store = storage::open_sqlite_store(path, machine.log, machine.options()).value();
        CHECK(loop.await(store->load())->images.size() == 1);
        CHECK(loop.await(store->load())->vms.empty());
        if (made) break;
    }
}

TEST_CASE("what a killed agent had written and not synced is synced before it is told") {
    fakes::VirtualClock clock;
    fakes::CrashDisk disk{clock};
    base::Log log;
    const storage::StoreOptions options{.clock = &clock, .files = &disk, .exclusive = true, .inline_jobs = true};
    fakes::TestLoop loop;
    const auto count = [&](storage::StateStore& store) {
        const auto state = loop.await(store.load());
        REQUIRE(state);
        return state->vms.size();
    };
    for (std::uint64_t seed = 1; seed < 20; ++seed) {
        auto store = storage::open_sqlite_store(path, log, options);
        REQUIRE(store);
        disk.fail_syncs(SQLITE_IOERR_FSYNC);
        const auto id = std::to_string(seed);
        storage::Changes changes;
        changes.emplace_back(storage::VmRow{id, id, "document"});
        CHECK_FALSE(loop.await((*store)->commit(std::move(changes))));
        disk.fail_syncs(0);
        disk.kill();
        store = storage::open_sqlite_store(path, log, options);
        REQUIRE(store);
        const auto told = count(**store);
        fakes::SeededRandom random{seed};
        disk.crash(random);
        store = storage::open_sqlite_store(path, log, options);
        REQUIRE(store);
        CHECK(count(**store) == told);
    }
}
