// The REST API: one file per resource adds its routes. Handlers parse, call a
// service, translate.
#pragma once

#include "agent/access/stream_service.hpp"
#include "agent/api/answers.hpp"
#include "agent/api/idempotency.hpp"
#include "agent/api/request.hpp"
#include "agent/events/event_log.hpp"
#include "agent/guest/guest_service.hpp"
#include "agent/host/capacity.hpp"
#include "agent/host/drain.hpp"
#include "agent/host/health.hpp"
#include "agent/host/host_load.hpp"
#include "agent/host/tailnet.hpp"
#include "agent/images/image_service.hpp"
#include "agent/operations/operation_service.hpp"
#include "agent/orphans/orphan_service.hpp"
#include "agent/vm/vm_service.hpp"
#include "base/log.hpp"
#include "net/router.hpp"

#include <functional>
#include <string>
#include <string_view>

namespace ghost::agent::api {

// `defaults` outlives the router; a reload may change it.
void add_vm_routes(net::Router& router, VmService& vms, EventLog& events, const Answers& answers,
                   const VmDefaults& defaults);
void add_guest_routes(net::Router& router, GuestService& guests, const Answers& answers);
// Whether such a request's body is handed on as it comes: a file for a guest.
[[nodiscard]] bool streams_body(net::Method method, std::string_view path);
void add_operation_routes(net::Router& router, EventLog& events, const Answers& answers);
void add_image_routes(net::Router& router, ImageService& images, EventLog& events, const Answers& answers);
void add_orphan_routes(net::Router& router, OrphanService& orphans, const Answers& answers);
void add_event_routes(net::Router& router, EventLog& events, base::Clock& clock);
void add_stream_routes(net::Router& router, StreamService& streams);
// Whether a ticket opens that route also for those who show nothing else.
[[nodiscard]] bool takes_ticket(net::Method method, std::string_view pattern);

struct RootFacts {
    std::string name;
    std::string version;
    base::Wall started_at;
};
// What this agent can do, as `features` names it.
[[nodiscard]] boost::json::array features();

void add_root_routes(net::Router& router, const Answers& answers, const Capacity& capacity, const LoadWatch& load);
void add_agent_routes(net::Router& router, Drain& drain, const Answers& answers);

// The resource at /v1.
struct RootParts {
    const RootFacts& facts;
    const virt::Link& hypervisor;
    boost::json::object core;  // of the link to Ghost Core
    std::string agent_id;      // as Core calls it; empty before it does
    const Tailnet& tailnet;
    const Drain& drain;
};
[[nodiscard]] boost::json::object root_resource(const RootParts& of);

// `ready`: empty when new VMs are taken, else why not. `path`: where the full report is beside "/health".
void add_health_routes(net::Router& router, Health& health, std::function<std::string()> ready,
                       const std::string& path);
// What anybody may read; `configured` is that `path`.
[[nodiscard]] bool is_health_path(std::string_view path, std::string_view configured);
// The text of openapi.yaml as JSON at /v1/openapi.json; the text is built into the program.
void add_openapi_route(net::Router& router);

// Who may pass: admins everywhere, everybody to the health paths, and to the streams whoever brings a ticket, which is
// looked at there; changes not while `draining`. Measures and logs each request.
struct Gate {
    const net::Router& router;
    Idempotency& idempotency;
    const base::Clock& clock;
    base::Log& log;
    std::string health_path;
    std::function<bool()> draining;
    std::function<void(net::Method, std::string_view route, unsigned status, base::Duration took)> measure;
};
[[nodiscard]] net::Handler make_gate(Gate gate);

}  // namespace ghost::agent::api
