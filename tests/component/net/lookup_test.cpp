#include "net/lookup.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

using namespace ghost;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

// Answers at once, but for the names that hang until they are let go. Outlived by the threads that hang in it.
class NameServer {
public:
    void hang(const std::string& host) {
        const std::scoped_lock lock{state_->mutex};
        state_->hanging.insert(host);
    }
    void let_go() {
        const std::scoped_lock lock{state_->mutex};
        state_->hanging.clear();
        state_->change.notify_all();
    }
    void await_asked(int times) {
        std::unique_lock lock{state_->mutex};
        REQUIRE(state_->change.wait_for(lock, 30s, [&] { return state_->asked >= times; }));
    }
    [[nodiscard]] int asked() const {
        const std::scoped_lock lock{state_->mutex};
        return state_->asked;
    }
    [[nodiscard]] net::Lookup::Resolve resolve() const {
        return [state = state_](const std::string& host, const std::string&) -> base::Result<net::Endpoints> {
            std::unique_lock lock{state->mutex};
            ++state->asked;
            state->change.notify_all();
            state->change.wait(lock, [&] { return !state->hanging.contains(host); });
            return net::Endpoints{{asio::ip::make_address("192.0.2.1"), 443}};
        };
    }
    ~NameServer() { let_go(); }
    NameServer() = default;
    NameServer(const NameServer&) = delete;
    NameServer& operator=(const NameServer&) = delete;

private:
    struct State {
        std::mutex mutex;
        std::condition_variable change;
        std::set<std::string> hanging;
        int asked = 0;
    };
    std::shared_ptr<State> state_ = std::make_shared<State>();
};

using Found = std::shared_ptr<std::optional<base::Result<net::Endpoints>>>;

Found ask(asio::io_context& loop, net::Lookup& lookup, const std::string& host, std::chrono::seconds patience = 60s,
          asio::cancellation_slot slot = {}) {
    auto found = std::make_shared<std::optional<base::Result<net::Endpoints>>>();
    asio::co_spawn(loop, lookup.find(host, "443", std::chrono::steady_clock::now() + patience),
                   asio::bind_cancellation_slot(
                       slot, [found](const std::exception_ptr&, auto result) { found->emplace(std::move(result)); }));
    return found;
}

void run_until(asio::io_context& loop, const Found& found) {
    loop.restart();
    while (!*found && loop.run_one() > 0) {
    }
    REQUIRE(*found);
}

}  // namespace

TEST_CASE("a name is looked up where the machine looks for it") {
    asio::io_context loop{1};
    const auto here = ask(loop, net::lookup_of(loop.get_executor()), "localhost");
    run_until(loop, here);
    REQUIRE(here->value());
    REQUIRE_FALSE(here->value()->empty());
    CHECK(here->value()->front().address().is_loopback());
    CHECK(here->value()->front().port() == 443);
    const auto nowhere = ask(loop, net::lookup_of(loop.get_executor()), "no.such.host.invalid");
    run_until(loop, nowhere);
    REQUIRE_FALSE(nowhere->value());
    CHECK(nowhere->value().error().code == base::Errc::source_unavailable);
    CHECK(nowhere->value().error().detail.starts_with("cannot resolve no.such.host.invalid: Host not found"));
}

TEST_CASE("a question that hangs keeps nobody else waiting") {
    asio::io_context loop{1};
    NameServer server;
    net::Lookup lookup{server.resolve()};
    server.hang("core.example");
    const auto old = ask(loop, lookup, "core.example");
    loop.poll();
    server.await_asked(1);
    const auto other = ask(loop, lookup, "mirror.example");
    run_until(loop, other);
    CHECK(other->value()->size() == 1);
    CHECK_FALSE(*old);
    server.let_go();
    run_until(loop, old);
    CHECK(old->value()->size() == 1);
}

TEST_CASE("who asked goes when it takes too long, or when he is called off") {
    asio::io_context loop{1};
    NameServer server;
    net::Lookup lookup{server.resolve()};
    server.hang("core.example");
    const auto late = ask(loop, lookup, "core.example", 0s);
    run_until(loop, late);
    CHECK(late->value().error().code == base::Errc::deadline_exceeded);
    CHECK(late->value().error().detail == "looking up core.example took too long");
    asio::cancellation_signal signal;
    const auto called_off = ask(loop, lookup, "core.example", 60s, signal.slot());
    loop.restart();
    loop.poll();
    signal.emit(asio::cancellation_type::terminal);
    run_until(loop, called_off);
    CHECK(called_off->value().error().code == base::Errc::cancelled);
}

TEST_CASE("threads and questions are bounded, and what nobody waits for any more isn't asked") {
    asio::io_context loop{1};
    NameServer server;
    net::Lookup lookup{server.resolve()};
    server.hang("core.example");
    for (std::size_t i = 0; i < net::Lookup::max_threads; ++i) (void)ask(loop, lookup, "core.example");
    loop.poll();
    constexpr int all = net::Lookup::max_threads;
    server.await_asked(all);
    asio::cancellation_signal signal;
    const auto gone = ask(loop, lookup, "core.example", 60s, signal.slot());
    for (std::size_t i = 1; i < net::Lookup::max_queued; ++i) (void)ask(loop, lookup, "mirror.example");
    loop.restart();
    loop.poll();
    const auto refused = ask(loop, lookup, "mirror.example");
    run_until(loop, refused);
    CHECK(refused->value().error().code == base::Errc::overloaded);
    CHECK(server.asked() == all);
    signal.emit(asio::cancellation_type::terminal);
    run_until(loop, gone);
    // In its place.
    const auto last = ask(loop, lookup, "mirror.example");
    loop.restart();
    loop.poll();
    server.let_go();
    run_until(loop, last);
    CHECK(last->value()->size() == 1);
    // The others may be about to be asked for; the one that was called off isn't.
    constexpr int asked = all + static_cast<int>(net::Lookup::max_queued);
    server.await_asked(asked);
    CHECK(server.asked() == asked);
}

TEST_CASE("what hangs is left behind, and nobody is told") {
    NameServer server;
    server.hang("core.example");
    Found found;
    {
        asio::io_context loop{1};
        net::Lookup lookup{server.resolve()};
        found = ask(loop, lookup, "core.example");
        loop.poll();
        server.await_asked(1);
    }
    server.let_go();
    CHECK_FALSE(*found);
}
