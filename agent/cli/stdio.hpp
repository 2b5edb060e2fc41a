// Standard input and output for programs that pass bytes on, as a seam.
#pragma once

#include "agent/cli/byte_channel.hpp"
#include "agent/cli/console.hpp"
#include "base/error.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/signal_set.hpp>

#include <initializer_list>
#include <memory>
#include <optional>

namespace ghost::cli {

class Stdio {
public:
    virtual ~Stdio() = default;
    [[nodiscard]] virtual bool input_is_terminal() const = 0;
    [[nodiscard]] virtual bool output_is_terminal() const = 0;
    // `raw`: what is typed comes at once, unseen, and Ctrl-C is a byte like others, until the channel is gone. For a
    // standard input that is a terminal.
    [[nodiscard]] virtual base::Result<std::unique_ptr<ByteChannel>> open(bool raw) = 0;
    // Of the terminal that standard output or input is.
    [[nodiscard]] virtual std::optional<Screen> size() const = 0;
    // Until the terminal has another size, or the caller is cancelled.
    [[nodiscard]] virtual boost::asio::awaitable<void> resized() = 0;
};

// The process's own: terminals, pipes, sockets or files. How they were set (the terminal's mode, O_NONBLOCK) is put
// right again when the channel goes, and when a signal ends the process.
class ProcessStdio final : public Stdio {
public:
    explicit ProcessStdio(const boost::asio::any_io_executor& executor);

    [[nodiscard]] bool input_is_terminal() const override;
    [[nodiscard]] bool output_is_terminal() const override;
    [[nodiscard]] base::Result<std::unique_ptr<ByteChannel>> open(bool raw) override;
    [[nodiscard]] std::optional<Screen> size() const override;
    [[nodiscard]] boost::asio::awaitable<void> resized() override;

private:
    boost::asio::any_io_executor executor_;
    boost::asio::signal_set window_changes_;
};

// From here on those of these signals that nobody handles or ignores end the process as they do by default, but leave
// the terminal as it was found.
void end_restored_by(std::initializer_list<int> signals);

}  // namespace ghost::cli
