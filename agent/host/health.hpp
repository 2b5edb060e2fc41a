// Is the agent well, and what exactly is not: a few named checks, each with the
// time since it has been so.
#pragma once

#include "base/clock.hpp"

#include <boost/json/object.hpp>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace ghost::agent {

enum class CheckStatus : std::uint8_t { up, degraded, down };

struct CheckResult {
    CheckStatus status = CheckStatus::up;
    std::string reason = {};           // why not up; empty when up
    boost::json::object figures = {};  // shown beside it
    bool applies = true;               // false: left out of the report
};

// Loop thread only. Evaluating must be cheap: it reads memory.
class Health {
public:
    Health(const base::Clock& clock, std::string version) : clock_(clock), version_(std::move(version)) {}

    // A down check makes the agent unhealthy, a degraded one degraded.
    void add(std::string name, std::function<CheckResult()> check);

    struct Report {
        boost::json::object document;
        bool healthy = true;  // no check is down
    };
    // `reasons`: whether the reader may know more than statuses.
    [[nodiscard]] Report report(bool reasons);

private:
    struct Check {
        std::string name;
        std::function<CheckResult()> run;
        CheckStatus last = CheckStatus::up;
        base::Wall since;
    };
    const base::Clock& clock_;
    std::string version_;
    std::vector<Check> checks_;
};

}  // namespace ghost::agent
