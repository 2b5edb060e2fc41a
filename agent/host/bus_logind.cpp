// The real login manager, over D-Bus.
#include "agent/host/logind.hpp"
#include "base/cancelled.hpp"
#include "base/clock.hpp"
#include "base/descriptor.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>
#include <systemd/sd-bus.h>

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

using base::Errc;
using base::Result;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t most_news = 16;  // unread; more only if sleeps came to nothing over and over
constexpr const char* login = "org.freedesktop.login1";
constexpr const char* login_path = "/org/freedesktop/login1";
constexpr const char* login_manager = "org.freedesktop.login1.Manager";

struct CloseBus {
    // Without a flush, which would wait for the peer.
    void operator()(sd_bus* bus) const noexcept { sd_bus_close_unref(bus); }
};
using Bus = std::unique_ptr<sd_bus, CloseBus>;

std::unexpected<base::Error> bus_fault(std::string_view what, int negative_errno) {
    return base::fail(Errc::io_error, fmt::format("{}: {}", what, std::generic_category().message(-negative_errno)));
}

base::Error refusal(const sd_bus_error& error) {
    const std::string_view name = error.name == nullptr ? "" : error.name;
    const std::string_view words = error.message == nullptr ? name : error.message;
    const bool denied = name == SD_BUS_ERROR_ACCESS_DENIED || name == SD_BUS_ERROR_AUTH_FAILED ||
                        name == SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED;
    return {denied ? Errc::forbidden : Errc::io_error, fmt::format("the login manager refuses: {}", words)};
}

// sd-bus is asked to do what it can without waiting; between times the loop watches its socket and its time limit.
class BusLogind final : public Logind {
public:
    explicit BusLogind(const asio::any_io_executor& executor) : socket_(executor), limit_(executor) {}

    Task<void> connect() override {
        close();
        if (auto opened = open(); !opened) {
            close();
            co_return opened;
        }
        co_return co_await turn_until([this] { return sd_bus_is_ready(bus_.get()) > 0; });
    }

    Task<void> inhibit() override {
        release();
        if (!bus_) co_return no_connection();
        answer_.reset();
        const int sent = sd_bus_call_method_async(bus_.get(), nullptr, login, login_path, login_manager, "Inhibit",
                                                  take_answer, this, "ssss", "sleep", "ghost-agent",
                                                  "Ghost Core is told before the host sleeps", "delay");
        if (sent < 0) co_return lost("cannot ask the login manager", sent);
        if (auto turned = co_await turn_until([this] { return answer_.has_value(); }); !turned) co_return turned;
        auto answer = std::move(*answer_);
        answer_.reset();
        if (!answer) {
            if (answer.error().code != Errc::forbidden) close();
            co_return base::fail(std::move(answer.error()));
        }
        lock_ = std::move(*answer);
        co_return Result<void>{};
    }

    void release() override { lock_.reset(); }

    Task<News> next() override {
        if (news_.empty())
            if (auto turned = co_await turn_until([this] { return !news_.empty(); }); !turned)
                co_return base::fail(std::move(turned.error()));
        const auto news = news_.front();
        news_.pop_front();
        co_return news;
    }

    void close() override {
        release();
        forget_socket();
        news_.clear();
        answer_.reset();
        login_gone_ = false;
        bus_.reset();
    }

private:
    [[nodiscard]] static std::unexpected<base::Error> no_connection() {
        return base::fail(Errc::io_error, "there is no connection to the bus");
    }
    [[nodiscard]] std::unexpected<base::Error> lost(std::string_view what, int negative_errno) {
        close();
        return bus_fault(what, negative_errno);
    }

    Result<void> open() {
        sd_bus* bus = nullptr;
        if (const int opened = sd_bus_open_system(&bus); opened < 0) return bus_fault("no bus", opened);
        bus_.reset(bus);
        // What the bus refuses to tell ends the connection.
        const int asked = sd_bus_match_signal_async(bus, nullptr, login, login_path, login_manager, "PrepareForSleep",
                                                    take_news, nullptr, this);
        if (asked < 0) return bus_fault("cannot listen on the bus", asked);
        const auto owner = fmt::format(
            "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',"
            "arg0='{}'",
            login);
        const int watched = sd_bus_add_match_async(bus, nullptr, owner.c_str(), take_owner, nullptr, this);
        if (watched < 0) return bus_fault("cannot listen on the bus", watched);
        return {};
    }

