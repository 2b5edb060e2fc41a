#include "storage/boot_id.hpp"

namespace ghost::storage {
namespace {

constexpr const char* file = "/proc/sys/kernel/random/boot_id";

}  // namespace

boost::asio::awaitable<base::Result<std::string>> boot_id(Files& files) {
    const auto text = co_await files.read(file, 64);
    if (!text) co_return base::fail(text.error());
    auto id = text->substr(0, text->find('\n'));
    if (id.empty()) co_return base::fail(base::Errc::io_error, std::string{file} + " is empty");
    co_return id;
}

}  // namespace ghost::storage
