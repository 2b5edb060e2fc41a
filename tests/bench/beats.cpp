// What a beat with nothing to tell costs: its bytes, the agent's CPU for it and its round trip, over real TLS on
// loopback, to the stand-in for Core in a process of its own. Beside it bare POSTs of the same bytes to the same place:
// over our client, and with curl.
//
// Usage: bench_beats [BEATS]
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "heartbeat/https_core.hpp"
#include "heartbeat/link.hpp"
#include "net/x509.hpp"
#include "tests/bench/tcp_bytes.hpp"
#include "tests/fakes/core_server.hpp"
#include "tests/fakes/scratch_folder.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

using namespace ghost;
namespace asio = boost::asio;
using heartbeat::Call;
using heartbeat::CoreCall;

namespace {

using Time = std::chrono::steady_clock;

constexpr auto token = "bench";
constexpr auto install_id = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b";
constexpr int warm_up = 100;

template <class T>
T got(base::Result<T> result) {
    if (!result) throw std::runtime_error{result.error().detail};
    return *std::move(result);
}

// The stand-in for Core, in a child, so that its CPU isn't counted as the agent's.
class Core {
public:
    explicit Core(const std::string& folder) {
        int ends[2] = {-1, -1};
        if (::pipe(ends) != 0) throw std::runtime_error{"no pipe"};
        child_ = ::fork();
        if (child_ < 0) throw std::runtime_error{"cannot fork"};
        if (child_ == 0) {
            ::close(ends[0]);
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            ::_exit(serve(folder, ends[1]));
        }
        ::close(ends[1]);
        char text[256];
        const auto size = ::read(ends[0], text, sizeof text);
        ::close(ends[0]);
        if (size <= 0) throw std::runtime_error{"the stand-in for Core doesn't start"};
        url_.assign(text, static_cast<std::size_t>(size));
    }
    ~Core() {
        ::kill(child_, SIGKILL);
        ::waitpid(child_, nullptr, 0);
    }
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;

    [[nodiscard]] const std::string& url() const noexcept { return url_; }
    [[nodiscard]] std::uint16_t port() const {
        return static_cast<std::uint16_t>(std::stoul(url_.substr(url_.rfind(':') + 1)));
    }

private:
    static int serve(const std::string& folder, int told) {
        try {
            asio::io_context loop{1};
            base::SystemClock clock;
            base::SystemRandom random;
            base::Log log{base::Level::error, {}};
            fakes::CoreServer::Options options{.dir = folder};
            options.core.tokens = {token};
            options.core.full_sync_every_s = 86400;
            fakes::CoreServer server{loop.get_executor(), clock, random, log, std::move(options)};
            if (const auto started = server.start(); !started) throw std::runtime_error{started.error().detail};
            const auto url = server.url();
            if (::write(told, url.data(), url.size()) < 0) return EXIT_FAILURE;
            ::close(told);
            loop.run();
            return EXIT_SUCCESS;
        } catch (const std::exception& error) {
            fmt::print(stderr, "the stand-in for Core: {}\n", error.what());
            return EXIT_FAILURE;
        }
    }

    ::pid_t child_ = -1;
    std::string url_;
};

// A PC with nothing to tell.
class Node final : public heartbeat::Node {
public:
    boost::json::object about() const override { return {{"name", "bench"}, {"version", "0"}}; }
    boost::json::array features() const override { return {"vms"}; }
    boost::json::object addresses() const override { return {{"local", boost::json::array{"192.0.2.1"}}}; }
    boost::json::object resources() const override {
        const boost::json::object pool{{"total", 8}, {"reserved", 1}, {"allocated", 0}, {"free", 7}};
        return {{"cpus", pool}, {"memory_mib", pool}, {"disk_bytes", pool}};
    }
    boost::json::array conditions() const override { return {}; }
};

double cpu_seconds(int whose) {
    rusage used{};
    ::getrusage(whose, &used);
    const auto seconds = [](const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) / 1e6; };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

struct Measured {
    std::vector<double> milliseconds;
    double cpu = 0;  // seconds, of all

