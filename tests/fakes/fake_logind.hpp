// A login manager in memory: a test says what it tells and when it is away.
#pragma once

#include "agent/host/logind.hpp"
#include "base/cancelled.hpp"
#include "base/notifier.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <deque>
#include <optional>
#include <utility>

namespace ghost::fakes {

// Lives on one loop, as the real one does.
class FakeLogind final : public agent::Logind {
public:
    explicit FakeLogind(const boost::asio::any_io_executor& executor) : executor_(executor), changed_(executor) {}

    // ---- What happens to it

    void tell(News news) {
        if (connected_) news_.push_back(news);
        changed_.notify();
    }
    // Neither bus nor login manager; connections end.
    void go_away() {
        away_ = true;
        lock_ = connected_ = false;
        changed_.notify();
    }
    void come_back() { away_ = false; }
    // connect() and inhibit() don't come back any more.
    void fall_silent(bool silent) { silent_ = silent; }
    std::optional<base::Error> refusal;  // what inhibit() says

    // ---- What it sees

    [[nodiscard]] bool connected() const noexcept { return connected_; }
    [[nodiscard]] bool inhibited() const noexcept { return lock_; }
    [[nodiscard]] int connects() const noexcept { return connects_; }  // tried
    [[nodiscard]] int locks() const noexcept { return locks_; }        // taken

    // ---- agent::Logind

    Task<void> connect() override {
        close();
        ++connects_;
        if (auto answered = co_await answer(); !answered) co_return answered;
        if (away_) co_return base::fail(base::Errc::io_error, "no bus");
        connected_ = true;
        co_return base::Result<void>{};
    }
    Task<void> inhibit() override {
        if (auto answered = co_await answer(); !answered) co_return answered;
        if (!connected_) co_return base::fail(base::Errc::io_error, "no bus");
        if (refusal) co_return base::fail(*refusal);
        lock_ = true;
        ++locks_;
        co_return base::Result<void>{};
    }
    void release() override { lock_ = false; }
    Task<News> next() override {
        while (news_.empty() && connected_) {
            if (co_await base::is_cancelled()) co_return base::fail(base::Errc::cancelled, "cancelled");
            co_await changed_.wait();
        }
        if (news_.empty()) co_return base::fail(base::Errc::io_error, "the bus has gone");
        const auto news = news_.front();
        news_.pop_front();
        co_return news;
    }
    void close() override {
        lock_ = connected_ = false;
        news_.clear();
    }

private:
    Task<void> answer() {
        co_await boost::asio::post(executor_, boost::asio::use_awaitable);
        while (silent_) {
            if (co_await base::is_cancelled()) co_return base::fail(base::Errc::cancelled, "cancelled");
            co_await changed_.wait();
        }
        co_return base::Result<void>{};
    }

    boost::asio::any_io_executor executor_;
    base::Notifier changed_;
    std::deque<News> news_;
    bool away_ = false;
    bool silent_ = false;
    bool connected_ = false;
    bool lock_ = false;
    int connects_ = 0;
    int locks_ = 0;
};

}  // namespace ghost::fakes
