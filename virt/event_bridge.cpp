#include "virt/event_bridge.hpp"

#include "virt/connection.hpp"

#include <boost/asio/error.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <libvirt/libvirt.h>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cassert>
#include <chrono>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ghost::virt {
namespace {

namespace asio = boost::asio;
using asio::posix::stream_descriptor;
using boost::system::error_code;

short to_poll(int events) noexcept {
    return static_cast<short>(((events & VIR_EVENT_HANDLE_READABLE) ? POLLIN : 0) |
                              ((events & VIR_EVENT_HANDLE_WRITABLE) ? POLLOUT : 0));
}

int from_poll(short revents) noexcept {
    return ((revents & POLLIN) ? VIR_EVENT_HANDLE_READABLE : 0) |
           ((revents & POLLOUT) ? VIR_EVENT_HANDLE_WRITABLE : 0) |
           ((revents & (POLLERR | POLLNVAL)) ? VIR_EVENT_HANDLE_ERROR : 0) |
           ((revents & POLLHUP) ? VIR_EVENT_HANDLE_HANGUP : 0);
}

}  // namespace

// The tables belong to `mutex_`. Every Asio object is made, touched and destroyed on the loop; an entry point only
// changes a table, sets atomics and posts, all under the lock, so that detach() can cut it off from the io_context.
class EventBridge::Registry : public std::enable_shared_from_this<EventBridge::Registry> {
public:
    explicit Registry(asio::io_context& context) : context_(&context) {}

    // The one that lives, for entry points. Its own lock is never held while a registry works.
    class Living {
    public:
        [[nodiscard]] bool set(std::shared_ptr<Registry> registry) {
            const std::scoped_lock lock{mutex_};
            if (registry_) return false;
            registry_ = std::move(registry);
            return true;
        }
        void clear() {
            const std::scoped_lock lock{mutex_};
            registry_.reset();
        }
        [[nodiscard]] std::shared_ptr<Registry> find() {
            const std::scoped_lock lock{mutex_};
            return registry_;
        }

    private:
        std::mutex mutex_;
        std::shared_ptr<Registry> registry_;
    };
    // Never destroyed: a thread left behind inside libvirt may come by while the process exits.
    static Living& living() {
        static Living& living = *new Living;
        return living;
    }
    static void register_entry_points();

    int add_handle(int fd, int events, virEventHandleCallback callback, void* opaque, virFreeCallback free) {
        const std::scoped_lock lock{mutex_};
        if (!context_) return -1;
        // A duplicate gives each watch its own epoll entry (libvirt may watch a descriptor twice), and nobody can
        // close it behind the reactor's back.
        const int own = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (own < 0) return -1;
        auto watch = std::make_shared<Watch>(own, fd, events, callback, opaque, free);
        const int id = insert(watches_, watch);
        post([this, watch = std::move(watch)] { open(watch); });
        return id;
    }

    void update_handle(int id, int events) {
        const std::scoped_lock lock{mutex_};
        const auto it = watches_.find(id);
        if (!context_ || it == watches_.end() || it->second->events.exchange(events) == events) return;
        post([this, watch = it->second] { rearm(watch); });
    }

    int remove_handle(int id) {
        const std::scoped_lock lock{mutex_};
        auto node = watches_.extract(id);
        if (!context_ || node.empty()) return -1;
        auto watch = std::move(node.mapped());
        watch->events = 0;
        watch->removed = true;
        leaving_.emplace(id, Farewell{watch->free, watch->opaque});
        post([this, watch = std::move(watch)] {
            ++watch->generation;
            watch->stream.reset();
            if (watch->own_fd >= 0) ::close(std::exchange(watch->own_fd, -1));
            release(watch->id);
        });
        return 0;
    }

    int add_timeout(int milliseconds, virEventTimeoutCallback callback, void* opaque, virFreeCallback free) {
        const std::scoped_lock lock{mutex_};
        if (!context_) return -1;
        auto timer = std::make_shared<Timer>(milliseconds, callback, opaque, free);
        const int id = insert(timers_, timer);
        if (milliseconds >= 0) post([this, timer = std::move(timer)] { rearm(timer); });
        return id;
    }

    void update_timeout(int id, int milliseconds) {
        const std::scoped_lock lock{mutex_};
        const auto it = timers_.find(id);
        if (!context_ || it == timers_.end()) return;
        it->second->interval_ms = milliseconds;
        post([this, timer = it->second] { rearm(timer); });
    }

