// The terminal or pipes that ghostctl talks to, as a seam.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::cli {

struct Screen {
    std::size_t columns = 80;
    std::size_t rows = 24;
};

class Console {
public:
    virtual ~Console() = default;
    virtual void out(std::string_view text) = 0;    // standard output
    virtual void error(std::string_view text) = 0;  // standard error

    // Standard output still takes text: whoever read it hasn't gone away.
    [[nodiscard]] virtual bool has_reader() const = 0;
    // The terminal that standard output is; nullopt when it is none, or one that can't be drawn on.
    [[nodiscard]] virtual std::optional<Screen> screen() const = 0;
    // Columns of the terminal that standard error is; nullopt when it is none: then no progress is drawn.
    [[nodiscard]] virtual std::optional<std::size_t> progress_columns() const = 0;
    // Somebody can be asked: standard input and standard error are terminals.
    [[nodiscard]] virtual bool can_ask() const = 0;
    // One line from standard input; nullopt at its end.
    [[nodiscard]] virtual std::optional<std::string> ask(std::string_view question) = 0;
};

// The process's own streams, unbuffered. A reader that has gone away (EPIPE) ends the output quietly; any other
// fault of standard output is kept for the end.
class ProcessConsole final : public Console {
public:
    void out(std::string_view text) override;
    void error(std::string_view text) override;
    [[nodiscard]] bool has_reader() const override { return !closed_; }
    [[nodiscard]] std::optional<Screen> screen() const override;
    [[nodiscard]] std::optional<std::size_t> progress_columns() const override;
    [[nodiscard]] bool can_ask() const override;
    [[nodiscard]] std::optional<std::string> ask(std::string_view question) override;

    // errno of the first write to standard output that failed, 0 if none did.
    [[nodiscard]] int output_fault() const noexcept { return fault_; }

private:
    int fault_ = 0;
    bool closed_ = false;
};

}  // namespace ghost::cli
