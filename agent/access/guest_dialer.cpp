#include "agent/access/guest_dialer.hpp"

#include "agent/vm/vm_index.hpp"
#include "net/neighbours.hpp"
#include "net/watchdog.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace ghost::agent {
namespace {

namespace asio = boost::asio;
namespace ip = boost::asio::ip;
using boost::system::error_code;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds answer_patience{1};    // for the guest to say whose an address is
constexpr std::chrono::milliseconds answer_look{20};  // between looks
constexpr std::uint16_t discard = 9;                  // where what is sent is dropped (RFC 863)

base::Instant now() { return std::chrono::steady_clock::now(); }

std::optional<ip::address> parsed(const std::string& text) {
    error_code error;
    auto address = ip::make_address(text, error);
    if (error) return std::nullopt;
    if (address.is_v6() && address.to_v6().is_v4_mapped())
        return ip::address{ip::make_address_v4(ip::v4_mapped, address.to_v6())};
    return address;
}

bool is_link_local(const ip::address& address) {
    if (address.is_v6()) return address.to_v6().is_link_local();
    return (address.to_v4().to_uint() >> 16U) == 0xA9FE;  // 169.254.0.0/16
}

base::Error refused(const ip::address& address, std::string_view why) {
    return {base::Errc::address_not_allowed, fmt::format("{} isn't connected to: {}", address.to_string(), why)};
}

struct Candidate {
    ip::address address;
    base::Instant deadline;
};

// Another VM that has the address. What a guest says of itself doesn't count against what libvirt gave out: any
// guest could shut another one off.
const Vm* other_with(const ip::address& address, const GuestPlace& to, const VmIndex& index) {
    const auto has = [&address](const std::vector<std::string>& texts) {
        return std::ranges::any_of(texts, [&](const std::string& text) { return parsed(text) == address; });
    };
    const auto* ours = index.find(to.vm);
    const bool given = ours != nullptr && has(ours->observed.leases);
    for (const auto& [id, vm] : index.all())
        if (id != to.vm && has(given ? vm.observed.leases : vm.observed.addresses)) return &vm;
    return nullptr;
}

// Why it isn't dialled.
std::optional<base::Error> refusal(const ip::address& address, const GuestPlace& to, const VmIndex& index) {
    if (address.is_unspecified() || address.is_multicast() || address.is_loopback() || is_link_local(address))
        return refused(address, "it isn't an address that a guest is reached at");
    if (net::is_own_address(address)) return refused(address, "it is one of this host's own");
    if (!net::is_on_link(address))
        return refused(address, "it isn't on a link of this host, where a guest's address is");
    if (const auto* other = other_with(address, to, index))
        return refused(address, fmt::format("the VM {} has it, too", other->name));
    return std::nullopt;
}

// The addresses of `to` one by one, each with a fair part of the time; and which error is told when none will do.
class Candidates {
public:
    Candidates(const GuestPlace& to, const VmIndex& index, base::Instant deadline) : deadline_(deadline) {
        if (to.addresses.empty())
            fault_ = {base::Errc::state_conflict, "the guest has no address yet, or none that is known"};
        else if (to.macs.empty())
            fault_ = {base::Errc::state_conflict, "which network cards the VM has isn't known yet"};
        if (fault_) return;
        for (const auto& text : to.addresses) {
            const auto address = parsed(text);
            if (!address) continue;
            if (auto why = refusal(*address, to, index)) {
                if (!fault_) fault_ = std::move(*why);
            } else {
                addresses_.push_back(*address);
            }
        }
    }

    [[nodiscard]] std::optional<Candidate> next() {
        if (at_ == addresses_.size()) return std::nullopt;
        const auto left = deadline_ - now();
        if (left <= base::Duration::zero()) {
            failed({base::Errc::deadline_exceeded, "connecting to the guest took too long"});
            return std::nullopt;
        }
        const auto share = left / static_cast<long>(addresses_.size() - at_);
        return Candidate{addresses_[at_++], now() + share};
    }
    // What a guest answers says more than that an address of it isn't connected to.
    void failed(base::Error why) {
        if (!tried_) fault_ = std::move(why);
        tried_ = true;
    }
    [[nodiscard]] std::unexpected<base::Error> fault() {
        if (!fault_) return base::fail(base::Errc::state_conflict, "the guest has no address that can be read");
        return base::fail(*std::move(fault_));
    }

private:
    base::Instant deadline_;
    std::vector<ip::address> addresses_;
    std::size_t at_ = 0;
    bool tried_ = false;
    std::optional<base::Error> fault_;
};

// Whether it is a card of the guest that answers for the address.
base::Result<void> check_card(const std::optional<std::string>& card, const ip::address& address,
                              const GuestPlace& to) {
    if (!card) return base::fail(refused(address, "none of the VM's network cards has answered for it"));
    if (std::ranges::find(to.macs, *card) != to.macs.end()) return {};
    return base::fail(
        refused(address, fmt::format("{} answers for it, which is none of the VM's network cards", *card)));
}

base::Error unreachable(const ip::address& address, std::uint16_t port, const error_code& error) {
    if (error == asio::error::timed_out)
        return {base::Errc::deadline_exceeded,
                fmt::format("the guest's port {} doesn't answer (at {})", port, address.to_string())};
    if (error == asio::error::connection_refused)
        return {base::Errc::source_unavailable,
                fmt::format("the guest refuses connections to its port {} (at {})", port, address.to_string())};
    return {base::Errc::source_unavailable,
            fmt::format("the guest's port {} can't be reached at {}: {}", port, address.to_string(), error.message())};
}

class NetworkDialer final : public GuestDialer {
public:
    explicit NetworkDialer(const VmIndex& index) : index_(index) {}

