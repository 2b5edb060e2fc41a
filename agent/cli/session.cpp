#include "agent/cli/session.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/output.hpp"
#include "agent/cli/progress.hpp"
#include "agent/cli/text.hpp"
#include "agent/cli/views.hpp"
#include "base/cancelled.hpp"
#include "base/ids.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

// How an operation that ended counts: nothing when it did what was asked.
std::optional<Failure> fault_of(const json::object& operation, std::string_view subject, bool ends_cancelled) {
    const auto state = text_at(operation, "state");
    const auto kind = text_at(operation, "kind");
    if (state == "failed" && !ends_cancelled) return failure_of_operation(operation);
    if (state == (ends_cancelled ? "cancelled" : "succeeded")) return std::nullopt;
    if (ends_cancelled)
        return Failure{ExitCode::failed, fmt::format("{} of {} {} before it could be cancelled", kind, subject, state)};
    return Failure{ExitCode::failed,
                   fmt::format("{} of {} was cancelled", kind, subject),
                   {},
                   {},
                   text_at(operation, "request_id")};
}

// Where what the operation made or changed can be read.
std::optional<std::string> result_of(const json::object& operation) {
    auto href = text_at(operation, "result", "href");
    const bool ours = href == "/v1" || href.starts_with("/v1/");
    if (ours && printable(href) == href && !href.contains(' ')) return href;
    return std::nullopt;
}

std::string subject_of(const json::object& operation) {
    const auto name = text_at(operation, "target", "name");
    const auto type = text_at(operation, "target", "type");
    return fmt::format("{} {}", type == "vm" ? "VM" : type, name.empty() ? text_at(operation, "target", "id") : name);
}

// The failure of a change that nobody knows whether it began.
Failure undecided(Failure failure, const Change& change, bool interrupted) {
    if (interrupted) {
        failure = {ExitCode::failed, "interrupted before the agent answered"};
        if (!change.dry_run) failure.hint = "'ghostctl operation list' shows it";
    } else if (!failure.unanswered) {
        return failure;
    }
    if (change.dry_run) return failure;
    failure.details.emplace_back(interrupted ? "the change may have begun"
                                             : "the change may have begun: 'ghostctl operation list' shows it");
    failure.details.push_back(fmt::format(
        "to ask again without doing it twice: the same command with --idempotency-key {}", change.idempotency_key));
    return failure;
}

}  // namespace

std::optional<ExitCode> confirm(const Invocation& invocation, Console& console) {
    const auto* change = std::get_if<Change>(&invocation.action);
    if (change == nullptr || change->question.empty()) return std::nullopt;
    if (!console.can_ask()) {
        console.error(describe({ExitCode::usage,
                                fmt::format("nobody to ask '{}': this is no terminal", change->question),
                                {},
                                "give --yes"}));
        return ExitCode::usage;
    }
    const auto answer = console.ask(fmt::format("{} [y/N] ", printable(change->question)));
    if (answer == "y" || answer == "Y" || answer == "yes" || answer == "Yes") return std::nullopt;
    console.error("ghostctl: nothing was done\n");
    return ExitCode::failed;
}

Session::Session(const Invocation& invocation, net::Client& client, base::Clock& clock, base::Random& random,
                 Console& console, Outside outside)
    : invocation_(invocation),
      clock_(clock),
      random_(random),
      console_(console),
      outside_(outside),
      agent_(client, invocation.address),
      follower_(agent_, clock, console) {}

asio::awaitable<ExitCode> Session::run() {
    co_await asio::this_coro::throw_if_cancelled(false);
    auto done = co_await std::visit([this](const auto& action) { return perform(action); }, invocation_.action);
    if (done) {
        console_.out(*done);
        co_return ExitCode::done;
    }
    if (!done.error().sentence.empty()) console_.error(describe(done.error()));
    co_return done.error().code;
}

std::string Session::document(const json::object& value) const {
    return invocation_.format == Format::yaml ? to_yaml_text(value) : to_json_text(value);
}

asio::awaitable<Session::Done> Session::perform(ShowStatus) {
    auto agent = co_await agent_.get("/v1");
    if (!agent) co_return std::unexpected{std::move(agent.error())};
    auto health = co_await agent_.health();
    if (!health) co_return std::unexpected{std::move(health.error())};
    auto resources = co_await agent_.get("/v1/resources");
    if (!resources) co_return std::unexpected{std::move(resources.error())};
    auto vms = co_await agent_.list("/v1/vms");
    if (!vms) co_return std::unexpected{std::move(vms.error())};
    if (invocation_.format == Format::name) co_return printable(text_at(*agent, "name")) + "\n";
    if (invocation_.format == Format::table)
        co_return status_page(*agent, *health, *resources, vms->items, clock_.wall());
    json::object states;
    for (const auto& vm : vms->items) {
        if (!vm.is_object()) continue;
        auto& count = states[vm_state(vm.get_object())];
        count = (count.is_int64() ? count.get_int64() : 0) + 1;
    }
    json::object all{{"agent", std::move(*agent)},
                     {"health", std::move(*health)},
                     {"resources", std::move(*resources)},
                     {"vms", json::object{{"total", vms->items.size()}, {"states", std::move(states)}}}};
    co_return document(all);
}

asio::awaitable<Session::Done> Session::perform(ShowVersion) {
    auto agent = co_await agent_.get("/v1");
    if (!agent) {
        // What is known without an agent is still told.
        if (invocation_.format == Format::table) console_.out(version_page({}));
        co_return std::unexpected{std::move(agent.error())};
    }
    if (invocation_.format == Format::table) co_return version_page(*agent);
    if (invocation_.format == Format::name) co_return printable(text_at(*agent, "version")) + "\n";
    json::object versions{{"ghostctl", GHOST_VERSION}, {"ghost_agent", text_at(*agent, "version")}};
    for (const auto* key : {"libvirt_version", "qemu_version"}) versions[key] = text_at(*agent, "hypervisor", key);
    co_return document(versions);
}

