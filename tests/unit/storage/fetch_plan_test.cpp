#include "storage/fetch_plan.hpp"

#include "fakes/seeded_random.hpp"

#include <catch2/catch.hpp>
#include <fmt/format.h>

namespace {

using ghost::base::Errc;
using ghost::fakes::SeededRandom;
using ghost::net::Headers;
using ghost::storage::FetchPlan;
using ghost::storage::PartRecord;
using Body = FetchPlan::Body;

constexpr auto url = "https://a.example/image.qcow2";
constexpr auto mirror = "https://b.example/image.qcow2";
constexpr std::uint64_t mib = 1 << 20;

Headers headers(std::initializer_list<std::pair<std::string, std::string>> list) {
    Headers out;
    for (const auto& [name, value] : list) out.add(name, value);
    return out;
}

struct Plan {
    explicit Plan(std::vector<std::string> urls = {url}, bool checksum = true, PartRecord known = {},
                  std::uint64_t have = 0)
        : plan({std::move(urls), checksum}, std::move(known), have) {}

    FetchPlan::Next next() { return plan.next(random); }
    // The next question, after the pauses before it.
    FetchPlan::Ask ask() {
        for (;;) {
            auto step = next();
            if (std::holds_alternative<FetchPlan::Pause>(step)) continue;
            REQUIRE(std::holds_alternative<FetchPlan::Ask>(step));
            return std::get<FetchPlan::Ask>(step);
        }
    }
    ghost::base::Error gives_up() {
        for (;;) {
            auto step = next();
            if (std::holds_alternative<FetchPlan::Pause>(step)) continue;
            REQUIRE(std::holds_alternative<FetchPlan::GiveUp>(step));
            return std::get<FetchPlan::GiveUp>(step).why;
        }
    }
    bool complete() { return std::holds_alternative<FetchPlan::Complete>(next()); }
    // A whole answer of `length`, of which `come` bytes come.
    void whole(std::uint64_t length, std::uint64_t come, const std::string& etag = "\"1\"") {
        CHECK(plan.on_head(200, headers({{"Content-Length", std::to_string(length)}, {"ETag", etag}})) ==
              Body::start_over);
        CHECK(plan.on_bytes(come));
    }
    void come(std::uint64_t bytes) { CHECK(plan.on_bytes(bytes)); }
    void cut() { plan.on_end({{Errc::source_unavailable, "the connection was closed"}}); }
    Body part(std::uint64_t from, std::uint64_t total, const std::string& etag = "\"1\"") {
        const auto range = "bytes " + std::to_string(from) + "-" + std::to_string(total - 1) + "/";
        return plan.on_head(206, headers({{"Content-Range", range + std::to_string(total)}, {"ETag", etag}}));
    }

