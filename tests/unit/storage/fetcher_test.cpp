#include "storage/fetcher.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/fake_web.hpp"
#include "fakes/memory_files.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/skipping_clock.hpp"
#include "storage/digest.hpp"

#include <catch2/catch.hpp>

using namespace ghost;
using base::Errc;
using storage::Checksum;

namespace {

constexpr auto url = "https://a.example/image.qcow2";
constexpr auto mirror = "https://b.example/image.qcow2";
constexpr auto part = "/images/x.part";
constexpr std::size_t size = 3 << 20;

std::string bytes_of(std::uint64_t seed, std::size_t length) {
    fakes::SeededRandom random{seed};
    std::string bytes(length, '\0');
    random.fill(std::as_writable_bytes(std::span{bytes}));
    return bytes;
}

Checksum checksum_of(const std::string& bytes, bool sha512 = false) {
    storage::Digests digests{sha512};
    digests.add(bytes);
    return sha512 ? Checksum{"sha512", digests.sha512->hex()} : Checksum{"sha256", digests.sha256.hex()};
}

const std::string image = bytes_of(1, size);

struct Fixture {
    fakes::TestLoop loop;
    fakes::MemoryFiles files;
    fakes::SkippingClock clock;
    fakes::SeededRandom random;
    fakes::FakeWeb web;
    storage::Fetcher fetcher{web, files, clock, random, 0};
    storage::FetchRequest request{{url}, checksum_of(image), part};

    Fixture() {
        files.put_directory("/images");
        web.sites[url].bytes = image;
    }
    base::Result<storage::Copied> fetch() { return loop.await(fetcher.fetch(request)); }
    [[nodiscard]] const std::string& on_disk() const { return files.find(part)->bytes; }
    fakes::FakeWeb::Fault cut(std::uint64_t after) { return {.cut_after = after}; }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "a file is fetched, hashed on the way and sealed") {
    const auto copied = fetch();
    REQUIRE(copied);
    CHECK(copied->size == size);
    CHECK(copied->sha256 == checksum_of(image).hex);
    CHECK(on_disk() == image);
    CHECK(files.find(part)->mode == 0444);
    CHECK(web.asked.size() == 1);
}

TEST_CASE_METHOD(Fixture, "a sha512 is a proof, too") {
    request.checksum = checksum_of(image, true);
    CHECK(fetch());
}

TEST_CASE_METHOD(Fixture, "cuts at every tenth cost nothing but the asking") {
    for (int i = 0; i < 9; ++i) web.sites[url].faults.push_back(cut(size / 10));
    REQUIRE(fetch());
    CHECK(on_disk() == image);
    REQUIRE(web.asked.size() == 10);
    for (std::size_t i = 1; i < 10; ++i) {
        CHECK(web.asked[i].from == i * (size / 10));
        CHECK(web.asked[i].if_range == "\"1\"");
    }
}

TEST_CASE_METHOD(Fixture, "a source that ignores Range is read from its beginning, again and again") {
    web.sites[url].ranges = false;
    web.sites[url].faults = {cut(size / 2), cut(size / 3), cut(size - 1)};
    REQUIRE(fetch());
    CHECK(on_disk() == image);
}

TEST_CASE_METHOD(Fixture, "a file that is replaced in between is fetched anew") {
    web.sites[url].faults = {cut(size / 2)};
    const auto newer = bytes_of(2, size);
    request.checksum = checksum_of(newer);
    web.before_piece = [&](std::string_view, std::uint64_t at) -> boost::asio::awaitable<void> {
        if (at == 0 && web.asked.size() == 1) {
            web.sites[url].bytes = newer;
            web.sites[url].etag = "\"2\"";
        }
        co_return;
    };
    REQUIRE(fetch());
    CHECK(on_disk() == newer);
}

TEST_CASE_METHOD(Fixture, "an agent that died goes on where the bytes on disk end") {
    for (const bool whole_record : {true, false}) {
        CAPTURE(whole_record);
        files.erase(part);
        files.erase(std::string{part} + ".json");
        web.asked.clear();
        web.sites[url].faults = {cut(size / 2)};
        // Dies in the pause after the cut.
        web.before_piece = [&](std::string_view, std::uint64_t) -> boost::asio::awaitable<void> {
            if (web.asked.size() == 2) loop.cancel();
            co_return;
        };
        const auto died = fetch();
        REQUIRE_FALSE(died);
        CHECK(died.error().code == Errc::cancelled);
        CHECK(on_disk() == image.substr(0, size / 2));
        web.before_piece = {};
        if (!whole_record) files.put(std::string{part} + ".json", "{\"url\": 7");
        web.asked.clear();
        REQUIRE(fetch());
        CHECK(web.asked.front().from == (whole_record ? size / 2 : 0));
        CHECK(on_disk() == image);
    }
}

TEST_CASE_METHOD(Fixture, "without a checksum bytes of an earlier boot aren't gone on with") {
    request.checksum.reset();
    files.put("/proc/sys/kernel/random/boot_id", "now\n");
    for (const auto* boot : {"now", "before"}) {
        CAPTURE(boot);
        web.asked.clear();
        files.put(part, image.substr(0, size / 2));
        files.put(std::string{part} + ".json", std::string{R"({"url": ")"} + url +
                                                   R"(", "validator": "\"1\"", "total": 3145728, "boot": ")" + boot +
                                                   R"("})");
        REQUIRE(fetch());
        CHECK(web.asked.front().from == (boot == std::string{"now"} ? size / 2 : 0));
        CHECK(on_disk() == image);
    }
}

