// Runs a coroutine to its end on an io_context of its own, for tests.
#pragma once

#include "fakes/show_result.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <utility>

namespace ghost::fakes {

// A loop whose coroutines can be cancelled from within or from a callback. A coroutine that hangs fails the test.
class TestLoop {
public:
    template <class T>
    T await(boost::asio::awaitable<T> task) {
        std::optional<T> result;
        std::exception_ptr thrown;
        auto done = [&](std::exception_ptr error, T value) {
            thrown = error;
            result.emplace(std::move(value));
        };
        boost::asio::co_spawn(context, std::move(task), boost::asio::bind_cancellation_slot(stop.slot(), done));
        run([&] { return result.has_value(); });
        if (thrown) std::rethrow_exception(thrown);
        return std::move(*result);
    }
    void await(boost::asio::awaitable<void> task) {
        bool over = false;
        std::exception_ptr thrown;
        auto done = [&](std::exception_ptr error) {
            thrown = error;
            over = true;
        };
        boost::asio::co_spawn(context, std::move(task), boost::asio::bind_cancellation_slot(stop.slot(), done));
        run([&] { return over; });
        if (thrown) std::rethrow_exception(thrown);
    }
    // Cancels what is awaited, from within the loop.
    void cancel() { stop.emit(boost::asio::cancellation_type::terminal); }

    boost::asio::io_context context{1};
    boost::asio::cancellation_signal stop;

private:
    template <class Over>
    void run(Over over) {
        const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds{120};
        context.restart();
        while (!over())
            if (context.run_one_until(limit) == 0) throw std::logic_error{"the coroutine hangs"};
    }
};

}  // namespace ghost::fakes
