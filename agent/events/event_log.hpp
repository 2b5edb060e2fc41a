// The stream of what happened: numbered, kept, handed to every reader in order.
//
// An event is written to the database before readers see it, so that one that
// was read is there for whoever resumes after a crash. A database that takes no
// more keeps no event from its readers. Events tell of state, not of steps: with
// each goes the whole subject, and what a crash kept from being told is told
// when the next start finds the subject other than it was told last. But for
// incidents, which leave nothing to be found: each is told once, with what it was.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "storage/state_store.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::agent {

// As it is sent: "id: 7\nevent: vm.power\ndata: {...}\n\n", one text for all its readers.
using EventText = std::shared_ptr<const std::string>;

// Loop thread only.
class EventLog {
public:
    // Ids start above `after`, which must not be below any id of an earlier run.
    EventLog(const boost::asio::any_io_executor& executor, const base::Clock& clock, storage::StateStore& store,
             base::Log& log, std::uint64_t after);

    void restore(const storage::StoredState& state);
    // Writes and hands out what is published, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();

    // Asked for more to publish before each batch is written, so that what changes often is told of once.
    std::function<void()> collect;
    // There is something to collect.
    void wake() {
        uncollected_ = true;
        published_.notify();
    }

    // `version`: of the subject, as it is told now; empty: it is gone. Published however often, the same version is
    // told once.
    void publish(std::string_view type, const std::string& subject, std::string version, boost::json::object data);
    // An incident about `subject`, which says nothing of what that is now. More than max_waiting of them at a time, and
    // the oldest is left out.
    void tell(std::string_view type, std::string subject, const boost::json::object& data);
    // What was told of `subject` last, or is about to be; nullptr: nothing, or that it is gone.
    [[nodiscard]] const std::string* told(const std::string& subject) const;
    [[nodiscard]] const std::map<std::string, std::string>& subjects() const noexcept { return subjects_; }
    // The subject is gone and nobody needs to be told.
    void forget(const std::string& subject);

    // The last event that readers may have seen; what happens from now on has a greater one.
    [[nodiscard]] std::uint64_t last_id() const noexcept { return last_id_; }
    // Where whoever lists now goes on. A list that shows more than was written gets a number that no event has, so that
    // no later run takes it for one: what it showed may never be told.
    [[nodiscard]] std::uint64_t place_of_list();
    // Until then lists show subjects that nothing can be told of. Whether there were such lists: their readers are to
    // be told of each of those subjects, also of one that is as it was told last.
    [[nodiscard]] bool subjects_are_known();
    void tell_anew(const std::string& subject, std::string version);
    // Where a reader that saw `after` goes on. Errors: events_expired, when what followed isn't all kept.
    [[nodiscard]] base::Result<void> can_resume(std::uint64_t after) const;
    struct Next {
        std::uint64_t id = 0;
        EventText text;
    };
    // The event that follows `after`; nullopt: there is none yet.
    [[nodiscard]] std::optional<Next> next(std::uint64_t after) const;
    // Woken when there are more, and by close().
    [[nodiscard]] base::Notifier& more() noexcept { return more_; }
    // Readers are to leave.
    void close();
    [[nodiscard]] bool closed() const noexcept { return closed_; }

    static constexpr std::size_t max_kept = 10'000;
    static constexpr std::size_t max_waiting = 1'000;  // more, and an older event of the same subject gives way

private:
    struct Event {
        std::uint64_t id = 0;
        EventText text;
    };
    struct Waiting {
        std::string type;
        std::string subject;
        std::string version;
        std::string data;  // JSON
        base::Wall time;
        bool incident = false;
    };

    boost::asio::awaitable<void> write(std::deque<Waiting> batch);
    [[nodiscard]] storage::Changes to_changes(const std::deque<Event>& events, const std::deque<Waiting>& batch);

    const base::Clock& clock_;
    storage::StateStore& store_;
    base::Log& log_;
    std::uint64_t first_id_;  // events of this run have greater ones
    std::uint64_t last_id_;
    std::uint64_t next_id_;
    std::deque<Event> events_;
    std::deque<Waiting> waiting_;
    std::map<std::string, std::string> subjects_;
    storage::Changes unwritten_;  // subjects to forget, the mark of early lists
    storage::Changes unsaved_;    // what the database didn't take
    std::size_t since_prune_ = 0;
    base::Notifier published_;
    base::Notifier more_;
    bool uncollected_ = false;   // woken, and nothing was collected since
    bool early_ = true;          // not all subjects are known
    bool listed_early_ = false;  // in this run, or in one that ended before all subjects were known
    bool settle_early_ = false;  // they are known; once they are told the mark of that goes
    bool writing_ = false;
    bool failing_ = false;
    bool closed_ = false;
};

}  // namespace ghost::agent