TEST_CASE_METHOD(Fixture, "where the boot can't be told, nothing without a checksum is gone on with") {
    request.checksum.reset();
    files.put(part, image.substr(0, size / 2));
    files.put(std::string{part} + ".json",
              std::string{R"({"url": ")"} + url + R"(", "validator": "\"1\"", "total": 3145728, "boot": ""})");
    for (const auto* id : {"", "\n"}) {
        if (*id != '\0') files.put("/proc/sys/kernel/random/boot_id", id);
        web.asked.clear();
        REQUIRE(fetch());
        CHECK(web.asked.front().from == 0);
    }
}

TEST_CASE_METHOD(Fixture, "an answer that goes on beyond what it announced ends, and its bytes don't count") {
    web.sites[url].faults = {{.extra = 1 << 20}};
    REQUIRE(fetch());
    CHECK(on_disk() == image);
    CHECK(web.asked.size() == 2);
}

TEST_CASE_METHOD(Fixture, "a write that throws ends the fetch") {
    files.throw_in_append = true;
    const auto thrown = fetch();
    REQUIRE_FALSE(thrown);
    CHECK(thrown.error().code == Errc::internal);
}

TEST_CASE_METHOD(Fixture, "a mirror goes on where another broke off") {
    request.urls.emplace_back(mirror);
    web.sites[mirror] = {.bytes = image, .etag = "\"other\""};
    web.sites[url].faults = {cut(size / 2)};
    REQUIRE(fetch());
    CHECK(on_disk() == image);
    CHECK(web.asked.at(1).url == mirror);
    CHECK(web.asked.at(1).from == size / 2);
}

TEST_CASE_METHOD(Fixture, "the wrong bytes are refused at once, and nothing of them stays") {
    request.checksum = checksum_of("something else");
    const auto wrong = fetch();
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().code == Errc::checksum_mismatch);
    CHECK(wrong.error().facts.contains("expected"));
    CHECK(web.asked.size() == 1);
    CHECK(files.files().empty());
}

TEST_CASE_METHOD(Fixture, "bytes that don't belong together are fetched once more") {
    // What an earlier version of the file left, with the same name, length and validator.
    files.put(part, bytes_of(7, size / 2));
    files.put(std::string{part} + ".json",
              std::string{R"({"url": ")"} + url + R"(", "validator": "\"1\"", "total": 3145728, "boot": ""})");
    REQUIRE(fetch());
    CHECK(web.asked.size() == 2);
    CHECK(on_disk() == image);
}

