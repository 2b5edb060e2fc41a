#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

json::object hypervisor_json(const virt::Link& link) {
    const auto text = [](const std::string& t) { return t.empty() ? json::value(nullptr) : json::value(t); };
    json::object out{{"uri", link.host.uri},
                     {"kind", text(link.host.kind)},
                     {"libvirt_version", text(link.host.libvirt_version)},
                     {"qemu_version", text(link.host.qemu_version)},
                     {"connected", link.connected}};
    if (!link.host.no_kvm.empty()) out["no_kvm"] = link.host.no_kvm;
    if (!link.connected) out["reason"] = link.reason;
    return out;
}

}  // namespace

json::array features() {
    return {"vms",      "images",          "operations", "resources", "events",   "orphans",     "adopt",
            "if_match", "idempotency_key", "dry_run",    "drain",     "core",     "console",     "console_log",
            "vnc",      "screenshot",      "forward",    "tickets",   "forwards", "guest_access"};
}

json::object root_resource(const RootParts& of) {
    return {{"name", of.facts.name},
            {"agent_id", of.agent_id.empty() ? json::value(nullptr) : json::value(of.agent_id)},
            {"version", of.facts.version},
            {"started_at", base::rfc3339(of.facts.started_at)},
            {"features", features()},
            {"hypervisor", hypervisor_json(of.hypervisor)},
            {"core", of.core},
            {"tailnet", of.tailnet.to_json()},
            {"drain", of.drain.to_json()}};
}

void add_root_routes(net::Router& router, const Answers& answers, const Capacity& capacity, const LoadWatch& load) {
    router.add(net::Method::get, "/v1", [&answers](net::Request r) -> asio::awaitable<net::Response> {
        if (const auto none = no_query(r); !none) co_return to_problem(none.error(), r.context);
        co_return json_reply(200, answers.agent());
    });
    router.add(net::Method::get, "/v1/resources", [&capacity, &load](net::Request r) -> asio::awaitable<net::Response> {
        if (const auto none = no_query(r); !none) co_return to_problem(none.error(), r.context);
        co_return json_reply(200, resources_json(capacity.resources(), load.now()));
    });
}

}  // namespace ghost::agent::api
