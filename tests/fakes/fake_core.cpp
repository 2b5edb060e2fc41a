#include "tests/fakes/fake_core.hpp"

#include "base/ids.hpp"
#include "net/problem.hpp"

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>
#include <utility>

namespace ghost::fakes {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;

constexpr std::size_t body_bytes = 4 * 1024 * 1024;
constexpr std::size_t answer_bytes = 4 * 1024 * 1024 - 64 * 1024;  // for its commands; the rest is small
constexpr std::size_t command_bytes = 256 * 1024;
constexpr std::size_t commands_in_answer = 100;
constexpr std::size_t most_violations = 1000;
constexpr std::size_t most_detail = 4096;

net::Response answer(unsigned status, const json::object& body) {
    return {.status = status, .body = json::serialize(body)};
}

net::Response problem(unsigned status, std::string_view code, std::string_view title, std::string_view detail) {
    auto response = net::problem(status, code, title, detail, {});
    auto document = json::parse(response.body).as_object();
    document.erase("request_id");
    response.body = json::serialize(document);
    return response;
}

// What `status` looks like when Core answers with it of its own accord.
net::Response problem_of(unsigned status) {
    switch (status) {
        case 400: return problem(400, "invalid_json", "Invalid JSON", "The body is no JSON");
        case 401: return problem(401, "unauthenticated", "Unauthenticated", "No certificate that is valid was shown");
        case 403: return problem(403, "forbidden", "Forbidden", "The certificate is another agent's");
        case 404: return problem(404, "session_unknown", "Session unknown", "There is no such session");
        case 409: return problem(409, "superseded", "Superseded", "A newer epoch of this agent has begun a session");
        case 410: return problem(410, "told_to_leave", "Told to leave", "The node is no longer part of this Core");
        case 413: return problem(413, "body_too_large", "Body too large", "The body is larger than Core takes");
        case 422: return problem(422, "validation_failed", "Validation failed", "The body is not as it must be");
        case 426: {
            auto response =
                problem(426, "upgrade_required", "Upgrade required", "Agents older than 99.0.0 are no longer served");
            auto document = json::parse(response.body).as_object();
            document["minimum_version"] = "99.0.0";
            response.body = json::serialize(document);
            return response;
        }
        case 429: return problem(429, "rate_limited", "Rate limited", "Too much at once");
        case 500: return problem(500, "internal", "Internal error", "Something is broken");
        case 502:
        case 504: return {.status = status, .body = "<html>a proxy speaks</html>\n", .content_type = "text/html"};
        default: return problem(status, "unavailable", "Unavailable", "Core can't answer now");
    }
}

net::Response with_retry_after(net::Response response, std::optional<unsigned> seconds) {
    if (seconds) response.headers.set("Retry-After", std::to_string(*seconds));
    return response;
}

// The path's agent when `path` is one of `pattern`; "" for a pattern without one.
std::optional<std::string> match(std::string_view pattern, std::string_view path) {
    constexpr std::string_view name = "{agent_id}";
    const auto at = pattern.find(name);
    if (at == std::string_view::npos) return pattern == path ? std::optional{std::string{}} : std::nullopt;
    const auto before = pattern.substr(0, at);
    const auto after = pattern.substr(at + name.size());
    if (path.size() < before.size() + after.size() || !path.starts_with(before) || !path.ends_with(after))
        return std::nullopt;
    auto agent = std::string{path.substr(before.size(), path.size() - before.size() - after.size())};
    return agent.contains('/') ? std::nullopt : std::optional{std::move(agent)};
}

int rank_of(std::string_view state) {
    if (state.empty()) return 0;
    if (state == "accepted") return 1;
    if (state == "running") return 2;
    return 3;
}

// A body of at most 4 MiB and 32 levels, or the answer that it gets.
std::expected<json::value, net::Response> read_body(const net::Request& request) {
    if (request.body.size() > body_bytes) return std::unexpected{problem_of(413)};
    json::parse_options options;
    options.max_depth = 32;
    json::error_code error;
    auto value = json::parse(request.body, error, {}, options);
    if (error) return std::unexpected{problem(400, "invalid_json", "Invalid JSON", error.message())};
    return value;
}

}  // namespace

