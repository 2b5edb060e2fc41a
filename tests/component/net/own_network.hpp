// Networks of a test's own, changed with ip(8). Needs root.
#pragma once

#include "base/descriptor.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <exception>
#include <functional>
#include <future>
#include <string>
#include <system_error>
#include <thread>

namespace ghost::tests {

// Runs `work` in a thread that has a network of its own, with nothing in it.
inline void in_own_network(const std::function<void()>& work) {
    std::exception_ptr fault;
    std::thread{[&] {
        try {
            if (::unshare(CLONE_NEWNET) != 0) throw std::system_error{errno, std::system_category(), "unshare"};
            work();
        } catch (...) {
            fault = std::current_exception();
        }
    }}.join();
    if (fault) std::rethrow_exception(fault);
}

// The children run in the calling thread's network.
inline bool ip_works(const std::string& arguments) {
    return std::system(("ip " + arguments).c_str()) == 0;  // NOLINT(concurrency-mt-unsafe,cert-env33-c)
}
inline void ip(const std::string& arguments) {
    INFO("ip " << arguments);
    REQUIRE(ip_works(arguments));
}

// Another network beside the calling thread's, as long as it lives: a guest's.
class OtherNetwork {
public:
    OtherNetwork() : thread_([this] { stay(); }) { id_ = entered_.get_future().get(); }
    ~OtherNetwork() {
        leave_.set_value();
        thread_.join();
    }
    OtherNetwork(const OtherNetwork&) = delete;
    OtherNetwork& operator=(const OtherNetwork&) = delete;

    // "ip link set eth0 netns <id>" moves a card there.
    [[nodiscard]] std::string id() const { return std::to_string(id_); }
    // What is run in it.
    void run(const std::function<void()>& work) const {
        // A thread is born into the network of the one that makes it; this one moves over.
        std::exception_ptr fault;
        std::thread{[&] {
            try {
                const auto path = "/proc/self/task/" + id() + "/ns/net";
                enter(path);
                work();
            } catch (...) {
                fault = std::current_exception();
            }
        }}.join();
        if (fault) std::rethrow_exception(fault);
    }

private:
    static void enter(const std::string& path) {
        const base::Descriptor network{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
        if (!network || ::setns(network.get(), CLONE_NEWNET) != 0)
            throw std::system_error{errno, std::system_category(), "setns"};
    }

    void stay() {
        if (::unshare(CLONE_NEWNET) != 0)
            entered_.set_exception(
                std::make_exception_ptr(std::system_error{errno, std::system_category(), "unshare"}));
        else
            entered_.set_value(::gettid());
        leave_.get_future().wait();
    }

    std::promise<pid_t> entered_;
    std::promise<void> leave_;
    pid_t id_ = 0;
    std::thread thread_;
};

}  // namespace ghost::tests
