// What happened in a schedule, and what must not have happened.
#pragma once

#include "base/log.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <utility>

namespace ghost::simulation {

class Trace {
public:
    // Lines are made and kept only when `on`; and printed as they come, so that they are there when the process ends.
    explicit Trace(bool on, bool print = false) : on_(on), print_(print) {}

    template <class... Args>
    void operator()(fmt::format_string<Args...> format, Args&&... args) {
        if (on_) add(fmt::format(format, std::forward<Args>(args)...));
    }
    [[nodiscard]] bool on() const noexcept { return on_; }
    [[nodiscard]] const std::deque<std::string>& lines() const noexcept { return lines_; }
    [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }

    // The first violation is what counts; what follows may follow from it.
    template <class... Args>
    void violated(fmt::format_string<Args...> format, Args&&... args) {
        if (!violation_.empty()) return;
        violation_ = fmt::format(format, std::forward<Args>(args)...);
        operator()("VIOLATED: {}", violation_);
    }
    [[nodiscard]] const std::string& violation() const noexcept { return violation_; }
    [[nodiscard]] bool sound() const noexcept { return violation_.empty(); }

private:
    void add(std::string line) {
        for (const auto c : line) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
        if (print_) fmt::print("{}\n", line), static_cast<void>(std::fflush(stdout));
        lines_.push_back(std::move(line));
    }

    bool on_;
    bool print_;
    std::uint64_t hash_ = 0xcbf29ce484222325ULL;
    std::deque<std::string> lines_;
    std::string violation_;
};

}  // namespace ghost::simulation
