// What is wrong with the link itself: conditions for Core, sentences for people here.
#include "heartbeat/link.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::heartbeat {
namespace json = boost::json;

// Ours is renewed at half of its life: in its last third that went wrong. The operator's has to be replaced by then.
std::optional<LinkWarning> Link::certificate_ends(base::Wall wall) const {
    const bool is_used = phase_ == Phase::sessionless || phase_ == Phase::in_session;
    if (!is_used || !member_.certificate) return std::nullopt;
    if (settings_.own_certificate && renew_fault_.empty()) return std::nullopt;
    const auto ends = member_.certificate->not_after;
    const auto late = ends - (ends - member_.certificate->not_before) / 3;
    const auto time = core_time(wall);
    if (time < late) return std::nullopt;
    const bool expired = time >= ends;
    const auto when = fmt::format("{} at {}", expired ? "expired" : "expires", base::rfc3339(ends));
    return LinkWarning{"CertificateRenewal", expired ? "expired" : "overdue",
                       settings_.own_certificate
                           ? fmt::format("this agent's certificate {}, and renewing it fails: {}", when, renew_fault_)
                           : fmt::format("the certificate of core.tls_cert {}: replace it", when),
                       late};
}

void Link::look_for_faults(base::Wall wall) {
    auto& warnings = status_.warnings;
    warnings.clear();
    if (skewed_since_)
        warnings.push_back(
            {"ClockSkew", offset_.count() > 0 ? "clock_behind" : "clock_ahead",
             fmt::format("this machine's clock is {} s {} Core's", std::chrono::abs(offset_).count() / 1000,
                         offset_.count() > 0 ? "behind" : "ahead of"),
             *skewed_since_});
    if (auto ends = certificate_ends(wall)) warnings.push_back(*std::move(ends));
    if (state_refused_since_)
        warnings.push_back({state_too_large_ ? "StateTooLarge" : "StateRefused",
                            state_too_large_ ? "body_too_large" : "refused", lease_only_why_, *state_refused_since_});
    if (acks_refused_since_) warnings.push_back({"AcksRefused", "refused", acks_refused_why_, *acks_refused_since_});
    if (facts_refused_since_)
        warnings.push_back({"FactsRefused", "refused", facts_refused_why_, *facts_refused_since_});
    if (p_.outbox.lost() > 0)
        warnings.push_back({"FactsLost", "outbox_full", fmt::format("{} facts were dropped", p_.outbox.lost()),
                            p_.outbox.lost_since()});
}

json::array Link::conditions() const {
    json::array out;
    for (const auto& warning : status_.warnings)
        out.push_back(json::object{{"type", warning.type},
                                   {"status", "true"},
                                   {"reason", warning.reason},
                                   {"message", warning.message},
                                   {"since", base::rfc3339(warning.since)}});
    return out;
}

}  // namespace ghost::heartbeat
