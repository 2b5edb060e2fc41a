// One VM's console for all who look at it: it is read in one place, always, and
// each reader goes at its own pace.
#pragma once

#include "agent/access/console_line.hpp"
#include "agent/access/far_end.hpp"
#include "agent/access/replay.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/notifier.hpp"
#include "base/task_group.hpp"
#include "storage/files.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ghost::agent {

struct WindowSize {
    unsigned rows = 0;
    unsigned columns = 0;
};

// What consoles stand on; all of it outlives them.
struct ConsoleGround {
    boost::asio::any_io_executor executor;
    VmIndex& vms;
    storage::Files& files;
    base::Clock& clock;
    base::TaskGroup& tasks;
    // The line of a VM that runs; errors besides open_console_line's: the hypervisor's.
    std::function<boost::asio::awaitable<base::Result<std::shared_ptr<ConsoleLine>>>(std::string vm)> open;
    // Tells the guest how large the writer's window is, if it may be told.
    std::function<boost::asio::awaitable<void>(std::string vm, WindowSize size)> resize;
};

class ConsoleHub : public std::enable_shared_from_this<ConsoleHub> {
public:
    static constexpr std::size_t most_readers = 64;
    static constexpr std::size_t input_room = 16 * 1024;       // bytes that wait for the guest
    static constexpr std::chrono::seconds input_patience{30};  // with a guest that takes none; then they are dropped
    static constexpr std::chrono::seconds linger{10};          // how long it is kept without readers
    static constexpr std::chrono::seconds opening{10};
    static constexpr std::chrono::seconds reopening{5};  // of a line that broke off while the VM goes on
    static constexpr std::chrono::milliseconds look_again{250};
    static constexpr std::chrono::seconds last_words{1};  // of a VM that stopped

    struct Reader {
        std::string name;  // whom the others are told of
        bool force = false;
        bool read_only = false;
    };
    // A reader's place. Its first bytes are the last that the console said before.
    class Seat;

    ConsoleHub(const ConsoleGround& ground, std::string vm);

    // Opens it; once.
    void begin();
    // Errors: those of opening it, deadline_exceeded, overloaded (too many readers), cancelled, state_conflict (the VM
    // stopped meanwhile).
    [[nodiscard]] boost::asio::awaitable<base::Result<std::shared_ptr<Seat>>> join(Reader reader);
    void end(Ending how);
    [[nodiscard]] bool over() const noexcept { return ending_ || fault_; }

private:
    using Self = std::shared_ptr<ConsoleHub>;
    static boost::asio::awaitable<void> serve(Self self);
    static boost::asio::awaitable<void> type(Self self);
    static boost::asio::awaitable<void> look_after(Self self);
    static boost::asio::awaitable<void> fit_window(Self self);
    [[nodiscard]] boost::asio::awaitable<bool> open_line();
    [[nodiscard]] boost::asio::awaitable<bool> reopen_line();
    [[nodiscard]] boost::asio::awaitable<void> drain();
    [[nodiscard]] boost::asio::awaitable<std::string> log_tail();
    void leave(Seat& seat);
    void hand_over(Seat* writer);
    void resize(WindowSize size);
    void notify();

    const ConsoleGround& ground_;
    std::string vm_;
    std::shared_ptr<ConsoleLine> line_;  // null while there is none
    Replay replay_;
    std::string input_;
    std::vector<Seat*> seats_;  // in the order they came
    Seat* writer_ = nullptr;
    std::uint64_t writers_ = 0;  // grows when another writes
    bool opened_ = false;
    std::optional<base::Error> fault_;  // why it couldn't be opened
    std::optional<Ending> ending_;
    base::Instant empty_since_;
    base::Instant broken_until_;      // by when a line that broke off has to be back
    std::optional<WindowSize> size_;  // to be told next
    bool fitting_ = false;
    base::Notifier changed_;
    base::Notifier taken_;  // there may be room for input
};

class ConsoleHub::Seat final : public FarEnd {
public:
    Seat(Self hub, Reader reader);
    ~Seat() override;
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;

    [[nodiscard]] boost::asio::awaitable<Got> read(boost::asio::mutable_buffer room) override;
    // What isn't the writer's is dropped.
    [[nodiscard]] boost::asio::awaitable<std::optional<Ending>> write(std::string_view bytes) override;
    [[nodiscard]] std::optional<Ending> take(const boost::json::object& event) override;
    void close() noexcept override;

private:
    friend class ConsoleHub;
    [[nodiscard]] bool writes() const noexcept { return hub_->writer_ == this; }

    Self hub_;
    Reader reader_;
    std::uint64_t place_ = 0;  // in all that the console said
    std::uint64_t told_ = 0;   // of the hub's writers
    bool closed_ = false;
};

// The hubs, by VM.
class Consoles {
public:
    explicit Consoles(ConsoleGround ground) : ground_(std::move(ground)) {}

    [[nodiscard]] boost::asio::awaitable<base::Result<std::shared_ptr<FarEnd>>> join(std::string vm,
                                                                                     ConsoleHub::Reader reader);
    void end(const Ending& how);

private:
    ConsoleGround ground_;
    std::map<std::string, std::weak_ptr<ConsoleHub>, std::less<>> hubs_;  // they keep themselves while they are open
};

}  // namespace ghost::agent
