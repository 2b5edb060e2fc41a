#include "agent/cli/vm_watch.hpp"

#include "agent/cli/json_access.hpp"
#include "agent/cli/output.hpp"
#include "agent/cli/text.hpp"
#include "agent/cli/views.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

namespace ghost::cli {
namespace json = boost::json;
namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        lines.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
}

bool looks_same(const json::object& a, const json::object& b, base::Wall now) {
    return vm_table({a}, now) == vm_table({b}, now);
}

}  // namespace

std::string on_screen(std::string_view table, Screen screen) {
    const auto lines = lines_of(table);
    const auto room = std::max<std::size_t>(screen.rows, 3) - 1;  // the cursor's line stays free
    const auto shown = lines.size() <= room ? lines.size() : room - 1;
    // Each line is erased before it is written: after its last column a terminal would erase that.
    std::string out = "\x1b[H";
    for (std::size_t i = 0; i < shown; ++i) out += fmt::format("\x1b[K{}\n", fitting(lines[i], screen.columns));
    if (shown < lines.size()) out += fmt::format("\x1b[K... and {} more\n", lines.size() - shown);
    return out + "\x1b[J";
}

VmWatch::VmWatch(const VmFilter& filter, Format format, const base::Clock& clock, Console& console)
    : filter_(filter), format_(format), clock_(clock), console_(console) {}

std::string VmWatch::table() const {
    json::array all;
    for (const auto& [id, vm] : vms_) all.push_back(vm);
    return vm_table(all, clock_.wall());
}

void VmWatch::draw() {
    if (const auto screen = console_.screen()) console_.out(on_screen(table(), *screen));
}

void VmWatch::list(const json::array& vms) {
    const bool first = !std::exchange(listed_, true);
    std::set<std::string, std::less<>> there;
    for (const auto& item : vms) {
        if (!item.is_object()) continue;
        const auto id = text_at(item.get_object(), "id");
        there.insert(id);
        if (first && format_ == Format::table)
            vms_[id] = item.get_object();
        else
            put(item.get_object());
    }
    std::vector<std::string> missing;
    for (const auto& [id, vm] : vms_)
        if (!there.contains(id)) missing.push_back(id);
    for (const auto& id : missing) remove(id);
    if (draws()) {
        draw();
    } else if (first && format_ == Format::table) {
        console_.out(table());
        headed_ = !vms_.empty();
    }
}

void VmWatch::take(const json::object& event) {
    const auto type = text_at(event, "type");
    if (!type.starts_with("vm.") || type == "vm.guest_access") return;
    const auto& vm = part(event, "data");
    if (type == "vm.deleted")
        remove(text_at(vm, "id"));
    else
        put(vm);
}

bool VmWatch::settle() {
    if (draws()) draw();
    return console_.has_reader();
}

void VmWatch::put(const json::object& vm) {
    const auto id = text_at(vm, "id");
    const auto known = vms_.find(id);
    const bool fits = filter_.accepts(vm);
    if (!fits && known == vms_.end()) return;
    const auto before = known == vms_.end() ? json::object{} : known->second;
    vms_[id] = vm;
    show(id, before.empty() ? nullptr : &before);
    if (!fits) vms_.erase(id);
}

void VmWatch::remove(const std::string& id) {
    const auto known = vms_.find(id);
    if (known == vms_.end()) return;
    known->second = {{"id", id}, {"name", text_at(known->second, "name")}, {"status", {{"phase", "deleted"}}}};
    show(id, nullptr);
    vms_.erase(id);
}

void VmWatch::show(const std::string& id, const json::object* before) {
    if (format_ != Format::table)
        console_.out(render_next(vms_.at(id), View::vm, format_));
    else if (!draws())
        show_row(id, before);
}

// The row as the whole table would show it, so that it stands beneath the others.
void VmWatch::show_row(const std::string& id, const json::object* before) {
    const auto place = vms_.find(id);
    if (before != nullptr && looks_same(*before, place->second, clock_.wall())) return;
    const auto text = table();
    const auto lines = lines_of(text);
    const auto row = 1 + static_cast<std::size_t>(std::distance(vms_.begin(), place));
    if (!std::exchange(headed_, true)) console_.out(fmt::format("{}\n", lines.front()));
    console_.out(fmt::format("{}\n", lines.at(row)));
}

}  // namespace ghost::cli