FakeCore::FakeCore(base::Clock& clock, base::Random& random, Issue issue, Settings with)
    : settings(std::move(with)), clock_(clock), random_(random), issue_(std::move(issue)) {}

const std::vector<FakeCore::Route>& FakeCore::routes() {
    static const std::vector<Route> all{{net::Method::post, "/v1/agents/enroll", "enroll"},
                                        {net::Method::post, "/v1/agents/{agent_id}/certificate", "certificate"},
                                        {net::Method::put, "/v1/agents/{agent_id}/session", "session"},
                                        {net::Method::del, "/v1/agents/{agent_id}/session", "leave"},
                                        {net::Method::post, "/v1/agents/{agent_id}/heartbeat", "heartbeat"},
                                        {net::Method::post, "/v1/agents/{agent_id}/facts", "facts"}};
    return all;
}

FakeCore::Served FakeCore::serve(const net::Request& request, const Caller& caller) {
    ++requests_;
    Served served{.response = problem(404, "not_found", "Not found", "There is no such route")};
    const Route* route = nullptr;
    std::string agent_id;
    for (const auto& candidate : routes()) {
        if (candidate.method != request.method) continue;
        if (auto of = match(candidate.pattern, request.path)) {
            route = &candidate;
            agent_id = *std::move(of);
            break;
        }
    }
    if (route == nullptr) {
        note(fmt::format("{} {}: there is no such route", net::name_of(request.method), request.path));
        return served;
    }

    if (hits(faults.slow)) served.delay = std::chrono::milliseconds{faults.slow_ms};
    if (hits(faults.drop_request)) {
        served.response.reset();
        return served;
    }
    for (auto& each : faults.overrides) {
        if (each.next == 0 || (!each.route.empty() && each.route != route->name)) continue;
        --each.next;
        served.response = with_retry_after(problem_of(each.status), each.retry_after_s);
        return served;
    }
    if (hits(faults.too_many)) {
        served.response = with_retry_after(problem_of(429), faults.retry_after_s);
        return served;
    }
    if (hits(faults.server_error)) {
        static constexpr std::array<unsigned, 3> statuses{500, 502, 503};
        const auto dice = random_.next();
        if ((dice & 1U) != 0) static_cast<void>(act(request, caller, *route, agent_id));
        served.response = with_retry_after(problem_of(statuses[(dice >> 2U) % statuses.size()]),
                                           (dice & 2U) != 0 ? std::optional{faults.retry_after_s} : std::nullopt);
        return served;
    }

    served.response = act(request, caller, *route, agent_id);
    if (hits(faults.drop_reply)) {
        served.response.reset();
    } else if (hits(faults.garbage)) {
        served.response->body = "\x01{\"ttl_s\": ";
    } else if (hits(faults.truncated) && !served.response->body.empty()) {
        served.cut_after = served.response->body.size() / 2;
    }
    return served;
}

net::Response FakeCore::act(const net::Request& request, const Caller& caller, const Route& route,
                            const std::string& agent_id) {
    if (route.name == "enroll") return enroll(request);
    if (!is_core_id(agent_id)) return refuse(agent_id, route.name, {"agent_id: must be 1 to 64 of A-Za-z0-9._-"});
    if (caller.certificate.empty()) return problem_of(401);
    if (caller.certificate != agent_id) {
        note(fmt::format("{} {}: with the certificate of {}", agent_id, route.name, caller.certificate));
        return problem_of(403);
    }
    if (caller.expired && route.name != "certificate") return problem_of(401);
    if (route.name == "session" && settings.known_by_certificate && agent(agent_id) == nullptr) add_agent(agent_id);

    auto* known = agent(agent_id);
    if (known != nullptr && known->told_to_leave) return problem_of(410);
    if (known != nullptr) end_lapsed(*known);
    if (route.name == "heartbeat" && hits(faults.forgets_sessions)) forget_sessions();
    const bool names_session = route.name == "heartbeat" || route.name == "facts" || route.name == "leave";
    if (known == nullptr && names_session) return problem_of(404);
    if (known == nullptr) return problem(404, "agent_unknown", "Agent unknown", "There is no such agent");
    if (route.name == "certificate") return renew(request, *known);
    if (route.name == "session") return begin_session(request, agent_id);
    if (route.name == "leave") return leave(request, *known);
    if (route.name == "heartbeat") return heartbeat(request, *known);
    return tell_facts(request, *known);
}

