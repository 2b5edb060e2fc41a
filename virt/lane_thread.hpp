// One lane: a thread, its connection, and the ways in and out.
//
// The thread keeps everything it touches alive by itself. It can be left behind
// inside libvirt, and finds its way out whenever libvirt lets go, even when the
// pool and the loop are gone.
#pragma once

#include "base/error.hpp"
#include "virt/connection.hpp"

#include <boost/asio/io_context.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace ghost::virt {

// The lanes' way to the loop. What is posted after close() is dropped, on the poster's thread.
class Mailbox {
public:
    explicit Mailbox(boost::asio::io_context& context) : context_(&context) {}

    void post(std::function<void()> handler);
    // Waits, from a lane, until the loop has finished what it is doing now, or for a second.
    void await_turn();
    // On the loop's side, before the io_context goes.
    void close();

private:
    std::mutex mutex_;
    boost::asio::io_context* context_;
};

// Whether a lane may still be stopped from beginning a job that was handed to it (it may hang in opening its connection
// first). Whoever moves it on from `handed` wins.
class Turn {
public:
    [[nodiscard]] bool begin() noexcept { return move_to(State::begun); }      // the lane
    [[nodiscard]] bool recall() noexcept { return move_to(State::recalled); }  // the loop

private:
    enum class State : std::uint8_t { handed, begun, recalled };
    bool move_to(State state) noexcept {
        auto expected = State::handed;
        return state_.compare_exchange_strong(expected, state);
    }
    std::atomic<State> state_{State::handed};
};

class LaneThread {
public:
    struct Task {
        std::uint64_t epoch = 0;  // of the link; the connection must be of it
        std::shared_ptr<Turn> turn;
        std::function<void(Connection&, virConnectPtr)> work;
    };
    struct Outcome {
        base::Result<void> ran;  // the work ran to its end; else hypervisor_unavailable, or internal when it threw
        bool lost = false;       // the connection can't be opened or died
        std::uint64_t epoch = 0;
        Task task;  // to be destroyed on the loop
    };
    // Called on the loop, by way of the mailbox.
    struct Reports {
        std::function<void(Outcome)> done;
        std::function<void()> ended;  // the connection is closed; join() won't wait
    };

    // `name`: at most 15 characters. Throws std::system_error when there is no thread to be had.
    LaneThread(const std::string& name, std::string uri, ConnectOptions options, std::shared_ptr<Mailbox> mailbox,
               Reports reports);
    ~LaneThread();  // stops and, unless joined, leaves it behind
    LaneThread(const LaneThread&) = delete;
    LaneThread& operator=(const LaneThread&) = delete;

    void give(Task task);  // one at a time
    // After its present task it closes its connection and ends.
    void stop();
    void join() { thread_.join(); }

private:
    struct State;
    static void run(State& state);
    std::shared_ptr<State> state_;
    std::thread thread_;
};

}  // namespace ghost::virt
