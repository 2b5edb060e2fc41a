// How long the journal takes for a commit, beside what the disk itself needs for 4 KiB.
//
// Usage: bench_journal [DIRECTORY [SECONDS]]; makes and removes a folder in DIRECTORY (the present one).
#include "base/descriptor.hpp"
#include "storage/sqlite_store.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <fmt/core.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace ghost;

namespace {

using Time = std::chrono::steady_clock;

constexpr int in_parallel = 20;

struct Measured {
    std::vector<double> milliseconds;
    Time::time_point start = Time::now();
    Time::time_point end;

    void add(Time::time_point since) {
        milliseconds.push_back(std::chrono::duration<double, std::milli>(Time::now() - since).count());
    }
    void print(const char* what) {
        end = Time::now();
        std::ranges::sort(milliseconds);
        const auto at = [&](std::size_t percent) { return milliseconds[(milliseconds.size() - 1) * percent / 100]; };
        fmt::print("{:<28} p50 {:7.3f} ms  p99 {:7.3f} ms  {:8.0f}/s\n", what, at(50), at(99),
                   static_cast<double>(milliseconds.size()) / std::chrono::duration<double>(end - start).count());
    }
};

void write_raw(const std::string& path, Time::duration span) {
    const base::Descriptor file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    const std::string bytes(4096, 'x');
    // Written before, as the log mostly is: its size need not be synced.
    constexpr off_t blocks = 1000;
    if (!file || ::posix_fallocate(file.get(), 0, blocks * 4096) != 0) throw std::runtime_error{"cannot write " + path};
    for (off_t i = 0; i < blocks; ++i)
        if (::pwrite(file.get(), bytes.data(), bytes.size(), i * 4096) < 0) throw std::runtime_error{"cannot write"};
    ::fsync(file.get());
    Measured measured;
    for (off_t i = 0; Time::now() - measured.start < span; ++i) {
        const auto since = Time::now();
        if (::pwrite(file.get(), bytes.data(), bytes.size(), i % blocks * 4096) < 0 || ::fdatasync(file.get()) != 0)
            throw std::runtime_error{"cannot write " + path};
        measured.add(since);
    }
    measured.print("write + fdatasync of 4 KiB");
}

// An operation's row rewritten, as a step of it is journalled.
boost::asio::awaitable<void> journal(storage::StateStore& store, int number, Time::duration span, Measured& measured) {
    const auto id = fmt::format("operation-{:04}", number);
    const std::string document(600, 'x');
    for (int i = 0; Time::now() - measured.start < span; ++i) {
        const auto since = Time::now();
        storage::Changes changes;
        changes.emplace_back(storage::OperationRow{id, "running", i, std::nullopt, document});
        if (const auto done = co_await store.commit(std::move(changes)); !done)
            throw std::runtime_error{done.error().detail};
        measured.add(since);
    }
}

void run(storage::StateStore& store, int parallel, Time::duration span, const char* what) {
    boost::asio::io_context loop{1};
    Measured measured;
    for (int i = 0; i < parallel; ++i)
        boost::asio::co_spawn(loop, journal(store, i, span, measured), [](const std::exception_ptr& fault) {
            if (fault) std::rethrow_exception(fault);
        });
    loop.run();
    measured.print(what);
}

void measure(const std::string& folder, Time::duration span) {
    write_raw(folder + "/raw", span);
    base::Log log;
    auto store = storage::open_sqlite_store(folder + "/state.db", log);
    if (!store) throw std::runtime_error{store.error().detail};
    run(**store, 1, span, "one commit at a time");
    run(**store, in_parallel, span, "20 in parallel");
}

}  // namespace

int main(int argc, char** argv) {
    auto folder = std::string{argc > 1 ? argv[1] : "."} + "/bench-journal-XXXXXX";
    if (::mkdtemp(folder.data()) == nullptr) return EXIT_FAILURE;
    int code = EXIT_SUCCESS;
    try {
        measure(folder, std::chrono::seconds{argc > 2 ? std::stoi(argv[2]) : 3});
    } catch (const std::exception& fault) {
        fmt::print(stderr, "{}\n", fault.what());
        code = EXIT_FAILURE;
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return code;
}
