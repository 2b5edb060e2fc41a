#include "heartbeat/identity.hpp"

#include "base/ids.hpp"
#include "tests/fakes/seeded_random.hpp"
#include "tests/fakes/virtual_clock.hpp"

#include <catch2/catch.hpp>

#include <limits>

using namespace ghost;
using heartbeat::Identity;
using heartbeat::next_identity;

namespace {

struct Start {
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    base::Result<Identity> from(std::string_view text) { return next_identity(text, clock, random); }
    base::Result<Identity> first() { return next_identity(std::nullopt, clock, random); }
};

}  // namespace

TEST_CASE_METHOD(Start, "the first start makes an id of its own and is epoch one") {
    const auto one = first();
    REQUIRE(one);
    CHECK(base::is_uuid(one->install_id));
    CHECK(one->agent_id.empty());
    CHECK(one->epoch == 1);
    CHECK(first()->install_id != one->install_id);
}

TEST_CASE_METHOD(Start, "a file that is empty is damaged, not a first start") { CHECK_FALSE(from("")); }

TEST_CASE_METHOD(Start, "each later start keeps both ids and raises the epoch") {
    auto identity = *first();
    identity.agent_id = "node-7";
    for (std::uint64_t epoch = 2; epoch < 5; ++epoch) {
        const auto next = from(heartbeat::to_text(identity));
        REQUIRE(next);
        CHECK(next->install_id == identity.install_id);
        CHECK(next->agent_id == "node-7");
        CHECK(next->epoch == epoch);
        identity = *next;
    }
}

TEST_CASE_METHOD(Start, "what the enrolment told stays, and an older file has none of it") {
    auto identity = *first();
    const auto plain = heartbeat::to_text(identity);
    CHECK(plain.find("used_token") == std::string::npos);
    CHECK(from(plain)->used_token.empty());
    CHECK(from(plain)->core_urls.empty());

    identity.agent_id = "node-7";
    identity.used_token = std::string(64, 'a');
    identity.core_urls = {"https://b.example", "https://a.example:8443"};
    const auto next = from(heartbeat::to_text(identity));
    REQUIRE(next);
    CHECK(next->used_token == identity.used_token);
    CHECK(next->core_urls == identity.core_urls);
    CHECK(next->epoch == identity.epoch + 1);

    // A newer agent may have written more.
    auto more = heartbeat::to_text(identity);
    more.insert(1, R"("later":{"a":[1]},)");
    CHECK(from(more)->agent_id == "node-7");
}

TEST_CASE_METHOD(Start, "damaged text is a fault, never a new identity") {
    const std::string uuid = first()->install_id;
    const auto with = [&uuid](const std::string& rest) { return R"({"install_id":")" + uuid + "\"" + rest + "}"; };
    REQUIRE(from(with(R"(,"agent_id":"","epoch":3)"))->epoch == 4);

    for (const std::string& text : {std::string{" "},
                                    std::string{"{"},
                                    std::string{"[]"},
                                    std::string{"null"},
                                    std::string{"{}"},
                                    std::string{R"({"install_id":"x","agent_id":"","epoch":1})"},
                                    std::string{1, '\0'},
                                    with(""),
                                    with(R"(,"agent_id":"")"),
                                    with(R"(,"epoch":1)"),
                                    with(R"(,"agent_id":1,"epoch":1)"),
                                    with(R"(,"agent_id":"","epoch":-1)"),
                                    with(R"(,"agent_id":"","epoch":"1")"),
                                    with(R"(,"agent_id":"","epoch":1.5)"),
                                    with(R"(,"agent_id":"","epoch":18446744073709551615)"),
                                    with(R"(,"agent_id":"","epoch":1e30)"),
                                    with(R"(,"agent_id":"","epoch":1,"used_token":1)"),
                                    with(R"(,"agent_id":"","epoch":1,"core_urls":"https://a")"),
                                    with(R"(,"agent_id":"","epoch":1,"core_urls":[1])"),
                                    with(R"(,"agent_id":"","epoch":1) trailing)")}) {
        CAPTURE(text);
        const auto result = from(text);
        REQUIRE_FALSE(result);
        CHECK(result.error().code == base::Errc::io_error);
        CHECK(result.error().detail.find("identity.json") != std::string::npos);
    }
}

TEST_CASE_METHOD(Start, "the highest epochs survive the text form") {
    Identity identity{first()->install_id, "a", std::numeric_limits<std::uint64_t>::max() - 1};
    CHECK(from(heartbeat::to_text(identity))->epoch == std::numeric_limits<std::uint64_t>::max());
}
