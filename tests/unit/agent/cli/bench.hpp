// A session on virtual time, with a console that is read afterwards.
#pragma once

#include "agent/cli/session.hpp"
#include "fakes/fake_client.hpp"
#include "fakes/seeded_random.hpp"
#include "fakes/virtual_clock.hpp"
#include "tests/unit/agent/cli/way_in.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::cli {

class FakeConsole final : public Console {
public:
    std::string written;
    std::string complained;
    std::optional<std::size_t> columns;
    std::optional<Screen> terminal;
    bool read = true;
    std::optional<std::string> answer;  // of a person; nullopt: nobody is there
    void out(std::string_view text) override { written += text; }
    void error(std::string_view text) override { complained += text; }
    [[nodiscard]] bool has_reader() const override { return read; }
    [[nodiscard]] std::optional<Screen> screen() const override { return terminal; }
    [[nodiscard]] std::optional<std::size_t> progress_columns() const override { return columns; }
    [[nodiscard]] bool can_ask() const override { return answer.has_value(); }
    [[nodiscard]] std::optional<std::string> ask(std::string_view question) override {
        complained += question;
        return answer;
    }
};

struct Bench {
    boost::asio::io_context loop{1};
    fakes::VirtualClock clock;
    fakes::SeededRandom random;
    FakeConsole console;
    boost::asio::cancellation_signal ctrl_c;
    FakeStreams streams;
    FakePerson person{loop.get_executor()};
    FakeStdio stdio{person};
    FakeDesktop desktop;
    std::vector<std::string> successor;  // see Session

    void once(std::function<bool()> so, std::function<void()> act) {
        cli::once(loop.get_executor(), std::move(so), std::move(act));
    }
    // Runs to the end; time passes as soon as everybody sleeps.
    ExitCode run(const Invocation& invocation, net::Client& client) {
        Session session{invocation, client, clock, random, console, {streams, stdio, desktop}};
        std::optional<ExitCode> code;
        boost::asio::co_spawn(loop, session.run(),
                              boost::asio::bind_cancellation_slot(ctrl_c.slot(), [&](std::exception_ptr e, ExitCode c) {
                                  if (e) std::rethrow_exception(e);
                                  code = c;
                              }));
        for (int turn = 0; !code && turn < 100'000; ++turn) {
            loop.restart();
            if (loop.poll() > 0) continue;
            const auto next = clock.next();
            if (!next) break;
            clock.advance(*next - clock.now());
        }
        REQUIRE(code);
        successor = session.successor();
        return *code;
    }
};

// An agent that always says the same.
[[nodiscard]] inline fakes::FakeClient answering(unsigned status, std::string body) {
    return fakes::FakeClient{fakes::FakeClient::Table{
        [status, body = std::move(body)](const net::ClientRequest&) { return fakes::json_answer(status, body); }}};
}

[[nodiscard]] inline Invocation with(Action action, Format format = Format::table) {
    return {SocketAddress{"/nonexistent/agent.sock"}, format, std::move(action)};
}

}  // namespace ghost::cli
