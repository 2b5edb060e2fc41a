#include "virt/event_bridge.hpp"

#include "tests/unit/virt/loop_fixture.hpp"

#include <boost/asio/post.hpp>
#include <libvirt/libvirt.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <thread>
#include <vector>

using namespace ghost;
using namespace std::chrono_literals;

namespace {

// Two connected sockets.
struct Pair {
    Pair() { REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0); }
    ~Pair() {
        close_ours();
        close_theirs();
    }
    Pair(const Pair&) = delete;
    Pair& operator=(const Pair&) = delete;

    [[nodiscard]] int ours() const { return ends[0]; }
    void send() const { REQUIRE(::write(ends[1], "x", 1) == 1); }
    void drain() const {
        char buffer[16];
        while (::read(ends[0], buffer, sizeof buffer) > 0) {
        }
    }
    void close_ours() { close_end(ends[0]); }
    void close_theirs() { close_end(ends[1]); }
    static void close_end(int& end) {
        if (end >= 0) ::close(end);
        end = -1;
    }
    std::array<int, 2> ends{-1, -1};
};

// What libvirt is to the bridge: somebody who watches a descriptor or a timer.
struct Watcher {
    int id = -1;
    std::vector<int> events;  // timers: 0
    int freed = 0;
    std::thread::id freed_on;
    std::function<void(int)> then = [](int) {};  // inside the callback
    std::function<void()> on_free = [] {};

    void watch(int fd, int wanted) {
        id = virEventAddHandle(
            fd, wanted, [](int, int, int what, void* self) { static_cast<Watcher*>(self)->called(what); }, this,
            [](void* self) { static_cast<Watcher*>(self)->let_go(); });
        REQUIRE(id > 0);
    }
    void tick(int milliseconds) {
        id = virEventAddTimeout(
            milliseconds, [](int, void* self) { static_cast<Watcher*>(self)->called(0); }, this,
            [](void* self) { static_cast<Watcher*>(self)->let_go(); });
        REQUIRE(id > 0);
    }
    void called(int what) {
        REQUIRE(freed == 0);
        events.push_back(what);
        then(what);
    }
    void let_go() {
        ++freed;
        freed_on = std::this_thread::get_id();
        on_free();
    }
    [[nodiscard]] int count() const { return static_cast<int>(events.size()); }
};

struct Bridged : test::Loop {
    std::unique_ptr<virt::EventBridge> bridge = std::make_unique<virt::EventBridge>(context);
};

constexpr int readable = VIR_EVENT_HANDLE_READABLE;
constexpr int writable = VIR_EVENT_HANDLE_WRITABLE;

}  // namespace

TEST_CASE_METHOD(Bridged, "one bridge lives at a time, and another may follow it") {
    CHECK_THROWS_AS(virt::EventBridge(context), std::logic_error);
    bridge.reset();
    bridge = std::make_unique<virt::EventBridge>(context);
    Watcher timer;
    timer.tick(0);
    CHECK(until([&] { return timer.count() == 2; }));
    CHECK(virEventRemoveTimeout(timer.id) == 0);
    CHECK(until([&] { return bridge->live() == 0; }));
}

TEST_CASE_METHOD(Bridged, "a readable descriptor is reported as long as it stays readable") {
    Pair pair;
    Watcher watcher;
    watcher.watch(pair.ours(), readable);
    settle();
    CHECK(watcher.count() == 0);

    pair.send();
    CHECK(until([&] { return watcher.count() == 3; }));  // level-triggered: nobody read
    pair.drain();
    settle();
    const auto seen = watcher.count();
    settle();
    CHECK(watcher.count() == seen);
    pair.send();
    CHECK(until([&] { return watcher.count() == seen + 1; }));
    CHECK(std::ranges::all_of(watcher.events, [](int what) { return what == readable; }));

    CHECK(virEventRemoveHandle(watcher.id) == 0);
    CHECK(watcher.freed == 0);
    CHECK(bridge->live() == 1);
    CHECK(until([&] { return bridge->live() == 0; }));
    CHECK(watcher.freed == 1);
    CHECK(watcher.freed_on == std::this_thread::get_id());
}

TEST_CASE_METHOD(Bridged, "readable and writable at once is one report of both") {
    Pair pair;
    pair.send();
    Watcher watcher;
    watcher.then = [&](int) { virEventUpdateHandle(watcher.id, 0); };
    watcher.watch(pair.ours(), readable | writable);
    REQUIRE(until([&] { return watcher.count() > 0; }));
    settle();
    CHECK(watcher.events == std::vector{readable | writable});
    virEventRemoveHandle(watcher.id);
    CHECK(until([&] { return bridge->live() == 0; }));
}

