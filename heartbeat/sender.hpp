// Does what the link says: sends, waits, keeps. One call at a time, on a
// connection of its own.
#pragma once

#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/notifier.hpp"
#include "heartbeat/core_keeper.hpp"
#include "heartbeat/core_link.hpp"
#include "heartbeat/link.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ghost::heartbeat {

class Sender {
public:
    // All of it outlives the sender.
    struct Parts {
        CoreLink& core;
        CoreKeeper& keeper;
        Link& link;
        Inbox& inbox;
        Outbox& outbox;
        base::Clock& clock;
        base::Log& log;
    };
    // `token_hash`: of the configured token; `credentials`: as they are kept now.
    Sender(const boost::asio::any_io_executor& executor, Parts parts, Credentials credentials, std::string token_hash);

    // Until cancelled.
    [[nodiscard]] boost::asio::awaitable<void> run();
    // After run(): the last beat and the goodbye, both within `limit`; best effort.
    [[nodiscard]] boost::asio::awaitable<void> say_goodbye(base::Duration limit);
    // The machine is about to sleep: returns when Core was told, or nobody is there to tell, or after `limit`.
    [[nodiscard]] boost::asio::awaitable<void> tell_of_sleep(base::Duration limit);

    // Something that Core is to know changed: VMs, acks, conditions.
    void changed();
    void facts_added();
    void addresses_changed();
    // What is under way is given up, and Core is looked for anew.
    void woke() { interrupt(Interruption::wake); }
    // But not the word that the machine goes to sleep: its network goes for that, too.
    void network_changed() { interrupt(Interruption::network); }

private:
    enum class Interruption : std::uint8_t { none, network, wake };
    void interrupt(Interruption why);
    void apply_interruption();
    [[nodiscard]] boost::asio::awaitable<base::Result<CoreAnswer>> send(CoreCall call);
    [[nodiscard]] boost::asio::awaitable<void> send_forever();
    [[nodiscard]] boost::asio::awaitable<void> apply(Link::Effects effects);
    [[nodiscard]] boost::asio::awaitable<void> keep_forever();
    [[nodiscard]] boost::asio::awaitable<void> take_credentials(Link::Effects& effects);
    [[nodiscard]] boost::asio::awaitable<void> take_commands(boost::json::array commands);
    void note_state();
    void note_warnings();
    template <class Kept>
    void warn_unless(const Kept& kept, const char* what);

    Parts p_;
    Credentials credentials_;
    std::string token_hash_;
    base::Notifier wake_;         // there may be something to do
    base::Notifier interrupted_;  // what is under way is in vain
    base::Notifier told_;         // a call is through
    // What is to be kept, beside the sending: a disk that hangs holds no beat up.
    struct ToKeep {
        std::vector<Command> confirmed = {};
        std::optional<std::uint64_t> facts_up_to = {};
        std::optional<std::vector<std::string>> core_urls = {};
        boost::json::array commands = {};  // Core repeats them: only what there is room for is taken
        [[nodiscard]] bool nothing() const {
            return confirmed.empty() && !facts_up_to && !core_urls && commands.empty();
        }
    };
    ToKeep to_keep_;
    bool keeping_ = false;
    base::Notifier more_to_keep_;
    Interruption interruption_ = Interruption::none;
    LinkState noted_ = LinkState::connecting;
    std::vector<std::string> noted_warnings_;  // their types
    bool running_ = false;
};

}  // namespace ghost::heartbeat
