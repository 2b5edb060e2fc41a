#include "net/x509.hpp"

#include "fakes/certificates.hpp"

#include <catch2/catch.hpp>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

using namespace ghost;
using base::Errc;

namespace {

using Request = std::unique_ptr<X509_REQ, decltype(&X509_REQ_free)>;

Request parse(const std::string& pem) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio{BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                        &BIO_free};
    return {PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr), &X509_REQ_free};
}

std::string subject(const Request& request) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio{BIO_new(BIO_s_mem()), &BIO_free};
    X509_NAME_print_ex(bio.get(), X509_REQ_get_subject_name(request.get()), 0, XN_FLAG_RFC2253);
    char* text = nullptr;
    const auto length = BIO_get_mem_data(bio.get(), &text);
    return {text, static_cast<std::size_t>(length)};
}

template <class T>
std::string fault(const base::Result<T>& result) {
    REQUIRE_FALSE(result);
    CHECK(result.error().code == Errc::validation_failed);
    return result.error().detail;
}

}  // namespace

TEST_CASE("a key is made anew each time, on P-256 and without a password") {
    const auto key = net::make_private_key();
    REQUIRE(key);
    CHECK(key->starts_with("-----BEGIN PRIVATE KEY-----\n"));
    CHECK(key->ends_with("-----END PRIVATE KEY-----\n"));
    CHECK(*net::make_private_key() != *key);

    const auto csr = parse(net::make_csr(*key, "node").value());
    REQUIRE(csr);
    std::string curve(64, '\0');
    std::size_t length = 0;
    REQUIRE(EVP_PKEY_get_group_name(X509_REQ_get0_pubkey(csr.get()), curve.data(), curve.size(), &length) == 1);
    CHECK(curve.substr(0, length) == "prime256v1");
}

TEST_CASE("a request for a certificate is signed and names the node") {
    const auto key = net::make_private_key().value();
    const auto csr = net::make_csr(key, "Büro, 2. Stock");
    REQUIRE(csr);
    const auto parsed = parse(*csr);
    REQUIRE(parsed);
    CHECK(X509_REQ_verify(parsed.get(), X509_REQ_get0_pubkey(parsed.get())) == 1);
    CHECK(subject(parsed) == "CN=B\\C3\\BCro\\, 2. Stock");
    CHECK(net::make_csr(key, std::string(64, 'x')));

    CHECK(fault(net::make_csr(key, "")) == "a certificate's name has 1 to 64 characters");
    CHECK(fault(net::make_csr(key, std::string(65, 'x'))) == "a certificate's name has 1 to 64 characters");
    CHECK(fault(net::make_csr("junk", "node")).starts_with("not an unencrypted PEM key"));
    CHECK(fault(net::make_csr(key, "\xff\xfe")).starts_with("cannot make a certificate request"));
}

TEST_CASE("a certificate tells its name and when it is valid, the first of a chain") {
    fakes::CertificateAuthority ca{"test CA"};
    const auto now = std::chrono::system_clock::now();
    const auto identity = ca.issue({.common_name = "node-7", .valid_from_s = -60, .valid_until_s = 86'400});
    const auto facts = net::read_certificate(identity.certificate + ca.certificate());
    REQUIRE(facts);
    CHECK(facts->common_name == "node-7");
    CHECK(facts->not_after - facts->not_before >= std::chrono::seconds{86'459});
    CHECK(facts->not_after - facts->not_before <= std::chrono::seconds{86'461});
    CHECK(facts->not_before < now);
    CHECK(facts->not_after > now);
    CHECK(
        net::read_certificate(ca.issue({.common_name = {}, .organization = "Ghost"}).certificate)->common_name.empty());
    for (const auto* text : {"", "junk", "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n"})
        CHECK(fault(net::read_certificate(text)).starts_with("not a PEM certificate"));
}

TEST_CASE("a certificate that is valid for ever is read, too") {
    fakes::CertificateAuthority ca{"test CA"};
    const auto facts =
        net::read_certificate(ca.issue({.common_name = "old", .valid_until_s = 7'900L * 365 * 86'400}).certificate);
    REQUIRE(facts);
    CHECK(facts->not_after > std::chrono::system_clock::now() + std::chrono::years{200});
    const auto ancient =
        net::read_certificate(ca.issue({.common_name = "old", .valid_from_s = -100L * 365 * 86'400}).certificate);
    REQUIRE(ancient);
    CHECK(ancient->not_before == base::Wall{});
}

TEST_CASE("a certificate and a key belong together or not") {
    fakes::CertificateAuthority ca{"test CA"};
    const auto one = ca.issue({.common_name = "one"});
    const auto other = ca.issue({.common_name = "other"});
    CHECK(net::check_pair(one.certificate, one.key));
    CHECK(net::check_pair(one.certificate + other.certificate, one.key));
    CHECK(fault(net::check_pair(one.certificate, other.key)) == "the certificate is not for this key");
    CHECK(fault(net::check_pair("junk", one.key)).starts_with("not a PEM certificate"));
    CHECK(fault(net::check_pair(one.certificate, "junk")).starts_with("not an unencrypted PEM key"));
    // No question on the terminal.
    const auto locked = ca.issue({.common_name = "locked"}, "secret");
    CHECK(fault(net::check_pair(locked.certificate, locked.key)).starts_with("not an unencrypted PEM key"));
}
