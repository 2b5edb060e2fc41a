#include "agent/access/tickets.hpp"

#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <string>

using namespace ghost;
using namespace ghost::agent;
using namespace std::chrono_literals;

namespace {

struct Office {
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    Tickets tickets{clock, random};
    base::Principal alice{base::Principal::Kind::certificate, "CN=alice", true};

    std::string issue(const StreamUse& use) {
        const auto issued = tickets.issue(alice, use);
        REQUIRE(issued);
        return issued->text;
    }
    bool opens(std::string_view text, const StreamUse& use) { return tickets.redeem(text, use).has_value(); }
};

base::Principal number(std::size_t n) {
    return {base::Principal::Kind::certificate, "CN=client" + std::to_string(n), true};
}

const StreamUse console{"vm-1", StreamKind::console, 0};
const StreamUse ssh{"vm-1", StreamKind::forward, 22};

}  // namespace

TEST_CASE("a ticket opens what it is for, in the name of whom it was issued to") {
    Office office;
    const auto issued = office.tickets.issue(office.alice, ssh);
    REQUIRE(issued);
    CHECK(issued->text.size() == 43);
    CHECK(std::ranges::all_of(issued->text, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    }));
    CHECK(issued->expires_at == office.clock.wall() + 30s);
    const auto who = office.tickets.redeem(issued->text, ssh);
    REQUIRE(who);
    CHECK(who->text() == office.alice.text());
    CHECK(who->admin);
    CHECK(office.tickets.waiting() == 0);
}

TEST_CASE("a ticket is good once") {
    Office office;
    const auto ticket = office.issue(console);
    CHECK(office.opens(ticket, console));
    const auto again = office.tickets.redeem(ticket, console);
    REQUIRE_FALSE(again);
    CHECK(again.error().code == base::Errc::unauthenticated);
    CHECK(office.issue(console) != ticket);
}

TEST_CASE("a ticket is good for 30 seconds, those in which the host slept among them") {
    Office office;
    const auto in_time = office.issue(console);
    office.clock.advance(29s);
    CHECK(office.opens(in_time, console));
    const auto late = office.issue(console);
    office.clock.advance(30s);
    CHECK_FALSE(office.opens(late, console));
    const auto overslept = office.issue(console);
    office.clock.sleep(1h);
    CHECK_FALSE(office.opens(overslept, console));
}

TEST_CASE("a ticket is good for one VM, kind and port, and tells nobody why it isn't") {
    Office office;
    const auto unknown = office.tickets.redeem("nothing", console);
    REQUIRE_FALSE(unknown);
    for (const auto& other : {StreamUse{"vm-2", StreamKind::forward, 22}, StreamUse{"vm-1", StreamKind::console, 0},
                              StreamUse{"vm-1", StreamKind::vnc, 0}, StreamUse{"vm-1", StreamKind::forward, 80},
                              StreamUse{"", StreamKind::forward, 22}}) {
        const auto ticket = office.issue(ssh);
        const auto refused = office.tickets.redeem(ticket, other);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == base::Errc::unauthenticated);
        CHECK(refused.error().detail == unknown.error().detail);
        CHECK_FALSE(office.opens(ticket, ssh));  // it was shown where it doesn't belong
    }
}

TEST_CASE("unused tickets are bounded, for each and for all, and what expires makes room") {
    Office office;
    std::string last;
    for (std::size_t i = 0; i < Tickets::most_of_one; ++i) last = office.issue(console);
    const auto refused = office.tickets.issue(office.alice, console);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::overloaded);
    CHECK(office.opens(last, console));
    (void)office.issue(console);

    for (std::size_t i = Tickets::most_of_one; i < Tickets::most; ++i)
        REQUIRE(office.tickets.issue(number(i / Tickets::most_of_one), console));
    CHECK(office.tickets.waiting() == Tickets::most);
    CHECK_FALSE(office.tickets.issue(number(1000), console));
    office.clock.advance(30s);
    CHECK(office.tickets.waiting() == 0);
    CHECK(office.tickets.issue(number(1000), console));
    CHECK(office.tickets.issue(office.alice, console));
}
