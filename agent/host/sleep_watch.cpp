#include "agent/host/sleep_watch.hpp"

#include "base/cancelled.hpp"
#include "base/within.hpp"

#include <boost/asio/this_coro.hpp>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

std::optional<base::Duration> WakeDetector::look(base::Duration asleep) {
    auto slept = asleep - seen_;
    seen_ = asleep;
    if (slept <= least && !awake_) return std::nullopt;
    if (awake_) slept = asleep - told_at_;
    told_ = awake_ = false;
    return slept;
}

void WakeDetector::told_of_sleep(base::Duration asleep) {
    told_at_ = asleep;
    told_ = true;
    awake_ = false;
}

std::optional<base::Duration> WakeDetector::told_of_wake(base::Duration asleep) {
    auto slept = look(asleep);
    // The clocks may not show it yet.
    if (!slept) awake_ = told_;
    return slept;
}

asio::awaitable<void> SleepWatch::run() {
    // The tasks belong to this coroutine: they end with it.
    co_await asio::this_coro::throw_if_cancelled(false);
    if (logind_ != nullptr) tasks_.spawn("logind", listen_forever());
    while (co_await clock_.sleep_for(look_interval)) woke(detector_.look(clock_.asleep()));
    tasks_.cancel();
    tellings_.cancel();
    co_await tasks_.drain();
    co_await tellings_.drain();
}

void SleepWatch::woke(std::optional<base::Duration> slept) {
    if (slept && on_wake) on_wake(*slept);
}

asio::awaitable<void> SleepWatch::listen_forever() {
    co_await asio::this_coro::throw_if_cancelled(false);
    base::Duration pause{};
    do {
        listening_ = false;
        const auto ended = co_await listen();
        logind_->close();
        // Whether the sleep that it told of has come or not, it can't tell any more.
        woke(detector_.told_of_wake(clock_.asleep()));
        if (!ended) log_.debug("no word from logind when the host sleeps", {{"error", ended.error().detail}});
        pause = listening_ ? base::Duration{reconnect_after} : base::Duration{absent_interval};
    } while (!co_await base::is_cancelled() && co_await clock_.sleep_for(pause));
}

// Ends when there is nothing more to hear.
asio::awaitable<base::Result<void>> SleepWatch::listen() {
    if (auto connected = co_await base::within(clock_, answer_limit, logind_->connect()); !connected)
        co_return connected;
    if (auto inhibited = co_await inhibit(); !inhibited) co_return inhibited;
    listening_ = true;
    log_.debug("logind tells when the host sleeps");
    for (;;) {
        const auto news = co_await logind_->next();
        if (!news) co_return base::fail(news.error());
        if (*news == Logind::News::goes_to_sleep) {
            detector_.told_of_sleep(clock_.asleep());
            co_await prepare();
            logind_->release();
            continue;
        }
        woke(detector_.told_of_wake(clock_.asleep()));
        if (auto inhibited = co_await inhibit(); !inhibited) co_return inhibited;
    }
}

asio::awaitable<base::Result<void>> SleepWatch::inhibit() {
    auto inhibited = co_await base::within(clock_, answer_limit, logind_->inhibit());
    if (inhibited || inhibited.error().code != base::Errc::forbidden) co_return inhibited;
    log_.debug("logind doesn't wait for us before the host sleeps", {{"error", inhibited.error().detail}});
    co_return base::Result<void>{};
}

// Never waits for longer than the patience, also not for one who takes no notice of being cancelled.
asio::awaitable<void> SleepWatch::prepare() {
    if (!before_sleep || telling_) co_return;
    telling_ = true;
    tellings_.spawn("before the host's sleep", tell());
    const auto until = clock_.now() + patience;
    while (telling_ && clock_.now() < until && !co_await base::is_cancelled()) co_await told_.wait_until(clock_, until);
    tellings_.cancel();
}

asio::awaitable<void> SleepWatch::tell() {
    struct End {
        SleepWatch& watch;
        ~End() {
            watch.telling_ = false;
            watch.told_.notify();
        }
    } const end{*this};
    co_await before_sleep();
}

}  // namespace ghost::agent
