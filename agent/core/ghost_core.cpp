#include "agent/core/ghost_core.hpp"

#include "agent/api/problem.hpp"
#include "base/shielded.hpp"
#include "heartbeat/json_fields.hpp"
#include "storage/boot_id.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace json = boost::json;
using heartbeat::Command;
using heartbeat::LinkState;
namespace {

constexpr std::chrono::seconds goodbye_limit{2};
constexpr std::chrono::hours prune_interval{1};
constexpr std::chrono::seconds open_interval{15};  // between tries to read the credentials
constexpr std::size_t pem_limit = 256 * 1024;

// What is written into a VM's seed and kept nowhere else.
bool holds_secret(const json::object& params) {
    const auto* spec = heartbeat::object_member(params, "spec");
    const auto* init = spec != nullptr ? heartbeat::object_member(*spec, "cloud_init") : nullptr;
    const auto* secret = init != nullptr ? init->if_contains("user_data") : nullptr;
    return secret != nullptr && !secret->is_null();
}

storage::CommandRow to_row(const Command& command) {
    return {command.id, base::to_unix_ms(command.received), command.confirmed, heartbeat::to_document(command)};
}

bool makes_a_vm(const Operation& operation) { return operation.kind == "vm.create" || operation.kind == "vm.adopt"; }

}  // namespace

GhostCore::GhostCore(const asio::any_io_executor& executor, CoreSettings settings, Parts parts, CoreNode node)
    : executor_(executor),
      settings_(std::move(settings)),
      p_(parts),
      node_(std::move(node)),
      credential_files_(p_.files, settings_.state_dir),
      inbox_(holds_secret),
      // As with events: the epoch grows at each start.
      outbox_((p_.identity.epoch << 32U) + 1),
      runner_(executor_, {p_.api, p_.operations, p_.vms, inbox_, *this, p_.clock, p_.random, p_.log,
                          [this]() -> std::optional<base::Wall> {
                              if (!link_ || !link_->clock_is_known()) return std::nullopt;
                              return link_->core_time(p_.clock.wall());
                          }}),
      identity_turns_(executor_) {
    inbox_.on_ready = [this](const std::string& id) { runner_.ready(id); };
    inbox_.on_news = [this] {
        if (sender_) sender_->changed();
    };
}

asio::awaitable<base::Result<heartbeat::Credentials>> GhostCore::load_credentials() {
    if (has_own_certificate()) {
        if (const auto key = co_await credential_files_.own_key(); !key) co_return base::fail(key.error());
        co_return co_await credential_files_.load();
    }
    auto key = co_await p_.files.read(settings_.key, pem_limit);
    if (!key) co_return base::fail(key.error());
    auto certificate = co_await p_.files.read(settings_.certificate, pem_limit);
    if (!certificate) co_return base::fail(certificate.error());
    co_return heartbeat::Credentials{*std::move(key), *std::move(certificate), {}};
}

asio::awaitable<base::Result<std::string>> GhostCore::load_root() {
    if (settings_.ca.empty()) co_return std::string{};
    auto root = co_await p_.files.read(settings_.ca, pem_limit);
    if (!root) co_return root;
    if (const auto usable = net::make_client_tls(net::TlsTexts{.certificate = {}, .key = {}, .ca = *root}); !usable)
        co_return base::fail(usable.error());
    co_return root;
}

void GhostCore::restore(const storage::StoredState& state) {
    std::vector<heartbeat::Fact> facts;
    facts.reserve(state.outbox.size());
    for (const auto& row : state.outbox) facts.push_back({row.rev, base::from_unix_ms(row.at_ms), row.document});
    outbox_.restore(std::move(facts));
    std::vector<Command> commands;
    for (const auto& row : state.commands) {
        auto command = heartbeat::command_from_document(row.document);
        if (command)
            commands.push_back(*std::move(command));
        else
            p_.log.error("a kept command of Ghost Core can't be read",
                         {{"command", row.id}, {"error", command.error().detail}});
    }
    const auto copied = state.facts.find(std::string{storage::from_copy_fact});
    from_copy_ = copied != state.facts.end() && !copied->second.empty();
    // What became of those that weren't through is in no journal. Core has heard, or sends them again and is told then.
    if (from_copy_)
        for (auto& command : commands) {
            if (is_final(command.state)) continue;
            const base::Error lost{base::Errc::interrupted,
                                   "what became of it isn't known: the state database was damaged"};
            auto problem = api::problem_json(lost, command.id);
            command = heartbeat::moved_on(std::move(command), heartbeat::CommandState::failed, {}, std::move(problem));
            command.confirmed = true;
        }
    inbox_.restore(std::move(commands));
}

