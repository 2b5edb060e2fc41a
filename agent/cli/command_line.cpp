#include "agent/cli/command_line.hpp"

#include "agent/cli/commands.hpp"
#include "agent/cli/errors.hpp"
#include "agent/cli/query.hpp"
#include "agent/cli/text.hpp"
#include "agent/cli/viewer.hpp"

#include <CLI/CLI.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

namespace ghost::cli {
namespace {

constexpr std::string_view default_socket = "/run/ghost/agent.sock";
constexpr std::string_view default_port = "9092";

struct AddressOptions {
    std::string socket;
    std::string agent;
    std::string certificate;
    std::string key;
    std::string ca;
};

// What goes with commands that change something.
struct ChangeOptions {
    bool dry_run = false;
    std::string key;
    const CLI::Option* said_key = nullptr;
};

bool is_key(std::string_view text) {
    constexpr std::size_t longest = 255;
    return !text.empty() && text.size() <= longest &&
           std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

// Of `words`, which it leaves to the command line, what follows the first "--" of a command that has words of others'
// programs; nullopt: there is none. CLI11 would make something of them, of "[a,b]" two words and of "" nothing. `app`
// has its options already.
std::optional<std::vector<std::string>> take_tail(const CLI::App& app, std::vector<std::string>& words) {
    auto command = words.begin();
    while (command != words.end() && command->starts_with('-') && *command != "--") {
        const auto* const option = app.get_option_no_throw(*command);
        const bool takes_next = option != nullptr && option->get_items_expected_max() > 0;
        ++command;
        if (takes_next && command != words.end()) ++command;
    }
    if (command == words.end() || (*command != "exec" && *command != "ssh")) return std::nullopt;
    const auto marker = std::ranges::find(command, words.end(), "--");
    if (marker == words.end()) return std::nullopt;
    std::vector<std::string> tail{std::next(marker), words.end()};
    words.erase(marker, words.end());
    return tail;
}

// This program and the options that say where the agent is, for a program that is to call it.
std::vector<std::string> caller_of(const Address& address, const Surroundings& surroundings) {
    if (surroundings.program.empty()) usage_fault("ssh has to call ghostctl; start it by its path");
    std::vector<std::string> words{surroundings.program};
    const auto add = [&words](const char* option, std::string value) {
        words.emplace_back(option);
        words.push_back(std::move(value));
    };
    if (const auto* local = std::get_if<SocketAddress>(&address)) {
        add("--socket", surroundings.absolute(local->path));
        return words;
    }
    const auto& remote = std::get<HttpsAddress>(address);
    const bool is_v6 = remote.host.contains(':') && !remote.host.starts_with('[');
    add("--agent", fmt::format("https://{}{}{}:{}", is_v6 ? "[" : "", remote.host, is_v6 ? "]" : "", remote.port));
    if (!remote.certificate.empty()) add("--cert", surroundings.absolute(remote.certificate));
    if (!remote.key.empty()) add("--key", surroundings.absolute(remote.key));
    if (!remote.ca.empty()) add("--cacert", surroundings.absolute(remote.ca));
    return words;
}

// Where host keys are kept that the agent doesn't know.
std::string known_hosts_file(const Surroundings& surroundings) {
    if (const auto config = surroundings.environment("XDG_CONFIG_HOME").value_or(""); config.starts_with('/'))
        return config + "/ghost/known_hosts";
    const auto home = surroundings.environment("HOME").value_or("");
    if (!home.starts_with('/')) usage_fault("HOME is not set; host keys are kept there");
    return home + "/.config/ghost/known_hosts";
}

void apply(const Surroundings& surroundings, Invocation& invocation) {
    auto* ssh = std::get_if<StartSsh>(&invocation.action);
    if (ssh == nullptr) return;
    ssh->caller = caller_of(invocation.address, surroundings);
    ssh->known_hosts = known_hosts_file(surroundings);
}

void apply(const ChangeOptions& options, Invocation& invocation) {
    const bool has_key = options.said_key->count() > 0;
    if (!options.dry_run && !has_key) return;
    auto* exec = std::get_if<ExecCommand>(&invocation.action);
    if (exec != nullptr && options.dry_run) usage_fault("nobody knows what a command would do: exec has no --dry-run");
    auto* change = std::get_if<Change>(&invocation.action);
    if (change == nullptr && exec == nullptr)
        usage_fault(fmt::format("{} goes with commands that change something",
                                options.dry_run ? "--dry-run" : "--idempotency-key"));
    if (has_key && !is_key(options.key))
        usage_fault(
            fmt::format("--idempotency-key '{}': expected 1 to 255 visible ASCII characters", printable(options.key)));
    (exec != nullptr ? exec->idempotency_key : change->idempotency_key) = options.key;
    if (!options.dry_run) return;
    if (invocation.format == Format::name)
        usage_fault("a dry run makes nothing with a name; use -o json, yaml or table");
    change->dry_run = true;
    change->question.clear();
    add_query(change->target, "dry_run", "true");
}

HttpsAddress parse_agent_url(const std::string& text) {
    const auto url = boost::urls::parse_uri(text);
    constexpr std::string_view wanted = "expected https://HOST or https://HOST:PORT";
    if (!url) usage_fault(fmt::format("--agent '{}': {}", printable(text), wanted));
    const std::string_view scheme = url->scheme();
    if (scheme == "http") usage_fault("--agent: an agent speaks plain HTTP on its socket only; use https://");
    const std::string_view path = url->encoded_path();
    const bool bare =
        (path.empty() || path == "/") && !url->has_query() && !url->has_fragment() && !url->has_userinfo();
    if (scheme != "https" || !bare || url->encoded_host_address().empty())
        usage_fault(fmt::format("--agent '{}': {}", printable(text), wanted));
    const std::string_view port = url->port();
    return {.host = url->host_address(),
            .port = std::string{port.empty() ? default_port : port},
            .certificate = {},
            .key = {},
            .ca = {}};
}

// The command line first, then the environment; an agent named either way comes before a socket in the environment.
Address address_from(const AddressOptions& given, const Surroundings& surroundings) {
    const auto from_environment = [&](const std::string& option, std::string_view name) {
        return option.empty() ? surroundings.environment(name).value_or("") : option;
    };
    const auto agent = given.socket.empty() ? from_environment(given.agent, "GHOST_AGENT") : std::string{};
    if (agent.empty()) {
        if (!given.certificate.empty() || !given.key.empty() || !given.ca.empty())
            usage_fault("--cert, --key and --cacert go with --agent https://HOST:PORT");
        const auto socket = from_environment(given.socket, "GHOST_SOCKET");
        return SocketAddress{socket.empty() ? std::string{default_socket} : socket};
    }
    auto address = parse_agent_url(agent);
    address.certificate = from_environment(given.certificate, "GHOST_CERT");
    address.key = from_environment(given.key, "GHOST_KEY");
    address.ca = from_environment(given.ca, "GHOST_CACERT");
    if (address.certificate.empty() != address.key.empty())
        usage_fault("--cert and --key go together (also as GHOST_CERT and GHOST_KEY)");
    return address;
}

void add_global_options(CLI::App& app, AddressOptions& address, Format& format) {
    const std::string where = "Where the agent is";
    auto* socket =
        app.add_option("--socket", address.socket, "The agent's Unix socket [/run/ghost/agent.sock; GHOST_SOCKET]");
    auto* agent = app.add_option("--agent", address.agent, "https://HOST:PORT of an agent elsewhere [GHOST_AGENT]");
    auto* cert = app.add_option("--cert", address.certificate, "Client certificate, PEM [GHOST_CERT]");
    auto* key = app.add_option("--key", address.key, "Its key, PEM [GHOST_KEY]");
    auto* ca =
        app.add_option("--cacert", address.ca, "CA of the agent's certificate, PEM [GHOST_CACERT; the system's]");
    agent->excludes(socket);
    for (auto* option : {socket, agent, cert, key, ca}) option->group(where);
    for (auto* option : {socket, agent}) option->type_name("ADDRESS");
    for (auto* option : {cert, key, ca}) option->type_name("FILE");
    static const std::map<std::string, Format> formats{
        {"table", Format::table}, {"json", Format::json}, {"yaml", Format::yaml}, {"name", Format::name}};
    app.add_option_function<std::string>(
           "-o,--output",
           [&format](const std::string& name) {
               const auto it = formats.find(name);
               if (it == formats.end())
                   usage_fault(fmt::format("-o '{}': expected table, json, yaml or name", printable(name)));
               format = it->second;
           },
           "table, json, yaml or name [table]")
        ->type_name("FORMAT");
}

void add_change_options(CLI::App& app, ChangeOptions& options) {
    const std::string when = "What goes with commands that change something";
    app.add_flag("--dry-run", options.dry_run, "Only say what would be done and whether it fits")->group(when);
    options.said_key = app.add_option("--idempotency-key", options.key,
                                      "A change with a key the agent knows is not done again [a new one]")
                           ->type_name("KEY")
                           ->group(when);
}

// CLI11 only says that a command is missing; the word that should have been one is left over.
std::string sentence_of(const CLI::ParseError& fault, const CLI::App& app) {
    const auto left = app.remaining(true);
    if (dynamic_cast<const CLI::RequiredError*>(&fault) != nullptr && !left.empty() && !left.front().starts_with('-') &&
        std::string_view{fault.what()}.contains("subcommand"))
        return fmt::format("there is no command '{}'", left.front());
    return fault.what();
}

std::string deepest_command(const CLI::App& app) {
    std::string path = app.get_name();
    for (const auto* at = &app; !at->get_subcommands().empty();) {
        at = at->get_subcommands().front();
        path += " " + at->get_name();
    }
    return path;
}

}  // namespace

std::expected<Invocation, Told> parse(std::vector<std::string> words, const Surroundings& surroundings) {
    CLI::App app{"Virtual machines on this node of Ghost Cloud", "ghostctl"};
    app.require_subcommand(1);
    app.fallthrough();
    app.set_version_flag("--version", "ghostctl " GHOST_VERSION, "The version of ghostctl itself");
    app.footer(
        "Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 refused by the agent, 5 no agent.\n"
        "With -o json or yaml a list is one array; with -o name one name (or operation id) a line.\n"
        "'ghostctl --help' shows the options that all commands take: the agent's address, -o, and for changes "
        "--dry-run.");
    Invocation invocation;
    AddressOptions address;
    ChangeOptions change_options;
    add_global_options(app, address, invocation.format);
    add_change_options(app, change_options);
    const auto tail = take_tail(app, words);
    const Grammar grammar{invocation, surroundings, tail};
    add_agent_commands(app, grammar);
    add_vm_commands(app, grammar);
    add_access_commands(app, grammar);
    add_guest_commands(app, grammar);
    add_image_commands(app, grammar);
    add_operation_commands(app, grammar);
    add_orphan_commands(app, grammar);
    add_events(app, grammar);
    try {
        std::ranges::reverse(words);  // as CLI11 takes a vector
        app.parse(std::move(words));
        invocation.address = address_from(address, surroundings);
        apply(change_options, invocation);
        apply(surroundings, invocation);
        return invocation;
    } catch (const CLI::Success& asked) {
        std::ostringstream out;
        app.exit(asked, out, out);
        return std::unexpected{Told{ExitCode::done, out.str(), {}}};
    } catch (const CLI::ParseError& fault) {
        return std::unexpected{
            Told{ExitCode::usage,
                 {},
                 describe({ExitCode::usage,
                           sentence_of(fault, app),
                           {},
                           fmt::format("'{} --help' shows what is allowed", deepest_command(app))})}};
    }
}

Surroundings process_surroundings(std::string_view called) {
    Surroundings out;
    out.environment = [](std::string_view name) -> std::optional<std::string> {
        const char* value = std::getenv(std::string{name}.c_str());  // NOLINT(concurrency-mt-unsafe): one thread
        return value != nullptr ? std::optional<std::string>{value} : std::nullopt;
    };
    out.read_file = [](const std::string& path) -> base::Result<std::string> {
        errno = 0;
        std::ifstream file{path, std::ios::binary};
        if (!file) return base::fail(base::errno_error(errno, fmt::format("cannot open {}", path)));
        std::string content(largest_file + 1, '\0');
        file.read(content.data(), static_cast<std::streamsize>(content.size()));
        if (file.bad() || (file.fail() && !file.eof()))
            return base::fail(base::errno_error(errno, fmt::format("cannot read {}", path)));
        content.resize(static_cast<std::size_t>(file.gcount()));
        if (content.size() > largest_file)
            return base::fail(base::Errc::body_too_large, fmt::format("{} is larger than 1 MiB", path));
        return content;
    };
    out.absolute = [](const std::string& path) {
        std::error_code fault;
        const auto absolute = std::filesystem::absolute(path, fault);
        return fault ? path : absolute.lexically_normal().string();
    };
    out.is_folder = [](const std::string& path) {
        std::error_code fault;
        return std::filesystem::is_directory(path, fault);
    };
    // By the name it was called by: the file itself is ghost-agent's, which goes by that.
    if (called.contains('/'))
        out.program = out.absolute(std::string{called});
    else if (const auto found = find_program(called))
        out.program = out.absolute(*found);
    return out;
}

}  // namespace ghost::cli
