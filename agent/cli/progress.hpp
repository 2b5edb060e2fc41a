// How far an operation is: one line on a terminal, redrawn in place. No I/O.
#pragma once

#include <boost/json/object.hpp>

#include <chrono>
#include <string>
#include <string_view>

namespace ghost::cli {

// An object with an id, a kind and a state.
[[nodiscard]] bool is_operation(const boost::json::object& document);
// succeeded, failed or cancelled.
[[nodiscard]] bool is_finished(const boost::json::object& operation);

// "image 45% 1.2 GiB of 2.7 GiB, 35 MiB/s, 43s left", as far as it is known.
[[nodiscard]] std::string progress_text(const boost::json::object& operation);

// "VM web: image [#####---------] 45%  1.2 GiB of 2.7 GiB  35 MiB/s  43s left", at most `columns` wide, printable.
// Without a percentage: a bar is left out and the elapsed time shown.
[[nodiscard]] std::string progress_line(std::string_view subject, const boost::json::object& operation,
                                        std::chrono::seconds elapsed, std::size_t columns);

}  // namespace ghost::cli
