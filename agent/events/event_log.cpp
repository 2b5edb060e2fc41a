#include "agent/events/event_log.hpp"

#include "agent/json_text.hpp"
#include "base/shielded.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::size_t prune_interval = 256;  // events between two looks at how many are kept
constexpr std::size_t batch_limit = 256;     // events in one transaction
// A fact in the database while not all subjects are known: a run that ends then may have answered early lists. Written
// with the first event of a run or before it.
constexpr std::string_view early_fact = "events_early";

}  // namespace

EventLog::EventLog(const asio::any_io_executor& executor, const base::Clock& clock, storage::StateStore& store,
                   base::Log& log, std::uint64_t after)
    : clock_(clock),
      store_(store),
      log_(log),
      first_id_(after),
      last_id_(after),
      next_id_(after + 1),
      published_(executor),
      more_(executor) {}

void EventLog::restore(const storage::StoredState& state) {
    for (const auto& row : state.events) events_.push_back({row.id, std::make_shared<const std::string>(row.document)});
    while (events_.size() > max_kept) events_.pop_front();
    if (!events_.empty() && events_.back().id >= next_id_) {
        first_id_ = last_id_ = events_.back().id;
        next_id_ = last_id_ + 1;
    }
    subjects_ = state.subjects;
    const auto early = state.facts.find(std::string{early_fact});
    listed_early_ = early != state.facts.end() && !early->second.empty();
    unwritten_.emplace_back(storage::FactRow{std::string{early_fact}, "1"});
}

void EventLog::publish(std::string_view type, const std::string& subject, std::string version,
                       boost::json::object data) {
    const auto* known = told(subject);
    if (known != nullptr ? *known == version : version.empty()) return;
    if (version.empty())
        subjects_.erase(subject);
    else
        subjects_.insert_or_assign(subject, version);
    if (waiting_.size() >= max_waiting)
        std::erase_if(waiting_,
                      [&subject](const Waiting& older) { return !older.incident && older.subject == subject; });
    waiting_.push_back({std::string{type}, subject, std::move(version), json_text(data), clock_.wall()});
    published_.notify();
}

void EventLog::tell(std::string_view type, std::string subject, const boost::json::object& data) {
    const auto waiting = std::ranges::count_if(waiting_, &Waiting::incident);
    if (std::cmp_greater_equal(waiting, max_waiting)) {
        const auto oldest = std::ranges::find_if(waiting_, &Waiting::incident);
        log_.warn("too many events wait to be written; one is left out",
                  {{"event", oldest->type}, {"subject", oldest->subject}, {"data", oldest->data}});
        waiting_.erase(oldest);
    }
    waiting_.push_back({std::string{type}, std::move(subject), {}, json_text(data), clock_.wall(), true});
    published_.notify();
}

const std::string* EventLog::told(const std::string& subject) const {
    const auto it = subjects_.find(subject);
    return it == subjects_.end() ? nullptr : &it->second;
}

void EventLog::forget(const std::string& subject) {
    if (subjects_.erase(subject) == 0) return;
    unwritten_.emplace_back(storage::ForgetSubject{subject});
    published_.notify();
}

std::uint64_t EventLog::place_of_list() {
    listed_early_ = listed_early_ || early_;
    const bool all_written = !early_ && !uncollected_ && waiting_.empty() && !writing_;
    return all_written ? last_id_ : next_id_++;
}

bool EventLog::subjects_are_known() {
    early_ = false;
    settle_early_ = true;
    published_.notify();
    return listed_early_;
}

void EventLog::tell_anew(const std::string& subject, std::string version) {
    subjects_.insert_or_assign(subject, std::move(version));
}