net::Response FakeCore::enroll(const net::Request& request) {
    const auto body = read_body(request);
    if (!body) return body.error();
    ContractFaults wrong;
    const auto enrolment = read_enrolment(*body, wrong);
    if (!wrong.empty()) return refuse("somebody", "enroll", wrong);

    const auto used = used_tokens_.find(enrolment.token);
    if (used != used_tokens_.end() && used->second != enrolment.install_id)
        return problem(403, "token_used", "Token used", "Another installation enrolled with this token");
    if (used == used_tokens_.end() && !settings.tokens.contains(enrolment.token))
        return problem(403, "token_unknown", "Token unknown", "There is no such token");

    auto id = installs_.contains(enrolment.install_id) ? installs_.at(enrolment.install_id) : std::string{};
    if (id.empty()) id = fmt::format("node-{:012x}", random_.next() >> 16U);
    const auto issued = issue_(enrolment.csr, id, settings.certificate_lifetime);
    if (!issued) return refuse(id, "enroll", {"/csr: is no request that is signed with its key"});
    used_tokens_.insert_or_assign(enrolment.token, enrolment.install_id);
    installs_.insert_or_assign(enrolment.install_id, id);
    auto& agent = agents_[id];
    agent.id = id;
    agent.install_id = enrolment.install_id;
    agent.name = enrolment.name;
    agent.version = enrolment.version;
    agent.resources = enrolment.resources;
    agent.addresses = enrolment.addresses;
    agent.certificate_expires = issued->expires;
    ++agent.certificates;
    return answer(201, {{"agent_id", id},
                        {"certificate", issued->certificate},
                        {"ca", settings.ca},
                        {"core_urls", json::array(settings.core_urls.begin(), settings.core_urls.end())}});
}

net::Response FakeCore::renew(const net::Request& request, Agent& agent) {
    const auto body = read_body(request);
    if (!body) return body.error();
    ContractFaults wrong;
    const auto csr = read_renewal(*body, wrong);
    if (!wrong.empty()) return refuse(agent.id, "certificate", wrong);
    const auto issued = issue_(csr, agent.id, settings.certificate_lifetime);
    if (!issued) return refuse(agent.id, "certificate", {"/csr: is no request that is signed with its key"});
    agent.certificate_expires = issued->expires;
    ++agent.certificates;
    json::object renewed{{"certificate", issued->certificate}};
    if (!settings.ca.empty()) renewed["ca"] = settings.ca;
    return answer(200, renewed);
}

net::Response FakeCore::begin_session(const net::Request& request, const std::string& agent_id) {
    auto& agent = agents_.at(agent_id);
    const auto body = read_body(request);
    if (!body) return body.error();
    ContractFaults wrong;
    const auto begin = read_session_begin(*body, wrong);
    if (!wrong.empty()) return refuse(agent_id, "session", wrong);
    // Within an epoch the host is never booted: this is a copy.
    const bool is_copy = begin.epoch == agent.epoch && !agent.boot_id.empty() && begin.boot_id != agent.boot_id;
    if (begin.epoch < agent.epoch || is_copy) return problem_of(409);

    agent.epoch = begin.epoch;
    agent.boot_id = begin.boot_id;
    agent.name = begin.name;
    agent.version = begin.version;
    agent.features = begin.features;
    agent.resources = begin.resources;
    agent.addresses = begin.addresses;
    agent.session_id = base::make_uuid(clock_, random_);
    agent.seq = 0;
    agent.synced = false;
    agent.rev = 0;
    agent.state_rev = 0;
    agent.acked = {0};
    agent.left = false;
    agent.heard = clock_.now();
    return answer(200, {{"session_id", agent.session_id},
                        {"ttl_s", settings.ttl_s},
                        {"grace_s", settings.grace_s},
                        {"full_sync_every_s", settings.full_sync_every_s},
                        {"server_time", base::rfc3339_ms(told_time())}});
}

net::Response FakeCore::leave(const net::Request& request, Agent& agent) {
    if (!request.body.empty()) return refuse(agent.id, "leave", {": there is no body"});
    if (agent.session_id.empty()) return problem_of(404);
    agent.session_id.clear();
    agent.left = true;
    return {.status = 204, .content_type = {}};
}

