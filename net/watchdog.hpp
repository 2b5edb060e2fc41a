// Cancels a socket's operations at a deadline.
#pragma once

#include "base/clock.hpp"

#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <cstdint>
#include <memory>

namespace ghost::net {

// One deadline at a time, set by a Guard that lives as long as the operations it limits. A composed operation (TLS)
// may start its next step in the very turn in which the first is cancelled, so cancelling goes on until the guard is
// gone.
template <class Socket>
class Watchdog {
    struct State {
        State(Socket& s) : timer(s.get_executor()), socket(&s) {}
        boost::asio::steady_timer timer;
        Socket* socket;          // null once the watchdog is gone: a queued completion can't be recalled
        std::uint64_t turn = 0;  // odd while a guard lives
        bool expired = false;
    };

public:
    explicit Watchdog(Socket& socket) : state_(std::make_shared<State>(socket)) {}
    ~Watchdog() {
        state_->socket = nullptr;
        state_->timer.cancel();
    }
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    class Guard {
    public:
        Guard(Watchdog& watchdog, base::Instant deadline) : state_(watchdog.state_) {
            ++state_->turn;
            state_->expired = false;
            wait(state_, deadline);
        }
        ~Guard() {
            ++state_->turn;
            state_->timer.cancel();
        }
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;
        [[nodiscard]] bool expired() const noexcept { return state_->expired; }

    private:
        std::shared_ptr<State> state_;
    };

    void expire_now() noexcept {
        if (state_->turn % 2 == 1) fire(state_);
    }
    // Brings the deadline that is in force forward.
    void hurry(base::Instant deadline) noexcept {
        if (state_->turn % 2 == 1 && deadline < state_->timer.expiry()) wait(state_, deadline);
    }

private:
    static void wait(const std::shared_ptr<State>& state, base::Instant when) {
        state->timer.expires_at(when);
        state->timer.async_wait([state, turn = state->turn](boost::system::error_code error) {
            if (!error && state->socket && state->turn == turn) fire(state);
        });
    }
    static void fire(const std::shared_ptr<State>& state) {
        state->expired = true;
        boost::system::error_code ignored;
        state->socket->cancel(ignored);
        wait(state, std::chrono::steady_clock::now() + std::chrono::milliseconds{20});
    }

    std::shared_ptr<State> state_;
};

}  // namespace ghost::net
