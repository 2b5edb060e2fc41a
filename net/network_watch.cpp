#include "net/network_watch.hpp"

#include "base/descriptor.hpp"
#include "net/network_view.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace ghost::net {
namespace {

namespace asio = boost::asio;

constexpr std::size_t room = 64 * 1024;  // the kernel's dumps come in at most half of that
constexpr int datagrams_at_once = 64;    // then others on the loop have their turn
constexpr unsigned dump_tries = 5;       // in a row that were interrupted
constexpr int socket_room = 1024 * 1024;
constexpr int most_queued = 16 * 1024;  // datagrams, more than the socket has room for
constexpr std::array<std::uint16_t, 3> dumps{RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE};

base::Result<base::Descriptor> open_socket() {
    base::Descriptor socket{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)};
    if (!socket) return base::fail(base::errno_error(errno, "cannot watch the network"));
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return base::fail(base::errno_error(errno, "cannot watch the network"));
    // As much as the system grants: what doesn't fit costs another dump.
    if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &socket_room, sizeof socket_room) != 0)
        (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &socket_room, sizeof socket_room);
    return socket;
}

class RtnetlinkWatch final : public NetworkWatch {
public:
    RtnetlinkWatch(const asio::any_io_executor& executor, base::Descriptor socket)
        : socket_(executor, socket.release()), buffer_(room) {}

    asio::awaitable<bool> changed() override {
        if (broken_ && !start_over()) co_return false;
        for (;;) {
            if (!asked_ && !ask()) co_return !(broken_ = true);
            const auto [error] = co_await socket_.async_wait(asio::posix::stream_descriptor::wait_read,
                                                             asio::as_tuple(asio::use_awaitable));
            if (error) co_return false;
            bool told = false;
            broken_ = !read(told);
            if (told) co_return true;
            if (broken_) co_return false;
        }
    }

private:
    // With a socket of its own. False: there is none to be had.
    [[nodiscard]] bool start_over() {
        auto socket = open_socket();
        if (!socket) return false;
        boost::system::error_code ignored;
        socket_.close(ignored);
        socket_.assign(socket->release(), ignored);
        dump_ = 0;
        asked_ = interrupted_ = broken_ = false;
        tries_ = 0;
        unsure_ = true;  // what happened since it broke isn't known
        return true;
    }

    // For the next of the dumps that a view begins with.
    [[nodiscard]] bool ask() {
        if (dump_ == 0) {
            drop_queued();
            fresh_.clear();
        }
        struct {
            nlmsghdr header;
            rtgenmsg body;
        } request{};
        request.header.nlmsg_len = NLMSG_LENGTH(sizeof request.body);
        request.header.nlmsg_type = dumps.at(dump_);
        request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.header.nlmsg_seq = ++sequence_;
        request.body.rtgen_family = AF_UNSPEC;
        asked_ = ::send(socket_.native_handle(), &request, request.header.nlmsg_len, MSG_DONTWAIT) >= 0;
        return asked_;
    }

    // It is older than what the dumps will say; and once the socket was full, the kernel drops what comes, without
    // another word, until all of it is read.
    void drop_queued() {
        std::byte ignored{};
        for (int i = 0; i < most_queued; ++i)
            if (::recv(socket_.native_handle(), &ignored, sizeof ignored, MSG_DONTWAIT | MSG_TRUNC) < 0 &&
                errno != EINTR && errno != ENOBUFS)
                return;
    }

    // What is there. False: the socket is of no more use.
    [[nodiscard]] bool read(bool& told) {
        for (int i = 0; i < datagrams_at_once && asked_; ++i) {
            sockaddr_nl sender{};
            socklen_t size = sizeof sender;
            const auto length = ::recvfrom(socket_.native_handle(), buffer_.data(), buffer_.size(),
                                           MSG_DONTWAIT | MSG_TRUNC, reinterpret_cast<sockaddr*>(&sender), &size);
            if (length < 0 && errno == EINTR) continue;
            if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
            if (length < 0 && errno != ENOBUFS) return false;
            if (length < 0 || static_cast<std::size_t>(length) > buffer_.size()) {
                take_loss();
                continue;
            }
            if (sender.nl_pid != 0) continue;  // not the kernel
            if (!take(std::span{buffer_}.first(static_cast<std::size_t>(length)), told)) return false;
        }
        return true;
    }

    // Some of what was sent is lost. A dump that is under way has to end before the next may begin.
    void take_loss() {
        if (!watching()) {
            interrupted_ = true;
            return;
        }
        dump_ = 0;
        asked_ = false;
    }

    // False: the next dump can't be asked for.
    [[nodiscard]] bool take(std::span<const std::byte> datagram, bool& told) {
        if (watching()) {
            const auto news = view_.take(datagram);
            told = told || news.changed;
            if (news.interrupted) take_loss();
            return true;
        }
        const auto news = fresh_.take(datagram);
        interrupted_ = interrupted_ || news.interrupted;
        return !news.dump_ended || end_dump(told);
    }

    // The same.
    [[nodiscard]] bool end_dump(bool& told) {
        ++dump_;
        if (std::exchange(interrupted_, false)) {
            if (++tries_ < dump_tries)
                dump_ = 0;
            else
                unsure_ = true;
        }
        if (!watching()) return ask();
        const bool differs = known_ && !fresh_.is_same_way_out(view_);
        told = told || differs || std::exchange(unsure_, false);
        view_ = std::exchange(fresh_, {});
        known_ = true;
        tries_ = 0;
        return true;
    }

    [[nodiscard]] bool watching() const noexcept { return dump_ == dumps.size(); }

    asio::posix::stream_descriptor socket_;
    std::vector<std::byte> buffer_;
    NetworkView view_;      // as it was last told of
    bool known_ = false;    // it is more than a beginning
    NetworkView fresh_;     // made by the dumps, and by what changes meanwhile
    std::size_t dump_ = 0;  // which one is under way; all are through: we watch
    bool asked_ = false;
    bool interrupted_ = false;
    bool unsure_ = false;  // whether it changed: that is told once all dumps are through
    bool broken_ = false;  // the socket is of no more use
    unsigned tries_ = 0;
    std::uint32_t sequence_ = 0;
};

}  // namespace

base::Result<std::unique_ptr<NetworkWatch>> make_network_watch(asio::any_io_executor executor) {
    auto socket = open_socket();
    if (!socket) return base::fail(std::move(socket).error());
    return std::make_unique<RtnetlinkWatch>(executor, *std::move(socket));
}

}  // namespace ghost::net
