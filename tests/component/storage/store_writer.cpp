// store_writer FILE [copy]: commits one VM row after another and says so on standard output, until it is killed; with
// `copy` it also makes a good copy after each, and says "copied".
#include "storage/sqlite_store.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <fmt/core.h>

#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <string>

using namespace ghost;

namespace {

boost::asio::awaitable<void> write_rows(storage::StateStore& store, bool copy) {
    const auto say = [](const std::string& line) {
        return ::write(STDOUT_FILENO, line.data(), line.size()) == static_cast<ssize_t>(line.size());
    };
    for (int i = 0;; ++i) {
        const auto id = fmt::format("vm-{:06}", i);
        storage::Changes changes;
        changes.emplace_back(storage::VmRow{id, id, std::string(500, 'x')});
        changes.emplace_back(storage::OperationRow{"op-" + id, "succeeded", i, i, "{}"});
        const auto done = co_await store.commit(std::move(changes));
        if (!done) {
            fmt::print(stderr, "{}\n", done.error().detail);
            co_return;
        }
        if (!say(id + "\n")) co_return;
        if (!copy) continue;
        if (const auto copied = co_await store.back_up(); !copied) {
            fmt::print(stderr, "{}\n", copied.error().detail);
            co_return;
        }
        if (!say("copied\n")) co_return;
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2 && argc != 3) return EXIT_FAILURE;
    base::Log log;
    auto store = storage::open_sqlite_store(argv[1], log);
    if (!store) {
        fmt::print(stderr, "{}\n", store.error().detail);
        return EXIT_FAILURE;
    }
    boost::asio::io_context context{1};
    boost::asio::co_spawn(context, write_rows(**store, argc == 3), [](std::exception_ptr) {});
    context.run();
    store->reset();
    return EXIT_FAILURE;
}
