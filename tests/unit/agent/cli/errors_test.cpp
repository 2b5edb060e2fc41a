#include "agent/cli/errors.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

using namespace ghost;
using namespace ghost::cli;
namespace json = boost::json;

namespace {

Failure answer(unsigned status, std::string_view body, std::string_view target = "/v1/vms/web") {
    return failure_of_answer(status, body, "", target);
}

std::string problem(std::string_view code) {
    return R"({"type":"t","title":"T","status":409,"detail":"d","code":")" + std::string{code} + R"("})";
}

const Address local = SocketAddress{"/run/ghost/agent.sock"};
const Address remote = HttpsAddress{"node", "9092", "c", "k", "ca.pem"};
const Address remote_without_ca = HttpsAddress{"node", "9092", "", "", ""};

Failure unreachable(const Address& address, std::string detail, SocketState socket = SocketState::present) {
    return failure_of_connection({base::Errc::source_unavailable, std::move(detail)}, address, socket);
}

}  // namespace

TEST_CASE("a problem becomes a sentence with its faults, facts, a hint and the request's id") {
    const auto failure =
        answer(409, R"({"type":"urn:ghost:problem:insufficient_resources","title":"Not enough resources",
        "status":409,"detail":"VM web needs more memory than is free","code":"insufficient_resources",
        "request_id":"r-1","needed":{"memory_mib":4096,"vcpus":2},"free":{"memory_mib":1536}})",
               "/v1/vms");
    CHECK(failure.code == ExitCode::refused);
    CHECK(describe(failure) ==
          "ghostctl: VM web needs more memory than is free\n"
          "  needed: memory 4 GiB, vcpus 2\n"
          "  free: memory 1.5 GiB\n"
          "hint: 'ghostctl resources' shows what is free; ask for less, or stop something\n"
          "request id: r-1\n");
}

TEST_CASE("every fault of a document is named with its place") {
    const auto text = describe(answer(422, R"({"title":"The request has faults","code":"validation_failed","errors":[
        {"pointer":"/spec/vcpus","detail":"at least 1"},{"pointer":"","detail":"expected an object"},7]})"));
    CHECK_THAT(text, Catch::StartsWith("ghostctl: The request has faults\n") &&
                         Catch::Contains("  /spec/vcpus: at least 1\n") &&
                         Catch::Contains("  the document: expected an object\n"));
}

TEST_CASE("a fault that is the sentence already isn't said twice") {
    CHECK(describe(answer(422, R"({"detail":"/name: too long","code":"validation_failed","errors":[
        {"pointer":"/name","detail":"too long"}]})")) ==
          "ghostctl: /name: too long\n"
          "hint: 'ghostctl COMMAND --help' says what each option takes\n");
}

TEST_CASE("the exit code tells what kind of no it was") {
    CHECK(answer(404, problem("not_found")).code == ExitCode::not_found);
    for (const unsigned status : {401U, 403U, 409U, 412U, 422U, 429U, 507U}) {
        CAPTURE(status);
        CHECK(answer(status, problem("x")).code == ExitCode::refused);
    }
    for (const unsigned status : {400U, 405U, 413U, 500U, 502U, 503U}) {
        CAPTURE(status);
        CHECK(answer(status, problem("x")).code == ExitCode::failed);
    }
    CHECK(answer(409, "<html>").code == ExitCode::refused);
    CHECK(answer(500, "<html>").code == ExitCode::failed);
}

TEST_CASE("hints fit what was asked for") {
    CHECK_THAT(answer(404, problem("not_found"), "/v1/vms/x").hint, Catch::Contains("ghostctl vm list"));
    CHECK_THAT(answer(404, problem("not_found"), "/v1/images/x").hint, Catch::Contains("ghostctl image list"));
    CHECK_THAT(answer(404, problem("not_found"), "/v1/operations/x").hint, Catch::Contains("ghostctl operation list"));
    CHECK_THAT(answer(404, problem("not_found"), "/v1/vms").hint, Catch::Contains("ghostctl image list"));
    const auto fault_at = [](std::string_view pointer) {
        return answer(422,
                      R"({"code":"validation_failed","errors":[{"pointer":")" + std::string{pointer} +
                          R"(","detail":"wrong"}]})",
                      "/v1/vms")
            .hint;
    };
    CHECK_THAT(fault_at("/spec/image"), Catch::Contains("ghostctl image list"));
    CHECK_THAT(fault_at("/name"), Catch::Contains("--help"));
    CHECK_THAT(answer(409, problem("state_conflict"), "/v1/vms/x/stop").hint, Catch::Contains("ghostctl vm list"));
    CHECK_THAT(answer(409, problem("state_conflict"), "/v1/images/x").hint, Catch::Contains("delete those"));
    CHECK_THAT(answer(409, problem("state_conflict"), "/v1/operations/x/cancel").hint,
               Catch::Contains("ghostctl operation list"));
    CHECK_THAT(answer(401, problem("unauthenticated")).hint, Catch::Contains("--cert"));
    CHECK_THAT(answer(503, problem("hypervisor_unavailable")).hint, Catch::Contains("libvirtd"));
    const auto forbidden = [](std::string_view detail, std::string_view target) {
        return answer(403, R"({"code":"forbidden","detail":")" + std::string{detail} + R"("})", target).hint;
    };
    CHECK_THAT(forbidden("the file is not in one of images.import_dirs", "/v1/images"),
               Catch::Contains("over its socket") && Catch::Contains("images.import_dirs"));
    CHECK(forbidden("uid:1000 is neither root nor in the socket's group", "/v1/images").empty());
    CHECK(forbidden("web was defined by others", "/v1/vms/web").empty());
    CHECK_THAT(failure_of_answer(429, problem("overloaded"), "7", "/v1/vms").hint, Catch::Contains("in 7 s"));
    CHECK(answer(409, R"({"code":"operation_in_progress","operation":"/v1/operations/op-9"})").hint ==
          "wait for it: ghostctl operation wait op-9");
    CHECK_THAT(answer(409, problem("operation_in_progress")).hint, Catch::Contains("operation list"));
}