    Task<net::StreamSocket> connect(GuestPlace to, std::uint16_t port, base::Instant deadline) override {
        const auto executor = co_await asio::this_coro::executor;
        Candidates candidates{to, index_, deadline};
        while (const auto candidate = candidates.next()) {
            const auto& address = candidate->address;
            const net::StreamSocket::endpoint_type endpoint{ip::tcp::endpoint{address, port}};
            net::StreamSocket socket{executor};
            error_code error;
            socket.open(endpoint.protocol(), error);
            if (!error) {
                ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
                net::Watchdog<net::StreamSocket> watchdog{socket};
                const net::Watchdog<net::StreamSocket>::Guard guard{watchdog, candidate->deadline};
                const auto [failed] = co_await socket.async_connect(endpoint, quiet);
                error = guard.expired() ? error_code{asio::error::timed_out} : failed;
            }
            if (error == asio::error::operation_aborted) co_return base::fail(base::Errc::cancelled);
            if (error) {
                candidates.failed(unreachable(address, port, error));
                continue;
            }
            if (auto checked = check_card(net::link_address_of(address), address, to); !checked) {
                candidates.failed(std::move(checked).error());
                continue;
            }
            const int on = 1;
            ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            net::keep_alive(socket);
            socket.non_blocking(true, error);
            co_return std::move(socket);
        }
        co_return candidates.fault();
    }

    Task<ip::udp::socket> connect_udp(GuestPlace to, std::uint16_t port, base::Instant deadline) override {
        const auto executor = co_await asio::this_coro::executor;
        Candidates candidates{to, index_, deadline};
        while (const auto candidate = candidates.next()) {
            const auto& address = candidate->address;
            ip::udp::socket socket{executor};
            error_code error;
            socket.open(ip::udp::endpoint{address, port}.protocol(), error);
            if (!error) {
                ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
                socket.connect({address, port}, error);
            }
            if (error) {
                candidates.failed(unreachable(address, port, error));
                continue;
            }
            auto card = net::link_address_of(address);
            const auto patience = std::min(candidate->deadline, now() + answer_patience);
            if (!card && !provoke(executor, address)) {
                candidates.failed(refused(address, "nothing leads to it"));
                continue;
            }
            asio::steady_timer pause{executor};
            while (!card && now() < patience) {
                pause.expires_after(answer_look);
                if (const auto [stopped] = co_await pause.async_wait(quiet); stopped)
                    co_return base::fail(base::Errc::cancelled);
                card = net::link_address_of(address);
            }
            if (!card) {
                candidates.failed(
                    {base::Errc::source_unavailable,
                     fmt::format("the guest can't be reached: nobody answers for {}", address.to_string())});
                continue;
            }
            if (auto checked = check_card(card, address, to); !checked) {
                candidates.failed(std::move(checked).error());
                continue;
            }
            socket.non_blocking(true, error);
            co_return std::move(socket);
        }
        co_return candidates.fault();
    }

    bool leads_to(const GuestPlace& to, const ip::address& address) override {
        const auto is_it = [&address](const std::string& text) { return parsed(text) == address; };
        if (std::ranges::none_of(to.addresses, is_it) || refusal(address, to, index_)) return false;
        // Who was silent for a while is asked for anew by the kernel.
        const auto card = net::link_address_of(address);
        return !card || check_card(card, address, to);
    }

private:
    // Has the kernel ask who has the address: it does so for whatever is sent there. Nothing of a client's is in it.
    static bool provoke(const asio::any_io_executor& executor, const ip::address& address) {
        const ip::udp::endpoint nobody{address, discard};
        ip::udp::socket socket{executor};
        error_code error;
        socket.open(nobody.protocol(), error);
        if (error) return false;
        ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
        socket.non_blocking(true, error);
        socket.send_to(asio::buffer("", 0), nobody, 0, error);
        return !error;
    }

    const VmIndex& index_;
};

}  // namespace

GuestPlace place_of(const Vm& vm) {
    GuestPlace place{.vm = vm.id, .addresses = {}, .macs = vm.observed.macs};
    // What a guest says of itself may be for its own use only, as its containers' bridge.
    const auto& seen = vm.observed;
    const auto is_leased = [&seen](const std::string& a) {
        return std::ranges::find(seen.leases, a) != seen.leases.end();
    };
    for (const bool v6 : {false, true})
        for (const bool leased : {true, false})
            for (const auto& address : seen.addresses)
                if (address.contains(':') == v6 && is_leased(address) == leased) place.addresses.push_back(address);
    if (place.macs.empty())
        for (const auto& [name, mac] : vm.plan.macs) place.macs.push_back(mac);
    return place;
}

std::unique_ptr<GuestDialer> make_guest_dialer(const VmIndex& index) { return std::make_unique<NetworkDialer>(index); }

}  // namespace ghost::agent
