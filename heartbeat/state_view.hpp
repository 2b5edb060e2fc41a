// What Ghost Core is told of this node's VMs and resources, numbered, so that
// only what it hasn't acknowledged travels. No I/O.
#pragma once

#include <boost/json/object.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace ghost::heartbeat {

class StateView {
public:
    // Each answers whether that is news worth telling soon.
    bool put_vm(std::string_view id, boost::json::object vm);
    bool remove_vm(std::string_view id);
    // As GET /v1/resources answers. Load, pressure and free disk drift all the time: a drift that matters travels with
    // the next beat, whenever that is; what VMs and owner were given is news.
    bool set_resources(boost::json::object resources);

    // Of all that was put, removed and set.
    [[nodiscard]] std::uint64_t rev() const noexcept { return rev_; }
    // What Core has of it.
    [[nodiscard]] std::uint64_t acked() const noexcept { return acked_; }
    [[nodiscard]] bool wants_full() const noexcept { return full_since_.has_value(); }

    // {"full", "vms": {"upsert": [...], "remove": [...]}, "resources"?}; nullopt: Core has it all.
    [[nodiscard]] std::optional<boost::json::object> delta() const;

    // Core has everything up to `rev`; `full`: that of a beat that told everything. One that is above ours, or below
    // what it once had: Core lost something, and is told everything.
    void ack(std::uint64_t rev, bool full);
    void want_full() noexcept { full_since_ = rev_; }
    // Of a new session: Core knows nothing.
    void start_over() noexcept;

    [[nodiscard]] const std::map<std::string, boost::json::object, std::less<>>& vms() const noexcept { return vms_; }

    static constexpr std::size_t max_removed = 10'000;  // that Core wasn't told yet; more: everything is told

private:
    std::uint64_t rev_ = 0;
    std::uint64_t acked_ = 0;
    std::optional<std::uint64_t> full_since_ = 0;  // everything is to be told, as it is at this rev or later
    std::map<std::string, boost::json::object, std::less<>> vms_;
    std::map<std::string, std::uint64_t, std::less<>> changed_;  // VM -> rev of its last change; not what Core has
    std::map<std::string, std::uint64_t, std::less<>> removed_;  // likewise
    boost::json::object resources_;
    std::uint64_t resources_rev_ = 0;
};

}  // namespace ghost::heartbeat