TEST_CASE("a drained node is told from an agent that stops") {
    const auto stops = answer(503, R"({"code":"draining","detail":"the agent is stopping"})");
    CHECK_THAT(stops.hint, Catch::Contains("when it is back"));
    CHECK(stops.passing);
    CHECK(stops.code == ExitCode::failed);
    const auto drained = answer(503, R"({"code":"draining",
        "detail":"no new VMs: why; POST /v1/agent/undrain ends that","drain":{"since":"s","by":"b"}})");
    CHECK_THAT(drained.hint, Catch::Contains("ghostctl agent undrain"));
    CHECK(drained.sentence == "no new VMs: why");
    CHECK(drained.details.empty());
    CHECK_FALSE(drained.passing);
    CHECK(drained.code == ExitCode::refused);
    const auto later = failure_of_operation(
        json::parse(R"({"error":{"code":"draining","detail":"no new VMs","facts":{"drain":{"since":"s","by":"b"}}}})")
            .get_object());
    CHECK(later.code == ExitCode::refused);
}

TEST_CASE("an answer that is no problem document is still a sentence") {
    CHECK_THAT(describe(answer(502, "<html>Bad Gateway</html>")),
               Catch::Contains("the agent answered 502") && !Catch::Contains("html"));
    CHECK_THAT(describe(answer(500, "")), Catch::Contains("500"));
    CHECK_THAT(describe(answer(500, R"({"code":"internal"})")), Catch::Contains("internal"));
    CHECK_THAT(describe(answer(500, R"({"code":5,"detail":[]})")), Catch::Contains("no reason"));
}

TEST_CASE("what an agent sends can't drive the terminal") {
    const auto text = describe(answer(409, R"({"code":"state_conflict","detail":"VM \u001b[2J\nfake: line",
        "state":"\u001b]0;x\u0007","errors":[{"pointer":"/\u001b","detail":"\u009b"}],"request_id":"\u001b"})"));
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(text.find('\a') == std::string::npos);
    CHECK(text.find("\xc2\x9b") == std::string::npos);
    CHECK_THAT(text, Catch::Contains("VM \\x1b[2J\\nfake: line\n"));
}

TEST_CASE("a failed operation is judged by its error") {
    const auto failure = failure_of_operation(json::parse(R"({"id":"op","request_id":"r-2","error":
        {"code":"insufficient_storage","status":507,"detail":"the disk is full","needed":{"disk_bytes":1073741824}}})")
                                                  .get_object());
    CHECK(failure.code == ExitCode::refused);
    CHECK(failure.request_id == "r-2");
    CHECK(failure.details == std::vector<std::string>{"needed: disk 1 GiB"});
    const auto by_code = [](const char* code) {
        return failure_of_operation({{"error", json::object{{"code", code}, {"detail", "d"}}}}).code;
    };
    CHECK(by_code("not_found") == ExitCode::not_found);
    CHECK(by_code("insufficient_resources") == ExitCode::refused);
    CHECK(by_code("hypervisor_error") == ExitCode::failed);
    CHECK(failure_of_operation({{"error", nullptr}}).code == ExitCode::failed);
    CHECK(failure_of_operation({{"error", json::object{{"status", -1e300}}}}).code == ExitCode::failed);
}

