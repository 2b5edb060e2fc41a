// store_writer FILE: commits one VM row after another and says so on standard output, until it is killed.
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

boost::asio::awaitable<void> write_rows(storage::StateStore& store) {
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
        const auto line = id + "\n";
        if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) co_return;
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return EXIT_FAILURE;
    base::Log log;
    auto store = storage::open_sqlite_store(argv[1], log);
    if (!store) {
        fmt::print(stderr, "{}\n", store.error().detail);
        return EXIT_FAILURE;
    }
    boost::asio::io_context context{1};
    boost::asio::co_spawn(context, write_rows(**store), [](std::exception_ptr) {});
    context.run();
    store->reset();
    return EXIT_FAILURE;
}
