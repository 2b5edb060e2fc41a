#include "storage/state_store.hpp"

#include "base/process.hpp"
#include "fakes/awaiting.hpp"
#include "fakes/memory_store.hpp"
#include "fakes/scratch_folder.hpp"
#include "killed_writer.hpp"
#include "storage/sqlite.hpp"
#include "storage/sqlite_store.hpp"

#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <filesystem>
#include <set>
#include <sstream>

using namespace ghost;
using base::Errc;

namespace {

struct Fixture {
    fakes::TestLoop loop;
    fakes::ScratchFolder folder;
    base::Log log;
    std::string path = folder.path("state.db");

    std::unique_ptr<storage::StateStore> open() {
        auto store = storage::open_sqlite_store(path, log);
        if (!store) FAIL(store.error().detail);
        return std::move(*store);
    }
    base::Error refused() {
        auto store = storage::open_sqlite_store(path, log);
        REQUIRE_FALSE(store);
        return store.error();
    }
    base::Result<void> put(storage::StateStore& store, std::string id, std::string name) {
        storage::Changes changes;
        changes.emplace_back(storage::VmRow{std::move(id), std::move(name), "{}"});
        return loop.await(store.commit(std::move(changes)));
    }
};

// Events with their subjects, keys and facts.
void check_streams(fakes::TestLoop& loop, storage::StateStore& store) {
    const auto commit = [&](storage::Changes changes) { return loop.await(store.commit(std::move(changes))); };
    REQUIRE(commit({storage::EventRow{3, "/v1/vms/b", "v1", "{\"n\":3}"}, storage::EventRow{2, "/v1/vms/a", "v1", "{}"},
                    storage::EventRow{4, "/v1/vms/a", "v2", "{}"}, storage::EventRow{5, "", "", "{}"},
                    storage::KeyRow{"alice/k2", "f2", "op-2", 20}, storage::KeyRow{"alice/k1", "f1", "op-1", 10},
                    storage::KeyRow{"bob/k1", "f3", "op-3", 30}, storage::FactRow{"boot_id", "1"},
                    storage::FactRow{"other", "x"}}));
    auto state = loop.await(store.load());
    REQUIRE(state);
    REQUIRE(state->events.size() == 4);
    CHECK(state->events[0].id == 2);
    CHECK(state->events[1].document == "{\"n\":3}");
    CHECK(state->events[3].id == 5);
    CHECK(state->subjects == std::map<std::string, std::string>{{"/v1/vms/a", "v2"}, {"/v1/vms/b", "v1"}});
    REQUIRE(state->keys.size() == 3);
    CHECK(state->keys[0].key == "alice/k1");
    CHECK(state->keys[0].fingerprint == "f1");
    CHECK(state->keys[0].operation == "op-1");
    CHECK(state->keys[2].created_ms == 30);
    CHECK(state->facts == std::map<std::string, std::string>{{"boot_id", "1"}, {"other", "x"}});

    // The last word about a subject holds; one that is gone is forgotten with the event that tells it.
    REQUIRE(commit({storage::EventRow{6, "/v1/vms/a", "", "{}"}, storage::ForgetSubject{"/v1/vms/b"},
                    storage::ForgetSubject{"/v1/vms/nobody"}, storage::PruneEvents{2}, storage::PruneKeys{15, 1},
                    storage::FactRow{"boot_id", "2"}}));
    state = loop.await(store.load());
    REQUIRE(state->events.size() == 2);
    CHECK(state->events[0].id == 5);
    CHECK(state->events[1].id == 6);
    CHECK(state->subjects.empty());
    REQUIRE(state->keys.size() == 1);
    CHECK(state->keys[0].key == "bob/k1");
    CHECK(state->facts.at("boot_id") == "2");

    // A key is taken over by a later request; pruning by age leaves it.
    REQUIRE(
        commit({storage::KeyRow{"bob/k1", "f4", "op-4", 40}, storage::PruneKeys{40, 100}, storage::PruneEvents{0}}));
    state = loop.await(store.load());
    REQUIRE(state->keys.size() == 1);
    CHECK(state->keys[0].operation == "op-4");
    CHECK(state->events.empty());
    REQUIRE(commit({storage::PruneKeys{41, 100}}));
    CHECK(loop.await(store.load())->keys.empty());
}

// Ghost Core's commands and what it is told.
void check_core(fakes::TestLoop& loop, storage::StateStore& store) {
    const auto commit = [&](storage::Changes changes) { return loop.await(store.commit(std::move(changes))); };
    const auto ids = [&] {
        std::string out;
        for (const auto& row : loop.await(store.load())->commands) out += row.id + (row.confirmed ? "+ " : " ");
        return out;
    };
    REQUIRE(commit({storage::CommandRow{"b", 20, false, "{\"kind\":\"vm.start\"}"},
                    storage::CommandRow{"a", 20, false, "{}"}, storage::CommandRow{"z", 10, true, "{}"},
                    storage::CommandRow{"y", 10, false, "{}"}, storage::CommandRow{"c", 30, true, "{}"},
                    storage::CommandRow{"d", 40, true, "{}"}}));
    CHECK(ids() == "y z+ a b c+ d+ ");
    CHECK(loop.await(store.load())->commands[3].document == "{\"kind\":\"vm.start\"}");

    // A later word about a command replaces the first; those without a confirmed result always stay.
    REQUIRE(commit({storage::CommandRow{"b", 20, true, "{\"state\":\"succeeded\"}"}, storage::PruneCommands{11, 100}}));
    CHECK(ids() == "y a b+ c+ d+ ");
    CHECK(loop.await(store.load())->commands[2].document == "{\"state\":\"succeeded\"}");
    REQUIRE(commit({storage::PruneCommands{20, 2}}));
    CHECK(ids() == "y a c+ d+ ");
    REQUIRE(commit({storage::PruneCommands{0, 0}}));
    CHECK(ids() == "y a ");

    REQUIRE(commit({storage::OutboxRow{2, 200, "{\"n\":2}"}, storage::OutboxRow{1, 100, "{}"},
                    storage::OutboxRow{10, 300, "{}"}}));
    auto outbox = loop.await(store.load())->outbox;
    REQUIRE(outbox.size() == 3);
    CHECK(outbox[0].rev == 1);
    CHECK(outbox[1].at_ms == 200);
    CHECK(outbox[1].document == "{\"n\":2}");
    CHECK(outbox[2].rev == 10);
    REQUIRE(commit({storage::PruneOutbox{2}}));
    outbox = loop.await(store.load())->outbox;
    REQUIRE(outbox.size() == 1);
    CHECK(outbox[0].rev == 10);
    REQUIRE(commit({storage::PruneOutbox{9}}));
    CHECK(loop.await(store.load())->outbox.size() == 1);
    REQUIRE(commit({storage::PruneOutbox{10}}));
    CHECK(loop.await(store.load())->outbox.empty());
}

// What every store does alike, the fake one too.
void check_contract(fakes::TestLoop& loop, storage::StateStore& store) {
    const auto commit = [&](storage::Changes changes) { return loop.await(store.commit(std::move(changes))); };
    REQUIRE(commit({storage::VmRow{"1", "web", "{\"a\":1}"}, storage::ImageRow{"debian", "{}"},
                    storage::OperationRow{"b", "running", 20, std::nullopt, "{}"},
                    storage::OperationRow{"a", "succeeded", 10, 15, "{}"}}));
    REQUIRE(commit({storage::VmRow{"1", "web", std::string{"with\0zero", 9}}}));

    auto state = loop.await(store.load());
    REQUIRE(state);
    REQUIRE(state->vms.size() == 1);
    CHECK(state->vms[0].document == std::string{"with\0zero", 9});
    REQUIRE(state->operations.size() == 2);
    CHECK(state->operations[0].id == "a");
    CHECK(state->operations[0].finished_ms == 15);
    CHECK(state->operations[1].id == "b");
    CHECK_FALSE(state->operations[1].finished_ms);
    REQUIRE(state->images.size() == 1);

    // A transaction with a fault in it changes nothing at all.
    const auto taken = commit({storage::ImageRow{"other", "{}"}, storage::VmRow{"2", "web", "{}"}});
    REQUIRE_FALSE(taken);
    CHECK(taken.error().code == Errc::already_exists);
    CHECK(taken.error().detail.find("web") != std::string::npos);
    CHECK(loop.await(store.load())->images.size() == 1);

    // Names move within one transaction, when the order allows it.
    REQUIRE(commit({storage::EraseVm{"1"}, storage::VmRow{"2", "web", "{}"}}));
    REQUIRE(commit({storage::EraseImage{"debian"}, storage::EraseVm{"nobody"}, storage::PruneOperations{15, 100}}));
    CHECK(loop.await(store.load())->operations.size() == 2);
    REQUIRE(commit({storage::PruneOperations{16, 100}}));
    state = loop.await(store.load());
    REQUIRE(state->operations.size() == 1);
    CHECK(state->operations[0].id == "b");
    CHECK(state->images.empty());
    CHECK(state->vms.at(0).id == "2");

    // Of the finished ones the youngest stay; those under way always do.
    REQUIRE(commit({storage::OperationRow{"c", "failed", 30, 31, "{}"},
                    storage::OperationRow{"d", "failed", 40, 41, "{}"}, storage::PruneOperations{0, 1}}));
    state = loop.await(store.load());
    REQUIRE(state->operations.size() == 2);
    CHECK(state->operations[0].id == "b");
    CHECK(state->operations[1].id == "d");

    // An update changes what is there and never makes what isn't.
    REQUIRE(commit({storage::UpdateVm{"2", "{\"b\":2}"}, storage::UpdateVm{"1", "{}"}}));
    state = loop.await(store.load());
    REQUIRE(state->vms.size() == 1);
    CHECK(state->vms[0].name == "web");
    CHECK(state->vms[0].document == "{\"b\":2}");

    check_streams(loop, store);
    check_core(loop, store);
    loop.await(store.close());
    const auto late = commit({storage::EraseVm{"2"}});
    REQUIRE_FALSE(late);
    CHECK(late.error().code == Errc::io_error);
    loop.await(store.close());
}

}  // namespace

