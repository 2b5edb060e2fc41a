#include "agent/api/problem.hpp"
#include "agent/api/reply.hpp"
#include "agent/api/routes.hpp"
#include "agent/json_reader.hpp"
#include "agent/vm/vm_fields.hpp"

#include <algorithm>
#include <utility>

namespace ghost::agent::api {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

constexpr std::uint64_t max_stop_timeout_s = 600;

// What the handlers of this file share; all of it outlives the router.
struct Vms {
    VmService& service;
    const VmIndex& index;
    EventLog& events;
    Answers answers;
    const VmDefaults& defaults;
};

struct Filter {
    std::vector<std::pair<std::string, std::string>> labels;
    std::optional<std::string> name, power, owner;
    std::optional<bool> managed;

    [[nodiscard]] bool accepts(const Vm& vm) const {
        const auto has = [&vm](const auto& label) {
            const auto it = vm.labels.find(label.first);
            return it != vm.labels.end() && it->second == label.second;
        };
        return std::ranges::all_of(labels, has) && (!name || vm.name == *name) && (!owner || vm.owner == *owner) &&
               (!managed || vm.managed == *managed) && (!power || virt::name_of(vm.observed.power) == *power);
    }
};

Filter read_filter(QueryReader& query) {
    Filter filter;
    for (const auto& label : query.texts("label")) {
        const auto equals = label.find('=');
        if (equals == std::string::npos)
            query.fault("label", "expected key=value, got \"" + label + "\"");
        else
            filter.labels.emplace_back(label.substr(0, equals), label.substr(equals + 1));
    }
    filter.name = query.text("name");
    filter.power = query.one_of("power", {"running", "off", "paused", "suspended", "crashed", "unknown"});
    filter.owner = query.text("owner");
    filter.managed = query.boolean("managed");
    return filter;
}

net::Response list(const Vms& vms, const net::Request& request) {
    QueryReader query{request};
    const auto filter = read_filter(query);
    const auto page = read_page(query);
    if (const auto read = query.finish(); !read) return to_problem(read.error(), request.context);
    json::array items;
    std::string next;
    for (auto it = vms.index.all().upper_bound(page.after); it != vms.index.all().end(); ++it) {
        if (!filter.accepts(it->second)) continue;
        if (items.size() == page.limit) {
            next = page_token(std::string_view{items.back().at("id").as_string()});
            break;
        }
        items.push_back(vms.answers.show(it->second));
    }
    return list_reply(std::move(items), next, vms.events.place_of_list());
}

net::Response read(const Vms& vms, const net::Request& request) {
    if (const auto none = no_query(request); !none) return to_problem(none.error(), request.context);
    const auto& ref = request.params.at("vm");
    const auto* vm = vms.index.find_ref(ref);
    if (vm == nullptr) return to_problem({base::Errc::not_found, "no VM " + ref}, request.context);
    const auto etag = etag_of(*vm);
    if (not_modified(request, etag)) return not_modified_reply(etag);
    auto response = json_reply(200, vms.answers.show(*vm));
    response.headers.set("ETag", etag);
    return response;
}

asio::awaitable<net::Response> create(const Vms& vms, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto body = read_body(request);
    if (!body) co_return to_problem(body.error(), request.context);
    auto create = read_create(*body, vms.defaults);
    if (!create) co_return to_problem(create.error(), request.context);
    const auto begun = co_await vms.service.create(request.context, std::move(*create));
    co_return co_await vms.answers.accepted(begun, *wait, request.context);
}

asio::awaitable<net::Response> update(const Vms& vms, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto match = read_if_match(request);
    if (!match) co_return to_problem(match.error(), request.context);
    const auto body = read_body(request);
    if (!body) co_return to_problem(body.error(), request.context);
    const auto& ref = request.params.at("vm");
    const auto* vm = vms.index.find_ref(ref);
    if (vm == nullptr) co_return to_problem({base::Errc::not_found, "no VM " + ref}, request.context);
    auto patch = read_patch(*body, *vm, vms.defaults.forwards);
    if (!patch) co_return to_problem(patch.error(), request.context);
    const auto begun = co_await vms.service.update(request.context, vm->id, std::move(*patch), *match);
    co_return co_await vms.answers.accepted(begun, *wait, request.context);
}

asio::awaitable<net::Response> remove(const Vms& vms, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto match = read_if_match(request);
    if (!match) co_return to_problem(match.error(), request.context);
    if (const auto body = empty_body(request); !body) co_return to_problem(body.error(), request.context);
    const auto begun = co_await vms.service.remove(request.context, request.params.at("vm"), *match);
    co_return co_await vms.answers.accepted(begun, *wait, request.context);
}

base::Result<StopOptions> read_stop(const net::Request& request) {
    const auto body = read_body(request, true);
    if (!body) return base::fail(body.error());
    StopOptions options;
    const auto read = read_object(*body, [&](JsonReader& reader) {
        options.force = reader.boolean("force").value_or(false);
        if (const auto timeout = reader.integer("timeout_s", 0, max_stop_timeout_s))
            options.timeout = std::chrono::seconds{*timeout};
    });
    if (!read) return base::fail(read.error());
    return options;
}

using PlainVerb = VmService::Begun (VmService::*)(base::Context, std::string, VmService::IfMatch);
using StopVerb = VmService::Begun (VmService::*)(base::Context, std::string, StopOptions, VmService::IfMatch);

asio::awaitable<net::Response> act(const Vms& vms, net::Request request, PlainVerb verb) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto match = read_if_match(request);
    if (!match) co_return to_problem(match.error(), request.context);
    if (const auto body = empty_body(request); !body) co_return to_problem(body.error(), request.context);
    const auto begun = co_await (vms.service.*verb)(request.context, request.params.at("vm"), *match);
    co_return co_await vms.answers.accepted(begun, *wait, request.context);
}

