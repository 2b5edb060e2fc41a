#include "tests/fakes/core_contract.hpp"

#include "base/ids.hpp"
#include "net/text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <initializer_list>
#include <set>
#include <utility>

namespace ghost::fakes {
namespace {

namespace json = boost::json;

constexpr std::uint64_t most = 9'007'199'254'740'991;  // exact in every JSON reader
constexpr std::size_t idle_bytes = 400;

bool digits_at(std::string_view text, std::size_t from, std::size_t count) {
    return text.size() >= from + count &&
           std::ranges::all_of(text.substr(from, count), [](char c) { return c >= '0' && c <= '9'; });
}

int number_at(std::string_view text, std::size_t from, std::size_t count) {
    int value = 0;
    for (const char c : text.substr(from, count)) value = value * 10 + (c - '0');
    return value;
}

bool is_snake(std::string_view text) {
    const auto fits = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
    return !text.empty() && text.size() <= 64 && text[0] >= 'a' && text[0] <= 'z' && std::ranges::all_of(text, fits);
}

bool is_condition_type(std::string_view text) {
    const auto fits = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
    return !text.empty() && text.size() <= 64 && text[0] >= 'A' && text[0] <= 'Z' && std::ranges::all_of(text, fits);
}

// One object. Members that nobody asked for are faults of finish().
class Members {
public:
    Members(const json::value& value, std::string pointer, ContractFaults& faults)
        : object_(value.if_object()), pointer_(std::move(pointer)), faults_(faults) {
        if (object_ == nullptr) faults_.push_back(fmt::format("{}: must be an object", pointer_));
    }

    [[nodiscard]] bool is_object() const { return object_ != nullptr; }
    [[nodiscard]] std::string at(std::string_view key) const { return fmt::format("{}/{}", pointer_, key); }
    void fault(std::string_view key, std::string_view what) { faults_.push_back(fmt::format("{}: {}", at(key), what)); }

    const json::value* may(std::string_view key) {
        asked_.emplace(key);
        return object_ == nullptr ? nullptr : object_->if_contains({key.data(), key.size()});
    }
    const json::value* must(std::string_view key) {
        const auto* value = may(key);
        if (value == nullptr && object_ != nullptr) fault(key, "is missing");
        return value;
    }

    std::string text(std::string_view key, std::size_t min = 1, std::size_t max = 256) {
        return text_of(must(key), key, min, max);
    }
    std::string optional_text(std::string_view key, std::size_t min, std::size_t max) {
        return text_of(may(key), key, min, max);
    }
    template <class Rule>
    std::string fitting(std::string_view key, Rule rule, std::string_view what) {
        auto value = text(key, 0, 1024);
        if (has(key) && !rule(std::string_view{value})) fault(key, what);
        return value;
    }
    std::string id(std::string_view key) { return fitting(key, &is_core_id, "must be 1 to 64 of A-Za-z0-9._-"); }
    std::string optional_id(std::string_view key) { return has(key) ? id(key) : (may(key), std::string{}); }
    std::string uuid(std::string_view key) { return fitting(key, &base::is_uuid, "must be a UUID"); }
    std::string timestamp(std::string_view key) {
        return fitting(
            key, [](std::string_view value) { return read_timestamp(value).has_value(); }, "must be RFC 3339 in UTC");
    }
    std::string one_of(std::string_view key, std::initializer_list<std::string_view> allowed) {
        return fitting(
            key, [allowed](std::string_view value) { return std::ranges::find(allowed, value) != allowed.end(); },
            fmt::format("must be one of {}", fmt::join(allowed, ", ")));
    }
    std::uint64_t integer(std::string_view key, std::uint64_t min = 0, std::uint64_t max = most) {
        const auto* value = must(key);
        if (value == nullptr) return 0;
        std::uint64_t number = 0;
        if (value->is_int64() && value->get_int64() >= 0)
            number = static_cast<std::uint64_t>(value->get_int64());
        else if (value->is_uint64())
            number = value->get_uint64();
        else {
            fault(key, "must be an integer");
            return 0;
        }
        if (number < min || number > max) fault(key, fmt::format("must be from {} to {}", min, max));
        return number;
    }
    bool boolean(std::string_view key) {
        const auto* value = must(key);
        if (value != nullptr && !value->is_bool()) fault(key, "must be true or false");
        return value != nullptr && value->is_bool() && value->get_bool();
    }
    // Calls `each` with every item and its pointer.
    template <class Each>
    void items(std::string_view key, const json::value* value, std::size_t limit, Each each) {
        if (value == nullptr) return;
        if (!value->is_array()) return fault(key, "must be an array");
        const auto& array = value->get_array();
        if (array.size() > limit) return fault(key, fmt::format("has {} items, more than {}", array.size(), limit));
        for (std::size_t i = 0; i < array.size(); ++i) each(array[i], fmt::format("{}/{}", at(key), i));
    }
    std::vector<std::string> texts(std::string_view key, std::size_t limit, std::size_t min, std::size_t max) {
        std::vector<std::string> all;
        items(key, must(key), limit, [&](const json::value& item, const std::string& pointer) {
            if (item.is_string() && item.get_string().size() >= min && item.get_string().size() <= max)
                all.emplace_back(item.get_string());
            else
                faults_.push_back(fmt::format("{}: must be a string of {} to {} bytes", pointer, min, max));
        });
        return all;
    }

