#include "agent/cli/ghostctl.hpp"

#include "agent/cli/command_line.hpp"
#include "agent/cli/console.hpp"
#include "agent/cli/errors.hpp"
#include "agent/cli/session.hpp"
#include "agent/cli/transport.hpp"
#include "base/clock.hpp"
#include "base/random.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <fmt/format.h>

#include <csignal>
#include <exception>
#include <system_error>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

// The first Ctrl-C (or SIGTERM) ends the session with a word; a second one ends the process.
ExitCode run_session(const Invocation& invocation, net::Client& client, Console& console) {
    asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    Session session{invocation, client, clock, random, console};
    asio::cancellation_signal stop;
    asio::signal_set signals{loop, SIGINT, SIGTERM};
    signals.async_wait([&](const boost::system::error_code& cancelled, int) {
        if (cancelled) return;
        signals.clear();
        stop.emit(asio::cancellation_type::terminal);
    });
    ExitCode code = ExitCode::failed;
    std::exception_ptr escaped;
    asio::co_spawn(loop, session.run(),
                   asio::bind_cancellation_slot(stop.slot(), [&](std::exception_ptr exception, ExitCode result) {
                       escaped = std::move(exception);
                       code = result;
                       signals.cancel();
                       loop.stop();
                   }));
    loop.run();
    if (escaped) std::rethrow_exception(escaped);
    return code;
}

ExitCode run_words(std::vector<std::string> words, Console& console) {
    const auto invocation = parse(std::move(words), process_surroundings());
    if (!invocation) {
        console.out(invocation.error().out);
        console.error(invocation.error().error);
        return invocation.error().code;
    }
    if (const auto end = confirm(*invocation, console)) return *end;
    auto client = open_client(invocation->address);
    if (!client) {
        console.error(describe(client.error()));
        return client.error().code;
    }
    return run_session(*invocation, **client, console);
}

}  // namespace

int run(int argc, char** argv) {
    (void)std::signal(SIGPIPE, SIG_IGN);  // a reader that went away is an error of write(2)
    ProcessConsole console;
    try {
        const auto code = run_words({argv + (argc > 0 ? 1 : 0), argv + argc}, console);
        if (console.output_fault() == 0) return to_int(code);
        console.error(fmt::format("ghostctl: cannot write to standard output: {}\n",
                                  std::system_category().message(console.output_fault())));
    } catch (const std::exception& bug) {
        console.error(fmt::format("ghostctl: unexpected fault: {}\n", bug.what()));
    }
    return to_int(ExitCode::failed);
}

}  // namespace ghost::cli
