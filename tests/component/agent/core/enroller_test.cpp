#include "agent/core/enroller.hpp"

#include "agent/core/local_addresses.hpp"
#include "fakes/awaiting.hpp"
#include "fakes/certificates.hpp"
#include "fakes/fake_client.hpp"
#include "fakes/memory_files.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"
#include "heartbeat/enrolment.hpp"

#include <boost/asio/ip/address.hpp>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <string>

using namespace ghost;
using base::Errc;
namespace json = boost::json;

namespace {

// Core as far as certificates go, and the disk of a node.
struct Scene {
    fakes::TestLoop loop;
    fakes::MemoryFiles files;
    fakes::CertificateAuthority ca{"core CA"};
    fakes::CertificateAuthority next_ca{"next core CA"};
    agent::CredentialFiles credentials{files, "/state"};
    std::string agent_id = "node-7";
    bool other_ca = false;  // renewals bring it
    fakes::FakeClient core{[this](const net::ClientRequest& request) { return answer(request); }};

    Scene() { files.put_directory("/state"); }

    base::Result<net::ClientResponse> answer(const net::ClientRequest& request) {
        const auto asked = json::parse(request.body).as_object();
        const auto signed_one = ca.sign(std::string{asked.at("csr").as_string()}, {.common_name = agent_id});
        REQUIRE(signed_one);
        if (request.target.ends_with("/certificate")) {
            json::object renewed{{"certificate", *signed_one}};
            if (other_ca) renewed["ca"] = next_ca.certificate();
            return fakes::json_answer(200, json::serialize(renewed));
        }
        if (asked.at("token").as_string() != "t0ken")
            return fakes::json_answer(403, R"({"code":"token_unknown","status":403})");
        return fakes::json_answer(201, json::serialize(json::object{{"agent_id", agent_id},
                                                                    {"certificate", *signed_one},
                                                                    {"ca", ca.certificate()},
                                                                    {"core_urls", json::array{"https://a.example"}}}));
    }
    static heartbeat::Identity fresh() { return {"019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b", "", 3}; }
    base::Result<heartbeat::Identity> enrol(heartbeat::Identity identity, std::string token = "t0ken") {
        agent::Joining joining{.token = std::move(token),
                               .name = "den-pc",
                               .resources = {{"cpus", 4}},
                               .addresses = {{"local", json::array{}}},
                               .base_path = "/core"};
        return loop.await(agent::enrol(core, credentials, std::move(identity), std::move(joining)));
    }
    agent::Credentials load() {
        auto there = loop.await(credentials.load());
        if (!there) FAIL(there.error().detail);
        return *there;
    }
    // As the next start would read it.
    heartbeat::Identity kept() {
        fakes::VirtualClock clock;
        fakes::SeededRandom random;
        return heartbeat::next_identity(files.find("/state/identity.json")->bytes, clock, random).value();
    }
};

}  // namespace

TEST_CASE_METHOD(Scene, "an enrolment keeps key, certificate, CAs and identity, each as private as it must be") {
    const auto identity = enrol(fresh());
    REQUIRE(identity);
    CHECK(identity->agent_id == "node-7");
    CHECK(identity->epoch == 3);
    CHECK(core.requests.at(0).target == "/core/v1/agents/enroll");
    CHECK(core.requests.at(0).connect_timeout == std::chrono::seconds{5});

    CHECK(files.find("/state/core")->mode == 0700);
    CHECK(files.find("/state/core/key.pem")->mode == 0600);
    CHECK(files.find("/state/identity.json")->mode == 0600);
    const auto credentials_now = load();
    CHECK(net::check_pair(credentials_now.certificate, credentials_now.key));
    CHECK(credentials_now.ca == ca.certificate());
    CHECK(kept().agent_id == "node-7");
    CHECK(kept().install_id == fresh().install_id);
    CHECK(kept().epoch == 4);
    CHECK(kept().used_token == heartbeat::token_digest("t0ken"));
    CHECK(kept().core_urls == std::vector<std::string>{"https://a.example"});
    CHECK(files.find("/state/identity.json")->bytes.find("t0ken") == std::string::npos);

    // Again: the key stays.
    REQUIRE(enrol(*identity));
    CHECK(load().key == credentials_now.key);
    CHECK(load().certificate != credentials_now.certificate);
}

TEST_CASE_METHOD(Scene, "a refused enrolment leaves a key and nothing else") {
    const auto refused = enrol(fresh(), "other");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::forbidden);
    CHECK(refused.error().facts.at("code") == "token_unknown");
    CHECK(files.files() == std::vector<std::string>{"/state/core/key.pem"});
}