net::Response FakeCore::heartbeat(const net::Request& request, Agent& agent) {
    const auto body = read_body(request);
    if (!body) return body.error();
    ContractFaults wrong;
    const auto beat = read_beat(*body, request.body.size(), wrong);
    if (!wrong.empty()) return refuse(agent.id, "heartbeat", wrong);
    if (auto refused = check_session(agent, beat.session_id, beat.epoch)) return *std::move(refused);

    if (beat.seq <= agent.seq) {
        // The last one may come twice: its answer was lost on the way.
        if (beat.seq < agent.seq && settings.in_order)
            note(fmt::format("{} heartbeat: seq {} after {}", agent.id, beat.seq, agent.seq));
    } else {
        check_order(agent, beat, wrong);
        if (!wrong.empty()) return refuse(agent.id, "heartbeat", wrong);
        apply(agent, beat);
        agent.last_beat_bytes = request.body.size();
    }
    agent.acked.insert(agent.rev);
    const bool wants_full = !agent.synced || agent.state_rev > agent.rev;
    json::object told{{"ttl_s", settings.ttl_s},
                      {"server_time", base::rfc3339_ms(told_time())},
                      {"ack_rev", agent.rev},
                      {"want", wants_full ? "full" : "delta"},
                      {"commands", commands_for(agent)}};
    if (!settings.core_urls.empty())
        told["core_urls"] = json::array(settings.core_urls.begin(), settings.core_urls.end());
    return answer(200, told);
}

std::optional<net::Response> FakeCore::check_session(const Agent& agent, const std::string& session_id,
                                                     std::uint64_t epoch) {
    if (epoch < agent.epoch) return problem_of(409);
    if (agent.session_id.empty() || session_id != agent.session_id) return problem_of(404);
    if (epoch > agent.epoch)
        return refuse(agent.id, "session",
                      {fmt::format("/epoch: {} in a session that epoch {} began", epoch, agent.epoch)});
    return std::nullopt;
}

void FakeCore::check_order(const Agent& agent, const CoreBeat& beat, ContractFaults& wrong) const {
    if (!agent.acked.contains(beat.base_rev))
        wrong.push_back(fmt::format("/base_rev: {} was not acked, or a newer one was used before", beat.base_rev));
    if (beat.state_rev < agent.state_rev)
        wrong.push_back(fmt::format("/state_rev: {} after {}", beat.state_rev, agent.state_rev));
    for (std::size_t i = 0; i < beat.acks.size(); ++i)
        check_outcome(agent, beat.acks[i], fmt::format("/acks/{}", i), wrong);
}

void FakeCore::check_outcome(const Agent& agent, const CoreAck& ack, std::string_view where,
                             ContractFaults& wrong) const {
    const auto* command = this->command(ack.cmd_id);
    // Of another Core that the agent was with, or of a time that this one forgot.
    if (command == nullptr) return;
    if (command->agent_id != agent.id || command->delivered == 0)
        return wrong.push_back(fmt::format("{}/cmd_id: {} was not delivered", where, ack.cmd_id));
    if (!command->told.empty() && rank_of(ack.state) == 3 && command->told != ack.state)
        wrong.push_back(
            fmt::format("{}/state: {} of {}, whose result is told as {}", where, ack.state, ack.cmd_id, command->told));
    if (rank_of(ack.state) < rank_of(command->state) || (command->ended() && ack.state != command->state))
        wrong.push_back(fmt::format("{}/state: {} of {} after {}", where, ack.state, ack.cmd_id, command->state));
    if (ack.state == "rejected" && rank_of(command->state) == 2)
        wrong.push_back(fmt::format("{}/state: {} was begun, and is rejected", where, ack.cmd_id));
    if (!ack.operation.empty() && !command->operation.empty() && ack.operation != command->operation)
        wrong.push_back(fmt::format("{}/operation: {} is done twice, by {} and {}", where, ack.cmd_id,
                                    command->operation, ack.operation));
}