    SeededRandom random{1};
    FetchPlan plan;
};

TEST_CASE("a file that comes in one go is complete") {
    Plan p;
    const auto ask = p.ask();
    CHECK(ask.url == url);
    CHECK(ask.from == 0);
    CHECK(ask.if_range.empty());
    p.whole(mib, mib);
    p.plan.on_end();
    CHECK(p.complete());
    CHECK(p.plan.record() == PartRecord{url, "\"1\"", mib});
}

TEST_CASE("after a cut it is gone on with where it ended, if it is the same file still") {
    Plan p;
    (void)p.ask();
    p.whole(4 * mib, mib);
    p.cut();
    CHECK(std::holds_alternative<FetchPlan::Pause>(p.next()));
    const auto ask = p.ask();
    CHECK(ask.from == mib);
    CHECK(ask.if_range == "\"1\"");
    CHECK(p.part(mib, 4 * mib) == Body::append);
    p.come(3 * mib);
    p.plan.on_end();
    CHECK(p.complete());
}

TEST_CASE("a server that answers with the whole file begins it anew") {
    Plan p;
    (void)p.ask();
    p.whole(4 * mib, mib);
    p.cut();
    (void)p.ask();
    p.whole(4 * mib, 2 * mib, "\"2\"");
    CHECK(p.plan.have() == 2 * mib);
    CHECK(p.plan.record().validator == "\"2\"");
}

TEST_CASE("what is here is thrown away when the server has less, or another file") {
    Plan p;
    (void)p.ask();
    p.whole(4 * mib, mib);
    p.cut();
    (void)p.ask();
    SECTION("416") { CHECK(p.plan.on_head(416, {}) == Body::refuse); }
    SECTION("another ETag in a part") { CHECK(p.part(mib, 4 * mib, "\"2\"") == Body::refuse); }
    SECTION("another length") { CHECK(p.part(mib, 5 * mib) == Body::refuse); }
    SECTION("another part") { CHECK(p.part(2 * mib, 4 * mib) == Body::refuse); }
    SECTION("no Content-Range") { CHECK(p.plan.on_head(206, {}) == Body::refuse); }
    SECTION("a Content-Range that is none") {
        for (const auto* bad : {"bytes 5-4/9", "bytes 0-9/9", "items 0-1/9", "bytes */9", "bytes -/", "bytes 1-2"})
            CHECK(p.plan.on_head(206, headers({{"Content-Range", bad}})) == Body::refuse);
    }
    p.plan.on_end();
    CHECK(p.plan.have() == 0);
    CHECK(p.ask().from == 0);
}

TEST_CASE("a server that said too much, and that there is no more, has given all; a checksum is to tell") {
    for (const bool checksum : {true, false}) {
        Plan p{{url}, checksum};
        (void)p.ask();
        p.whole(4 * mib, mib);
        p.cut();
        (void)p.ask();
        CHECK(p.plan.on_head(416, headers({{"Content-Range", "bytes */1048576"}})) == Body::refuse);
        p.plan.on_end();
        CHECK(p.plan.have() == (checksum ? mib : 0));
        CHECK(p.complete() == checksum);
    }
}

TEST_CASE("an earlier run's bytes are gone on with") {
    Plan p{{url}, false, {url, "\"1\"", 4 * mib}, mib};
    const auto ask = p.ask();
    CHECK(ask.from == mib);
    CHECK(ask.if_range == "\"1\"");

    Plan nothing_known{{url}, true, {}, mib};
    CHECK(nothing_known.plan.have() == 0);
    Plan too_many{{url}, true, {url, "\"1\"", mib / 2}, mib};
    CHECK(too_many.plan.have() == 0);
    Plan all{{url}, true, {url, "\"1\"", mib}, mib};
    CHECK(all.complete());
}

TEST_CASE("without a validator only a checksum lets a file be put together") {
    const PartRecord known{url, "", 4 * mib};
    Plan with{{url}, true, known, mib};
    CHECK(with.ask().from == mib);
    Plan without{{url}, false, known, mib};
    CHECK(without.ask().from == 0);
}

TEST_CASE("a weak ETag and its time are no validator") {
    Plan p;
    (void)p.ask();
    (void)p.plan.on_head(200, headers({{"ETag", "W/\"1\""}, {"Last-Modified", "Tue, 01 Sep 2026 10:00:00 GMT"}}));
    CHECK(p.plan.record().validator.empty());
    (void)p.plan.on_head(200, headers({{"Last-Modified", "Tue, 01 Sep 2026 10:00:00 GMT"}}));
    CHECK(p.plan.record().validator == "Tue, 01 Sep 2026 10:00:00 GMT");
}

TEST_CASE("a mirror goes on with what another began, when a checksum will tell") {
    Plan p{{url, mirror}};
    (void)p.ask();
    p.whole(4 * mib, mib);
    p.cut();
    const auto ask = p.ask();
    CHECK(ask.url == mirror);
    CHECK(ask.from == mib);
    CHECK(ask.if_range.empty());
    CHECK(p.part(mib, 4 * mib, "\"other\"") == Body::append);

    Plan unproven{{url, mirror}, false};
    (void)unproven.ask();
    unproven.whole(4 * mib, mib);
    unproven.cut();
    CHECK(unproven.ask().from == 0);
}

TEST_CASE("a mirror with another file costs nothing of what the others gave") {
    const auto at_the_mirror = [](auto answer) {
        Plan p{{url, mirror}};
        (void)p.ask();
        p.whole(4 * mib, 3 * mib);
        p.cut();
        REQUIRE(p.ask().url == mirror);
        CHECK(answer(p) == Body::refuse);
        p.plan.on_end();
        CHECK(p.plan.have() == 3 * mib);
        const auto ask = p.ask();
        CHECK(ask.url == url);
        CHECK(ask.from == 3 * mib);
        CHECK(ask.if_range == "\"1\"");
        // It isn't asked again, as long as there is another.
        p.cut();
        CHECK(p.ask().url == url);
    };
    SECTION("shorter than what is here") {
        at_the_mirror([](Plan& p) { return p.plan.on_head(416, headers({{"Content-Range", "bytes */1048576"}})); });
    }
    SECTION("of another length") {
        at_the_mirror([](Plan& p) { return p.part(3 * mib, 5 * mib); });
    }
    SECTION("another part") {
        at_the_mirror([](Plan& p) { return p.part(2 * mib, 4 * mib); });
    }
    SECTION("the whole, of another length") {
        at_the_mirror([](Plan& p) { return p.plan.on_head(200, headers({{"Content-Length", "5242880"}})); });
    }
    SECTION("the whole, since it knows no ranges") {
        at_the_mirror([](Plan& p) { return p.plan.on_head(200, headers({{"Content-Length", "4194304"}})); });
    }
}

TEST_CASE("a mirror that only gives the whole is taken when there is no other") {
    Plan p{{url, mirror}};
    (void)p.ask();
    p.whole(4 * mib, 3 * mib);
    p.cut();
    REQUIRE(p.ask().url == mirror);
    CHECK(p.plan.on_head(200, headers({{"Content-Length", "4194304"}})) == Body::refuse);
    p.plan.on_end();
    REQUIRE(p.ask().url == url);
    (void)p.plan.on_head(404, {});
    p.plan.on_end();
    REQUIRE(p.ask().url == mirror);
    CHECK(p.plan.on_head(200, headers({{"Content-Length", "4194304"}})) == Body::start_over);
}

TEST_CASE("bytes of an earlier run that can't be used are no measure of how far one has got") {
    Plan p{{url}, true, {}, 100 * mib};
    for (std::uint64_t have = 0; have < 50 * mib; have += mib) {
        REQUIRE(p.ask().from == have);
        if (have == 0) {
            p.whole(50 * mib, mib);
        } else {
            CHECK(p.part(have, 50 * mib) == Body::append);
            p.come(mib);
        }
        p.cut();
    }
    CHECK(p.complete());
}

TEST_CASE("who waits is told for what") {
    Plan p{{"https://a.example/i?token=secret"}};
    (void)p.ask();
    p.plan.on_end({{Errc::source_unavailable, "cannot connect to https://a.example:443: Connection refused"}});
    const auto step = p.next();
    REQUIRE(std::holds_alternative<FetchPlan::Pause>(step));
    const auto why = std::get<FetchPlan::Pause>(step).why;
    CHECK(why == "https://a.example/i: cannot connect to https://a.example:443: Connection refused");
}

TEST_CASE("of several mirrors' faults the most telling is the end's") {
    Plan p{{url, mirror}};
    (void)p.ask();
    (void)p.plan.on_head(404, {});
    p.plan.on_end();
    (void)p.ask();
    p.whole(mib, mib);
    p.plan.on_end();
    REQUIRE(p.complete());
    p.plan.on_mismatch({Errc::checksum_mismatch, "not the one", {}, {{"expected", "sha256:1"}}});
    const auto end = p.gives_up();
    CHECK(end.code == Errc::checksum_mismatch);
    CHECK(end.facts.contains("expected"));
    CHECK(end.detail.find("status 404") != std::string::npos);
}

TEST_CASE("a mirror that hasn't got it isn't asked again") {
    Plan p{{url, mirror}};
    (void)p.ask();
    CHECK(p.plan.on_head(404, {}) == Body::refuse);
    p.plan.on_end();
    CHECK(p.ask().url == mirror);
    CHECK(p.plan.on_head(403, {}) == Body::refuse);
    p.plan.on_end();
    const auto why = p.gives_up();
    CHECK(why.code == Errc::source_unavailable);
    CHECK(why.detail.find("a.example/image.qcow2: answered with status 404") != std::string::npos);
    CHECK(why.detail.find("b.example/image.qcow2: answered with status 403") != std::string::npos);
}

TEST_CASE("a fault that stays ends it at once, with its own code") {
    Plan p{{"https://a.example/i?token=secret"}};
    (void)p.ask();
    p.plan.on_end({{Errc::address_not_allowed, "10.0.0.1 is not a public address"}, true});
    const auto why = p.gives_up();
    CHECK(why.code == Errc::address_not_allowed);
    CHECK(why.detail.find("secret") == std::string::npos);
}

TEST_CASE("a server that is down is asked again, after longer and longer, and not for ever") {
    Plan p;
    ghost::base::Duration longest{};
    unsigned asked = 0;
    for (;;) {
        const auto step = p.next();
        if (const auto* pause = std::get_if<FetchPlan::Pause>(&step)) {
            longest = std::max(longest, pause->span);
            continue;
        }
        if (std::holds_alternative<FetchPlan::GiveUp>(step)) break;
        ++asked;
        REQUIRE(asked < 100);
        CHECK(p.plan.on_head(503, {}) == Body::refuse);
        p.plan.on_end();
    }
    CHECK(asked == FetchPlan::patience);
    CHECK(longest > std::chrono::seconds{20});
    CHECK(longest <= std::chrono::seconds{60});
}

TEST_CASE("it waits as long as it is asked to, within reason") {
    Plan p;
    (void)p.ask();
    (void)p.plan.on_head(429, headers({{"Retry-After", "30"}}));
    auto step = p.next();
    REQUIRE(std::holds_alternative<FetchPlan::Pause>(step));
    CHECK(std::get<FetchPlan::Pause>(step).span == std::chrono::seconds{30});
    (void)p.ask();
    (void)p.plan.on_head(503, headers({{"Retry-After", "86400"}}));
    step = p.next();
    CHECK(std::get<FetchPlan::Pause>(step).span == std::chrono::seconds{120});
}

TEST_CASE("as long as each attempt gets further there is no end to patience") {
    Plan p;
    (void)p.ask();
    p.whole(100 * mib, mib);
    for (std::uint64_t have = mib; have < 100 * mib; have += mib) {
        p.cut();
        REQUIRE(p.ask().from == have);
        REQUIRE(p.part(have, 100 * mib) == Body::append);
        p.come(mib);
    }
    p.plan.on_end();
    CHECK(p.complete());
}

TEST_CASE("attempts that begin at the beginning again and get no further end") {
    Plan p;
    unsigned asked = 0;
    while (std::holds_alternative<FetchPlan::Ask>(p.next()) || asked == 0) {
        ++asked;
        p.whole(100 * mib, 10 * mib);
        p.cut();
        (void)p.next();  // the pause
        REQUIRE(asked < 100);
    }
    CHECK(asked <= FetchPlan::patience + 2);
}

TEST_CASE("a body of unknown length ends where the answer does") {
    Plan p;
    (void)p.ask();
    CHECK(p.plan.on_head(200, {}) == Body::start_over);
    p.come(mib);
    p.plan.on_end();
    CHECK(p.complete());
    CHECK(p.plan.record().total == mib);
}

TEST_CASE("an answer that is longer or shorter than it said isn't taken for the file") {
    Plan p;
    (void)p.ask();
    p.whole(mib, mib / 2);
    p.plan.on_end();
    CHECK(p.ask().from == mib / 2);
    CHECK(p.part(mib / 2, mib) == Body::append);
    p.come(mib / 2);
    CHECK_FALSE(p.plan.on_bytes(1));
    CHECK(p.plan.have() == mib);
    p.plan.on_end();
    CHECK(p.plan.have() == 0);
}

TEST_CASE("no answer brings more than it announced, however long it goes on") {
    Plan p;
    (void)p.ask();
    CHECK(p.plan.on_head(206, headers({{"Content-Range", "bytes 0-0/1"}})) == Body::append);
    p.come(1);
    CHECK_FALSE(p.plan.on_bytes(1));
    p.plan.on_end();
    CHECK(p.plan.have() == 0);
    CHECK_FALSE(p.complete());
}

TEST_CASE("a server that gives a part at a time is asked for one after the other, without a pause") {
    for (const auto* total : {"4194304", "*"}) {
        CAPTURE(total);
        Plan p;
        (void)p.ask();
        p.whole(4 * mib, 0);
        if (total == std::string{"*"}) (void)p.plan.on_head(200, {});
        for (std::uint64_t have = 0; have < 4 * mib; have += mib) {
            const auto range = fmt::format("bytes {}-{}/{}", have, have + mib - 1, total);
            CHECK(p.plan.on_head(206, headers({{"Content-Range", range}, {"ETag", "\"1\""}})) == Body::append);
            p.come(mib);
            p.plan.on_end();
            CHECK(p.plan.have() == have + mib);
            if (have + mib == 4 * mib) break;
            const auto next = p.next();
            REQUIRE(std::holds_alternative<FetchPlan::Ask>(next));
            CHECK(std::get<FetchPlan::Ask>(next).from == have + mib);
        }
        if (total == std::string{"*"}) {
            REQUIRE(std::holds_alternative<FetchPlan::Ask>(p.next()));
            (void)p.plan.on_head(416, headers({{"Content-Range", "bytes */4194304"}}));
            p.plan.on_end();
        }
        CHECK(p.complete());
    }
}

TEST_CASE("another checksum: what was put together is fetched once more, what came in one go isn't") {
    const ghost::base::Error why{Errc::checksum_mismatch, "not the one", {}, {{"expected", "sha256:1"}}};
    Plan p;
    (void)p.ask();
    p.whole(4 * mib, mib);
    p.cut();
    (void)p.ask();
    (void)p.part(mib, 4 * mib);
    p.come(3 * mib);
    p.plan.on_end();
    REQUIRE(p.complete());
    p.plan.on_mismatch(why);
    CHECK(p.ask().from == 0);
    p.whole(4 * mib, 4 * mib);
    p.plan.on_end();
    REQUIRE(p.complete());
    p.plan.on_mismatch(why);
    const auto end = p.gives_up();
    CHECK(end.code == Errc::checksum_mismatch);
    CHECK(end.facts.contains("expected"));
}

TEST_CASE("a mirror with another file leaves it to the others") {
    Plan p{{url, mirror}};
    (void)p.ask();
    p.whole(mib, mib);
    p.plan.on_end();
    REQUIRE(p.complete());
    p.plan.on_mismatch({Errc::checksum_mismatch, "not the one"});
    CHECK(p.ask().url == mirror);
}

}  // namespace
