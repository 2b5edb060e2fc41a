// The far ends of ways into a VM: an agent's streams, a terminal, a desktop. A test says what they do.
#pragma once

#include "agent/cli/agent_streams.hpp"
#include "agent/cli/byte_channel.hpp"
#include "agent/cli/stdio.hpp"
#include "agent/cli/viewer.hpp"
#include "base/cancelled.hpp"
#include "base/notifier.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::cli {

// Does `act` as soon as `so`.
inline void once(const boost::asio::any_io_executor& executor, std::function<bool()> so, std::function<void()> act) {
    boost::asio::post(executor, [executor, so = std::move(so), act = std::move(act)] {
        if (so()) return act();
        once(executor, so, act);
    });
}

// What the agent does at its end of a WebSocket, and what it got.
struct FakeStream {
    explicit FakeStream(const boost::asio::any_io_executor& executor) : came(executor) {}

    void sends(std::string bytes) { add({net::WebSocket::Kind::data, 0, std::move(bytes)}); }
    void tells(std::string text) { add({net::WebSocket::Kind::text, 0, std::move(text)}); }
    void closes(std::uint16_t code, std::string reason) {
        add({net::WebSocket::Kind::closed, 0, std::move(reason), code});
    }
    void breaks() { add({net::WebSocket::Kind::broken}); }

    std::string protocol{stream_protocol};
    std::deque<net::WebSocket::Read> coming;
    base::Notifier came;
    bool takes_nothing = false;
    std::string got;                 // bytes
    std::vector<std::string> texts;  // control
    std::optional<std::uint16_t> closed;

private:
    void add(net::WebSocket::Read read) {
        coming.push_back(std::move(read));
        came.notify();
    }
};

class FakeWebSocket final : public net::WebSocket {
public:
    explicit FakeWebSocket(std::shared_ptr<FakeStream> stream) : stream_(std::move(stream)) {}

    [[nodiscard]] boost::asio::awaitable<Read> read(boost::asio::mutable_buffer room) override {
        while (stream_->coming.empty() && !stream_->closed) {
            co_await stream_->came.wait();
            if (co_await base::is_cancelled()) co_return Read{};
        }
        if (stream_->coming.empty()) co_return Read{};
        auto next = std::move(stream_->coming.front());
        stream_->coming.pop_front();
        if (next.kind != Kind::data) co_return next;
        next.bytes = std::min(next.text.size(), room.size());
        std::memcpy(room.data(), next.text.data(), next.bytes);
        if (next.bytes < next.text.size()) stream_->coming.push_front({Kind::data, 0, next.text.substr(next.bytes)});
        next.text.clear();
        co_return next;
    }
    [[nodiscard]] boost::asio::awaitable<bool> write(boost::asio::const_buffer bytes) override {
        if (stream_->takes_nothing) {
            while (!co_await base::is_cancelled()) co_await stream_->came.wait();
            co_return false;
        }
        stream_->got.append(static_cast<const char*>(bytes.data()), bytes.size());
        co_return true;
    }
    [[nodiscard]] boost::asio::awaitable<bool> write_text(std::string text) override {
        stream_->texts.push_back(std::move(text));
        co_return true;
    }
    [[nodiscard]] boost::asio::awaitable<void> close(std::uint16_t code, std::string) override {
        stream_->closed = code;
        stream_->came.notify();
        co_return;
    }
    void stop() noexcept override {}
    void abort() noexcept override {}
    [[nodiscard]] const std::string& protocol() const noexcept override { return stream_->protocol; }

private:
    std::shared_ptr<FakeStream> stream_;
};

// Streams are opened in the order in which they stand here.
class FakeStreams final : public AgentStreams {
public:
    std::deque<Outcome<std::shared_ptr<FakeStream>>> coming;
    std::vector<std::string> targets;

    [[nodiscard]] boost::asio::awaitable<Outcome<std::unique_ptr<net::WebSocket>>> open(std::string target) override {
        targets.push_back(std::move(target));
        if (coming.empty()) co_return std::unexpected{Failure{ExitCode::refused, "no more streams"}};
        auto next = std::move(coming.front());
        coming.pop_front();
        if (!next) co_return std::unexpected{std::move(next.error())};
        co_return std::make_unique<FakeWebSocket>(std::move(*next));
    }
};

// A person at a terminal, or whatever else is at a channel's other end.
struct FakePerson {
    explicit FakePerson(const boost::asio::any_io_executor& executor) : typed(executor), resized(executor) {}

    void types(std::string bytes) {
        typing.push_back(std::move(bytes));
        typed.notify();
    }
    void ends_typing() { types({}); }

    std::deque<std::string> typing;  // an empty piece: the end
    base::Notifier typed;
    base::Notifier resized;
    std::string seen;
    bool saw_end = false;
    bool is_gone = false;
    bool is_raw = false;
};

class FakeChannel final : public ByteChannel {
public:
    FakeChannel(FakePerson& person, bool raw) : person_(person) { person_.is_raw = raw; }
    ~FakeChannel() override { person_.is_raw = false; }

    [[nodiscard]] boost::asio::awaitable<base::Result<std::size_t>> read(boost::asio::mutable_buffer room) override {
        while (person_.typing.empty()) {
            co_await person_.typed.wait();
            if (co_await base::is_cancelled()) co_return base::fail(base::Errc::cancelled);
        }
        auto& next = person_.typing.front();
        const auto bytes = std::min(next.size(), room.size());
        std::memcpy(room.data(), next.data(), bytes);
        next.erase(0, bytes);
        if (next.empty()) person_.typing.pop_front();
        co_return bytes;
    }
    [[nodiscard]] boost::asio::awaitable<bool> write(boost::asio::const_buffer bytes) override {
        if (person_.is_gone) co_return false;
        person_.seen.append(static_cast<const char*>(bytes.data()), bytes.size());
        co_return true;
    }
    void end_writing() noexcept override { person_.saw_end = true; }

private:
    FakePerson& person_;
};

class FakeStdio final : public Stdio {
public:
    explicit FakeStdio(FakePerson& person) : person_(person) {}
    bool terminal = false;
    std::optional<Screen> window;

    [[nodiscard]] bool input_is_terminal() const override { return terminal; }
    [[nodiscard]] bool output_is_terminal() const override { return terminal; }
    [[nodiscard]] base::Result<std::unique_ptr<ByteChannel>> open(bool raw) override {
        return std::make_unique<FakeChannel>(person_, raw);
    }
    [[nodiscard]] std::optional<Screen> size() const override { return window; }
    [[nodiscard]] boost::asio::awaitable<void> resized() override { co_await person_.resized.wait(); }

private:
    FakePerson& person_;
};

class FakeDesktop final : public Desktop {
public:
    std::string folder;  // an empty one of the test's
    bool display = false;
    std::vector<std::string> programs;
    int viewer_ends_with = 0;
    std::vector<std::vector<std::string>> ran;
    std::vector<std::string> removed;

    [[nodiscard]] bool has_display() const override { return display; }
    [[nodiscard]] bool is_installed(std::string_view program) const override {
        return std::ranges::find(programs, program) != programs.end();
    }
    [[nodiscard]] boost::asio::awaitable<base::Result<int>> run(std::vector<std::string> command) override {
        ran.push_back(std::move(command));
        co_return viewer_ends_with;
    }
    [[nodiscard]] base::Result<std::string> make_private_folder() override { return folder; }
    void remove_folder(const std::string& path) noexcept override { removed.push_back(path); }
};

}  // namespace ghost::cli
