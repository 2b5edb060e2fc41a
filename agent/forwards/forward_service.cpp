#include "agent/forwards/forward_service.hpp"

#include "net/server.hpp"

#include <boost/asio/error.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

namespace ghost::agent {
namespace {

namespace asio = boost::asio;
namespace ip = boost::asio::ip;
using boost::system::error_code;

constexpr std::string_view not_allowed = "not_allowed";
constexpr std::string_view port_taken = "port_taken";
constexpr std::string_view no_tailnet = "no_tailnet";
constexpr std::string_view not_listening = "not_listening";
// Of several, the first is the VM's.
constexpr std::array reasons{not_allowed, port_taken, no_tailnet, not_listening};
constexpr std::string_view a_stranger = "another program";

bool is_to_listen(const Vm& vm) {
    return vm.managed && !vm.spec.forwards.empty() && (vm.phase == Phase::ready || vm.phase == Phase::provisioning) &&
           (is_running(vm) || vm.spec.power_on);
}

bool is_off(const Vm& vm) {
    const auto power = vm.observed.power;
    return power == virt::Power::off || power == virt::Power::crashed || power == virt::Power::suspended;
}

std::string text_of(const ip::address& address, std::uint16_t port) {
    return net::to_string(net::TcpEndpoint{address.to_string(), port});
}

bool overlap(const ip::address& a, const ip::address& b) {
    return a == b || (a.is_v4() == b.is_v4() && (a.is_unspecified() || b.is_unspecified()));
}

asio::awaitable<void> bury(std::unique_ptr<OpenForward> closed) { co_await closed->drain(); }

}  // namespace

ForwardService::ForwardService(const asio::any_io_executor& executor, World world, ForwardSettings settings)
    : w_(world),
      ground_{.executor = executor,
              .index = w_.index,
              .dialer = w_.dialer,
              .clock = w_.clock,
              .log = w_.log,
              .idle_timeout = settings.idle_timeout,
              .room = base::Notifier{executor}},
      rules_(settings.rules),
      told_(executor),
      tasks_(executor, w_.log),
      closing_(executor, w_.log) {}

asio::awaitable<void> ForwardService::run() {
    tasks_.spawn("forwards' VMs", follow_index());
    while (!closed_) {
        news_ = false;
        settle();
        if (news_) continue;
        if (something_failed())
            co_await told_.wait_until(w_.clock, w_.clock.now() + retry);
        else
            co_await told_.wait();
    }
}

asio::awaitable<void> ForwardService::follow_index() {
    while (!closed_) {
        co_await w_.index.changed().wait();
        wake();
    }
}

void ForwardService::wake() {
    news_ = true;
    told_.notify();
}

void ForwardService::use(ForwardSettings settings) {
    rules_ = settings.rules;
    ground_.idle_timeout = settings.idle_timeout;
    wake();
}

void ForwardService::follow_tailnet(std::vector<std::string> addresses) {
    tailnet_ = std::move(addresses);
    wake();
}

void ForwardService::close() {
    closed_ = true;
    tasks_.cancel();
    for (auto& [key, place] : places_) close_place(place);
    places_.clear();
    wake();
}

void ForwardService::close_place(Place& place) {
    if (!place.open) return;
    place.open->close();
    closing_.spawn("closed forward", bury(std::move(place.open)));
}

asio::awaitable<void> ForwardService::drain() {
    co_await tasks_.drain();
    co_await closing_.drain();
}

void ForwardService::settle() {
    Wanted wanted;
    troubles_.clear();
    for (const auto& [id, vm] : w_.index.all())
        if (is_to_listen(vm)) want(vm, wanted);
    // What one gives up another may take.
    close_unwanted(wanted);
    open_missing(wanted);
    hang_up_where_off();
    tell();
    look_for_holders();
}

void ForwardService::want(const Vm& vm, Wanted& wanted) {
    const auto trouble = [&](const std::string& name, std::string_view reason, std::string_view why) {
        troubles_[vm.id].push_back({std::string{reason}, fmt::format("{}: {}", name, why)});
    };
    for (const auto& [name, forward] : vm.spec.forwards) {
        if (const auto refused = refusal_of(forward, rules_)) {
            trouble(name, not_allowed, refused->reason);
        } else if (forward.host_address != "tailscale") {
            wanted.emplace(Key{vm.id, name, forward.host_address}, forward);
        } else if (tailnet_.empty()) {
            trouble(name, no_tailnet, "this host has no address in a tailnet now");
        } else {
            for (const auto& address : tailnet_) wanted.emplace(Key{vm.id, name, address}, forward);
        }
    }
}

void ForwardService::close_unwanted(const Wanted& wanted) {
    for (auto it = places_.begin(); it != places_.end();) {
        auto& [key, place] = *it;
        const auto still = wanted.find(key);
        if (still != wanted.end() && still->second == place.forward) {
            ++it;
            continue;
        }
        if (place.open)
            w_.log.info("a forward listens no more", {{"vm", key.vm},
                                                      {"forward", key.forward},
                                                      {"address", text_of(place.address, place.forward.host_port)}});
        close_place(place);
        it = places_.erase(it);
    }
}

void ForwardService::open_missing(const Wanted& wanted) {
    for (const auto& [key, forward] : wanted) {
        const auto it = places_.try_emplace(key, Place{.forward = forward}).first;
        if (!it->second.open) open(key, it->second);
    }
}

void ForwardService::open(const Key& key, Place& place) {
    error_code error;
    place.address = ip::make_address(key.address, error);
    const auto port = place.forward.host_port;
    const ForwardPlace of{key.vm, key.forward, place.forward.guest_port};
    if (!error && place.forward.protocol == Protocol::tcp) {
        if (auto acceptor = w_.ports.listen_tcp({place.address, port}))
            place.open = forward_tcp(ground_, of, *std::move(acceptor));
        else
            error = acceptor.error();
    } else if (!error) {
        if (auto socket = w_.ports.bind_udp({place.address, port}))
            place.open = forward_udp(ground_, of, *std::move(socket));
        else
            error = socket.error();
    }
    if (error) return cannot_open(key, place, error);
    place.reason.clear();
    place.why.clear();
    place.taken_by_stranger = false;
    w_.log.info("a forward listens", {{"vm", key.vm},
                                      {"forward", key.forward},
                                      {"address", text_of(place.address, port)},
                                      {"protocol", name_of(place.forward.protocol)},
                                      {"guest_port", place.forward.guest_port}});
}

void ForwardService::cannot_open(const Key& key, Place& place, const error_code& error) {
    const auto address = text_of(place.address, place.forward.host_port);
    const bool is_taken = error == asio::error::address_in_use;
    const auto rival = is_taken ? rival_of(key, place) : std::string{};
    const bool is_strangers = is_taken && rival.empty();
    // What was found out of the stranger stays until it is looked for anew.
    if (is_strangers && place.taken_by_stranger) return;
    auto why = is_taken ? fmt::format("{} is taken by {}", address, is_strangers ? a_stranger : rival)
                        : fmt::format("{} can't be listened on: {}", address, error.message());
    if (why != place.why)
        w_.log.warn("a forward can't listen; it is tried again",
                    {{"vm", key.vm}, {"forward", key.forward}, {"error", why}});
    place.why = std::move(why);
    place.reason = is_taken ? port_taken : not_listening;
    place.taken_by_stranger = is_strangers;
    place.next_look = base::Instant::min();
}

// Which other forward of ours has its port; empty: none.
std::string ForwardService::rival_of(const Key& key, const Place& place) const {
    for (const auto& [other_key, other] : places_) {
        if (!other.open || other.forward.protocol != place.forward.protocol ||
            other.forward.host_port != place.forward.host_port || !overlap(other.address, place.address))
            continue;
        if (other_key.vm == key.vm) return fmt::format("the forward {}", other_key.forward);
        const auto* vm = w_.index.find(other_key.vm);
        return fmt::format("VM {}'s forward {}", vm == nullptr ? other_key.vm : vm->name, other_key.forward);
    }
    return {};
}

void ForwardService::hang_up_where_off() {
    for (auto& [key, place] : places_) {
        const auto* vm = w_.index.find(key.vm);
        if (vm == nullptr) continue;
        if (place.ran && place.open && is_off(*vm)) place.open->hang_up();
        // What isn't known of it now may be as it was.
        if (is_running(*vm) || is_off(*vm)) place.ran = is_running(*vm);
    }
}

ForwardsState ForwardService::state_of(const Vm& vm) const {
    std::vector<Trouble> all;
    if (const auto found = troubles_.find(vm.id); found != troubles_.end()) all = found->second;
    for (auto it = places_.lower_bound(Key{vm.id, "", ""}); it != places_.end() && it->first.vm == vm.id; ++it)
        if (!it->second.open)
            all.push_back({it->second.reason, fmt::format("{}: {}", it->first.forward, it->second.why)});
    if (all.empty()) return {.listening = true, .reason = "listening", .message = ""};
    ForwardsState state;
    const auto rank = [](const Trouble& trouble) {
        return std::ranges::find(reasons, trouble.reason) - reasons.begin();
    };
    state.reason = std::ranges::min_element(all, {}, rank)->reason;
    for (const auto& trouble : all) state.message += (state.message.empty() ? "" : "; ") + trouble.message;
    return state;
}

void ForwardService::tell() {
    std::vector<std::pair<std::string, std::optional<ForwardsState>>> changes;
    for (const auto& [id, vm] : w_.index.all()) {
        auto state = is_to_listen(vm) ? std::optional{state_of(vm)} : std::nullopt;
        if (state != vm.observed.forwards) changes.emplace_back(id, std::move(state));
    }
    for (auto& [id, state] : changes) {
        const auto* vm = w_.index.find(id);
        if (vm == nullptr) continue;
        auto seen = vm->observed;
        seen.forwards = std::move(state);
        w_.index.observe(id, std::move(seen));
    }
}

bool ForwardService::something_failed() const {
    return std::ranges::any_of(places_, [](const auto& entry) { return !entry.second.open; });
}

void ForwardService::look_for_holders() {
    const auto now = w_.clock.now();
    const bool due = std::ranges::any_of(
        places_, [now](const auto& entry) { return entry.second.taken_by_stranger && entry.second.next_look <= now; });
    if (!due || looking_ || closed_) return;
    looking_ = true;
    tasks_.spawn("who has forwards' ports", name_holders());
}

asio::awaitable<void> ForwardService::name_holders() {
    const struct Done {
        bool& looking;
        ~Done() { looking = false; }
    } done{looking_};
    while (!closed_) {
        const auto now = w_.clock.now();
        const auto due = std::ranges::find_if(places_, [now](const auto& entry) {
            return entry.second.taken_by_stranger && entry.second.next_look <= now;
        });
        if (due == places_.end()) co_return;
        const auto key = due->first;
        const auto address = due->second.address;
        const auto forward = due->second.forward;
        due->second.next_look = now + holder_interval;
        const auto holder = co_await w_.ports.holder_of(forward.protocol, address, forward.host_port);
        const auto place = places_.find(key);
        if (place == places_.end() || !place->second.taken_by_stranger || place->second.forward != forward) continue;
        place->second.why = fmt::format("{} is taken by {}", text_of(address, forward.host_port), holder);
        tell();
    }
}

}  // namespace ghost::agent
