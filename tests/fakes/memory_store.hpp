// storage::StateStore in memory. It outlives the agent under test, so a second agent can start on what the first left.
#pragma once

#include "fakes/countdown.hpp"
#include "storage/state_store.hpp"

#include <functional>
#include <map>
#include <optional>
#include <string>

namespace ghost::fakes {

class MemoryStore final : public storage::StateStore {
public:
    boost::asio::awaitable<base::Result<storage::StoredState>> load() override;
    boost::asio::awaitable<base::Result<void>> commit(storage::Changes changes) override;
    boost::asio::awaitable<base::Result<void>> back_up() override;
    storage::StoreHealth health() const override { return health_; }
    boost::asio::awaitable<void> close() override;

    // How many turns of the loop a commit takes beyond its first.
    unsigned more_turns = 0;
    // The n-th commit from now on (1: the next) fails and changes nothing. Those of events alone, which come whenever
    // they come, don't count.
    void fail_commit(unsigned n, base::Error error) {
        failing_.set(n);
        fail_with_ = std::move(error);
    }
    // Every commit fails until nullopt is given.
    void fail_always(std::optional<base::Error> error) { fail_always_ = std::move(error); }
    void fail_load(std::optional<base::Error> error) { fail_load_ = std::move(error); }
    // Called with each batch that was committed, but for events alone: a test's way of "killing" the agent at a step.
    void on_commit(std::function<void(const storage::Changes&)> call) { on_commit_ = std::move(call); }

    [[nodiscard]] unsigned commits() const noexcept { return commits_; }  // tried
    [[nodiscard]] bool closed() const noexcept { return closed_; }
    void reopen() { closed_ = false; }

    // For a test's looks.
    [[nodiscard]] const std::map<std::string, storage::VmRow>& vms() const noexcept { return rows_.vms; }
    [[nodiscard]] const std::map<std::string, storage::OperationRow>& operations() const noexcept {
        return rows_.operations;
    }
    [[nodiscard]] const std::map<std::string, storage::ImageRow>& images() const noexcept { return rows_.images; }
    [[nodiscard]] const std::map<std::uint64_t, storage::EventRow>& events() const noexcept { return rows_.events; }
    [[nodiscard]] const std::map<std::string, storage::KeyRow>& keys() const noexcept { return rows_.keys; }
    [[nodiscard]] const std::map<std::string, std::string>& facts() const noexcept { return rows_.facts; }
    [[nodiscard]] const std::map<std::string, storage::CommandRow>& commands() const noexcept { return rows_.commands; }
    [[nodiscard]] const std::map<std::uint64_t, storage::OutboxRow>& outbox() const noexcept { return rows_.outbox; }
    // What health() says.
    void set_health(storage::StoreHealth health) { health_ = std::move(health); }

private:
    struct Rows {
        std::map<std::string, storage::VmRow> vms;
        std::map<std::string, storage::OperationRow> operations;
        std::map<std::string, storage::ImageRow> images;
        std::map<std::uint64_t, storage::EventRow> events;
        std::map<std::string, std::string> subjects;
        std::map<std::string, storage::KeyRow> keys;
        std::map<std::string, std::string> facts;
        std::map<std::string, storage::CommandRow> commands;
        std::map<std::uint64_t, storage::OutboxRow> outbox;
    };
    static base::Result<void> apply(Rows& rows, const storage::Change& change);

    Rows rows_;
    storage::StoreHealth health_;
    unsigned commits_ = 0;
    std::int64_t backups_ = 0;
    Countdown failing_;
    base::Error fail_with_;
    std::optional<base::Error> fail_always_;
    std::optional<base::Error> fail_load_;
    std::function<void(const storage::Changes&)> on_commit_;
    bool closed_ = false;
};

}  // namespace ghost::fakes