TEST_CASE_METHOD(Fixture, "the store in SQLite keeps the contract") { check_contract(loop, *open()); }

TEST_CASE_METHOD(Fixture, "the store in memory keeps the contract") {
    fakes::MemoryStore store;
    check_contract(loop, store);
}

TEST_CASE_METHOD(Fixture, "what was committed is there at the next opening, closed or not") {
    REQUIRE(put(*open(), "1", "a"));
    auto store = open();
    REQUIRE(put(*store, "2", "b"));
    loop.await(store->close());
    CHECK_FALSE(std::filesystem::exists(path + "-wal"));
    CHECK(loop.await(open()->load())->vms.size() == 2);
}

TEST_CASE_METHOD(Fixture, "the database is private, also when it wasn't before") {
    const auto mode = [&](const std::string& file) {
        struct stat found = {};
        REQUIRE(::stat(file.c_str(), &found) == 0);
        return found.st_mode & 0777U;
    };
    auto store = open();
    REQUIRE(put(*store, "1", "a"));
    CHECK(mode(path) == 0600);
    CHECK(mode(path + "-wal") == 0600);
    store.reset();
    std::filesystem::permissions(path, std::filesystem::perms{0644});
    store = open();
    CHECK(mode(path) == 0600);
}

TEST_CASE_METHOD(Fixture, "durability and safety are switched on") {
    auto store = open();
    auto database = storage::sqlite::Database::open(path);
    REQUIRE(database);
    CHECK(database->first_text("PRAGMA journal_mode") == "wal");
    CHECK(database->first_text("PRAGMA user_version") == "3");
}