    void print(std::string_view what) {
        std::ranges::sort(milliseconds);
        const auto count = milliseconds.size();
        const auto at = [&](std::size_t percent) { return milliseconds[(count - 1) * percent / 100]; };
        fmt::print("{:<34} p50 {:6.3f} ms   p99 {:6.3f} ms   CPU {:4.0f} us\n", what, at(50), at(99),
                   cpu / double(count) * 1e6);
    }
};

// Enrols and beats; the agent's clock is put forward to when the next beat is due.
class Agent {
public:
    Agent(const Core& core, const std::string& ca)
        : key_(got(net::make_private_key())), link_(settings(core), {}, {node_, view_, inbox_, outbox_, random_}) {
        if (const auto used = https_.use({key_, "", ""}, ca); !used) throw std::runtime_error{used.error().detail};
    }

    // The next call, made; false: it was a beat with news, or none.
    asio::awaitable<bool> step() {
        const auto next = link_.next(now_, clock_.wall());
        if (const auto* idle = std::get_if<heartbeat::Link::Idle>(&next)) {
            now_ = std::max(now_ + std::chrono::milliseconds{1}, idle->until);
            co_return false;
        }
        const auto& call = std::get<CoreCall>(next);
        const auto answer = co_await https_.send(call);
        if (!answer) throw std::runtime_error{answer.error().detail};
        if (answer->status / 100 != 2) throw std::runtime_error{answer->body};
        auto effects = link_.took(call, answer, now_, now_ + std::chrono::milliseconds{1}, clock_.wall());
        if (effects.enrolled) {
            credentials_ = {key_, effects.enrolled->certificate, effects.enrolled->ca};
            if (const auto used = https_.use(credentials_, {}); !used) throw std::runtime_error{used.error().detail};
            link_.adopt(*effects.enrolled, "", now_, clock_.wall());
        }
        const bool idle_beat = call.call == Call::heartbeat && !call.body.contains("delta");
        if (idle_beat) last_beat_ = call;
        co_return idle_beat;
    }
    asio::awaitable<Measured> beats(std::size_t count) {
        Measured measured;
        measured.milliseconds.reserve(count);
        const auto before = cpu_seconds(RUSAGE_SELF);
        while (measured.milliseconds.size() < count) {
            const auto start = Time::now();
            if (co_await step())
                measured.milliseconds.push_back(std::chrono::duration<double, std::milli>(Time::now() - start).count());
        }
        measured.cpu = cpu_seconds(RUSAGE_SELF) - before;
        co_return measured;
    }
    [[nodiscard]] const CoreCall& last_beat() const noexcept { return last_beat_; }
    [[nodiscard]] const heartbeat::Credentials& credentials() const noexcept { return credentials_; }

private:
    [[nodiscard]] heartbeat::LinkSettings settings(const Core& core) const {
        return {.url = core.url(),
                .token = token,
                .install_id = install_id,
                .epoch = 1,
                .boot_id = "bench",
                .key = key_,
                .csr = got(net::make_csr(key_, install_id))};
    }

