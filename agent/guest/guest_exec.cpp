// Programs in guests.
#include "agent/guest/guest_service.hpp"
#include "agent/guest/guest_text.hpp"
#include "agent/vm/vm_service.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::string_view command_member = "command";  // in an operation's plan
constexpr std::size_t longest_words = 300;              // of an agent's

std::string name_of_target(const OperationControl& control) { return control.operation().target.name; }

// What there is to say when the program didn't come to an end.
base::Error failure(base::Error error, const std::string& name, std::chrono::seconds limit) {
    if (error.code == base::Errc::cancelled)
        error.detail = fmt::format("it isn't waited for any more; the program may go on in {}", name);
    if (error.code == base::Errc::deadline_exceeded)
        error.detail =
            fmt::format("{}'s guest agent told of no end of the program within {} s; it may go on in the guest", name,
                        limit.count());
    if (error.code == base::Errc::hypervisor_unavailable)
        error.detail += fmt::format("; if the program had been begun, it may go on in {}", name);
    return error;
}

}  // namespace

base::Error no_end_of(const virt::GuestRun& run, const std::string& name) {
    using How = virt::GuestRun::How;
    if (run.how == How::no_agent)
        return {base::Errc::state_conflict,
                fmt::format("no guest agent answers in {}: does qemu-guest-agent run in it?", name)};
    if (run.how == How::not_allowed)
        return {base::Errc::state_conflict,
                fmt::format("{}'s guest forbids its agent to run programs (guest-exec)", name)};
    return {base::Errc::state_conflict,
            fmt::format("{}'s guest agent can't run it: {}", name, readable_text(run.output, longest_words).text)};
}

asio::awaitable<base::Result<OperationService::Ptr>> GuestService::exec(base::Context context, std::string ref,
                                                                        GuestProgram program) {
    const auto vm = permitted(ref, "run programs");
    if (!vm) co_return base::fail(vm.error());
    const auto command = command_line(program.argv, longest_told);
    OperationRequest request;
    request.kind = guest_exec_kind;
    request.target = {"vm", (*vm)->id, (*vm)->name};
    request.context = std::move(context);
    request.cancellable = true;
    request.exclusive = false;
    request.plan[command_member] = command;
    if (request.context.dry_run) {
        request.would.push_back(
            fmt::format("run {} in {}, and wait {} s for its end", command, (*vm)->name, program.limit.count()));
        co_return p_.operations.preview(std::move(request));
    }
    auto place = programs_.take((*vm)->id);
    if (!place) co_return base::fail(place.error());
    auto kept = std::make_shared<const GuestProgram>(std::move(program));
    auto work = [this, kept = std::move(kept), place = std::move(*place)](OperationControl& control) {
        return run(control, kept);
    };
    co_return co_await p_.operations.begin(std::move(request), std::move(work));
}

asio::awaitable<base::Result<void>> GuestService::ask(std::string id, virt::GuestCommand command,
                                                      virt::GuestRun& into) {
    auto run = co_await p_.hypervisor.run_in_guest(std::move(id), std::move(command));
    if (!run) co_return base::fail(run.error());
    into = std::move(*run);
    co_return base::Result<void>{};
}

asio::awaitable<Outcome> GuestService::run(OperationControl& control, std::shared_ptr<const GuestProgram> program) {
    const auto name = name_of_target(control);
    Outcome outcome;
    virt::GuestRun run;
    control.phase("exec");
    virt::GuestCommand command{.argv = program->argv,
                               .environment = program->environment,
                               .input = program->input,
                               .max_output = max_output,
                               .limit = program->limit};
    outcome.result = co_await control.cancellable(ask(control.operation().target.id, std::move(command), run));
    if (!outcome.result) {
        if (control.stopping() && !control.cancel_requested()) co_return outcome;
        outcome.result = base::fail(failure(outcome.result.error(), name, program->limit));
    } else if (run.how != virt::GuestRun::How::exited) {
        outcome.result = base::fail(no_end_of(run, name));
    } else {
        auto printed = readable_text(run.output, max_output, run.truncated);
        auto errors = readable_text(run.errors, max_output, run.truncated);
        outcome.answer = OperationAnswer{
            .facts = {{"exit_code", run.exit_code}, {"truncated", run.truncated || printed.cut || errors.cut}},
            .texts = {{"stdout", std::move(printed.text)}, {"stderr", std::move(errors.text)}}};
    }
    outcome.applied = telling(control.operation(), outcome);
    co_return outcome;
}

void GuestService::recover(const Operation& operation) {
    p_.operations.resume(operation.id, [this](OperationControl& control) { return end_as_interrupted(control); });
}

asio::awaitable<Outcome> GuestService::end_as_interrupted(OperationControl& control) {
    Outcome outcome;
    outcome.result = base::fail(base::Errc::interrupted,
                                fmt::format("the agent stopped while the program ran; it may go on in {}, and what "
                                            "became of it isn't known",
                                            name_of_target(control)));
    outcome.applied = telling(control.operation(), outcome);
    co_return outcome;
}

std::function<void()> GuestService::telling(const Operation& operation, const Outcome& outcome) const {
    const auto* const command = operation.plan.if_contains(command_member);
    GuestAccess access{.vm = operation.target.id,
                       .name = operation.target.name,
                       .action = "exec",
                       .what = command != nullptr && command->is_string() ? std::string{command->get_string()} : "",
                       .by = operation.requested_by,
                       .request_id = operation.request_id,
                       .operation = operation.id};
    if (outcome.answer) access.exit_code = static_cast<int>(outcome.answer->facts.at("exit_code").as_int64());
    return [this, access = std::move(access), result = outcome.result] { tell(access, result); };
}

}  // namespace ghost::agent
