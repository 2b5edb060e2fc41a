#include "agent/api/problem.hpp"

#include "net/problem.hpp"

#include <boost/json/array.hpp>

namespace ghost::agent::api {
namespace json = boost::json;
using base::Errc;

namespace {

std::string_view title_of(Errc code) noexcept {
    switch (code) {
        case Errc::invalid_json: return "The body is not valid JSON";
        case Errc::validation_failed: return "The request has faults";
        case Errc::unsupported_media_type: return "The body's type is not supported";
        case Errc::body_too_large: return "The body is too large";
        case Errc::upgrade_required: return "It is served as a WebSocket only";
        case Errc::unauthenticated: return "Who are you?";
        case Errc::forbidden: return "Not allowed";
        case Errc::protected_resource: return "It is protected";
        case Errc::not_found: return "Not found";
        case Errc::already_exists: return "It exists already";
        case Errc::state_conflict: return "Not possible in its present state";
        case Errc::operation_in_progress: return "Another operation is under way";
        case Errc::precondition_failed: return "It has changed meanwhile";
        case Errc::idempotency_mismatch: return "The Idempotency-Key was used for another request";
        case Errc::events_expired: return "These events aren't kept any more";
        case Errc::insufficient_resources: return "Not enough resources";
        case Errc::insufficient_storage: return "Not enough disk space";
        case Errc::overloaded: return "Too much at once";
        case Errc::draining: return "The agent is not taking new work";
        case Errc::hypervisor_unavailable: return "The hypervisor is not available";
        case Errc::hypervisor_error: return "The hypervisor refused";
        case Errc::deadline_exceeded: return "It took too long";
        case Errc::cancelled: return "Cancelled";
        case Errc::interrupted: return "Interrupted";
        case Errc::invalid_image: return "Not a usable image";
        case Errc::checksum_mismatch: return "The checksum doesn't match";
        case Errc::signature_invalid: return "The signature is not valid";
        case Errc::unverified_image: return "The image is not verified";
        case Errc::source_unavailable: return "The source is not available";
        case Errc::address_not_allowed: return "The address is not allowed";
        case Errc::io_error: return "Input or output failed";
        case Errc::internal: return "Internal error";
    }
    return "Internal error";
}

json::array faults_json(const base::Error& error) {
    json::array faults;
    for (const auto& fault : error.faults)
        faults.push_back(json::object{{"pointer", fault.pointer}, {"detail", fault.detail}});
    return faults;
}

json::object members_of(const base::Error& error, json::object members) {
    for (const auto& fact : error.facts) members[fact.key()] = fact.value();
    if (!error.faults.empty()) members["errors"] = faults_json(error);
    return members;
}

}  // namespace

unsigned status_of(Errc code) noexcept {
    switch (code) {
        case Errc::invalid_json: return 400;
        case Errc::unauthenticated: return 401;
        case Errc::forbidden:
        case Errc::protected_resource: return 403;
        case Errc::not_found: return 404;
        case Errc::already_exists:
        case Errc::state_conflict:
        case Errc::operation_in_progress:
        case Errc::insufficient_resources:
        case Errc::cancelled: return 409;
        case Errc::events_expired: return 410;
        case Errc::precondition_failed: return 412;
        case Errc::body_too_large: return 413;
        case Errc::unsupported_media_type: return 415;
        case Errc::upgrade_required: return 426;
        case Errc::idempotency_mismatch:
        case Errc::validation_failed:
        case Errc::invalid_image:
        case Errc::checksum_mismatch:
        case Errc::signature_invalid:
        case Errc::unverified_image:
        case Errc::address_not_allowed: return 422;
        case Errc::overloaded: return 429;
        case Errc::hypervisor_error:
        case Errc::source_unavailable: return 502;
        case Errc::draining:
        case Errc::interrupted:
        case Errc::hypervisor_unavailable: return 503;
        case Errc::deadline_exceeded: return 504;
        case Errc::insufficient_storage: return 507;
        case Errc::io_error:
        case Errc::internal: return 500;
    }
    return 500;
}

net::Response to_problem(const base::Error& error, const base::Context& context, json::object members) {
    const auto status = status_of(error.code);
    auto response = net::problem(status, base::name_of(error.code), title_of(error.code), error.detail,
                                 context.request_id, members_of(error, std::move(members)));
    if (status == 429) response.headers.set("Retry-After", "1");
    if (status == 503) response.headers.set("Retry-After", "5");
    return response;
}

json::object problem_json(const base::Error& error, std::string_view request_id) {
    const auto code = base::name_of(error.code);
    json::object document{{"type", "urn:ghost:problem:" + std::string{code}},
                          {"title", title_of(error.code)},
                          {"status", status_of(error.code)},
                          {"detail", error.detail},
                          {"code", code},
                          {"request_id", request_id}};
    for (auto& member : members_of(error, {})) document[member.key()] = std::move(member.value());
    return document;
}

}  // namespace ghost::agent::api
