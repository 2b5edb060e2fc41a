#include "agent/cli/ssh.hpp"

#include "fakes/fake_client.hpp"
#include "fakes/scratch_folder.hpp"
#include "tests/unit/agent/cli/bench.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include <array>
#include <cstdio>
#include <filesystem>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;

namespace {

constexpr const char* known = R"({"id":"01a2-b","name":"web","spec":{"cloud_init":{"user":"debian"}},"status":{
    "power":"running","ssh_host_keys":["ssh-ed25519 AAAAC3 root@web","ecdsa-sha2-nistp256 AAAAE2=",
    "ssh-rsa A\nevil B","* ssh-ed25519 AAAA",5,"@cert-authority * AAAA"]}})";
constexpr const char* unknown = R"({"id":"01a2-b","status":{"power":"running","ssh_host_keys":[]}})";

json::object object(const char* text) { return json::parse(text).as_object(); }

StartSsh start() {
    StartSsh action{{"/v1/vms/web", "web"}};
    action.caller = {"/usr/bin/ghostctl", "--socket", "/run/ghost/agent.sock"};
    action.known_hosts = "/home/me/.config/ghost/known_hosts";
    return action;
}

std::vector<std::string> command_of(const StartSsh& action, const char* vm) {
    auto words = ssh_command(action, object(vm));
    REQUIRE(words);
    return *words;
}

// As a shell takes it apart, one word a line.
std::string words_by_shell(const std::string& text) {
    const auto command = "printf '%s\\n' " + text;
    std::string out;
    auto* pipe = ::popen(command.c_str(), "r");  // NOLINT(cert-env33-c): what is tested is a shell
    REQUIRE(pipe != nullptr);
    std::array<char, 256> piece{};
    while (std::fgets(piece.data(), piece.size(), pipe) != nullptr) out += piece.data();
    CHECK(::pclose(pipe) == 0);
    return out;
}

}  // namespace

TEST_CASE("ssh is told the way, the user and the keys of a VM") {
    auto action = start();
    action.words = {"-L", "8080:localhost:80", "uptime"};
    CHECK(command_of(action, known) ==
          std::vector<std::string>{
              "ssh",
              "-o",
              "ProxyCommand=/usr/bin/ghostctl --socket /run/ghost/agent.sock forward web --stdio 22",
              "-o",
              "HostKeyAlias=ghost-01a2-b",
              "-o",
              "KnownHostsCommand=/usr/bin/ghostctl --socket /run/ghost/agent.sock ssh-host-keys web",
              "-o",
              "UserKnownHostsFile=/dev/null",
              "-o",
              "GlobalKnownHostsFile=/dev/null",
              "-o",
              "StrictHostKeyChecking=yes",
              "-l",
              "debian",
              "ghost-01a2-b",
              "-L",
              "8080:localhost:80",
              "uptime",
          });
}

TEST_CASE("a host whose keys nobody knows is trusted once, and remembered") {
    auto action = start();
    action.user = "root";
    const std::string way = "ProxyCommand=/usr/bin/ghostctl --socket /run/ghost/agent.sock forward web --stdio 22";
    CHECK(command_of(action, unknown) == std::vector<std::string>{
                                             "ssh",
                                             "-o",
                                             way,
                                             "-o",
                                             "HostKeyAlias=ghost-01a2-b",
                                             "-o",
                                             "UserKnownHostsFile=/home/me/.config/ghost/known_hosts",
                                             "-o",
                                             "GlobalKnownHostsFile=/dev/null",
                                             "-o",
                                             "StrictHostKeyChecking=accept-new",
                                             "-l",
                                             "root",
                                             "ghost-01a2-b",
                                         });
    action.user.clear();
    const auto words = command_of(action, unknown);
    CHECK(std::ranges::find(words, "-l") == words.end());
}