asio::awaitable<Session::Done> Session::perform(ShowOne action) {
    auto item = co_await agent_.get(std::move(action.target));
    if (!item) co_return std::unexpected{std::move(item.error())};
    co_return render_one(*item, action.view, invocation_.format, clock_.wall());
}

asio::awaitable<Session::Done> Session::perform(ShowList action) {
    auto items = co_await agent_.list(std::move(action.target), action.has_pages);
    if (!items) co_return std::unexpected{std::move(items.error())};
    co_return render_list(items->items, action.view, invocation_.format, clock_.wall());
}

std::string Session::accepted(const json::object& operation) const {
    if (invocation_.format != Format::table)
        return render_one(operation, View::operation, invocation_.format, clock_.wall());
    const auto id = printable(text_at(operation, "id"));
    return fmt::format("{} accepted as operation {}\nwait for it: ghostctl operation wait {}\n",
                       printable(text_at(operation, "kind")), id, id);
}

// The agent does what comes twice with one key once.
asio::awaitable<Outcome<json::object>> Session::ask_for(Change change) {
    if (change.idempotency_key.empty()) change.idempotency_key = base::make_uuid(clock_, random_);
    bool cut = false;
    for (unsigned repeats = 0;; ++repeats) {
        auto answer = co_await agent_.send(change.method, change.target, change.body, change.idempotency_key);
        if (answer) co_return answer;
        auto& failure = answer.error();
        cut = cut || failure.cut;
        failure.unanswered = failure.unanswered || (cut && failure.passing);
        const bool again = cut && failure.passing && repeats < most_repeats;
        if (again && co_await clock_.sleep_for(std::chrono::seconds{1})) continue;
        const bool interrupted = co_await base::is_cancelled();
        co_return std::unexpected{undecided(std::move(failure), change, interrupted)};
    }
}

asio::awaitable<Outcome<json::object>> Session::carry_out(Change change) {
    auto answer = co_await ask_for(change);
    if (!answer) co_return answer;
    if (!is_operation(*answer))
        co_return std::unexpected{
            Failure{ExitCode::failed, fmt::format("the answer to {} is not an operation", change.target)}};
    auto ended = co_await follower_.follow(std::move(*answer), change.subject, change.waiting.limit);
    if (!ended) co_return ended;
    if (auto fault = fault_of(*ended, change.subject, false)) co_return std::unexpected{std::move(*fault)};
    co_return ended;
}

Session::Done Session::preview(const Change& change, const json::object& answer) const {
    if (array_at(answer, "would") == nullptr)
        return std::unexpected{Failure{
            ExitCode::failed, fmt::format("the answer to {} says nothing of what would be done", change.target)}};
    return invocation_.format == Format::table ? preview_page(answer) : document(answer);
}

asio::awaitable<Session::Done> Session::perform(Change change) {
    auto answer = co_await ask_for(change);
    if (!answer) co_return std::unexpected{std::move(answer.error())};
    if (change.dry_run) co_return preview(change, *answer);
    if (is_operation(*answer)) {
        if (!change.waiting.wait && !is_finished(*answer)) co_return accepted(*answer);
        auto ended = co_await follower_.follow(std::move(*answer), change.subject, change.waiting.limit);
        if (!ended) co_return std::unexpected{std::move(ended.error())};
        co_return co_await finish(std::move(change), std::move(*ended));
    }
    // Done within the request.
    if (invocation_.format == Format::table || answer->empty())
        co_return done_line(change.subject, change.done, *answer);
    co_return render_one(*answer, change.view, invocation_.format, clock_.wall());
}

asio::awaitable<Session::Done> Session::finish(Change change, json::object operation) {
    if (auto fault = fault_of(operation, change.subject, change.ends_cancelled))
        co_return std::unexpected{std::move(*fault)};
    const auto href = result_of(operation);
    // A delete or a cancel leaves nothing to look at but the operation.
    if (change.method == net::Method::del || change.ends_cancelled || !href) {
        if (invocation_.format == Format::table) co_return done_line(change.subject, change.done, {});
        co_return render_one(operation, View::operation, invocation_.format, clock_.wall());
    }
    auto resource = co_await agent_.get(*href);
    if (!resource) {
        // The change itself went well; whoever deleted or hid its result since has the last word.
        resource.error().details.insert(resource.error().details.begin(),
                                        fmt::format("{} {}, but can't be read", change.subject, change.done));
        co_return std::unexpected{std::move(resource.error())};
    }
    if (invocation_.format == Format::table) co_return done_line(change.subject, change.done, *resource);
    co_return render_one(*resource, change.view, invocation_.format, clock_.wall());
}

asio::awaitable<Session::Done> Session::perform(WaitForOperation action) {
    auto operation = co_await agent_.get(fmt::format("/v1/operations/{}", net::percent_encode(action.id)));
    if (!operation) co_return std::unexpected{std::move(operation.error())};
    const auto subject = subject_of(*operation);
    auto ended = co_await follower_.follow(std::move(*operation), subject, action.waiting.limit);
    if (!ended) co_return std::unexpected{std::move(ended.error())};
    if (auto fault = fault_of(*ended, subject, false)) co_return std::unexpected{std::move(*fault)};
    if (invocation_.format == Format::table)
        co_return fmt::format("{} of {} succeeded\n", printable(text_at(*ended, "kind")), printable(subject));
    co_return render_one(*ended, View::operation, invocation_.format, clock_.wall());
}

}  // namespace ghost::cli
