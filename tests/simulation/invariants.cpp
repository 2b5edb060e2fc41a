#include "simulation/invariants.hpp"

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <set>
#include <string_view>

namespace ghost::simulation {
namespace json = boost::json;
namespace {

std::string text(const json::value& value, std::string_view member) {
    const auto* const found = value.as_object().if_contains(member);
    return found != nullptr && found->is_string() ? std::string{found->get_string()} : std::string{};
}

}  // namespace

Inspection::Inspection(const Scene& scene) : s_(scene), trace_(scene.machine.trace) {}

json::array Inspection::list(const std::string& what) {
    const auto answer = s_.machine.get("/v1/" + what + "?limit=1000");
    if (answer && answer->status == 200) return json::parse(answer->body).at("items").as_array();
    trace_.violated("/v1/{} can't be listed when all is quiet", what);
    return {};
}

void Inspection::run() {
    vms_ = list("vms");
    operations_ = list("operations");
    images_ = list("images");
    for (const auto& item : operations_) {
        by_id_[text(item, "id")] = &item.as_object();
        const auto [at, first] = by_request_.emplace(text(item, "request_id"), &item.as_object());
        // What ran before a boot of the host is started by the agent itself.
        if (!first && at->first != "host-boot") trace_.violated("request {} began two operations", at->first);
    }
    operations_have_ended();
    requests_were_done_once();
    creates_and_deletes_are_whole();
    vms_are_as_the_hypervisor_says();
    wanted_power_was_asked_for();
    files_have_owners();
    memory_is_at_rest();
    database_is_as_memory();
    commands_were_done_once();
    core_sees_what_is();
    facts_tell_what_happened();
    readers_know_all();
    errors_are_explained();
}

void Inspection::readers_know_all() {
    for (const auto& reader : s_.readers) {
        std::set<std::string> seen;
        for (const auto& item : vms_) {
            const auto id = text(item, "id");
            seen.insert(id);
            const auto known = reader.vms().find(id);
            const auto now = steady(item);
            if (known == reader.vms().end())
                trace_.violated("reader {} wasn't told of VM {}", reader.number(), id);
            else if (known->second != now)
                trace_.violated("reader {} knows VM {} as\n{}\nand it is\n{}", reader.number(), id,
                                json::serialize(known->second), json::serialize(now));
        }
        for (const auto& [id, vm] : reader.vms())
            if (!seen.contains(id)) trace_.violated("reader {} wasn't told that VM {} is gone", reader.number(), id);
        for (const auto& item : operations_) {
            const auto known = reader.operations().find(text(item, "id"));
            if (known == reader.operations().end() || known->second != text(item, "state"))
                trace_.violated("reader {} takes operation {} for {}, and it is {}", reader.number(), text(item, "id"),
                                known == reader.operations().end() ? "nothing" : known->second, text(item, "state"));
        }
        std::map<std::string, std::string> images;
        for (const auto& item : images_) images[text(item, "name")] = text(item, "state");
        if (images != reader.images()) trace_.violated("reader {} knows other images", reader.number());
    }
}

void Inspection::errors_are_explained() {
    const auto& faults = s_.faults;
    for (const auto& line : s_.machine.errors) {
        const bool of_database = line.starts_with("an operation's end can't be journalled") ||
                                 line.starts_with("events can't be written") ||
                                 line.starts_with("a recognised VM can't be written down") ||
                                 line.starts_with("the host's boot id can't be kept") ||
                                 line.starts_with("what Ghost Core said can't be kept");
        const bool of_certificate = line.starts_with("what Ghost Core certified can't be used or kept");
        const bool of_host_boot = line.starts_with("a VM that ran before the host's boot can't be started");
        if (of_host_boot) continue;  // its network or its room may be taken
        const bool of_undo =
            line.starts_with("a step can't be undone") || line.starts_with("a leftover domain can't be taken away");
        if (of_database && faults.of_database()) continue;
        if (of_undo && (faults.of_calls() || faults.of_files())) continue;
        if (of_certificate && faults.of_files()) continue;
        trace_.violated("logged as an error: {}", line);
    }
}

}  // namespace ghost::simulation