GhostCore::Done GhostCore::end_commands_of_copy() {
    storage::Changes changes;
    for (const auto* command : inbox_.all()) changes.emplace_back(to_row(*command));
    changes.emplace_back(storage::FactRow{std::string{storage::from_copy_fact}, ""});
    auto done = co_await commit(std::move(changes));
    if (done) from_copy_ = false;
    co_return done;
}

asio::awaitable<void> GhostCore::open() {
    if (!enabled()) co_return;
    const bool own = has_own_certificate();
    auto credentials = co_await load_credentials();
    auto root = co_await load_root();
    base::Result<void> usable;
    std::optional<net::CertificateFacts> certificate;
    std::string csr;
    if (!credentials) usable = base::fail(credentials.error());
    if (usable && !root) usable = base::fail(root.error());
    if (usable) usable = p_.link->use(*credentials, *root);
    if (usable && !credentials->certificate.empty()) {
        auto facts_of = net::read_certificate(credentials->certificate);
        if (!facts_of)
            usable = base::fail(facts_of.error());
        else if (!own && !heartbeat::is_agent_id(facts_of->common_name))
            usable =
                base::fail(base::Errc::validation_failed,
                           "the certificate's CN is to be the agent's id: 1 to 64 letters, digits, '.', '_' and '-'");
        else
            certificate = *std::move(facts_of);
    }
    if (usable && own) {
        auto made = net::make_csr(credentials->key, p_.identity.install_id);
        if (made)
            csr = *std::move(made);
        else
            usable = base::fail(made.error());
    }
    if (!usable) {
        const auto before = std::exchange(fault_, {});
        const auto operators = root ? "core.tls_cert, core.tls_key" : "core.tls_ca";
        fault_ = fmt::format("{}: {}", own && root ? credential_files_.folder() : operators, usable.error().detail);
        if (fault_ != before) p_.log.error("the link to Ghost Core can't be used", {{"error", fault_}});
        co_return;
    }
    root_ = *std::move(root);
    // Core names its agents in their certificates; one that an operator made does so, too.
    auto agent_id = own ? p_.identity.agent_id : certificate->common_name;
    const auto boot = co_await storage::boot_id(p_.files);
    link_.emplace(
        heartbeat::LinkSettings{.url = settings_.url,
                                .token = settings_.token,
                                .interval = settings_.interval,
                                .own_certificate = own,
                                .install_id = p_.identity.install_id,
                                .epoch = p_.identity.epoch,
                                .boot_id = boot.value_or("unknown"),
                                .key = own ? credentials->key : "",
                                .csr = std::move(csr)},
        heartbeat::Membership{std::move(agent_id), p_.identity.used_token, p_.identity.core_urls, certificate},
        heartbeat::Link::Parts{node_, state_, inbox_, outbox_, p_.random});
    sender_.emplace(executor_, heartbeat::Sender::Parts{*p_.link, *this, *link_, inbox_, outbox_, p_.clock, p_.log},
                    *std::move(credentials), heartbeat::token_digest(settings_.token));
    runner_.recover();
}

asio::awaitable<void> GhostCore::reload_files() {
    if (!sender_) co_return;
    const auto root = co_await load_root();
    if (root && *root == root_ && has_own_certificate()) co_return;
    // No key is made here: it wouldn't be that of the certificate.
    const auto credentials = has_own_certificate() ? co_await credential_files_.load() : co_await load_credentials();
    base::Result<void> used;
    if (!root) used = base::fail(root.error());
    if (used && !credentials) used = base::fail(credentials.error());
    std::optional<net::CertificateFacts> replaced;
    if (used && !has_own_certificate()) {
        auto read = net::read_certificate(credentials->certificate);
        if (!read)
            used = base::fail(read.error());
        else if (read->common_name != link_->status().agent_id)
            used = base::fail(base::Errc::validation_failed,
                              fmt::format("the certificate is {}'s, and this agent is {}: another name takes a restart",
                                          read->common_name, link_->status().agent_id));
        else
            replaced = *std::move(read);
    }
    if (used) used = p_.link->use(*credentials, *root);
    if (used) {
        root_ = *root;
        if (replaced) link_->certificate_replaced(*std::move(replaced), p_.clock.wall());
        sender_->network_changed();  // whoever was refused with the old ones tries again
        co_return;
    }
    p_.log.error("the certificates for Ghost Core stay as they are", {{"error", used.error().detail}});
}

