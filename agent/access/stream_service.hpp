// The ways into a VM: its console, its display, the ports of its guest.
#pragma once

#include "agent/access/console_hub.hpp"
#include "agent/access/far_end.hpp"
#include "agent/access/guest_dialer.hpp"
#include "agent/access/relay.hpp"
#include "agent/access/screenshots.hpp"
#include "agent/access/tickets.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/context.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "base/task_group.hpp"
#include "net/websocket.hpp"
#include "storage/files.hpp"
#include "virt/hypervisor.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>

namespace ghost::agent {

// Errors of what is about a VM: not_found, forbidden (it isn't managed), state_conflict (it doesn't run). `vm` is an id
// or a name. Loop thread only.
class StreamService {
public:
    // What a client that knows events offers.
    static constexpr std::string_view protocol = "ghost.stream.v1";
    static constexpr std::chrono::seconds dialling{10};         // how long a guest's port is tried
    static constexpr std::chrono::seconds display_patience{2};  // between the end of a display and that of its VM
    static constexpr std::chrono::seconds window_patience{5};   // with a guest that is told of a window's size

    // All of it outlives the service.
    struct Ground {
        boost::asio::any_io_executor executor;
        VmIndex& vms;
        virt::Hypervisor& hypervisor;
        storage::Files& files;
        base::Clock& clock;
        base::Random& random;
        base::Log& log;
        GuestDialer* dialer = nullptr;  // null: no guest is dialled
    };
    // `idle_timeout`: how long a stream may go without data.
    StreamService(Ground ground, base::Duration idle_timeout);
    // Of streams that begin later.
    void use_idle_timeout(base::Duration idle_timeout) { idle_timeout_ = idle_timeout; }

    // What the WebSocket of a stream that is open is handed to. Destroyed without, it closes the stream.
    using Serve = std::function<boost::asio::awaitable<void>(net::WebSocket&)>;
    template <class T>
    using Task = boost::asio::awaitable<base::Result<T>>;

    struct ConsoleWish {
        bool force = false;
        bool read_only = false;
    };
    // Errors besides: draining, those of ConsoleHub::join.
    [[nodiscard]] Task<Serve> console(base::Context context, std::string vm, ConsoleWish wish);
    // Errors besides: draining, those of Hypervisor::open_display.
    [[nodiscard]] Task<Serve> display(base::Context context, std::string vm);
    // Errors besides: draining, those of GuestDialer::connect.
    [[nodiscard]] Task<Serve> forward(base::Context context, std::string vm, std::uint16_t port);

    [[nodiscard]] Task<std::shared_ptr<const Screenshot>> screenshot(std::string vm);
    // Of a VM that needn't run. not_found: it has no log, too.
    [[nodiscard]] Task<std::string> console_log(std::string vm, std::size_t bytes);

    // Of a VM that needn't run.
    [[nodiscard]] base::Result<Tickets::Issued> issue(const base::Principal& who, std::string_view vm, StreamKind kind,
                                                      std::uint16_t port);
    [[nodiscard]] base::Result<base::Principal> redeem(std::string_view ticket, std::string_view vm, StreamKind kind,
                                                       std::uint16_t port);

    // No new ones; those that are open end, and their clients are told why.
    void close();
    // After close(), when no client is served any more.
    [[nodiscard]] boost::asio::awaitable<void> drain();

    struct Figures {  // since the start, but for `open`
        StreamKind kind = StreamKind::console;
        std::size_t open = 0;
        std::uint64_t from_clients = 0;  // bytes
        std::uint64_t to_clients = 0;
    };
    [[nodiscard]] const std::array<Figures, 3>& figures() const noexcept { return figures_; }

private:
    struct Stream;
    [[nodiscard]] base::Result<const Vm*> managed(std::string_view vm) const;
    [[nodiscard]] base::Result<const Vm*> running(std::string_view vm) const;
    [[nodiscard]] base::Result<const Vm*> open_to(std::string_view vm) const;
    [[nodiscard]] Figures& figures_of(StreamKind kind) { return figures_.at(static_cast<std::size_t>(kind)); }
    [[nodiscard]] Serve serving(Stream stream);
    [[nodiscard]] boost::asio::awaitable<void> serve(std::shared_ptr<Stream> stream, net::WebSocket& client);
    [[nodiscard]] Task<std::shared_ptr<ConsoleLine>> open_line(std::string vm);
    [[nodiscard]] boost::asio::awaitable<void> tell_window(std::string vm, WindowSize size);

    Ground g_;
    base::Duration idle_timeout_;
    Tickets tickets_;
    base::TaskGroup tasks_;
    Consoles consoles_;
    Screenshots screenshots_;
    std::list<Relay*> relays_;
    std::array<Figures, 3> figures_{Figures{StreamKind::console}, Figures{StreamKind::vnc},
                                    Figures{StreamKind::forward}};
    bool closed_ = false;
};

}  // namespace ghost::agent
