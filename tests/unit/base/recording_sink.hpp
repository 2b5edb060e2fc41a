// A sink that keeps what it was given, and can be held up.
#pragma once

#include "base/log.hpp"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace ghost::test {

// Shared with the writer thread. Must outlive the log.
class Recorded {
public:
    [[nodiscard]] std::vector<base::Record> records() const {
        const std::lock_guard lock{mutex_};
        return records_;
    }
    [[nodiscard]] std::vector<std::string> messages() const {
        std::vector<std::string> all;
        for (const auto& record : records()) all.push_back(record.message);
        return all;
    }
    // From now on the writer waits inside its next write; `release` lets it go on.
    void hold() {
        const std::lock_guard lock{mutex_};
        held_ = true;
    }
    void release() {
        {
            const std::lock_guard lock{mutex_};
            held_ = false;
        }
        changed_.notify_all();
    }
    // Waits until the writer stands in a held write.
    void wait_until_stuck() {
        std::unique_lock lock{mutex_};
        changed_.wait(lock, [this] { return stuck_; });
    }

    void add(const base::Record& record) {
        std::unique_lock lock{mutex_};
        stuck_ = held_;
        changed_.notify_all();
        changed_.wait(lock, [this] { return !held_; });
        stuck_ = false;
        records_.push_back(record);
    }

private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<base::Record> records_;
    bool held_ = false;
    bool stuck_ = false;
};

class RecordingSink final : public base::LogSink {
public:
    explicit RecordingSink(Recorded& recorded) : recorded_(recorded) {}
    void write(const base::Record& record) override { recorded_.add(record); }
    void flush() override {}

private:
    Recorded& recorded_;
};

[[nodiscard]] inline base::Log recording_log(Recorded& recorded, base::Level level = base::Level::debug) {
    std::vector<std::unique_ptr<base::LogSink>> sinks;
    sinks.push_back(std::make_unique<RecordingSink>(recorded));
    return base::Log{level, std::move(sinks)};
}

}  // namespace ghost::test
