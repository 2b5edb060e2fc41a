// Asio's streams, read and written as a ByteChannel promises.
#pragma once

#include "base/error.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <cstddef>

namespace ghost::cli {

template <class Stream>
[[nodiscard]] boost::asio::awaitable<base::Result<std::size_t>> read_some(Stream& stream,
                                                                          boost::asio::mutable_buffer room) {
    namespace asio = boost::asio;
    const auto [fault, bytes] = co_await stream.async_read_some(room, asio::as_tuple(asio::use_awaitable));
    if (fault == asio::error::eof) co_return std::size_t{0};
    if (fault == asio::error::operation_aborted) co_return base::fail(base::Errc::cancelled);
    if (fault) co_return base::fail(base::Errc::io_error, fault.message());
    co_return bytes;
}

template <class Stream>
[[nodiscard]] boost::asio::awaitable<bool> write_all(Stream& stream, boost::asio::const_buffer bytes) {
    namespace asio = boost::asio;
    const auto [fault, written] = co_await asio::async_write(stream, bytes, asio::as_tuple(asio::use_awaitable));
    co_return !fault;
}

}  // namespace ghost::cli
