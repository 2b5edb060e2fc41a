#include "storage/part_writer.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>

#include <exception>
#include <utility>

namespace ghost::storage {
namespace asio = boost::asio;

asio::awaitable<base::Result<void>> PartWriter::write(std::shared_ptr<State> state, std::string bytes) {
    co_return co_await state->file->append(std::move(bytes));
}

// Also of a coroutine that is cancelled: what is under way can't be recalled.
asio::awaitable<void> PartWriter::idle() {
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    while (state_->busy) co_await state_->written.wait();
    co_await asio::this_coro::throw_if_cancelled(throws);
}

asio::awaitable<base::Result<void>> PartWriter::pass_on() {
    co_await idle();
    if (!state_->result) co_return state_->result;
    if (chunk_.empty()) co_return base::Result<void>{};
    std::string bytes;
    bytes.reserve(chunk_size);
    std::swap(bytes, chunk_);
    state_->busy = true;
    asio::co_spawn(executor_, write(state_, std::move(bytes)),
                   [state = state_](const std::exception_ptr& fault, base::Result<void> done) {
                       if (fault) done = base::fail(base::Errc::internal, "an internal fault while it was written");
                       if (!done && state->result) state->result = std::move(done);
                       state->busy = false;
                       state->written.notify();
                   });
    co_return base::Result<void>{};
}

asio::awaitable<base::Result<void>> PartWriter::flush() {
    if (auto passed = co_await pass_on(); !passed) co_return passed;
    co_await idle();
    co_return state_->result;
}

asio::awaitable<base::Result<void>> PartWriter::give_up() {
    co_await idle();
    chunk_.clear();
    co_return state_->result;
}

asio::awaitable<base::Result<void>> PartWriter::start_over() {
    co_await idle();
    chunk_.clear();
    state_->result = {};
    co_return co_await state_->file->start_over();
}

}  // namespace ghost::storage
