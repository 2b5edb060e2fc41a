// What a VM's console said, as the hypervisor logs it.
#pragma once

#include "base/error.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstddef>
#include <string>

namespace ghost::agent {

// The last `bytes` of the log at `path`, going on in the file that was turned over last, `path`.0, where the log is
// shorter. Errors: those of Files; not_found when there is no log.
[[nodiscard]] boost::asio::awaitable<base::Result<std::string>> read_console_log(storage::Files& files,
                                                                                 std::string path, std::size_t bytes);

}  // namespace ghost::agent
