// Structured log. A call copies a record into a bounded queue and returns; one
// writer thread formats and writes. When the queue is full the record is
// dropped and counted, and the writer says how many as soon as there is room.
// Any thread may log.
#pragma once

#include "base/clock.hpp"

#include <atomic>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace ghost::base {

enum class Level : std::uint8_t { debug, info, warn, error };
[[nodiscard]] std::string_view name_of(Level level) noexcept;

// A key and a value; numbers and booleans stay unquoted in JSON lines.
struct Field {
    std::string key;
    std::string value;
    bool quoted = true;

    Field(std::string_view k, std::string_view v) : key(k), value(v) {}
    Field(std::string_view k, const std::string& v) : key(k), value(v) {}
    Field(std::string_view k, const char* v) : key(k), value(v) {}
    Field(std::string_view k, std::same_as<bool> auto v) : key(k), value(v ? "true" : "false"), quoted(false) {}
    template <class N>
        requires(std::integral<N> && !std::same_as<N, bool>)
    Field(std::string_view k, N v) : key(k), value(std::to_string(v)), quoted(false) {}
};
using Fields = std::vector<Field>;

struct Record {
    Wall time;
    Level level = Level::info;
    std::string message;
    Fields fields;
};

// Where records end up. `write` and `flush` run on the writer thread only.
class LogSink {
public:
    virtual ~LogSink() = default;
    virtual void write(const Record& record) = 0;
    virtual void flush() = 0;
};

enum class LogFormat : std::uint8_t { text, json };
// One line, no newline at its end. Whatever message and fields hold, the line can't be broken, its terminal can't be
// steered and no field can be forged.
[[nodiscard]] std::string format_record(const Record& record, LogFormat format);
// The text format without time and level: `message key=value ...`.
[[nodiscard]] std::string message_with_fields(const Record& record);

// Writes to `fd`, which stays the caller's. When its reader stalls for a second, lines are left out until it reads
// again, and then counted in a line of their own: a stuck pipe doesn't hold up the agent's end.
[[nodiscard]] std::unique_ptr<LogSink> make_stream_sink(int fd, LogFormat format);
// Rotates to FILE.1 (the newest) ... when `max_bytes` would be exceeded. Rotated files older than `max_age`, and any
// beyond the tenth, are deleted. A file that was moved away by others is opened anew.
// Throws std::system_error when the file can't be opened.
[[nodiscard]] std::unique_ptr<LogSink> make_file_sink(std::string path, LogFormat format, std::uint64_t max_bytes,
                                                      std::chrono::hours max_age);
// Native journal entries with priority and GHOST_* fields.
[[nodiscard]] std::unique_ptr<LogSink> make_journal_sink();
// True when standard error is connected to the journal (systemd's JOURNAL_STREAM names this very stream).
[[nodiscard]] bool stderr_is_journal();

class Log {
public:
    enum class Writer : std::uint8_t {
        thread,  // one of the log's own
        caller,  // at once, by whoever logs: for a simulation on one thread
    };
    // `sinks` may be empty: then records are discarded (tests).
    Log(Level level, std::vector<std::unique_ptr<LogSink>> sinks, Writer writer = Writer::thread);
    Log() : Log(Level::error, {}) {}
    ~Log();
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;

    void set_level(Level level) noexcept { level_.store(level, std::memory_order_relaxed); }
    [[nodiscard]] bool enabled(Level level) const noexcept { return level >= level_.load(std::memory_order_relaxed); }
    void write(Level level, std::string message, Fields fields = {});
    void debug(std::string message, Fields fields = {}) { write(Level::debug, std::move(message), std::move(fields)); }
    void info(std::string message, Fields fields = {}) { write(Level::info, std::move(message), std::move(fields)); }
    void warn(std::string message, Fields fields = {}) { write(Level::warn, std::move(message), std::move(fields)); }
    void error(std::string message, Fields fields = {}) { write(Level::error, std::move(message), std::move(fields)); }

    // Records lost because the queue was full, since the start.
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_.load(std::memory_order_relaxed); }
    // Waits, at most `limit`, until everything logged so far is written. Not for the loop thread while it serves.
    void flush(std::chrono::milliseconds limit = std::chrono::seconds{2});

    static constexpr std::size_t queue_limit = 4096;

private:
    void run();

    std::atomic<Level> level_;
    std::vector<std::unique_ptr<LogSink>> sinks_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable idle_;
    std::deque<Record> queue_;
    bool writing_ = false;
    bool stop_ = false;
    std::atomic<std::uint64_t> dropped_{0};
    std::thread writer_;
};

}  // namespace ghost::base
