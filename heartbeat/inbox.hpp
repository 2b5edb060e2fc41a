// Ghost Core's commands: each is taken once, whatever Core sends again, and told
// of until Core has heard it. No I/O.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::heartbeat {

enum class CommandState : std::uint8_t { accepted, running, succeeded, failed, rejected };
[[nodiscard]] std::string_view name_of(CommandState state) noexcept;
[[nodiscard]] constexpr bool is_final(CommandState state) noexcept {
    return state != CommandState::accepted && state != CommandState::running;
}

struct Command {
    std::string id;
    std::string kind;    // "vm.create"; older names are read as the newer ones
    std::string target;  // id or name; empty: none
    boost::json::object params = {};
    std::optional<std::uint64_t> if_generation = {};
    std::optional<base::Wall> not_after = {};           // by Core's clock
    std::optional<std::chrono::seconds> deadline = {};  // for all of it, counted from its receipt
    base::Wall received = {};                           // by ours
    CommandState state = CommandState::accepted;
    std::string operation = {};        // id of what it began
    boost::json::object problem = {};  // why it failed or was rejected
    bool confirmed = false;            // Core has answered a beat that told its end
    bool secret = false;               // its params aren't kept anywhere: after a restart Core is waited for
    bool has_params = true;            // they are here
};
// The same, `state` further on; without its params. `operation` empty: as before.
[[nodiscard]] Command moved_on(Command command, CommandState state, std::string operation, boost::json::object problem);
// As it is kept, without the params of one that holds a secret, or has begun.
[[nodiscard]] std::string to_document(const Command& command);
[[nodiscard]] base::Result<Command> command_from_document(std::string_view document);

class Inbox {
public:
    // `holds_secret`: whether params are something that must not be kept.
    explicit Inbox(std::function<bool(const boost::json::object& params)> holds_secret)
        : holds_secret_(std::move(holds_secret)) {}

    void restore(std::vector<Command> commands);

    // Of an answer's `commands`: those that are new, to be kept and then admitted. The end of one that is here already
    // is told again. One that can't be read is here rejected, so that Core hears of it; one without an id is left out,
    // and said in `faults`. When too many wait for their end, the rest isn't taken: Core sends it again.
    [[nodiscard]] std::vector<Command> take(const boost::json::array& commands, base::Wall now,
                                            std::vector<std::string>& faults);
    // They are on disk: from now on Core is told, and they may begin. Calls on_ready for each.
    void admit(const std::vector<Command>& commands);

    [[nodiscard]] const Command* find(std::string_view id) const;
    // How far it came. News for Core: an end is to be kept first, or the next start may come to another. The command as
    // it is now, to be kept.
    const Command& change(std::string_view id, CommandState state, std::string operation = {},
                          boost::json::object problem = {});

    // An ack as it was put into a beat.
    struct Told {
        std::string id;
        std::uint64_t version = 0;
    };
    // [{"cmd_id", "state", "operation"?, "problem"?}], at most `limit`, the oldest news first; what they were goes to
    // `told`.
    [[nodiscard]] boost::json::array acks(std::size_t limit, std::vector<Told>& told) const;
    [[nodiscard]] bool has_news() const noexcept { return !news_.empty(); }
    // A beat with these was answered. Those whose end Core has heard, to be kept as confirmed.
    [[nodiscard]] std::vector<Command> confirm(const std::vector<Told>& told);

    // Forgets confirmed ones received before, and of the others all but the youngest `max_kept`.
    void prune(base::Wall received_before);
    [[nodiscard]] std::size_t unfinished() const noexcept { return unfinished_; }
    [[nodiscard]] std::vector<const Command*> all() const;  // oldest first

    std::function<void(const std::string& id)> on_ready;
    std::function<void()> on_news;

    static constexpr std::chrono::hours memory{24 * 30};
    static constexpr std::uint32_t max_kept = 10'000;
    static constexpr std::size_t max_unfinished = 256;
    static constexpr std::size_t max_acks = 100;  // in one beat

private:
    struct Entry {
        Command command;
        bool admitted = false;
        std::uint64_t version = 0;  // of what is to be told
    };
    void tell(Entry& entry);        // soon
    void tell_again(Entry& entry);  // with the next beat
    [[nodiscard]] Command read(const boost::json::object& document, std::string id, base::Wall now) const;

    std::function<bool(const boost::json::object&)> holds_secret_;
    std::map<std::string, Entry, std::less<>> entries_;
    std::map<std::uint64_t, std::string> news_;  // version -> id: not confirmed yet
    std::uint64_t versions_ = 0;
    std::size_t unfinished_ = 0;
};

}  // namespace ghost::heartbeat
