// Runs blocking libvirt calls off the loop, on a fixed set of lanes, and keeps
// the link to the daemon.
//
// A lane is one thread with one connection of its own that no other thread ever
// uses. Queues, keys and deadlines live on the loop; a lane only sees the job
// handed to it. Jobs of one class with the same key run one at a time in the
// order given (an empty key orders nothing); classes don't wait for each other.
//
// Errors of read() and change(), besides those of the work itself:
//   hypervisor_unavailable  the link is down or lost, every lane of the class is overdue, or a change wasn't
//                           begun by its deadline. Unless the work had begun, nothing was done.
//   overloaded              the class's queue is full
//   deadline_exceeded       reads only
//   cancelled               the awaiting coroutine was cancelled
//   internal                the work threw
//
// A libvirt call can't be recalled: whoever stops waiting leaves the lane busy
// and its key locked until libvirt returns. Past the job's deadline that lane
// is overdue; overdue for `stuck_after`, it is replaced by a new thread and
// connection, up to a cap, and ends itself when it comes back. Since such a
// thread may outlive the pool, everything handed to a lane (work, hooks) must
// own what it touches; it is copied, moved and destroyed on either thread.
//
// Limits and waits go by the given clock, which must outlive the io_context; close()'s grace is real time.
//
// Link: the events lane is the probe. It alone opens a connection while the
// link is down, with backoff; only then the other lanes open theirs, each when
// it first needs it. A connection found dead takes the whole link down.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "virt/connection.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ghost::virt {

class LaneCore;

enum class LaneClass : std::uint8_t {
    query,    // short reads
    mutate,   // changes of one domain, keyed by its UUID
    guest,    // asks a guest agent or a monitor
    control,  // force off, abort: unkeyed, never behind the others
    events,   // the link: opening, registering event callbacks
};
inline constexpr std::size_t lane_classes = 5;
[[nodiscard]] std::string_view name_of(LaneClass lane) noexcept;

struct LaneOptions {
    // By LaneClass. Guests' lanes are the most: each of a few guests that hang holds one for a minute.
    std::array<std::size_t, lane_classes> lanes{2, 3, 4, 3, 1};
    // More than the operations that may be under way (256) ever have here: what was accepted isn't refused half-way.
    std::array<std::size_t, lane_classes> max_queued{512, 512, 512, 512, 8};
    std::size_t max_per_key = 320;                            // of one class's queue
    base::Duration longest_queue = std::chrono::minutes{10};  // how long a change may wait for its lane

    base::Duration stuck_after = std::chrono::seconds{60};  // overdue for so long, a lane is replaced
    std::size_t max_left_behind = 8;                        // threads given up on and not yet back, all classes

    base::Duration open_limit = std::chrono::seconds{10};  // the probe's attempt is called late after this
    base::Duration backoff_min = std::chrono::seconds{1};
    base::Duration backoff_max = std::chrono::seconds{30};

    ConnectOptions connect;
};

struct LaneHooks {
    // On the loop, when the link came up or went down, or the reason it is down changed. `reason` is empty when up.
    std::function<void(bool up, std::string reason)> on_link;
    // On the events lane's thread, with its new connection, before the link is up: registers event callbacks (they
    // are called on the loop). An error keeps the link down; the attempt is repeated with backoff.
    std::function<base::Result<void>(virConnectPtr)> on_connected;
    // On the events lane's thread, before a connection that on_connected saw is closed (it may be dead, and
    // on_connected may have failed): deregisters them. Each registration keeps the connection open, so those left over
    // would leak it. After a stuck events lane was replaced it may come late, when on_connected has seen a newer
    // connection: keep registrations by connection.
    std::function<void(virConnectPtr)> on_closing;
};

// A call as LanePool's templates hand it on, its result stored by `work`.
struct LaneJob {
    LaneClass lane;
    std::string key;
    base::Duration limit;
    std::function<void(virConnectPtr)> work;
    std::function<void()> stalled;
    bool change;
};

// All members are called on the loop.
class LanePool {
public:
    template <class T>
    using Work = std::function<base::Result<T>(virConnectPtr)>;

    // Starts the threads. Nothing is opened before run().
    LanePool(boost::asio::io_context& context, std::string uri, LaneOptions options, base::Clock& clock,
             base::Random& random, base::Log& log);
    ~LanePool();  // call close() first: what hasn't ended by now is left behind without a wait
    LanePool(const LanePool&) = delete;
    LanePool& operator=(const LanePool&) = delete;

    void set_hooks(LaneHooks hooks);  // before run()

    // Keeps the link until cancelled. Once.
    [[nodiscard]] boost::asio::awaitable<void> run();

    // Resumes with deadline_exceeded at `limit`, counted from now; a late result is dropped on the loop.
    template <class T>
    [[nodiscard]] boost::asio::awaitable<base::Result<T>> read(LaneClass lane, std::string key, base::Duration limit,
                                                               Work<T> work) {
        auto slot = std::make_shared<std::optional<base::Result<T>>>();
        LaneJob job{lane, std::move(key), limit, store<T>(slot, std::move(work)), nullptr, false};
        auto done = co_await perform(std::move(job));
        if (!done) co_return std::unexpected{std::move(done.error())};
        co_return std::move(**slot);
    }

    // Waits for its lane as long as its class gets other calls done, up to longest_queue; when nothing was done for
    // `limit` it is taken out of the queue, hypervisor_unavailable. Begun and not back after `limit`: calls `stalled`
    // (if any) once, on the loop, and goes on waiting for the truth. `stalled` is never called after a
    // cancellation.
    template <class T>
    [[nodiscard]] boost::asio::awaitable<base::Result<T>> change(LaneClass lane, std::string key, base::Duration limit,
                                                                 Work<T> work, std::function<void()> stalled) {
        auto slot = std::make_shared<std::optional<base::Result<T>>>();
        LaneJob job{lane, std::move(key), limit, store<T>(slot, std::move(work)), std::move(stalled), true};
        auto done = co_await perform(std::move(job));
        if (!done) co_return std::unexpected{std::move(done.error())};
        co_return std::move(**slot);
    }

    // Refuses new calls, ends queued ones with hypervisor_unavailable, lets running ones finish, closes every
    // connection on its own thread. Lanes not back within `grace` are left behind; their callers get
    // hypervisor_unavailable. The loop must run meanwhile. Cancel run() first.
    [[nodiscard]] boost::asio::awaitable<void> close(std::chrono::milliseconds grace);

    [[nodiscard]] bool up() const noexcept;
    [[nodiscard]] std::vector<LaneStats> stats() const;

private:
    template <class T>
    static std::function<void(virConnectPtr)> store(std::shared_ptr<std::optional<base::Result<T>>> slot,
                                                    Work<T> work) {
        return [slot = std::move(slot), work = std::move(work)](virConnectPtr c) { slot->emplace(work(c)); };
    }
    // Success: the work ran to its end.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> perform(LaneJob job);

    std::shared_ptr<LaneCore> core_;
};

}  // namespace ghost::virt
