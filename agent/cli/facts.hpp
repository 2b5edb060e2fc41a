// A member of an answer in words.
#pragma once

#include <boost/json/value.hpp>

#include <string>
#include <string_view>

namespace ghost::cli {

// "memory_mib": 4096 as "memory 4 GiB", an object's members after its key: "free: memory 4 GiB, vcpus 2". Holds what
// the agent sent: to be made printable.
[[nodiscard]] std::string fact(std::string_view key, const boost::json::value& value);

}  // namespace ghost::cli
