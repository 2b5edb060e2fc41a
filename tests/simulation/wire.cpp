#include "simulation/wire.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/system/system_error.hpp>

#include <utility>

namespace ghost::simulation {
namespace asio = boost::asio;
namespace {

class NoListener final : public net::Listener {
public:
    std::string address() const override { return "memory"; }
    std::size_t connections() const override { return 0; }
    void use_tls(net::TlsContext) override {}
    void close(std::chrono::milliseconds) override {}
};

}  // namespace

base::Result<std::shared_ptr<net::Listener>> Wire::listen(net::Endpoint, net::TlsContext, net::Handler) {
    return std::make_shared<NoListener>();
}

Wire::Ptr Wire::send(const net::Handler& handler, net::Request request, Ear ear) {
    auto call = std::make_shared<Call>();
    call->ear_ = std::move(ear);
    const auto at = calls_.insert(calls_.end(), call);
    auto over = [this, at, call](const std::exception_ptr& error) {
        if (error && escaped) escaped("an exception escaped the session");
        calls_.erase(at);
        if (call->cut_) return;
        if (!heard(call)) {
            unheard_.push_back(call);
            return;
        }
        call->cut_ = true;
        call->ear_.ended();
    };
    asio::co_spawn(loop_, serve(call, handler, std::move(request)),
                   asio::bind_cancellation_slot(call->hang_up_.slot(), std::move(over)));
    return call;
}

asio::awaitable<void> Wire::serve(Ptr call, net::Handler handler, net::Request request) {
    try {
        const auto response = co_await handler(std::move(request));
        if (heard(call)) call->ear_.answered(response);
        if (!response.stream) co_return;
        while (!call->cut_) {
            const auto chunk = co_await response.stream();
            if (!chunk) break;
            if (heard(call)) call->ear_.chunk(*chunk);
        }
    } catch (const boost::system::system_error& e) {
        if (e.code() != asio::error::operation_aborted && escaped) escaped(e.what());
    } catch (const std::exception& e) {
        if (escaped) escaped(e.what());
    }
}

void Wire::hang_up(Ptr call) {
    if (call->cut_) return;
    call->cut_ = true;
    call->ear_.ended();
    // On the loop: elsewhere Asio would post it, and the coroutine may be gone by then.
    asio::post(loop_, [call = std::move(call)] { call->hang_up_.emit(asio::cancellation_type::terminal); });
}

void Wire::cut_all() {
    auto calls = calls_;
    calls.splice(calls.end(), unheard_);
    for (const auto& call : calls) hang_up(call);
}

asio::awaitable<void> Wire::shut_down(std::chrono::milliseconds grace) {
    co_await asio::this_coro::throw_if_cancelled(false);
    const auto deadline = clock_.now() + grace;
    while (!calls_.empty() && clock_.now() < deadline) co_await clock_.sleep_for(std::chrono::milliseconds{100});
    const auto calls = calls_;
    for (const auto& call : calls) call->hang_up_.emit(asio::cancellation_type::terminal);
    while (!calls_.empty()) co_await clock_.sleep_for(std::chrono::milliseconds{10});
}

}  // namespace ghost::simulation