TEST_CASE("a socket that doesn't answer is explained") {
    const auto missing = unreachable(local, "x", SocketState::missing);
    CHECK(missing.code == ExitCode::no_agent);
    CHECK(describe(missing) ==
          "ghostctl: there is no socket /run/ghost/agent.sock\n"
          "hint: is ghost-agent running? sudo systemctl status ghost-agent\n");
    CHECK_THAT(describe(unreachable(local, "x", SocketState::forbidden)),
               Catch::Contains("permission denied on /run/ghost/agent.sock") &&
                   Catch::Contains("you are not in group 'ghost'"));
    CHECK_THAT(describe(unreachable(local, "x", SocketState::not_a_socket)), Catch::Contains("is not a socket"));
    CHECK_THAT(describe(unreachable(local, "Connection refused")),
               Catch::Contains("Connection refused") && Catch::Contains("systemctl status"));
}

TEST_CASE("TLS faults say which side doesn't trust which") {
    CHECK_THAT(unreachable(remote, "certificate verify failed (unable to get local issuer)").hint,
               Catch::Contains("is ca.pem the CA"));
    CHECK_THAT(unreachable(remote_without_ca, "certificate verify failed: self-signed").hint,
               Catch::Contains("--cacert"));
    CHECK_THAT(unreachable(remote, "verify failed: hostname mismatch").hint, Catch::Contains("not for 'node'"));
    CHECK_THAT(unreachable(remote, "certificate has expired").hint, Catch::Contains("expired"));
    CHECK_THAT(unreachable(remote, "tlsv1 alert unknown ca").hint, Catch::Contains("client certificate"));
    CHECK_THAT(unreachable(remote, "handshake: wrong version number").hint, Catch::Contains("HTTPS port"));
    CHECK_THAT(unreachable(remote, "Host not found").hint, Catch::Contains("host's name"));
    CHECK_THAT(unreachable(remote, "Connection refused").hint, Catch::Contains("api.listen_addr"));
    CHECK_THAT(unreachable(remote, "certificate verification failed: IP address mismatch").hint,
               Catch::Contains("not for 'node'"));
    CHECK_THAT(unreachable(remote, "cannot send to https://node:9092: Connection reset by peer").hint,
               Catch::Contains("hung up") && Catch::Contains("client certificate"));
    CHECK_THAT(describe(unreachable(remote, "cannot connect to https://node:9092: Connection refused")),
               Catch::StartsWith("ghostctl: cannot connect to https://node:9092: Connection refused\nhint: "));
}

TEST_CASE("other ends of a connection have their own exit codes") {
    const auto code = [](base::Errc errc, const Address& address) {
        return failure_of_connection({errc, "d"}, address, SocketState::present).code;
    };
    CHECK(code(base::Errc::deadline_exceeded, local) == ExitCode::no_agent);
    CHECK(code(base::Errc::deadline_exceeded, remote) == ExitCode::no_agent);
    CHECK(code(base::Errc::cancelled, local) == ExitCode::failed);
    CHECK(code(base::Errc::body_too_large, local) == ExitCode::failed);
}

TEST_CASE("a connection that broke is told from one that never was") {
    const auto failed = [](std::string detail) { return unreachable(local, std::move(detail)); };
    for (const auto* broke : {"no answer from /s: the connection was closed before the response was complete",
                              "no answer from https://n:1: Connection reset by peer", "cannot send to /s: Broken pipe",
                              "no answer from https://n:1: stream truncated"}) {
        CAPTURE(broke);
        CHECK(failed(broke).cut);
        CHECK(failed(broke).unanswered);
    }
    for (const auto* never : {"cannot connect to /s: Connection refused", "cannot resolve n: Host not found",
                              "no answer from https://n:1: tlsv13 alert certificate required"})
        CHECK_FALSE(failed(never).cut);
    const auto late = failure_of_connection({base::Errc::deadline_exceeded, "late"}, local, SocketState::present);
    CHECK_FALSE(late.cut);
    CHECK(late.unanswered);
}

TEST_CASE("ways into a VM have hints of their own") {
    const auto hint = [](unsigned status, const char* code, const char* target) {
        return failure_of_answer(status, std::string{R"({"detail":"?","code":")"} + code + R"("})", "", target).hint;
    };
    CHECK_THAT(hint(403, "forbidden", "/v1/vms/web/exec"), Catch::Contains("--guest-access"));
    CHECK_THAT(hint(403, "forbidden", "/v1/vms/web/files?path=%2Fa"), Catch::Contains("--guest-access"));
    CHECK(hint(404, "not_found", "/v1/vms/web/files?path=%2Fa").empty());
    CHECK_THAT(hint(404, "not_found", "/v1/vms/web/console"), Catch::Contains("vm list"));
    CHECK_THAT(hint(502, "source_unavailable", "/v1/vms/web/forward?port=80"), Catch::Contains("listen on that port"));
    CHECK(hint(422, "address_not_allowed", "/v1/vms/web/forward?port=80").empty());
    CHECK_THAT(hint(409, "state_conflict", "/v1/vms/web/vnc"), Catch::Contains("vm list"));
}
