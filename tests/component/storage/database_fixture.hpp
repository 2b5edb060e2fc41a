// A state database in a folder of its own, on a clock that the test moves.
#pragma once

#include "base/clock.hpp"
#include "fakes/awaiting.hpp"
#include "fakes/scratch_folder.hpp"
#include "fakes/virtual_clock.hpp"
#include "storage/sqlite.hpp"
#include "storage/sqlite_store.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ghost {

struct DatabaseFixture {
    fakes::TestLoop loop;
    fakes::ScratchFolder folder;
    fakes::VirtualClock clock;
    base::Log log;
    std::string path = folder.path("state.db");

    std::unique_ptr<storage::StateStore> open() {
        auto store = storage::open_sqlite_store(path, log, {.clock = &clock});
        if (!store) FAIL(store.error().detail);
        return std::move(*store);
    }
    base::Result<void> commit(storage::StateStore& store, storage::Changes changes) {
        return loop.await(store.commit(std::move(changes)));
    }
    storage::StoredState load(storage::StateStore& store) {
        auto state = loop.await(store.load());
        if (!state) FAIL(state.error().detail);
        return std::move(*state);
    }
    // Some of everything; `more` VMs make the file large.
    void fill(storage::StateStore& store, int more = 0) {
        REQUIRE(commit(store,
                       {storage::VmRow{"vm-1", "web", "{}"}, storage::ImageRow{"debian", "{\"a\":1}"},
                        storage::OperationRow{"done", "succeeded", 10, 15, "{\"b\":2}"},
                        storage::OperationRow{"running", "running", 20, std::nullopt, "{}"},
                        storage::EventRow{7, "/v1/vms/vm-1", "v1", "{}"}, storage::KeyRow{"alice/1", "f", "done", 10},
                        storage::KeyRow{"alice/2", "f", "running", 20}, storage::FactRow{"boot_id", "b"},
                        storage::FactRow{"other", "x"}, storage::CommandRow{"cmd-1", 10, true, "{}"},
                        storage::CommandRow{"cmd-2", 20, false, "{\"c\":3}"}, storage::OutboxRow{4, 30, "{\"d\":4}"}}));
        for (int i = 0; i < more; ++i)
            REQUIRE(
                commit(store, {storage::VmRow{"more-" + std::to_string(i), std::to_string(i), std::string(500, 'x')}}));
    }
    void close(std::unique_ptr<storage::StateStore> store) { loop.await(store->close()); }

    bool exists(std::string_view name) const { return std::filesystem::exists(folder.path(name)); }
    std::vector<std::string> names(std::string_view prefix) const {
        std::vector<std::string> found;
        for (const auto& entry : std::filesystem::directory_iterator{folder.path()})
            if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path().filename().string());
        std::ranges::sort(found);
        return found;
    }
    void overwrite(std::string_view name, std::size_t from, std::size_t bytes) const {
        std::fstream file{folder.path(name), std::ios::in | std::ios::out | std::ios::binary};
        file.seekp(static_cast<std::streamoff>(from));
        file << std::string(bytes, '\x5a');
        REQUIRE(file.flush().good());
    }
    static std::string first(const std::string& file, std::string_view sql) {
        auto database = storage::sqlite::Database::open(file, {.read_only = true});
        REQUIRE(database);
        return database->first_text(sql).value();
    }
    // What is safe was taken over, and nothing else.
    void check_taken(storage::StateStore& store) {
        const auto state = load(store);
        CHECK(state.vms.empty());
        REQUIRE(state.images.size() == 1);
        CHECK(state.images[0].document == "{\"a\":1}");
        REQUIRE(state.operations.size() == 1);
        CHECK(state.operations[0].id == "done");
        CHECK(state.operations[0].document == "{\"b\":2}");
        REQUIRE(state.keys.size() == 1);
        CHECK(state.keys[0].key == "alice/1");
        CHECK(state.events.empty());
        CHECK(state.subjects.empty());
        CHECK(state.facts ==
              std::map<std::string, std::string>{{std::string{storage::from_copy_fact}, "1"}, {"other", "x"}});
        REQUIRE(state.commands.size() == 2);
        CHECK(state.commands[0].confirmed);
        CHECK(state.commands[1].document == "{\"c\":3}");
        REQUIRE(state.outbox.size() == 1);
        CHECK(state.outbox[0].document == "{\"d\":4}");
    }
};

}  // namespace ghost
