// Bytes as they come from the network, handed to the disk in chunks: one is
// written and hashed while the next fills.
#pragma once

#include "base/error.hpp"
#include "base/notifier.hpp"
#include "storage/files.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace ghost::storage {

// Loop thread only. Two chunks in memory at most, and what one read of the network brings beyond.
class PartWriter {
public:
    PartWriter(const boost::asio::any_io_executor& executor, std::shared_ptr<GrowingFile> file)
        : executor_(executor), state_(std::make_shared<State>(executor, std::move(file))) {}

    void take(std::string_view bytes) { chunk_.append(bytes); }
    [[nodiscard]] bool full() const noexcept { return chunk_.size() >= chunk_size; }
    // Begins to write what was taken, once what was passed on before is written. Errors: that one's.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> pass_on();
    // Until all is written. Errors: the first that any write had since the last start_over().
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> flush();
    // The same for what was passed on; what was only taken is dropped.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> give_up();
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> start_over();

    static constexpr std::size_t chunk_size = 256 * 1024;

private:
    // Outlives a writer that is torn down while a write is under way.
    struct State {
        State(const boost::asio::any_io_executor& executor, std::shared_ptr<GrowingFile> what)
            : file(std::move(what)), written(executor) {}
        std::shared_ptr<GrowingFile> file;
        base::Notifier written;
        base::Result<void> result;
        bool busy = false;
    };
    [[nodiscard]] static boost::asio::awaitable<base::Result<void>> write(std::shared_ptr<State> state,
                                                                          std::string bytes);
    [[nodiscard]] boost::asio::awaitable<void> idle();

    boost::asio::any_io_executor executor_;
    std::shared_ptr<State> state_;
    std::string chunk_;
};

}  // namespace ghost::storage
