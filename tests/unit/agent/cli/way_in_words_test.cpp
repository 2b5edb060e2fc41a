// Command lines that lead into a VM.
#include "tests/unit/agent/cli/words.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;

TEST_CASE("console takes a VM and how to get it") {
    const auto plain = action_of<OpenConsole>({"console", "web"});
    CHECK(plain.vm.target == "/v1/vms/web");
    CHECK(plain.vm.name == "web");
    CHECK_FALSE(plain.force);
    CHECK_FALSE(plain.read_only);
    CHECK(action_of<OpenConsole>({"console", "web", "--force"}).force);
    CHECK(action_of<OpenConsole>({"console", "--read-only", "web"}).read_only);
    (void)usage_fault_of({"console", "web", "--force", "--read-only"});
    (void)usage_fault_of({"console"});
    CHECK(action_of<OpenConsole>({"console", "a/b"}).vm.target == "/v1/vms/a%2Fb");
}

TEST_CASE("forward takes ports as ssh writes them") {
    const auto action =
        action_of<ForwardPorts>({"forward", "web", "8080:80", "0.0.0.0:2222:22", "[::1]:0:443", "localhost:1:2"});
    CHECK(action.vm.target == "/v1/vms/web");
    REQUIRE(action.ports.size() == 4);
    const auto is = [&](std::size_t index, const char* address, int host, int guest) {
        const auto& port = action.ports.at(index);
        CHECK(port.host_address == address);
        CHECK(port.host_port == host);
        CHECK(port.guest_port == guest);
    };
    is(0, "127.0.0.1", 8080, 80);
    is(1, "0.0.0.0", 2222, 22);
    is(2, "::1", 0, 443);
    is(3, "127.0.0.1", 1, 2);
    for (const auto* wrong : {"80", "8080:0", "8080:", ":80", "8080:65536", "x:80", "::1:8080:80", ":8080:80",
                              "example.org:8080:80", "8080:80:", "-1:80", "8080:80/udp", "+1:80"}) {
        INFO(wrong);
        CHECK_THAT(usage_fault_of({"forward", "web", wrong}), Catch::Contains("ghostctl"));
    }
    CHECK_THAT(usage_fault_of({"forward", "web"}), Catch::Contains("say which ports"));
}

TEST_CASE("forward --stdio takes one port") {
    const auto action = action_of<ForwardStdio>({"forward", "web", "--stdio", "22"});
    CHECK(action.vm.target == "/v1/vms/web");
    CHECK(action.guest_port == 22);
    for (const auto* wrong : {"0", "65536", "ssh", "22x"}) (void)usage_fault_of({"forward", "web", "--stdio", wrong});
    (void)usage_fault_of({"forward", "web", "8080:80", "--stdio", "22"});
}

TEST_CASE("ssh is given what follows the dashes, as it stands") {
    World world;
    world.environment["HOME"] = "/home/me";
    world.program = "/usr/bin/ghostctl";
    const auto action = action_of<StartSsh>({"ssh", "web", "-l", "root", "--", "-v", "--", "[a,b]", ""}, world);
    CHECK(action.vm.target == "/v1/vms/web");
    CHECK(action.user == "root");
    CHECK(action.words == std::vector<std::string>{"-v", "--", "[a,b]", ""});
    CHECK(action.caller == std::vector<std::string>{"/usr/bin/ghostctl", "--socket", "/run/ghost/agent.sock"});
    CHECK(action.known_hosts == "/home/me/.config/ghost/known_hosts");
    CHECK_FALSE(action.print);
    world.environment["XDG_CONFIG_HOME"] = "/conf";
    world.environment["GHOST_SOCKET"] = "agent.sock";
    const auto elsewhere = action_of<StartSsh>({"ssh", "--print", "web"}, world);
    CHECK(elsewhere.known_hosts == "/conf/ghost/known_hosts");
    CHECK(elsewhere.caller == std::vector<std::string>{"/usr/bin/ghostctl", "--socket", "/cwd/agent.sock"});
    CHECK(elsewhere.words.empty());
    CHECK(elsewhere.print);
    world.program.clear();
    (void)usage_fault_of({"ssh", "web"}, world);
}

