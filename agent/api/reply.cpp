#include "agent/api/reply.hpp"

#include "agent/api/problem.hpp"
#include "agent/json_text.hpp"

#include <cmath>
#include <utility>

namespace ghost::agent::api {
namespace json = boost::json;
namespace {

json::value time_or_null(const std::optional<base::Wall>& time) {
    return time ? json::value(base::rfc3339(*time)) : json::value(nullptr);
}

json::object progress_json(const Progress& p) {
    json::object out{{"phase", p.phase},   {"done", p.done},  {"total", nullptr}, {"unit", p.unit},
                     {"percent", nullptr}, {"rate", nullptr}, {"eta_s", nullptr}};
    if (p.total > 0) {
        out["total"] = p.total;
        out["percent"] = std::round(1000.0 * static_cast<double>(p.done) / static_cast<double>(p.total)) / 10.0;
    }
    if (p.rate > 0) {
        out["rate"] = std::round(p.rate);
        if (p.total >= p.done) out["eta_s"] = std::round(static_cast<double>(p.total - p.done) / p.rate);
    }
    return out;
}

}  // namespace

net::Response json_reply(unsigned status, const json::value& body) {
    net::Response response;
    response.status = status;
    response.body = json_text(body) + "\n";
    return response;
}

net::Response not_modified_reply(std::string etag) {
    net::Response response;
    response.status = 304;
    response.content_type.clear();
    response.headers.set("ETag", std::move(etag));
    return response;
}

void mark_as_guests(net::Response& response) {
    response.headers.set("Cache-Control", "no-store");
    response.headers.set("X-Content-Type-Options", "nosniff");
}

json::object to_summary(const Operation& op) {
    json::object out{{"id", op.id},
                     {"kind", op.kind},
                     {"target", json::object{{"type", op.target.type}, {"id", op.target.id}, {"name", op.target.name}}},
                     {"state", name_of(op.state)},
                     {"stalled", op.stalled},
                     {"progress", progress_json(op.progress)},
                     {"cancellable", op.cancellable && !is_terminal(op.state)},
                     {"error", nullptr},
                     {"result", nullptr},
                     {"request_id", op.request_id},
                     {"traceparent", nullptr},
                     {"requested_by", op.requested_by},
                     {"created_at", base::rfc3339(op.created_at)},
                     {"started_at", time_or_null(op.started_at)},
                     {"finished_at", time_or_null(op.finished_at)}};
    if (op.target.type == "image") out["target"].as_object()["id"] = op.target.name;
    if (!op.traceparent.empty()) out["traceparent"] = op.traceparent;
    if (op.error) out["error"] = problem_json(*op.error, op.request_id);
    if (op.state == OperationState::succeeded && op.answer)
        out["result"] = op.answer->facts;
    else if (op.state == OperationState::succeeded && !op.result_href.empty())
        out["result"] = json::object{{"href", op.result_href}};
    return out;
}

json::object to_resource(const Operation& op) {
    auto out = to_summary(op);
    if (op.state != OperationState::succeeded || !op.answer) return out;
    auto& result = out["result"].as_object();
    for (const auto& text : op.answer->texts) result[text.key()] = text.value();
    if (op.answer->expired) result["expired"] = true;
    return out;
}

net::Response list_reply(json::array items, const std::string& next_page_token, std::uint64_t event) {
    const auto next = next_page_token.empty() ? json::value(nullptr) : json::value(next_page_token);
    auto response = json_reply(200, json::object{{"items", std::move(items)}, {"next_page_token", next}});
    response.headers.set("Ghost-Event-Id", std::to_string(event));
    return response;
}

}  // namespace ghost::agent::api
