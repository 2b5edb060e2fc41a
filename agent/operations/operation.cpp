#include "agent/operations/operation.hpp"

#include "agent/json_reader.hpp"

#include <boost/json/serialize.hpp>

#include <array>

namespace ghost::agent {
namespace json = boost::json;
namespace {

constexpr std::array<std::string_view, 5> state_names{"pending", "running", "succeeded", "failed", "cancelled"};

json::value optional_time(const std::optional<base::Wall>& time) {
    return time ? json::value(base::to_unix_ms(*time)) : json::value(nullptr);
}

std::string text(const json::object& o, std::string_view key) {
    const auto* v = o.if_contains(key);
    return v != nullptr && v->is_string() ? std::string{v->get_string()} : std::string{};
}

std::optional<base::Wall> time(const json::object& o, std::string_view key) {
    const auto* v = o.if_contains(key);
    return v != nullptr && v->is_int64() ? std::optional{base::from_unix_ms(v->get_int64())} : std::nullopt;
}

bool flag(const json::object& o, std::string_view key) {
    const auto* v = o.if_contains(key);
    return v != nullptr && v->is_bool() && v->get_bool();
}

json::object object(const json::object& o, std::string_view key) {
    const auto* v = o.if_contains(key);
    return v != nullptr && v->is_object() ? v->get_object() : json::object{};
}

}  // namespace

std::string_view name_of(OperationState state) noexcept { return state_names.at(static_cast<std::size_t>(state)); }

std::size_t OperationAnswer::size() const { return expired || texts.empty() ? 0 : json::serialize(texts).size(); }

void OperationAnswer::expire() {
    for (auto& text : texts) text.value() = nullptr;
    expired = true;
}

std::string to_document(const Operation& op) {
    json::object doc{
        {"id", op.id},
        {"kind", op.kind},
        {"target", json::object{{"type", op.target.type}, {"id", op.target.id}, {"name", op.target.name}}},
        {"state", name_of(op.state)},
        {"cancellable", op.cancellable},
        {"exclusive", op.exclusive},
        {"phase", op.progress.phase},
        {"result", op.result_href},
        {"request_id", op.request_id},
        {"traceparent", op.traceparent},
        {"requested_by", op.requested_by},
        {"created", base::to_unix_ms(op.created_at)},
        {"started", optional_time(op.started_at)},
        {"finished", optional_time(op.finished_at)},
        {"plan", op.plan},
    };
    json::array steps;
    for (const auto& step : op.steps) steps.push_back(json::object{{"name", step.name}, {"done", step.done}});
    doc["steps"] = std::move(steps);
    if (op.cancel_requested) doc["cancel_requested"] = true;
    if (op.undoing) doc["undoing"] = base::to_json(*op.undoing);
    if (op.error) doc["error"] = base::to_json(*op.error);
    if (op.answer)
        doc["answer"] =
            json::object{{"facts", op.answer->facts}, {"texts", op.answer->texts}, {"expired", op.answer->expired}};
    return json::serialize(doc);
}

base::Result<Operation> operation_from_document(std::string_view document) {
    const auto parsed = parse_json(document);
    if (!parsed || !parsed->is_object()) return base::fail(base::Errc::io_error, "damaged operation document");
    const auto& o = parsed->get_object();
    Operation op;
    op.id = text(o, "id");
    op.kind = text(o, "kind");
    if (op.id.empty() || op.kind.empty()) return base::fail(base::Errc::io_error, "operation without id or kind");
    if (const auto* target = o.if_contains("target"); target != nullptr && target->is_object())
        op.target = {text(target->get_object(), "type"), text(target->get_object(), "id"),
                     text(target->get_object(), "name")};
    const auto state = text(o, "state");
    for (std::size_t i = 0; i < state_names.size(); ++i)
        if (state_names.at(i) == state) op.state = static_cast<OperationState>(i);
    op.cancellable = flag(o, "cancellable");
    op.exclusive = flag(o, "exclusive");
    op.progress.phase = text(o, "phase");
    op.result_href = text(o, "result");
    op.request_id = text(o, "request_id");
    op.traceparent = text(o, "traceparent");
    op.requested_by = text(o, "requested_by");
    op.created_at = time(o, "created").value_or(base::Wall{});
    op.started_at = time(o, "started");
    op.finished_at = time(o, "finished");
    if (const auto* error = o.if_contains("error"); error != nullptr && error->is_object())
        op.error = base::error_from_json(error->get_object());
    op.cancel_requested = flag(o, "cancel_requested");
    if (const auto* undoing = o.if_contains("undoing"); undoing != nullptr && undoing->is_object())
        op.undoing = base::error_from_json(undoing->get_object());
    if (const auto* steps = o.if_contains("steps"); steps != nullptr && steps->is_array())
        for (const auto& step : steps->get_array())
            if (step.is_object())
                op.steps.push_back({text(step.get_object(), "name"), flag(step.get_object(), "done")});
    if (const auto* answer = o.if_contains("answer"); answer != nullptr && answer->is_object())
        op.answer = {object(answer->get_object(), "facts"), object(answer->get_object(), "texts"),
                     flag(answer->get_object(), "expired")};
    if (const auto* plan = o.if_contains("plan"); plan != nullptr && plan->is_object()) op.plan = plan->get_object();
    return op;
}

}  // namespace ghost::agent
