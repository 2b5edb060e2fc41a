// The host's end of a guest's serial console.
#pragma once

#include "base/error.hpp"
#include "storage/files.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace ghost::agent {

// Open until the guest stops, or close(). A read and a write may be under way at once; whoever awaits one keeps the
// line.
class ConsoleLine {
public:
    virtual ~ConsoleLine() = default;
    // Some bytes; 0: it has ended.
    [[nodiscard]] virtual boost::asio::awaitable<std::size_t> read(boost::asio::mutable_buffer room) = 0;
    // What is here already, without a wait; 0: nothing.
    [[nodiscard]] virtual std::size_t read_ready(boost::asio::mutable_buffer room) noexcept = 0;
    // All of them, which the caller keeps; false: it has ended.
    [[nodiscard]] virtual boost::asio::awaitable<bool> write(std::string_view bytes) = 0;
    virtual void close() noexcept = 0;  // what is under way ends
};

// `still_its` is asked of a terminal once that is held open, and before anything is done to it: the VM may have ended,
// and its number be another program's. Errors: state_conflict (somebody else is attached to it), source_unavailable (it
// can't be opened, or isn't the console's any more), hypervisor_error (it is no place of a console).
[[nodiscard]] boost::asio::awaitable<base::Result<std::shared_ptr<ConsoleLine>>> open_console_line(
    boost::asio::any_io_executor executor, virt::ConsoleDevice device, storage::Files& files,
    std::function<boost::asio::awaitable<bool>()> still_its);

}  // namespace ghost::agent
