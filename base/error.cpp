#include "base/error.hpp"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

namespace ghost::base {
namespace {

struct Name {
    Errc code;
    std::string_view name;
};

constexpr std::array names{
    Name{Errc::invalid_json, "invalid_json"},
    Name{Errc::validation_failed, "validation_failed"},
    Name{Errc::unsupported_media_type, "unsupported_media_type"},
    Name{Errc::body_too_large, "body_too_large"},
    Name{Errc::upgrade_required, "upgrade_required"},
    Name{Errc::unauthenticated, "unauthenticated"},
    Name{Errc::forbidden, "forbidden"},
    Name{Errc::protected_resource, "protected"},
    Name{Errc::not_found, "not_found"},
    Name{Errc::already_exists, "already_exists"},
    Name{Errc::state_conflict, "state_conflict"},
    Name{Errc::operation_in_progress, "operation_in_progress"},
    Name{Errc::precondition_failed, "precondition_failed"},
    Name{Errc::idempotency_mismatch, "idempotency_mismatch"},
    Name{Errc::events_expired, "events_expired"},
    Name{Errc::insufficient_resources, "insufficient_resources"},
    Name{Errc::insufficient_storage, "insufficient_storage"},
    Name{Errc::overloaded, "overloaded"},
    Name{Errc::draining, "draining"},
    Name{Errc::hypervisor_unavailable, "hypervisor_unavailable"},
    Name{Errc::hypervisor_error, "hypervisor_error"},
    Name{Errc::deadline_exceeded, "deadline_exceeded"},
    Name{Errc::cancelled, "cancelled"},
    Name{Errc::interrupted, "interrupted"},
    Name{Errc::invalid_image, "invalid_image"},
    Name{Errc::checksum_mismatch, "checksum_mismatch"},
    Name{Errc::signature_invalid, "signature_invalid"},
    Name{Errc::unverified_image, "unverified_image"},
    Name{Errc::source_unavailable, "source_unavailable"},
    Name{Errc::address_not_allowed, "address_not_allowed"},
    Name{Errc::io_error, "io_error"},
    Name{Errc::internal, "internal"},
};
static_assert(names.size() == static_cast<std::size_t>(Errc::internal) + 1, "every code has a name");

std::string text(const boost::json::object& document, std::string_view key) {
    const auto* value = document.if_contains(key);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

}  // namespace

Error errno_error(int number, std::string_view what) {
    const auto code = number == ENOSPC || number == EDQUOT ? Errc::insufficient_storage : Errc::io_error;
    return {code, std::string{what} + ": " + std::system_category().message(number)};
}

void add_disk_facts(Error& error, std::optional<std::uint64_t> needed, std::optional<std::uint64_t> free) {
    if (needed) error.facts["needed"] = boost::json::object{{"disk_bytes", *needed}};
    if (free) error.facts["free"] = boost::json::object{{"disk_bytes", *free}};
}

std::string_view name_of(Errc code) noexcept {
    const auto* const it = std::ranges::find(names, code, &Name::code);
    return it == names.end() ? "internal" : it->name;
}

std::optional<Errc> errc_from_name(std::string_view name) noexcept {
    const auto* const it = std::ranges::find(names, name, &Name::name);
    return it == names.end() ? std::nullopt : std::optional{it->code};
}

boost::json::object to_json(const Error& error) {
    boost::json::object document{{"code", name_of(error.code)}, {"detail", error.detail}};
    if (!error.faults.empty()) {
        boost::json::array faults;
        for (const auto& fault : error.faults)
            faults.push_back(boost::json::object{{"pointer", fault.pointer}, {"detail", fault.detail}});
        document["errors"] = std::move(faults);
    }
    if (!error.facts.empty()) document["facts"] = error.facts;
    return document;
}

Error error_from_json(const boost::json::object& document) {
    Error error{errc_from_name(text(document, "code")).value_or(Errc::internal), text(document, "detail")};
    if (const auto* faults = document.if_contains("errors"); faults != nullptr && faults->is_array())
        for (const auto& fault : faults->get_array())
            if (fault.is_object())
                error.faults.push_back({text(fault.get_object(), "pointer"), text(fault.get_object(), "detail")});
    if (const auto* facts = document.if_contains("facts"); facts != nullptr && facts->is_object())
        error.facts = facts->get_object();
    return error;
}

}  // namespace ghost::base