TEST_CASE_METHOD(Fixture, "what has no source ends at once, what is down for a while doesn't") {
    web.sites.clear();
    auto none = fetch();
    REQUIRE_FALSE(none);
    CHECK(none.error().code == Errc::source_unavailable);
    CHECK(none.error().detail.find("404") != std::string::npos);
    CHECK(files.files().empty());
    CHECK(web.asked.size() == 1);

    web.sites[url].bytes = image;
    for (int i = 0; i < 5; ++i) web.sites[url].faults.push_back({.status = 503});
    CHECK(fetch());
    CHECK(clock.slept() > std::chrono::seconds{3});
}

TEST_CASE_METHOD(Fixture, "room is asked for before a byte is written, and its answer counts") {
    std::vector<std::uint64_t> asked;
    request.room = [&](std::uint64_t bytes) -> boost::asio::awaitable<base::Result<void>> {
        asked.push_back(bytes);
        co_return base::fail(Errc::insufficient_storage, "no room");
    };
    const auto refused = fetch();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().detail == "no room");
    CHECK(asked == std::vector<std::uint64_t>{size});
    CHECK(files.files().empty());

    // Of a source that doesn't say how long it is, in steps.
    asked.clear();
    web.sites[url].length = false;
    request.room = [&](std::uint64_t bytes) -> boost::asio::awaitable<base::Result<void>> {
        asked.push_back(bytes);
        co_return base::Result<void>{};
    };
    REQUIRE(fetch());
    CHECK(asked.size() == 1);
    CHECK(asked.front() >= 64U << 20U);
}

TEST_CASE_METHOD(Fixture, "a full disk ends it, and what was written is gone on with when there is room") {
    files.set_capacity(files.used() + size / 2);
    const auto full = fetch();
    REQUIRE_FALSE(full);
    CHECK(full.error().code == Errc::insufficient_storage);
    const auto kept = on_disk().size();
    CHECK(kept > 0);
    files.set_capacity(1ULL << 40U);
    web.asked.clear();
    REQUIRE(fetch());
    CHECK(web.asked.front().from == kept);
    CHECK(on_disk() == image);
}

TEST_CASE_METHOD(Fixture, "progress tells bytes and total, and that it waits") {
    std::vector<std::string> phases;
    std::uint64_t last = 0;
    request.progress = [&](const storage::FetchProgress& p) {
        const auto phase = p.phase.substr(0, p.phase.find(" ("));
        if (phases.empty() || phases.back() != phase) phases.push_back(phase);
        if (phase != p.phase) CHECK(p.phase.find("a.example/image.qcow2: ") != std::string::npos);
        if (p.phase == "downloading") last = p.done;
        CHECK(p.done <= size);
    };
    web.sites[url].faults = {cut(size / 2)};
    REQUIRE(fetch());
    CHECK(phases == std::vector<std::string>{"downloading", "waiting to try again", "downloading"});
    CHECK(last == size);
}

TEST_CASE_METHOD(Fixture, "a limit on the rate is kept by all fetches together") {
    storage::Fetcher slow{web, files, clock, random, 1 << 20};
    REQUIRE(loop.await(slow.fetch(request)));
    CHECK(clock.slept() > std::chrono::milliseconds{2500});
    CHECK(clock.slept() < std::chrono::milliseconds{3500});
}

TEST_CASE_METHOD(Fixture, "a small text is tried for a few times, and no longer than it helps") {
    web.sites["https://a.example/SUMS"].bytes = "text";
    CHECK(loop.await(fetcher.text("https://a.example/SUMS", 100)) == "text");
    web.sites["https://a.example/SUMS"].faults = {{.status = 503}, {.status = 429}};
    CHECK(loop.await(fetcher.text("https://a.example/SUMS", 100)) == "text");
    web.asked.clear();
    const auto none = loop.await(fetcher.text("https://a.example/NONE?secret", 100));
    REQUIRE_FALSE(none);
    CHECK(none.error().detail == "https://a.example/NONE: answered with status 404");
    CHECK(web.asked.size() == 1);
    CHECK_FALSE(loop.await(fetcher.text("https://a.example/SUMS", 3)));
}
