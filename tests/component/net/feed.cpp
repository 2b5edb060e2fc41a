#include "tests/component/net/feed.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace ghost::test {

namespace asio = boost::asio;

net::BodySource Feed::source() {
    ++alive;
    const std::shared_ptr<std::size_t> next{new std::size_t{0}, [this](const std::size_t* index) {
                                                --alive;
                                                delete index;
                                            }};
    return [this, next] { return piece((*next)++); };
}

void Feed::push(net::Chunk piece) {
    pieces_.push_back(std::move(piece));
    wake();
}

void Feed::end() {
    ended_ = true;
    wake();
}

void Feed::fail() {
    failed_ = true;
    wake();
}

void Feed::wake() {
    for (auto* sleeper : sleepers_) sleeper->cancel();
}

asio::awaitable<net::Chunk> Feed::piece(std::size_t index) {
    asio::steady_timer timer{co_await asio::this_coro::executor, asio::steady_timer::time_point::max()};
    while (index >= pieces_.size() && !ended_ && !failed_) {
        const auto place = sleepers_.insert(sleepers_.end(), &timer);
        ++waiting;
        const auto leave = [this, place](void*) {
            --waiting;
            sleepers_.erase(place);
        };
        const std::unique_ptr<void, decltype(leave)> asleep{&timer, leave};
        co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
        const auto state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() == asio::cancellation_type::none) continue;
        ++cancelled;
        if (how_ == WhenCancelled::throw_it) throw boost::system::system_error{asio::error::operation_aborted};
        co_return nullptr;
    }
    if (index < pieces_.size()) {
        ++given;
        co_return pieces_[index];
    }
    if (failed_) throw std::runtime_error{"the feed's secret"};
    co_return nullptr;
}

net::Chunk chunk_of(std::string text) { return std::make_shared<const std::string>(std::move(text)); }

}  // namespace ghost::test
