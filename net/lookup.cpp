#include "net/lookup.hpp"

#include "base/signals_blocked.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/query.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

namespace ghost::net {
namespace asio = boost::asio;
namespace {

// The loop's, found through its executor.
class LookupService final : public asio::execution_context::service {
public:
    // asio asks for the name.
    static inline asio::execution_context::id id;  // NOLINT(readability-identifier-naming)
    explicit LookupService(asio::execution_context& context)
        : asio::execution_context::service(context), lookup_(std::in_place) {}
    [[nodiscard]] Lookup& lookup() { return *lookup_; }

private:
    void shutdown() override { lookup_.reset(); }
    std::optional<Lookup> lookup_;
};

std::unexpected<base::Error> unresolved(const std::string& host, const std::string& why) {
    return base::fail(base::Errc::source_unavailable, "cannot resolve " + host + ": " + why);
}

}  // namespace

struct Lookup::Question {
    const std::string host;
    const std::string port;
    const asio::any_io_executor loop;
    bool given_up = false;  // under the mutex
    // The loop's.
    std::optional<base::Result<Endpoints>> answer;
    asio::steady_timer* waiting = nullptr;  // of the coroutine
};

struct Lookup::State {
    Resolve resolve;
    std::mutex mutex;
    std::condition_variable wake;   // there is a question, or no more
    std::condition_variable ended;  // a thread has
    std::deque<std::shared_ptr<Question>> queue;
    std::size_t threads = 0;
    std::size_t busy = 0;  // of them, and blocked for who knows how long
    bool closed = false;   // nothing is posted any more
};

Lookup::Lookup(Resolve resolve) : state_(std::make_shared<State>()) { state_->resolve = std::move(resolve); }

Lookup::~Lookup() {
    std::unique_lock lock{state_->mutex};
    state_->closed = true;
    state_->queue.clear();
    state_->wake.notify_all();
    state_->ended.wait(lock, [this] { return state_->threads == state_->busy; });
}

asio::awaitable<base::Result<Endpoints>> Lookup::find(std::string host, std::string port, base::Instant deadline) {
    const auto loop = co_await asio::this_coro::executor;
    asio::steady_timer waiting{loop, deadline};
    const auto question = std::make_shared<Question>(std::move(host), std::move(port), loop);
    question->waiting = &waiting;
    if (!ask(question))
        co_return base::fail(base::Errc::overloaded,
                             "cannot resolve " + question->host + ": too many names are being looked up");
    const auto [cancelled] = co_await waiting.async_wait(asio::as_tuple(asio::use_awaitable));
    question->waiting = nullptr;
    if (question->answer) co_return std::move(*question->answer);
    {
        const std::scoped_lock lock{state_->mutex};
        question->given_up = true;
    }
    if (cancelled) co_return base::fail(base::Errc::cancelled);
    co_return base::fail(base::Errc::deadline_exceeded, "looking up " + question->host + " took too long");
}

bool Lookup::ask(const std::shared_ptr<Question>& question) {
    const std::scoped_lock lock{state_->mutex};
    std::erase_if(state_->queue, [](const auto& other) { return other->given_up; });
    if (state_->queue.size() >= max_queued) return false;
    state_->queue.push_back(question);
    const auto idle = state_->threads - state_->busy;
    if (state_->queue.size() > idle && state_->threads < max_threads) {
        const base::SignalsBlocked blocked;
        try {
            std::thread{[state = state_] { answer_all(state); }}.detach();
            ++state_->threads;
        } catch (const std::system_error&) {
            if (state_->threads > 0) return true;  // one of the others will
            state_->queue.pop_back();
            return false;
        }
    }
    state_->wake.notify_one();
    return true;
}

void Lookup::answer_all(const std::shared_ptr<State>& state) {
    ::pthread_setname_np(::pthread_self(), "lookup");
    std::unique_lock lock{state->mutex};
    for (;;) {
        state->wake.wait(lock, [&state] { return state->closed || !state->queue.empty(); });
        if (state->closed) break;
        auto question = std::move(state->queue.front());
        state->queue.pop_front();
        if (question->given_up) continue;
        ++state->busy;
        lock.unlock();
        auto answer = state->resolve(question->host, question->port);
        lock.lock();
        --state->busy;
        if (state->closed) break;
        if (question->given_up) continue;
        const auto& loop = question->loop;
        asio::post(loop, [question, answer = std::move(answer)]() mutable {
            question->answer = std::move(answer);
            if (question->waiting != nullptr) question->waiting->cancel();
        });
    }
    --state->threads;
    state->ended.notify_all();
}

base::Result<Endpoints> Lookup::by_libc(const std::string& host, const std::string& port) {
    asio::io_context unused;
    boost::system::error_code error;
    const auto results = asio::ip::tcp::resolver{unused}.resolve(host, port, error);
    if (error) return unresolved(host, error.message());
    Endpoints endpoints;
    for (const auto& result : results) endpoints.push_back(result.endpoint());
    return endpoints;
}

Lookup& lookup_of(const asio::any_io_executor& executor) {
    return asio::use_service<LookupService>(asio::query(executor, asio::execution::context)).lookup();
}

}  // namespace ghost::net
