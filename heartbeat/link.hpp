// The agent's side of the protocol with Ghost Core: what is sent next, and what
// an answer, or none, comes to. No I/O; core-api.yaml is the contract.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/random.hpp"
#include "heartbeat/beat_schedule.hpp"
#include "heartbeat/core_link.hpp"
#include "heartbeat/enrolment.hpp"
#include "heartbeat/inbox.hpp"
#include "heartbeat/node.hpp"
#include "heartbeat/outbox.hpp"
#include "heartbeat/retry.hpp"
#include "heartbeat/state_view.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ghost::heartbeat {

enum class LinkState : std::uint8_t {
    not_enrolled,  // no certificate, and no token that could bring one
    enrolling,
    connecting,
    connected,
    unreachable,  // Core doesn't answer
    refused,      // Core answers, and won't have us: tried again slowly
    duplicate,    // another agent with this identity is newer
    left,         // Core told us to leave
};
[[nodiscard]] std::string_view name_of(LinkState state) noexcept;

// What is wrong with the link itself.
struct LinkWarning {
    std::string_view type;  // of the condition that Core is told
    std::string_view reason;
    std::string message;
    base::Wall since;
};

struct LinkStatus {
    LinkState state = LinkState::connecting;
    std::string detail = {};  // why it isn't connected, in a sentence; empty when it is
    base::Wall since = {};
    std::string url = {};  // of Core, that is spoken to or tried now
    std::string agent_id = {};
    std::optional<base::Wall> last_beat = {};  // that was answered
    base::Duration round_trip = {};            // of it
    base::Instant last_beat_at = {};
    bool last_beat_succeeded = false;
    std::uint64_t beats_failed = 0;                      // likewise
    std::uint64_t beats = 0;                             // answered since the start
    bool failing = false;                                // nothing went well since the last failure
    std::uint64_t failures = 0;                          // calls that failed, since the start
    std::optional<std::chrono::milliseconds> skew = {};  // Core's clock minus ours
    std::optional<base::Wall> certificate_expires = {};
    std::vector<LinkWarning> warnings = {};          // also of one that is connected
    std::optional<base::Instant> next_attempt = {};  // while it isn't, and none is under way
};

struct LinkSettings {
    std::string url = {};                        // of the configuration
    std::string token = {};                      // of the configuration; empty: none
    std::chrono::milliseconds interval{30'000};  // between beats before Core has said
    bool own_certificate = true;                 // made at enrolment and renewed; false: the operator's
    std::string install_id = {};
    std::uint64_t epoch = 0;
    std::string boot_id = {};
    // Of the installation, PEM; empty with a certificate of the operator's.
    std::string key = {};
    std::string csr = {};
};

// What is known of Core, and kept over restarts.
struct Membership {
    std::string agent_id;    // empty: not enrolled
    std::string used_token;  // its SHA-256
    std::vector<std::string> core_urls;
    std::optional<net::CertificateFacts> certificate;
};

class Link {
public:
    struct Parts {
        const Node& node;
        StateView& state;
        Inbox& inbox;
        Outbox& outbox;
        base::Random& random;
    };
    Link(LinkSettings settings, Membership member, Parts parts);

    struct Idle {
        base::Instant until;
    };
    using Step = std::variant<Idle, CoreCall>;
    // What to do now. A call is to be answered with took() before the next.
    [[nodiscard]] Step next(base::Instant now, base::Wall wall);

    // What an answer asks of the sender, besides the next step.
    struct Effects {
        std::optional<Enrolled> enrolled = {};                   // to be kept, then adopt()
        std::optional<Renewed> renewed = {};                     // likewise
        boost::json::array commands = {};                        // for the inbox
        std::vector<Command> confirmed = {};                     // of the inbox, to be kept so
        std::string note = {};                                   // for the log
        std::optional<std::uint64_t> facts_up_to = {};           // Core has them
        std::optional<std::vector<std::string>> core_urls = {};  // to be kept
        bool drop = false;                                       // the connection is of no more use
    };
    [[nodiscard]] Effects took(const CoreCall& call, const base::Result<CoreAnswer>& answer, base::Instant sent,
                               base::Instant now, base::Wall wall);
    // They are kept, and shown from the next call on.
    void adopt(const Enrolled& answer, std::string token_hash, base::Instant now, base::Wall wall);
    void adopt(const Renewed& answer, base::Instant now, base::Wall wall);
    // The operator's own certificate, as it is read anew.
    void certificate_replaced(net::CertificateFacts certificate, base::Wall wall);
    // They can't be kept or used.
    void not_adopted(const base::Error& why, base::Instant now, base::Wall wall);

