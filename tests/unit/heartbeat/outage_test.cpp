// What a whole cloud of agents does to a Core that was away: 10 000 links, each deciding for itself.
#include "heartbeat/https_core.hpp"
#include "heartbeat/link.hpp"
#include "tests/unit/heartbeat/link_scene.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <memory>
#include <queue>
#include <vector>

using namespace std::chrono_literals;
using namespace ghost;
namespace json = boost::json;

namespace {

constexpr auto round_trip = 20ms;
constexpr std::int64_t ttl_s = 60;

struct Agent {
    explicit Agent(std::size_t number, base::Wall wall) : random(number + 1) {
        link.emplace(heartbeat::LinkSettings{.url = "https://core.example", .epoch = 1},
                     heartbeat::Membership{
                         fmt::format("node-{}", number), "", {}, net::CertificateFacts{"", wall, wall + 24h * 365}},
                     heartbeat::Link::Parts{node, view, inbox, outbox, random});
    }
    tests::FakeNode node;
    heartbeat::StateView view;
    heartbeat::Inbox inbox{[](const json::object&) { return false; }};
    heartbeat::Outbox outbox{1};
    fakes::SeededRandom random;
    std::optional<heartbeat::Link> link;
};

class Cloud {
public:
    explicit Cloud(std::size_t agents) {
        for (std::size_t i = 0; i < agents; ++i) {
            agents_.push_back(std::make_unique<Agent>(i, wall()));
            // Machines are switched on when their owners come home.
            turns_.push({now_ + std::chrono::milliseconds{i * ttl_s * 1000 / agents}, i});
        }
    }

    // How many requests came in each second of `span`.
    std::vector<std::size_t> pass(std::chrono::seconds span) {
        std::vector<std::size_t> came(static_cast<std::size_t>(span.count()));
        const auto start = now_;
        const auto end = now_ + span;
        while (turns_.top().first < end) {
            const auto [when, who] = turns_.top();
            turns_.pop();
            now_ = std::max(now_, when);
            auto& link = *agents_[who]->link;
            const auto step = link.next(now_, wall());
            if (const auto* idle = std::get_if<heartbeat::Link::Idle>(&step)) {
                turns_.push({idle->until, who});
                continue;
            }
            ++came[static_cast<std::size_t>((now_ - start) / 1s)];
            const auto& call = std::get<heartbeat::CoreCall>(step);
            (void)link.took(call, answer(call), now_, now_ + round_trip, wall() + round_trip);
            turns_.push({now_ + round_trip, who});
        }
        now_ = end;
        return came;
    }

    [[nodiscard]] std::size_t connected() const {
        return static_cast<std::size_t>(std::ranges::count_if(
            agents_, [](const auto& agent) { return agent->link->status().state == heartbeat::LinkState::connected; }));
    }

    bool away = false;

private:
    using Turn = std::pair<base::Instant, std::size_t>;

    [[nodiscard]] base::Wall wall() const {
        return base::from_unix_ms(1'767'323'045'000) + std::chrono::duration_cast<base::Wall::duration>(now_ - start_);
    }

    // A Core that has everything right; what the stand-in checks isn't of interest here.
    [[nodiscard]] base::Result<heartbeat::CoreAnswer> answer(const heartbeat::CoreCall& call) const {
        if (away) return base::fail(base::Errc::source_unavailable, "connection refused");
        json::object body{{"server_time", base::rfc3339_ms(wall())}, {"ttl_s", ttl_s}};
        if (call.call == heartbeat::Call::session) {
            body["session_id"] = "s";
            body["grace_s"] = 180;
            body["full_sync_every_s"] = 3600;
        } else {
            body["ack_rev"] = call.body.at("state_rev");
            body["want"] = "delta";
        }
        return heartbeat::CoreAnswer{200, {}, json::serialize(body)};
    }

    static constexpr base::Instant start_{1h};
    base::Instant now_ = start_;
    std::vector<std::unique_ptr<Agent>> agents_;
    std::priority_queue<Turn, std::vector<Turn>, std::greater<>> turns_;
};

}  // namespace

TEST_CASE("after ten minutes without Core 10 000 agents come back at less than twice their steady rate", "[link]") {
    constexpr std::size_t count = 10'000;
    Cloud cloud{count};
    (void)cloud.pass(180s);
    REQUIRE(cloud.connected() == count);
    const auto steady = cloud.pass(120s);
    std::size_t sum = 0;
    for (const auto n : steady) sum += n;
    const auto rate = static_cast<double>(sum) / static_cast<double>(steady.size());
    CHECK(rate > count / 60.0);
    CHECK(rate < count / 51.0);

    cloud.away = true;
    (void)cloud.pass(600s);
    CHECK(cloud.connected() == 0);
    cloud.away = false;
    const auto after = cloud.pass(900s);
    const auto most = *std::ranges::max_element(after);
    INFO("steady " << rate << " requests a second, at most " << most << " after the outage");
    CHECK(static_cast<double>(most) <= 2 * rate);
    CHECK(cloud.connected() == count);
}
