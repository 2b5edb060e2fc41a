#include "base/log.hpp"

#include <fmt/format.h>

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <exception>
#include <iterator>
#include <optional>
#include <utility>

namespace ghost::base {
namespace {

// A record's message and each of its values are cut to this many bytes before they are queued.
constexpr std::size_t text_limit = 16UL * 1024;

void cut(std::string& text) {
    if (text.size() <= text_limit) return;
    text.resize(text_limit);
    text += "...";
}

struct CodePoint {
    char32_t value = 0;
    std::size_t size = 1;  // bytes taken from the input
};

// The first code point of `text`, which isn't empty; nothing when it doesn't start with well-formed UTF-8.
std::optional<CodePoint> decode(std::string_view text) {
    const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const auto lead = byte(0);
    if (lead < 0x80) return CodePoint{lead, 1};
    const std::size_t size = (lead & 0xe0) == 0xc0 ? 2 : (lead & 0xf0) == 0xe0 ? 3 : (lead & 0xf8) == 0xf0 ? 4 : 0;
    if (size == 0 || text.size() < size) return std::nullopt;
    auto value = static_cast<char32_t>(lead & (0x7fU >> size));
    for (std::size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return std::nullopt;
        value = (value << 6) | (byte(i) & 0x3fU);
    }
    constexpr std::array<char32_t, 5> smallest{0, 0, 0x80, 0x800, 0x10000};
    if (value < smallest.at(size) || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return std::nullopt;
    return CodePoint{value, size};
}

// What could end the line, move a terminal's cursor or turn the reading direction around.
bool is_dangerous(char32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || (c >= 0x200e && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

// `text` with everything escaped that a string of JSON may not hold or that is dangerous to show. Bytes that are
// no UTF-8 become "\xNN" in text and U+FFFD in JSON, which knows no other form.
void append_escaped(std::string& out, std::string_view text, LogFormat format) {
    const auto to = std::back_inserter(out);
    while (!text.empty()) {
        const auto point = decode(text);
        if (!point) {
            if (format == LogFormat::json)
                out += "\\ufffd";
            else
                fmt::format_to(to, "\\x{:02x}", static_cast<unsigned char>(text.front()));
            text.remove_prefix(1);
            continue;
        }
        switch (point->value) {
            case U'"': out += "\\\""; break;
            case U'\\': out += "\\\\"; break;
            case U'\n': out += "\\n"; break;
            case U'\r': out += "\\r"; break;
            case U'\t': out += "\\t"; break;
            default:
                if (is_dangerous(point->value))
                    fmt::format_to(to, "\\u{:04x}", static_cast<std::uint32_t>(point->value));
                else
                    out.append(text.substr(0, point->size));
        }
        text.remove_prefix(point->size);
    }
}

void append_quoted(std::string& out, std::string_view text, LogFormat format) {
    out += '"';
    append_escaped(out, text, format);
    out += '"';
}

// Text for people: bare when nothing in it could be taken for something else, quoted otherwise.
void append_for_people(std::string& out, std::string_view text, bool spaces_are_plain) {
    const bool plain = !text.empty() && std::ranges::all_of(text, [spaces_are_plain](char c) {
        return c > 0x20 && c < 0x7f ? c != '"' && c != '\\' && c != '=' : c == ' ' && spaces_are_plain;
    });
    if (plain)
        out += text;
    else
        append_quoted(out, text, LogFormat::text);
}

void append_key(std::string& out, std::string_view key) {
    for (const char c : key) {
        const bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                          c == '-' || c == '.';
        out += word ? c : '_';
    }
}

std::string json_line(const Record& record) {
    std::string line =
        fmt::format(R"({{"time":"{}","level":"{}","message":)", rfc3339_ms(record.time), name_of(record.level));
    append_quoted(line, record.message, LogFormat::json);
    for (const auto& field : record.fields) {
        line += ",\"";
        append_key(line, field.key);
        // A field can't stand in for one of the line's own members.
        if (field.key == "time" || field.key == "level" || field.key == "message") line += '_';
        line += "\":";
        if (field.quoted)
            append_quoted(line, field.value, LogFormat::json);
        else
            line += field.value;
    }
    line += '}';
    return line;
}

constexpr std::string_view label(Level level) {
    switch (level) {
        case Level::debug: return "DEBUG";
        case Level::info: return "INFO";
        case Level::warn: return "WARN";
        case Level::error: return "ERROR";
    }
    return "ERROR";
}

// The writer takes no signals (they belong to the loop's thread), and a closed pipe is an error code to it.
void prepare_writer_thread() {
    ::pthread_setname_np(::pthread_self(), "log");
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace

std::string_view name_of(Level level) noexcept {
    switch (level) {
        case Level::debug: return "debug";
        case Level::info: return "info";
        case Level::warn: return "warn";
        case Level::error: return "error";
    }
    return "error";
}

std::string message_with_fields(const Record& record) {
    std::string text;
    append_for_people(text, record.message, true);
    for (const auto& field : record.fields) {
        text += ' ';
        append_key(text, field.key);
        text += '=';
        append_for_people(text, field.value, false);
    }
    return text;
}

std::string format_record(const Record& record, LogFormat format) {
    if (format == LogFormat::json) return json_line(record);
    return fmt::format("{} {} {}", rfc3339_ms(record.time), label(record.level), message_with_fields(record));
}

Log::Log(Level level, std::vector<std::unique_ptr<LogSink>> sinks, Writer writer)
    : level_(level), sinks_(std::move(sinks)) {
    if (!sinks_.empty() && writer == Writer::thread) writer_ = std::thread{[this] { run(); }};
}

Log::~Log() {
    {
        const std::lock_guard lock{mutex_};
        stop_ = true;
    }
    wake_.notify_one();
    if (writer_.joinable()) writer_.join();
}

void Log::write(Level level, std::string message, Fields fields) {
    if (sinks_.empty() || !enabled(level)) return;
    cut(message);
    for (auto& field : fields) cut(field.value);
    Record record{std::chrono::system_clock::now(), level, std::move(message), std::move(fields)};
    if (!writer_.joinable()) {
        for (const auto& sink : sinks_) sink->write(record);
        return;
    }
    {
        const std::lock_guard lock{mutex_};
        if (queue_.size() >= queue_limit) {
            dropped_.fetch_add(1, std::memory_order_relaxed);
            return;
        }
        queue_.push_back(std::move(record));
    }
    wake_.notify_one();
}

void Log::flush(std::chrono::milliseconds limit) {
    if (sinks_.empty()) return;
    std::unique_lock lock{mutex_};
    idle_.wait_for(lock, limit, [this] { return queue_.empty() && !writing_; });
}

void Log::run() {
    prepare_writer_thread();
    std::uint64_t told = 0;  // of the dropped records, those already reported
    const auto to_all = [this](auto&& act) {
        for (const auto& sink : sinks_) {
            try {
                act(*sink);
            } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
                // A log has nowhere to report its own faults.
            }
        }
    };
    std::unique_lock lock{mutex_};
    for (;;) {
        wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;  // stopped, and everything is written
        auto batch = std::exchange(queue_, {});
        writing_ = true;
        lock.unlock();

        if (const auto lost = dropped(); lost != told) {
            batch.push_back({std::chrono::system_clock::now(),
                             Level::warn,
                             "log records dropped: the queue was full",
                             {{"dropped", lost - told}, {"dropped_total", lost}}});
            told = lost;
        }
        for (const auto& record : batch) to_all([&record](LogSink& sink) { sink.write(record); });
        to_all([](LogSink& sink) { sink.flush(); });

        lock.lock();
        writing_ = false;
        if (queue_.empty()) idle_.notify_all();
    }
}

}  // namespace ghost::base
