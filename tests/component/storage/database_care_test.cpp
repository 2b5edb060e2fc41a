#include "database_fixture.hpp"
#include "killed_writer.hpp"

#include <sys/stat.h>

#include <array>
#include <sstream>

using namespace ghost;
using base::Errc;

namespace {

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

constexpr std::string_view damaged_set{"state.db.damaged-20260102T030405Z"};

// A database as the first release made it.
void make_version_1(const std::string& path) {
    auto database = storage::sqlite::Database::open(path);
    REQUIRE(database);
    REQUIRE(database->execute(
        "PRAGMA journal_mode = WAL;"
        "CREATE TABLE vms(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL) STRICT;"
        "CREATE TABLE operations(id TEXT PRIMARY KEY NOT NULL, state TEXT NOT NULL, created_ms INTEGER NOT NULL,"
        "                        finished_ms INTEGER, document TEXT NOT NULL) STRICT;"
        "CREATE INDEX operations_by_creation ON operations(created_ms);"
        "CREATE INDEX operations_by_finish ON operations(finished_ms) WHERE finished_ms IS NOT NULL;"
        "CREATE TABLE images(name TEXT PRIMARY KEY NOT NULL, document TEXT NOT NULL) STRICT;"
        "INSERT INTO vms VALUES('vm-1', 'web', '{}'); INSERT INTO images VALUES('debian', '{}');"
        "INSERT INTO operations VALUES('done', 'succeeded', 1, 2, '{}');"
        "PRAGMA user_version = 1;"));
}

}  // namespace

TEST_CASE_METHOD(DatabaseFixture, "a first start is no loss") {
    auto store = open();
    CHECK(store->health().loss.empty());
    CHECK(store->health().fault.empty());
    CHECK(store->health().copied_ms == 0);
    CHECK(store->health().reserve);
    CHECK(load(*store).vms.empty());
    close(std::move(store));
    CHECK(open()->health().loss.empty());
}

TEST_CASE_METHOD(DatabaseFixture, "a good copy is whole, private, and replaced by the next") {
    auto store = open();
    fill(*store, 50);
    folder.write("state.db.copy.new", "left over by a crash");
    REQUIRE(loop.await(store->back_up()));
    CHECK(store->health().copied_ms == base::to_unix_ms(clock.wall()));
    CHECK(DatabaseFixture::first(path + ".copy", "SELECT count(*) FROM vms") == "51");
    CHECK(DatabaseFixture::first(path + ".copy", "PRAGMA quick_check") == "ok");
    CHECK(names("state.db.copy") == std::vector<std::string>{"state.db.copy"});
    struct stat found = {};
    REQUIRE(::stat((path + ".copy").c_str(), &found) == 0);
    CHECK((found.st_mode & 0777U) == 0600);

    REQUIRE(commit(*store, {storage::EraseVm{"vm-1"}}));
    clock.advance(std::chrono::hours{24});
    REQUIRE(loop.await(store->back_up()));
    CHECK(DatabaseFixture::first(path + ".copy", "SELECT count(*) FROM vms") == "50");
    CHECK(store->health().copied_ms == base::to_unix_ms(clock.wall()));
    loop.await(store->close());
    CHECK_FALSE(loop.await(store->back_up()));  // closed
}

TEST_CASE_METHOD(DatabaseFixture, "when the last copy was made is known at the next start") {
    auto store = open();
    REQUIRE(loop.await(store->back_up()));
    close(std::move(store));
    CHECK(open()->health().copied_ms > 0);
}

TEST_CASE_METHOD(DatabaseFixture, "a copy that can't be made leaves the old one") {
    auto store = open();
    fill(*store);
    REQUIRE(loop.await(store->back_up()));
    const auto before = folder.read("state.db.copy");
    std::filesystem::create_directory(folder.path("state.db.copy.new"));
    std::filesystem::create_directory(folder.path("state.db.copy.new/in-the-way"));
    const auto failed = loop.await(store->back_up());
    REQUIRE_FALSE(failed);
    CHECK(failed.error().code == Errc::io_error);
    CHECK(folder.read("state.db.copy") == before);
    CHECK(commit(*store, {storage::EraseVm{"vm-1"}}));
}