void FakeCore::apply(Agent& agent, const CoreBeat& beat) {
    agent.seq = beat.seq;
    agent.state_rev = beat.state_rev;
    agent.acked.erase(agent.acked.begin(), agent.acked.lower_bound(beat.base_rev));
    agent.heard = clock_.now();
    agent.last_beat = agent.heard;
    agent.last_beat_wall = clock_.wall();
    agent.clock_ahead = std::chrono::duration_cast<std::chrono::milliseconds>(beat.wall - clock_.wall());
    agent.conditions = beat.conditions;
    ++agent.beats;
    ++agent.reasons[beat.reason];
    for (const auto& ack : beat.acks) apply(ack);
    if (!beat.delta) return;

    const auto& delta = *beat.delta;
    if (delta.full) {
        agent.vms = delta.upsert;
        agent.rev = beat.state_rev;
        agent.synced = true;
        ++agent.full_syncs;
    } else {
        if (!agent.synced || beat.base_rev > agent.rev) return;
        for (const auto& [id, vm] : delta.upsert) agent.vms.insert_or_assign(id, vm);
        for (const auto& id : delta.remove) agent.vms.erase(id);
        agent.rev = std::max(agent.rev, beat.state_rev);
    }
    if (delta.resources) agent.resources = *delta.resources;
}

void FakeCore::apply(const CoreAck& ack) {
    auto* const known = find(ack.cmd_id);
    if (known == nullptr) return;
    auto& command = *known;
    if (!ack.operation.empty()) command.operation = ack.operation;
    if (command.state == ack.state) return;
    command.state = ack.state;
    command.acks.push_back(ack.state);
    command.problem = ack.problem;
}

json::array FakeCore::commands_for(const Agent& agent) {
    const bool again = hits(faults.delivered_again);
    const bool doubled = hits(faults.doubled);
    std::vector<Command*> due;
    for (auto& command : commands_) {
        if (command.agent_id == agent.id && (again || !command.ended())) due.push_back(&command);
    }
    // The newest, when old ones are delivered again: the others had their turn.
    if (again && due.size() > commands_in_answer)
        due.erase(due.begin(), due.end() - static_cast<std::ptrdiff_t>(commands_in_answer));
    if (hits(faults.reordered)) {
        for (std::size_t i = due.size(); i > 1; --i) std::swap(due[i - 1], due[random_.next() % i]);
    }
    json::array all;
    std::size_t bytes = 0;
    for (auto* command : due) {
        for (int i = doubled ? 2 : 1; i > 0; --i) {
            bytes += json::serialize(command->command).size() + 1;
            if (all.size() == commands_in_answer || bytes > answer_bytes) return all;
            all.emplace_back(command->command);
            ++command->delivered;
        }
    }
    return all;
}

net::Response FakeCore::tell_facts(const net::Request& request, Agent& agent) {
    const auto body = read_body(request);
    if (!body) return body.error();
    ContractFaults wrong;
    const auto batch = read_facts(*body, wrong);
    if (!wrong.empty()) return refuse(agent.id, "facts", wrong);
    if (auto refused = check_session(agent, batch.session_id, batch.epoch)) return *std::move(refused);
    check_facts(agent, batch, wrong);
    if (!wrong.empty()) return refuse(agent.id, "facts", wrong);

    for (const auto& fact : batch.items) {
        if (fact.rev <= agent.ack_rev) continue;
        agent.ack_rev = fact.rev;
        facts_.push_back({agent.id, fact});
        auto* const command = fact.result ? find(fact.result->cmd_id) : nullptr;
        if (command != nullptr) command->told = fact.result->state;
        if (!fact.vm_id.empty()) agent.exists[fact.vm_id] = fact.kind == "vm.created";
    }
    return answer(200, {{"ack_rev", agent.ack_rev}});
}

