// What the agent told anybody, and may not take back.
#pragma once

#include "simulation/trace.hpp"

#include <boost/json/value.hpp>

#include <cstdint>
#include <map>
#include <string>

namespace ghost::simulation {

class Told {
public:
    explicit Told(Trace& trace) : trace_(trace) {}

    // An operation as the API shows it: one that has ended stays as it ended. Events may be old.
    enum class As : std::uint8_t { it_is, it_was };
    void operation(const boost::json::value& resource, As when = As::it_is) {
        const std::string id{resource.at("id").as_string()};
        const std::string state{resource.at("state").as_string()};
        if (state == "pending" || state == "running") {
            if (const auto end = ends_.find(id); when == As::it_is && end != ends_.end())
                trace_.violated("operation {} had {} and is {} now", id, end->second, state);
            return;
        }
        const auto [end, first] = ends_.emplace(id, state);
        if (!first && end->second != state)
            trace_.violated("operation {} had {} and has {} now", id, end->second, state);
    }
    // An event's number stands for one text, for everybody and for ever.
    void event(std::uint64_t id, const std::string& text) {
        const auto [known, first] = events_.emplace(id, std::hash<std::string>{}(text));
        if (!first && known->second != std::hash<std::string>{}(text))
            trace_.violated("event {} was another one before", id);
    }
    [[nodiscard]] const std::map<std::string, std::string>& ends() const noexcept { return ends_; }

private:
    Trace& trace_;
    std::map<std::string, std::string> ends_;
    std::map<std::uint64_t, std::size_t> events_;
};

}  // namespace ghost::simulation