asio::awaitable<void> GhostCore::run() {
    if (!enabled()) co_return;
    // What was wrong with files may be mended meanwhile.
    while (!sender_) {
        if (!co_await p_.clock.sleep_for(open_interval)) co_return;
        co_await open();
    }
    using namespace asio::experimental::awaitable_operators;
    co_await (sender_->run() && tend());
}

asio::awaitable<void> GhostCore::tend() {
    do {
        if (from_copy_) (void)co_await end_commands_of_copy();
        const auto now = p_.clock.wall();
        // A clock that nobody has compared may be off by years.
        const bool trusted = link_->clock_is_known();
        const auto before = trusted ? now - heartbeat::Inbox::memory : base::Wall{};
        inbox_.prune(before);
        storage::Changes changes;
        changes.emplace_back(storage::PruneCommands{base::to_unix_ms(before), heartbeat::Inbox::max_kept});
        if (const auto dropped = outbox_.prune(trusted ? std::optional{now} : std::nullopt)) {
            p_.log.warn("facts for Ghost Core were dropped: it has been away for too long", {{"lost", outbox_.lost()}});
            changes.emplace_back(storage::PruneOutbox{*dropped});
        }
        if (const auto done = co_await commit(std::move(changes)); !done)
            p_.log.debug("old commands can't be deleted", {{"error", done.error().detail}});
    } while (co_await p_.clock.sleep_for(prune_interval));
}

void GhostCore::close() { runner_.close(); }

asio::awaitable<void> GhostCore::leave() {
    co_await runner_.drain();
    if (sender_) co_await sender_->say_goodbye(goodbye_limit);
}

void GhostCore::vm_changed(std::string_view id) {
    if (!enabled()) return;
    const auto* vm = p_.vms.find(id);
    const bool news = vm != nullptr && vm->managed ? state_.put_vm(id, vm_for_core(*vm)) : state_.remove_vm(id);
    if (news && sender_) sender_->changed();
}

storage::OutboxRow GhostCore::new_fact(std::string_view kind, json::object members) {
    const auto& fact = outbox_.add(p_.clock.wall(), kind, std::move(members));
    return {fact.rev, base::to_unix_ms(fact.at), fact.document};
}

void GhostCore::add_facts(const Operation& ended, storage::Changes& changes) {
    // Asked again for each try to write the same end.
    if (!enabled() || ended.state != OperationState::succeeded || held_facts_.contains(ended.id)) return;
    const bool deletes = ended.kind == "vm.delete";
    if (!deletes && !makes_a_vm(ended)) return;
    const auto* vm = p_.vms.find(ended.target.id);
    auto shown = vm != nullptr ? vm_in_fact(*vm)
                               : json::object{{"id", ended.target.id}, {"name", ended.target.name}, {"owner", ""}};
    auto row = new_fact(deletes ? "vm.deleted" : "vm.created", {{"vm", std::move(shown)}, {"operation", ended.id}});
    held_facts_[ended.id].push_back(row.rev);
    changes.emplace_back(std::move(row));
}

void GhostCore::operation_ended(const Operation& operation) {
    const auto held = held_facts_.find(operation.id);
    if (held == held_facts_.end()) return;
    for (const auto rev : held->second) outbox_.release(rev);
    held_facts_.erase(held);
    if (sender_) sender_->facts_added();
}

void GhostCore::look_again() {
    if (!sender_) return;
    bool news = state_.set_resources(node_.resources());
    auto conditions = node_.conditions();
    news = news || conditions != conditions_;
    conditions_ = std::move(conditions);
    if (news) sender_->changed();
}

void GhostCore::woke() {
    if (sender_) sender_->woke();
}

void GhostCore::network_changed() {
    if (sender_) sender_->network_changed();
}

void GhostCore::addresses_changed() {
    if (sender_) sender_->addresses_changed();
}

