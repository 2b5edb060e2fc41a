#include "agent/access/console_hub.hpp"

#include "agent/access/console_log.hpp"
#include "base/cancelled.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::size_t piece = 16 * 1024;  // bytes that are read at once
constexpr unsigned most_cells = 1000;     // rows, or columns, of a window

std::optional<unsigned> cells(const boost::json::object& event, std::string_view key) {
    const auto* const value = event.if_contains(key);
    if (value == nullptr || !value->is_int64() || value->get_int64() < 1 || value->get_int64() > most_cells)
        return std::nullopt;
    return static_cast<unsigned>(value->get_int64());
}

}  // namespace

ConsoleHub::ConsoleHub(const ConsoleGround& ground, std::string vm)
    : ground_(ground),
      vm_(std::move(vm)),
      empty_since_(ground.clock.now()),
      changed_(ground.executor),
      taken_(ground.executor) {}

void ConsoleHub::begin() {
    ground_.tasks.spawn("console " + vm_, serve(shared_from_this()));
    ground_.tasks.spawn("console's input " + vm_, type(shared_from_this()));
    ground_.tasks.spawn("console's end " + vm_, look_after(shared_from_this()));
}

void ConsoleHub::notify() {
    changed_.notify();
    taken_.notify();
}

void ConsoleHub::end(Ending how) {
    if (over()) return;
    ending_ = std::move(how);
    if (line_) line_->close();
    line_.reset();
    notify();
}

asio::awaitable<void> ConsoleHub::serve(Self self) {
    struct Guard {
        ConsoleHub& hub;
        ~Guard() { hub.end({Ending::our_fault, "the agent lost the console"}); }
    };
    const Guard guard{*self};
    if (!co_await self->open_line()) co_return;
    do co_await self->drain();
    while (co_await self->reopen_line());
}

asio::awaitable<bool> ConsoleHub::open_line() {
    auto line = co_await ground_.open(vm_);
    if (over()) co_return false;
    if (!line) {
        fault_ = std::move(line).error();
        notify();
        co_return false;
    }
    line_ = *std::move(line);
    // What the console says from here on is in its buffer, so that nothing is missed; some of it is in the log as well.
    auto said = co_await log_tail();
    if (over()) co_return false;
    std::string live;
    std::string room(piece, '\0');
    while (live.size() < Replay::size) {
        const auto bytes = line_->read_ready(asio::buffer(room));
        if (bytes == 0) break;
        live.append(room, 0, bytes);
    }
    replay_.add(join_log(std::move(said), live));
    opened_ = true;
    empty_since_ = ground_.clock.now();
    notify();
    co_return true;
}

asio::awaitable<std::string> ConsoleHub::log_tail() {
    const auto* const vm = ground_.vms.find(vm_);
    if (vm == nullptr || vm->plan.console_log.empty()) co_return "";
    auto text = co_await read_console_log(ground_.files, vm->plan.console_log, Replay::size);
    co_return text ? *std::move(text) : std::string{};
}

asio::awaitable<void> ConsoleHub::drain() {
    const auto line = line_;
    std::string room(piece, '\0');
    while (!over()) {
        const auto bytes = co_await line->read(asio::buffer(room));
        if (bytes == 0) break;
        replay_.add(std::string_view{room}.substr(0, bytes));
        broken_until_ = {};
        changed_.notify();
    }
}

// A line ends with its VM; but a VM that goes on may have it back in a moment.
asio::awaitable<bool> ConsoleHub::reopen_line() {
    if (over()) co_return false;
    line_->close();
    line_.reset();
    if (broken_until_ == base::Instant{}) broken_until_ = ground_.clock.now() + reopening;
    changed_.notify();
    while (!over()) {
        co_await ground_.clock.sleep_for(look_again);
        if (over()) break;
        auto line = co_await ground_.open(vm_);
        if (over()) break;
        if (line) {
            line_ = *std::move(line);
            changed_.notify();
            co_return true;
        }
        if (ground_.clock.now() >= broken_until_)
            end({Ending::our_fault, fmt::format("the console broke off: {}", line.error().detail)});
    }
    co_return false;
}

asio::awaitable<void> ConsoleHub::type(Self self) {
    while (!self->over()) {
        const auto line = self->line_;
        if (!line || self->input_.empty()) {
            co_await self->changed_.wait();
            continue;
        }
        const auto text = std::exchange(self->input_, {});
        self->taken_.notify();
        // When it ends, whoever reads it sees that.
        if (!co_await line->write(text) && self->line_ == line) co_await self->changed_.wait();
    }
}

asio::awaitable<void> ConsoleHub::look_after(Self self) {
    using namespace asio::experimental::awaitable_operators;
    auto& hub = *self;
    auto& clock = hub.ground_.clock;
    std::optional<base::Instant> stopped;
    while (!hub.over()) {
        auto next = base::Instant::max();
        auto over = ending_of(hub.ground_.vms.find(hub.vm_));
        if (over) {
            if (!stopped) stopped = clock.now();
            next = *stopped + last_words;
            if (!hub.line_ || clock.now() >= next) hub.end(*std::move(over));
        } else if (stopped.reset(); hub.opened_ && hub.seats_.empty()) {
            next = hub.empty_since_ + linger;
            if (clock.now() >= next) hub.end({Ending::finished, "nobody looks at it"});
        }
        if (!hub.over()) co_await (hub.changed_.wait_until(clock, next) || hub.ground_.vms.changed().wait());
    }
}

