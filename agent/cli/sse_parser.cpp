#include "agent/cli/sse_parser.hpp"

#include <utility>

namespace ghost::cli {

std::vector<ServerSentEvent> SseParser::feed(std::string_view piece) {
    std::vector<ServerSentEvent> complete;
    while (!piece.empty() && !overflowed_) {
        if (std::exchange(after_cr_, false) && piece.front() == '\n') {
            piece.remove_prefix(1);
            continue;
        }
        const auto end = piece.find_first_of("\r\n");
        line_.append(piece.substr(0, end));
        overflowed_ = line_.size() > largest_event || data_.size() > largest_event;
        if (end == std::string_view::npos) break;
        after_cr_ = piece[end] == '\r';
        piece.remove_prefix(end + 1);
        if (!overflowed_) end_line(complete);
    }
    return complete;
}

void SseParser::end_line(std::vector<ServerSentEvent>& complete) {
    const auto text = std::exchange(line_, {});
    std::string_view line = text;
    constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
    if (std::exchange(first_line_, false) && line.starts_with(byte_order_mark))
        line.remove_prefix(byte_order_mark.size());
    if (line.empty()) {
        auto type = std::exchange(type_, {});
        auto data = std::exchange(data_, {});
        if (data.empty()) return;
        data.pop_back();
        complete.push_back({id_, type.empty() ? "message" : std::move(type), std::move(data)});
        return;
    }
    const auto colon = line.find(':');
    if (colon == 0) return;  // a comment
    auto value = colon == std::string_view::npos ? std::string_view{} : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    take_field(line.substr(0, colon), value);
}

void SseParser::take_field(std::string_view name, std::string_view value) {
    if (name == "data")
        data_.append(value).append("\n");
    else if (name == "event")
        type_ = value;
    else if (name == "id" && !value.contains('\0'))
        id_ = value;
}

}  // namespace ghost::cli
