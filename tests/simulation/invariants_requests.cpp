// What was promised to clients.
#include "simulation/invariants.hpp"

#include <boost/json/object.hpp>

#include <algorithm>
#include <set>
#include <string_view>
#include <vector>

namespace ghost::simulation {
namespace json = boost::json;
namespace {

std::string_view text(const json::object& object, std::string_view member) {
    const auto* const found = object.if_contains(member);
    return found != nullptr && found->is_string() ? std::string_view{found->get_string()} : std::string_view{};
}

bool ended_interrupted(const json::object& operation) {
    const auto* const error = operation.if_contains("error");
    return error != nullptr && error->is_object() && text(error->get_object(), "code") == "interrupted";
}

bool is_terminal(std::string_view state) { return state == "succeeded" || state == "failed" || state == "cancelled"; }

}  // namespace

void Inspection::operations_have_ended() {
    for (const auto& [id, operation] : by_id_) {
        s_.told.operation(*operation);
        if (!is_terminal(text(*operation, "state")))
            trace_.violated("operation {} ({}) is {} when all is quiet", id, text(*operation, "kind"),
                            text(*operation, "state"));
    }
    for (const auto& [id, state] : s_.told.ends())
        if (!by_id_.contains(id)) trace_.violated("operation {} was {} and isn't known any more", id, state);
}

void Inspection::requests_were_done_once() {
    for (const auto& ask : s_.clients.asks()) {
        std::vector<const json::object*> begun;
        for (const auto& attempt : ask.tries) {
            const auto found = by_request_.find(attempt.request_id);
            if (found != by_request_.end()) begun.push_back(found->second);
            const bool may_turn_up = s_.faults.of_syncs();
            if (found != by_request_.end() && attempt.refused && !may_turn_up)
                trace_.violated("{} was refused ({}), and operation {} is its", attempt.request_id, attempt.code,
                                text(*found->second, "id"));
            if (attempt.operation.empty()) continue;
            const auto told = by_id_.find(attempt.operation);
            if (told == by_id_.end()) {
                trace_.violated("{} was told of operation {}, which isn't known", attempt.request_id,
                                attempt.operation);
                continue;
            }
            if (ask.what == "cancel") continue;
            const auto its = text(*told->second, "request_id");
            const bool of_this_ask =
                std::ranges::any_of(ask.tries, [&](const Attempt& other) { return other.request_id == its; });
            if (!of_this_ask)
                trace_.violated("{} was told of operation {}, which {} began", attempt.request_id, attempt.operation,
                                its);
        }
        if (ask.what == "cancel" && !begun.empty()) trace_.violated("a cancel began an operation");
        if (ask.dry && !begun.empty()) trace_.violated("a dry run ({}) began an operation", ask.path);
        if (ask.stale && !begun.empty()) trace_.violated("a change of no generation ({}) began", ask.path);
        // Only what the agent's own end took back is begun again.
        const auto final_ones =
            std::ranges::count_if(begun, [](const auto* operation) { return !ended_interrupted(*operation); });
        if (!ask.key.empty() && final_ones > 1)
            trace_.violated("the key {} of {} stands for {} operations", ask.key, ask.who, begun.size());
        for (const auto& attempt : ask.tries)
            if (attempt.status >= 200 && attempt.status < 300 && begun.empty() && ask.what != "cancel" && !ask.dry)
                trace_.violated("{} was answered {}, and there is no operation", attempt.request_id, attempt.status);
    }
}

// Of the operations that may change it, the last one that stands alone decides.
void Inspection::wanted_power_was_asked_for() {
    static const std::set<std::string_view> kinds{"vm.create", "vm.start", "vm.stop", "vm.restart", "vm.update"};
    for (const auto& item : vms_) {
        const auto& vm = item.as_object();
        if (!vm.at("managed").as_bool()) continue;
        // As it was found.
        if (s_.surroundings.defined_by_others(std::string{text(vm, "id")})) continue;
        const auto id = text(vm, "id");
        const auto wanted = text(vm.at("spec").as_object(), "power");
        bool asked_on = false;
        bool asked_off = false;
        for (const auto& ask : s_.clients.asks()) {
            for (const auto& attempt : ask.tries) {
                const auto found = by_request_.find(attempt.request_id);
                if (found == by_request_.end()) continue;
                const auto& operation = *found->second;
                if (text(operation.at("target").as_object(), "id") != id) continue;
                const bool off_in_body = ask.body.find(R"("power":"off")") != std::string::npos;
                const bool on_in_body = ask.body.find(R"("power":"on")") != std::string::npos;
                const auto kind = text(operation, "kind");
                asked_on |=
                    kind == "vm.start" || kind == "vm.restart" || on_in_body || (kind == "vm.create" && !off_in_body);
                asked_off |= kind == "vm.stop" || off_in_body;
            }
        }
        for (const auto& [command, order] : s_.ordering.orders()) {
            const auto found = by_request_.find(command);
            if (found == by_request_.end() || text(found->second->at("target").as_object(), "id") != id) continue;
            asked_on |=
                order.kind == "vm.start" || order.kind == "vm.restart" || (order.kind == "vm.create" && !order.off);
            asked_off |= order.kind == "vm.stop" || order.off;
        }
        if (wanted == "on" ? !asked_on : !asked_off)
            trace_.violated("{} is wanted {}, and nobody asked for it", id, wanted);
    }
}

}  // namespace ghost::simulation
