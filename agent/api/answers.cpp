#include "agent/api/answers.hpp"

#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/request.hpp"
#include "agent/vm/vm_document.hpp"

#include <boost/json/array.hpp>

#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

std::string href_of(const Operation& operation) { return "/v1/operations/" + operation.id; }

bool makes_something(const Operation& operation) {
    return operation.kind.ends_with(".create") || operation.kind.ends_with(".add");
}

net::Response preview_reply(const Preview& preview) {
    return json_reply(200, json::object{{"valid", true},
                                        {"would", json::array(preview.would.begin(), preview.would.end())},
                                        {"resources", preview.needs}});
}

net::Response operation_reply(const Operation& operation) {
    auto response = json_reply(202, to_resource(operation));
    response.headers.set("Location", href_of(operation));
    return response;
}

}  // namespace

json::object Answers::show(const Vm& vm) const {
    const auto running = operations.running_on(vm.id);
    return to_resource(vm, running ? running->id : "", clock.wall());
}

std::optional<Shown> Answers::result_of(const Operation& operation) const {
    if (operation.answer) return std::nullopt;
    if (operation.target.type == "vm")
        if (const auto* vm = vms.find(operation.target.id)) return Shown{show(*vm), etag_of(*vm)};
    if (operation.target.type == "image")
        if (const auto* image = images.find(operation.target.name))
            return Shown{agent::to_resource(*image, images.used_by(*image)), ""};
    if (operation.target.type == "agent") return Shown{agent(), ""};
    return std::nullopt;
}

asio::awaitable<net::Response> Answers::accepted(base::Result<OperationService::Ptr> begun, std::chrono::seconds wait,
                                                 base::Context context) const {
    if (!begun) co_return to_problem(begun.error(), context);
    auto op = *begun;
    if (op->preview) co_return preview_reply(*op->preview);
    if (wait.count() == 0) co_return operation_reply(*op);
    const auto id = op->id;
    op = co_await operations.wait(id, wait);
    if (op->state == OperationState::succeeded) {
        // What was changed may be gone by now, by another operation: then the operation itself is told.
        const auto shown = result_of(*op);
        auto response = json_reply(makes_something(*op) ? 201 : 200, shown ? shown->resource : to_resource(*op));
        if (shown && !shown->etag.empty()) response.headers.set("ETag", shown->etag);
        if (makes_something(*op)) response.headers.set("Location", op->result_href);
        co_return response;
    }
    if (is_terminal(op->state) && op->error) co_return to_problem(*op->error, context, {{"operation", href_of(*op)}});
    co_return operation_reply(*op);
}

asio::awaitable<net::Response> Answers::change(net::Request request, Begin begin) const {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    if (const auto body = empty_body(request); !body) co_return to_problem(body.error(), request.context);
    const auto begun = co_await begin(request);
    co_return co_await accepted(begun, *wait, request.context);
}

asio::awaitable<net::Response> Answers::cancelled(OperationService::Ptr operation, std::chrono::seconds wait) const {
    if (wait.count() > 0) operation = co_await operations.wait(operation->id, wait);
    if (is_terminal(operation->state) && wait.count() > 0) co_return json_reply(200, to_resource(*operation));
    co_return operation_reply(*operation);
}

}  // namespace ghost::agent::api
