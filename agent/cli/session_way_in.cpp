// Ways into a VM: its console, its ports, its screen, its files, its commands.
#include "agent/cli/doorway.hpp"
#include "agent/cli/file_copy.hpp"
#include "agent/cli/json_access.hpp"
#include "agent/cli/local_file.hpp"
#include "agent/cli/output.hpp"
#include "agent/cli/query.hpp"
#include "agent/cli/relay.hpp"
#include "agent/cli/serial_console.hpp"
#include "agent/cli/session.hpp"
#include "agent/cli/ssh.hpp"
#include "agent/cli/stream_end.hpp"
#include "agent/cli/text.hpp"
#include "base/cancelled.hpp"
#include "net/text.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

constexpr std::size_t largest_input = 64 * 1024;    // that the agent takes for a command
constexpr std::chrono::seconds extra_patience{30};  // for a command's end, beyond its own limit
constexpr int longest_exit_code = 255;

std::string forward_target(const VmRef& vm, std::uint16_t port) {
    return fmt::format("{}/forward?port={}", vm.target, port);
}

net::TcpEndpoint endpoint_of(const PortForward& port) { return {port.host_address, port.host_port}; }

// Nothing to get into in a VM that is off.
std::optional<Failure> failure_of_power(const json::object& vm, const VmRef& known_as) {
    const auto power = text_at(part(vm, "status"), "power");
    if (power.empty() || power == "running" || power == "paused") return std::nullopt;
    return Failure{ExitCode::refused,
                   fmt::format("VM {} is {}", known_as.name, power),
                   {},
                   fmt::format("ghostctl vm start {}", known_as.name)};
}

// Removed with what is in it.
class PrivateFolder {
public:
    PrivateFolder(Desktop& desktop, std::string path) : desktop_(desktop), path_(std::move(path)) {}
    ~PrivateFolder() { desktop_.remove_folder(path_); }
    PrivateFolder(const PrivateFolder&) = delete;
    PrivateFolder& operator=(const PrivateFolder&) = delete;

private:
    Desktop& desktop_;
    std::string path_;
};

// All of standard input.
asio::awaitable<Outcome<std::string>> read_input(Stdio& stdio) {
    auto channel = stdio.open(false);
    if (!channel) co_return std::unexpected{Failure{ExitCode::failed, channel.error().detail}};
    std::string all;
    std::string piece(largest_input / 8, '\0');
    for (;;) {
        const auto got = co_await (*channel)->read(asio::buffer(piece));
        if (!got && got.error().code == base::Errc::cancelled)
            co_return std::unexpected{Failure{ExitCode::failed, "interrupted; nothing was run"}};
        if (!got)
            co_return std::unexpected{
                Failure{ExitCode::failed, fmt::format("cannot read standard input: {}", got.error().detail)}};
        if (*got == 0) break;
        all.append(piece, 0, *got);
        if (all.size() > largest_input)
            co_return std::unexpected{Failure{ExitCode::usage,
                                              "standard input is larger than 64 KiB",
                                              {},
                                              "copy it with 'ghostctl cp' and let the command read the file"}};
    }
    if (!net::is_utf8(all))
        co_return std::unexpected{Failure{ExitCode::usage,
                                          "standard input is not UTF-8",
                                          {},
                                          "copy it with 'ghostctl cp' and let the command read the file"}};
    co_return all;
}

Change change_of(const ExecCommand& action, const std::string& input) {
    json::object body;
    auto& command = body["command"].emplace_array();
    for (const auto& word : action.command) command.emplace_back(word);
    if (!action.environment.empty()) {
        auto& environment = body["env"].emplace_object();
        for (const auto& [name, value] : action.environment) environment[name] = value;
    }
    if (action.with_input) body["stdin"] = input;
    body["timeout_s"] = action.limit.count();
    Change change;
    change.target = action.vm.target + "/exec";
    change.body = json::serialize(body);
    change.subject = fmt::format("VM {}", action.vm.name);
    change.waiting.limit = action.limit + extra_patience;
    change.idempotency_key = action.idempotency_key;
    return change;
}

}  // namespace

asio::awaitable<Session::Done> Session::perform(OpenConsole action) {
    return use_console(std::move(action), outside_.streams, outside_.stdio, clock_, console_);
}

