#include "agent/cli/follow.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/progress.hpp"
#include "agent/cli/text.hpp"
#include "base/cancelled.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace ghost::cli {
namespace asio = boost::asio;
namespace json = boost::json;
using std::chrono::seconds;

Failure wait_ended(WaitEnd end, const json::object& operation, std::string_view subject, seconds limit,
                   const Failure& why) {
    const auto id = text_at(operation, "id");
    const auto kind = text_at(operation, "kind");
    Failure failure;
    switch (end) {
        case WaitEnd::interrupted:
            failure.sentence = fmt::format("stopped waiting; {} of {} goes on", kind, subject);
            break;
        case WaitEnd::limit_reached:
            failure.sentence =
                fmt::format("{} of {} is not done after {}; it goes on", kind, subject, human_span(limit));
            break;
        case WaitEnd::agent_gone:
            failure = why;
            failure.passing = false;
            failure.details.push_back(fmt::format("{} of {} was accepted and may go on", kind, subject));
            break;
    }
    failure.details.push_back(fmt::format("go on waiting:  ghostctl operation wait {}", id));
    if (bool_at(operation, "cancellable") != false)
        failure.details.push_back(fmt::format("cancel it:      ghostctl operation cancel {}", id));
    return failure;
}

void Follower::draw(const std::string& subject, const json::object& operation, seconds elapsed) {
    const auto columns = console_.progress_columns();
    if (!columns) return;
    console_.error(fmt::format("\r\x1b[K{}", progress_line(subject, operation, elapsed, *columns)));
    drawn_ = true;
}

void Follower::erase() {
    if (drawn_) console_.error("\r\x1b[K");
    drawn_ = false;
}

asio::awaitable<Outcome<json::object>> Follower::follow(json::object operation, std::string subject, seconds limit) {
    const auto began = clock_.now();
    const auto target = fmt::format("/v1/operations/{}", net::percent_encode(text_at(operation, "id")));
    const auto give_up = [&](WaitEnd end, const Failure& why = {}) -> std::unexpected<Failure> {
        erase();
        return std::unexpected{wait_ended(end, operation, subject, limit, why)};
    };
    unsigned faults = 0;
    while (!is_finished(operation)) {
        if (co_await base::is_cancelled()) co_return give_up(WaitEnd::interrupted);
        const auto asked = clock_.now();
        const auto elapsed = std::chrono::duration_cast<seconds>(asked - began);
        if (elapsed >= limit) co_return give_up(WaitEnd::limit_reached);
        draw(subject, operation, elapsed);

        const auto longest = console_.progress_columns() ? seconds{1} : longest_poll;
        const auto poll = std::min(longest, limit - elapsed);
        auto answer = co_await agent_.get(fmt::format("{}?wait={}", target, poll.count()), poll);
        if (co_await base::is_cancelled()) co_return give_up(WaitEnd::interrupted);
        if (answer && is_operation(*answer)) {
            operation = std::move(*answer);
            faults = 0;
        } else if (answer) {
            co_return give_up(WaitEnd::agent_gone, {ExitCode::failed, "the agent's answer is not an operation"});
        } else if (!answer.error().passing) {
            co_return give_up(WaitEnd::agent_gone, answer.error());
        } else if (++faults >= most_faults) {
            co_return give_up(WaitEnd::agent_gone, answer.error());
        }
        // An agent that answers at once, or not at all, is not asked again at once.
        if (!is_finished(operation) && clock_.now() - asked < std::chrono::milliseconds{500})
            (void)co_await clock_.sleep_until(asked + seconds{1});
    }
    erase();
    co_return operation;
}

}  // namespace ghost::cli