TEST_CASE_METHOD(Scene, "an answer that doesn't fit is no enrolment") {
    fakes::FakeClient wrong{[this](const net::ClientRequest&) -> base::Result<net::ClientResponse> {
        const auto another = ca.issue({.common_name = "node-7"});
        return fakes::json_answer(201, json::serialize(json::object{{"agent_id", "node-7"},
                                                                    {"certificate", another.certificate},
                                                                    {"ca", ca.certificate()},
                                                                    {"core_urls", json::array{}}}));
    }};
    const auto refused = loop.await(
        agent::enrol(wrong, credentials, fresh(), {.token = "t0ken", .name = "x", .resources = {}, .addresses = {}}));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().detail == "Ghost Core's answer is of no use: the certificate is not for this key");
    CHECK(files.files() == std::vector<std::string>{"/state/core/key.pem"});
}

TEST_CASE_METHOD(Scene,
                 "whichever write fails, the identity tells of an enrolment that is whole, and it can be repeated") {
    for (unsigned n = 1;; ++n) {
        CAPTURE(n);
        fakes::MemoryFiles disk;
        disk.put_directory("/state");
        agent::CredentialFiles there{disk, "/state"};
        const agent::Joining joining{.token = "t0ken", .name = "x", .resources = {}, .addresses = {}};
        disk.fail_change(n, {Errc::insufficient_storage, "full"});
        const auto first = loop.await(agent::enrol(core, there, fresh(), joining));
        if (first) {
            CHECK(n > 4);
            break;
        }
        CHECK(first.error().code == Errc::insufficient_storage);
        CHECK_FALSE(disk.exists("/state/identity.json"));
        REQUIRE(loop.await(agent::enrol(core, there, fresh(), joining)));
        const auto now = loop.await(there.load());
        CHECK(net::check_pair(now->certificate, now->key));
        REQUIRE(n < 20);
    }
}

TEST_CASE_METHOD(Scene, "who gets another id is nobody until the new certificate is there") {
    auto identity = enrol(fresh()).value();
    agent_id = "node-8";
    unsigned n = 1;
    for (;; ++n) {
        files.fail_change(n, {Errc::io_error, "broken"});
        const auto moved = enrol(identity);
        const auto certificate = net::read_certificate(load().certificate)->common_name;
        if (moved) {
            CHECK(certificate == "node-8");
            CHECK(kept().agent_id == "node-8");
            break;
        }
        const auto name = kept().agent_id;
        CHECK((name.empty() || name == certificate));
        REQUIRE(n < 20);
    }
    CHECK(n > 3);
}

TEST_CASE_METHOD(Scene, "a renewal replaces the certificate, and the CAs when there are others") {
    REQUIRE(enrol(fresh()));
    const auto before = load();
    auto renewed = loop.await(agent::renew(core, credentials, "node-7", ""));
    REQUIRE(renewed);
    CHECK(core.requests.back().target == "/v1/agents/node-7/certificate");
    CHECK(renewed->key == before.key);
    CHECK(renewed->certificate != before.certificate);
    CHECK(renewed->ca == before.ca);
    CHECK(load().certificate == renewed->certificate);
    other_ca = true;
    REQUIRE(loop.await(agent::renew(core, credentials, "node-7", "/base")));
    CHECK(core.requests.back().target == "/base/v1/agents/node-7/certificate");
    CHECK(load().ca == next_ca.certificate());

    agent_id = "node-8";
    const auto others = load().certificate;
    CHECK_FALSE(loop.await(agent::renew(core, credentials, "node-7", "")));
    CHECK(load().certificate == others);
}

TEST_CASE_METHOD(Scene, "credentials that aren't there are empty, and a key that others could read is a fault") {
    CHECK(load().key.empty());
    CHECK(load().certificate.empty());
    CHECK_FALSE(loop.await(agent::renew(core, credentials, "node-7", "")));
    files.put("/state/core/key.pem", "key", 0640);
    const auto fault = loop.await(credentials.load());
    REQUIRE_FALSE(fault);
    CHECK(fault.error().detail.starts_with("/state/core/key.pem has mode 0640: "));
    files.put("/state/core/key.pem", "junk", 0600);
    const auto junk = enrol(fresh());
    REQUIRE_FALSE(junk);
    CHECK(junk.error().detail.starts_with("/state/core/key.pem: not an unencrypted PEM key"));
}

TEST_CASE("the local addresses are numeric and reach farther than this machine") {
    for (const auto& text : agent::local_addresses()) {
        boost::system::error_code error;
        const auto address = boost::asio::ip::make_address(text, error);
        CHECK_FALSE(error);
        CHECK_FALSE(address.is_loopback());
    }
}