TEST_CASE_METHOD(DatabaseFixture, "a damaged database is moved aside, and what is safe is taken from the copy") {
    auto store = open();
    fill(*store, 100);
    REQUIRE(loop.await(store->back_up()));
    close(std::move(store));
    REQUIRE(folder.read("state.db").size() > 32768);
    SECTION("the header") { overwrite("state.db", 0, 100); }
    SECTION("the first page") { overwrite("state.db", 100, 3996); }
    SECTION("pages in the middle") { overwrite("state.db", 8192, 16384); }
    SECTION("cut short") { std::filesystem::resize_file(path, 20000); }
    SECTION("no database at all") { folder.write("state.db", std::string(8192, 'x')); }

    store = open();
    const auto loss = store->health().loss;
    CHECK(has(loss, path + " was damaged ("));
    CHECK(has(loss, "is now " + folder.path(damaged_set)));
    CHECK(
        has(loss, "1 images, 1 finished operations, 1 idempotency keys and 2 commands were taken from its copy of 20"));
    CHECK(exists(damaged_set));
    check_taken(*store);
    CHECK(commit(*store, {storage::VmRow{"vm-2", "web", "{}"}}));
    close(std::move(store));

    store = open();
    CHECK(store->health().loss.empty());
    CHECK(load(*store).vms.size() == 1);
}

TEST_CASE_METHOD(DatabaseFixture, "a damaged database without a copy makes an empty one, and says so") {
    folder.write("state.db", std::string(8192, 'x'));
    folder.write("state.db-wal", "w");
    folder.write("state.db-shm", "s");
    auto store = open();
    CHECK(has(store->health().loss, "no copy to take anything from"));
    CHECK(load(*store).images.empty());
    CHECK(exists(damaged_set));
    const auto set = names("state.db.damaged");
    CHECK(std::ranges::all_of(set, [](const auto& name) { return name.starts_with(damaged_set); }));
}

TEST_CASE_METHOD(DatabaseFixture, "a copy that is damaged too is left alone") {
    auto store = open();
    fill(*store, 100);
    REQUIRE(loop.await(store->back_up()));
    close(std::move(store));
    overwrite("state.db", 0, 100);
    overwrite("state.db.copy", 8192, 16384);
    const auto before = folder.read("state.db.copy");
    store = open();
    CHECK(has(store->health().loss, "Nothing could be taken from its copy"));
    CHECK(load(*store).images.empty());
    CHECK(folder.read("state.db.copy") == before);
}

TEST_CASE_METHOD(DatabaseFixture, "of what was damaged the three newest sets stay") {
    for (int i = 0; i < 5; ++i) {
        folder.write("state.db", std::string(8192, static_cast<char>('a' + i)));
        open().reset();
        if (i != 2) clock.advance(std::chrono::seconds{10});
    }
    std::vector<std::string> sets;
    for (const auto& name : names("state.db.damaged"))
        if (!name.ends_with("-wal") && !name.ends_with("-shm")) sets.push_back(name);
    // Two within one second don't share a name.
    CHECK(sets == std::vector<std::string>{"state.db.damaged-20260102T030425Z", "state.db.damaged-20260102T030426Z",
                                           "state.db.damaged-20260102T030435Z"});
    CHECK(folder.read("state.db.damaged-20260102T030435Z").front() == 'e');
}

TEST_CASE_METHOD(DatabaseFixture, "damage that shows only while loading is a loss, too") {
    auto store = open();
    fill(*store, 100);
    REQUIRE(loop.await(store->back_up()));
    REQUIRE(commit(*store, {storage::EraseImage{"nobody"}}));
    close(std::move(store));
    store = open();
    overwrite("state.db", 4096, std::filesystem::file_size(path) - 4096);
    // Another's write makes the store read the file again.
    REQUIRE(storage::sqlite::Database::open(path)->execute("PRAGMA user_version = 3"));
    check_taken(*store);
    CHECK(has(store->health().loss, "was damaged"));
    CHECK(commit(*store, {storage::VmRow{"vm-2", "web", "{}"}}));
}

TEST_CASE_METHOD(DatabaseFixture, "a database that was removed is a loss when there are signs of it") {
    auto store = open();
    fill(*store);
    SECTION("its copy") {
        REQUIRE(loop.await(store->back_up()));
        close(std::move(store));
        std::filesystem::remove(path);
        store = open();
        CHECK(has(store->health().loss, "state.db was missing"));
        CHECK_FALSE(has(store->health().loss, "damaged"));
        check_taken(*store);
    }
    SECTION("it is empty, and there is its copy") {
        REQUIRE(loop.await(store->back_up()));
        close(std::move(store));
        std::filesystem::resize_file(path, 0);
        store = open();
        CHECK(has(store->health().loss, "state.db was empty"));
        check_taken(*store);
    }
    SECTION("a new one was begun when the power went") {
        REQUIRE(loop.await(store->back_up()));
        close(std::move(store));
        std::filesystem::remove(path);
        REQUIRE(storage::sqlite::Database::open(path)->execute("PRAGMA journal_mode = WAL"));
        REQUIRE(std::filesystem::file_size(path) > 0);
        store = open();
        CHECK(has(store->health().loss, "state.db was empty"));
        check_taken(*store);
    }
    SECTION("its log") {
        std::filesystem::copy_file(path + "-wal", folder.path("log"));
        close(std::move(store));
        std::filesystem::remove(path);
        std::filesystem::rename(folder.path("log"), path + "-wal");
        const auto log_bytes = folder.read("state.db-wal");
        store = open();
        CHECK(has(store->health().loss, "state.db was missing"));
        CHECK(load(*store).images.empty());
        CHECK(folder.read(std::string{damaged_set} + "-wal") == log_bytes);
    }
    SECTION("one that was moved aside") {
        close(std::move(store));
        std::filesystem::rename(path, folder.path(damaged_set));
        store = open();
        CHECK(has(store->health().loss, "state.db was missing; what was damaged is now " + folder.path(damaged_set)));
        CHECK(load(*store).images.empty());
    }
}

