#include "heartbeat/enrolment.hpp"

#include "tests/fakes/certificates.hpp"
#include "tests/fakes/seeded_random.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>

using namespace ghost;
using base::Errc;
namespace json = boost::json;

namespace {

struct Core {
    fakes::CertificateAuthority ca{"core CA"};
    fakes::Identity node = ca.issue({.common_name = "node-7"});

    [[nodiscard]] json::object enrolled() const {
        return {{"agent_id", "node-7"},
                {"certificate", node.certificate},
                {"ca", ca.certificate()},
                {"core_urls", json::array{"https://a.example", "https://[::1]:8443/core"}}};
    }
    [[nodiscard]] base::Result<heartbeat::Enrolled> read(const json::object& answer) const {
        return heartbeat::read_enrolled(json::serialize(answer), node.key);
    }
    // The sentence about an answer in which `spoil` has changed something.
    [[nodiscard]] std::string fault(const std::function<void(json::object&)>& spoil) const {
        auto answer = enrolled();
        spoil(answer);
        const auto read_it = read(answer);
        REQUIRE_FALSE(read_it);
        CHECK(read_it.error().code == Errc::source_unavailable);
        return read_it.error().detail;
    }
};

constexpr std::string_view useless = "Ghost Core's answer is of no use: ";

}  // namespace

TEST_CASE_METHOD(Core, "an enrolment's answer is taken when all in it fits") {
    auto answer = enrolled();
    answer["later"] = "members that aren't known don't matter";
    const auto taken = read(answer);
    REQUIRE(taken);
    CHECK(taken->agent_id == "node-7");
    CHECK(taken->certificate == node.certificate);
    CHECK(taken->ca == ca.certificate());
    CHECK(taken->core_urls == std::vector<std::string>{"https://a.example", "https://[::1]:8443/core"});
    answer["core_urls"] = json::array{};
    CHECK(read(answer)->core_urls.empty());
}

