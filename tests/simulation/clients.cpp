#include "simulation/clients.hpp"

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace ghost::simulation {
namespace json = boost::json;
namespace {

constexpr std::array kinds{
    Weighted{"create", 20},      Weighted{"start", 9},       Weighted{"stop", 8},          Weighted{"force-stop", 7},
    Weighted{"restart", 6},      Weighted{"pause", 7},       Weighted{"resume", 5},        Weighted{"suspend", 8},
    Weighted{"reset", 3},        Weighted{"patch", 12},      Weighted{"delete", 10},       Weighted{"image-add", 4},
    Weighted{"image-delete", 4}, Weighted{"image-fetch", 4}, Weighted{"image-refresh", 3}, Weighted{"image-prune", 2},
    Weighted{"cancel", 9},       Weighted{"adopt", 4},       Weighted{"purge", 3}};

std::string text_of(const json::value& value, std::string_view member) {
    const auto* const found = value.is_object() ? value.get_object().if_contains(member) : nullptr;
    return found != nullptr && found->is_string() ? std::string{found->get_string()} : std::string{};
}

}  // namespace

Clients::Clients(Machine& machine, Told& told) : m_(machine), told_(told), count_(machine.dice.between(2, 4)) {}

std::size_t Clients::waiting() const {
    std::size_t count = 0;
    for (const auto& ask : asks_)
        for (const auto& attempt : ask.tries) count += attempt.over ? 0 : 1;
    return count;
}

void Clients::act() {
    if (m_.dice.percent(8)) return go_away();
    if (m_.state() != Machine::State::up) return;
    if (m_.dice.percent(18)) return ask_again();
    // Without a VM there is little that anybody can be answered.
    const auto& vms = m_.app().vms().all();
    const bool none = std::ranges::none_of(vms, [](const auto& entry) { return entry.second.managed; });
    ask_for(none && m_.dice.percent(60) ? "create" : m_.dice.pick_weighted(kinds));
}

void Clients::ask_for(std::string_view what) {
    asks_.push_back(make(what));
    send(asks_.size() - 1);
}

// Of those that came last: with their key, whatever became of them.
void Clients::ask_again() {
    const auto recent = std::min<std::size_t>(asks_.size(), 12);
    if (recent == 0) return;
    const auto at = asks_.size() - 1 - m_.dice.below(recent);
    if (!asks_[at].key.empty()) send(at);
}

void Clients::go_away() {
    std::vector<Wire::Ptr> calls;
    for (const auto& ask : asks_)
        for (const auto& attempt : ask.tries)
            if (!attempt.over) calls.push_back(attempt.call);
    if (calls.empty()) return;
    m_.trace("a client goes away");
    m_.hang_up(m_.dice.pick(calls));
}

std::string Clients::create_body() {
    auto& dice = m_.dice;
    json::object spec{{"image", dice.percent(75)   ? "tiny"
                                : dice.percent(60) ? Machine::vendors_image
                                                   : dice.pick(images)},
                      {"disk_gib", dice.between(1, 3)},
                      {"vcpus", dice.between(1, 2)},
                      {"memory_mib", dice.percent(95) ? 512 : 9000}};
    if (dice.percent(25)) spec["power"] = "off";
    if (dice.percent(15)) spec["autostart"] = "always";
    if (dice.percent(25)) spec["disks"] = json::object{{"data", {{"size_gib", 1}}}};
    if (dice.percent(15)) spec["cloud_init"] = json::object{{"user_data", "#cloud-config"}};
    json::object body{{"name", dice.pick(names)}, {"spec", std::move(spec)}};
    if (dice.percent(10)) body["wait_for"] = dice.percent(50) ? "address" : "guest_ready";
    return json::serialize(body);
}

std::string Clients::patch_body() {
    auto& dice = m_.dice;
    json::object body;
    json::object spec;
    if (dice.percent(50)) body["labels"] = json::object{{"tier", fmt::format("t{}", dice.below(5))}};
    if (dice.percent(15)) body["owner"] = fmt::format("o{}", dice.below(3));
    if (dice.percent(30)) spec["vcpus"] = dice.between(1, 3);
    if (dice.percent(30)) spec["memory_mib"] = 256 * dice.between(1, 4);
    if (dice.percent(20)) spec["disk_gib"] = dice.between(2, 5);
    if (dice.percent(20)) spec["autostart"] = dice.percent(50) ? "always" : "never";
    if (dice.percent(30)) spec["power"] = dice.percent(50) ? "on" : "off";
    if (dice.percent(10)) spec["protected"] = dice.percent(30);
    if (!spec.empty()) body["spec"] = std::move(spec);
    return json::serialize(body);
}

Ask Clients::make(std::string_view what) {
    auto& dice = m_.dice;
    Ask ask;
    ask.what = what;
    ask.who = fmt::format("uid:{}", dice.below(count_));
    if (dice.percent(75)) ask.key = fmt::format("k{}", ++made_);
    const auto vm = fmt::format("/v1/vms/{}", choose_vm(what != "adopt"));
    if (what == "create") {
        ask.path = "/v1/vms";
        ask.body = create_body();
    } else if (what == "patch") {
        ask.method = net::Method::patch;
        ask.path = vm;
        ask.body = patch_body();
    } else if (what == "delete") {
        ask.method = net::Method::del;
        ask.path = vm;
    } else if (what == "stop" || what == "restart") {
        ask.path = fmt::format("{}/{}", vm, what);
        if (dice.percent(50)) ask.body = fmt::format(R"({{"timeout_s": {}}})", dice.between(0, 20));
    } else if (what == "force-stop") {
        ask.path = vm + "/stop";
        ask.body = R"({"force": true})";
    } else if (what == "image-add") {
        const auto name = dice.pick(images);
        ask.path = "/v1/images";
        // "twin" has the bytes of "tiny".
        const auto file = name == "small" ? "small" : "tiny";
        ask.body = fmt::format(R"({{"name": "{}", "source": "file:///images/{}.qcow2"}})", name, file);
    } else if (what == "image-fetch") {
        ask.path = "/v1/images";
        // Under its own name or another.
        ask.body = dice.percent(60) ? R"({"source": "vendors"})" : R"({"name": "small", "source": "vendors"})";
    } else if (what == "image-refresh") {
        ask.path = fmt::format("/v1/images/{}/refresh", dice.percent(80) ? Machine::vendors_image : "small");
    } else if (what == "image-prune") {
        ask.path = "/v1/image-cache/prune";
    } else if (what == "image-delete") {
        ask.method = net::Method::del;
        ask.path = fmt::format("/v1/images/{}", dice.percent(15)   ? "tiny"
                                                : dice.percent(30) ? Machine::vendors_image
                                                                   : dice.pick(images));
    } else if (what == "adopt") {
        ask.path = vm + "/adopt";
        if (dice.percent(30)) ask.body = fmt::format(R"({{"name": "{}"}})", dice.pick(names));
    } else if (what == "purge") {
        ask.path = "/v1/orphans/purge";
    } else if (what == "cancel") {
        const auto recent = std::min<std::size_t>(begun_.size(), 4);
        const auto op = recent == 0 ? std::string{"none"} : begun_[begun_.size() - 1 - dice.below(recent)];
        ask.path = fmt::format("/v1/operations/{}/cancel", op);
    } else {
        ask.path = fmt::format("{}/{}", vm, what);
    }
    add_conditions(ask);
    return ask;
}

std::string Clients::choose_vm(bool managed) {
    std::vector<std::string> there;
    for (const auto& [id, vm] : m_.app().vms().all())
        if (vm.managed == managed) there.push_back(vm.name);
    return !there.empty() && m_.dice.percent(85) ? m_.dice.pick(there) : std::string{m_.dice.pick(names)};
}

void Clients::add_conditions(Ask& ask) {
    auto& dice = m_.dice;
    if (ask.what == "cancel") return;
    ask.dry = dice.percent(6);
    const bool of_a_vm = ask.path.starts_with("/v1/vms/") && ask.what != "adopt";
    if (!of_a_vm || !dice.percent(15)) return;
    const auto name = ask.path.substr(8, ask.path.find('/', 8) - 8);
    const auto* const vm = m_.app().vms().find_ref(name);
    ask.stale = vm == nullptr || dice.percent(30);
    ask.if_match = fmt::format("\"g{}-r1\"", ask.stale ? 1'000'000 : vm->generation);
}

void Clients::send(std::size_t at) {
    auto& ask = asks_[at];
    auto& attempt = ask.tries.emplace_back();
    attempt.request_id = fmt::format("r{}.{}", at, ask.tries.size());
    net::Request request;
    request.method = ask.method;
    request.path = ask.path;
    request.body = ask.body;
    request.context = {attempt.request_id, "", {base::Principal::Kind::socket, ask.who, true}};
    if (!ask.body.empty()) request.headers.set("Content-Type", "application/json");
    if (!ask.key.empty()) request.headers.set("Idempotency-Key", ask.key);
    if (!ask.if_match.empty()) request.headers.set("If-Match", ask.if_match);
    if (ask.dry) request.query.emplace_back("dry_run", "true");
    if (m_.dice.percent(40)) request.query.emplace_back("wait", std::to_string(m_.dice.between(1, 60)));
    m_.trace("{} {} asks: {} {}{} {} key={} match={} wait={}", attempt.request_id, ask.who, net::name_of(ask.method),
             ask.path, ask.dry ? " (dry)" : "", ask.body, ask.key, ask.if_match,
             request.query_value("wait").value_or(""));
    attempt.call = m_.send(std::move(request),
                           {[this, &ask, &attempt](const net::Response& response) { answered(ask, attempt, response); },
                            [](const std::string&) {},
                            [this, &attempt] {
                                attempt.over = true;
                                if (attempt.status == 0) m_.trace("{} gets no answer", attempt.request_id);
                            }});
}

void Clients::answered(Ask& ask, Attempt& attempt, const net::Response& response) {
    attempt.status = response.status;
    const auto body = json::parse(response.body);
    if (response.status >= 400) {
        attempt.code = text_of(body, "code");
        auto operation = text_of(body, "operation");
        const bool others = attempt.code == "operation_in_progress" || attempt.code == "idempotency_mismatch";
        attempt.refused = operation.empty() || others;
        if (!attempt.refused) attempt.operation = operation.substr(operation.rfind('/') + 1);
        if (attempt.code == "internal") m_.trace.violated("{} was answered with an internal fault", attempt.request_id);
        if (attempt.code == "precondition_failed" && ask.if_match.empty())
            m_.trace.violated("{} named no generation and was refused by one", attempt.request_id);
    } else if (!ask.dry && !text_of(body, "kind").empty()) {
        attempt.operation = text_of(body, "id");
        told_.operation(body);
    }
    if (!attempt.operation.empty() && ask.what != "cancel") begun_.push_back(attempt.operation);
    m_.trace("{} is answered: {} {} {}", attempt.request_id, response.status, attempt.code, attempt.operation);
}

}  // namespace ghost::simulation