asio::awaitable<void> EventLog::run() {
    co_await asio::this_coro::throw_if_cancelled(false);
    const auto cancelled = co_await asio::this_coro::cancellation_state;
    const auto take_in = [this] {
        uncollected_ = false;
        if (collect) collect();
        if (waiting_.empty() && std::exchange(settle_early_, false))
            unwritten_.emplace_back(storage::FactRow{std::string{early_fact}, ""});
    };
    for (;;) {
        take_in();
        while (!waiting_.empty() || !unwritten_.empty()) {
            std::deque<Waiting> batch;
            while (!waiting_.empty() && batch.size() < batch_limit) {
                batch.push_back(std::move(waiting_.front()));
                waiting_.pop_front();
            }
            writing_ = true;
            co_await write(std::move(batch));
            writing_ = false;
            take_in();
        }
        if (cancelled.cancelled() != asio::cancellation_type::none) co_return;
        co_await published_.wait();
    }
}

asio::awaitable<void> EventLog::write(std::deque<Waiting> batch) {
    std::deque<Event> events;
    for (const auto& event : batch) {
        const auto id = next_id_++;
        events.push_back({id, std::make_shared<const std::string>(fmt::format(
                                  "id: {0}\nevent: {1}\ndata: {{\"id\":{0},\"type\":\"{1}\",\"time\":\"{2}\","
                                  "\"subject\":\"{3}\",\"data\":{4}}}\n\n",
                                  id, event.type, base::rfc3339_ms(event.time), event.subject, event.data))});
    }
    // What couldn't be written is written before anything newer: an event that is there has all before it there, too.
    auto changes = std::exchange(unsaved_, {});
    std::ranges::move(to_changes(events, batch), std::back_inserter(changes));
    const auto written = co_await base::shielded(store_.commit(changes));
    if (!written) unsaved_ = std::move(changes);
    if (unsaved_.size() > max_kept) unsaved_.erase(unsaved_.begin(), unsaved_.end() - max_kept);
    if (!written && !failing_)
        log_.error("events can't be written; they go to their readers all the same",
                   {{"error", written.error().detail}});
    failing_ = !written.has_value();
    for (auto& event : events) {
        last_id_ = event.id;
        events_.push_back(std::move(event));
    }
    while (events_.size() > max_kept) events_.pop_front();
    more_.notify();
}

storage::Changes EventLog::to_changes(const std::deque<Event>& events, const std::deque<Waiting>& batch) {
    auto changes = std::exchange(unwritten_, {});
    // What an incident is about stays as it was told last.
    for (std::size_t i = 0; i < events.size(); ++i)
        changes.emplace_back(storage::EventRow{events[i].id, batch[i].incident ? std::string{} : batch[i].subject,
                                               batch[i].version, *events[i].text});
    since_prune_ += events.size();
    if (since_prune_ >= prune_interval) {
        changes.emplace_back(storage::PruneEvents{max_kept});
        since_prune_ = 0;
    }
    return changes;
}

base::Result<void> EventLog::can_resume(std::uint64_t after) const {
    const auto oldest = events_.empty() ? next_id_ : events_.front().id;
    // Of an earlier run only what was written counts: whoever was told more than that knows what nobody here does.
    const bool of_this_run = after >= first_id_ && after + 1 >= oldest && after < next_id_;
    if (of_this_run || std::ranges::binary_search(events_, after, {}, &Event::id)) return {};
    base::Error expired{base::Errc::events_expired,
                        after >= next_id_
                            ? fmt::format("event {} is none of this agent's; list again", after)
                            : fmt::format("what followed event {} isn't kept any more; list again", after)};
    expired.facts["oldest"] = oldest;
    expired.facts["newest"] = last_id_;
    return base::fail(std::move(expired));
}

std::optional<EventLog::Next> EventLog::next(std::uint64_t after) const {
    const auto it = std::ranges::upper_bound(events_, after, {}, &Event::id);
    if (it == events_.end()) return std::nullopt;
    return Next{it->id, it->text};
}

void EventLog::close() {
    closed_ = true;
    more_.notify();
}

}  // namespace ghost::agent