    // Something that Core is to know changed.
    void changed(base::Instant now) noexcept { schedule_.changed(now); }
    void facts_added(base::Instant now) noexcept;
    // The machine was asleep, or its network changed: a beat within 3 s, whatever was waited for.
    void woke(base::Instant now, base::Wall wall);
    void network_changed(base::Instant now, base::Wall wall);
    // This host's addresses may be others now. Core is told of them with a session.
    void addresses_changed() { look_at_addresses(); }
    // The machine is about to sleep: one beat at once, then none until it woke (or didn't sleep). A network that
    // changes meanwhile is told of after that.
    void about_to_sleep(base::Instant now);
    [[nodiscard]] bool suspend_told() const noexcept { return !suspend_pending_; }
    // The last beat, and the goodbye; nullopt: there is no session.
    [[nodiscard]] std::optional<CoreCall> last_beat(base::Instant now, base::Wall wall);
    [[nodiscard]] std::optional<CoreCall> goodbye() const;

    [[nodiscard]] const LinkStatus& status() const noexcept { return status_; }
    // What time it is for Core.
    [[nodiscard]] base::Wall core_time(base::Wall wall) const { return wall + offset_; }
    [[nodiscard]] bool clock_is_known() const noexcept { return status_.skew.has_value(); }
    // What is wrong with the link itself, as conditions.
    [[nodiscard]] boost::json::array conditions() const;

