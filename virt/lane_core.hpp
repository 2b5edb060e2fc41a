// What LanePool is made of, all of it on the loop: jobs with their deadlines
// (lane_core.cpp) and the link (lane_link.cpp). Which job runs where is
// LaneQueue's to say. Handlers and lanes hold it weakly.
#pragma once

#include "virt/lane_pool.hpp"
#include "virt/lane_queue.hpp"
#include "virt/lane_thread.hpp"

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>

#include <cassert>
#include <map>

namespace ghost::virt {

class LaneCore : public std::enable_shared_from_this<LaneCore> {
public:
    LaneCore(boost::asio::io_context& context, std::string uri, LaneOptions options, base::Clock& clock,
             base::Random& random, base::Log& log)
        : context_(context),
          uri_(std::move(uri)),
          options_(std::move(options)),
          clock_(clock),
          random_(random),
          log_(log),
          mailbox_(std::make_shared<Mailbox>(context)),
          down_(context, base::Instant::max()),
          ended_(context) {
        for (std::size_t i = 0; i < lane_classes; ++i)
            classes_[i].queue.emplace(options_.lanes[i], options_.max_queued[i], options_.max_per_key);
    }
    ~LaneCore() { mailbox_->close(); }
    LaneCore(const LaneCore&) = delete;
    LaneCore& operator=(const LaneCore&) = delete;

    void start_threads() {
        assert(options_.lanes[static_cast<std::size_t>(LaneClass::events)] == 1 && "events are registered once");
        for (std::size_t i = 0; i < lane_classes; ++i)
            for (LaneId lane = 0; lane < options_.lanes[i]; ++lane) add_thread(static_cast<LaneClass>(i), lane);
    }
    void set_hooks(LaneHooks hooks) { hooks_ = std::make_shared<const LaneHooks>(std::move(hooks)); }
    [[nodiscard]] bool up() const noexcept { return up_; }

    boost::asio::awaitable<base::Result<void>> call(LaneJob job);
    boost::asio::awaitable<void> run();
    boost::asio::awaitable<void> close(std::chrono::milliseconds grace);
    [[nodiscard]] std::vector<LaneStats> stats() const;

private:
    // A job as the loop knows it, until its lane returns.
    struct Ticket {
        Ticket(boost::asio::io_context& context, JobId number, LaneClass lane)
            : id(number), lane_class(lane), wake(context, base::Instant::max()) {}

        const JobId id;
        const LaneClass lane_class;
        std::string key;
        bool change = false;
        bool probe = false;
        std::function<void(Connection&, virConnectPtr)> work;  // the lane's once begun
        std::function<void()> stalled;

        boost::asio::steady_timer wake;            // the caller waits on it; cancelled to wake it
        boost::asio::cancellation_signal unwatch;  // ends watch()
        std::optional<base::Result<void>> answer;  // what the caller gets

        std::optional<LaneId> lane;  // handed to
        std::shared_ptr<Turn> turn;
        bool recalled = false;
        std::uint64_t epoch = 0;
        base::Duration limit{};
        base::Instant enqueued;
        base::Instant started;
        std::uint64_t completed_before = 0;  // by its class, when its wait was last looked at
    };
    using TicketPtr = std::shared_ptr<Ticket>;
    // What watch() waits for next, and when that is due.
    struct Alarm {
        enum class Kind : std::uint8_t { limit, opening, stuck };
        Kind kind;
        base::Instant due;
    };

    struct Class {
        std::optional<LaneQueue> queue;
        std::map<LaneId, std::unique_ptr<LaneThread>> threads;
        std::map<LaneId, TicketPtr> running;
        std::uint64_t replaced = 0;
        std::uint64_t completed = 0;
    };
    Class& class_of(LaneClass lane) { return classes_[static_cast<std::size_t>(lane)]; }
    Class& class_of(const Ticket& ticket) { return class_of(ticket.lane_class); }

    void add_thread(LaneClass lane_class, LaneId lane);
    [[nodiscard]] std::optional<base::Error> refusal(LaneClass lane, const std::string& key);
    [[nodiscard]] TicketPtr make_ticket(LaneClass lane, std::string key);
    void enqueue(const TicketPtr& ticket, base::Duration limit);
    boost::asio::awaitable<base::Result<void>> wait(TicketPtr ticket);
    void dispatch(LaneClass lane);
    static void settle(Ticket& ticket, base::Result<void> answer);
    void forget(Ticket& ticket);
    void abandon(Ticket& ticket);
    void fail_queued(const std::string& why);

    void done(LaneClass lane_class, LaneId lane, LaneThread::Outcome outcome);
    void ended(LaneClass lane_class, LaneId lane);
    [[nodiscard]] bool all_ended() const;

    // Rings a ticket's alarms, one after the other, until its lane returns.
    static boost::asio::awaitable<void> watch(std::weak_ptr<LaneCore> weak, base::Clock& clock, TicketPtr ticket,
                                              Alarm alarm);
    [[nodiscard]] Alarm ring(const TicketPtr& ticket, Alarm::Kind kind);
    [[nodiscard]] Alarm over_limit(Ticket& ticket);
    [[nodiscard]] Alarm replace(Ticket& ticket);

    boost::asio::awaitable<base::Result<void>> probe();
    void link_up();
    void link_failed(const std::string& reason);
    void lost(std::uint64_t epoch, const std::string& reason);

    boost::asio::io_context& context_;
    const std::string uri_;
    const LaneOptions options_;
    base::Clock& clock_;
    base::Random& random_;
    base::Log& log_;
    std::shared_ptr<const LaneHooks> hooks_ = std::make_shared<const LaneHooks>();
    const std::shared_ptr<Mailbox> mailbox_;

    std::map<JobId, TicketPtr> tickets_;
    JobId last_job_ = 0;
    bool closing_ = false;

    bool up_ = false;
    std::string reason_ = "not connected yet";
    std::uint64_t epoch_ = 0;  // number of the link, or of the attempt at one
    std::optional<std::string> lost_in_probe_;
    boost::asio::steady_timer down_;   // run() waits on it while the link is up
    boost::asio::steady_timer ended_;  // close() waits on it

    std::array<Class, lane_classes> classes_;  // last: its threads go first
};

}  // namespace ghost::virt
