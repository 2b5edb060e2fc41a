// How long an event takes from its publication to each of many readers, over Unix sockets and the real HTTP server,
// beside what the kernel needs to hand the same bytes to as many sockets.
//
// Usage: bench_events [READERS [EVENTS]]
#include "agent/api/routes.hpp"
#include "agent/events/event_log.hpp"
#include "base/descriptor.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "fakes/memory_store.hpp"
#include "net/router.hpp"
#include "net/server.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <fmt/core.h>

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace ghost;
namespace asio = boost::asio;

namespace {

using Time = std::chrono::steady_clock;

constexpr std::size_t vm_bytes = 1500;  // of a VM as an event shows it

double milliseconds_since(Time::time_point start) {
    return std::chrono::duration<double, std::milli>(Time::now() - start).count();
}

base::Descriptor connect_to(const std::string& path) {
    base::Descriptor socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw std::runtime_error("cannot connect to " + path);
    return socket;
}

// Readers on a thread of their own; each event's arrival at each of them is timed.
class Readers {
public:
    Readers(const std::string& path, std::size_t count) {
        constexpr std::string_view request = "GET /v1/events HTTP/1.1\r\nHost: agent\r\n\r\n";
        for (std::size_t i = 0; i < count; ++i) {
            sockets_.push_back(connect_to(path));
            if (::write(sockets_.back().get(), request.data(), request.size()) < 0)
                throw std::runtime_error("cannot write");
            polled_.push_back({sockets_.back().get(), POLLIN, 0});
        }
    }

    // Until each reader got `marker`; the times it took since `start`, in milliseconds.
    std::vector<double> await(const std::string& marker, Time::time_point start) {
        std::vector<double> took;
        std::vector<bool> done(polled_.size());
        std::string buffer(65536, 0);
        while (took.size() < polled_.size()) {
            if (::poll(polled_.data(), polled_.size(), 10'000) <= 0) throw std::runtime_error("no event came");
            for (std::size_t i = 0; i < polled_.size(); ++i) {
                if ((polled_[i].revents & POLLIN) == 0) continue;
                const auto got = ::read(polled_[i].fd, buffer.data(), buffer.size());
                if (got <= 0) throw std::runtime_error("a reader was cut off");
                const std::string_view text{buffer.data(), static_cast<std::size_t>(got)};
                if (done[i] || text.find(marker) == std::string_view::npos) continue;
                done[i] = true;
                took.push_back(milliseconds_since(start));
            }
        }
        return took;
    }

private:
    std::vector<base::Descriptor> sockets_;
    std::vector<pollfd> polled_;
};

void report(std::string_view what, std::vector<double> took) {
    std::ranges::sort(took);
    const auto at = [&took](double part) { return took[static_cast<std::size_t>(part * double(took.size() - 1))]; };
    fmt::print("{:<34} p50 {:7.2f} ms   p99 {:7.2f} ms   last {:7.2f} ms\n", what, at(0.5), at(0.99), took.back());
}

// The limit: the same bytes to as many socket pairs, written one after another.
std::vector<double> raw_fan_out(std::size_t readers, std::size_t rounds) {
    std::vector<std::pair<base::Descriptor, base::Descriptor>> pairs;
    for (std::size_t i = 0; i < readers; ++i) {
        int ends[2] = {-1, -1};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("no socket pair");
        pairs.emplace_back(base::Descriptor{ends[0]}, base::Descriptor{ends[1]});
    }
    const std::string bytes(vm_bytes, 'x');
    std::string in(vm_bytes, 0);
    std::vector<double> took;
    for (std::size_t round = 0; round < rounds; ++round) {
        const auto start = Time::now();
        for (const auto& [writer, reader] : pairs) {
            if (::write(writer.get(), bytes.data(), bytes.size()) < 0) throw std::runtime_error("cannot write");
            took.push_back(milliseconds_since(start));
        }
        for (const auto& [writer, reader] : pairs)
            if (::read(reader.get(), in.data(), in.size()) < 0) throw std::runtime_error("cannot read");
    }
    return took;
}

struct Agent {
    asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    base::Log log{base::Level::error, {}};
    fakes::MemoryStore store;
    agent::EventLog events{loop.get_executor(), clock, store, log, 0};
    net::Router router;
    std::unique_ptr<net::Server> server;

    explicit Agent(const std::string& path) {
        net::ServerLimits limits;
        limits.connections = limits.streams_per_identity = 1U << 16U;
        server = net::make_http_server(loop.get_executor(), limits, log,
                                       {.request_id = [this] { return base::make_uuid(clock, random); },
                                        .traceparent = [this] { return base::make_traceparent(random); }});
        agent::api::add_event_routes(router, events, clock);
        net::Handler handler = [this](net::Request request) { return router.serve(std::move(request)); };
        if (!server->listen(net::UnixEndpoint{path, 0600, ""}, nullptr, std::move(handler)))
            throw std::runtime_error("cannot listen on " + path);
        asio::co_spawn(loop, events.run(), asio::detached);
    }

    void publish(std::size_t number) {
        const auto marker = fmt::format("event-number-{}.", number);
        boost::json::object data{{"marker", marker}, {"padding", std::string(vm_bytes, 'x')}};
        events.publish("vm.updated", "/v1/vms/one", marker, std::move(data));
    }
};

void measure(std::size_t readers, std::size_t rounds) {
    const auto path = (std::filesystem::temp_directory_path() / fmt::format("bench-events-{}", ::getpid())).string();
    Agent agent{path};
    std::thread reactor{[&agent] { agent.loop.run(); }};
    std::vector<double> took;
    {
        Readers all{path, readers};
        (void)all.await("retry: 1000", Time::now());
        for (std::size_t number = 0; number < rounds; ++number) {
            const auto start = Time::now();
            asio::post(agent.loop, [&agent, number] { agent.publish(number); });
            const auto round = all.await(fmt::format("event-number-{}.", number), start);
            took.insert(took.end(), round.begin(), round.end());
        }
    }
    agent.loop.stop();
    reactor.join();
    std::filesystem::remove(path);
    fmt::print("{} readers, {} events of {} bytes\n", readers, rounds, vm_bytes);
    report("from publication to each reader", std::move(took));
    report("raw writes of the same bytes", raw_fan_out(readers, rounds));
}

}  // namespace

int main(int count, char** arguments) {
    try {
        rlimit files{};
        ::getrlimit(RLIMIT_NOFILE, &files);
        files.rlim_cur = files.rlim_max;
        ::setrlimit(RLIMIT_NOFILE, &files);
        const std::size_t readers = count > 1 ? std::stoul(arguments[1]) : 1000;
        const std::size_t rounds = count > 2 ? std::stoul(arguments[2]) : 50;
        measure(readers, rounds);
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        fmt::print(stderr, "bench_events: {}\n", error.what());
        return EXIT_FAILURE;
    }
}
