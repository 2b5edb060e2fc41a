#include "tests/fakes/core_server.hpp"

#include "net/client.hpp"
#include "net/tls.hpp"
#include "tests/fakes/scratch_folder.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <sys/stat.h>

#include <exception>
#include <memory>
#include <optional>
#include <utility>

using namespace ghost;
using namespace std::chrono_literals;
using fakes::CoreServer;
namespace asio = boost::asio;
namespace json = boost::json;

namespace {

// An agent's key and a request for it.
struct Key {
    std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key{EVP_EC_gen("P-256"), &EVP_PKEY_free};

    static std::string text_of(BIO* bio) {
        char* text = nullptr;
        const long size = BIO_get_mem_data(bio, &text);
        std::string copy{text, static_cast<std::size_t>(size)};
        BIO_free(bio);
        return copy;
    }
    [[nodiscard]] std::string pem() const {
        BIO* bio = BIO_new(BIO_s_mem());
        PEM_write_bio_PKCS8PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
        return text_of(bio);
    }
    // Signed by `signer`, which is this key unless the request is forged.
    [[nodiscard]] std::string request(EVP_PKEY* signer) const {
        X509_REQ* made = X509_REQ_new();
        X509_REQ_set_pubkey(made, key.get());
        X509_REQ_sign(made, signer, EVP_sha256());
        BIO* bio = BIO_new(BIO_s_mem());
        PEM_write_bio_X509_REQ(bio, made);
        X509_REQ_free(made);
        return text_of(bio);
    }
    [[nodiscard]] std::string request() const { return request(key.get()); }
};

struct Reply {
    unsigned status = 0;
    json::object body;
    base::Error error;  // when there was no answer
    [[nodiscard]] std::string text(const char* key) const { return std::string{body.at(key).as_string()}; }
};

// Core on loopback, and an agent, on one loop that runs while somebody waits.
struct Scene {
    fakes::ScratchFolder folder;
    asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    base::Log log;
    std::optional<CoreServer> server;
    Key key;
    std::unique_ptr<net::Client> client;  // the agent's, with the certificate it has
    std::string agent_id;
    std::string session_id;
    std::uint64_t seq = 0;

    Scene() { start(); }
    ~Scene() { stop(); }
    Scene(const Scene&) = delete;
    Scene& operator=(const Scene&) = delete;

