// Which boot of the host this is.
#pragma once

#include "base/error.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <string>

namespace ghost::storage {

// As the kernel names it, never empty. Errors: those of Files; io_error: there is none.
[[nodiscard]] boost::asio::awaitable<base::Result<std::string>> boot_id(Files& files);

}  // namespace ghost::storage
