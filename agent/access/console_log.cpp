#include "agent/access/console_log.hpp"

#include <utility>

namespace ghost::agent {

boost::asio::awaitable<base::Result<std::string>> read_console_log(storage::Files& files, std::string path,
                                                                   std::size_t bytes) {
    auto text = co_await files.read_tail(path, bytes);
    if (!text && text.error().code != base::Errc::not_found) co_return text;
    const auto missing = bytes - (text ? text->size() : 0);
    if (text && missing == 0) co_return text;
    auto older = co_await files.read_tail(path + ".0", missing);
    if (!text) co_return older;
    if (older) text->insert(0, *older);
    co_return text;
}

}  // namespace ghost::agent