asio::awaitable<base::Result<std::shared_ptr<ConsoleHub::Seat>>> ConsoleHub::join(Reader reader) {
    const auto self = shared_from_this();
    const auto limit = ground_.clock.now() + opening;
    while (!opened_ && !over()) {
        if (ground_.clock.now() >= limit)
            co_return base::fail(base::Errc::deadline_exceeded, "the console wasn't opened in time");
        co_await changed_.wait_until(ground_.clock, limit);
        if (co_await base::is_cancelled())
            co_return base::fail(base::Errc::cancelled, "cancelled while the console was opened");
    }
    if (fault_) co_return base::fail(*fault_);
    if (ending_) co_return base::fail(base::Errc::state_conflict, ending_->reason);
    if (seats_.size() >= most_readers)
        co_return base::fail(base::Errc::overloaded, fmt::format("{} clients look at this console", most_readers));
    co_return std::make_shared<Seat>(self, std::move(reader));
}

void ConsoleHub::hand_over(Seat* writer) {
    writer_ = writer;
    ++writers_;
    notify();
}

void ConsoleHub::leave(Seat& seat) {
    std::erase(seats_, &seat);
    if (seats_.empty()) empty_since_ = ground_.clock.now();
    if (writer_ == &seat) {
        const auto next = std::ranges::find_if(seats_, [](const Seat* s) { return !s->reader_.read_only; });
        hand_over(next == seats_.end() ? nullptr : *next);
    }
    notify();
}

void ConsoleHub::resize(WindowSize size) {
    size_ = size;
    if (std::exchange(fitting_, true)) return;
    ground_.tasks.spawn("console's window " + vm_, fit_window(shared_from_this()));
}

asio::awaitable<void> ConsoleHub::fit_window(Self self) {
    while (self->size_ && !self->over()) {
        const auto size = *std::exchange(self->size_, std::nullopt);
        co_await self->ground_.resize(self->vm_, size);
    }
    self->fitting_ = false;
}

// ---- A reader's place

ConsoleHub::Seat::Seat(Self hub, Reader reader) : hub_(std::move(hub)), reader_(std::move(reader)) {
    place_ = hub_->replay_.begin();
    hub_->seats_.push_back(this);
    if (!reader_.read_only && (hub_->writer_ == nullptr || reader_.force)) hub_->hand_over(this);
    told_ = hub_->writers_ - 1;  // it is told at once
}

ConsoleHub::Seat::~Seat() { hub_->leave(*this); }

asio::awaitable<FarEnd::Got> ConsoleHub::Seat::read(asio::mutable_buffer room) {
    auto& hub = *hub_;
    for (;;) {
        if (closed_) co_return Got{};
        if (told_ != hub.writers_) {
            told_ = hub.writers_;
            boost::json::value by = nullptr;
            if (hub.writer_ != nullptr) by = hub.writer_->reader_.name;
            co_return Got{.kind = Got::Kind::event,
                          .event = {{"event", "writer"}, {"writer", writes()}, {"by", std::move(by)}}};
        }
        if (const auto begin = hub.replay_.begin(); place_ < begin) {
            const auto skipped = begin - std::exchange(place_, begin);
            co_return Got{.kind = Got::Kind::event, .event = {{"event", "skipped"}, {"bytes", skipped}}};
        }
        const auto bytes = hub.replay_.copy(place_, {static_cast<char*>(room.data()), room.size()});
        place_ += bytes;
        if (bytes > 0) co_return Got{.kind = Got::Kind::data, .bytes = bytes};
        if (hub.ending_) co_return Got{.ending = *hub.ending_};
        co_await hub.changed_.wait();
    }
}

asio::awaitable<std::optional<Ending>> ConsoleHub::Seat::write(std::string_view bytes) {
    auto& hub = *hub_;
    auto limit = hub.ground_.clock.now() + input_patience;
    while (!bytes.empty() && writes() && !closed_ && !hub.over()) {
        const auto room = input_room - hub.input_.size();
        if (room > 0) {
            hub.input_ += bytes.substr(0, room);
            bytes.remove_prefix(std::min(room, bytes.size()));
            hub.changed_.notify();
            limit = hub.ground_.clock.now() + input_patience;
            continue;
        }
        if (hub.ground_.clock.now() >= limit) break;
        co_await hub.taken_.wait_until(hub.ground_.clock, limit);
    }
    co_return std::nullopt;
}

std::optional<Ending> ConsoleHub::Seat::take(const boost::json::object& event) {
    if (event.at("event") != "resize" || !writes()) return std::nullopt;
    const auto rows = cells(event, "rows");
    const auto columns = cells(event, "columns");
    if (rows && columns) hub_->resize({*rows, *columns});
    return std::nullopt;
}

void ConsoleHub::Seat::close() noexcept {
    closed_ = true;
    hub_->notify();
}

// ---- The hubs

asio::awaitable<base::Result<std::shared_ptr<FarEnd>>> Consoles::join(std::string vm, ConsoleHub::Reader reader) {
    std::erase_if(hubs_, [](const auto& entry) {
        const auto hub = entry.second.lock();
        return !hub || hub->over();
    });
    auto hub = hubs_[vm].lock();
    if (!hub) {
        hub = std::make_shared<ConsoleHub>(ground_, vm);
        hubs_[vm] = hub;
        hub->begin();
    }
    auto seat = co_await hub->join(std::move(reader));
    if (!seat) co_return base::fail(std::move(seat).error());
    co_return *std::move(seat);
}

void Consoles::end(const Ending& how) {
    for (const auto& [vm, known] : hubs_)
        if (const auto hub = known.lock()) hub->end(how);
}

}  // namespace ghost::agent