    static constexpr std::chrono::seconds call_limit{10};
    static constexpr std::chrono::milliseconds hurried_limit{1'500};  // of a suspend's and a shutdown's calls
    static constexpr std::chrono::seconds skew_limit{30};
    static constexpr std::size_t max_conditions = 32;

private:
    enum class Phase : std::uint8_t { unenrolled, sessionless, in_session, duplicate, left };
    struct Beat {
        std::uint64_t rev = 0;
        bool full = false;
        bool with_delta = false;
        Reason reason = Reason::periodic;
        std::vector<Inbox::Told> told;
    };

    [[nodiscard]] Step plan(base::Instant now, base::Wall wall);
    [[nodiscard]] bool may_enrol() const;
    [[nodiscard]] bool failing() const noexcept { return retry_.failures() > 0; }
    [[nodiscard]] std::optional<base::Instant> renewal_due(base::Instant now, base::Wall wall) const;
    [[nodiscard]] CoreCall call(Call kind, boost::json::object body) const;
    [[nodiscard]] CoreCall enrol() const;
    [[nodiscard]] CoreCall open_session();
    [[nodiscard]] CoreCall beat(base::Instant now, base::Wall wall);
    void plan_renewal();
    void take_urls(const std::vector<std::string>& urls, Effects& effects);

    void look_for_faults(base::Wall wall);
    [[nodiscard]] std::optional<LinkWarning> certificate_ends(base::Wall wall) const;
    void weigh(const CoreCall& call, const base::Result<CoreAnswer>& answer, Effects& effects, base::Instant sent,
               base::Instant now, base::Wall wall);
    [[nodiscard]] CoreCall beside_beats(CoreCall call, base::Instant now) const;
    void succeeded(base::Instant now);
    void failed(std::string why, std::optional<std::chrono::seconds> retry_after, base::Instant now, base::Wall wall);
    void slow_down(LinkState state, std::string why, base::Instant now, base::Wall wall);
    void fault(const CoreCall& call, const base::Error& error, Effects& effects, base::Instant now, base::Wall wall);
    void refusal(const CoreCall& call, const CoreAnswer& answer, Effects& effects, base::Instant now, base::Wall wall);
    // So that the lease lives. False: there was nothing to leave out.
    [[nodiscard]] bool tell_less(unsigned status, const std::string& why, Effects& effects, base::Instant now,
                                 base::Wall wall);
    void certificate_refused(const CoreCall& call, std::string why, base::Instant now, base::Wall wall);
    void lose_session(base::Instant now);
    void facts_failed(const CoreCall& call, const CoreAnswer* answer, Effects& effects, base::Instant now,
                      base::Wall wall);
    void facts_not_certified(std::string why, base::Instant now, base::Wall wall);
    void look_at_addresses();
    [[nodiscard]] std::optional<std::string> opened(const CoreAnswer& answer, base::Instant now, base::Wall wall);
    [[nodiscard]] std::optional<std::string> beaten(const CoreAnswer& answer, Effects& effects, base::Instant sent,
                                                    base::Instant now, base::Wall wall);
    void compare_clocks(const boost::json::object& body, base::Duration round_trip, base::Wall wall);
    void say(LinkState state, std::string detail, base::Wall wall);
    void come_soon(Reason reason, base::Instant now, base::Wall wall);
    void ask_for_suspend(base::Instant now);
    void suspend_through(const base::Result<CoreAnswer>& answer, base::Instant now);

    LinkSettings settings_;
    Membership member_;
    Parts p_;
    Phase phase_ = Phase::sessionless;
    LinkStatus status_;
    std::vector<std::string> urls_;
    std::size_t url_ = 0;
    Retry retry_;
    base::Instant attempt_at_{};  // of what isn't a beat in a session, or fails
    base::Instant last_ok_{};

    std::string session_id_;
    boost::json::object told_addresses_;  // with the session
    bool addresses_stale_ = false;        // others by now
    base::Instant readdress_at_{};        // when a session may be begun for their sake again
    std::chrono::milliseconds ttl_{};
    std::chrono::milliseconds grace_{};
    std::chrono::milliseconds full_sync_every_{};
    base::Instant full_sync_at_{};
    std::uint64_t seq_ = 0;
    bool settled_ = false;  // a beat of this session was answered
    Retry session_retry_;   // of sessions that are lost before their first beat
    bool outage_ = false;   // Core was away for long enough that others wait for it, too
    Beat beat_;             // that is under way
    BeatSchedule schedule_;
    base::Instant lease_only_until_{};  // Core doesn't take our state
    std::string lease_only_why_;
    std::optional<base::Wall> state_refused_since_;
    bool state_too_large_ = false;              // and that is why
    std::size_t acks_limit_ = Inbox::max_acks;  // of a beat: less after Core took one without acks alone
    base::Instant no_acks_before_{};            // it doesn't take a single one
    std::optional<base::Wall> acks_refused_since_;
    std::string acks_refused_why_;

    std::optional<base::Wall> renew_at_;  // by Core's clock
    base::Instant renew_retry_at_{};
    std::string renew_fault_;  // of the last try
    Retry renew_retry_;
    bool renew_now_ = false;            // Core takes our certificate no more
    bool renewed_in_vain_ = false;      // and the new one neither
    bool renewed_for_facts_ = false;    // which alone were refused
    base::Instant renew_not_before_{};  // however often it is refused

    base::Instant facts_at_{};
    std::size_t facts_limit_ = Outbox::max_batch;  // of a batch: less after Core found fault with one
    std::optional<base::Wall> facts_refused_since_;
    std::string facts_refused_why_;
    std::uint64_t refused_fact_ = 0;  // the oldest, tried alone
    unsigned fact_refused_ = 0;       // so often
    base::Instant not_before_{};      // Core asked for so long
    Retry facts_retry_;

    bool suspend_pending_ = false;
    bool suspend_lost_ = false;                // it may have gone with the network
    bool suspend_again_ = false;               // and is then tried once more
    std::optional<base::Instant> held_until_;  // about to sleep: no beats before
    bool network_changed_ = false;             // meanwhile

    std::chrono::milliseconds offset_{0};
    std::optional<base::Wall> skewed_since_;
};

}  // namespace ghost::heartbeat
