#include "virt/lane_thread.hpp"

#include "base/signals_blocked.hpp"

#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include <pthread.h>

#include <cassert>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <future>
#include <optional>
#include <utility>

namespace ghost::virt {
namespace {

LaneThread::Outcome perform(Connection& connection, LaneThread::Task task) {
    LaneThread::Outcome outcome;
    outcome.epoch = task.epoch;
    const auto open = connection.get(task.epoch);
    if (!open) {
        outcome.ran = std::unexpected{open.error()};
        outcome.lost = true;
    } else if (!task.turn->begin()) {
        outcome.ran =
            base::fail(base::Errc::hypervisor_unavailable, "the call was taken back before it began; nothing was done");
    } else {
        try {
            task.work(connection, *open);
        } catch (const std::exception& error) {
            outcome.ran =
                base::fail(base::Errc::internal, fmt::format("exception in a hypervisor call: {}", error.what()));
        } catch (...) {
            outcome.ran = base::fail(base::Errc::internal, "exception in a hypervisor call");
        }
        outcome.lost = connection.lost();
    }
    outcome.task = std::move(task);
    return outcome;
}

}  // namespace

void Mailbox::post(std::function<void()> handler) {
    const std::scoped_lock lock{mutex_};
    if (context_) boost::asio::post(*context_, std::move(handler));
}

void Mailbox::await_turn() {
    auto turn = std::make_shared<std::promise<void>>();
    auto taken = turn->get_future();
    post([turn = std::move(turn)] { turn->set_value(); });
    taken.wait_for(std::chrono::seconds{1});  // returns at once when the mailbox is closed: the promise is gone
}

void Mailbox::close() {
    const std::scoped_lock lock{mutex_};
    context_ = nullptr;
}

struct LaneThread::State {
    State(std::string uri, ConnectOptions options, std::shared_ptr<Mailbox> m, Reports r)
        : mailbox(std::move(m)),
          reports(std::make_shared<const Reports>(std::move(r))),
          connection(std::move(uri), std::move(options)) {}

    std::mutex mutex;
    std::condition_variable wake;
    std::optional<Task> next;
    bool stop = false;

    const std::shared_ptr<Mailbox> mailbox;
    const std::shared_ptr<const Reports> reports;
    Connection connection;  // the thread's alone
};

LaneThread::LaneThread(const std::string& name, std::string uri, ConnectOptions options,
                       std::shared_ptr<Mailbox> mailbox, Reports reports)
    : state_(std::make_shared<State>(std::move(uri), std::move(options), std::move(mailbox), std::move(reports))) {
    assert(name.size() <= 15);
    const base::SignalsBlocked blocked;
    thread_ = std::thread{[state = state_] { run(*state); }};
    pthread_setname_np(thread_.native_handle(), name.c_str());
}

LaneThread::~LaneThread() {
    stop();
    if (thread_.joinable()) thread_.detach();
}

void LaneThread::give(Task task) {
    {
        const std::scoped_lock lock{state_->mutex};
        assert(!state_->next && !state_->stop);
        state_->next = std::move(task);
    }
    state_->wake.notify_one();
}

void LaneThread::stop() {
    {
        const std::scoped_lock lock{state_->mutex};
        state_->stop = true;
    }
    state_->wake.notify_one();
}

void LaneThread::run(State& state) {
    for (;;) {
        Task task;
        {
            std::unique_lock lock{state.mutex};
            state.wake.wait(lock, [&state] { return state.next || state.stop; });
            if (!state.next) break;
            task = std::move(*state.next);
            state.next.reset();
        }
        // Everything of the task goes with the outcome: it must die on the loop.
        auto outcome = std::make_shared<Outcome>(perform(state.connection, std::move(task)));
        state.mailbox->post(
            [reports = state.reports, outcome = std::move(outcome)] { reports->done(std::move(*outcome)); });
    }
    state.connection.close();
    state.mailbox->post([reports = state.reports] { reports->ended(); });
}

}  // namespace ghost::virt
