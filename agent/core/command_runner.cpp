#include "agent/core/command_runner.hpp"

#include "agent/api/problem.hpp"
#include "base/ids.hpp"
#include "heartbeat/json_fields.hpp"

#include <boost/asio/this_coro.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace json = boost::json;
using heartbeat::Command;
using heartbeat::CommandState;
namespace {

constexpr std::chrono::hours look_again{1};  // at an operation that is under way

bool is_forced_stop(const Command& command) {
    return command.kind == "vm.stop" && heartbeat::flag_member(command.params, "force").value_or(false);
}

// What may be otherwise in a moment, without anybody changing the command.
bool passes(std::string_view code) {
    return code == "hypervisor_unavailable" || code == "operation_in_progress" || code == "overloaded" ||
           code == "rate_limited";
}

json::object problem_of(const base::Error& error, std::string_view request_id) {
    return api::problem_json(error, request_id);
}

json::object body_of(const net::Response& response) {
    boost::system::error_code ec;
    auto parsed = json::parse(response.body, ec);
    return !ec && parsed.is_object() ? std::move(parsed.get_object()) : json::object{};
}

}  // namespace

base::Principal core_principal() { return {base::Principal::Kind::core, "ghost-core", true}; }

std::optional<CommandRoute> route_of(const Command& command) {
    const std::string_view kind = command.kind;
    const auto vm = "/v1/vms/" + net::percent_encode(command.target);
    if (kind == "vm.create") return CommandRoute{net::Method::post, "/v1/vms"};
    if (kind == "vm.delete") return CommandRoute{net::Method::del, vm};
    if (kind == "image.add") return CommandRoute{net::Method::post, "/v1/images"};
    if (kind == "agent.drain" || kind == "agent.undrain")
        return CommandRoute{net::Method::post, fmt::format("/v1/agent/{}", kind.substr(kind.find('.') + 1))};
    if (kind.starts_with("vm.")) return CommandRoute{net::Method::post, fmt::format("{}/{}", vm, kind.substr(3))};
    return std::nullopt;
}

CommandRunner::CommandRunner(const asio::any_io_executor& executor, Parts parts)
    : executor_(executor), p_(std::move(parts)), tasks_(executor, p_.log) {}

net::Request CommandRunner::request_for(const Command& command) const {
    auto route = route_of(command);
    net::Request request;
    request.method = route->method;
    request.path = std::move(route->path);
    request.context = {command.id, base::make_traceparent(p_.random), core_principal()};
    request.headers.set("Idempotency-Key", command.id);
    if (command.if_generation) request.headers.set("If-Match", fmt::format("\"g{}\"", *command.if_generation));
    if (!command.params.empty()) {
        request.body = json::serialize(command.params);
        request.headers.set("Content-Type", "application/json");
    }
    return request;
}

// The VM by its name, however the command names it: a VM that is still being made has no other.
std::string CommandRunner::target_of(const Command& command) const {
    if (command.kind == "vm.create") return "vm " + heartbeat::text_member(command.params, "name").value_or("");
    if (command.kind == "image.add") return "image " + json::serialize(command.params);
    if (command.target.empty()) return "agent";
    const auto* vm = p_.vms.find_ref(command.target);
    return "vm " + (vm == nullptr ? command.target : vm->name);
}

// The request's id is the command's, so the journal knows what a command began, also when its key is forgotten.
OperationService::Ptr CommandRunner::operation_of(const Command& command) const {
    if (!command.operation.empty()) return p_.operations.find(command.operation);
    const auto by = core_principal().text();
    for (const auto& operation : p_.operations.list())
        if (operation->request_id == command.id && operation->requested_by == by) return operation;
    return nullptr;
}

void CommandRunner::recover() {
    for (const auto* command : p_.inbox.all()) {
        if (is_final(command->state)) continue;
        const auto operation = operation_of(*command);
        // It runs, though that may not have been kept, and Core may have been told. What follows it for the same VM
        // waits for its end, as before.
        if (operation) {
            const auto line = operation->target.type == "vm" ? "vm " + operation->target.name : target_of(*command);
            (void)p_.inbox.change(command->id, CommandState::running, operation->id, {});
            queue(line, command->id);
        } else if (command->state == CommandState::running)
            tasks_.spawn(
                "command " + command->id,
                change(command->id, CommandState::failed, {},
                       problem_of({base::Errc::interrupted, "what became of it isn't known any more"}, command->id)));
        else if (command->has_params)
            ready(command->id);
    }
}