TEST_CASE_METHOD(Bridged, "a watch without events is silent until it is given some") {
    Pair pair;
    pair.send();
    pair.close_theirs();
    Watcher watcher;
    watcher.watch(pair.ours(), 0);
    settle();
    CHECK(watcher.count() == 0);

    virEventUpdateHandle(watcher.id, writable);
    REQUIRE(until([&] { return watcher.count() > 0; }));
    CHECK((watcher.events.front() & writable) != 0);
    virEventUpdateHandle(watcher.id, 0);
    const auto seen = watcher.count();
    settle();
    CHECK(watcher.count() == seen);
    virEventRemoveHandle(watcher.id);
    CHECK(until([&] { return bridge->live() == 0; }));
}

TEST_CASE_METHOD(Bridged, "a peer that hangs up is told apart from one that writes") {
    Pair pair;
    Watcher watcher;
    watcher.then = [&](int) { virEventUpdateHandle(watcher.id, 0); };
    watcher.watch(pair.ours(), readable);
    pair.close_theirs();
    REQUIRE(until([&] { return watcher.count() > 0; }));
    CHECK(watcher.events == std::vector<int>{readable | VIR_EVENT_HANDLE_HANGUP});
    virEventRemoveHandle(watcher.id);
    CHECK(until([&] { return bridge->live() == 0; }));
}

TEST_CASE_METHOD(Bridged, "one descriptor can be watched twice") {
    Pair pair;
    Watcher reads;
    Watcher writes;
    reads.then = [&](int) { pair.drain(); };
    writes.then = [&](int) { virEventUpdateHandle(writes.id, 0); };
    reads.watch(pair.ours(), readable);
    writes.watch(pair.ours(), writable);
    CHECK(until([&] { return writes.count() == 1; }));
    virEventRemoveHandle(writes.id);
    CHECK(until([&] { return writes.freed == 1; }));

    pair.send();  // the other one goes on
    CHECK(until([&] { return reads.count() > 0; }));
    virEventRemoveHandle(reads.id);
    CHECK(until([&] { return bridge->live() == 0; }));
}

TEST_CASE_METHOD(Bridged, "a watch may be removed inside its callback, which is then not called again") {
    Pair pair;
    pair.send();
    Watcher watcher;
    watcher.then = [&](int) {
        CHECK(virEventRemoveHandle(watcher.id) == 0);
        CHECK(watcher.freed == 0);
    };
    watcher.watch(pair.ours(), readable | writable);
    CHECK(until([&] { return bridge->live() == 0; }));
    CHECK(watcher.count() == 1);
    CHECK(watcher.freed == 1);
}

TEST_CASE_METHOD(Bridged, "a callback may remove another watch whose report is already queued") {
    Pair first_pair;
    Pair second_pair;
    first_pair.send();
    second_pair.send();
    Watcher first;
    Watcher second;
    first.then = [&](int) {
        virEventRemoveHandle(first.id);
        virEventRemoveHandle(second.id);
    };
    second.then = first.then;
    first.watch(first_pair.ours(), readable);
    second.watch(second_pair.ours(), readable);
    CHECK(until([&] { return bridge->live() == 0; }));
    CHECK(first.count() + second.count() == 1);
}

TEST_CASE_METHOD(Bridged, "a watch may be changed inside its callback") {
    Pair pair;
    Watcher watcher;
    watcher.then = [&](int what) { virEventUpdateHandle(watcher.id, (what & writable) != 0 ? readable : 0); };
    watcher.watch(pair.ours(), writable);
    CHECK(until([&] { return watcher.count() == 1; }));
    settle();
    CHECK(watcher.count() == 1);
    pair.send();
    CHECK(until([&] { return watcher.count() == 2; }));
    settle();
    CHECK(watcher.events == std::vector<int>{writable, readable});
    virEventRemoveHandle(watcher.id);
    CHECK(until([&] { return bridge->live() == 0; }));
}

TEST_CASE_METHOD(Bridged, "a descriptor closed behind the bridge's back disturbs nobody") {
    Pair pair;
    Watcher watcher;
    watcher.watch(pair.ours(), readable);
    settle();
    const int number = pair.ours();
    pair.close_ours();
    Pair other;  // may take the same number over
    Watcher others;
    others.then = [&](int) { other.drain(); };
    others.watch(other.ours(), readable);
    other.send();
    CHECK(until([&] { return others.count() == 1; }));
    CHECK(watcher.count() == 0);
    CHECK(number >= 0);

    CHECK(virEventRemoveHandle(watcher.id) == 0);
    CHECK(virEventRemoveHandle(others.id) == 0);
    CHECK(until([&] { return bridge->live() == 0; }));
}

TEST_CASE_METHOD(Bridged, "what is no descriptor can't be watched") {
    CHECK(virEventAddHandle(-1, readable, [](int, int, int, void*) {}, nullptr, nullptr) == -1);
    CHECK(bridge->live() == 0);
}

TEST_CASE_METHOD(Bridged, "a regular file is always ready") {
    const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    REQUIRE(file >= 0);
    Watcher watcher;
    watcher.watch(file, readable);
    CHECK(until([&] { return watcher.count() == 2; }));
    virEventRemoveHandle(watcher.id);
    CHECK(until([&] { return bridge->live() == 0; }));
    ::close(file);
}

