#include "base/log.hpp"

#include <fmt/format.h>
#include <systemd/sd-journal.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <syslog.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace ghost::base {
namespace {

namespace fs = std::filesystem;

// What a pipe takes in one piece once poll() says it is writable.
constexpr std::size_t chunk = 4096;
constexpr int stall_limit_ms = 1000;

class StreamSink final : public LogSink {
public:
    StreamSink(int fd, LogFormat format) : fd_(fd), format_(format) {}

    void write(const Record& record) override {
        if (lost_ != 0) tell_lost(record.time);
        if (!put(format_record(record, format_) + '\n')) ++lost_;
    }
    void flush() override {}

private:
    void tell_lost(Wall time) {
        const Record note{time, Level::warn, "log lines left out: the reader had stalled", {{"dropped", lost_}}};
        if (put((torn_ ? "\n" : "") + format_record(note, format_) + '\n')) lost_ = 0;
    }

    // False when the reader didn't take it all. Waits only as long as it is not known to have stalled.
    bool put(std::string_view line) {
        torn_ = false;
        for (std::size_t done = 0; done < line.size();) {
            pollfd ready{fd_, POLLOUT, 0};
            const int polled = ::poll(&ready, 1, stalled_ ? 0 : stall_limit_ms);
            if (polled < 0 && errno == EINTR) continue;
            stalled_ = polled <= 0;
            const auto part = line.substr(done, chunk);
            const auto put_now = stalled_ ? -1 : ::write(fd_, part.data(), part.size());
            if (put_now < 0 && !stalled_ && errno == EINTR) continue;
            if (put_now < 0) {
                torn_ = done > 0;
                return false;
            }
            done += static_cast<std::size_t>(put_now);
        }
        return true;
    }

    int fd_;
    LogFormat format_;
    bool stalled_ = false;
    bool torn_ = false;  // the last line stopped in its middle
    std::uint64_t lost_ = 0;
};

class FileSink final : public LogSink {
public:
    FileSink(std::string path, LogFormat format, std::uint64_t max_bytes, std::chrono::hours max_age)
        : path_(std::move(path)), format_(format), max_bytes_(max_bytes), max_age_(max_age) {
        if (!open()) throw std::system_error{errno, std::system_category(), "cannot open log file " + path_};
        delete_old();
    }
    ~FileSink() override { close(); }
    FileSink(const FileSink&) = delete;
    FileSink& operator=(const FileSink&) = delete;

    void write(const Record& record) override {
        const auto line = format_record(record, format_) + '\n';
        if (size_ != 0 && size_ + line.size() > max_bytes_) rotate();
        if (fd_ < 0 && !open()) return;
        for (std::size_t done = 0; done < line.size();) {
            const auto put = ::write(fd_, line.data() + done, line.size() - done);
            if (put < 0 && errno == EINTR) continue;
            if (put <= 0) return;  // a full disk: there is nowhere to say so
            done += static_cast<std::size_t>(put);
            size_ += static_cast<std::uint64_t>(put);
        }
    }

    void flush() override {
        struct stat ours{};
        struct stat named{};
        const bool moved =
            fd_ >= 0 && ::fstat(fd_, &ours) == 0 &&
            (::stat(path_.c_str(), &named) != 0 || ours.st_ino != named.st_ino || ours.st_dev != named.st_dev);
        if (moved) close();
        if (std::chrono::steady_clock::now() - cleaned_ > std::chrono::hours{1}) delete_old();
    }

private:
    static constexpr int keep = 10;

    [[nodiscard]] std::string rotated(int number) const { return path_ + '.' + std::to_string(number); }

    bool open() {
        fd_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
        if (fd_ < 0) return false;
        struct stat status{};
        size_ = ::fstat(fd_, &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
        return true;
    }

    void close() {
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1;
        size_ = 0;
    }

    // When a rename fails, the file at hand goes on being written: a log too long beats a log that is lost.
    void rotate() {
        for (int number = keep; number > 1; --number)
            static_cast<void>(std::rename(rotated(number - 1).c_str(), rotated(number).c_str()));
        if (std::rename(path_.c_str(), rotated(1).c_str()) == 0) close();
        delete_old();
    }

    void delete_old() {
        cleaned_ = std::chrono::steady_clock::now();
        std::error_code ignored;
        for (int number = 1; number <= keep; ++number) {
            struct stat status{};
            if (::stat(rotated(number).c_str(), &status) != 0) continue;
            const auto modified = std::chrono::system_clock::from_time_t(status.st_mtime);
            if (std::chrono::system_clock::now() - modified > max_age_) fs::remove(rotated(number), ignored);
        }
    }

    std::string path_;
    LogFormat format_;
    std::uint64_t max_bytes_;
    std::chrono::hours max_age_;
    int fd_ = -1;
    std::uint64_t size_ = 0;
    std::chrono::steady_clock::time_point cleaned_;
};

class JournalSink final : public LogSink {
public:
    void write(const Record& record) override {
        std::vector<std::string> entry{"MESSAGE=" + message_with_fields(record),
                                       "PRIORITY=" + std::to_string(priority(record.level)),
                                       "SYSLOG_IDENTIFIER=ghost-agent"};
        for (const auto& field : record.fields) entry.push_back(variable(field.key) + '=' + field.value);
        std::vector<iovec> parts;
        parts.reserve(entry.size());
        for (auto& text : entry) parts.push_back({text.data(), text.size()});
        static_cast<void>(::sd_journal_sendv(parts.data(), static_cast<int>(parts.size())));
    }
    void flush() override {}

private:
    static int priority(Level level) {
        switch (level) {
            case Level::debug: return LOG_DEBUG;
            case Level::info: return LOG_INFO;
            case Level::warn: return LOG_WARNING;
            case Level::error: return LOG_ERR;
        }
        return LOG_ERR;
    }

    // Names of journal fields are at most 64 of A-Z, 0-9 and underscore.
    static std::string variable(std::string_view key) {
        std::string name = "GHOST_";
        for (const char c : key.substr(0, 58)) {
            if (c >= 'a' && c <= 'z')
                name += static_cast<char>(c - 'a' + 'A');
            else
                name += (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '_';
        }
        return name;
    }
};

}  // namespace

std::unique_ptr<LogSink> make_stream_sink(int fd, LogFormat format) { return std::make_unique<StreamSink>(fd, format); }

std::unique_ptr<LogSink> make_file_sink(std::string path, LogFormat format, std::uint64_t max_bytes,
                                        std::chrono::hours max_age) {
    return std::make_unique<FileSink>(std::move(path), format, max_bytes, max_age);
}

std::unique_ptr<LogSink> make_journal_sink() { return std::make_unique<JournalSink>(); }

bool stderr_is_journal() {
    const char* const stream = std::getenv("JOURNAL_STREAM");  // NOLINT(concurrency-mt-unsafe): nobody calls setenv
    struct stat status{};
    if (stream == nullptr || ::fstat(STDERR_FILENO, &status) != 0) return false;
    return fmt::format("{}:{}", status.st_dev, status.st_ino) == stream;
}

}  // namespace ghost::base
