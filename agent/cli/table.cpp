#include "agent/cli/table.hpp"

#include "agent/cli/text.hpp"

#include <algorithm>
#include <cassert>

namespace ghost::cli {

Table::Table(std::vector<std::string> headings) { rows_.push_back(std::move(headings)); }

void Table::add(std::vector<std::string> cells) {
    assert(cells.size() == rows_.front().size());
    for (auto& cell : cells) cell = cell.empty() ? "-" : printable(cell);
    rows_.push_back(std::move(cells));
}

std::string Table::text(std::string_view indent) const {
    std::vector<std::size_t> widths(rows_.front().size(), 0);
    for (const auto& row : rows_)
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
    std::string out;
    for (const auto& row : rows_) {
        out += indent;
        for (std::size_t i = 0; i < row.size(); ++i) {
            out += row[i];
            if (i + 1 < row.size()) out.append(widths[i] - columns_of(row[i]) + 2, ' ');
        }
        out += '\n';
    }
    return out;
}

void Page::add(std::string label, std::string_view value) {
    if (!value.empty()) lines_.emplace_back(std::move(label) + ":", printable(value));
}

std::string Page::text() const {
    std::size_t width = 0;
    for (const auto& [label, value] : lines_) width = std::max(width, label.size());
    std::string out;
    for (const auto& [label, value] : lines_) {
        out += label;
        out.append(width - label.size() + 2, ' ');
        out += value;
        out += '\n';
    }
    return out;
}

}  // namespace ghost::cli
