// Ghost Core without sockets: serves exactly heartbeat/core-api.yaml to any number of agents, remembers what it was
// told and what wasn't allowed, and has faults that can be switched on.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/random.hpp"
#include "net/http.hpp"
#include "tests/fakes/core_contract.hpp"

#include <boost/json/object.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::fakes {

class FakeCore {
public:
    struct Issued {
        std::string certificate;  // PEM
        base::Wall expires;
    };
    // A certificate for the request's key, whose CN is the agent's id; nullopt: the PEM holds no request, or one that
    // isn't signed with its key.
    using Issue = std::function<std::optional<Issued>(const std::string& csr, const std::string& agent_id,
                                                      std::chrono::seconds lifetime)>;

    struct Settings {
        unsigned ttl_s = 60;
        unsigned grace_s = 180;
        unsigned full_sync_every_s = 3600;
        std::set<std::string> tokens = {};
        std::chrono::seconds certificate_lifetime{24 * 3600};
        std::string ca = {};  // PEM, as agents are told at enrolment and renewal
        std::vector<std::string> core_urls = {};
        bool known_by_certificate = false;  // an agent that Core doesn't know may begin a session all the same
        // Requests reach Core in the order they were sent: one that is older than what was there before is a violation.
        bool in_order = true;
    };
    struct Caller {
        std::string certificate;  // its CN; empty: none was shown
        bool expired = false;
    };
    // What the transport does with it.
    struct Served {
        std::optional<net::Response> response;      // nullopt: closes the connection, without an answer
        base::Duration delay{};                     // waits first
        std::optional<std::size_t> cut_after = {};  // sends that much of the body and closes, short of its length
    };

    // Hits while `next` is above 0, which counts down; after that with this probability.
    struct Chance {
        double probability = 0;
        unsigned next = 0;
    };
    struct Override {
        std::string route;    // "enroll", "certificate", "session", "leave", "heartbeat", "facts"; empty: any
        unsigned status = 0;  // answered with it, and nothing is done
        unsigned next = 1;    // requests left
        std::optional<unsigned> retry_after_s = {};
    };
    struct Faults {
        Chance drop_request;      // never arrives: nothing done, no answer
        Chance drop_reply;        // done, no answer
        Chance server_error;      // 500, 502 or 503; half of them after acting
        Chance too_many;          // 429
        Chance slow;              // answered after slow_ms
        Chance garbage;           // done, the answer is no JSON
        Chance truncated;         // done, the answer breaks off
        Chance doubled;           // a beat's answer has each command twice
        Chance reordered;         // a beat's answer has the commands in any order
        Chance delivered_again;   // a beat's answer has commands whose final ack Core got
        Chance forgets_sessions;  // before a beat: all sessions, epochs and views are gone
        unsigned slow_ms = 2000;
        unsigned retry_after_s = 2;    // of a 429, and of every second server error
        std::int64_t clock_off_s = 0;  // server_time is off by that much
        std::vector<Override> overrides;
    };

    struct Agent {
        std::string id;
        std::string install_id;  // empty: it came with a certificate of its own
        std::string name;
        std::string version;
        std::uint64_t epoch = 0;  // the newest seen
        std::string boot_id;
        std::string session_id;  // empty: none
        std::uint64_t seq = 0;
        bool synced = false;  // had a full delta in this session
        std::uint64_t rev = 0;
        std::uint64_t state_rev = 0;                     // the newest told in this session
        std::map<std::string, boost::json::object> vms;  // Core's view, by id
        boost::json::object resources;
        boost::json::object addresses;
        std::vector<std::string> features;
        std::vector<boost::json::object> conditions;
        std::map<std::string, std::uint64_t> reasons;  // of beats, and how often
        std::uint64_t beats = 0;
        std::uint64_t full_syncs = 0;
        std::size_t last_beat_bytes = 0;
        std::optional<base::Instant> last_beat;
        std::optional<base::Wall> last_beat_wall;  // by Core's clock
        std::chrono::milliseconds clock_ahead{0};  // of Core's clock, as the last beat said
        std::optional<base::Wall> certificate_expires;
        std::uint64_t certificates = 0;  // issued
        bool left = false;               // said goodbye
        bool told_to_leave = false;      // answered with 410
        std::uint64_t ack_rev = 0;       // of its facts

    private:
        friend class FakeCore;
        base::Instant heard{};               // for the session's end
        std::set<std::uint64_t> acked;       // what may be a base_rev
        std::map<std::string, bool> exists;  // by facts
    };
    struct Command {
        std::string id;
        std::string agent_id;
        boost::json::object command;  // as it is delivered
        base::Wall queued;
        std::uint64_t delivered = 0;
        std::vector<std::string> acks = {};  // each state once, in the order they came
        std::string state = {};              // the last of them; empty: none
        std::string operation = {};
        std::optional<boost::json::object> problem = {};
        std::string told = {};  // by the fact command.result; empty: not yet