    void start() {
        server.emplace(
            loop.get_executor(), clock, random, log,
            CoreServer::Options{.dir = folder.path(), .core = {.tokens = {"t0ken"}, .known_by_certificate = true}});
        REQUIRE(server->start());
        connect({});
    }
    void stop() {
        client.reset();
        await([this]() -> asio::awaitable<int> {
            co_await server->stop();
            co_return 0;
        }());
        server.reset();
    }
    template <class T>
    T await(asio::awaitable<T> task) {
        std::optional<T> result;
        std::exception_ptr failed;
        loop.restart();  // it may have run out of work
        asio::co_spawn(loop, std::move(task), [&](std::exception_ptr error, T value) {
            failed = std::move(error);
            result.emplace(std::move(value));
        });
        while (!result && !failed) loop.run_one();
        if (failed) std::rethrow_exception(failed);
        return *std::move(result);
    }
    // Goes on with this certificate; empty: without one.
    void connect(const std::string& certificate, const std::string& key_pem = {}) {
        net::TlsFiles files{.certificate = {}, .key = {}, .ca = server->ca_file()};
        if (!certificate.empty()) {
            files.certificate = folder.write("agent.crt", certificate);
            files.key = folder.write("agent.key", key_pem.empty() ? key.pem() : key_pem);
            ::chmod(files.key.c_str(), 0600);
        }
        const auto port = server->url().substr(server->url().rfind(':') + 1);
        client = net::make_client(
            net::HttpsPeer{.host = "localhost", .port = port, .tls = net::make_client_tls(files).value()});
    }
    Reply send(net::Client& over, net::Method method, std::string target, std::string body) {
        net::ClientRequest request;
        request.method = method;
        request.target = std::move(target);
        request.body = std::move(body);
        auto answered = await(over.send(std::move(request)));
        Reply reply;
        if (!answered) {
            reply.error = answered.error();
            return reply;
        }
        reply.status = answered->status;
        json::error_code ignored;
        const auto value = json::parse(answered->body, ignored);
        if (value.is_object()) reply.body = value.get_object();
        return reply;
    }
    Reply at(net::Method method, const std::string& what, const json::value& body) {
        return send(*client, method, "/v1/agents/" + agent_id + "/" + what, json::serialize(body));
    }
    // At the page for people.
    Reply page(net::Method method, const std::string& target, const std::string& body = {}) {
        const auto port = server->page_url().substr(server->page_url().rfind(':') + 1);
        const auto person = net::make_client(net::HttpPeer{.host = "127.0.0.1", .port = port});
        return send(*person, method, target, body);
    }
    std::string page_text(std::string target) {
        const auto port = server->page_url().substr(server->page_url().rfind(':') + 1);
        const auto person = net::make_client(net::HttpPeer{.host = "127.0.0.1", .port = port});
        net::ClientRequest request;
        request.target = std::move(target);
        return await(person->send(std::move(request)))->body;
    }
    static json::object resources() {
        const json::object figures{{"total", 8}, {"reserved", 1}, {"allocated", 0}, {"free", 7}};
        return {{"cpus", figures}, {"memory_mib", figures}, {"disk_bytes", figures}};
    }
    Reply enroll(const std::string& csr) {
        return send(*client, net::Method::post, "/v1/agents/enroll",
                    json::serialize(json::object{{"token", "t0ken"},
                                                 {"install_id", "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"},
                                                 {"name", "den"},
                                                 {"csr", csr},
                                                 {"version", "1"},
                                                 {"resources", resources()},
                                                 {"addresses", {{"local", json::array{}}}}}));
    }
    Reply begin() {
        auto reply = at(net::Method::put, "session",
                        json::object{{"epoch", 1},
                                     {"boot_id", "b"},
                                     {"name", "den"},
                                     {"version", "1"},
                                     {"features", json::array{}},
                                     {"resources", resources()},
                                     {"addresses", {{"local", json::array{}}}}});
        if (reply.status == 200) session_id = reply.text("session_id");
        seq = 0;
        return reply;
    }
    Reply beat(json::object more = {}) {
        json::object body{{"session_id", session_id},
                          {"epoch", 1},
                          {"seq", ++seq},
                          {"reason", "periodic"},
                          {"wall", base::rfc3339_ms(clock.wall())},
                          {"base_rev", 0},
                          {"state_rev", 0}};
        for (const auto& member : more) body.insert_or_assign(member.key(), member.value());
        return at(net::Method::post, "heartbeat", body);
    }
    void join() {
        const auto enrolled = enroll(key.request());
        REQUIRE(enrolled.status == 201);
        CHECK(enrolled.text("ca") == folder.read("ca.crt"));
        agent_id = enrolled.text("agent_id");
        connect(enrolled.text("certificate"));
        REQUIRE(begin().status == 200);
    }
};

}  // namespace

TEST_CASE_METHOD(Scene, "an agent joins Core over TLS, beats and leaves") {
    join();
    CHECK(beat().text("want") == "full");
    CHECK(server->core().agent(agent_id)->beats == 1);
    CHECK(send(*client, net::Method::del, "/v1/agents/" + agent_id + "/session", {}).status == 204);
    CHECK(beat().status == 404);
    CHECK(server->core().violations().empty());
}

TEST_CASE_METHOD(Scene, "a request that isn't signed with its key gets no certificate") {
    const Key other;
    CHECK(enroll(key.request(other.key.get())).status == 422);
    CHECK(enroll("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n").status == 422);
    CHECK(server->core().agents().empty());
}

TEST_CASE_METHOD(Scene, "who shows no certificate or another's is told, one of another CA isn't listened to") {
    join();
    connect({});
    CHECK(beat().status == 401);
    const auto other = server->authority().issue({.common_name = "another"});
    connect(other.certificate, other.key);
    CHECK(beat().status == 403);
    fakes::CertificateAuthority stranger{"stranger"};
    const auto forged = stranger.issue({.common_name = agent_id});
    connect(forged.certificate, forged.key);
    CHECK(beat().error.code == base::Errc::source_unavailable);
}

TEST_CASE_METHOD(Scene, "an expired certificate is good for its renewal alone") {
    join();
    const auto expired = server->authority().sign(
        key.request(), {.common_name = agent_id, .valid_from_s = -7200, .valid_until_s = -3600});
    connect(expired.value());
    CHECK(beat().status == 401);
    CHECK(begin().status == 401);
    const auto renewed = at(net::Method::post, "certificate", json::object{{"csr", key.request()}});
    REQUIRE(renewed.status == 200);
    connect(renewed.text("certificate"));
    CHECK(begin().status == 200);
    CHECK(beat().status == 200);
    // One that isn't good yet ends the handshake.
    connect(*server->authority().sign(key.request(),
                                      {.common_name = agent_id, .valid_from_s = 3600, .valid_until_s = 7200}));
    CHECK(beat().error.code == base::Errc::source_unavailable);
}

