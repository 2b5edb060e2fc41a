#include "tests/unit/agent/config/config_folder.hpp"

#include <sys/stat.h>

#include <algorithm>

using namespace ghost;
using test::ConfigFolder;

TEST_CASE_METHOD(ConfigFolder, "certificate, key and CA stand together, and the missing one is named") {
    CHECK(fault("agent: {name: x}\napi:\n  tls_cert: /c\n  tls_ca: /a\n") ==
          "agent.yaml:3: api.tls_key: missing: tls_cert, tls_key and tls_ca stand together or not at all");
    CHECK(faults("api: {tls_cert: /c}\n").size() == 2);
    CHECK(sound("api: {tls_cert: /c, tls_key: /k, tls_ca: /a}").api.tls.complete());
    CHECK_FALSE(sound("").api.tls.complete());
    CHECK_THAT(fault("core: {tls_cert: /c}"), Catch::Contains("core.tls_key: missing"));
    CHECK(sound("core: {tls_ca: /a}").core.tls.ca == "/a");
}

TEST_CASE_METHOD(ConfigFolder, "what the API's TLS lacks is taken from the grpc section, and only that") {
    const auto config = sound("api: {tls_ca: /own}\ngrpc: {tls_cert: /c, tls_key: /k, tls_ca: /a}\n");
    CHECK(config.api.tls.cert == "/c");
    CHECK(config.api.tls.key == "/k");
    CHECK(config.api.tls.ca == "/own");
}

TEST_CASE_METHOD(ConfigFolder, "health off loopback needs the API's own listener") {
    CHECK_THAT(fault("health: {listen_addr: '0.0.0.0:9093'}"),
               Catch::StartsWith("agent.yaml:1: health.listen_addr: plain TCP is served on loopback only"));
    CHECK(sound("health: {listen_addr: '127.0.0.1:9093'}").health.listen_addr == "127.0.0.1:9093");
    CHECK(sound("health: {listen_addr: '[::1]:9093'}").health.listen_addr == "[::1]:9093");
    CHECK(sound("health: {listen_addr: '0.0.0.0:9092'}\napi: {listen_addr: '0.0.0.0:9092'}").health.listen_addr ==
          "0.0.0.0:9092");
}

TEST_CASE_METHOD(ConfigFolder, "the health path, open to everybody, is none of the API's own") {
    for (const std::string path : {"/v1", "/v1/vms", "/ready", "/live"})
        CHECK_THAT(fault("health: {path: " + path + "}"),
                   Catch::Contains("health.path: " + path + " is the API's own"));
    CHECK(sound("health: {path: /v1healthy}").health.path == "/v1healthy");
}

TEST_CASE_METHOD(ConfigFolder, "metrics off loopback need TLS") {
    const std::string off = "metrics: {listen_addr: '192.0.2.1:9091'}\n";
    CHECK_THAT(fault(off),
               Catch::StartsWith("agent.yaml:1: metrics.listen_addr: plain TCP is served on loopback only"));
    CHECK(faults(off + "api: {tls_cert: /c, tls_key: /k, tls_ca: /a}\n").empty());
    CHECK(faults("metrics: {listen_addr: '192.0.2.1:9091', enabled: false}\n").empty());
}

TEST_CASE_METHOD(ConfigFolder, "no two listeners may have one address") {
    CHECK_THAT(fault("metrics: {listen_addr: '127.0.0.1:9092'}"), Catch::Contains("is the API's address"));
    CHECK_THAT(fault("metrics: {listen_addr: '127.0.0.1:9093'}\nhealth: {listen_addr: '127.0.0.1:9093'}"),
               Catch::Contains("is health's address"));
    CHECK_THAT(fault("api: {listen_addr: ['127.0.0.1:1', '127.0.0.1:1']}"), Catch::Contains("twice"));
}