    int remove_timeout(int id) {
        const std::scoped_lock lock{mutex_};
        auto node = timers_.extract(id);
        if (!context_ || node.empty()) return -1;
        auto timer = std::move(node.mapped());
        timer->interval_ms = -1;
        leaving_.emplace(id, Farewell{timer->free, timer->opaque});
        post([this, timer = std::move(timer)] {
            ++timer->generation;
            timer->timer.reset();
            release(timer->id);
        });
        return 0;
    }

    [[nodiscard]] std::size_t live() const noexcept { return live_.load(); }

    // Cuts the entry points off and drops every Asio object that no queued handler holds. Removed ones get their free
    // callback now; those still registered never get it.
    void detach() {
        std::unordered_map<int, WatchPtr> watches;
        std::unordered_map<int, TimerPtr> timers;
        std::unordered_map<int, Farewell> leaving;
        {
            const std::scoped_lock lock{mutex_};
            context_ = nullptr;
            watches.swap(watches_);
            timers.swap(timers_);
            leaving.swap(leaving_);
        }
        for (auto& [id, watch] : watches) {
            watch->events = 0;
            ++watch->generation;
            watch->stream.reset();
        }
        for (auto& [id, timer] : timers) {
            timer->interval_ms = -1;
            ++timer->generation;
            timer->timer.reset();
        }
        for (auto& [id, farewell] : leaving) {
            if (farewell.free) farewell.free(farewell.opaque);
            --live_;
        }
    }

private:
    struct Watch {
        Watch(int own, int fd, int wanted, virEventHandleCallback c, void* o, virFreeCallback f)
            : own_fd(own), user_fd(fd), events(wanted), callback(c), opaque(o), free(f) {}
        ~Watch() {
            if (own_fd >= 0) ::close(own_fd);
        }
        Watch(const Watch&) = delete;
        Watch& operator=(const Watch&) = delete;

        int own_fd;  // -1 once `stream` owns it
        const int user_fd;
        std::atomic<int> events;
        std::atomic<bool> removed{false};
        const virEventHandleCallback callback;
        void* const opaque;
        const virFreeCallback free;
        int id = -1;
        // The loop's.
        std::optional<stream_descriptor> stream;
        unsigned generation = 0;
    };
    struct Timer {
        Timer(int milliseconds, virEventTimeoutCallback c, void* o, virFreeCallback f)
            : interval_ms(milliseconds), callback(c), opaque(o), free(f) {}

        std::atomic<int> interval_ms;
        const virEventTimeoutCallback callback;
        void* const opaque;
        const virFreeCallback free;
        int id = -1;
        // The loop's.
        std::optional<asio::steady_timer> timer;
        unsigned generation = 0;
    };
    using WatchPtr = std::shared_ptr<Watch>;
    using TimerPtr = std::shared_ptr<Timer>;
    struct Farewell {
        virFreeCallback free;
        void* opaque;
    };

    // With the lock held, so that the io_context can't go meanwhile. Handlers run on the loop, without the lock; one
    // that the io_context runs after detach() finds nothing to do.
    template <class F>
    void post(F handler) {
        assert(context_);
        asio::post(*context_, [self = shared_from_this(), handler = std::move(handler)]() mutable {
            if (self->attached()) handler();
        });
    }
    [[nodiscard]] bool attached() {
        const std::scoped_lock lock{mutex_};
        return context_ != nullptr;
    }

    // Ids of watches and timers come from one row, since both leave through `leaving_`.
    template <class Table>
    int insert(Table& table, const typename Table::mapped_type& entry) {
        do {
            next_id_ = next_id_ == std::numeric_limits<int>::max() ? 1 : next_id_ + 1;
        } while (watches_.contains(next_id_) || timers_.contains(next_id_) || leaving_.contains(next_id_));
        entry->id = next_id_;
        table.emplace(next_id_, entry);
        ++live_;
        return next_id_;
    }

    // On the loop, one turn after the removal: whoever removed may have held a lock that the free callback takes.
    void release(int id) {
        Farewell farewell{};
        {
            const std::scoped_lock lock{mutex_};
            auto node = leaving_.extract(id);
            if (node.empty()) return;
            farewell = node.mapped();
        }
        if (farewell.free) farewell.free(farewell.opaque);
        --live_;
    }

    void open(const WatchPtr& watch) {
        if (watch->removed) return;
        error_code failed;
        watch->stream.emplace(*context_);
        watch->stream->assign(watch->own_fd, failed);
        if (failed) {  // out of epoll watches or memory: libvirt has to give this descriptor up
            watch->stream.reset();
            watch->callback(watch->id, watch->user_fd, VIR_EVENT_HANDLE_ERROR, watch->opaque);
            return;
        }
        watch->own_fd = -1;
        rearm(watch);
    }

