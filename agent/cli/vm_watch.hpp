// A list of VMs that is kept true: what a list said, and what events have told since.
#pragma once

#include "agent/cli/console.hpp"
#include "agent/cli/event_stream.hpp"
#include "agent/cli/invocation.hpp"
#include "base/clock.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <map>
#include <string>

namespace ghost::cli {

// On a screen it draws the table anew each time something came; elsewhere it writes the rows that look different now,
// and in the formats for scripts each VM that was told of. A VM that no longer fits the filter is shown a last time as
// it is; one that is gone has the phase "deleted".
class VmWatch final : public EventReader {
public:
    // All must outlive it.
    VmWatch(const VmFilter& filter, Format format, const base::Clock& clock, Console& console);

    // The VMs there are, as a list with this filter shows them; also later, when events were missed.
    void list(const boost::json::array& vms);
    void take(const boost::json::object& event) override;
    [[nodiscard]] bool settle() override;

private:
    using Vms = std::map<std::string, boost::json::object>;  // by id, as the agent's lists are

    void put(const boost::json::object& vm);
    void remove(const std::string& id);
    void show(const std::string& id, const boost::json::object* before);
    void show_row(const std::string& id, const boost::json::object* before);
    void draw();
    [[nodiscard]] bool draws() const { return format_ == Format::table && console_.screen().has_value(); }
    [[nodiscard]] std::string table() const;

    const VmFilter& filter_;
    Format format_;
    const base::Clock& clock_;
    Console& console_;
    Vms vms_;
    bool listed_ = false;
    bool headed_ = false;  // the table's headings have been written
};

// A table that fills a screen from its top: lines too long and too many are cut.
[[nodiscard]] std::string on_screen(std::string_view table, Screen screen);

}  // namespace ghost::cli