asio::awaitable<void> GhostCore::before_sleep(base::Duration limit) {
    if (sender_) co_await sender_->tell_of_sleep(limit);
}

heartbeat::LinkStatus GhostCore::status() const {
    if (link_) return link_->status();
    heartbeat::LinkStatus status;
    status.state = LinkState::refused;
    status.detail = fault_;
    status.url = settings_.url;
    status.agent_id = p_.identity.agent_id;
    return status;
}

json::object GhostCore::resource() const {
    if (!enabled()) return {{"state", "disabled"}};
    const auto now = status();
    json::object out{{"state", link_ ? heartbeat::name_of(now.state) : "failed"}, {"url", now.url}};
    if (!now.detail.empty()) out["reason"] = now.detail;
    if (now.since != base::Wall{}) out["since"] = base::rfc3339(now.since);
    out["last_beat_at"] = now.last_beat ? json::value(base::rfc3339(*now.last_beat)) : json::value(nullptr);
    if (now.last_beat)
        out["round_trip_ms"] =
            std::round(std::chrono::duration<double, std::milli>(now.round_trip).count() * 100) / 100;
    out["next_attempt_at"] = nullptr;
    if (now.next_attempt)
        out["next_attempt_at"] = base::rfc3339(
            p_.clock.wall() + std::chrono::ceil<base::Wall::duration>(*now.next_attempt - p_.clock.now()));
    auto& warnings = out["warnings"].emplace_array();
    for (const auto& warning : now.warnings) warnings.emplace_back(warning.message);
    if (now.certificate_expires) out["certificate_expires_at"] = base::rfc3339(*now.certificate_expires);
    return out;
}

GhostCore::Done GhostCore::commit(storage::Changes changes) {
    return base::shielded(p_.store.commit(std::move(changes)));
}

GhostCore::Done GhostCore::write_enrolment(heartbeat::Enrolled answer, std::string used_token) {
    const auto turn = co_await identity_turns_.take();
    auto kept = co_await credential_files_.keep_enrolment(p_.identity, std::move(answer), std::move(used_token));
    if (!kept) co_return base::fail(kept.error());
    p_.identity = *std::move(kept);
    co_return base::Result<void>{};
}

GhostCore::Done GhostCore::write_urls(std::vector<std::string> core_urls) {
    const auto turn = co_await identity_turns_.take();
    auto identity = p_.identity;
    identity.core_urls = std::move(core_urls);
    auto done = co_await credential_files_.keep_identity(identity);
    if (done) p_.identity = std::move(identity);
    co_return done;
}

GhostCore::Done GhostCore::keep_enrolment(heartbeat::Enrolled answer, std::string used_token) {
    co_return co_await base::shielded(write_enrolment(std::move(answer), std::move(used_token)));
}

GhostCore::Done GhostCore::keep_certificate(heartbeat::Renewed answer) {
    co_return co_await base::shielded(credential_files_.keep_certificate(answer.certificate, answer.ca));
}

GhostCore::Done GhostCore::keep_urls(std::vector<std::string> core_urls) {
    co_return co_await base::shielded(write_urls(std::move(core_urls)));
}

// The end of a command is a fact, too, and is kept with it.
GhostCore::Done GhostCore::keep_commands(std::vector<Command> commands) {
    storage::Changes changes;
    std::vector<std::uint64_t> revs;
    for (const auto& command : commands) {
        changes.emplace_back(to_row(command));
        if (!is_final(command.state) || command.confirmed) continue;
        json::object members{{"cmd_id", command.id}, {"state", heartbeat::name_of(command.state)}};
        if (!command.operation.empty()) members["operation"] = command.operation;
        if (!command.problem.empty()) members["problem"] = command.problem;
        auto row = new_fact("command.result", std::move(members));
        revs.push_back(row.rev);
        changes.emplace_back(std::move(row));
    }
    const auto done = co_await commit(std::move(changes));
    for (const auto rev : revs) done ? outbox_.release(rev) : outbox_.take_back(rev);
    if (done && !revs.empty() && sender_) sender_->facts_added();
    co_return done;
}

GhostCore::Done GhostCore::forget_facts(std::uint64_t rev) {
    storage::Changes changes;
    changes.emplace_back(storage::PruneOutbox{rev});
    co_return co_await commit(std::move(changes));
}

}  // namespace ghost::agent