TEST_CASE_METHOD(Bridged, "a timer repeats until it is switched off, and can be switched on again") {
    Watcher timer;
    timer.tick(1);
    CHECK(until([&] { return timer.count() == 3; }));
    virEventUpdateTimeout(timer.id, -1);
    settle();
    const auto seen = timer.count();
    CHECK(seen == 3);
    virEventUpdateTimeout(timer.id, 0);
    CHECK(until([&] { return timer.count() == seen + 2; }));
    CHECK(virEventRemoveTimeout(timer.id) == 0);
    CHECK(until([&] { return bridge->live() == 0; }));
    CHECK(timer.freed == 1);
}

TEST_CASE_METHOD(Bridged, "a timer of 0 ms runs every turn without starving the rest of the loop") {
    Watcher timer;
    Watcher watcher;
    Pair pair;
    watcher.then = [&](int) { pair.drain(); };
    watcher.watch(pair.ours(), readable);
    timer.tick(0);
    CHECK(until([&] { return timer.count() == 10; }));
    pair.send();
    CHECK(until([&] { return watcher.count() == 1; }));
    virEventRemoveTimeout(timer.id);
    virEventRemoveHandle(watcher.id);
    CHECK(until([&] { return bridge->live() == 0; }));
}

TEST_CASE_METHOD(Bridged, "a timer made switched off never runs, and may be removed inside its callback") {
    Watcher off;
    off.tick(-1);
    Watcher once;
    once.then = [&](int) { virEventRemoveTimeout(once.id); };
    once.tick(0);
    CHECK(until([&] { return once.freed == 1; }));
    CHECK(once.count() == 1);
    CHECK(off.count() == 0);
    virEventRemoveTimeout(off.id);
    CHECK(until([&] { return bridge->live() == 0; }));
    CHECK(off.count() == 0);
}

TEST_CASE_METHOD(Bridged, "removing twice, or what never was, is refused") {
    Watcher timer;
    timer.tick(-1);
    CHECK(virEventRemoveTimeout(timer.id) == 0);
    CHECK(virEventRemoveTimeout(timer.id) == -1);
    CHECK(virEventRemoveHandle(timer.id) == -1);
    virEventUpdateTimeout(timer.id, 0);
    CHECK(until([&] { return bridge->live() == 0; }));
    CHECK(timer.count() == 0);
}

TEST_CASE_METHOD(Bridged, "a free callback may enter the bridge") {
    Watcher timer;
    Watcher next;
    timer.on_free = [&] { next.tick(0); };
    next.then = [&](int) { virEventRemoveTimeout(next.id); };
    timer.tick(-1);
    virEventRemoveTimeout(timer.id);
    CHECK(until([&] { return next.freed == 1; }));
    CHECK(bridge->live() == 0);
}

TEST_CASE_METHOD(Bridged, "entry points may be called from many threads while the loop runs") {
    constexpr int rounds = 200;
    std::array<Pair, 3> pairs;
    std::vector<std::thread> threads;
    std::atomic<std::size_t> finished{0};
    std::atomic<int> freed{0};
    for (auto& pair : pairs) {
        pair.send();
        threads.emplace_back([&] {
            for (int i = 0; i < rounds; ++i) {
                const int watch = virEventAddHandle(
                    pair.ours(), readable, [](int, int, int, void*) {}, &freed,
                    [](void* counter) { ++*static_cast<std::atomic<int>*>(counter); });
                const int timer = virEventAddTimeout(
                    0, [](int, void*) {}, &freed, [](void* counter) { ++*static_cast<std::atomic<int>*>(counter); });
                virEventUpdateHandle(watch, readable | writable);
                virEventUpdateTimeout(timer, 1);
                virEventUpdateHandle(watch, 0);
                virEventRemoveTimeout(timer);
                virEventRemoveHandle(watch);
            }
            ++finished;
        });
    }
    CHECK(until([&] { return finished == pairs.size() && bridge->live() == 0; }));
    CHECK(freed == 3 * rounds * 2);
    for (auto& thread : threads) thread.join();
}

TEST_CASE("after the bridge is gone its entry points do nothing") {
    Pair pair;
    Watcher left;
    Watcher removed;
    Watcher timer;
    {
        Bridged world;
        left.watch(pair.ours(), readable);
        removed.watch(pair.ours(), readable);
        timer.tick(0);
        pair.send();
        CHECK(world.until([&] { return left.count() > 0 && timer.count() > 0; }));
        virEventRemoveHandle(removed.id);
        CHECK(removed.freed == 0);
        world.bridge.reset();
        CHECK(removed.freed == 1);
        const auto seen = left.count();
        world.settle();
        CHECK(left.count() == seen);
    }
    // The loop is gone too.
    virEventUpdateHandle(left.id, writable);
    virEventUpdateTimeout(timer.id, 0);
    CHECK(virEventRemoveHandle(left.id) == -1);
    CHECK(virEventRemoveTimeout(timer.id) == -1);
    CHECK(virEventAddTimeout(0, [](int, void*) {}, nullptr, nullptr) == -1);
    CHECK(left.freed == 0);
}
