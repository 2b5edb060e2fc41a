// What the two halves of Link share: its times, and how it reads and chooses. Of link.cpp and link_answers.cpp.
#pragma once

#include "base/clock.hpp"
#include "base/random.hpp"
#include "heartbeat/core_link.hpp"
#include "net/x509.hpp"

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::heartbeat::link_rules {

inline constexpr std::chrono::hours never{24 * 365};  // until something happens
inline constexpr std::chrono::hours longest_idle{1};  // the wall clock may be set meanwhile
inline constexpr std::chrono::minutes slow_first{5};
inline constexpr std::chrono::minutes slow_last{10};
inline constexpr std::chrono::hours day{24};
inline constexpr std::chrono::minutes between_renewals{1};
inline constexpr std::chrono::seconds between_addresses{30};  // sessions for the sake of addresses alone
inline constexpr std::chrono::seconds soon{2};                // of a wake or a network change: within 3 s with the call
inline constexpr std::chrono::seconds settling{60};           // a machine that was about to sleep, and doesn't
inline constexpr std::chrono::minutes lease_only_for{5};
inline constexpr std::chrono::seconds beside_margin{1};   // of a call beside beats, over the time until one is due
inline constexpr std::chrono::seconds shortest_limit{2};  // of such a call
inline constexpr unsigned refusals_of_a_fact = 8;         // alone, until it is given up
inline constexpr unsigned outage_after = 3;               // failures in a row

inline base::Duration part_of(base::Duration span, double part) {
    return std::chrono::duration_cast<base::Duration>(span * part);
}

// Core first as the configuration has it, then as Core itself does.
inline std::vector<std::string> urls_of(const std::string& configured, const std::vector<std::string>& told) {
    std::vector<std::string> out{configured};
    for (const auto& url : told)
        if (std::ranges::find(out, url) == out.end()) out.push_back(url);
    return out;
}

inline std::optional<boost::json::object> object_of(const CoreAnswer& answer) {
    boost::system::error_code ec;
    auto parsed = boost::json::parse(answer.body, ec);
    if (ec || !parsed.is_object()) return std::nullopt;
    return std::move(parsed.get_object());
}

// Of one that was read before.
inline std::optional<net::CertificateFacts> facts_of(const std::string& certificate) {
    auto facts = net::read_certificate(certificate);
    return facts ? std::optional{*std::move(facts)} : std::nullopt;
}

// In [first, last).
inline base::Duration between(base::Duration first, base::Duration last, base::Random& random) {
    return first + part_of(last - first, random.uniform());
}

}  // namespace ghost::heartbeat::link_rules
