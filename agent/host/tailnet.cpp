#include "agent/host/tailnet.hpp"

#include "agent/json_reader.hpp"
#include "base/cancelled.hpp"

#include <boost/asio/ip/address.hpp>
#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

constexpr std::chrono::seconds answer_limit{5};
constexpr std::size_t max_answer = 256 * 1024;  // without its peers it has a few KiB
constexpr std::size_t max_depth = 16;
constexpr std::size_t max_addresses = 8;
constexpr std::size_t max_name = 255;
constexpr std::string_view status_target = "/localapi/v0/status?peers=false";
constexpr std::string_view host = "local-tailscaled.sock";  // what tailscaled insists on, against DNS rebinding

const json::object* object_in(const json::object& object, std::string_view key) {
    const auto* const member = object.if_contains(key);
    return member == nullptr ? nullptr : member->if_object();
}

std::string text_in(const json::object& object, std::string_view key, std::size_t most) {
    const auto* const member = object.if_contains(key);
    const auto* const text = member == nullptr ? nullptr : member->if_string();
    return text == nullptr || text->size() > most ? std::string{} : std::string{*text};
}

// What goes into sentences and JSON as it is.
bool is_plain(std::string_view text) {
    return std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

// None on which a listener would be open to more than the tailnet.
bool fits(const asio::ip::address& address) {
    if (address.is_unspecified() || address.is_multicast()) return false;
    return address.is_v4() || !(address.to_v6().is_v4_mapped() || address.to_v6().is_link_local());
}

std::vector<std::string> addresses_in(const json::object& self) {
    std::vector<std::string> texts;
    const auto* const member = self.if_contains("TailscaleIPs");
    const auto* const list = member == nullptr ? nullptr : member->if_array();
    if (list == nullptr) return texts;
    std::vector<asio::ip::address> addresses;
    for (const auto& entry : *list) {
        const auto* const text = entry.if_string();
        if (text == nullptr || text->size() > 64 || addresses.size() == max_addresses) continue;
        boost::system::error_code error;
        const auto address = asio::ip::make_address(std::string{*text}, error);
        if (error || !fits(address) || std::ranges::find(addresses, address) != addresses.end()) continue;
        addresses.push_back(address);
    }
    for (const bool v4 : {true, false})
        for (const auto& address : addresses)
            if (address.is_v4() == v4) texts.push_back(address.to_string());
    return texts;
}

TailnetState not_connected(bool present, std::string reason) {
    TailnetState state;
    state.present = present;
    state.reason = std::move(reason);
    return state;
}

// A tailscaled that starts passes through these.
bool is_passing(std::string_view backend) { return backend == "NoState" || backend == "Starting"; }

}  // namespace

base::Result<TailnetState> read_tailscale_status(std::string_view answer) {
    if (answer.size() > max_answer) return base::fail(base::Errc::validation_failed, "longer than an answer can be");
    const auto document = parse_json(answer, max_depth);
    if (!document) return base::fail(document.error());
    const auto* const status = document->if_object();
    const auto backend = status == nullptr ? std::string{} : text_in(*status, "BackendState", 64);
    if (backend.empty() || !is_plain(backend))
        return base::fail(base::Errc::validation_failed, "it has no BackendState");
    if (backend != "Running") {
        auto state = not_connected(true, "not connected: " + backend);
        state.settled = !is_passing(backend);
        return state;
    }

    TailnetState state;
    state.present = state.settled = true;
    const auto* const self = object_in(*status, "Self");
    if (self != nullptr) {
        state.addresses = addresses_in(*self);
        state.dns_name = text_in(*self, "DNSName", max_name);
        if (state.dns_name.ends_with('.')) state.dns_name.pop_back();
        if (!is_plain(state.dns_name)) state.dns_name.clear();
    }
    const auto* const online = self == nullptr ? nullptr : self->if_contains("Online");
    const bool offline = online != nullptr && online->is_bool() && !online->get_bool();
    state.connected = !state.addresses.empty() && !offline;
    state.reason = state.addresses.empty() ? "not connected: it has no address in the tailnet"
                   : offline               ? "not connected: the coordination server is out of reach"
                                           : "";
    return state;
}