TEST_CASE_METHOD(ConfigFolder, "the tailnet's address stands alone or beside others whose port it doesn't share") {
    CHECK(sound("api: {listen_addr: 'tailscale:9092'}").api.listen_addr == std::vector<std::string>{"tailscale:9092"});
    CHECK(sound("api: {listen_addr: ['127.0.0.1:9092', 'tailscale:9092', '0.0.0.0:9093']}").api.listen_addr.size() ==
          3);
    for (const std::string every : {"0.0.0.0:9092", "[::]:9092"})
        CHECK_THAT(fault("api: {listen_addr: ['" + every + "', 'tailscale:9092']}"),
                   Catch::Contains("api.listen_addr: " + every + " has every address, also the tailnet's"));
    CHECK_THAT(fault("api: {listen_addr: 'tailscale:9092', tls_cert: /c, tls_key: /k, tls_ca: /a}\n"
                     "metrics: {listen_addr: '0.0.0.0:9092'}"),
               Catch::Contains("tailscale:9092 finds its port taken"));
    CHECK_THAT(fault("api: {listen_addr: ['tailscale:1', 'tailscale:1']}"), Catch::Contains("twice"));
    CHECK_THAT(fault("api: {listen_addr: 'tailscale:9092'}\ntailscale: {socket: ''}"),
               Catch::Contains("api.listen_addr: tailscale:9092 needs tailscale.socket"));
    CHECK(sound("tailscale: {socket: ''}").tailscale.socket.empty());
    CHECK_THAT(fault("tailscale: {socket: /" + std::string(120, 's') + "}"),
               Catch::Contains("tailscale.socket: expected a path of at most 107 bytes"));
}

TEST_CASE_METHOD(ConfigFolder, "the socket's path must fit a socket address") {
    CHECK_THAT(fault("api: {socket: /" + std::string(120, 's') + "}"), Catch::Contains("at most 107 bytes"));
}

TEST_CASE_METHOD(ConfigFolder, "Ghost Core is reached by https and without credentials in its address") {
    CHECK_THAT(fault("agent: {api_url: 'http://core.example.org'}"), Catch::Contains("expected an https:// address"));
    CHECK_THAT(fault("agent: {api_url: 'https://'}"), Catch::Contains("expected an https:// address"));
    CHECK_THAT(fault("agent: {api_url: 'https'}"), Catch::Contains("expected an https:// address"));
    const auto sentence = fault("agent: {api_url: 'https://me:hush@core.example.org/x'}");
    CHECK_THAT(sentence, Catch::Contains("without a user name or password"));
    CHECK(sentence.find("hush") == std::string::npos);
}

TEST_CASE_METHOD(ConfigFolder, "what this version reads but doesn't act on is noted") {
    const auto notes = [this](const std::string& yaml) {
        return sound("api: {tls_cert: /c, tls_key: /k, tls_ca: /a}\n" + yaml).notes;
    };
    CHECK(notes("").empty());
    REQUIRE(notes("grpc: {}").size() == 1);
    CHECK_THAT(notes("grpc: {listen_addr: 'tailscale:9090'}").front(), Catch::Contains("configured, not served"));
    CHECK(notes("agent: {api_url: 'https://core.example.org'}\ncore: {enroll_token: t}").empty());
    REQUIRE(notes("core: {enroll_token: t0ken}").size() == 1);
    CHECK_THAT(notes("core: {enroll_token: t0ken}").front(), Catch::Contains("agent.api_url names no Ghost Core"));
    CHECK(notes("agent: {version: 1}").size() == 1);
    const auto bare = sound("").notes;
    REQUIRE(bare.size() == 1);
    CHECK_THAT(bare.front(), Catch::Contains("only the Unix socket is served"));
}

TEST_CASE_METHOD(ConfigFolder, "certificates must be there and a key must be its owner's alone") {
    const auto cert = write("cert.pem", "x");
    const auto key = write("key.pem", "x");
    const auto yaml = "api:\n  tls_cert: " + cert + "\n  tls_key: " + key + "\n  tls_ca: " + cert + "\n";

    REQUIRE(::chmod(key.c_str(), 0600) == 0);
    CHECK(faults(yaml, true).empty());
    for (const ::mode_t open : {0640U, 0644U, 0602U}) {
        REQUIRE(::chmod(key.c_str(), open) == 0);
        CHECK(fault(yaml, true) == "agent.yaml:3: api.tls_key: " + key +
                                       " is open to others than its owner; close it with: chmod go= " + key);
    }
    std::filesystem::remove(key);
    CHECK(fault(yaml, true) == "agent.yaml:3: api.tls_key: " + key + " cannot be read: No such file or directory");
    std::filesystem::create_directory(key);
    CHECK_THAT(fault(yaml, true), Catch::EndsWith("is no regular file"));
    CHECK(faults(yaml, false).empty());
}

TEST_CASE_METHOD(ConfigFolder, "a certificate taken from the grpc section is faulted there") {
    const auto yaml = "grpc:\n  tls_cert: /nowhere/c\n  tls_key: /nowhere/k\n  tls_ca: /nowhere/a\n";
    const auto all = faults(yaml, true);
    REQUIRE(all.size() == 3);
    CHECK_THAT(all[0], Catch::StartsWith("agent.yaml:2: grpc.tls_cert: /nowhere/c cannot be read"));
}
