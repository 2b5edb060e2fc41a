// Many byte streams at once through the agent's WebSockets, beside the same through socat: throughput, the time of a
// round trip, memory and CPU a stream, what a reader that doesn't read does to the others, and the loop's lag.
//
// Each relay is a process of its own between the client (this one) and an echo server, client's side a Unix socket and
// server's side TCP over loopback; both are fed by the same client, which masks its frames with zeros.
//
// Usage: bench_streams [STREAMS [SECONDS]]
#include "agent/access/stream_service.hpp"
#include "agent/vm/vm_index.hpp"
#include "base/clock.hpp"
#include "base/descriptor.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "fakes/certificates.hpp"
#include "fakes/fake_hypervisor.hpp"
#include "fakes/memory_files.hpp"
#include "net/server.hpp"
#include "net/tls.hpp"
#include "net/websocket.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <fmt/format.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

using namespace ghost;
namespace asio = boost::asio;

namespace {

using Time = std::chrono::steady_clock;
constexpr auto quiet = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t bulk = 16 * 1024;      // bytes of a message of the throughput's
constexpr std::size_t in_flight = 4 * bulk;  // of each stream
constexpr std::size_t small = 64;            // bytes of a round trip

[[noreturn]] void fault(const std::string& what) { throw std::runtime_error(what + ": " + std::strerror(errno)); }

// ---- Processes

class Child {
public:
    explicit Child(const std::function<void()>& work) : pid_(::fork()) {
        if (pid_ < 0) fault("fork");
        if (pid_ > 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::setpgid(0, 0);
        try {
            work();
        } catch (const std::exception& error) {
            fmt::print(stderr, "bench_streams: {}\n", error.what());
        }
        ::_exit(1);
    }
    ~Child() {
        ::kill(pid_, SIGTERM);
        ::kill(-pid_, SIGTERM);
        ::waitpid(pid_, nullptr, 0);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }

private:
    pid_t pid_;
};

struct Cost {
    double cpu_s = 0;
    double memory_kib = 0;  // that no other process shares
};

// Of process `root` and of those it started.
Cost cost_of(pid_t root) {
    Cost total;
    for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
        const auto name = entry.path().filename().string();
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        std::ifstream stat{entry.path() / "stat"};
        std::string text{std::istreambuf_iterator<char>{stat}, {}};
        const auto close = text.rfind(')');
        if (close == std::string::npos) continue;
        char state = 0;
        long parent = 0;
        unsigned long user = 0;
        unsigned long system = 0;
        if (std::sscanf(text.c_str() + close + 1, " %c %ld %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &state,
                        &parent, &user, &system) != 4)
            continue;
        if (std::stol(name) != root && parent != root) continue;
        total.cpu_s += double(user + system) / double(::sysconf(_SC_CLK_TCK));
        std::ifstream rollup{entry.path() / "smaps_rollup"};
        for (std::string line; std::getline(rollup, line);)
            if (line.starts_with("Private_"))
                total.memory_kib += std::strtod(line.c_str() + line.find(':') + 1, nullptr);
    }
    return total;
}

// ---- The echo server

asio::awaitable<void> echo(asio::ip::tcp::socket socket) {
    std::array<char, bulk> room;
    while (true) {
        const auto [error, count] = co_await socket.async_read_some(asio::buffer(room), quiet);
        if (error) co_return;
        const auto [failed, written] = co_await asio::async_write(socket, asio::buffer(room, count), quiet);
        if (failed) co_return;
    }
}

asio::awaitable<void> accept_echoes(asio::ip::tcp::acceptor& acceptor) {
    while (true) {
        auto [error, socket] = co_await acceptor.async_accept(quiet);
        if (error) co_return;
        socket.set_option(asio::ip::tcp::no_delay{true});
        asio::co_spawn(acceptor.get_executor(), echo(std::move(socket)), asio::detached);
    }
}

// A port that is bound and listened on before the fork, so that nobody comes too early.
struct EchoServer {
    asio::io_context loop{1};
    asio::ip::tcp::acceptor acceptor{loop, {asio::ip::address_v4::loopback(), 0}};
    std::uint16_t port = acceptor.local_endpoint().port();
    std::unique_ptr<Child> child;

