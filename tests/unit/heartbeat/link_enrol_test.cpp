// Joining Core and keeping a certificate that is valid, with certificates that are real.
#include "heartbeat/link.hpp"
#include "net/x509.hpp"
#include "tests/fakes/certificates.hpp"
#include "tests/unit/heartbeat/link_scene.hpp"

#include <boost/json/serialize.hpp>

#include <algorithm>

using namespace std::chrono_literals;
using namespace ghost;
using namespace ghost::tests;
using heartbeat::Call;

namespace {

// Certificates are made by the machine's clock, and all here goes by one that starts at it.
struct Scene : LinkScene {
    Scene() : LinkScene(1, [this](const auto& csr, const auto& id, auto asked) { return issue(csr, id, asked); }) {
        core.settings.tokens = {"t0ken", "fresh"};
        core.settings.ca = ca.certificate();
        core.settings.core_urls = {"https://core.example"};
        core.settings.certificate_lifetime = 24h;
        settings.key = *net::make_private_key();
        settings.csr = *net::make_csr(settings.key, "install");
        settings.token = "t0ken";
        clock.set_wall(std::chrono::system_clock::now());
    }
    std::optional<fakes::FakeCore::Issued> issue(const std::string& csr, const std::string& id,
                                                 std::chrono::seconds lifetime) {
        const auto granted = life(lifetime);
        // Of the time that has passed for the machine meanwhile, nothing is to be seen.
        const auto from = std::chrono::floor<std::chrono::seconds>(clock.wall()) -
                          std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
        auto pem =
            ca.sign(csr, {.common_name = id, .valid_from_s = from.count(), .valid_until_s = (from + granted).count()});
        if (!pem) return std::nullopt;
        return fakes::FakeCore::Issued{*std::move(pem), clock.wall() + granted};
    }
    std::size_t count(Call call, const std::vector<Sent>& sent) const {
        return static_cast<std::size_t>(std::ranges::count(sent, call, &Sent::call));
    }
    fakes::FakeCore::Agent& agent() { return *core.agent(link->status().agent_id); }

    fakes::CertificateAuthority ca{"Core's CA"};
    std::function<std::chrono::seconds(std::chrono::seconds)> life = [](auto asked) { return asked; };
};

}  // namespace

TEST_CASE("a token brings a certificate, and a session follows", "[link]") {
    Scene s;
    s.open({});
    CHECK(s.state() == "enrolling");
    const auto sent = s.until(Call::enroll);
    CHECK(sent.status == 201);
    CHECK(s.link->status().certificate_expires.has_value());
    s.connect();
    CHECK(s.agent().install_id == s.settings.install_id);
    CHECK(s.core.violations().empty());
}

TEST_CASE("an enrolment whose answer was lost is made again and comes to the same agent", "[link]") {
    Scene s;
    s.core.faults.drop_reply.next = 2;
    s.open({});
    s.connect();
    CHECK(s.core.agents().size() == 1);
    CHECK(s.agent().certificates == 3);
}

TEST_CASE("a token that isn't taken is said, and tried slowly", "[link]") {
    Scene s;
    s.settings.token = "wrong";
    s.open({});
    const auto sent = s.pass(30min);
    CHECK(s.state() == "refused");
    CHECK(sent.size() >= 3);
    CHECK(sent.size() <= 7);
    CHECK(s.link->status().detail.find("403") != std::string::npos);
}

TEST_CASE("a token that was used isn't used again", "[link]") {
    Scene s;
    s.open({"", heartbeat::token_digest("t0ken"), {}, {}});
    CHECK(s.state() == "not_enrolled");
    CHECK(s.pass(1h).empty());
}

TEST_CASE("a certificate is renewed at half of its life, without a missed beat", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    const auto first = s.pass(10h);
    CHECK(s.count(Call::renew, first) == 0);
    const auto sent = s.pass(4h);
    CHECK(s.count(Call::renew, sent) == 1);
    CHECK(s.agent().certificates == 2);
    CHECK(s.state() == "connected");
    CHECK(s.count(Call::renew, s.pass(48h)) >= 3);
    CHECK(s.core.violations().empty());
}

TEST_CASE("a certificate that is half through when it comes isn't renewed all the time", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    s.life = [](auto) { return 1s; };
    const auto sent = s.pass(15h);
    CHECK(s.count(Call::renew, sent) >= 2);
    CHECK(s.count(Call::renew, sent) <= 3 * 3 * 60);  // it expires at once, too: beats are refused
    CHECK(s.count(Call::heartbeat, sent) >= 14 * 60);
}

TEST_CASE("a renewal that fails is tried again, and beats go on", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    s.core.faults.overrides.push_back({"certificate", GENERATE(500U, 403U, 422U), 5, {}});
    const auto sent = s.pass(14h);
    CHECK(s.agent().certificates == 2);
    CHECK(s.count(Call::heartbeat, sent) >= 14 * 60);
    CHECK(s.state() == "connected");
}

TEST_CASE("a renewal that is overdue is said before the certificate expires", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    s.core.faults.overrides.push_back({"certificate", 500, 1'000'000, {}});
    (void)s.pass(15h);
    CHECK(s.link->status().warnings.empty());
    (void)s.pass(2h);
    CHECK(s.state() == "connected");
    REQUIRE(s.link->status().warnings.size() == 1);
    CHECK(s.link->status().warnings[0].message.find("and renewing it fails: Core answered 500") != std::string::npos);
    CHECK(boost::json::serialize(s.agent().conditions.at(0)).find("CertificateRenewal") != std::string::npos);
    s.core.faults.overrides.clear();
    (void)s.pass(12min);
    CHECK(s.link->status().warnings.empty());
    CHECK(s.core.violations().empty());
}

