#include "agent/forwards/open_forward.hpp"
#include "base/task_group.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace ghost::agent {
namespace {

namespace asio = boost::asio;
namespace ip = boost::asio::ip;
using boost::system::error_code;

constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t largest = 64 * 1024;  // of a datagram
constexpr int datagrams_at_once = 64;       // then others on the loop have their turn
// Of a client's, while its guest is being reached: with 256 clients, any of whose addresses may be made up, these are
// 16 MiB at most.
constexpr std::size_t most_waiting = 16;             // datagrams
constexpr std::size_t most_bytes_waiting = largest;  // in all of them
constexpr std::chrono::seconds sweep{5};             // between looks for clients that are silent

// Whose datagrams belong together.
struct Client {
    ip::udp::endpoint from;
    in_addr_t asked = INADDR_ANY;  // the address of this host that they were sent to, where it listens on all

    [[nodiscard]] bool operator<(const Client& other) const {
        return std::tie(from, asked) < std::tie(other.from, other.asked);
    }
};

// One client's way to the guest.
struct Flow {
    explicit Flow(Client whose) : client(std::move(whose)) {}

    Client client;
    std::optional<ip::udp::socket> guest = {};  // once it is reached
    ip::address address = {};                   // the guest's
    std::uint64_t revision = 0;                 // of the VM, when the address was last known to be its
    std::deque<std::string> waiting = {};
    std::size_t bytes_waiting = 0;
    base::Instant last{};  // when something came or went
    bool ended = false;

    void keep(std::string_view datagram) {
        if (waiting.size() >= most_waiting || bytes_waiting + datagram.size() > most_bytes_waiting) return;
        waiting.emplace_back(datagram);
        bytes_waiting += datagram.size();
    }
    void end() {
        ended = true;
        waiting.clear();
        error_code ignored;
        if (guest) guest->close(ignored);
    }
};

// One datagram, as recvmsg(2) and sendmsg(2) have it.
msghdr message_of(ip::udp::endpoint& peer, std::size_t peer_size, iovec& bytes) {
    msghdr message{};
    message.msg_name = peer.data();
    message.msg_namelen = static_cast<socklen_t>(peer_size);
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    return message;
}

class UdpForward final : public OpenForward {
public:
    UdpForward(ForwardsGround& ground, ForwardPlace place, ip::udp::socket socket)
        : ground_(ground),
          place_(std::move(place)),
          socket_(std::move(socket)),
          buffer_(largest),
          listener_(ground.executor, ground.log),
          ways_(ground.executor, ground.log) {
        error_code ignored;
        all_addresses_ = socket_.local_endpoint(ignored).address() == ip::address_v4::any();
        listener_.spawn("forward " + place_.name, receive());
        listener_.spawn("clients of " + place_.name, forget_silent());
    }

    void hang_up() override {
        for (auto& [client, flow] : flows_) flow->end();
        flows_.clear();
        ways_.cancel();
    }

    void close() override {
        error_code ignored;
        socket_.close(ignored);
        listener_.cancel();
        hang_up();
    }

    asio::awaitable<void> drain() override {
        co_await listener_.drain();
        co_await ways_.drain();
    }

private:
    using FlowPtr = std::shared_ptr<Flow>;

    asio::awaitable<void> receive() {
        for (;;) {
            const auto [error] = co_await socket_.async_wait(ip::udp::socket::wait_read, quiet);
            if (error || !socket_.is_open()) co_return;
            for (int i = 0; i < datagrams_at_once; ++i) {
                Client client;
                const auto length = take(client);
                if (!length) break;
                pass_on(client, {buffer_.data(), *length});
            }
        }
    }