asio::awaitable<net::Response> act_with_options(const Vms& vms, net::Request request, StopVerb verb) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    const auto match = read_if_match(request);
    if (!match) co_return to_problem(match.error(), request.context);
    const auto options = read_stop(request);
    if (!options) co_return to_problem(options.error(), request.context);
    const auto begun = co_await (vms.service.*verb)(request.context, request.params.at("vm"), *options, *match);
    co_return co_await vms.answers.accepted(begun, *wait, request.context);
}

base::Result<std::string> read_new_name(const net::Request& request) {
    const auto body = read_body(request, true);
    if (!body) return base::fail(body.error());
    std::optional<std::string> name;
    const auto read = read_object(*body, [&](JsonReader& reader) {
        if (reader.has("name")) name = fields::vm_name(reader, "name");
    });
    if (!read) return base::fail(read.error());
    return name.value_or("");
}

asio::awaitable<net::Response> adopt(const Vms& vms, net::Request request) {
    const auto wait = read_change(request);
    if (!wait) co_return to_problem(wait.error(), request.context);
    auto name = read_new_name(request);
    if (!name) co_return to_problem(name.error(), request.context);
    const auto begun = co_await vms.service.adopt(request.context, request.params.at("vm"), std::move(*name));
    co_return co_await vms.answers.accepted(begun, *wait, request.context);
}

}  // namespace

void add_vm_routes(net::Router& router, VmService& service, EventLog& events, const Answers& answers,
                   const VmDefaults& defaults) {
    const auto vms = std::make_shared<const Vms>(Vms{service, answers.vms, events, answers, defaults});
    using net::Method;
    router.add(Method::get, "/v1/vms",
               [vms](net::Request r) -> asio::awaitable<net::Response> { co_return list(*vms, r); });
    router.add(Method::post, "/v1/vms", [vms](net::Request r) { return create(*vms, std::move(r)); });
    router.add(Method::get, "/v1/vms/{vm}",
               [vms](net::Request r) -> asio::awaitable<net::Response> { co_return read(*vms, r); });
    router.add(Method::patch, "/v1/vms/{vm}", [vms](net::Request r) { return update(*vms, std::move(r)); });
    router.add(Method::del, "/v1/vms/{vm}", [vms](net::Request r) { return remove(*vms, std::move(r)); });

    router.add(Method::post, "/v1/vms/{vm}/adopt", [vms](net::Request r) { return adopt(*vms, std::move(r)); });
    const std::pair<std::string_view, PlainVerb> plain[] = {
        {"start", &VmService::start},   {"reset", &VmService::reset},     {"pause", &VmService::pause},
        {"resume", &VmService::resume}, {"suspend", &VmService::suspend},
    };
    for (const auto& [name, verb] : plain)
        router.add(Method::post, "/v1/vms/{vm}/" + std::string{name},
                   [vms, verb](net::Request r) { return act(*vms, std::move(r), verb); });
    const std::pair<std::string_view, StopVerb> with_options[] = {{"stop", &VmService::stop},
                                                                  {"restart", &VmService::restart}};
    for (const auto& [name, verb] : with_options)
        router.add(Method::post, "/v1/vms/{vm}/" + std::string{name},
                   [vms, verb](net::Request r) { return act_with_options(*vms, std::move(r), verb); });
}

}  // namespace ghost::agent::api