TEST_CASE_METHOD(Scene, "answers are dropped, cut and late on the wire") {
    join();
    auto& core = server->core();
    core.faults.drop_reply.next = 1;
    CHECK(beat().error.code == base::Errc::source_unavailable);
    CHECK(core.agent(agent_id)->seq == 1);
    core.faults.drop_request.next = 1;
    CHECK(beat().error.code == base::Errc::source_unavailable);
    CHECK(core.agent(agent_id)->seq == 1);
    core.faults.truncated.next = 1;
    CHECK(beat().error.code == base::Errc::source_unavailable);
    CHECK(core.agent(agent_id)->seq == 3);
    core.faults.garbage.next = 1;
    const auto garbage = beat();
    CHECK(garbage.status == 200);
    CHECK(garbage.body.empty());
    core.faults.slow.next = 1;
    core.faults.slow_ms = 50;
    CHECK(beat().status == 200);
    CHECK(core.violations().empty());
}

TEST_CASE_METHOD(Scene, "Core can show certificates that aren't its own") {
    join();
    CHECK(page(net::Method::post, "/faults", R"({"certificate": "other_ca"})").status == 200);
    CHECK(beat().error.facts.contains("certificate"));
    CHECK(page(net::Method::post, "/faults", R"({"certificate": "other_name"})").status == 200);
    CHECK(beat().error.facts.contains("certificate"));
    CHECK(page(net::Method::post, "/faults", R"({"certificate": "own"})").status == 200);
    CHECK(beat().status == 200);
}

TEST_CASE_METHOD(Scene, "people queue commands, set faults and add tokens at the page") {
    CHECK(page(net::Method::post, "/commands", R"({"kind": "agent.drain"})").status == 422);
    join();
    const auto queued = page(net::Method::post, "/commands", R"({"kind": "vm.start", "target": "web-1"})");
    REQUIRE(queued.status == 201);
    const auto id = queued.text("id");
    CHECK(beat().body.at("commands").as_array().at(0).at("target") == "web-1");
    REQUIRE(beat({{"acks", json::array{json::object{{"cmd_id", id}, {"state", "accepted"}}}}}).status == 200);
    CHECK(page(net::Method::get, "/commands/" + id).text("state") == "accepted");
    CHECK(page(net::Method::get, "/commands/nothing").status == 404);
    CHECK_THAT(page_text("/commands/nothing"), Catch::EndsWith("}\n"));
    CHECK_THAT(page_text("/commands"), Catch::StartsWith("[{\"id\":\"" + id) && Catch::EndsWith("}]\n"));
    CHECK(page(net::Method::post, "/commands", R"({"kind": "agent.drain", "agent_id": "nobody"})").status == 422);
    CHECK(page(net::Method::post, "/commands", R"({"target": "web-1"})").status == 422);

    REQUIRE(page(net::Method::post, "/faults", R"({"overrides": [{"route": "heartbeat", "status": 410}]})").status ==
            200);
    CHECK(beat().status == 410);
    CHECK(beat().status == 200);
    CHECK(page(net::Method::post, "/faults", R"({"slow": 3})").status == 422);
    CHECK(page(net::Method::post, "/faults", R"({"certificate": "none"})").status == 422);
    CHECK(page(net::Method::post, "/tokens", R"({"token": "more"})").status == 201);
    CHECK(server->core().settings.tokens.contains("more"));
    CHECK(page(net::Method::post, "/tokens", R"({"token": ""})").status == 422);

    const auto faults = page(net::Method::get, "/faults");
    REQUIRE(faults.status == 200);
    CHECK(faults.body.at("drop_reply").at("next") == 0);
    CHECK(faults.text("certificate") == "own");
    CHECK(page(net::Method::post, "/faults", json::serialize(faults.body)).body == faults.body);
    const auto shown = page(net::Method::get, "/");
    CHECK(shown.body.at("faults") == faults.body);
    CHECK(shown.text("url") == server->url());
    CHECK(shown.body.at("agents").at(agent_id).at("seq").to_number<std::uint64_t>() == seq);
}

TEST_CASE_METHOD(Scene, "with the same folder Core trusts those whom it knew before") {
    join();
    const auto ca = folder.read("ca.crt");
    const auto certificate = folder.read("agent.crt");
    stop();
    start();
    CHECK(folder.read("ca.crt") == ca);
    connect(certificate);
    CHECK(beat().status == 404);
    CHECK(begin().status == 200);
    CHECK(beat().status == 200);
}

TEST_CASE("Core doesn't listen beyond loopback") {
    fakes::ScratchFolder folder;
    asio::io_context loop{1};
    base::SystemClock clock;
    base::SystemRandom random;
    base::Log log;
    CoreServer server{loop.get_executor(), clock, random, log, {.dir = folder.path(), .listen = {"0.0.0.0", 0}}};
    CHECK_FALSE(server.start());
}
