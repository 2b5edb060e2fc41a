// One after the other: what is begun with is what the one before left. For one
// executor; not thread-safe.
#pragma once

#include "base/cancelled.hpp"
#include "base/notifier.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <memory>
#include <optional>
#include <utility>

namespace ghost::base {

class Turns {
    struct State {
        explicit State(const boost::asio::any_io_executor& executor) : freed(executor) {}
        bool taken = false;
        Notifier freed;
    };

public:
    explicit Turns(const boost::asio::any_io_executor& executor) : state_(std::make_shared<State>(executor)) {}

    // Nobody else's until it goes. May outlive its Turns.
    class Turn {
    public:
        explicit Turn(std::shared_ptr<State> state) : state_(std::move(state)) { state_->taken = true; }
        Turn(Turn&&) = default;
        Turn& operator=(Turn&&) = delete;
        ~Turn() {
            if (!state_) return;
            state_->taken = false;
            state_->freed.notify();
        }

    private:
        std::shared_ptr<State> state_;
    };
    // nullopt: whoever waited was cancelled.
    [[nodiscard]] boost::asio::awaitable<std::optional<Turn>> take() {
        const auto state = state_;
        while (state->taken) {
            co_await state->freed.wait();
            if (co_await is_cancelled()) co_return std::nullopt;
        }
        co_return std::optional<Turn>{std::in_place, state};
    }

private:
    std::shared_ptr<State> state_;
};

}  // namespace ghost::base
