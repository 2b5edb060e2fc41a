// Server-sent events (text/event-stream, as the HTML standard reads it) out of the pieces that a connection brings.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::cli {

struct ServerSentEvent {
    std::string id;    // the last one that was sent; empty: none yet
    std::string type;  // "message" when it isn't said
    std::string data;  // its lines, with \n between them
};

// One connection's worth: what a cut leaves unfinished is lost, and comes again after the next.
class SseParser {
public:
    // The events that are complete with this piece.
    [[nodiscard]] std::vector<ServerSentEvent> feed(std::string_view piece);

    // An event was larger than any this reads; nothing comes after it.
    [[nodiscard]] bool overflowed() const noexcept { return overflowed_; }

    static constexpr std::size_t largest_event = 8 * std::size_t{1024} * 1024;  // bytes, of its data or of one line

private:
    void end_line(std::vector<ServerSentEvent>& complete);
    void take_field(std::string_view name, std::string_view value);

    std::string line_;       // not ended yet
    bool after_cr_ = false;  // a \n now belongs to the line that \r ended
    bool first_line_ = true;
    bool overflowed_ = false;
    std::string id_;
    std::string type_;
    std::string data_;  // each line ended by \n
};

}  // namespace ghost::cli