TEST_CASE("ssh calls back over HTTPS with the same certificates") {
    World world;
    world.environment["HOME"] = "/home/me";
    world.environment["GHOST_CACERT"] = "/etc/ca.pem";
    world.program = "/usr/bin/ghostctl";
    const auto action = action_of<StartSsh>(
        {"--agent", "https://node.example:9443", "--cert", "me.pem", "--key", "me.key", "ssh", "web"}, world);
    CHECK(action.caller == std::vector<std::string>{"/usr/bin/ghostctl", "--agent", "https://node.example:9443",
                                                    "--cert", "/cwd/me.pem", "--key", "/cwd/me.key", "--cacert",
                                                    "/etc/ca.pem"});
    CHECK(action_of<StartSsh>({"--agent", "https://[::1]", "ssh", "web"}, world).caller.at(2) == "https://[::1]:9092");
}

TEST_CASE("the lines for ssh can be asked for, though no help names them") {
    CHECK(action_of<ShowHostKeys>({"ssh-host-keys", "web"}).vm.target == "/v1/vms/web");
    const auto told = World{}.parse({"--help"});
    REQUIRE_FALSE(told);
    CHECK(told.error().code == ExitCode::done);
    CHECK_FALSE(told.error().out.contains("ssh-host-keys"));
    for (const auto* command : {"console", "ssh", "forward", "cp", "exec", "vnc", "screenshot"})
        CHECK_THAT(told.error().out, Catch::Contains(std::string{"\n  "} + command + " "));
}

TEST_CASE("exec takes a command after the dashes") {
    const auto action = action_of<ExecCommand>({"exec", "web", "--timeout", "5m", "--env", "A=b", "--env", "C=d=e",
                                                "-i", "--", "sh", "-c", "", "[x,y]", "--"});
    CHECK(action.vm.target == "/v1/vms/web");
    CHECK(action.command == std::vector<std::string>{"sh", "-c", "", "[x,y]", "--"});
    CHECK(action.environment == std::vector<std::pair<std::string, std::string>>{{"A", "b"}, {"C", "d=e"}});
    CHECK(action.with_input);
    CHECK(action.limit == std::chrono::minutes{5});
    const auto plain = action_of<ExecCommand>({"-o", "json", "--socket", "ssh", "exec", "web", "--", "id"});
    CHECK(plain.limit == std::chrono::seconds{60});
    CHECK_FALSE(plain.with_input);
    CHECK(action_of<ExecCommand>({"exec", "web", "--idempotency-key", "k", "--", "id"}).idempotency_key == "k");
    CHECK(action_of<ExecCommand>({"--idempotency-key", "ssh", "exec", "web", "--", "id"}).idempotency_key == "ssh");
    for (const auto& wrong : std::vector<std::vector<std::string>>{{"exec", "web"},
                                                                   {"exec", "web", "--"},
                                                                   {"exec", "web", "--", ""},
                                                                   {"exec", "web", "ls"},
                                                                   {"exec", "--", "ls"},
                                                                   {"exec", "web", "--timeout", "2h", "--", "ls"},
                                                                   {"exec", "web", "--env", "A", "--", "ls"},
                                                                   {"exec", "web", "--dry-run", "--", "ls"},
                                                                   {"exec", "web", "--", "\xff"}})
        (void)usage_fault_of(wrong);
}