asio::awaitable<Session::Done> Session::perform(ForwardPorts action) {
    // Who names no VM learns it now, not with the first connection.
    const auto vm = co_await agent_.get(action.vm.target);
    if (!vm) co_return std::unexpected{vm.error()};
    Doorway doorway{co_await asio::this_coro::executor, outside_.streams, clock_, console_, RelayRules{InputEnd::tell}};
    for (const auto& port : action.ports) {
        const auto what = fmt::format("{}:{}", action.vm.name, port.guest_port);
        const auto bound = doorway.listen(endpoint_of(port), forward_target(action.vm, port.guest_port), what);
        if (!bound) co_return std::unexpected{Failure{ExitCode::failed, bound.error().detail}};
        console_.out(fmt::format("Forwarding {} -> {}\n", *bound, printable(what)));
    }
    co_await doorway.serve();
    co_await doorway.close();
    co_return std::string{};
}

asio::awaitable<Session::Done> Session::perform(ForwardStdio action) {
    auto stream = co_await outside_.streams.open(forward_target(action.vm, action.guest_port));
    if (!stream) co_return std::unexpected{std::move(stream.error())};
    auto channel = outside_.stdio.open(false);
    if (!channel) co_return std::unexpected{Failure{ExitCode::failed, channel.error().detail}};
    Relay relay{co_await asio::this_coro::executor, clock_, **stream, **channel, RelayRules{InputEnd::tell}};
    const auto end = co_await relay.run();
    if (auto failure = failure_of_stream(end, fmt::format("{}:{}", action.vm.name, action.guest_port)))
        co_return std::unexpected{std::move(*failure)};
    co_return std::string{};
}

asio::awaitable<Session::Done> Session::perform(StartSsh action) {
    const auto vm = co_await agent_.get(action.vm.target);
    if (!vm) co_return std::unexpected{vm.error()};
    if (auto off = failure_of_power(*vm, action.vm); off && !action.print) co_return std::unexpected{std::move(*off)};
    auto command = ssh_command(action, *vm);
    if (!command) co_return std::unexpected{std::move(command.error())};
    if (host_keys_of(*vm).empty()) {
        console_.error(
            fmt::format("ghostctl: the agent doesn't know the host keys of {} (the guest's agent tells them): "
                        "the first that shows itself is trusted, and kept in {}\n",
                        printable(action.vm.name), printable(action.known_hosts)));
        std::error_code fault;
        std::filesystem::create_directories(std::filesystem::path{action.known_hosts}.parent_path(), fault);
        if (fault)
            co_return std::unexpected{Failure{ExitCode::failed, fmt::format("cannot make the folder of {}: {}",
                                                                            action.known_hosts, fault.message())}};
    }
    if (!action.print) {
        successor_ = std::move(*command);
        co_return std::string{};
    }
    std::vector<std::string> words;
    words.reserve(command->size());
    for (const auto& word : *command) words.push_back(shell_word(word));
    co_return fmt::format("{}\n", fmt::join(words, " "));
}

asio::awaitable<Session::Done> Session::perform(ShowHostKeys action) {
    const auto vm = co_await agent_.get(action.vm.target);
    if (!vm) co_return std::unexpected{vm.error()};
    co_return known_hosts_lines(*vm);
}

asio::awaitable<Session::Done> Session::perform(CopyFile action) {
    auto target = action.vm.target + "/files";
    add_query(target, "path", action.guest_path);
    const auto in_guest = fmt::format("{}:{}", action.vm.name, action.guest_path);
    const CopyPlace place{agent_, outside_.stdio, clock_, random_, console_};
    const auto copied = action.to_guest ? co_await send_file(place, std::move(target), action.local_path, in_guest)
                                        : co_await fetch_file(place, std::move(target), action.local_path, in_guest);
    if (!copied) co_return std::unexpected{copied.error()};
    if (action.local_path == "-") co_return std::string{};
    const auto& from = action.to_guest ? action.local_path : in_guest;
    const auto& into = action.to_guest ? in_guest : action.local_path;
    co_return fmt::format("{} copied to {}: {}\n", printable(from), printable(into),
                          human_bytes(static_cast<double>(*copied)));
}

