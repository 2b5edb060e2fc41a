// What is kept beside a .part: <part>.json.
#pragma once

#include "base/clock.hpp"
#include "storage/fetch_plan.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <optional>
#include <string>

namespace ghost::storage {

struct KeptPart {
    PartRecord record;
    std::string boot;  // of the host when it was written: bytes of an earlier one may never have reached the disk
    base::Wall at;
};

// nullopt: there is none, or it can't be understood.
[[nodiscard]] boost::asio::awaitable<std::optional<KeptPart>> read_part_record(Files& files, std::string part);
[[nodiscard]] boost::asio::awaitable<base::Result<void>> write_part_record(Files& files, std::string part,
                                                                           PartRecord record, base::Wall now);
// The .part and what is kept beside it.
[[nodiscard]] boost::asio::awaitable<base::Result<void>> remove_part_files(Files& files, std::string part);

}  // namespace ghost::storage