TEST_CASE_METHOD(Core, "an enrolment's answer with something wrong in it is refused with a sentence") {
    for (const auto* text : {"", "{", "[]", "null", "{} {}"}) {
        const auto taken = heartbeat::read_enrolled(text, node.key);
        REQUIRE_FALSE(taken);
        CHECK(taken.error().detail == std::string{useless} + "it is no JSON object");
    }
    for (const auto* member : {"agent_id", "certificate", "ca", "core_urls"}) {
        CAPTURE(member);
        CHECK(fault([member](json::object& answer) { answer.erase(member); }).find(member) != std::string::npos);
        CHECK(fault([member](json::object& answer) { answer[member] = 7; }).find(member) != std::string::npos);
    }
    for (const auto* id : {"", "a/b", "node 7", "node\n", "nöde"})
        CHECK(fault([id](json::object& answer) { answer["agent_id"] = id; }) ==
              std::string{useless} + "agent_id is no id");
    CHECK(fault([](json::object& answer) { answer["agent_id"] = std::string(65, 'a'); }).find("agent_id") !=
          std::string::npos);
    CHECK(fault([](json::object& answer) { answer["agent_id"] = "node-8"; }) ==
          std::string{useless} + "the certificate is not in the name of node-8");
    CHECK(fault([this](json::object& answer) {
              answer["certificate"] = ca.issue({.common_name = "node-7"}).certificate;
          }) == std::string{useless} + "the certificate is not for this key");
    CHECK(fault([](json::object& answer) {
              answer["certificate"] = "junk";
          }).starts_with(std::string{useless} + "certificate: not a PEM certificate"));
    CHECK(fault([](json::object& answer) {
              answer["ca"] = "junk";
          }).starts_with(std::string{useless} + "ca: not a PEM certificate"));
    CHECK(fault([this](json::object& answer) { answer["ca"] = ca.certificate() + std::string(65'536, '\n'); }) ==
          std::string{useless} + "ca is too long");
    for (const auto* url : {"http://a.example", "https://", "https://user@a.example", "a.example", ""})
        CHECK(fault([url](json::object& answer) {
                  answer["core_urls"] = json::array{"https://ok.example", url};
              }).find("core_urls") != std::string::npos);
    const json::array many(17, "https://a.example");
    CHECK(fault([&many](json::object& answer) { answer["core_urls"] = many; }) ==
          std::string{useless} + "core_urls has more than 16");
}

TEST_CASE_METHOD(Core, "a renewal brings a certificate for the same key and name, and perhaps other CAs") {
    const auto read_it = [this](const json::object& answer) {
        return heartbeat::read_renewed(json::serialize(answer), node.key, "node-7");
    };
    const auto plain = read_it({{"certificate", node.certificate}});
    REQUIRE(plain);
    CHECK(plain->certificate == node.certificate);
    CHECK(plain->ca.empty());
    CHECK(read_it({{"certificate", node.certificate}, {"ca", ca.certificate()}})->ca == ca.certificate());
    CHECK_FALSE(read_it({{"certificate", node.certificate}, {"ca", "junk"}}));
    CHECK_FALSE(read_it({{"certificate", ca.issue({.common_name = "node-7"}).certificate}}));
    CHECK_FALSE(read_it({{"ca", ca.certificate()}}));
    CHECK_FALSE(
        heartbeat::read_renewed(json::serialize(json::object{{"certificate", node.certificate}}), node.key, "node-8"));
}

TEST_CASE("a refusal is a sentence and says whether trying again is of use") {
    const auto unknown = heartbeat::refusal(403, R"({"code":"token_unknown","detail":"no","status":403})");
    CHECK(unknown.code == Errc::forbidden);
    CHECK(unknown.detail.starts_with("Ghost Core doesn't know this enrolment token"));
    CHECK(unknown.facts.at("code") == "token_unknown");
    CHECK(unknown.facts.at("status") == 403);
    CHECK(heartbeat::refusal(403, R"({"code":"token_used"})").detail.starts_with("another installation"));
    const auto upgrade = heartbeat::refusal(426, R"({"code":"upgrade_required","detail":"too old"})");
    CHECK(upgrade.code == Errc::validation_failed);
    CHECK(upgrade.detail == "Ghost Core answered 426: too old");
    CHECK(heartbeat::refusal(401, "").code == Errc::forbidden);
    CHECK(heartbeat::refusal(404, "").code == Errc::not_found);
    for (const unsigned status : {200U, 302U, 410U, 429U, 500U, 503U})
        CHECK(heartbeat::refusal(status, "").code == Errc::source_unavailable);
    // A proxy's page, and what would paint a terminal.
    CHECK(heartbeat::refusal(502, "<html>").detail == "Ghost Core answered 502");
    CHECK_FALSE(heartbeat::refusal(502, "<html>").facts.contains("code"));
    CHECK(heartbeat::refusal(500, R"({"detail":"a\u001b[31m\nb"})").detail == "Ghost Core answered 500: a [31m b");
    const auto longest =
        heartbeat::refusal(500, json::serialize(json::object{{"detail", std::string(299, 'x') + "ü"}}));
    CHECK(longest.detail == "Ghost Core answered 500: " + std::string(299, 'x'));
}

TEST_CASE("of a token its digest is kept") {
    CHECK(heartbeat::token_digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("a certificate is renewed around half of its life, each node at a time of its own") {
    using namespace std::chrono_literals;
    fakes::SeededRandom random;
    const base::Wall from = base::from_unix_ms(1'700'000'000'000);
    const net::CertificateFacts year{"node", from, from + 24h * 360};
    auto earliest = base::Wall::max();
    auto latest = base::Wall::min();
    for (int i = 0; i < 1000; ++i) {
        const auto when = heartbeat::renewal_time(year, random);
        earliest = std::min(earliest, when);
        latest = std::max(latest, when);
    }
    CHECK(earliest >= from + 24h * 171);
    CHECK(earliest < from + 24h * 172);
    CHECK(latest <= from + 24h * 189);
    CHECK(latest > from + 24h * 188);
    // What has expired or is about to has been due for long.
    CHECK(heartbeat::renewal_time({"node", from - 100h, from}, random) < from - 47h);
    // For ever doesn't overflow.
    const auto forever = heartbeat::renewal_time({"node", from, base::Wall::max()}, random);
    CHECK(forever > from + 24h * 365 * 50);
    CHECK(forever < base::Wall::max());
}
