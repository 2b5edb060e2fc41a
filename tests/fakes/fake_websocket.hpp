// A WebSocket whose client is the test.
#pragma once

#include "base/notifier.hpp"
#include "net/websocket.hpp"

#include <boost/asio/any_io_executor.hpp>

#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::fakes {

class FakeWebSocket final : public net::WebSocket {
public:
    explicit FakeWebSocket(const boost::asio::any_io_executor& executor, std::string protocol = {})
        : protocol_(std::move(protocol)), changed_(executor) {}

    // What the client does.
    void send(std::string bytes) { come({.kind = Kind::data, .text = std::move(bytes)}); }
    void send_text(std::string text) { come({.kind = Kind::text, .text = std::move(text)}); }
    void leave(std::uint16_t code = 1000) { come({.kind = Kind::closed, .code = code}); }
    void break_off() { come({.kind = Kind::broken}); }
    // It takes nothing meanwhile.
    void hold(bool held = true) {
        held_ = held;
        changed_.notify();
    }
    // What it got.
    std::string received;
    std::vector<std::string> texts;
    std::optional<std::pair<std::uint16_t, std::string>> goodbye;
    bool aborted = false;
    [[nodiscard]] std::size_t unread() const noexcept { return coming_.size(); }  // of what it sent

    boost::asio::awaitable<Read> read(boost::asio::mutable_buffer room) override {
        while (coming_.empty() && !over() && !stopped_) co_await changed_.wait();
        if (over()) co_return Read{};
        if (stopped_) co_return Read{.kind = Kind::stopped};
        auto& next = coming_.front();
        if (next.kind == Kind::closed || next.kind == Kind::broken) co_return next;  // for ever
        if (next.kind == Kind::text) {
            auto text = std::move(next);
            coming_.pop_front();
            co_return text;
        }
        const auto bytes = std::min(next.text.size(), room.size());
        std::memcpy(room.data(), next.text.data(), bytes);
        next.text.erase(0, bytes);
        if (next.text.empty()) coming_.pop_front();
        co_return Read{.kind = Kind::data, .bytes = bytes};
    }
    boost::asio::awaitable<bool> write(boost::asio::const_buffer bytes) override {
        if (!co_await taken()) co_return false;
        received.append(static_cast<const char*>(bytes.data()), bytes.size());
        co_return true;
    }
    boost::asio::awaitable<bool> write_text(std::string text) override {
        if (!co_await taken()) co_return false;
        texts.push_back(std::move(text));
        co_return true;
    }
    boost::asio::awaitable<void> close(std::uint16_t code, std::string reason) override {
        if (!goodbye) goodbye.emplace(code, std::move(reason));
        changed_.notify();
        co_return;
    }
    void stop() noexcept override {
        stopped_ = true;
        changed_.notify();
    }
    void abort() noexcept override {
        aborted = true;
        changed_.notify();
    }
    const std::string& protocol() const noexcept override { return protocol_; }

private:
    [[nodiscard]] bool over() const noexcept { return aborted || goodbye; }
    void come(Read what) {
        coming_.push_back(std::move(what));
        changed_.notify();
    }
    [[nodiscard]] bool gone() const {
        return !coming_.empty() && (coming_.front().kind == Kind::closed || coming_.front().kind == Kind::broken);
    }
    boost::asio::awaitable<bool> taken() {
        while (held_ && !over() && !stopped_ && !gone()) co_await changed_.wait();
        co_return !over() && !stopped_ && !gone();
    }

    std::string protocol_;
    base::Notifier changed_;
    std::deque<Read> coming_;
    bool held_ = false;
    bool stopped_ = false;
};

}  // namespace ghost::fakes
