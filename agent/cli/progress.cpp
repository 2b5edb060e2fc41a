#include "agent/cli/progress.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

namespace ghost::cli {
namespace json = boost::json;
namespace {

std::optional<double> percent_of(const json::object& progress) {
    auto percent = number_at(progress, "percent");
    if (!percent) {
        const auto done = number_at(progress, "done");
        const auto total = number_at(progress, "total");
        if (done && total && *total > 0) percent = *done / *total * 100;
    }
    return percent && std::isfinite(*percent) ? std::optional{std::clamp(*percent, 0.0, 100.0)} : std::nullopt;
}

// Amount, rate and time left.
std::vector<std::string> figures(const json::object& progress) {
    std::vector<std::string> out;
    const auto unit = text_at(progress, "unit");
    const auto done = number_at(progress, "done");
    const auto total = number_at(progress, "total");
    const auto rate = number_at(progress, "rate");
    if (unit == "bytes" && done) {
        out.push_back(total && *total > 0 ? fmt::format("{} of {}", human_bytes(*done), human_bytes(*total))
                                          : human_bytes(*done));
        if (rate && *rate > 0) out.push_back(fmt::format("{}/s", human_bytes(*rate)));
    } else if (done && total && *total > 0) {
        out.push_back(
            fmt::format("{} of {}{}{}", human_number(*done), human_number(*total), unit.empty() ? "" : " ", unit));
    }
    constexpr double a_week = 7 * 86'400;
    if (const auto eta = number_at(progress, "eta_s"); eta && *eta >= 0 && *eta < a_week)
        out.push_back(fmt::format("{} left", human_seconds(*eta)));
    return out;
}

std::string phase_of(const json::object& operation) {
    if (bool_at(operation, "stalled") == true) return "waiting for the hypervisor";
    auto phase = text_at(operation, "progress", "phase");
    if (phase == "retry") return "waiting to try again";
    return phase.empty() ? text_at(operation, "state") : phase;
}

}  // namespace

bool is_operation(const json::object& document) {
    return !text_at(document, "id").empty() && !text_at(document, "kind").empty() &&
           !text_at(document, "state").empty();
}

bool is_finished(const json::object& operation) {
    const auto state = text_at(operation, "state");
    return state == "succeeded" || state == "failed" || state == "cancelled";
}

std::string progress_text(const json::object& operation) {
    const auto& progress = part(operation, "progress");
    auto out = phase_of(operation);
    if (const auto percent = percent_of(progress)) out += fmt::format(" {:.0f}%", std::floor(*percent));
    if (const auto more = figures(progress); !more.empty()) out += fmt::format(" {}", fmt::join(more, ", "));
    return out;
}

std::string progress_line(std::string_view subject, const json::object& operation, std::chrono::seconds elapsed,
                          std::size_t columns) {
    constexpr std::size_t bar_columns = 24;
    const auto& progress = part(operation, "progress");
    auto line = fmt::format("{}: {}", printable(subject), printable(phase_of(operation)));
    if (const auto percent = percent_of(progress)) {
        const auto full = static_cast<std::size_t>(*percent / 100 * bar_columns);
        line += fmt::format(" [{}{}] {:3.0f}%", std::string(full, '#'), std::string(bar_columns - full, '-'),
                            std::floor(*percent));
    } else {
        line += fmt::format(" {}", human_span(elapsed));
    }
    for (const auto& figure : figures(progress)) {
        const auto part_of_line = fmt::format("  {}", printable(figure));
        if (columns_of(line) + columns_of(part_of_line) > columns) break;  // half a figure misleads
        line += part_of_line;
    }
    if (const auto why = text_at(operation, "error", "detail"); !why.empty())
        line += fmt::format("  ({})", printable(why));
    return std::string{fitting(line, columns)};
}

}  // namespace ghost::cli
