#include "fakes/memory_store.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>
#include <ranges>
#include <tuple>

namespace ghost::fakes {
namespace {

template <class... F>
struct Cases : F... {
    using F::operator()...;
};

bool only_events(const storage::Changes& changes) {
    return std::ranges::all_of(changes, [](const storage::Change& change) {
        return std::holds_alternative<storage::EventRow>(change) ||
               std::holds_alternative<storage::PruneEvents>(change) ||
               std::holds_alternative<storage::ForgetSubject>(change);
    });
}

}  // namespace

base::Result<void> MemoryStore::apply(Rows& rows, const storage::Change& change) {
    using Outcome = base::Result<void>;
    const Cases cases{
        [&](const storage::VmRow& row) -> Outcome {
            for (const auto& other : std::views::values(rows.vms))
                if (other.name == row.name && other.id != row.id)
                    return base::fail(base::Errc::already_exists, "the name '" + row.name + "' is taken");
            rows.vms[row.id] = row;
            return {};
        },
        [&](const storage::UpdateVm& update) -> Outcome {
            if (const auto it = rows.vms.find(update.id); it != rows.vms.end()) it->second.document = update.document;
            return {};
        },
        [&](const storage::OperationRow& row) -> Outcome {
            rows.operations[row.id] = row;
            return {};
        },
        [&](const storage::ImageRow& row) -> Outcome {
            rows.images[row.name] = row;
            return {};
        },
        [&](const storage::EraseVm& erase) -> Outcome {
            rows.vms.erase(erase.id);
            return {};
        },
        [&](const storage::EraseImage& erase) -> Outcome {
            rows.images.erase(erase.name);
            return {};
        },
        [&](const storage::PruneOperations& prune) -> Outcome {
            std::erase_if(rows.operations, [&](const auto& entry) {
                const auto& finished = entry.second.finished_ms;
                return finished && *finished < prune.finished_before_ms;
            });
            std::vector<std::pair<std::int64_t, std::string>> finished;
            for (const auto& [id, row] : rows.operations)
                if (row.finished_ms) finished.emplace_back(row.created_ms, id);
            std::ranges::sort(finished, std::ranges::greater{});
            for (std::size_t i = prune.keep; i < finished.size(); ++i) rows.operations.erase(finished[i].second);
            return {};
        },
        [&](const storage::EventRow& row) -> Outcome {
            rows.events[row.id] = {row.id, "", "", row.document};
            if (row.version.empty())
                rows.subjects.erase(row.subject);
            else
                rows.subjects[row.subject] = row.version;
            return {};
        },
        [&](const storage::PruneEvents& prune) -> Outcome {
            while (rows.events.size() > prune.keep) rows.events.erase(rows.events.begin());
            return {};
        },
        [&](const storage::ForgetSubject& forget) -> Outcome {
            rows.subjects.erase(forget.subject);
            return {};
        },
        [&](const storage::KeyRow& row) -> Outcome {
            rows.keys[row.key] = row;
            return {};
        },
        [&](const storage::PruneKeys& prune) -> Outcome {
            std::erase_if(rows.keys,
                          [&](const auto& entry) { return entry.second.created_ms < prune.created_before_ms; });
            std::vector<std::pair<std::int64_t, std::string>> kept;
            kept.reserve(rows.keys.size());
            for (const auto& [key, row] : rows.keys) kept.emplace_back(row.created_ms, key);
            std::ranges::sort(kept, std::ranges::greater{});
            for (std::size_t i = prune.keep; i < kept.size(); ++i) rows.keys.erase(kept[i].second);
            return {};
        },
        [&](const storage::FactRow& row) -> Outcome {
            rows.facts[row.name] = row.value;
            return {};
        },
        [&](const storage::CommandRow& row) -> Outcome {
            rows.commands[row.id] = row;
            return {};
        },
        [&](const storage::PruneCommands& prune) -> Outcome {
            std::erase_if(rows.commands, [&](const auto& entry) {
                return entry.second.confirmed && entry.second.received_ms < prune.received_before_ms;
            });
            std::vector<std::pair<std::int64_t, std::string>> confirmed;
            for (const auto& [id, row] : rows.commands)
                if (row.confirmed) confirmed.emplace_back(row.received_ms, id);
            std::ranges::sort(confirmed, std::ranges::greater{});
            for (std::size_t i = prune.keep; i < confirmed.size(); ++i) rows.commands.erase(confirmed[i].second);
            return {};
        },
        [&](const storage::OutboxRow& row) -> Outcome {
            rows.outbox[row.rev] = row;
            return {};
        },
        [&](const storage::PruneOutbox& prune) -> Outcome {
            rows.outbox.erase(rows.outbox.begin(), rows.outbox.upper_bound(prune.up_to_rev));
            return {};
        },
    };
    return std::visit(cases, change);
}

boost::asio::awaitable<base::Result<storage::StoredState>> MemoryStore::load() {
    co_await boost::asio::post(boost::asio::use_awaitable);
    if (fail_load_) co_return base::fail(*fail_load_);
    if (closed_) co_return base::fail(base::Errc::io_error, "the state database is closed");
    storage::StoredState state;
    for (const auto& row : std::views::values(rows_.vms)) state.vms.push_back(row);
    for (const auto& row : std::views::values(rows_.operations)) state.operations.push_back(row);
    for (const auto& row : std::views::values(rows_.images)) state.images.push_back(row);
    std::ranges::sort(state.operations, {}, [](const auto& row) { return std::tie(row.created_ms, row.id); });
    for (const auto& row : std::views::values(rows_.events)) state.events.push_back(row);
    state.subjects = rows_.subjects;
    for (const auto& row : std::views::values(rows_.keys)) state.keys.push_back(row);
    std::ranges::sort(state.keys, {}, [](const auto& row) { return std::tie(row.created_ms, row.key); });
    state.facts = rows_.facts;
    for (const auto& row : std::views::values(rows_.commands)) state.commands.push_back(row);
    std::ranges::sort(state.commands, {}, [](const auto& row) { return std::tie(row.received_ms, row.id); });
    for (const auto& row : std::views::values(rows_.outbox)) state.outbox.push_back(row);
    co_return state;
}

boost::asio::awaitable<base::Result<void>> MemoryStore::commit(storage::Changes changes) {
    co_await boost::asio::post(boost::asio::use_awaitable);
    for (unsigned i = 0; i < more_turns; ++i) co_await boost::asio::post(boost::asio::use_awaitable);
    ++commits_;
    if (closed_) co_return base::fail(base::Errc::io_error, "the state database is closed");
    if (fail_always_) co_return base::fail(*fail_always_);
    if (!only_events(changes) && failing_.strikes()) co_return base::fail(fail_with_);
    // Only the VMs' table has a rule that can be broken; the others may be large.
    Rows trial;
    trial.vms = rows_.vms;
    for (const auto& change : changes)
        if (auto applied = apply(trial, change); !applied) co_return applied;
    for (const auto& change : changes) (void)apply(rows_, change);
    if (on_commit_ && !only_events(changes)) on_commit_(changes);
    co_return base::Result<void>{};
}

boost::asio::awaitable<base::Result<void>> MemoryStore::back_up() {
    co_await boost::asio::post(boost::asio::use_awaitable);
    if (closed_) co_return base::fail(base::Errc::io_error, "the state database is closed");
    health_.copied_ms = ++backups_;
    co_return base::Result<void>{};
}

boost::asio::awaitable<void> MemoryStore::close() {
    co_await boost::asio::post(boost::asio::use_awaitable);
    closed_ = true;
}

}  // namespace ghost::fakes