TEST_CASE("only what has the form of a key becomes a line for ssh") {
    CHECK(known_hosts_lines(object(known)) ==
          "ghost-01a2-b ssh-ed25519 AAAAC3\nghost-01a2-b ecdsa-sha2-nistp256 AAAAE2=\n");
    CHECK(known_hosts_lines(object(unknown)).empty());
    CHECK(known_hosts_lines(object(R"({"id":"*","status":{"ssh_host_keys":["ssh-ed25519 AAAA"]}})")).empty());
    CHECK_FALSE(ssh_command(start(), object(R"({"id":"a b"})")));
    CHECK_FALSE(ssh_command(start(), {}));
}

TEST_CASE("words survive a shell") {
    const std::string odd = "a b\t\"c\" 'd' $HOME `id` \\ ; & | < > ( ) { } * ? [x] ! # ~ \\' é";
    CHECK(words_by_shell(shell_word(odd)) == odd + "\n");
    CHECK(words_by_shell(shell_word("")) == "\n");
    CHECK(words_by_shell(shell_word("~") + " " + shell_word("#x")) == "~\n#x\n");
    CHECK(shell_word("https://[::1]:9092/a_b-c.d,e=f@g") == "https://\\[::1\\]:9092/a_b-c.d,e=f@g");
}

TEST_CASE("ssh's own signs are written so that it reads them back") {
    CHECK(proxy_command({"/opt/100%/ghostctl", "a b", "it's"}) == "/opt/100%%/ghostctl a\\ b it\\'s");
    CHECK(plain_command({"/opt/100%/ghostctl", "a b", "it's", "say \"hi\" \\now", ""}) ==
          R"(/opt/100%%/ghostctl "a b" "it's" "say \"hi\" \\now" "")");
    auto action = start();
    action.caller.front() = "/opt/line\nbreak/ghostctl";
    CHECK_FALSE(ssh_command(action, object(known)));
}

TEST_CASE("a session becomes ssh, or prints what that would be") {
    Bench bench;
    const fakes::ScratchFolder folder;
    std::string body = known;
    fakes::FakeClient client{
        fakes::FakeClient::Table{[&body](const net::ClientRequest&) { return fakes::json_answer(200, body); }}};
    auto action = start();
    action.known_hosts = folder.path("ghost/known_hosts");
    SECTION("ssh") {
        CHECK(bench.run(with(action), client) == ExitCode::done);
        CHECK(client.requests.front().target == "/v1/vms/web");
        REQUIRE_FALSE(bench.successor.empty());
        CHECK(bench.successor == command_of(action, known));
        CHECK(bench.console.written.empty());
        CHECK(bench.console.complained.empty());
    }
    SECTION("--print") {
        action.print = true;
        action.words = {"echo a  b"};
        CHECK(bench.run(with(action), client) == ExitCode::done);
        CHECK(bench.successor.empty());
        CHECK_THAT(bench.console.written, Catch::StartsWith("ssh -o ProxyCommand=/usr/bin/ghostctl\\ --socket\\ ") &&
                                              Catch::EndsWith(" -l debian ghost-01a2-b echo\\ a\\ \\ b\n"));
    }
    SECTION("keys that nobody knows are told of") {
        body = unknown;
        CHECK(bench.run(with(action), client) == ExitCode::done);
        CHECK_THAT(bench.console.complained, Catch::Contains("doesn't know the host keys of web"));
        CHECK(std::filesystem::is_directory(folder.path("ghost")));
    }
    SECTION("a VM that is off") {
        body = R"({"id":"u","status":{"power":"off"}})";
        CHECK(bench.run(with(action), client) == ExitCode::refused);
        CHECK(bench.console.complained == "ghostctl: VM web is off\nhint: ghostctl vm start web\n");
        CHECK(bench.successor.empty());
    }
    SECTION("the lines for ssh") {
        CHECK(bench.run(with(ShowHostKeys{{"/v1/vms/web", "web"}}), client) == ExitCode::done);
        CHECK(bench.console.written == known_hosts_lines(object(known)));
    }
}
