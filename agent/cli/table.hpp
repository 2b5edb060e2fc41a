// Columns for people.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ghost::cli {

// Left-aligned columns two blanks apart; the last is not padded. Cells are made printable; an empty one shows "-".
class Table {
public:
    explicit Table(std::vector<std::string> headings);
    void add(std::vector<std::string> cells);  // as many as there are headings
    [[nodiscard]] std::string text(std::string_view indent = "") const;

private:
    std::vector<std::vector<std::string>> rows_;
};

// "Name:      value" lines, the values aligned. Values are made printable.
class Page {
public:
    // Leaves the line out when `value` is empty.
    void add(std::string label, std::string_view value);
    [[nodiscard]] std::string text() const;

private:
    std::vector<std::pair<std::string, std::string>> lines_;
};

}  // namespace ghost::cli
