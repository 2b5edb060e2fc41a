#include "agent/guest/guest_service.hpp"

#include "agent/guest/guest_text.hpp"
#include "agent/vm/vm_service.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace {

base::Result<void> allows_access(const Vm& vm) {
    if (!vm.managed)
        return base::fail(base::Errc::forbidden,
                          fmt::format("{} was defined by others; nothing is done in its guest", vm.name));
    if (!vm.spec.guest_access)
        return base::fail(base::Errc::forbidden,
                          fmt::format("{} doesn't allow programs to be run and files to be read or written in its "
                                      "guest: spec.guest_access is false",
                                      vm.name));
    return {};
}

}  // namespace

boost::json::object to_json(const GuestAccess& access) {
    boost::json::object out{{"vm", access.vm},         {"name", access.name},
                            {"action", access.action}, {access.action == "exec" ? "command" : "path", access.what},
                            {"by", access.by},         {"request_id", access.request_id},
                            {"result", access.result}};
    if (!access.operation.empty()) out["operation"] = "/v1/operations/" + access.operation;
    if (access.exit_code) out["exit_code"] = *access.exit_code;
    if (access.bytes) out["bytes"] = *access.bytes;
    return out;
}

boost::asio::awaitable<void> GuestService::stop() {
    closers_.cancel();
    co_await closers_.drain();
}

base::Result<const Vm*> GuestService::permitted(const std::string& ref, std::string_view verb) const {
    const auto* vm = p_.index.find_ref(ref);
    if (vm == nullptr) return base::fail(base::Errc::not_found, "no VM " + ref);
    if (const auto allowed = allows_access(*vm); !allowed) return base::fail(allowed.error());
    if (const auto reachable = ready(); !reachable) return base::fail(reachable.error());
    if (vm->observed.power != virt::Power::running) return base::fail(power_conflict(*vm, verb));
    return vm;
}

// It may have been taken back since.
base::Result<void> GuestService::still_permitted(const std::string& id) const {
    const auto* vm = p_.index.find(id);
    if (vm == nullptr) return base::fail(base::Errc::not_found, "the VM is gone");
    return allows_access(*vm);
}

void GuestService::tell(GuestAccess access, const base::Result<void>& result) const {
    access.what = shortened(access.what, longest_told);
    access.result = result ? "succeeded" : std::string{base::name_of(result.error().code)};
    base::Fields fields{{"vm", access.vm},
                        {"name", access.name},
                        {"action", access.action},
                        {access.action == "exec" ? "command" : "path", access.what}};
    if (access.exit_code) fields.emplace_back("exit_code", *access.exit_code);
    if (access.bytes) fields.emplace_back("bytes", *access.bytes);
    fields.emplace_back("result", access.result);
    if (!result) fields.emplace_back("error", result.error().detail);
    if (!access.operation.empty()) fields.emplace_back("operation", access.operation);
    fields.emplace_back("by", access.by);
    fields.emplace_back("request_id", access.request_id);
    p_.log.info("guest access", std::move(fields));
    if (on_access) on_access(access);
}

}  // namespace ghost::agent
