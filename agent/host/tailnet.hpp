// This machine in its tailnet, Tailscale's or Headscale's: whether it is
// connected, and which addresses it has there. tailscaled is asked for it.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "net/client.hpp"
#include "storage/files.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/value.hpp>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::agent {

struct TailnetState {
    bool present = false;                // there is a tailscaled on this machine, or was just now
    bool connected = false;              // to the tailnet, with at least one address
    std::vector<std::string> addresses;  // numeric, IPv4 first. Ours also while the coordination server is out of reach
    std::string dns_name;                // without the dot at its end; may be empty
    std::string reason = "not asked yet";  // why it isn't connected; empty when it is
    bool settled = false;  // it says which addresses there are; else those that were known may be there all the same
    base::Wall since;      // when present, connected or reason became so

    // Of version 4 if there is one; empty without any.
    [[nodiscard]] std::string address() const { return addresses.empty() ? std::string{} : addresses.front(); }
};

// What tailscaled says, asked once; if it says nothing, a state with the reason.
[[nodiscard]] boost::asio::awaitable<TailnetState> ask_tailscaled(storage::Files& files, net::Client& tailscaled,
                                                                  std::string socket, std::chrono::milliseconds limit);

// The answer of tailscaled's `GET /localapi/v0/status`, as a state with `present` and no `since`. Members that aren't
// known are passed over. invalid_json, validation_failed: it is none.
[[nodiscard]] base::Result<TailnetState> read_tailscale_status(std::string_view answer);

// Loop thread only.
class Tailnet {
public:
    struct World {
        base::Clock& clock;
        base::Log& log;
        storage::Files& files;
        net::Client* tailscaled;  // null: it isn't asked, and never present
    };
    // `wanted`: something depends on the tailnet, so that it matters also where there is no tailscaled.
    Tailnet(const boost::asio::any_io_executor& executor, World world, std::string socket, bool wanted);

    // Looks now, every few seconds and when it is told to, until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();
    // The network changed, or the machine woke: looks at once, or `pause` after it was last told to.
    void look_again();

    [[nodiscard]] const TailnetState& state() const noexcept { return state_; }
    // The state is more than a beginning.
    [[nodiscard]] bool looked() const noexcept { return looked_; }
    [[nodiscard]] bool wanted() const noexcept { return wanted_; }
    [[nodiscard]] bool matters() const noexcept { return wanted_ || state_.present; }
    // As GET /v1 shows it: null when it doesn't matter.
    [[nodiscard]] boost::json::value to_json() const;

    // The state isn't what it was.
    std::function<void()> on_changed = [] {};

    static constexpr std::chrono::seconds interval{10};
    static constexpr std::chrono::seconds pause{1};
    // A tailscaled that starts again, is busy or stays silent is taken to have its addresses for so long.
    static constexpr std::chrono::seconds patience{30};

private:
    [[nodiscard]] TailnetState with_what_was_known(TailnetState fresh);
    void take(TailnetState fresh);

    World w_;
    std::string socket_;
    bool wanted_;
    TailnetState state_;
    base::Notifier told_;
    bool look_again_ = false;
    base::Instant next_told_look_ = base::Instant::min();
    bool looked_ = false;
    std::optional<base::Instant> settled_at_;
};

}  // namespace ghost::agent