    [[nodiscard]] json::object whole() const { return object_ == nullptr ? json::object{} : *object_; }
    [[nodiscard]] bool has(std::string_view key) const {
        return object_ != nullptr && object_->contains({key.data(), key.size()});
    }
    void finish() {
        if (object_ == nullptr) return;
        for (const auto& member : *object_) {
            if (!asked_.contains(std::string_view{member.key().data(), member.key().size()}))
                fault(std::string_view{member.key().data(), member.key().size()}, "is not known");
        }
    }

private:
    std::string text_of(const json::value* value, std::string_view key, std::size_t min, std::size_t max) {
        if (value == nullptr) return {};
        if (!value->is_string()) {
            fault(key, "must be a string");
            return {};
        }
        const auto& text = value->get_string();
        if (text.size() < min || text.size() > max) fault(key, fmt::format("must have {} to {} bytes", min, max));
        return {text.data(), text.size()};
    }

    const json::object* object_;
    std::string pointer_;
    ContractFaults& faults_;
    std::set<std::string, std::less<>> asked_;
};

// Numbers, none below 0. What else stands there is the agent's to add.
void check_numbers(const json::value& value, const std::string& pointer, std::initializer_list<std::string_view> keys,
                   ContractFaults& faults) {
    Members members{value, pointer, faults};
    for (const auto key : keys) {
        const auto* number = members.must(key);
        if (number != nullptr && (!number->is_number() || number->to_number<double>() < 0))
            members.fault(key, "must be a number of at least 0");
    }
}

json::object read_resources(const json::value* value, const std::string& pointer, ContractFaults& faults) {
    if (value == nullptr) return {};
    Members members{*value, pointer, faults};
    for (const auto* key : {"cpus", "memory_mib", "disk_bytes"}) {
        if (const auto* figures = members.must(key))
            check_numbers(*figures, members.at(key), {"total", "reserved", "allocated", "free"}, faults);
    }
    const auto* load = members.may("load");
    if (load != nullptr && !load->is_null()) check_numbers(*load, members.at("load"), {"1m", "5m", "15m"}, faults);
    for (const auto* key : {"pressure", "power"}) {
        const auto* more = members.may(key);
        if (more != nullptr && !more->is_null() && !more->is_object()) members.fault(key, "must be an object or null");
    }
    return members.whole();
}

json::object read_addresses(const json::value* value, const std::string& pointer, ContractFaults& faults) {
    if (value == nullptr) return {};
    Members members{*value, pointer, faults};
    static_cast<void>(members.optional_text("tailscale_ip", 2, 45));
    static_cast<void>(members.texts("local", 64, 2, 45));
    members.finish();
    return members.whole();
}

json::object read_problem(const json::value& value, const std::string& pointer, ContractFaults& faults) {
    Members members{value, pointer, faults};
    static_cast<void>(members.text("title", 0, 1024));
    static_cast<void>(members.text("detail", 0, 64 * 1024));
    static_cast<void>(members.integer("status", 400, 599));
    const auto code = members.fitting("code", &is_snake, "must be in snake_case");
    if (members.is_object() && members.text("type", 0, 1024) != "urn:ghost:problem:" + code)
        members.fault("type", "must be urn:ghost:problem: and the code");
    return members.whole();
}

// The members that acks and facts share.
CoreAck read_outcome(Members& members, std::initializer_list<std::string_view> states, ContractFaults& faults) {
    CoreAck ack{.cmd_id = members.id("cmd_id"),
                .state = members.one_of("state", states),
                .operation = members.optional_id("operation")};
    const bool bad = ack.state == "failed" || ack.state == "rejected";
    if (const auto* problem = members.may("problem")) {
        ack.problem = read_problem(*problem, members.at("problem"), faults);
        if (!bad) members.fault("problem", "goes with failed and rejected");
    } else if (bad) {
        members.fault("problem", "is missing");
    }
    return ack;
}

std::string read_vm(const json::value& value, const std::string& pointer, ContractFaults& faults) {
    Members members{value, pointer, faults};
    auto id = members.uuid("id");
    static_cast<void>(members.text("name", 1, 255));
    static_cast<void>(members.text("owner", 0, 128));
    static_cast<void>(members.integer("generation"));
    static_cast<void>(members.one_of("power", {"running", "off", "paused", "suspended", "crashed", "unknown"}));
    static_cast<void>(members.one_of("phase", {"provisioning", "ready", "deleting", "error"}));
    static_cast<void>(members.texts("addresses", 64, 2, 45));
    static_cast<void>(members.integer("vcpus", 0, 65'536));
    static_cast<void>(members.integer("memory_mib"));
    static_cast<void>(members.integer("disk_gib"));
    members.finish();
    return id;
}

CoreDelta read_delta(const json::value& value, const std::string& pointer, ContractFaults& faults) {
    CoreDelta delta;
    Members members{value, pointer, faults};
    delta.full = members.boolean("full");
    if (const auto* vms = members.must("vms")) {
        Members lists{*vms, members.at("vms"), faults};
        std::set<std::string> seen;
        lists.items("upsert", lists.must("upsert"), 10'000, [&](const json::value& item, const std::string& at) {
            auto id = read_vm(item, at, faults);
            if (!seen.insert(id).second) faults.push_back(fmt::format("{}: stands twice in the delta", at));
            if (const auto* vm = item.if_object()) delta.upsert.insert_or_assign(std::move(id), *vm);
        });
        lists.items("remove", lists.must("remove"), 10'000, [&](const json::value& item, const std::string& at) {
            if (!item.is_string() || !base::is_uuid(item.get_string()))
                return faults.push_back(fmt::format("{}: must be a UUID", at));
            delta.remove.emplace_back(item.get_string());
            if (!seen.insert(delta.remove.back()).second)
                faults.push_back(fmt::format("{}: stands twice in the delta", at));
        });
        lists.finish();
    }
    if (const auto* resources = members.may("resources"))
        delta.resources = read_resources(resources, members.at("resources"), faults);
    members.finish();
    if (delta.full && !delta.resources) members.fault("resources", "is missing in a full delta");
    if (delta.full && !delta.remove.empty()) members.fault("vms/remove", "must be empty in a full delta");
    if (!delta.full && delta.upsert.empty() && delta.remove.empty() && !delta.resources)
        faults.push_back(fmt::format("{}: says nothing", pointer));
    return delta;
}

json::object read_condition(const json::value& value, const std::string& pointer, ContractFaults& faults) {
    Members members{value, pointer, faults};
    static_cast<void>(members.fitting("type", &is_condition_type, "must be in CamelCase"));
    static_cast<void>(members.one_of("status", {"true", "false", "unknown"}));
    static_cast<void>(members.fitting("reason", &is_snake, "must be in snake_case"));
    static_cast<void>(members.optional_text("message", 0, 1024));
    static_cast<void>(members.timestamp("since"));
    members.finish();
    return members.whole();
}

CoreFact read_fact(const json::value& value, const std::string& pointer, ContractFaults& faults) {
    CoreFact fact;
    Members members{value, pointer, faults};
    fact.rev = members.integer("rev", 1);
    fact.at = members.timestamp("at");
    fact.kind = members.one_of("kind", {"vm.created", "vm.deleted", "command.result"});
    fact.told = members.whole();
    if (fact.kind == "command.result") {
        fact.result = read_outcome(members, {"succeeded", "failed", "rejected"}, faults);
    } else if (const auto* vm = members.must("vm")) {
        Members of{*vm, members.at("vm"), faults};
        fact.vm_id = of.uuid("id");
        static_cast<void>(of.text("name", 1, 255));
        static_cast<void>(of.text("owner", 0, 128));
        of.finish();
        static_cast<void>(members.optional_id("operation"));
    }
    members.finish();
    return fact;
}

}  // namespace

CoreEnrolment read_enrolment(const json::value& body, ContractFaults& faults) {
    Members members{body, {}, faults};
    CoreEnrolment enrolment{.token = members.text("token"),
                            .install_id = members.uuid("install_id"),
                            .name = members.text("name"),
                            .csr = members.text("csr", 1, 64 * 1024),
                            .version = members.text("version"),
                            .resources = read_resources(members.must("resources"), "/resources", faults),
                            .addresses = read_addresses(members.must("addresses"), "/addresses", faults)};
    members.finish();
    return enrolment;
}

std::string read_renewal(const json::value& body, ContractFaults& faults) {
    Members members{body, {}, faults};
    auto csr = members.text("csr", 1, 64 * 1024);
    members.finish();
    return csr;
}

CoreSessionBegin read_session_begin(const json::value& body, ContractFaults& faults) {
    Members members{body, {}, faults};
    CoreSessionBegin begin{.epoch = members.integer("epoch", 1),
                           .boot_id = members.text("boot_id"),
                           .name = members.text("name"),
                           .version = members.text("version"),
                           .features = members.texts("features", 64, 1, 256),
                           .resources = read_resources(members.must("resources"), "/resources", faults),
                           .addresses = read_addresses(members.must("addresses"), "/addresses", faults)};
    members.finish();
    return begin;
}

CoreBeat read_beat(const json::value& body, std::size_t bytes, ContractFaults& faults) {
    CoreBeat beat;
    Members members{body, {}, faults};
    beat.session_id = members.id("session_id");
    beat.epoch = members.integer("epoch", 1);
    beat.seq = members.integer("seq", 1);
    beat.reason = members.one_of("reason", {"periodic", "change", "wake", "network", "shutdown", "suspend"});
    beat.wall = read_timestamp(members.timestamp("wall")).value_or(base::Wall{});
    beat.base_rev = members.integer("base_rev");
    beat.state_rev = members.integer("state_rev");
    if (const auto* delta = members.may("delta")) beat.delta = read_delta(*delta, "/delta", faults);
    std::set<std::string> types;
    members.items("conditions", members.may("conditions"), 32, [&](const json::value& item, const std::string& at) {
        beat.conditions.push_back(read_condition(item, at, faults));
        const auto* type = beat.conditions.back().if_contains("type");
        if (type != nullptr && type->is_string() && !types.emplace(type->get_string()).second)
            faults.push_back(fmt::format("{}/type: stands twice", at));
    });
    std::set<std::string> acked;
    members.items("acks", members.may("acks"), 100, [&](const json::value& item, const std::string& at) {
        Members of{item, at, faults};
        beat.acks.push_back(read_outcome(of, {"accepted", "running", "succeeded", "failed", "rejected"}, faults));
        of.finish();
        if (!acked.insert(beat.acks.back().cmd_id).second) faults.push_back(fmt::format("{}/cmd_id: stands twice", at));
    });
    members.finish();
    if (beat.state_rev < beat.base_rev) members.fault("state_rev", "must be at least base_rev");
    if (beat.delta && !beat.delta->full && beat.state_rev == beat.base_rev)
        members.fault("delta", "doesn't go with a state that Core has");
    if (!beat.delta && beat.conditions.empty() && beat.acks.empty() && bytes >= idle_bytes)
        faults.push_back(
            fmt::format(": a beat with nothing to tell has {} bytes, not less than {}", bytes, idle_bytes));
    return beat;
}

CoreFactBatch read_facts(const json::value& body, ContractFaults& faults) {
    CoreFactBatch batch;
    Members members{body, {}, faults};
    batch.session_id = members.id("session_id");
    batch.epoch = members.integer("epoch", 1);
    members.items("items", members.must("items"), 100, [&](const json::value& item, const std::string& at) {
        auto fact = read_fact(item, at, faults);
        if (!batch.items.empty() && fact.rev <= batch.items.back().rev)
            faults.push_back(fmt::format("{}/rev: {} comes after {}", at, fact.rev, batch.items.back().rev));
        batch.items.push_back(std::move(fact));
    });
    if (members.has("items") && batch.items.empty()) members.fault("items", "is empty");
    members.finish();
    return batch;
}

bool is_core_id(std::string_view text) noexcept {
    return net::is_request_id(text);  // the same alphabet and length
}

std::optional<base::Wall> read_timestamp(std::string_view text) {
    using namespace std::chrono;
    constexpr std::string_view form = "0000-00-00T00:00:00";
    if (text.size() <= form.size() || text.back() != 'Z') return std::nullopt;
    for (std::size_t i = 0; i < form.size(); ++i) {
        if (form[i] == '0' ? !digits_at(text, i, 1) : text[i] != form[i]) return std::nullopt;
    }
    const auto fraction = text.substr(form.size(), text.size() - form.size() - 1);
    milliseconds ms{};
    if (!fraction.empty()) {
        if (fraction[0] != '.' || fraction.size() < 2 || fraction.size() > 10 ||
            !digits_at(fraction, 1, fraction.size() - 1))
            return std::nullopt;
        auto thousandths = std::string{fraction.substr(1)} + "00";
        ms = milliseconds{number_at(thousandths, 0, 3)};
    }
    const year_month_day date{year{number_at(text, 0, 4)}, month{static_cast<unsigned>(number_at(text, 5, 2))},
                              day{static_cast<unsigned>(number_at(text, 8, 2))}};
    const hours hour{number_at(text, 11, 2)};
    const minutes minute{number_at(text, 14, 2)};
    const seconds second{number_at(text, 17, 2)};
    if (!date.ok() || hour > hours{23} || minute > minutes{59} || second > seconds{60}) return std::nullopt;
    return base::Wall{sys_days{date} + hour + minute + second + ms};
}

}  // namespace ghost::fakes