TEST_CASE("cp copies between a VM and this machine") {
    const auto into = action_of<CopyFile>({"cp", "./a:b", "web:/etc/c"});
    CHECK(into.vm.target == "/v1/vms/web");
    CHECK(into.guest_path == "/etc/c");
    CHECK(into.local_path == "./a:b");
    CHECK(into.to_guest);
    CHECK(action_of<CopyFile>({"cp", "/tmp/file", "web:/etc/"}).guest_path == "/etc/file");
    CHECK(action_of<CopyFile>({"cp", "-", "web:/etc/x"}).local_path == "-");
    const auto from = action_of<CopyFile>({"cp", "web:/etc/a:b", "-"});
    CHECK_FALSE(from.to_guest);
    CHECK(from.guest_path == "/etc/a:b");
    CHECK(from.local_path == "-");
    World world;
    world.folders = {".", "/srv/"};
    CHECK(action_of<CopyFile>({"cp", "web:/etc/hosts", "."}, world).local_path == "./hosts");
    CHECK(action_of<CopyFile>({"cp", "web:/etc/hosts", "/srv/"}, world).local_path == "/srv/hosts");
    CHECK_THAT(usage_fault_of({"cp", "-r", "dir", "web:/dir"}), Catch::Contains("cp copies one file"));
    for (const auto& [a, b] : std::vector<std::pair<std::string, std::string>>{{"a", "b"},
                                                                               {"web:/a", "db:/b"},
                                                                               {"web:a", "b"},
                                                                               {"web:", "b"},
                                                                               {"web:/etc/", "b"},
                                                                               {"-", "web:/etc/"},
                                                                               {"-", "-"},
                                                                               {":/a", "b"}})
        (void)usage_fault_of({"cp", a, b});
}

TEST_CASE("vnc listens on this machine alone") {
    CHECK_FALSE(action_of<OpenScreen>({"vnc", "web"}).listen);
    const auto given = action_of<OpenScreen>({"vnc", "web", "--listen", "127.0.0.1:5901"}).listen;
    REQUIRE(given);
    CHECK(given->host_address == "127.0.0.1");
    CHECK(given->host_port == 5901);
    CHECK(action_of<OpenScreen>({"vnc", "web", "--listen", "5901"}).listen->host_address == "127.0.0.1");
    CHECK(action_of<OpenScreen>({"vnc", "web", "--listen", "[::1]:0"}).listen->host_address == "::1");
    CHECK_THAT(usage_fault_of({"vnc", "web", "--listen", "0.0.0.0:5901"}), Catch::Contains("only this machine"));
    for (const auto* wrong : {"x", ":5901", "127.0.0.1", "127.0.0.1:", "host:1"})
        (void)usage_fault_of({"vnc", "web", "--listen", wrong});
}

TEST_CASE("screenshot's -o is a file, and others' a format") {
    const auto action = action_of<TakeScreenshot>({"screenshot", "web", "-o", "web.png"});
    CHECK(action.vm.target == "/v1/vms/web");
    CHECK(action.file == "web.png");
    CHECK(action_of<TakeScreenshot>({"screenshot", "-o", "json", "web"}).file == "json");
    CHECK(action_of<TakeScreenshot>({"screenshot", "web"}).file == "-");
    CHECK(understood({"vm", "list", "-o", "json"}).format == Format::json);
}

TEST_CASE("vm create and update say which ports lead to the guest") {
    const auto spec = [](const json::value& body) { return body.as_object().at("spec"); };
    CHECK(spec(body_of({"vm", "create", "web", "--image", "i", "--forward", "http=8080:80", "--forward",
                        "dns=0.0.0.0:5353:53/udp", "--forward", "t=tailscale:1:2/tcp", "--guest-access"})) ==
          json::parse(R"({"image":"i","forwards":{"http":{"host_port":8080,"guest_port":80},
              "dns":{"host_address":"0.0.0.0","host_port":5353,"guest_port":53,"protocol":"udp"},
              "t":{"host_address":"tailscale","host_port":1,"guest_port":2}},"guest_access":true})"));
    CHECK(body_of({"vm", "update", "web", "--forward", "http=8080:80", "--no-forward", "dns", "--no-guest-access"}) ==
          json::parse(R"({"spec":{"guest_access":false,"forwards":{
              "http":{"host_address":"127.0.0.1","host_port":8080,"guest_port":80,"protocol":"tcp"},"dns":null}}})"));
    for (const auto* wrong :
         {"8080:80", "=8080:80", "a=80", "a=0:80", "a=8080:0", "a=8080:80/sctp", "a=8080:80/", "a="})
        (void)usage_fault_of({"vm", "update", "web", "--forward", wrong});
    (void)usage_fault_of({"vm", "update", "web", "--forward", "a=1:2", "--no-forward", "a"});
    (void)usage_fault_of({"vm", "create", "web", "--image", "i", "--forward", "a=1:2", "--forward", "a=3:4"});
}
