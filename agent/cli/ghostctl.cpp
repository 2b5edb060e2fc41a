#include "agent/cli/ghostctl.hpp"

#include "agent/cli/agent_streams.hpp"
#include "agent/cli/command_line.hpp"
#include "agent/cli/console.hpp"
#include "agent/cli/errors.hpp"
#include "agent/cli/session.hpp"
#include "agent/cli/stdio.hpp"
#include "agent/cli/transport.hpp"
#include "agent/cli/viewer.hpp"
#include "base/clock.hpp"
#include "base/random.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <fmt/format.h>

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

struct Ended {
    ExitCode code = ExitCode::failed;
    std::vector<std::string> successor = {};  // see Session
};

bool is_ignored(int signal) {
    struct sigaction now{};
    return ::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

// The first Ctrl-C (or SIGTERM, or the terminal's end) ends the session with a word; a second one ends the process.
Ended run_session(const Invocation& invocation, net::Peer peer, Console& console) {
    asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    PeerStreams streams{peer, invocation.address};
    ProcessStdio stdio{loop.get_executor()};
    ProcessDesktop desktop;
    const auto client = net::make_client(std::move(peer));
    Session session{invocation, *client, clock, random, console, {streams, stdio, desktop}};
    asio::cancellation_signal stop;
    asio::signal_set signals{loop, SIGINT, SIGTERM};
    if (!is_ignored(SIGHUP)) signals.add(SIGHUP);  // as nohup has it
    signals.async_wait([&](const boost::system::error_code& cancelled, int) {
        if (cancelled) return;
        // The terminal's end stays with the set: the shell and the system both tell of it.
        for (const int again : {SIGINT, SIGTERM}) signals.remove(again);
        end_restored_by({SIGINT, SIGTERM});
        stop.emit(asio::cancellation_type::terminal);
    });
    Ended ended;
    std::exception_ptr escaped;
    asio::co_spawn(loop, session.run(),
                   asio::bind_cancellation_slot(stop.slot(), [&](std::exception_ptr exception, ExitCode result) {
                       escaped = std::move(exception);
                       ended.code = result;
                       signals.cancel();
                       loop.stop();
                   }));
    loop.run();
    if (escaped) std::rethrow_exception(escaped);
    ended.successor = session.successor();
    return ended;
}

// Returns only when that fails.
ExitCode become(std::vector<std::string> words, Console& console) {
    std::vector<char*> pointers;
    pointers.reserve(words.size() + 1);
    for (auto& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    (void)std::signal(SIGPIPE, SIG_DFL);
    (void)::execvp(pointers.front(), pointers.data());
    const int fault = errno;
    (void)std::signal(SIGPIPE, SIG_IGN);
    const auto hint = fault == ENOENT ? std::string{"is it installed? sudo apt install openssh-client"} : std::string{};
    console.error(describe({ExitCode::failed,
                            fmt::format("cannot start {}: {}", words.front(), std::system_category().message(fault)),
                            {},
                            hint}));
    return ExitCode::failed;
}

ExitCode run_words(std::vector<std::string> words, std::string_view called, Console& console) {
    const auto invocation = parse(std::move(words), process_surroundings(called));
    if (!invocation) {
        console.out(invocation.error().out);
        console.error(invocation.error().error);
        return invocation.error().code;
    }
    if (const auto end = confirm(*invocation, console)) return *end;
    auto peer = peer_at(invocation->address);
    if (!peer) {
        console.error(describe(peer.error()));
        return peer.error().code;
    }
    auto ended = run_session(*invocation, std::move(*peer), console);
    return ended.successor.empty() ? ended.code : become(std::move(ended.successor), console);
}

}  // namespace

int run(int argc, char** argv) {
    (void)std::signal(SIGPIPE, SIG_IGN);  // a reader that went away is an error of write(2)
    ProcessConsole console;
    try {
        const auto code = run_words({argv + (argc > 0 ? 1 : 0), argv + argc}, argc > 0 ? argv[0] : "", console);
        if (console.output_fault() == 0) return to_int(code);
        console.error(fmt::format("ghostctl: cannot write to standard output: {}\n",
                                  std::system_category().message(console.output_fault())));
    } catch (const std::exception& bug) {
        console.error(fmt::format("ghostctl: unexpected fault: {}\n", bug.what()));
    }
    return to_int(ExitCode::failed);
}

}  // namespace ghost::cli
