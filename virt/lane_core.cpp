#include "virt/lane_core.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <system_error>

namespace ghost::virt {
namespace {

namespace asio = boost::asio;
using base::Errc;
using base::Result;

// More than anybody waits for, and a timer can add it to now without overflow.
constexpr base::Duration longest_limit = std::chrono::hours{24 * 365};
constexpr auto no_answer = "libvirt did not answer in time";
constexpr auto not_begun = "libvirt was too busy to begin in time; nothing was done";

}  // namespace

void LaneCore::add_thread(LaneClass lane_class, LaneId lane) {
    LaneThread::Reports reports{
        .done =
            [weak = weak_from_this(), lane_class, lane](LaneThread::Outcome outcome) {
                if (const auto core = weak.lock()) core->done(lane_class, lane, std::move(outcome));
            },
        .ended =
            [weak = weak_from_this(), lane_class, lane] {
                if (const auto core = weak.lock()) core->ended(lane_class, lane);
            },
    };
    class_of(lane_class)
        .threads.emplace(lane, std::make_unique<LaneThread>(fmt::format("lv-{}-{}", name_of(lane_class), lane % 100),
                                                            uri_, options_.connect, mailbox_, std::move(reports)));
}

std::optional<base::Error> LaneCore::refusal(LaneClass lane, const std::string& key) {
    if (closing_) return base::Error{Errc::hypervisor_unavailable, "the agent is shutting down"};
    if (!up_) return base::Error{Errc::hypervisor_unavailable, reason_};
    switch (class_of(lane).queue->admission(key)) {
        case LaneQueue::Admission::open: return std::nullopt;
        case LaneQueue::Admission::full: return base::Error{Errc::overloaded, "too many hypervisor calls are waiting"};
        case LaneQueue::Admission::stuck:
            return base::Error{Errc::hypervisor_unavailable, "libvirt answers none of the calls it was given"};
    }
    return std::nullopt;
}

LaneCore::TicketPtr LaneCore::make_ticket(LaneClass lane, std::string key) {
    auto ticket = std::make_shared<Ticket>(context_, ++last_job_, lane);
    ticket->key = std::move(key);
    return ticket;
}

void LaneCore::enqueue(const TicketPtr& ticket, base::Duration limit) {
    ticket->limit = std::min(limit, longest_limit);
    ticket->enqueued = clock_.now();
    ticket->completed_before = class_of(*ticket).completed;
    tickets_.emplace(ticket->id, ticket);
    class_of(*ticket).queue->push(ticket->id, ticket->key);
    // It owns nothing but the ticket and ends with it.
    asio::co_spawn(context_,
                   watch(weak_from_this(), clock_, ticket, {Alarm::Kind::limit, ticket->enqueued + ticket->limit}),
                   asio::bind_cancellation_slot(ticket->unwatch.slot(), asio::detached));
    dispatch(ticket->lane_class);
}

asio::awaitable<Result<void>> LaneCore::wait(TicketPtr ticket) {
    if (!ticket->answer) co_await ticket->wake.async_wait(asio::as_tuple(asio::use_awaitable));
    if (ticket->answer) co_return std::move(*ticket->answer);
    abandon(*ticket);
    co_return base::fail(Errc::cancelled, "cancelled while waiting for libvirt");
}

asio::awaitable<Result<void>> LaneCore::call(LaneJob job) {
    if (auto refused = refusal(job.lane, job.key)) co_return base::fail(std::move(*refused));
    auto ticket = make_ticket(job.lane, std::move(job.key));
    ticket->change = job.change;
    ticket->stalled = std::move(job.stalled);
    ticket->work = [work = std::move(job.work)](Connection&, virConnectPtr connection) { work(connection); };
    enqueue(ticket, job.limit);
    auto answer = co_await wait(std::move(ticket));
    co_return answer;
}

void LaneCore::dispatch(LaneClass lane) {
    auto& cls = class_of(lane);
    while (const auto start = cls.queue->next()) {
        const auto& ticket = tickets_.at(start->job);
        ticket->lane = start->lane;
        ticket->turn = std::make_shared<Turn>();
        ticket->epoch = epoch_;
        ticket->started = clock_.now();
        cls.running.emplace(start->lane, ticket);
        cls.threads.at(start->lane)->give({epoch_, ticket->turn, std::move(ticket->work)});
    }
}

void LaneCore::settle(Ticket& ticket, Result<void> answer) {
    if (ticket.answer) return;
    ticket.answer = std::move(answer);
    ticket.wake.cancel();
}

void LaneCore::forget(Ticket& ticket) {
    ticket.unwatch.emit(asio::cancellation_type::terminal);
    tickets_.erase(ticket.id);
}

// Its caller is gone. A job not yet begun never will be.
void LaneCore::abandon(Ticket& ticket) {
    ticket.stalled = nullptr;
    if (ticket.lane) {
        ticket.recalled = ticket.recalled || ticket.turn->recall();
    } else if (class_of(ticket).queue->withdraw(ticket.id)) {
        forget(ticket);
    }
}

void LaneCore::fail_queued(const std::string& why) {
    for (auto& cls : classes_) {
        for (const auto id : cls.queue->withdraw_all()) {
            const auto ticket = tickets_.at(id);
            forget(*ticket);
            settle(*ticket, base::fail(Errc::hypervisor_unavailable, why));
        }
    }
}

void LaneCore::done(LaneClass lane_class, LaneId lane, LaneThread::Outcome outcome) {
    auto& cls = class_of(lane_class);
    const auto node = cls.running.extract(lane);
    assert(!node.empty());
    const auto& ticket = node.mapped();
    cls.queue->finish(lane);
    ++cls.completed;
    forget(*ticket);
    const auto why = outcome.ran ? "the connection to libvirt was lost" : outcome.ran.error().detail;
    settle(*ticket, std::move(outcome.ran));
    if (outcome.lost) lost(outcome.epoch, why);
    dispatch(lane_class);
}

void LaneCore::ended(LaneClass lane_class, LaneId lane) {
    auto node = class_of(lane_class).threads.extract(lane);
    if (node.empty()) return;  // close() gave it up while this message was on its way
    node.mapped()->join();
    if (closing_ && all_ended()) ended_.cancel();
}

bool LaneCore::all_ended() const {
    return std::ranges::all_of(classes_, [](const Class& cls) { return cls.threads.empty(); });
}

// ---- deadlines

asio::awaitable<void> LaneCore::watch(std::weak_ptr<LaneCore> weak, base::Clock& clock, TicketPtr ticket, Alarm alarm) {
    while (co_await clock.sleep_until(alarm.due)) {
        const auto core = weak.lock();
        if (!core || !core->tickets_.contains(ticket->id)) co_return;
        alarm = core->ring(ticket, alarm.kind);
        if (!core->tickets_.contains(ticket->id)) co_return;
    }
}

LaneCore::Alarm LaneCore::ring(const TicketPtr& ticket, Alarm::Kind kind) {
    switch (kind) {
        case Alarm::Kind::limit: return over_limit(*ticket);
        case Alarm::Kind::opening:
            // A daemon that was stopped accepts no connection and never refuses one.
            lost(ticket->epoch, "libvirt accepts no connections");
            return {Alarm::Kind::stuck, clock_.now() + options_.stuck_after};
        case Alarm::Kind::stuck: break;
    }
    return replace(*ticket);
}

LaneCore::Alarm LaneCore::over_limit(Ticket& ticket) {
    auto& cls = class_of(ticket);
    const auto now = clock_.now();
    const Alarm stuck{Alarm::Kind::stuck, now + options_.stuck_after};
    if (ticket.change && !ticket.probe) {
        const bool moves = std::exchange(ticket.completed_before, cls.completed) != cls.completed;
        if (!ticket.lane && moves && now < ticket.enqueued + options_.longest_queue)
            return {Alarm::Kind::limit, now + ticket.limit};
        if (ticket.lane && now < ticket.started + ticket.limit)
            return {Alarm::Kind::limit, ticket.started + ticket.limit};
    }
    if (!ticket.lane) {
        cls.queue->withdraw(ticket.id);
        forget(ticket);
        settle(ticket, ticket.change ? base::fail(Errc::hypervisor_unavailable, not_begun)
                                     : base::fail(Errc::deadline_exceeded, no_answer));
        return stuck;
    }

    cls.queue->late(*ticket.lane);
    log_.warn("hypervisor call is overdue", {{"lanes", name_of(ticket.lane_class)}, {"key", ticket.key}});
    if (!ticket.probe && ticket.turn->recall()) ticket.recalled = true;
    if (!ticket.change) {
        settle(ticket, base::fail(Errc::deadline_exceeded, no_answer));
    } else if (ticket.recalled) {
        settle(ticket, base::fail(Errc::hypervisor_unavailable, not_begun));
    } else if (const auto stalled = std::exchange(ticket.stalled, nullptr)) {
        stalled();
    }
    if (!ticket.recalled) return stuck;
    return {Alarm::Kind::opening, ticket.started + options_.open_limit};
}

LaneCore::Alarm LaneCore::replace(Ticket& ticket) {
    auto& cls = class_of(ticket);
    const Alarm again{Alarm::Kind::stuck, clock_.now() + options_.stuck_after};
    const auto lane = *ticket.lane;
    if (cls.queue->replaced(lane)) return again;
    std::size_t left_behind = 0;
    for (const auto& each : classes_) left_behind += each.queue->left_behind();
    // With the link down its end ends the call, and a new lane would have nothing to do: only the probe is replaced.
    if (closing_ || (!up_ && !ticket.probe) || left_behind >= options_.max_left_behind) return again;
    try {
        add_thread(ticket.lane_class, cls.queue->next_lane());
    } catch (const std::system_error& error) {
        log_.error("cannot replace a stuck hypervisor lane", {{"error", error.what()}});
        return again;
    }
    log_.warn("stuck hypervisor lane replaced", {{"lanes", name_of(ticket.lane_class)}, {"key", ticket.key}});
    cls.queue->replace(lane);
    cls.threads.at(lane)->stop();
    ++cls.replaced;
    if (ticket.probe) {
        static_cast<void>(ticket.turn->recall());  // coming back late, it must not register events beside its successor
        settle(ticket, base::fail(Errc::hypervisor_unavailable, no_answer));
    }
    dispatch(ticket.lane_class);
    return again;
}

std::vector<LaneStats> LaneCore::stats() const {
    std::vector<LaneStats> all;
    for (std::size_t i = 0; i < lane_classes; ++i) {
        const auto& [queue, threads, running, replaced, completed] = classes_[i];
        all.push_back({.name = std::string{name_of(static_cast<LaneClass>(i))},
                       .lanes = queue->lanes(),
                       .busy = queue->busy(),
                       .overdue = queue->overdue(),
                       .queued = queue->queued(),
                       .replaced = replaced,
                       .completed = completed,
                       .breaker_open = queue->breaker_open()});
    }
    return all;
}

}  // namespace ghost::virt
