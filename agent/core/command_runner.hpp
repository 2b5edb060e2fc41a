// Carries Ghost Core's commands out, through the same door as REST: each becomes
// a request with the command's id as its Idempotency-Key.
#pragma once

#include "agent/operations/operation_service.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/random.hpp"
#include "base/task_group.hpp"
#include "heartbeat/core_keeper.hpp"
#include "heartbeat/inbox.hpp"
#include "net/http.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace ghost::agent {

// Commands for one target are begun in the order of their coming, each when the one before has ended; a forced stop
// passes. What may be otherwise in a moment (the hypervisor is away, another operation is under way) is tried again for
// the command's deadline, or a minute. What takes longer than its deadline is cancelled, if it still can be.
class CommandRunner {
public:
    // All of it outlives the runner.
    struct Parts {
        const net::Handler& api;
        OperationService& operations;
        const VmIndex& vms;
        heartbeat::Inbox& inbox;
        heartbeat::CoreKeeper& keeper;
        base::Clock& clock;
        base::Random& random;
        base::Log& log;
        std::function<std::optional<base::Wall>()> core_time;  // what time it is for Core; nullopt: not heard yet
    };
    CommandRunner(const boost::asio::any_io_executor& executor, Parts parts);

    // What earlier runs left: each is gone on with, or judged by its operation.
    void recover();
    // It is kept, and may begin.
    void ready(const std::string& id);
    // Nothing is begun any more; what began goes on with the next start.
    void close();
    [[nodiscard]] boost::asio::awaitable<void> drain();

    static constexpr std::chrono::seconds retry_pause{2};
    static constexpr std::chrono::seconds patience{60};  // to begin one without a deadline

private:
    enum class Next : std::uint8_t { again, over };

    boost::asio::awaitable<void> run_line(std::string target);
    boost::asio::awaitable<void> run(std::string id);
    boost::asio::awaitable<Next> attempt(std::string id, base::Instant until);
    // The request's answer; internal when its handler threw.
    boost::asio::awaitable<base::Result<net::Response>> ask(const heartbeat::Command& command);
    boost::asio::awaitable<void> follow(std::string id, std::string operation);
    [[nodiscard]] std::optional<base::Instant> deadline_of(const heartbeat::Command& command);
    void queue(const std::string& target, const std::string& id);
    boost::asio::awaitable<void> change(std::string id, heartbeat::CommandState state, std::string operation = {},
                                        boost::json::object problem = {});
    boost::asio::awaitable<base::Result<void>> keep(heartbeat::Command command);
    [[nodiscard]] std::string target_of(const heartbeat::Command& command) const;
    [[nodiscard]] net::Request request_for(const heartbeat::Command& command) const;
    [[nodiscard]] OperationService::Ptr operation_of(const heartbeat::Command& command) const;

    boost::asio::any_io_executor executor_;
    Parts p_;
    base::TaskGroup tasks_;
    std::map<std::string, base::Instant> deadlines_;        // of commands that have one: their wall clock may be set
    std::map<std::string, std::deque<std::string>> lines_;  // target -> commands, in turn; the first is under way
    bool closed_ = false;
};

// Whom operations of Core's commands are recorded with.
[[nodiscard]] base::Principal core_principal();

// Where a command goes as a REST request; nullopt: its kind is none of ours.
struct CommandRoute {
    net::Method method = net::Method::post;
    std::string path;
};
[[nodiscard]] std::optional<CommandRoute> route_of(const heartbeat::Command& command);

}  // namespace ghost::agent