void FakeCore::check_facts(const Agent& agent, const CoreFactBatch& batch, ContractFaults& wrong) {
    auto exists = agent.exists;
    std::set<std::string> told;
    for (std::size_t i = 0; i < batch.items.size(); ++i) {
        const auto& fact = batch.items[i];
        const auto where = fmt::format("/items/{}", i);
        if (fact.rev <= agent.ack_rev) {
            const auto same = std::ranges::find_if(
                facts_, [&](const Fact& known) { return known.agent_id == agent.id && known.fact.rev == fact.rev; });
            // Ignored, as the contract says; but a number that was used for another fact is the agent's fault.
            if (same == facts_.end() || same->fact.told != fact.told)
                note(fmt::format("{} facts: {} is told otherwise than before", agent.id, fact.rev));
            continue;
        }
        if (fact.result) {
            check_outcome(agent, *fact.result, where, wrong);
            const auto* command = this->command(fact.result->cmd_id);
            if (!told.insert(fact.result->cmd_id).second || (command != nullptr && !command->told.empty()))
                wrong.push_back(fmt::format("{}: the result of {} is told twice", where, fact.result->cmd_id));
        } else {
            const auto known = exists.find(fact.vm_id);
            const bool creates = fact.kind == "vm.created";
            if (known != exists.end() && known->second == creates)
                wrong.push_back(fmt::format("{}: {} of {}, twice in a row", where, fact.kind, fact.vm_id));
            exists[fact.vm_id] = creates;
        }
    }
}

void FakeCore::end_lapsed(Agent& agent) const {
    const auto limit = std::chrono::seconds{settings.ttl_s} + std::chrono::seconds{settings.grace_s};
    if (!agent.session_id.empty() && clock_.now() - agent.heard > limit) agent.session_id.clear();
}

std::string FakeCore::queue(const std::string& agent_id, json::object command) {
    if (!agents_.contains(agent_id)) throw std::invalid_argument{"there is no agent " + agent_id};
    if (!command.contains("id")) command["id"] = base::make_uuid(clock_, random_);
    const auto* id = command["id"].if_string();
    if (id == nullptr || !is_core_id(*id)) throw std::invalid_argument{"id must be 1 to 64 of A-Za-z0-9._-"};
    std::string name{*id};
    if (by_id_.contains(name)) throw std::invalid_argument{"there is a command " + name};
    if (json::serialize(command).size() > command_bytes) throw std::invalid_argument{"a command has at most 256 KiB"};
    by_id_.emplace(name, commands_.size());
    commands_.push_back({.id = name, .agent_id = agent_id, .command = std::move(command), .queued = clock_.wall()});
    return name;
}

FakeCore::Agent& FakeCore::add_agent(const std::string& id) {
    auto& agent = agents_[id];
    agent.id = id;
    return agent;
}

void FakeCore::forget_sessions() {
    for (auto& [id, agent] : agents_) {
        agent.epoch = 0;
        agent.session_id.clear();
        agent.rev = 0;
        agent.state_rev = 0;
        agent.synced = false;
        agent.vms.clear();
    }
}

FakeCore::Agent* FakeCore::agent(const std::string& id) {
    const auto found = agents_.find(id);
    return found == agents_.end() ? nullptr : &found->second;
}

FakeCore::Command* FakeCore::find(std::string_view id) {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &commands_[found->second];
}

const FakeCore::Command* FakeCore::command(std::string_view id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &commands_[found->second];
}

std::string_view FakeCore::presence(const Agent& agent) const {
    if (agent.left) return "left";
    if (!agent.last_beat) return "never seen";
    const auto silent = clock_.now() - *agent.last_beat;
    if (silent <= std::chrono::seconds{settings.ttl_s}) return "online";
    return silent <= std::chrono::seconds{settings.ttl_s + settings.grace_s} ? "disconnected" : "lost";
}

net::Response FakeCore::refuse(std::string_view who, std::string_view route, const ContractFaults& wrong) {
    auto detail = fmt::format("{}", fmt::join(wrong, "; "));
    if (detail.size() > most_detail) {
        auto end = most_detail;
        while ((static_cast<unsigned char>(detail[end]) & 0xC0U) == 0x80U) --end;  // no half of a character
        detail.resize(end);
    }
    note(fmt::format("{} {}: {}", who, route, detail));
    return problem(422, "validation_failed", "Validation failed", detail);
}

void FakeCore::note(std::string violation) {
    if (violations_.size() < most_violations) violations_.push_back(std::move(violation));
}

bool FakeCore::hits(Chance& chance) {
    if (chance.next > 0) {
        --chance.next;
        return true;
    }
    if (chance.probability <= 0) return false;
    return chance.probability >= 1 || random_.uniform() < chance.probability;
}

base::Wall FakeCore::told_time() const { return clock_.wall() + std::chrono::seconds{faults.clock_off_s}; }

}  // namespace ghost::fakes