void CommandRunner::ready(const std::string& id) {
    if (closed_) return;
    const auto* command = p_.inbox.find(id);
    (void)deadline_of(*command);  // from now on
    if (is_forced_stop(*command)) return tasks_.spawn("command " + id, run(id));
    queue(target_of(*command), id);
}

void CommandRunner::queue(const std::string& target, const std::string& id) {
    auto& line = lines_[target];
    line.push_back(id);
    if (line.size() == 1) tasks_.spawn("commands for " + target, run_line(target));
}

asio::awaitable<void> CommandRunner::run_line(std::string target) {
    co_await asio::this_coro::throw_if_cancelled(false);
    for (auto it = lines_.find(target); !closed_ && it != lines_.end(); it = lines_.find(target)) {
        co_await run(it->second.front());
        auto& line = lines_.at(target);
        line.pop_front();
        if (line.empty()) lines_.erase(target);
    }
}

asio::awaitable<void> CommandRunner::run(std::string id) {
    co_await asio::this_coro::throw_if_cancelled(false);
    // A start that goes on with it has the same patience.
    const auto until = deadline_of(*p_.inbox.find(id)).value_or(p_.clock.now() + patience);
    while (!closed_ && co_await attempt(id, until) == Next::again)
        if (!co_await p_.clock.sleep_for(retry_pause)) co_return;
}

asio::awaitable<base::Result<net::Response>> CommandRunner::ask(const Command& command) {
    try {
        co_return co_await p_.api(request_for(command));
    } catch (const std::exception& broke) {
        p_.log.error("exception in a command's handler", {{"command", command.id}, {"error", broke.what()}});
    }
    co_return base::fail(base::Errc::internal, "the agent has a fault; its log tells more");
}

asio::awaitable<CommandRunner::Next> CommandRunner::attempt(std::string id, base::Instant until) {
    const auto command = *p_.inbox.find(id);
    if (const auto begun = operation_of(command)) {
        co_await follow(id, begun->id);
        co_return Next::over;
    }
    // Our clock may be wrong by hours: Core's is waited for, as long as the command may wait.
    const auto core_time = p_.core_time();
    if (command.not_after && !core_time && p_.clock.now() < until) co_return Next::again;
    if (command.not_after && core_time.value_or(p_.clock.wall()) > *command.not_after) {
        const base::Error late{base::Errc::deadline_exceeded,
                               fmt::format("it was to be done by {} (not_after), and wasn't begun before",
                                           base::rfc3339(*command.not_after))};
        co_await change(id, CommandState::rejected, {}, problem_of(late, id));
        co_return Next::over;
    }
    if (command.deadline && p_.clock.now() >= until) {
        const base::Error late{base::Errc::deadline_exceeded, "it couldn't be begun within its deadline_s"};
        co_await change(id, CommandState::rejected, {}, problem_of(late, id));
        co_return Next::over;
    }
    // One that was kept by a later version may be none of ours.
    if (!route_of(command)) {
        const base::Error unknown{base::Errc::validation_failed,
                                  fmt::format("the kind {} isn't known here", command.kind)};
        co_await change(id, CommandState::rejected, {}, problem_of(unknown, id));
        co_return Next::over;
    }
    const auto response = co_await ask(command);
    if (!response) {
        // Whatever it was, it may have begun something; what follows in line must not wait for ever.
        if (const auto begun = operation_of(command))
            co_await follow(id, begun->id);
        else
            co_await change(id, CommandState::failed, {}, problem_of(response.error(), id));
        co_return Next::over;
    }
    auto body = body_of(*response);
    if (response->status / 100 == 2) {
        const auto operation = heartbeat::text_member(body, "id").value_or("");
        co_await change(id, CommandState::running, operation);
        co_await follow(id, operation);
        co_return Next::over;
    }
    if (closed_) co_return Next::over;  // the next start goes on with it
    // The last try says why.
    if (passes(heartbeat::text_member(body, "code").value_or("")) && p_.clock.now() + retry_pause < until)
        co_return Next::again;
    co_await change(id, CommandState::rejected, {}, std::move(body));
    co_return Next::over;
}