TEST_CASE_METHOD(DatabaseFixture, "before a migration the old database is copied; only the newest such copy stays") {
    make_version_1(path);
    folder.write("state.db.v0", "older");
    folder.write("state.db.vacation", "not ours");
    auto store = open();
    CHECK(store->health().loss.empty());
    CHECK(DatabaseFixture::first(path + ".v1", "PRAGMA user_version") == "1");
    CHECK(DatabaseFixture::first(path + ".v1", "SELECT name FROM vms") == "web");
    CHECK_FALSE(exists("state.db.v0"));
    CHECK(exists("state.db.vacation"));
    CHECK(load(*store).vms.size() == 1);
    REQUIRE(commit(*store, {storage::FactRow{"a", "b"}}));
    close(std::move(store));
    CHECK(DatabaseFixture::first(path, "PRAGMA user_version") == "3");
    CHECK(load(*open()).vms.size() == 1);
}

TEST_CASE_METHOD(DatabaseFixture, "a copy of an older version gives what it has") {
    make_version_1(path + ".copy");
    folder.write("state.db", std::string(8192, 'x'));
    auto store = open();
    CHECK(has(store->health().loss, "1 images, 1 finished operations, 0 idempotency keys and 0 commands"));
    CHECK(load(*store).images.size() == 1);
}

TEST_CASE_METHOD(DatabaseFixture, "a newer database is refused and not changed by a byte") {
    auto store = open();
    fill(*store);
    REQUIRE(loop.await(store->back_up()));
    close(std::move(store));
    REQUIRE(storage::sqlite::Database::open(path)->execute("PRAGMA user_version = 99"));
    const auto before = folder.read("state.db");
    const auto refused = storage::open_sqlite_store(path, log, {.clock = &clock});
    REQUIRE_FALSE(refused);
    CHECK(has(refused.error().detail, "version 99"));
    CHECK(folder.read("state.db") == before);
    CHECK(names("state.db.damaged").empty());
}

TEST_CASE_METHOD(DatabaseFixture, "garbage at the log's end doesn't hurt what stands before it") {
    auto store = open();
    fill(*store, 20);
    // As after kill -9: the log is there and nobody has moved it into the database.
    const auto log_bytes = folder.read("state.db-wal");
    const auto database = folder.read("state.db");
    close(std::move(store));
    folder.write("state.db", database);
    folder.write("state.db-wal", log_bytes + std::string(5000, '\x5a'));
    store = open();
    CHECK(load(*store).vms.size() == 21);
    CHECK(store->health().loss.empty());
    close(std::move(store));
    CHECK(DatabaseFixture::first(path, "PRAGMA quick_check") == "ok");
}

TEST_CASE_METHOD(DatabaseFixture, "kill -9 in the middle of making a copy leaves the one before, whole") {
    for (int round = 0; round < 4; ++round) {
        const auto name = "round-" + std::to_string(round);
        path = folder.path(name);
        std::istringstream lines{told_until_killed({path, "copy"}, 20 + 3 * round)};
        int rows = 0;
        int copied = 0;  // rows that the last copy must have
        for (std::string line; std::getline(lines, line);)
            if (line == "copied")
                copied = rows;
            else
                ++rows;
        REQUIRE(copied > 0);
        CHECK(first(path + ".copy", "PRAGMA quick_check") == "ok");
        CHECK(std::stoi(first(path + ".copy", "SELECT count(*) FROM vms")) >= copied);

        auto store = open();
        CHECK(store->health().loss.empty());
        CHECK(load(*store).vms.size() >= static_cast<std::size_t>(rows));
        REQUIRE(loop.await(store->back_up()));
        CHECK(names(name + ".copy") == std::vector{name + ".copy"});
        close(std::move(store));
    }
}
