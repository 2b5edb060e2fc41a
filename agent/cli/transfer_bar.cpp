#include "agent/cli/transfer_bar.hpp"

#include "agent/cli/progress.hpp"

#include <boost/json/object.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::cli {
namespace json = boost::json;

void TransferBar::add(std::uint64_t bytes) {
    bytes_ += bytes;
    const auto now = clock_.now();
    if (now - drawn_ < pause) return;
    const auto columns = console_.progress_columns();
    if (!columns) return;
    drawn_ = now;
    const auto elapsed = std::chrono::duration<double>(now - began_).count();
    const auto rate = static_cast<double>(bytes_) / std::max(elapsed, 0.001);
    json::object progress{{"phase", "copying"}, {"unit", "bytes"}, {"done", bytes_}, {"rate", rate}};
    if (total_) {
        progress["total"] = *total_;
        progress["eta_s"] = static_cast<double>(*total_ - std::min(*total_, bytes_)) / std::max(rate, 1.0);
    }
    const json::object copy{{"state", "running"}, {"progress", std::move(progress)}};
    console_.error(fmt::format(
        "\r\x1b[K{}",
        progress_line(subject_, copy, std::chrono::duration_cast<std::chrono::seconds>(now - began_), *columns)));
    visible_ = true;
}

void TransferBar::erase() {
    if (std::exchange(visible_, false)) console_.error("\r\x1b[K");
}

}  // namespace ghost::cli