    base::SystemClock clock_;
    base::SystemRandom random_;
    heartbeat::HttpsCore https_;
    std::string key_;
    Node node_;
    heartbeat::StateView view_;
    heartbeat::Inbox inbox_{[](const boost::json::object&) { return false; }};
    heartbeat::Outbox outbox_{1};
    heartbeat::Link link_;
    base::Instant now_ = Time::now();
    heartbeat::Credentials credentials_;
    CoreCall last_beat_;
};

// The same beat again and again, of which Core takes no notice but answers as ever.
asio::awaitable<Measured> bare_posts(const heartbeat::Credentials& credentials, const Core& core, CoreCall beat,
                                     std::size_t count) {
    const auto tls = got(net::make_client_tls(net::TlsTexts{credentials.certificate, credentials.key, credentials.ca}));
    const auto client =
        net::make_client(net::HttpsPeer{.host = "127.0.0.1", .port = std::to_string(core.port()), .tls = tls});
    const auto request = heartbeat::request_of(beat, "");
    Measured measured;
    double before = 0;
    for (std::size_t i = 0; i < warm_up + count; ++i) {
        if (i == warm_up) before = cpu_seconds(RUSAGE_SELF);
        const auto start = Time::now();
        const auto response = co_await client->send(request);
        if (!response) throw std::runtime_error{response.error().detail};
        if (response->status != 200) throw std::runtime_error{response->body};
        if (i >= warm_up)
            measured.milliseconds.push_back(std::chrono::duration<double, std::milli>(Time::now() - start).count());
    }
    measured.cpu = cpu_seconds(RUSAGE_SELF) - before;
    co_return measured;
}

// Likewise with curl on one connection, whose CPU includes its start; nullopt: there is no curl.
std::optional<Measured> curl_posts(const heartbeat::Credentials& credentials, const fakes::ScratchFolder& folder,
                                   const CoreCall& beat, std::size_t count) {
    folder.write("beat.json", boost::json::serialize(beat.body));
    folder.write("agent.pem", credentials.certificate);
    folder.write("agent.key", credentials.key);
    // What stands behind the # isn't sent, but says how often.
    const auto command = fmt::format(
        "curl -sS --fail --cacert {0}/ca.crt --cert {0}/agent.pem --key {0}/agent.key "
        "-H 'Content-Type: application/json' --data-binary @{0}/beat.json -o /dev/null -w '%{{time_total}}\\n' "
        "'{1}#[1-{2}]'",
        folder.path(), beat.url + heartbeat::request_of(beat, "").target, count + warm_up);
    const auto before = cpu_seconds(RUSAGE_CHILDREN);
    std::FILE* pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return std::nullopt;
    Measured measured;
    double seconds = 0;
    for (int i = 0; std::fscanf(pipe, "%lf", &seconds) == 1; ++i)
        if (i >= warm_up) measured.milliseconds.push_back(seconds * 1e3);
    if (::pclose(pipe) != 0 || measured.milliseconds.size() != count) return std::nullopt;
    measured.cpu = cpu_seconds(RUSAGE_CHILDREN) - before;
    return measured;
}

asio::awaitable<void> measure(const Core& core, const fakes::ScratchFolder& folder, std::size_t count) {
    Agent agent{core, folder.read("ca.crt")};
    (void)co_await agent.beats(warm_up);
    const auto before = bench::bytes_to(core.port());
    auto beats = co_await agent.beats(count);
    const auto after = bench::bytes_to(core.port());
    if (!before || !after) throw std::runtime_error{"there is no connection to Core"};
    const auto each = [count](double from, double to) { return (to - from) / double(count); };
    fmt::print(
        "{} beats with nothing to tell: {} bytes of JSON; in TLS {:.0f} bytes out, {:.0f} back, {:.1f} packets\n",
        count, boost::json::serialize(agent.last_beat().body).size(), each(before->sent, after->sent),
        each(before->received, after->received), each(before->packets, after->packets));
    beats.print("beats");
    auto bare = co_await bare_posts(agent.credentials(), core, agent.last_beat(), count);
    bare.print("bare POSTs of the same bytes");
    if (auto curl = curl_posts(agent.credentials(), folder, agent.last_beat(), count))
        curl->print("the same with curl");
    else
        fmt::print("curl isn't there, or failed\n");
}

}  // namespace

int main(int count, char** arguments) {
    try {
        const std::size_t beats = count > 1 ? std::stoul(arguments[1]) : 2000;
        const fakes::ScratchFolder folder;
        const Core core{folder.path()};
        asio::io_context loop{1};
        asio::co_spawn(loop, measure(core, folder, beats), [](const std::exception_ptr& fault) {
            if (fault) std::rethrow_exception(fault);
        });
        loop.run();
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        fmt::print(stderr, "bench_beats: {}\n", error.what());
        return EXIT_FAILURE;
    }
}