    // The next datagram, into the buffer; nullopt: there is none now.
    std::optional<std::size_t> take(Client& client) {
        iovec room{buffer_.data(), buffer_.size()};
        alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(in_pktinfo))> control{};
        auto message = message_of(client.from, client.from.capacity(), room);
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        const auto length = ::recvmsg(socket_.native_handle(), &message, MSG_DONTWAIT);
        if (length < 0) return std::nullopt;
        client.from.resize(message.msg_namelen);
        for (auto* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part))
            if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
                in_pktinfo info{};
                std::memcpy(&info, CMSG_DATA(part), sizeof info);
                client.asked = info.ipi_spec_dst.s_addr;
            }
        return static_cast<std::size_t>(length);
    }

    void pass_on(const Client& client, std::string_view datagram) {
        auto found = flows_.find(client);
        if (found != flows_.end() && found->second->guest && !is_guests_still(*found->second)) {
            found->second->end();
            flows_.erase(found);
            found = flows_.end();
        }
        if (found == flows_.end()) {
            // Ways that are given up may still be looking for their guest.
            if (ways_.size() >= 2 * max_flows_of_forward) return;
            if (flows_.size() >= max_flows_of_forward) drop_most_silent();
            const auto flow = std::make_shared<Flow>(client);
            flow->last = ground_.clock.now();
            flow->keep(datagram);
            flows_.emplace(client, flow);
            // It begins at once, and is forgotten again where the guest can't be reached.
            ways_.spawn("forwarded datagrams", carry(flow));
            return;
        }
        auto& flow = *found->second;
        flow.last = ground_.clock.now();
        if (flow.guest)
            (void)::send(flow.guest->native_handle(), datagram.data(), datagram.size(), MSG_DONTWAIT);
        else
            flow.keep(datagram);
    }

    // Looked at again when something of the VM has changed, and now and then.
    [[nodiscard]] bool is_guests_still(Flow& flow) const {
        const auto* vm = ground_.index.find(place_.vm);
        if (vm == nullptr) return false;
        if (vm->revision == flow.revision) return true;
        flow.revision = vm->revision;
        return ground_.dialer.leads_to(place_of(*vm), flow.address);
    }

    void drop_most_silent() {
        const auto oldest = std::ranges::min_element(flows_, {}, [](const auto& entry) { return entry.second->last; });
        oldest->second->end();
        flows_.erase(oldest);
    }

    asio::awaitable<void> forget_silent() {
        while (co_await ground_.clock.sleep_for(sweep)) {
            const auto now = ground_.clock.now();
            const auto* const vm = ground_.index.find(place_.vm);
            const auto guest = vm == nullptr ? GuestPlace{} : place_of(*vm);
            std::map<ip::address, bool> known;  // flows of a guest lead to the same address, as a rule
            const auto leads_to_guest = [&](const ip::address& address) {
                const auto [at, is_new] = known.try_emplace(address, false);
                if (is_new) at->second = vm != nullptr && ground_.dialer.leads_to(guest, address);
                return at->second;
            };
            std::erase_if(flows_, [&](const auto& entry) {
                auto& flow = *entry.second;
                const bool over = flow.last + flow_idle <= now || (flow.guest && !leads_to_guest(flow.address));
                if (over) flow.end();
                return over;
            });
        }
    }

    void forget(const FlowPtr& flow) {
        const auto found = flows_.find(flow->client);
        if (found != flows_.end() && found->second == flow) flows_.erase(found);
    }

    // Reaches the guest, and brings what it sends back to the client.
    asio::awaitable<void> carry(FlowPtr flow) {
        const auto* vm = ground_.index.find(place_.vm);
        if (vm == nullptr) co_return forget(flow);
        const auto revision = vm->revision;
        auto guest =
            co_await ground_.dialer.connect_udp(place_of(*vm), place_.guest_port, ground_.clock.now() + dial_limit);
        if (flow->ended) co_return;
        if (!guest) {
            forget(flow);
            if (guest.error().code != base::Errc::cancelled) unreached_.say(ground_, place_, guest.error());
            co_return;
        }
        error_code error;
        flow->address = guest->remote_endpoint(error).address();
        flow->revision = revision;
        flow->guest.emplace(*std::move(guest));
        for (const auto& datagram : std::exchange(flow->waiting, {}))
            (void)::send(flow->guest->native_handle(), datagram.data(), datagram.size(), MSG_DONTWAIT);
        while (!flow->ended) {
            const auto [failed] = co_await flow->guest->async_wait(ip::udp::socket::wait_read, quiet);
            if (failed || flow->ended) break;
            bring_back(*flow);
        }
        forget(flow);
    }

    void bring_back(Flow& flow) {
        for (int i = 0; i < datagrams_at_once; ++i) {
            const auto length = ::recv(flow.guest->native_handle(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
            // A port where nobody listens is told as an error of the socket, which goes on.
            if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
            if (length < 0) continue;
            flow.last = ground_.clock.now();
            answer(flow.client, {buffer_.data(), static_cast<std::size_t>(length)});
        }
    }

    void answer(Client& client, std::string_view datagram) {
        // sendmsg(2) takes what it only reads as if it were to write there.
        auto* const start = const_cast<char*>(datagram.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
        iovec bytes{start, datagram.size()};
        alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(in_pktinfo))> control{};
        auto message = message_of(client.from, client.from.size(), bytes);
        if (all_addresses_) {
            message.msg_control = control.data();
            message.msg_controllen = control.size();
            auto* part = CMSG_FIRSTHDR(&message);
            part->cmsg_level = IPPROTO_IP;
            part->cmsg_type = IP_PKTINFO;
            part->cmsg_len = CMSG_LEN(sizeof(in_pktinfo));
            in_pktinfo info{};
            info.ipi_spec_dst.s_addr = client.asked;
            std::memcpy(CMSG_DATA(part), &info, sizeof info);
        }
        (void)::sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT);
    }

    ForwardsGround& ground_;
    ForwardPlace place_;
    ip::udp::socket socket_;
    std::vector<char> buffer_;  // of one datagram, which is passed on before the next is taken
    std::map<Client, FlowPtr> flows_;
    UnreachedLog unreached_;
    base::TaskGroup listener_;
    base::TaskGroup ways_;
    bool all_addresses_ = false;
};

}  // namespace

std::unique_ptr<OpenForward> forward_udp(ForwardsGround& ground, ForwardPlace place, ip::udp::socket socket) {
    return std::make_unique<UdpForward>(ground, std::move(place), std::move(socket));
}

}  // namespace ghost::agent