asio::awaitable<TailnetState> ask_tailscaled(storage::Files& files, net::Client& tailscaled, std::string socket,
                                             std::chrono::milliseconds limit) {
    const auto file = co_await files.stat(std::move(socket));
    if (!file || !*file) co_return not_connected(false, "tailscaled isn't there");
    net::ClientRequest request;
    request.target = status_target;
    request.headers.set("Host", std::string{host});
    request.timeout = limit;
    request.max_body = max_answer;
    const auto answer = co_await tailscaled.send(std::move(request));
    if (!answer) co_return not_connected(true, "tailscaled doesn't answer: " + answer.error().detail);
    if (answer->status != 200) co_return not_connected(true, fmt::format("tailscaled answers {}", answer->status));
    auto state = read_tailscale_status(answer->body);
    if (!state) co_return not_connected(true, "tailscaled's answer is none: " + state.error().detail);
    co_return *std::move(state);
}

Tailnet::Tailnet(const asio::any_io_executor& executor, World world, std::string socket, bool wanted)
    : w_(world), socket_(std::move(socket)), wanted_(wanted), told_(executor) {
    state_.since = w_.clock.wall();
}

void Tailnet::look_again() {
    look_again_ = true;
    told_.notify();
}

asio::awaitable<void> Tailnet::run() {
    if (w_.tailscaled == nullptr) co_return;
    co_await asio::this_coro::throw_if_cancelled(false);
    for (;;) {
        look_again_ = false;
        auto fresh = co_await ask_tailscaled(w_.files, *w_.tailscaled, socket_, answer_limit);
        if (co_await base::is_cancelled()) co_return;
        take(with_what_was_known(std::move(fresh)));
        // Told while it looked, or by those who heard of the change: what it saw may be old.
        if (!look_again_) co_await told_.wait_until(w_.clock, w_.clock.now() + interval);
        if (co_await base::is_cancelled()) co_return;
        if (!look_again_) continue;
        co_await w_.clock.sleep_until(next_told_look_);
        if (co_await base::is_cancelled()) co_return;
        next_told_look_ = w_.clock.now() + pause;
    }
}

// Its restart, of a second or so, would else close the listeners and their connections.
TailnetState Tailnet::with_what_was_known(TailnetState fresh) {
    const auto now = w_.clock.now();
    if (fresh.settled) {
        settled_at_ = now;
        return fresh;
    }
    if (!settled_at_ || now - *settled_at_ >= patience || state_.addresses.empty()) return fresh;
    fresh.present = true;
    fresh.addresses = state_.addresses;
    fresh.dns_name = state_.dns_name;
    fresh.reason += "; it is taken to have its addresses for a while";
    return fresh;
}

void Tailnet::take(TailnetState fresh) {
    looked_ = true;
    const bool as_before =
        fresh.present == state_.present && fresh.connected == state_.connected && fresh.reason == state_.reason;
    fresh.since = as_before ? state_.since : w_.clock.wall();
    const bool same = as_before && fresh.addresses == state_.addresses && fresh.dns_name == state_.dns_name;
    state_ = std::move(fresh);
    if (same) return;
    if (matters() || !as_before)
        w_.log.info("the tailnet", {{"connected", state_.connected},
                                    {"addresses", fmt::format("{}", fmt::join(state_.addresses, ", "))},
                                    {"reason", state_.reason}});
    on_changed();
}

json::value Tailnet::to_json() const {
    if (!matters()) return nullptr;
    const auto text = [](const std::string& t) { return t.empty() ? json::value(nullptr) : json::value(t); };
    return json::object{{"connected", state_.connected},
                        {"addresses", json::array(state_.addresses.begin(), state_.addresses.end())},
                        {"dns_name", text(state_.dns_name)},
                        {"reason", text(state_.reason)}};
}

}  // namespace ghost::agent
