// The agent's end of the link to Ghost Core, wired: what is told (VMs, facts,
// acks), what is kept (files and database), who sends and who carries out.
#pragma once

#include "agent/core/command_runner.hpp"
#include "agent/core/core_node.hpp"
#include "agent/core/credential_files.hpp"
#include "agent/operations/operation_service.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "base/turns.hpp"
#include "heartbeat/core_keeper.hpp"
#include "heartbeat/core_link.hpp"
#include "heartbeat/identity.hpp"
#include "heartbeat/inbox.hpp"
#include "heartbeat/link.hpp"
#include "heartbeat/outbox.hpp"
#include "heartbeat/sender.hpp"
#include "heartbeat/state_view.hpp"
#include "storage/files.hpp"
#include "storage/state_store.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

struct CoreSettings {
    std::string url;    // empty: there is no Core
    std::string token;  // empty: none
    std::chrono::milliseconds interval{30'000};
    std::string state_dir;
    // A certificate of the operator's, and its key: files. Empty: the agent enrols.
    std::string certificate;
    std::string key;
    std::string ca;  // file of the trust root; empty: the system's
};

class GhostCore final : public heartbeat::CoreKeeper {
public:
    // All of it outlives this.
    struct Parts {
        heartbeat::CoreLink* link;  // null: there is no way to a Core, and no Core
        heartbeat::Identity& identity;
        const net::Handler& api;
        OperationService& operations;
        const VmIndex& vms;
        storage::Files& files;
        storage::StateStore& store;
        base::Clock& clock;
        base::Random& random;
        base::Log& log;
    };
    GhostCore(const boost::asio::any_io_executor& executor, CoreSettings settings, Parts parts, CoreNode node);

    // Takes up what earlier runs left, before there is anything new.
    void restore(const storage::StoredState& state);
    // Reads the installation's credentials, whose key is made if there is none, and goes on with commands; once
    // operations and VMs are restored. When files can't be used nothing is sent, and status() says so.
    [[nodiscard]] boost::asio::awaitable<void> open();
    [[nodiscard]] boost::asio::awaitable<void> run();
    // No more commands are begun.
    void close();
    // After run(): says goodbye to Core, within two seconds.
    [[nodiscard]] boost::asio::awaitable<void> leave();

    void vm_changed(std::string_view id);
    // Of an operation that is about to end so: the facts it makes go with its end into the database.
    void add_facts(const Operation& ended, storage::Changes& changes);
    // It has.
    void operation_ended(const Operation& operation);
    // Something else that a beat tells may have changed: conditions, resources.
    void look_again();

    void woke();
    void network_changed();
    // Of this host, or of its tailnet.
    void addresses_changed();
    [[nodiscard]] boost::asio::awaitable<void> before_sleep(base::Duration limit);

    // "disabled" without a Core.
    [[nodiscard]] heartbeat::LinkStatus status() const;
    [[nodiscard]] std::size_t facts_waiting() const noexcept { return outbox_.size(); }
    // Core has heard of all that is so now.
    [[nodiscard]] bool told_all() const { return !state_.wants_full() && state_.acked() == state_.rev(); }
    [[nodiscard]] std::size_t commands_unfinished() const noexcept { return inbox_.unfinished(); }
    // GET /v1's `core`.
    [[nodiscard]] boost::json::object resource() const;
    [[nodiscard]] bool enabled() const noexcept { return p_.link != nullptr && !settings_.url.empty(); }
    // The operator's files, certificate and CA, may be new.
    [[nodiscard]] boost::asio::awaitable<void> reload_files();

    Done keep_enrolment(heartbeat::Enrolled answer, std::string used_token) override;
    Done keep_certificate(heartbeat::Renewed answer) override;
    Done keep_urls(std::vector<std::string> core_urls) override;
    Done keep_commands(std::vector<heartbeat::Command> commands) override;
    Done forget_facts(std::uint64_t rev) override;

private:
    boost::asio::awaitable<base::Result<heartbeat::Credentials>> load_credentials();
    boost::asio::awaitable<base::Result<std::string>> load_root();
    boost::asio::awaitable<void> tend();
    Done commit(storage::Changes changes);
    // Not to be cancelled.
    Done write_urls(std::vector<std::string> core_urls);
    Done write_enrolment(heartbeat::Enrolled answer, std::string used_token);
    Done end_commands_of_copy();
    [[nodiscard]] bool has_own_certificate() const noexcept { return settings_.certificate.empty(); }
    storage::OutboxRow new_fact(std::string_view kind, boost::json::object members);

    boost::asio::any_io_executor executor_;
    CoreSettings settings_;
    Parts p_;
    CoreNode node_;
    CredentialFiles credential_files_;
    heartbeat::StateView state_;
    heartbeat::Inbox inbox_;
    heartbeat::Outbox outbox_;
    std::optional<heartbeat::Link> link_;      // once opened, of an agent with a Core
    std::optional<heartbeat::Sender> sender_;  // likewise
    CommandRunner runner_;
    base::Turns identity_turns_;                                    // of identity.json's writers
    bool from_copy_ = false;                                        // the commands are those of the database's copy
    std::string root_;                                              // core.tls_ca's content, as it is used
    std::string fault_;                                             // why nothing is sent
    std::map<std::string, std::vector<std::uint64_t>> held_facts_;  // operation -> revs, until its end is on disk
    boost::json::array conditions_;                                 // as they were last looked at
};

}  // namespace ghost::agent
