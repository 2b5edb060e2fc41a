#include "database_fixture.hpp"
#include "small_disk.hpp"

#include <fcntl.h>
#include <unistd.h>

using namespace ghost;
using base::Errc;

namespace {

struct FullDisk : DatabaseFixture {
    const SmallDisk disk{folder.path("disk"), 24U << 20U};

    FullDisk() { path = disk.path("state.db"); }
    bool can_run() const {
        if (!disk.mounted()) WARN("no right to mount a tmpfs: not run");
        return disk.mounted();
    }
    // Others take all the room there is.
    void take_all() const {
        const auto name = disk.path("others");
        const int file = ::open(name.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        REQUIRE(file >= 0);
        const std::string bytes(4096, 'x');
        while (::write(file, bytes.data(), bytes.size()) > 0) {
        }
        ::close(file);
    }
    void give_back() const { std::filesystem::remove(disk.path("others")); }
    bool reserve_is_there() const { return std::filesystem::exists(path + ".reserve"); }
    base::Result<void> put(storage::StateStore& store, std::string id, std::size_t bytes) {
        return commit(store, {storage::VmRow{id, id, std::string(bytes, 'x')}});
    }
};

}  // namespace

TEST_CASE_METHOD(DatabaseFixture, "a full disk refuses the commit, keeps what there is, and works again with room") {
    const SmallDisk disk{folder.path("disk"), 1U << 20U};
    if (!disk.mounted()) {
        WARN("no right to mount a tmpfs: not run");
        return;
    }
    path = disk.path("state.db");
    auto store = open();
    REQUIRE(commit(*store, {storage::VmRow{"1", "a", "{}"}}));
    const auto big = [&](std::string id) {
        storage::Changes changes;
        changes.emplace_back(storage::ImageRow{std::move(id), std::string(3U << 20U, 'x')});
        return loop.await(store->commit(std::move(changes)));
    };
    const auto full = big("big");
    REQUIRE_FALSE(full);
    CHECK(full.error().code == Errc::insufficient_storage);
    CHECK(full.error().facts.contains("free"));
    CHECK(loop.await(store->load())->vms.size() == 1);
    CHECK(loop.await(store->load())->images.empty());
    CHECK(store->health().fault == full.error().detail);
    CHECK_FALSE(store->health().reserve);
    CHECK(commit(*store, {storage::VmRow{"2", "b", "{}"}}));
    CHECK(store->health().fault.empty());
}

TEST_CASE_METHOD(FullDisk, "the room kept back lets a commit through on a full disk, and is made again") {
    if (!can_run()) return;
    auto store = open();
    CHECK(store->health().reserve);
    REQUIRE(reserve_is_there());
    CHECK(std::filesystem::file_size(path + ".reserve") == 4U << 20U);
    REQUIRE(put(*store, "1", 100));
    take_all();

    REQUIRE(put(*store, "2", 200'000));
    CHECK_FALSE(store->health().reserve);
    CHECK_FALSE(reserve_is_there());
    CHECK_FALSE(store->health().fault.empty());
    REQUIRE(put(*store, "3", 100));
    CHECK(store->health().fault.empty());

    take_all();
    const auto full = put(*store, "4", 6U << 20U);
    REQUIRE_FALSE(full);
    CHECK(full.error().code == Errc::insufficient_storage);
    CHECK(store->health().fault == full.error().detail);
    CHECK(load(*store).vms.size() == 3);
    // The log has the room it had: what fits in there still goes.
    CHECK(put(*store, "5", 100));

    give_back();
    clock.advance(std::chrono::seconds{59});
    REQUIRE(put(*store, "6", 100));
    CHECK_FALSE(store->health().reserve);
    clock.advance(std::chrono::seconds{1});
    REQUIRE(put(*store, "7", 100));
    CHECK(store->health().reserve);
    CHECK(reserve_is_there());
    close(std::move(store));
    CHECK(load(*open()).vms.size() == 6);
}

TEST_CASE_METHOD(FullDisk, "a reserve that is half made is made anew, and none is where it would take the last room") {
    if (!can_run()) return;
    const auto reserve = path + ".reserve";
    std::ofstream{reserve} << "half";
    auto store = open();
    CHECK(store->health().reserve);
    CHECK(std::filesystem::file_size(reserve) == 4U << 20U);
    close(std::move(store));

    std::filesystem::remove(reserve);
    std::ofstream{reserve} << "half";
    std::ofstream{disk.path("others")} << std::string(9U << 20U, 'x');
    store = open();
    CHECK_FALSE(store->health().reserve);
    CHECK_FALSE(reserve_is_there());
    give_back();
    clock.advance(std::chrono::minutes{1});
    REQUIRE(loop.await(store->back_up()));
    CHECK(store->health().reserve);
}

TEST_CASE_METHOD(FullDisk, "a full disk doesn't keep the database from opening") {
    if (!can_run()) return;
    auto store = open();
    REQUIRE(put(*store, "1", 100));
    close(std::move(store));
    take_all();
    store = open();
    CHECK_FALSE(reserve_is_there());
    CHECK(load(*store).vms.size() == 1);
    CHECK(put(*store, "2", 100));
    close(std::move(store));

    take_all();
    store = open();  // there was nothing to give up
    CHECK(load(*store).vms.size() == 2);
    CHECK(store->health().loss.empty());
    give_back();
    CHECK(put(*store, "3", 100));
    REQUIRE(loop.await(store->back_up()));
    close(std::move(store));
}

TEST_CASE_METHOD(FullDisk, "a copy isn't begun where it would take the last room") {
    if (!can_run()) return;
    auto store = open();
    REQUIRE(put(*store, "1", 100));
    REQUIRE(loop.await(store->back_up()));
    const auto copied = store->health().copied_ms;
    take_all();
    clock.advance(std::chrono::hours{1});
    const auto full = loop.await(store->back_up());
    REQUIRE_FALSE(full);
    CHECK(full.error().code == Errc::insufficient_storage);
    CHECK(store->health().copied_ms == copied);
    CHECK(store->health().reserve);
    CHECK(first(path + ".copy", "SELECT count(*) FROM vms") == "1");
    CHECK_FALSE(std::filesystem::exists(path + ".copy.new"));
}

TEST_CASE_METHOD(FullDisk, "a lost database is made anew on a full disk, too") {
    if (!can_run()) return;
    auto store = open();
    fill(*store);
    REQUIRE(loop.await(store->back_up()));
    close(std::move(store));
    std::filesystem::resize_file(path, 5000);
    take_all();
    store = open();
    CHECK_FALSE(store->health().loss.empty());
    check_taken(*store);
    CHECK_FALSE(reserve_is_there());
}