    EchoServer() {
        loop.notify_fork(asio::io_context::fork_prepare);
        child = std::make_unique<Child>([this] {
            loop.notify_fork(asio::io_context::fork_child);
            asio::co_spawn(loop, accept_echoes(acceptor), asio::detached);
            loop.run();
        });
        loop.notify_fork(asio::io_context::fork_parent);
        acceptor.close();
    }
};

// ---- The client: streams that are plain or framed, driven by one poll

class Stream {
public:
    Stream(const std::string& path, bool framed) : framed_(framed), socket_(connect_to(path)) {
        if (framed) shake_hands();
        ::fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
    }

    [[nodiscard]] int fd() const noexcept { return socket_.get(); }
    // Puts a message of `count` bytes into the queue.
    void queue(std::size_t count) {
        if (framed_) {
            std::string head{"\x82"};
            if (count < 126) {
                head.push_back(static_cast<char>(0x80U | count));
            } else {
                head.push_back(static_cast<char>(0x80U | 126U));
                head.push_back(static_cast<char>(count >> 8U));
                head.push_back(static_cast<char>(count & 0xffU));
            }
            head.append(4, '\0');  // the mask
            out_ += head;
        }
        out_.append(count, 'x');
    }
    void flush() {
        while (!out_.empty()) {
            const auto sent = ::send(socket_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
            if (sent < 0 && errno == EAGAIN) return;
            if (sent < 0) fault("send");
            out_.erase(0, static_cast<std::size_t>(sent));
        }
    }
    [[nodiscard]] bool wants_to_write() const noexcept { return !out_.empty(); }
    // Payload bytes that came.
    std::size_t take() {
        static std::array<char, 256 * 1024> room;
        const auto got = ::recv(socket_.get(), room.data(), room.size(), 0);
        if (got < 0 && errno == EAGAIN) return 0;
        if (got <= 0) throw std::runtime_error("a stream was cut off" + last_);
        const std::string_view bytes{room.data(), static_cast<std::size_t>(got)};
        return framed_ ? unframe(bytes) : bytes.size();
    }

private:
    static base::Descriptor connect_to(const std::string& path) {
        base::Descriptor socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
        for (int tries = 0; ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0;
             ++tries) {
            if (tries > 500) fault("cannot connect to " + path);
            ::usleep(10'000);
        }
        return socket;
    }
    void shake_hands() {
        constexpr std::string_view request =
            "GET / HTTP/1.1\r\nHost: agent\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        if (::write(socket_.get(), request.data(), request.size()) < 0) fault("write");
        std::string head;
        for (char c = 0; !head.ends_with("\r\n\r\n"); head.push_back(c))
            if (::read(socket_.get(), &c, 1) != 1) fault("no handshake: " + head);
        if (!head.starts_with("HTTP/1.1 101")) throw std::runtime_error(head);
    }
    std::size_t unframe(std::string_view bytes) {
        std::size_t payload = 0;
        while (!bytes.empty()) {
            if (left_ > 0) {
                const auto part = std::min(left_, bytes.size());
                payload += control_ ? 0 : part;
                if (control_) last_ += bytes.substr(0, part);
                left_ -= part;
                bytes.remove_prefix(part);
                continue;
            }
            head_.push_back(bytes.front());
            bytes.remove_prefix(1);
            if (head_.size() < 2) continue;
            const auto length = static_cast<unsigned char>(head_[1]);
            const std::size_t size = length < 126 ? 2 : length == 126 ? 4 : 10;
            if (head_.size() < size) continue;
            left_ = length < 126 ? length : 0;
            for (std::size_t i = 2; i < size; ++i) left_ = (left_ << 8U) | static_cast<unsigned char>(head_[i]);
            control_ = (static_cast<unsigned char>(head_[0]) & 0x0fU) > 2;
            head_.clear();
        }
        return payload;
    }

    bool framed_;
    base::Descriptor socket_;
    std::string out_;
    std::string head_;
    std::string last_ = ": ";  // of its control frames: a goodbye says why
    std::size_t left_ = 0;
    bool control_ = false;
};

struct Figures {
    double mib_s = 0;
    std::vector<double> round_trips_ms;
};

// All streams but the first `idle` send for `seconds`: `count` bytes, again as soon as `window` leaves room.
Figures drive(std::deque<Stream>& streams, std::size_t idle, std::size_t count, std::size_t window, double seconds) {
    struct Each {
        std::size_t waiting = 0;  // bytes on their way
        Time::time_point sent;
    };
    std::vector<Each> state(streams.size());
    std::vector<pollfd> polled;
    for (const auto& stream : streams) polled.push_back({stream.fd(), POLLIN, 0});
    Figures figures;
    double received = 0;
    const auto start = Time::now();
    const auto end = start + std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>{seconds});
    bool sending = true;
    while (true) {
        sending = sending && Time::now() < end;
        std::size_t busy = 0;
        for (std::size_t i = idle; i < streams.size(); ++i) {
            while (sending && state[i].waiting + count <= window) {
                streams[i].queue(count);
                state[i].waiting += count;
                state[i].sent = Time::now();
            }
            streams[i].flush();
            busy += state[i].waiting > 0 ? 1 : 0;
            polled[i].events = static_cast<short>(POLLIN | (streams[i].wants_to_write() ? POLLOUT : 0));
        }
        if (busy == 0) break;
        if (::poll(polled.data() + idle, polled.size() - idle, 30'000) <= 0)
            throw std::runtime_error("nothing came back");
        for (std::size_t i = idle; i < streams.size(); ++i) {
            if ((polled[i].revents & POLLIN) == 0) continue;
            const auto came = streams[i].take();
            if (came == 0) continue;
            received += double(came);
            state[i].waiting -= came;
            if (state[i].waiting == 0)
                figures.round_trips_ms.push_back(
                    std::chrono::duration<double, std::milli>(Time::now() - state[i].sent).count());
        }
    }
    figures.mib_s = received / 1048576 / std::chrono::duration<double>(Time::now() - start).count();
    std::ranges::sort(figures.round_trips_ms);
    return figures;
}

double part_of(const std::vector<double>& sorted, double part) {
    return sorted.empty() ? 0 : sorted[static_cast<std::size_t>(part * double(sorted.size() - 1))];
}

// ---- The relays

// What the loop's timers were late by, for the parent to read.
asio::awaitable<void> measure_lag(asio::io_context& loop, std::string path) {
    asio::steady_timer timer{loop};
    std::vector<double> seen;
    while (true) {
        const auto due = Time::now() + std::chrono::milliseconds{20};
        timer.expires_at(due);
        co_await timer.async_wait(quiet);
        seen.push_back(std::chrono::duration<double, std::milli>(Time::now() - due).count());
        if (seen.size() % 50 != 0) continue;
        auto sorted = seen;
        std::ranges::sort(sorted);
        std::ofstream{path} << fmt::format("p99 {:.1f} ms, most {:.1f} ms", part_of(sorted, 0.99), sorted.back());
    }
}

// Every guest is the echo server.
class EchoDialer final : public agent::GuestDialer {
public:
    explicit EchoDialer(std::uint16_t port) : port_(port) {}

    Task<net::StreamSocket> connect(agent::GuestPlace, std::uint16_t, base::Instant) override {
        net::StreamSocket socket{co_await asio::this_coro::executor};
        const asio::ip::tcp::endpoint to{asio::ip::address_v4::loopback(), port_};
        const auto [error] = co_await socket.async_connect(asio::generic::stream_protocol::endpoint{to}, quiet);
        if (error) co_return base::fail(base::Errc::source_unavailable, error.message());
        const int on = 1;
        ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        co_return socket;
    }
    Task<asio::ip::udp::socket> connect_udp(agent::GuestPlace, std::uint16_t, base::Instant) override {
        co_return base::fail(base::Errc::source_unavailable, "no datagrams here");
    }
    bool leads_to(const agent::GuestPlace&, const asio::ip::address&) override { return true; }

private:
    std::uint16_t port_;
};

// A port for TLS, and certificates for both of its ends.
struct SecurePort {
    net::TlsFiles server;
    net::TlsFiles client;
    std::uint16_t port = 0;

    explicit SecurePort(const std::filesystem::path& folder) {
        fakes::CertificateAuthority authority{"bench"};
        const auto keep = [&folder](const char* name, const std::string& pem) {
            const auto path = folder / name;
            std::ofstream{path} << pem;
            std::filesystem::permissions(path, std::filesystem::perms::owner_read);
            return path.string();
        };
        const auto here = authority.issue({.common_name = "agent", .alternative_names = "IP:127.0.0.1"});
        const auto there = authority.issue({.common_name = "client"});
        const auto ca = keep("ca.pem", authority.certificate());
        server = {.certificate = keep("agent.pem", here.certificate), .key = keep("agent.key", here.key), .ca = ca};
        client = {.certificate = keep("client.pem", there.certificate), .key = keep("client.key", there.key), .ca = ca};
        asio::io_context loop;
        // Free a moment ago.
        port = asio::ip::tcp::acceptor{loop, {asio::ip::address_v4::loopback(), 0}}.local_endpoint().port();
    }
};

// The agent's streams, without the rest of the agent.
struct Agent {
    asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    base::Log log{base::Level::error, {}};
    fakes::FakeHypervisor hypervisor{loop, clock};
    fakes::MemoryFiles files;
    agent::VmIndex vms{loop.get_executor(), clock, 1};
    EchoDialer dialer;
    agent::StreamService streams;
    std::unique_ptr<net::Server> server;

    explicit Agent(std::uint16_t echo)
        : dialer(echo),
          streams({.executor = loop.get_executor(),
                   .vms = vms,
                   .hypervisor = hypervisor,
                   .files = files,
                   .clock = clock,
                   .random = random,
                   .log = log,
                   .dialer = &dialer},
                  std::chrono::hours{4}) {
        agent::Vm vm;
        vm.id = "00000000-0000-4000-8000-000000000001";
        vm.name = "web";
        vm.phase = agent::Phase::ready;
        vms.put(vm);
        vms.observe(vm.id, {.present = true, .power = virt::Power::running, .at = clock.wall()});
        net::ServerLimits limits;
        limits.connections = limits.websockets_per_identity = 1U << 16U;
        server = net::make_http_server(loop.get_executor(), limits, log,
                                       {.request_id = [this] { return base::make_uuid(clock, random); },
                                        .traceparent = [this] { return base::make_traceparent(random); }});
    }

    asio::awaitable<net::Response> open(net::Request request) {
        auto serve = co_await streams.forward(request.context, "web", 22);
        if (!serve) co_return net::Response{.status = 502, .body = serve.error().detail};
        co_return net::websocket_reply(request, {agent::StreamService::protocol}, std::move(*serve));
    }

    // Doesn't return.
    void serve(const std::string& socket, const std::string& lag, const SecurePort& secure) {
        const net::Handler handler = [this](net::Request request) { return open(std::move(request)); };
        auto tls = net::make_server_tls(secure.server);
        if (!tls) throw std::runtime_error(tls.error().detail);
        if (!server->listen(net::TcpEndpoint{"127.0.0.1", secure.port}, *tls, handler)) fault("cannot listen for TLS");
        if (!server->listen(net::UnixEndpoint{socket, 0600, ""}, nullptr, handler)) fault("cannot listen on " + socket);
        asio::co_spawn(loop, measure_lag(loop, lag), asio::detached);
        loop.run();
    }
};

// ---- The measures

void measure(std::string_view name, const Child& relay, const std::string& path, bool framed, std::size_t count,
             double seconds) {
    std::deque<Stream> streams;
    streams.emplace_back(path, framed);
    (void)drive(streams, 0, small, small, 0.2);
    streams.clear();
    ::usleep(300'000);
    const auto before = cost_of(relay.pid());
    for (std::size_t i = 0; i < count; ++i) streams.emplace_back(path, framed);
    (void)drive(streams, 0, small, small, 0.5);
    const auto open = cost_of(relay.pid());
    const auto trips = drive(streams, 0, small, small, seconds);
    const auto small_cost = cost_of(relay.pid());
    const auto flow = drive(streams, 0, bulk, in_flight, seconds);
    const auto used = cost_of(relay.pid());
    // One in eight never reads what it asked for: 8 MiB each.
    const auto stalled = count / 8;
    for (std::size_t i = 0; i < stalled; ++i) {
        for (int n = 0; n < 512; ++n) streams[i].queue(bulk);
        streams[i].flush();
    }
    const auto beside = drive(streams, stalled, small, small, seconds);
    const auto full = cost_of(relay.pid());
    const auto each = [&](const Cost& cost) { return (cost.memory_kib - before.memory_kib) / double(count); };
    fmt::print(
        "{:<28} {:7.0f} MiB/s   CPU {:5.2f} s/GiB   round trip p50 {:6.2f} p99 {:6.2f} ms, {:6.0f}/s, CPU {:4.0f} us\n",
        name, flow.mib_s, (used.cpu_s - small_cost.cpu_s) / (flow.mib_s * seconds / 1024),
        part_of(trips.round_trips_ms, 0.5), part_of(trips.round_trips_ms, 0.99),
        double(trips.round_trips_ms.size()) / seconds,
        (small_cost.cpu_s - open.cpu_s) * 1e6 / double(trips.round_trips_ms.size()));
    fmt::print(
        "{:<28} memory a stream: {:.0f} KiB open, {:.0f} KiB after the bulk, {:.0f} KiB with {} that don't read; "
        "beside those p50 {:.2f} p99 {:.2f} ms\n",
        "", each(open), each(used), each(full), stalled, part_of(beside.round_trips_ms, 0.5),
        part_of(beside.round_trips_ms, 0.99));
}

// One stream over TLS that has a message of the bulk's echoed, and stays.
asio::awaitable<void> use_secure(const net::Peer& peer, std::unique_ptr<net::WebSocket>& kept, std::size_t& open) {
    auto opened = co_await net::open_websocket(peer, {.target = "/"});
    if (!opened) throw std::runtime_error(opened.error().error.detail);
    kept = std::move(*opened);
    const std::string message(in_flight, 'x');
    if (!co_await kept->write(asio::buffer(message))) throw std::runtime_error("a stream over TLS was cut off");
    std::array<char, bulk> room;
    for (std::size_t left = in_flight; left > 0;) {
        const auto got = co_await kept->read(asio::buffer(room));
        if (got.kind != net::WebSocket::Kind::data) throw std::runtime_error("a stream over TLS ended");
        left -= got.bytes;
    }
    ++open;
}

void measure_secure(const Child& relay, const SecurePort& secure, std::size_t count) {
    asio::io_context loop{1};
    auto tls = net::make_client_tls(secure.client);
    if (!tls) throw std::runtime_error(tls.error().detail);
    const net::Peer peer = net::HttpsPeer{"127.0.0.1", std::to_string(secure.port), *tls};
    std::vector<std::unique_ptr<net::WebSocket>> streams(count + 1);
    std::size_t open = 0;
    const auto open_until = [&](std::size_t wanted) {
        while (open < wanted) {
            const auto so_far = open;
            asio::co_spawn(loop, use_secure(peer, streams[open], open), [](const std::exception_ptr& error) {
                if (error) std::rethrow_exception(error);
            });
            while (open == so_far) loop.run_one();
        }
    };
    open_until(1);
    const auto before = cost_of(relay.pid());
    open_until(count + 1);
    const auto after = cost_of(relay.pid());
    fmt::print("{:<28} memory a stream over TLS, after {} KiB each way: {:.0f} KiB\n", "", in_flight / 1024,
               (after.memory_kib - before.memory_kib) / double(count));
    for (auto& stream : streams) stream->abort();
    loop.restart();
    loop.poll();
}

void run(std::size_t count, double seconds) {
    const auto folder = std::filesystem::temp_directory_path() / fmt::format("bench-streams-{}", ::getpid());
    std::filesystem::create_directory(folder);
    const auto path = [&folder](const char* name) { return (folder / name).string(); };
    {
        const EchoServer echo;
        fmt::print("{} streams, {} B round trips, then {} KiB messages with {} KiB of each stream on their way\n",
                   count, small, bulk / 1024, in_flight / 1024);
        {
            const Child socat{[&] {
                const auto listen = fmt::format("UNIX-LISTEN:{},fork,backlog=1024", path("socat"));
                const auto to = fmt::format("TCP:127.0.0.1:{},nodelay", echo.port);
                ::execlp("socat", "socat", "-lf", "/dev/null", listen.c_str(), to.c_str(), nullptr);
                fault("socat");
            }};
            measure("socat, a process each", socat, path("socat"), false, count, seconds);
        }
        const SecurePort secure{folder};
        const auto serve = [&](const char* name) {
            Agent agent{echo.port};
            agent.serve(path(name), path("lag"), secure);
        };
        {
            const Child relay{[&] { serve("agent"); }};
            measure("the agent, WebSockets", relay, path("agent"), true, count, seconds);
            ::usleep(1'200'000);
            std::ifstream lag{path("lag")};
            fmt::print("{:<28} the loop's lag over all of it: {}\n", "",
                       std::string{std::istreambuf_iterator<char>{lag}, {}});
        }
        // One of its own: what the first gave back would be used again.
        const Child relay{[&] { serve("fresh"); }};
        while (!std::filesystem::exists(path("fresh"))) ::usleep(10'000);
        measure_secure(relay, secure, count);
    }
    std::filesystem::remove_all(folder);
}

}  // namespace

int main(int count, char** arguments) {
    try {
        rlimit files{};
        ::getrlimit(RLIMIT_NOFILE, &files);
        files.rlim_cur = files.rlim_max;
        ::setrlimit(RLIMIT_NOFILE, &files);
        run(count > 1 ? std::stoul(arguments[1]) : 200, count > 2 ? std::stod(arguments[2]) : 5.0);
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        fmt::print(stderr, "bench_streams: {}\n", error.what());
        return EXIT_FAILURE;
    }
}
