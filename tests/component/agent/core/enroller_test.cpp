#include "agent/core/enroller.hpp"

#include "fakes/awaiting.hpp"
#include "fakes/certificates.hpp"
#include "fakes/memory_files.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"
#include "heartbeat/enrolment.hpp"
#include "net/x509.hpp"

#include <boost/asio/ip/address.hpp>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <functional>
#include <string>
#include <utility>
#include <vector>

using namespace ghost;
using base::Errc;
namespace json = boost::json;

namespace {

class ScriptedLink final : public heartbeat::CoreLink {
public:
    using Script = std::function<heartbeat::CoreAnswer(const heartbeat::CoreCall&)>;
    explicit ScriptedLink(Script script) : script_(std::move(script)) {}

    boost::asio::awaitable<base::Result<heartbeat::CoreAnswer>> send(heartbeat::CoreCall call) override {
        calls.push_back(call);
        co_return script_(call);
    }
    void drop() override {}
    base::Result<void> use(heartbeat::Credentials, std::optional<std::string>) override { return {}; }

    std::vector<heartbeat::CoreCall> calls;

private:
    Script script_;
};

heartbeat::CoreAnswer answer_of(unsigned status, const json::object& body) {
    return {.status = status, .body = json::serialize(body)};
}

// Core as far as certificates go, and the disk of a node.
struct Scene {
    fakes::TestLoop loop;
    fakes::MemoryFiles files;
    fakes::CertificateAuthority ca{"core CA"};
    agent::CredentialFiles credentials{files, "/state"};
    std::string agent_id = "node-7";
    ScriptedLink core{[this](const heartbeat::CoreCall& call) { return answer(call); }};

    Scene() { files.put_directory("/state"); }

    heartbeat::CoreAnswer answer(const heartbeat::CoreCall& call) {
        const auto certificate = ca.sign(std::string{call.body.at("csr").as_string()}, {.common_name = agent_id});
        REQUIRE(certificate);
        if (call.body.at("token").as_string() != "t0ken")
            return answer_of(403, {{"code", "token_unknown"}, {"status", 403}});
        return answer_of(201, {{"agent_id", agent_id},
                               {"certificate", *certificate},
                               {"ca", ca.certificate()},
                               {"core_urls", json::array{"https://a.example"}}});
    }
    static heartbeat::Identity fresh() { return {"019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b", "", 3}; }
    base::Result<heartbeat::Identity> enrol(heartbeat::Identity identity, std::string token = "t0ken") {
        agent::Joining joining{.url = "https://core.example",
                               .token = std::move(token),
                               .name = "den-pc",
                               .resources = {{"cpus", 4}},
                               .addresses = {{"local", json::array{}}}};
        return loop.await(agent::enrol(core, credentials, std::move(identity), std::move(joining)));
    }
    heartbeat::Credentials load() {
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
    REQUIRE(core.calls.size() == 1);
    CHECK(core.calls[0].call == heartbeat::Call::enroll);
    CHECK(core.calls[0].url == "https://core.example");
    CHECK(core.calls[0].body.at("install_id").as_string() == fresh().install_id);
    CHECK(core.calls[0].body.at("name") == "den-pc");
    CHECK(core.calls[0].body.at("version") == GHOST_VERSION);
    CHECK(core.calls[0].body.at("resources") == json::value{{"cpus", 4}});

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
    ScriptedLink wrong{[this](const heartbeat::CoreCall&) {
        return answer_of(201, {{"agent_id", "node-7"},
                               {"certificate", ca.issue({.common_name = "node-7"}).certificate},
                               {"ca", ca.certificate()},
                               {"core_urls", json::array{}}});
    }};
    const auto refused = loop.await(agent::enrol(
        wrong, credentials, fresh(), {.url = {}, .token = "t0ken", .name = "x", .resources = {}, .addresses = {}}));
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
        const agent::Joining joining{.url = {}, .token = "t0ken", .name = "x", .resources = {}, .addresses = {}};
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

TEST_CASE_METHOD(Scene, "a renewed certificate takes the place of the old one, and CAs stay unless there are others") {
    REQUIRE(enrol(fresh()));
    const auto before = load();
    REQUIRE(loop.await(credentials.keep_certificate("renewed", "")));
    CHECK(load().certificate == "renewed");
    CHECK(load().ca == before.ca);
    // The certificate that is there goes on with other CAs.
    files.fail_paths("cert.pem", {Errc::io_error, "broken"});
    CHECK_FALSE(loop.await(credentials.keep_certificate("lost", "other CAs")));
    files.fail_paths("", {});
    CHECK(load().certificate == "renewed");
    CHECK(load().ca == "other CAs");
    REQUIRE(loop.await(credentials.keep_certificate("newest", "newest CAs")));
    CHECK(load().certificate == "newest");
    CHECK(load().ca == "newest CAs");
    CHECK(load().key == before.key);
}

TEST_CASE_METHOD(Scene, "credentials that aren't there are empty, and a key that others could read is a fault") {
    CHECK(load().key.empty());
    CHECK(load().certificate.empty());
    files.put("/state/core/key.pem", "key", 0640);
    const auto fault = loop.await(credentials.load());
    REQUIRE_FALSE(fault);
    CHECK(fault.error().detail.starts_with("/state/core/key.pem has mode 0640: "));
    files.put("/state/core/key.pem", "junk", 0600);
    const auto junk = enrol(fresh());
    REQUIRE_FALSE(junk);
    CHECK(junk.error().detail.starts_with("/state/core/key.pem: not an unencrypted PEM key"));
}
