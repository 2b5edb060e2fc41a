// The whole agent under a seed, thousands of times.
#include "simulation/schedule.hpp"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

using ghost::simulation::Trace;

constexpr std::size_t shown_lines = 200;

std::uint64_t current_seed = 0;

// An assertion that fails ends the process: say where it was.
void on_abort(int /*signal*/) {
    std::fflush(stdout);
    fmt::print(stderr, "seed {} ended the process\nreplay: simulation --seed {} --trace\n", current_seed, current_seed);
    std::_Exit(1);
}

struct Options {
    std::uint64_t first = 1;
    std::uint64_t count = 2000;
    std::uint64_t seed = 0;
    bool one = false;
    bool trace = false;
};

bool read_options(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view word{argv[i]};
        if (word == "--trace") {
            options.trace = true;
            continue;
        }
        if (i + 1 == argc) return false;
        const auto number = std::strtoull(argv[++i], nullptr, 10);
        if (word == "--seeds")
            options.count = number;
        else if (word == "--first")
            options.first = number;
        else if (word == "--seed")
            options.seed = number, options.one = true;
        else
            return false;
    }
    return true;
}

void print_end(const Trace& trace) {
    const auto& lines = trace.lines();
    for (auto i = lines.size() > shown_lines ? lines.size() - shown_lines : 0; i < lines.size(); ++i)
        fmt::print("{}\n", lines[i]);
}

int replay(std::uint64_t seed, bool whole) {
    Trace trace{true, whole};
    current_seed = seed;
    ghost::simulation::run_schedule(seed, trace);
    if (!whole) print_end(trace);
    fmt::print("seed {}: {} lines, hash {:016x}, {}\n", seed, trace.lines().size(), trace.hash(),
               trace.sound() ? "sound" : "VIOLATED: " + trace.violation());
    return trace.sound() ? 0 : 1;
}

// The same seed must give the same trace, or nothing could be replayed.
bool repeats(std::uint64_t seed) {
    Trace first{true};
    Trace second{true};
    ghost::simulation::run_schedule(seed, first);
    ghost::simulation::run_schedule(seed, second);
    return first.hash() == second.hash() && first.lines().size() == second.lines().size();
}

int run_many(const Options& options) {
    const auto begun = std::chrono::steady_clock::now();
    const auto seconds = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    };
    std::uint64_t failures = 0;
    double told = 0;
    for (std::uint64_t i = 0; i < options.count; ++i) {
        const auto seed = current_seed = options.first + i;
        Trace trace{false};
        ghost::simulation::run_schedule(seed, trace);
        if (!trace.sound()) {
            ++failures;
            fmt::print("seed {} failed: {}\n", seed, trace.violation());
            if (failures == 1) replay(seed, false);
            fmt::print("replay: simulation --seed {} --trace\n", seed);
            std::fflush(stdout);
        }
        if (i % 100 == 0 && !repeats(seed)) {
            ++failures;
            fmt::print("seed {} doesn't repeat\n", seed);
        }
        if (seconds() - told > 10) {
            told = seconds();
            fmt::print("{} of {} schedules, {} failures ({:.0f} s)\n", i + 1, options.count, failures, told);
            std::fflush(stdout);
        }
    }
    fmt::print("{} schedules, {} failures ({:.1f} s)\n", options.count, failures, seconds());
    return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (!read_options(argc, argv, options)) {
        fmt::print(stderr, "usage: simulation [--seeds N] [--first SEED] [--seed SEED [--trace]]\n");
        return 2;
    }
    std::signal(SIGABRT, on_abort);
    std::signal(SIGSEGV, on_abort);
    return options.one ? replay(options.seed, options.trace) : run_many(options);
}