    // The generation voids completions that were queued before the watch changed: cancel() can't recall those.
    void rearm(const WatchPtr& watch) {
        ++watch->generation;
        if (!watch->stream || watch->removed) return;
        error_code ignored;
        watch->stream->cancel(ignored);
        const int events = watch->events;
        if (events == 0) return;
        const bool write = (events & VIR_EVENT_HANDLE_WRITABLE) != 0;
        const bool read = (events & VIR_EVENT_HANDLE_READABLE) != 0;
        if (write) wait(watch, stream_descriptor::wait_write);
        if (read) wait(watch, stream_descriptor::wait_read);
        if (!read && !write) wait(watch, stream_descriptor::wait_error);
    }

    void wait(const WatchPtr& watch, stream_descriptor::wait_type type) {
        watch->stream->async_wait(
            type, [self = shared_from_this(), watch, generation = watch->generation](error_code failed) {
                if (failed == asio::error::operation_aborted) return;
                if (generation == watch->generation) self->fire(watch);
            });
    }

    // Asio doesn't say why a wait completed, and refuses to wait for a regular file (always ready); poll(2) gives
    // libvirt's exact, level-triggered view, with errors and hang-ups.
    void fire(const WatchPtr& watch) {
        const auto generation = watch->generation;
        const int events = watch->events;
        if (!watch->stream || watch->removed || events == 0) return;
        pollfd entry{watch->stream->native_handle(), to_poll(events), 0};
        if (::poll(&entry, 1, 0) > 0)
            watch->callback(watch->id, watch->user_fd, from_poll(entry.revents), watch->opaque);
        if (generation == watch->generation) rearm(watch);
    }

    void rearm(const TimerPtr& timer) {
        const auto generation = ++timer->generation;
        if (timer->timer) timer->timer->cancel();
        const int interval = timer->interval_ms;
        if (interval < 0) return;
        if (!timer->timer) timer->timer.emplace(*context_);
        timer->timer->expires_after(std::chrono::milliseconds{interval});
        timer->timer->async_wait([self = shared_from_this(), timer, generation](error_code failed) {
            if (failed || generation != timer->generation || timer->interval_ms < 0) return;
            timer->callback(timer->id, timer->opaque);
            if (generation == timer->generation) self->rearm(timer);  // libvirt's timers repeat
        });
    }

    std::mutex mutex_;
    asio::io_context* context_;  // nullptr after detach(). Changes on the loop only, so the loop reads it without lock
    int next_id_ = 0;
    std::unordered_map<int, WatchPtr> watches_;
    std::unordered_map<int, TimerPtr> timers_;
    std::unordered_map<int, Farewell> leaving_;  // removed, not yet released
    std::atomic<std::size_t> live_{0};
};

// libvirt heeds the first registration of a process only, so its entry points look up who is there now.
void EventBridge::Registry::register_entry_points() {
    virEventRegisterImpl(
        [](int fd, int events, virEventHandleCallback callback, void* opaque, virFreeCallback free) {
            const auto registry = living().find();
            return registry ? registry->add_handle(fd, events, callback, opaque, free) : -1;
        },
        [](int id, int events) {
            if (const auto registry = living().find()) registry->update_handle(id, events);
        },
        [](int id) {
            const auto registry = living().find();
            return registry ? registry->remove_handle(id) : -1;
        },
        [](int milliseconds, virEventTimeoutCallback callback, void* opaque, virFreeCallback free) {
            const auto registry = living().find();
            return registry ? registry->add_timeout(milliseconds, callback, opaque, free) : -1;
        },
        [](int id, int milliseconds) {
            if (const auto registry = living().find()) registry->update_timeout(id, milliseconds);
        },
        [](int id) {
            const auto registry = living().find();
            return registry ? registry->remove_timeout(id) : -1;
        });
}

EventBridge::EventBridge(asio::io_context& context) : registry_(std::make_shared<Registry>(context)) {
    if (!Registry::living().set(registry_)) throw std::logic_error{"EventBridge: one per process"};
    prepare_libvirt();
    static std::once_flag registered;
    std::call_once(registered, Registry::register_entry_points);
}

EventBridge::~EventBridge() {
    Registry::living().clear();
    registry_->detach();
}

std::size_t EventBridge::live() const noexcept { return registry_->live(); }

}  // namespace ghost::virt
