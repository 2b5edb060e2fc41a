#include "heartbeat/outbox.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <utility>

namespace ghost::heartbeat {
namespace json = boost::json;
namespace {

constexpr std::uint64_t largest_rev = (1ULL << 53U) - 1;

}  // namespace

void Outbox::restore(std::vector<Fact> facts) {
    for (auto& fact : facts) {
        bytes_ += fact.document.size();
        next_rev_ = std::max(next_rev_, fact.rev + 1);
        facts_.push_back({std::move(fact), false});
    }
}

const Fact& Outbox::add(base::Wall at, std::string_view kind, json::object members) {
    members["rev"] = next_rev_;
    members["at"] = base::rfc3339_ms(at);
    members["kind"] = kind;
    facts_.push_back({{next_rev_, at, json::serialize(members)}, true});
    ++next_rev_;
    bytes_ += facts_.back().fact.document.size();
    return facts_.back().fact;
}

std::deque<Outbox::Entry>::iterator Outbox::find(std::uint64_t rev) {
    const auto it = std::ranges::lower_bound(facts_, rev, {}, [](const Entry& entry) { return entry.fact.rev; });
    return it != facts_.end() && it->fact.rev == rev ? it : facts_.end();
}

void Outbox::release(std::uint64_t rev) {
    if (const auto it = find(rev); it != facts_.end()) it->held = false;
}

void Outbox::take_back(std::uint64_t rev) {
    const auto it = find(rev);
    if (it == facts_.end()) return;
    bytes_ -= it->fact.document.size();
    facts_.erase(it);
}

json::array Outbox::batch(std::size_t limit) const {
    json::array out;
    for (const auto& [fact, held] : facts_) {
        if (held || out.size() == limit) break;
        boost::system::error_code ec;
        auto item = json::parse(fact.document, ec);
        if (!ec) out.push_back(std::move(item));
    }
    return out;
}

void Outbox::drop_front() {
    bytes_ -= facts_.front().fact.document.size();
    facts_.pop_front();
}

void Outbox::ack(std::uint64_t rev) {
    while (!facts_.empty() && !facts_.front().held && facts_.front().fact.rev <= rev) drop_front();
    // Core has more than was ever given out: it would ignore what is numbered below. As far as the contract counts.
    if (rev < largest_rev) next_rev_ = std::max(next_rev_, rev + 1);
}

void Outbox::lose_front(base::Wall now) {
    drop_front();
    if (lost_++ == 0) lost_since_ = now;
}

bool Outbox::give_up(std::uint64_t rev, base::Wall now) {
    if (facts_.empty() || facts_.front().fact.rev != rev) return false;
    lose_front(now);
    return true;
}

std::optional<std::uint64_t> Outbox::prune(std::optional<base::Wall> now) {
    std::optional<std::uint64_t> dropped;
    const auto is_old = [&](const Fact& fact) { return now && *now - fact.at > max_age; };
    while (!facts_.empty() && !facts_.front().held && (bytes_ > max_bytes || is_old(facts_.front().fact))) {
        dropped = facts_.front().fact.rev;
        lose_front(now.value_or(facts_.front().fact.at));
    }
    return dropped;
}

}  // namespace ghost::heartbeat
