// How far a copy is, on a terminal.
#pragma once

#include "agent/cli/console.hpp"
#include "base/clock.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace ghost::cli {

// Draws nothing where there is no terminal. Both references must outlive it.
class TransferBar {
public:
    TransferBar(Console& console, base::Clock& clock, std::string subject)
        : console_(console), clock_(clock), subject_(std::move(subject)), began_(clock.now()), drawn_(began_) {}
    ~TransferBar() { erase(); }
    TransferBar(const TransferBar&) = delete;
    TransferBar& operator=(const TransferBar&) = delete;

    void expect(std::uint64_t bytes) { total_ = bytes; }
    void add(std::uint64_t bytes);
    void erase();
    [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

    static constexpr std::chrono::milliseconds pause{200};  // between two drawings, and before the first

private:
    Console& console_;
    base::Clock& clock_;
    std::string subject_;
    base::Instant began_;
    base::Instant drawn_;
    std::optional<std::uint64_t> total_;
    std::uint64_t bytes_ = 0;
    bool visible_ = false;
};

}  // namespace ghost::cli
