// The forwards of all VMs: keeps open the ports of this host that their specs
// ask for, and says with each VM whether it could.
#pragma once

#include "agent/access/guest_dialer.hpp"
#include "agent/forwards/open_forward.hpp"
#include "agent/forwards/ports.hpp"
#include "agent/vm/vm_document.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "base/task_group.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/address.hpp>

#include <chrono>
#include <compare>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ghost::agent {

// What the configuration says of them.
struct ForwardSettings {
    ForwardRules rules = {};
    base::Duration idle_timeout = std::chrono::hours{4};  // of connections that begin from now on
};

// A forward listens while its VM runs or is wanted on, from the moment its spec says so until it says otherwise, or the
// VM is about to be deleted; then what goes through it ends at once. Loop thread only; drain() before it goes.
class ForwardService {
public:
    struct World {  // all of it outlives the service
        VmIndex& index;
        GuestDialer& dialer;
        Ports& ports;
        base::Clock& clock;
        base::Log& log;
    };
    ForwardService(const boost::asio::any_io_executor& executor, World world, ForwardSettings settings);

    // Follows the VMs, and tries again every few seconds what couldn't be listened on, until cancelled or closed.
    [[nodiscard]] boost::asio::awaitable<void> run();
    void use(ForwardSettings settings);
    // This machine's addresses in its tailnet are these now.
    void follow_tailnet(std::vector<std::string> addresses);
    // Ends all of it, for good.
    void close();
    [[nodiscard]] boost::asio::awaitable<void> drain();

    // Of all forwards, over TCP, now.
    [[nodiscard]] std::size_t connections() const noexcept { return ground_.connections; }

    static constexpr std::chrono::seconds retry{3};
    static constexpr std::chrono::seconds holder_interval{30};  // between looks for who has a port

private:
    struct Key {
        std::string vm;
        std::string forward;
        std::string address;

        auto operator<=>(const Key&) const = default;
    };
    // One address and port that is to be listened on.
    struct Place {
        Forward forward;
        boost::asio::ip::address address = {};
        std::unique_ptr<OpenForward> open = {};  // null: it couldn't be, for `reason`
        std::string reason = {};
        std::string why = {};            // a sentence without its subject: "127.0.0.1:8080 is taken by ..."
        bool taken_by_stranger = false;  // whose name /proc may tell
        base::Instant next_look = base::Instant::min();
        bool ran = false;  // its VM, when it was last looked at
    };
    struct Trouble {
        std::string reason;
        std::string message;
    };
    using Wanted = std::map<Key, Forward>;
    using Troubles = std::map<std::string, std::vector<Trouble>>;  // by VM

    void settle();
    void want(const Vm& vm, Wanted& wanted);
    void close_unwanted(const Wanted& wanted);
    void open_missing(const Wanted& wanted);
    void open(const Key& key, Place& place);
    void cannot_open(const Key& key, Place& place, const boost::system::error_code& error);
    [[nodiscard]] std::string rival_of(const Key& key, const Place& place) const;
    void hang_up_where_off();
    void tell();
    [[nodiscard]] ForwardsState state_of(const Vm& vm) const;
    [[nodiscard]] bool something_failed() const;
    void look_for_holders();
    boost::asio::awaitable<void> name_holders();
    boost::asio::awaitable<void> follow_index();
    void close_place(Place& place);
    void wake();

    World w_;
    ForwardsGround ground_;
    ForwardRules rules_;
    std::vector<std::string> tailnet_;
    std::map<Key, Place> places_;
    Troubles troubles_;  // of forwards that have no place
    base::Notifier told_;
    bool news_ = false;
    bool looking_ = false;
    bool closed_ = false;
    base::TaskGroup tasks_;
    base::TaskGroup closing_;  // forwards that are closed, until nothing of them runs; never cancelled
};

}  // namespace ghost::agent