    // Until `done`; an error when the connection, or the login manager, has gone.
    Task<void> turn_until(std::function<bool()> done) {
        while (bus_) {
            if (login_gone_) {
                close();
                co_return base::fail(Errc::io_error, "the login manager has gone");
            }
            if (done()) co_return Result<void>{};
            const int processed = sd_bus_process(bus_.get(), nullptr);
            if (processed < 0) co_return lost("the bus has gone", processed);
            if (processed > 0) {
                co_await asio::post(socket_.get_executor(), asio::use_awaitable);  // others' turn
                continue;
            }
            if (co_await base::is_cancelled()) co_return base::fail(Errc::cancelled, "cancelled while waiting");
            if (const auto waited = co_await wait_for_bus(); !waited) co_return waited;
        }
        co_return no_connection();
    }

    Task<void> wait_for_bus() {
        using namespace asio::experimental::awaitable_operators;
        const int fd = sd_bus_get_fd(bus_.get());
        const int events = sd_bus_get_events(bus_.get());
        std::uint64_t limit_us = 0;
        const int limited = sd_bus_get_timeout(bus_.get(), &limit_us);
        if (const int fault = std::min({fd, events, limited}); fault < 0) co_return lost("the bus has gone", fault);
        if (const auto watched = watch(fd); !watched) co_return watched;
        // sd-bus counts from the machine's boot, by the clock that the timer has.
        constexpr auto longest = std::chrono::hours{1};
        const auto soon = std::chrono::steady_clock::now() + longest;
        limit_.expires_at(
            std::min(soon, limit_us == UINT64_MAX ? soon : base::Instant{std::chrono::microseconds{limit_us}}));
        if ((events & POLLOUT) != 0)
            co_await (socket_.async_wait(asio::posix::stream_descriptor::wait_read, as_values) ||
                      socket_.async_wait(asio::posix::stream_descriptor::wait_write, as_values) ||
                      limit_.async_wait(as_values));
        else
            co_await (socket_.async_wait(asio::posix::stream_descriptor::wait_read, as_values) ||
                      limit_.async_wait(as_values));
        co_return Result<void>{};
    }

    // A copy of the descriptor, since sd-bus closes its own; it changes when a second address is tried.
    Result<void> watch(int fd) {
        if (socket_.is_open() && fd == watched_) return {};
        forget_socket();
        base::Descriptor copy{::fcntl(fd, F_DUPFD_CLOEXEC, 3)};
        if (!copy) return lost("cannot watch the bus", -errno);
        boost::system::error_code failed;
        socket_.assign(copy.get(), failed);
        if (failed) return lost("cannot watch the bus", -failed.value());
        static_cast<void>(copy.release());
        watched_ = fd;
        return {};
    }
    void forget_socket() {
        boost::system::error_code ignored;
        socket_.close(ignored);
        watched_ = -1;
    }

    static int take_news(sd_bus_message* message, void* self, sd_bus_error* /*error*/) {
        int begins = 0;
        auto& news = static_cast<BusLogind*>(self)->news_;
        if (sd_bus_message_read(message, "b", &begins) < 0) return 0;
        if (news.size() >= most_news) news.pop_front();
        news.push_back(begins != 0 ? News::goes_to_sleep : News::is_awake);
        return 0;
    }
    static int take_owner(sd_bus_message* message, void* self, sd_bus_error* /*error*/) {
        const char* name = nullptr;
        const char* former = nullptr;
        if (sd_bus_message_read(message, "ss", &name, &former) < 0 || former == nullptr) return 0;
        // A successor may know nothing of our lock; the first to come is the one that we ask for it.
        if (*former != '\0') static_cast<BusLogind*>(self)->login_gone_ = true;
        return 0;
    }
    static int take_answer(sd_bus_message* message, void* self, sd_bus_error* /*error*/) {
        auto& answer = static_cast<BusLogind*>(self)->answer_;
        if (const auto* const error = sd_bus_message_get_error(message); error != nullptr) {
            answer.emplace(base::fail(refusal(*error)));
            return 0;
        }
        int fd = -1;
        if (const int read = sd_bus_message_read(message, "h", &fd); read < 0) {
            answer.emplace(bus_fault("the login manager's answer can't be read", read));
            return 0;
        }
        base::Descriptor lock{::fcntl(fd, F_DUPFD_CLOEXEC, 3)};  // the message's own closes with it
        if (lock)
            answer.emplace(std::move(lock));
        else
            answer.emplace(bus_fault("the login manager's lock can't be kept", -errno));
        return 0;
    }

    Bus bus_;
    asio::posix::stream_descriptor socket_;
    asio::steady_timer limit_;
    int watched_ = -1;
    base::Descriptor lock_;
    std::deque<News> news_;
    std::optional<Result<base::Descriptor>> answer_;
    bool login_gone_ = false;
};

}  // namespace

std::unique_ptr<Logind> make_logind(const asio::any_io_executor& executor) {
    return std::make_unique<BusLogind>(executor);
}

}  // namespace ghost::agent