asio::awaitable<Session::Done> Session::perform(ExecCommand action) {
    std::string input;
    if (action.with_input) {
        auto all = co_await read_input(outside_.stdio);
        if (!all) co_return std::unexpected{std::move(all.error())};
        input = std::move(*all);
    }
    const auto ended = co_await carry_out(change_of(action, input));
    if (!ended) co_return std::unexpected{ended.error()};
    const auto& result = part(*ended, "result");
    const auto code = number_at(result, "exit_code");
    if (!code)
        co_return std::unexpected{Failure{ExitCode::failed, "the agent's answer says nothing of the command's end"}};
    if (invocation_.format == Format::table) {
        // As the command wrote it: whoever runs one wants what it says.
        console_.out(text_at(result, "stdout"));
        console_.error(text_at(result, "stderr"));
        if (bool_at(result, "truncated") == true)
            console_.error("ghostctl: not all of the output: the agent keeps 64 KiB of each stream\n");
    } else {
        console_.out(render_one(*ended, View::operation, invocation_.format, clock_.wall()));
    }
    if (*code == 0) co_return std::string{};
    const auto status = static_cast<int>(std::clamp<double>(*code, 1, longest_exit_code));
    co_return std::unexpected{Failure{static_cast<ExitCode>(status), {}}};
}

asio::awaitable<Session::Done> Session::perform(OpenScreen action) {
    const auto vm = co_await agent_.get(action.vm.target);
    if (!vm) co_return std::unexpected{vm.error()};
    if (auto off = failure_of_power(*vm, action.vm)) co_return std::unexpected{std::move(*off)};
    Doorway doorway{co_await asio::this_coro::executor, outside_.streams, clock_, console_,
                    RelayRules{InputEnd::close}};
    const auto what = fmt::format("the screen of {}", action.vm.name);
    if (action.listen) {
        const auto bound = doorway.listen(endpoint_of(*action.listen), action.vm.target + "/vnc", what);
        if (!bound) co_return std::unexpected{Failure{ExitCode::failed, bound.error().detail}};
        console_.out(fmt::format("The screen of {} is at vnc://{} until Ctrl-C\n", printable(action.vm.name), *bound));
        co_await doorway.serve();
        co_await doorway.close();
        co_return std::string{};
    }
    auto folder = outside_.desktop.make_private_folder();
    if (!folder) co_return std::unexpected{Failure{ExitCode::failed, folder.error().detail}};
    const PrivateFolder kept{outside_.desktop, *folder};
    const auto socket = *folder + "/vnc.sock";
    if (const auto open = doorway.listen(net::UnixEndpoint{.path = socket, .mode = 0600, .group = {}},
                                         action.vm.target + "/vnc", what);
        !open)
        co_return std::unexpected{Failure{ExitCode::failed, open.error().detail}};
    auto viewer =
        outside_.desktop.has_display()
            ? viewer_command(socket, [this](std::string_view name) { return outside_.desktop.is_installed(name); })
            : std::nullopt;
    auto done = co_await show_screen(doorway, std::move(viewer), socket, action.vm);
    co_await doorway.close();
    co_return done;
}

asio::awaitable<Session::Done> Session::show_screen(Doorway& doorway, std::optional<std::vector<std::string>> viewer,
                                                    std::string socket, VmRef vm) {
    using namespace asio::experimental::awaitable_operators;
    if (!viewer) {
        console_.out(
            fmt::format("The screen of {} is at {} until Ctrl-C.\nA viewer on this machine shows it: remote-viewer "
                        "vnc+unix://{}, or "
                        "TigerVNC's vncviewer {}\n",
                        printable(vm.name), socket, socket, socket));
        co_await doorway.serve();
        co_return std::string{};
    }
    const auto program = viewer->front();
    auto ended = co_await (outside_.desktop.run(std::move(*viewer)) || doorway.serve());
    if (ended.index() != 0) co_return std::string{};
    const auto& status = std::get<0>(ended);
    if (!status) co_return std::unexpected{Failure{ExitCode::failed, status.error().detail}};
    if (*status != 0 && !co_await base::is_cancelled())
        co_return std::unexpected{Failure{ExitCode::failed, fmt::format("{} ended with status {}", program, *status)}};
    co_return std::string{};
}

asio::awaitable<Session::Done> Session::perform(TakeScreenshot action) {
    if (action.file == "-" && outside_.stdio.output_is_terminal())
        co_return std::unexpected{
            Failure{ExitCode::usage, "a picture is nothing for a terminal", {}, "give -o FILE, or a pipe"}};
    const CopyPlace place{agent_, outside_.stdio, clock_, random_, console_};
    const auto written = co_await fetch_file(place, action.vm.target + "/screenshot", action.file,
                                             fmt::format("the screen of {}", action.vm.name));
    if (!written) co_return std::unexpected{written.error()};
    if (action.file == "-") co_return std::string{};
    co_return fmt::format("{} is the screen of {}\n", printable(action.file), printable(action.vm.name));
}

}  // namespace ghost::cli