TEST_CASE_METHOD(Fixture, "what was deleted is not left in the file") {
    const std::string secret = "the-password-of-a-guest";
    auto store = open();
    const auto commit = [&](storage::Changes changes) { return loop.await(store->commit(std::move(changes))); };
    REQUIRE(commit({storage::CommandRow{"short", 1, true, secret},
                    storage::CommandRow{"long", 1, true, secret + std::string(20000, '.') + secret},
                    storage::CommandRow{"other", 2, true, "{}"}}));
    loop.await(store->close());
    REQUIRE(folder.read("state.db").find(secret) != std::string::npos);
    store = open();
    REQUIRE(commit({storage::PruneCommands{2, 1}}));
    loop.await(store->close());
    CHECK(folder.read("state.db").find(secret) == std::string::npos);
    CHECK(folder.read("state.db").find("other") != std::string::npos);
}

TEST_CASE_METHOD(Fixture, "a database of a newer version is refused with a sentence and left alone") {
    open().reset();
    {
        auto database = storage::sqlite::Database::open(path);
        REQUIRE(database);
        REQUIRE(database->execute("PRAGMA user_version = 99"));
    }
    const auto error = refused();
    CHECK(error.code == Errc::io_error);
    CHECK(error.detail.find("version 99") != std::string::npos);
    CHECK(error.detail.find("newer agent") != std::string::npos);
}

TEST_CASE_METHOD(Fixture, "a folder that isn't there is an io_error that names the path") {
    path = folder.path("no/state.db");
    const auto error = refused();
    CHECK(error.code == Errc::io_error);
    CHECK(error.detail.find(path) != std::string::npos);
}

TEST_CASE_METHOD(Fixture, "every commit that was reported survives kill -9") {
    for (int round = 0; round < 3; ++round) {
        path = folder.path("round-" + std::to_string(round));
        const auto told = told_until_killed({path}, 40 + 17 * round);
        auto store = open();
        const auto state = loop.await(store->load());
        REQUIRE(state);
        std::set<std::string> kept;
        for (const auto& vm : state->vms) kept.insert(vm.id);
        std::istringstream lines{told};
        int reported = 0;
        for (std::string id; std::getline(lines, id); ++reported) CHECK(kept.contains(id));
        CHECK(reported >= 40);
        CHECK(state->vms.size() == state->operations.size());  // transactions are whole
    }
}
