// What can be wrong with certificates and keys on disk.
#include "tests/component/net/server_fixture.hpp"

#include <catch2/catch.hpp>

#include <sys/stat.h>

using namespace ghost;
using namespace ghost::test;

namespace {

struct Scene {
    fakes::ScratchFolder folder;
    net::TlsFiles good;

    Scene() {
        auto& all = certificates();
        const auto identity = all.ca.issue({.common_name = "node"});
        good = {folder.write("cert.pem", identity.certificate), folder.write("key.pem", identity.key),
                folder.write("ca.pem", all.ca.certificate())};
        ::chmod(good.key.c_str(), 0600);
    }
    [[nodiscard]] static std::string fault(const net::TlsFiles& files) {
        const auto made = net::make_server_tls(files);
        REQUIRE_FALSE(made);
        CHECK(made.error().code == base::Errc::io_error);
        return made.error().detail;
    }
};

}  // namespace

TEST_CASE("good files make a context for servers and for clients") {
    const Scene scene;
    CHECK(net::make_server_tls(scene.good));
    CHECK(net::make_client_tls(scene.good));
    CHECK(net::make_client_tls(net::TlsFiles{}));
}

TEST_CASE("texts make a context as files do, and their faults name where they come from") {
    auto& all = certificates();
    const auto identity = all.ca.issue({.common_name = "node"});
    const net::TlsTexts good{identity.certificate,
                             identity.key,
                             all.ca.certificate() + all.other_ca.certificate(),
                             {"cert.pem", "key.pem", "ca.pem"}};
    CHECK(net::make_client_tls(good));
    CHECK(net::make_client_tls(net::TlsTexts{}));
    const auto fault = [](const net::TlsTexts& texts) {
        const auto made = net::make_client_tls(texts);
        REQUIRE_FALSE(made);
        CHECK(made.error().code == base::Errc::io_error);
        return made.error().detail;
    };
    auto texts = good;
    texts.key = all.ca.issue({.common_name = "x"}).key;
    CHECK(fault(texts) == "key.pem is not the key of the certificate in cert.pem");
    texts.key = "junk";
    CHECK(fault(texts).starts_with("key.pem holds no usable unencrypted PEM key: "));
    texts = good;
    texts.certificate = "";
    CHECK(fault(texts).starts_with("cert.pem holds no usable PEM certificate: "));
    texts = good;
    texts.ca = "junk";
    CHECK(fault(texts).starts_with("ca.pem holds no usable PEM certificate of a CA: "));
}

TEST_CASE("of several CAs in a text each is trusted, and nobody beside them") {
    ServerFixture server;
    auto& all = certificates();
    const auto port = std::to_string(server.listen_tcp(certificates().server()));
    const auto alice = all.ca.issue({.common_name = "alice"});
    const auto asked = [&](const std::string& authorities) {
        const net::TlsTexts texts{alice.certificate, alice.key, authorities};
        const auto client = net::make_client(net::HttpsPeer{"127.0.0.1", port, net::make_client_tls(texts).value()});
        const auto answer = server.await(client->send({.target = "/who", .headers = {}, .body = {}}));
        return answer ? answer->body : "refused";
    };
    CHECK(asked(all.other_ca.certificate() + all.ca.certificate()) == "certificate:alice admin");
    CHECK(asked(all.ca.certificate() + all.other_ca.certificate()) == "certificate:alice admin");
    CHECK(asked(all.other_ca.certificate()) == "refused");
    CHECK(asked("") == "refused");
}

TEST_CASE("a key that others could read is refused with its name and mode") {
    const Scene scene;
    for (const auto& [mode, text] : {std::pair{0640U, "0640"}, {0604U, "0604"}, {0620U, "0620"}}) {
        ::chmod(scene.good.key.c_str(), mode);
        const auto detail = Scene::fault(scene.good);
        CHECK(detail.find(scene.good.key + " has mode " + text) != std::string::npos);
        CHECK_FALSE(net::make_client_tls(scene.good));
    }
    ::chmod(scene.good.key.c_str(), 0400);
    CHECK(net::make_server_tls(scene.good));
}

TEST_CASE("a missing file is named") {
    const Scene scene;
    for (auto member : {&net::TlsFiles::certificate, &net::TlsFiles::key, &net::TlsFiles::ca}) {
        auto files = scene.good;
        files.*member = scene.folder.path("absent.pem");
        CHECK(Scene::fault(files) == "cannot open " + scene.folder.path("absent.pem") + ": No such file or directory");
        files.*member = "";
        CHECK_FALSE(Scene::fault(files).empty());
        files.*member = scene.folder.path();
        CHECK(Scene::fault(files).find("not a regular file") != std::string::npos);
    }
}

TEST_CASE("a file that isn't PEM is named") {
    const Scene scene;
    const auto junk = scene.folder.write("junk.pem", "-----BEGIN NONSENSE-----\n!!\n");
    ::chmod(junk.c_str(), 0600);
    for (auto member : {&net::TlsFiles::certificate, &net::TlsFiles::key, &net::TlsFiles::ca}) {
        auto files = scene.good;
        files.*member = junk;
        CHECK(Scene::fault(files).starts_with(junk + " holds no usable "));
    }
}

TEST_CASE("a revocation list that can't be read is named with its file") {
    const Scene scene;
    auto& all = certificates();
    auto files = scene.good;
    files.ca = scene.folder.write("crl.pem", all.ca.certificate() + all.ca.revoke({}));
    CHECK(net::make_server_tls(files));
    CHECK(net::make_client_tls(files));
    for (const auto* body : {"TUlJQg==", "!!"}) {
        CAPTURE(body);
        const auto list = std::string{"-----BEGIN X509 CRL-----\n"} + body + "\n-----END X509 CRL-----\n";
        files.ca = scene.folder.write("bad.pem", all.ca.certificate() + list);
        CHECK(Scene::fault(files).starts_with(files.ca + " holds no usable "));
    }
}

TEST_CASE("a key that isn't the certificate's is told so") {
    const Scene scene;
    auto files = scene.good;
    files.key = scene.folder.write("other.key", certificates().ca.issue({.common_name = "x"}).key);
    ::chmod(files.key.c_str(), 0600);
    CHECK(Scene::fault(files) == files.key + " is not the key of the certificate in " + files.certificate);
}

TEST_CASE("an encrypted key is a fault, not a question on the terminal") {
    const Scene scene;
    auto files = scene.good;
    files.key = scene.folder.write("encrypted.key", certificates().ca.issue({.common_name = "x"}, "secret").key);
    ::chmod(files.key.c_str(), 0600);
    CHECK(Scene::fault(files).starts_with(files.key + " holds no usable unencrypted PEM key"));
}
