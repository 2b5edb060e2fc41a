// The faults of FakeCore as JSON.
#include "tests/fakes/fake_core.hpp"

#include <boost/json/array.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace ghost::fakes {
namespace {

namespace json = boost::json;
using Faults = FakeCore::Faults;

constexpr std::array<std::pair<std::string_view, FakeCore::Chance Faults::*>, 11> chances{{
    {"drop_request", &Faults::drop_request},
    {"drop_reply", &Faults::drop_reply},
    {"server_error", &Faults::server_error},
    {"too_many", &Faults::too_many},
    {"slow", &Faults::slow},
    {"garbage", &Faults::garbage},
    {"truncated", &Faults::truncated},
    {"doubled", &Faults::doubled},
    {"reordered", &Faults::reordered},
    {"delivered_again", &Faults::delivered_again},
    {"forgets_sessions", &Faults::forgets_sessions},
}};
constexpr std::array<std::string_view, 3> numbers{"slow_ms", "retry_after_s", "clock_off_s"};
constexpr std::array<std::string_view, 6> overridable{"enroll", "certificate", "session",
                                                      "leave",  "heartbeat",   "facts"};

std::unexpected<base::Error> wrong(std::string_view key, std::string_view what) {
    return base::fail(base::Errc::validation_failed, fmt::format("{}: {}", key, what));
}

base::Result<double> probability(const json::value& value, std::string_view key) {
    if (!value.is_number() || value.to_number<double>() < 0 || value.to_number<double>() > 1)
        return wrong(key, "a probability is a number from 0 to 1");
    return value.to_number<double>();
}

base::Result<unsigned> count(const json::value& value, std::string_view key, std::int64_t most) {
    boost::system::error_code error;
    const auto number = value.is_number() ? value.to_number<std::int64_t>(error) : -1;
    if (error || number < 0 || number > most) return wrong(key, fmt::format("must be an integer from 0 to {}", most));
    return static_cast<unsigned>(number);
}

base::Result<FakeCore::Chance> read_chance(const json::value& value, std::string_view key) {
    FakeCore::Chance chance;
    if (!value.is_object()) {
        const auto number = probability(value, key);
        if (!number) return base::fail(number.error());
        chance.probability = *number;
        return chance;
    }
    for (const auto& member : value.get_object()) {
        if (member.key() == "probability") {
            const auto number = probability(member.value(), key);
            if (!number) return base::fail(number.error());
            chance.probability = *number;
        } else if (member.key() == "next") {
            const auto next = count(member.value(), key, 1'000'000);
            if (!next) return base::fail(next.error());
            chance.next = *next;
        } else {
            return wrong(key, "has probability and next");
        }
    }
    return chance;
}

base::Result<FakeCore::Override> read_override(const json::value& value) {
    constexpr std::string_view key = "overrides";
    if (!value.is_object()) return wrong(key, "each is an object");
    FakeCore::Override made;
    for (const auto& member : value.get_object()) {
        if (member.key() == "route") {
            if (!member.value().is_string()) return wrong(key, "route is a string");
            made.route = std::string{member.value().get_string()};
            if (!made.route.empty() && std::ranges::find(overridable, made.route) == overridable.end())
                return wrong(key, fmt::format("route is empty or one of {}", fmt::join(overridable, ", ")));
            continue;
        }
        const auto number = count(member.value(), key, 1'000'000);
        if (!number) return base::fail(number.error());
        if (member.key() == "status")
            made.status = *number;
        else if (member.key() == "next")
            made.next = *number;
        else if (member.key() == "retry_after_s")
            made.retry_after_s = *number;
        else
            return wrong(key, "each has route, status, next and retry_after_s");
    }
    if (made.status < 400 || made.status > 599) return wrong(key, "status is from 400 to 599");
    return made;
}

}  // namespace

std::vector<std::string_view> fault_names() {
    std::vector<std::string_view> names;
    names.reserve(chances.size());
    for (const auto& [name, member] : chances) names.push_back(name);
    names.insert(names.end(), numbers.begin(), numbers.end());
    names.insert(names.end(), {"overrides", "certificate"});
    return names;
}

std::string fault_words() {
    std::vector<std::string_view> names;
    names.reserve(chances.size());
    for (const auto& [name, member] : chances) names.push_back(name);
    return fmt::format(
        "Faults, each by a number from 0 to 1 or as {{\"probability\": 0.1, \"next\": 3}} (the next 3 for certain):\n"
        "  {}\n"
        "With figures:\n"
        "  {}\n"
        "overrides: [{{\"route\": ..., \"status\": 400 to 599, \"next\": 1, \"retry_after_s\": ...}}], with the "
        "routes\n"
        "  {}; empty: any\n"
        "certificate, the one that agents are shown:\n"
        "  own, other_ca, other_name\n",
        fmt::join(names, ", "), fmt::join(numbers, ", "), fmt::join(overridable, ", "));
}

base::Result<Faults> read_faults(const json::object& document, const Faults& before) {
    auto faults = before;
    for (const auto& member : document) {
        const std::string_view key{member.key().data(), member.key().size()};
        const auto& value = member.value();
        const auto* named = std::ranges::find(chances, key, [](const auto& each) { return each.first; });
        if (named != chances.end()) {
            const auto chance = read_chance(value, key);
            if (!chance) return base::fail(chance.error());
            faults.*named->second = *chance;
        } else if (key == "slow_ms" || key == "retry_after_s") {
            const auto number = count(value, key, 3'600'000);
            if (!number) return base::fail(number.error());
            (key == "slow_ms" ? faults.slow_ms : faults.retry_after_s) = *number;
        } else if (key == "clock_off_s") {
            constexpr std::int64_t most = std::int64_t{10} * 365 * 24 * 3600;
            if (!value.is_int64() || value.get_int64() < -most || value.get_int64() > most)
                return wrong(key, "must be an integer, of at most ten years");
            faults.clock_off_s = value.get_int64();
        } else if (key == "overrides") {
            if (!value.is_array() || value.get_array().size() > 100)
                return wrong(key, "must be an array of at most 100");
            faults.overrides.clear();
            for (const auto& item : value.get_array()) {
                auto made = read_override(item);
                if (!made) return base::fail(made.error());
                faults.overrides.push_back(*std::move(made));
            }
        } else {
            return wrong(key, fmt::format("is not known; known are {}", fmt::join(fault_names(), ", ")));
        }
    }
    return faults;
}

json::object to_json(const Faults& faults) {
    json::object document;
    for (const auto& [key, member] : chances) {
        const auto& chance = faults.*member;
        document[key] = json::object{{"probability", chance.probability}, {"next", chance.next}};
    }
    document["slow_ms"] = faults.slow_ms;
    document["retry_after_s"] = faults.retry_after_s;
    document["clock_off_s"] = faults.clock_off_s;
    json::array overrides;
    for (const auto& each : faults.overrides) {
        if (each.next == 0) continue;
        json::object shown{{"route", each.route}, {"status", each.status}, {"next", each.next}};
        if (each.retry_after_s) shown["retry_after_s"] = *each.retry_after_s;
        overrides.push_back(std::move(shown));
    }
    document["overrides"] = std::move(overrides);
    return document;
}

}  // namespace ghost::fakes
