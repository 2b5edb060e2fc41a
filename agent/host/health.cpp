#include "agent/host/health.hpp"

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace json = boost::json;
namespace {

std::string_view name_of(CheckStatus status) {
    switch (status) {
        case CheckStatus::up: return "up";
        case CheckStatus::degraded: return "degraded";
        case CheckStatus::down: return "down";
    }
    return "down";
}

std::string_view overall(CheckStatus worst) {
    switch (worst) {
        case CheckStatus::up: return "healthy";
        case CheckStatus::degraded: return "degraded";
        case CheckStatus::down: return "unhealthy";
    }
    return "unhealthy";
}

}  // namespace

void Health::add(std::string name, std::function<CheckResult()> check) {
    checks_.push_back({std::move(name), std::move(check), CheckStatus::up, clock_.wall()});
}

Health::Report Health::report(bool reasons) {
    auto worst = CheckStatus::up;
    json::object checks;
    for (auto& check : checks_) {
        auto result = check.run();
        if (!result.applies) continue;
        if (result.status != check.last) check.since = clock_.wall();
        check.last = result.status;
        worst = std::max(worst, result.status);
        json::object shown{{"status", name_of(result.status)}};
        if (reasons) {
            shown["since"] = base::rfc3339(check.since);
            if (!result.reason.empty()) shown["reason"] = result.reason;
            for (auto& figure : result.figures) shown[figure.key()] = std::move(figure.value());
        }
        checks[check.name] = std::move(shown);
    }
    return {{{"status", overall(worst)},
             {"version", version_},
             {"timestamp", base::rfc3339(clock_.wall())},
             {"checks", std::move(checks)}},
            worst != CheckStatus::down};
}

}  // namespace ghost::agent