        [[nodiscard]] bool ended() const { return state == "succeeded" || state == "failed" || state == "rejected"; }
    };
    struct Fact {
        std::string agent_id;
        CoreFact fact;
    };

    // All of them must outlive it. Random numbers are taken for ids, for faults with a probability between 0 and 1 and
    // for what a fault does, so that a run without faults stays as it was.
    FakeCore(base::Clock& clock, base::Random& random, Issue issue, Settings settings);

    [[nodiscard]] Served serve(const net::Request& request, const Caller& caller);
    // Method and path of all that it serves, with the names that overrides take.
    struct Route {
        net::Method method;
        std::string pattern;
        std::string name;
    };
    [[nodiscard]] static const std::vector<Route>& routes();

    // Hands it to the agent with each answer until its final ack. `id` is made unless it is there. Throws
    // std::invalid_argument for an unknown agent, an id that isn't one or was used, and over 256 KiB; whether the rest
    // makes sense is the agent's to say.
    std::string queue(const std::string& agent_id, boost::json::object command);
    // An agent that got its certificate another way.
    Agent& add_agent(const std::string& id);
    void forget_agent(const std::string& id) { agents_.erase(id); }
    // Sessions, epochs and views; who its agents are, commands and facts stay.
    void forget_sessions();

    [[nodiscard]] const std::map<std::string, Agent>& agents() const noexcept { return agents_; }
    [[nodiscard]] Agent* agent(const std::string& id);
    [[nodiscard]] const std::vector<Command>& commands() const noexcept { return commands_; }  // as they were queued
    [[nodiscard]] const Command* command(std::string_view id) const;
    [[nodiscard]] const std::vector<Fact>& facts() const noexcept { return facts_; }
    // What agents did that the contract doesn't allow, as sentences.
    [[nodiscard]] const std::vector<std::string>& violations() const noexcept { return violations_; }
    // "online", "disconnected", "lost", "left", "never seen"
    [[nodiscard]] std::string_view presence(const Agent& agent) const;
    [[nodiscard]] std::uint64_t requests() const noexcept { return requests_; }
    [[nodiscard]] boost::json::object page() const;  // all of it, for people

    Settings settings;
    Faults faults;

private:
    [[nodiscard]] net::Response act(const net::Request& request, const Caller& caller, const Route& route,
                                    const std::string& agent_id);
    [[nodiscard]] net::Response enroll(const net::Request& request);
    [[nodiscard]] net::Response renew(const net::Request& request, Agent& agent);
    [[nodiscard]] net::Response begin_session(const net::Request& request, const std::string& agent_id);
    [[nodiscard]] net::Response leave(const net::Request& request, Agent& agent);
    [[nodiscard]] net::Response heartbeat(const net::Request& request, Agent& agent);
    [[nodiscard]] net::Response tell_facts(const net::Request& request, Agent& agent);

    // nullopt: the session is the agent's.
    [[nodiscard]] std::optional<net::Response> check_session(const Agent& agent, const std::string& session_id,
                                                             std::uint64_t epoch);
    void check_order(const Agent& agent, const CoreBeat& beat, ContractFaults& faults) const;
    void check_outcome(const Agent& agent, const CoreAck& ack, std::string_view where, ContractFaults& faults) const;
    void check_facts(const Agent& agent, const CoreFactBatch& batch, ContractFaults& faults);
    void apply(Agent& agent, const CoreBeat& beat);
    void apply(const CoreAck& ack);
    [[nodiscard]] boost::json::array commands_for(const Agent& agent);
    void end_lapsed(Agent& agent) const;

    [[nodiscard]] net::Response refuse(std::string_view who, std::string_view route, const ContractFaults& faults);
    void note(std::string violation);
    [[nodiscard]] Command* find(std::string_view id);
    [[nodiscard]] bool hits(Chance& chance);
    [[nodiscard]] base::Wall told_time() const;

    base::Clock& clock_;
    base::Random& random_;
    Issue issue_;
    std::map<std::string, std::string> used_tokens_;  // to install_id
    std::map<std::string, std::string> installs_;     // install_id to agent_id
    std::map<std::string, Agent> agents_;
    std::vector<Command> commands_;
    std::map<std::string, std::size_t, std::less<>> by_id_;  // in commands_
    std::vector<Fact> facts_;
    std::vector<std::string> violations_;
    std::uint64_t requests_ = 0;
};

// A command and what became of it, for people.
[[nodiscard]] boost::json::object show(const FakeCore::Command& command);

// As POST /faults takes them: the members of Faults, each optional; a chance is a probability (a number) or
// {"probability", "next"}. What isn't named is as in `before`. The fault is a sentence.
[[nodiscard]] base::Result<FakeCore::Faults> read_faults(const boost::json::object& document,
                                                         const FakeCore::Faults& before);
[[nodiscard]] boost::json::object to_json(const FakeCore::Faults& faults);
// What POST /faults of CoreServer's page takes, and in sentences.
[[nodiscard]] std::vector<std::string_view> fault_names();
[[nodiscard]] std::string fault_words();

}  // namespace ghost::fakes