TEST_CASE("a certificate of the operator's that ends soon is said until it is replaced", "[link]") {
    Scene s;
    s.settings.own_certificate = false;
    s.member();
    s.connect();
    (void)s.pass(15h);
    CHECK(s.link->status().warnings.empty());
    (void)s.pass(2h);
    REQUIRE(s.link->status().warnings.size() == 1);
    CHECK(s.link->status().warnings[0].message.find("the certificate of core.tls_cert expires at ") == 0);
    (void)s.pass(8h);
    REQUIRE(s.link->status().warnings.size() == 1);
    CHECK(s.link->status().warnings[0].message.find("the certificate of core.tls_cert expired at ") == 0);
    s.link->certificate_replaced({"node-1", s.wall(), s.wall() + 24h}, s.wall());
    CHECK(s.link->status().warnings.empty());
}

TEST_CASE("a certificate that has expired still renews", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    SECTION("after a long sleep") {
        s.link->about_to_sleep(s.clock.now());
        s.clock.sleep(240h);
        s.link->woke(s.clock.now(), s.wall());
    }
    SECTION("while the clock was wrong, so that nobody noticed") {
        s.clock_off = -240h;
        s.clock.set_wall(s.clock.wall() + 240h);
    }
    const auto beat = s.until(Call::heartbeat);
    CHECK(beat.status == 200);
    CHECK(s.agent().certificates == 2);
    CHECK(s.state() == "connected");
    CHECK(s.core.violations().empty());
}

TEST_CASE("a certificate that Core takes no more is renewed at once; if that is in vain, slowly", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    SECTION("the new one is taken") {
        s.core.faults.overrides.push_back({"heartbeat", 401, 1, {}});
        const auto sent = s.pass(62s);
        CHECK(s.count(Call::renew, sent) == 1);
        CHECK(s.count(Call::heartbeat, sent) == 2);
        CHECK(s.state() == "connected");
    }
    SECTION("nor is the new one") {
        s.core.faults.overrides.push_back({"heartbeat", 401, 1'000'000, {}});
        s.core.faults.overrides.push_back({"session", 401, 1'000'000, {}});
        const auto sent = s.pass(2h);
        CHECK(sent.size() < 90);
        CHECK(s.state() == "refused");
        s.core.faults.overrides.clear();
        s.connect();
    }
    SECTION("and renewals are refused") {
        s.core.faults.overrides.push_back({"", 401, 1'000'000, {}});
        const auto sent = s.pass(2h);
        CHECK(sent.size() < 40);
        CHECK(s.state() == "refused");
        s.core.faults.overrides.clear();
        s.connect();
    }
    SECTION("the handshake ends with it") {
        base::Error refused{base::Errc::source_unavailable, "cannot connect to Core: certificate unknown"};
        refused.facts["certificate_refused"] = "certificate_unknown";
        s.fault = refused;
        (void)s.pass(10min);
        CHECK(s.state() == "refused");
        s.fault.reset();
        s.connect();
    }
}

TEST_CASE("facts that Core takes with no certificate cost no beats, and few certificates", "[link]") {
    Scene s;
    s.settings.own_certificate = GENERATE(true, false);
    if (s.settings.own_certificate)
        s.open({});
    else
        s.member(24h * 365);
    s.connect();
    s.outbox.release(s.outbox.add(s.wall(), "vm.created", {{"vm", boost::json::object{}}}).rev);
    s.link->facts_added(s.clock.now());
    s.core.faults.overrides.push_back({"facts", 401, 1'000'000, {}});
    const auto sent = s.pass(2h);
    CHECK(s.count(Call::renew, sent) == (s.settings.own_certificate ? 1 : 0));
    CHECK(s.count(Call::facts, sent) >= 12);
    CHECK(s.count(Call::facts, sent) <= 40);
    CHECK(s.count(Call::heartbeat, sent) >= 118);
    CHECK(s.state() == "connected");
}

TEST_CASE("certificates that Core takes for a while only are renewed once a minute at most", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    std::vector<base::Instant> renewals;
    for (int i = 0; i < 200; ++i) {
        s.core.faults.overrides.clear();
        if (i % 2 == 0) s.core.faults.overrides.push_back({"heartbeat", 401, 1, {}});
        s.link->woke(s.clock.now(), s.wall());
        for (const auto& sent : s.pass(4s))
            if (sent.call == Call::renew) renewals.push_back(sent.at);
    }
    REQUIRE(renewals.size() > 5);
    for (std::size_t i = 1; i < renewals.size(); ++i) CHECK(renewals[i] - renewals[i - 1] >= 1min);
}

TEST_CASE("a node that was told to leave renews what expired meanwhile, and asks on", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    s.core.faults.overrides.push_back({"", 410, 1'000'000, {}});
    (void)s.pass(30h);
    CHECK(s.state() == "left");
    s.core.faults.overrides.clear();
    CHECK(s.until(Call::heartbeat, 30h).status == 200);
    CHECK(s.state() == "connected");
}

TEST_CASE("a renewal that can't be kept holds no beat up", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    s.keeps = false;
    const auto sent = s.pass(16h);
    CHECK(s.count(Call::renew, sent) >= 3);
    CHECK(s.count(Call::heartbeat, sent) >= 16 * 60);
    CHECK(s.state() == "connected");
}

TEST_CASE("a node that Core forgot joins again when it has a token that it didn't use", "[link]") {
    Scene s;
    s.open({});
    s.connect();
    const auto used = heartbeat::token_digest("t0ken");
    s.settings.token = "fresh";
    s.open({s.link->status().agent_id, used, {}, net::CertificateFacts{"", s.wall(), s.wall() + 24h}});
    s.core.forget_agent(s.link->status().agent_id);
    s.connect();
    CHECK(s.core.agents().size() == 1);
    CHECK(s.state() == "connected");
}