// Of one that an earlier run took, what is left by the wall clock; from then on no clock that is set changes it.
std::optional<base::Instant> CommandRunner::deadline_of(const Command& command) {
    if (!command.deadline) return std::nullopt;
    const auto waited = std::max(p_.clock.wall() - command.received, base::Wall::duration::zero());
    const auto left = std::max<base::Wall::duration>(*command.deadline - waited, base::Wall::duration::zero());
    return deadlines_.try_emplace(command.id, p_.clock.now() + left).first->second;
}

// Until the operation has ended, or the agent does.
asio::awaitable<void> CommandRunner::follow(std::string id, std::string operation) {
    co_await asio::this_coro::throw_if_cancelled(false);
    if (p_.inbox.find(id)->state == CommandState::accepted) co_await change(id, CommandState::running, operation);
    const auto deadline = deadline_of(*p_.inbox.find(id));
    bool given_up = false;
    auto op = p_.operations.find(operation);
    while (op && !is_terminal(op->state)) {
        if (!given_up && deadline && p_.clock.now() >= *deadline) {
            given_up = true;
            (void)p_.operations.cancel(operation);  // one that can't be cancelled any more goes on to its end
        }
        const auto limit = deadline && !given_up ? *deadline - p_.clock.now() : base::Duration{look_again};
        op = co_await p_.operations.wait(operation, limit);
        if (closed_) co_return;
        // Whoever waits is let go of early when the agent is about to stop.
        const bool late = deadline && p_.clock.now() >= *deadline && !given_up;
        if (op && !is_terminal(op->state) && !late && !co_await p_.clock.sleep_for(retry_pause)) co_return;
    }
    if (!op) {
        co_await change(id, CommandState::failed, {},
                        problem_of({base::Errc::interrupted, "its operation isn't known any more"}, id));
    } else if (op->state == OperationState::succeeded) {
        co_await change(id, CommandState::succeeded, operation);
    } else {
        base::Error why{base::Errc::cancelled, "the operation was cancelled"};
        if (given_up && op->state == OperationState::cancelled)
            why = {base::Errc::deadline_exceeded, "it took longer than its deadline_s, and was cancelled"};
        else if (op->error)
            why = *op->error;
        co_await change(id, CommandState::failed, operation, problem_of(why, id));
    }
}

asio::awaitable<base::Result<void>> CommandRunner::keep(Command command) {
    const auto id = command.id;
    std::vector<Command> kept;
    kept.push_back(std::move(command));
    auto done = co_await p_.keeper.keep_commands(std::move(kept));
    if (!done) p_.log.warn("a command's state can't be kept", {{"command", id}, {"error", done.error().detail}});
    co_return done;
}

// An end that isn't on disk hasn't happened: the next start could come to another. That it runs is in the journal.
asio::awaitable<void> CommandRunner::change(std::string id, CommandState state, std::string operation,
                                            json::object problem) {
    co_await asio::this_coro::throw_if_cancelled(false);
    const auto command = heartbeat::moved_on(*p_.inbox.find(id), state, std::move(operation), std::move(problem));
    while (is_final(state) && !co_await keep(command))
        if (closed_ || !co_await p_.clock.sleep_for(retry_pause)) co_return;
    (void)p_.inbox.change(id, state, command.operation, command.problem);
    if (is_final(state)) deadlines_.erase(id);
    p_.log.info("command of Ghost Core", {{"command", id},
                                          {"kind", command.kind},
                                          {"target", command.target},
                                          {"state", name_of(state)},
                                          {"operation", command.operation}});
    if (!is_final(state)) (void)co_await keep(command);
}

void CommandRunner::close() {
    closed_ = true;
    tasks_.cancel();
}

asio::awaitable<void> CommandRunner::drain() { return tasks_.drain(); }

}  // namespace ghost::agent
