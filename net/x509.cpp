#include "net/x509.hpp"

#include "net/peer.hpp"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <optional>

namespace ghost::net {
namespace {

using base::Errc;
using base::Result;

template <auto release>
struct Release {
    template <class T>
    void operator()(T* what) const noexcept {
        release(what);
    }
};
using Bio = std::unique_ptr<BIO, Release<&BIO_free>>;
using Key = std::unique_ptr<EVP_PKEY, Release<&EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Release<&X509_free>>;
using SigningRequest = std::unique_ptr<X509_REQ, Release<&X509_REQ_free>>;

constexpr std::size_t common_name_limit = 64;  // X.520's ub-common-name

// With OpenSSL's last reason; its queue of errors is empty afterwards.
std::unexpected<base::Error> failed(Errc code, std::string what) {
    const auto* const reason = ERR_reason_error_string(ERR_peek_last_error());
    if (reason != nullptr) what.append(": ").append(reason);
    ERR_clear_error();
    return base::fail(code, std::move(what));
}

// The bytes stay the caller's.
Bio reading(std::string_view text) { return Bio{BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))}; }

template <class Write>
Result<std::string> to_pem(Bio bio, Write write) {
    if (!bio || write(bio.get()) != 1) return failed(Errc::internal, "cannot write PEM");
    char* text = nullptr;
    const long length = BIO_get_mem_data(bio.get(), &text);
    return std::string{text, static_cast<std::size_t>(length)};
}

// OpenSSL would ask for an encrypted key's password on the terminal.
int no_password(char*, int, int, void*) { return -1; }

Result<Key> read_key(std::string_view pem) {
    const auto bio = reading(pem);
    Key key{bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, &no_password, nullptr) : nullptr};
    if (!key) return failed(Errc::validation_failed, "not an unencrypted PEM key");
    return key;
}

Result<Certificate> first_certificate(std::string_view pem) {
    const auto bio = reading(pem);
    Certificate certificate{bio ? PEM_read_bio_X509(bio.get(), nullptr, &no_password, nullptr) : nullptr};
    if (!certificate) return failed(Errc::validation_failed, "not a PEM certificate");
    return certificate;
}

std::optional<base::Wall> to_wall(const ASN1_TIME* time) {
    std::tm parts{};
    if (ASN1_TIME_to_tm(time, &parts) != 1) return std::nullopt;
    // The year 9999 stands for "never", which is beyond what the clock can say; nor does it matter when before 1970.
    const std::chrono::sys_seconds whole{std::chrono::seconds{::timegm(&parts)}};
    const auto last = std::chrono::time_point_cast<std::chrono::seconds>(base::Wall::max());
    return base::Wall{std::clamp(whole, std::chrono::sys_seconds{}, last)};
}

}  // namespace

Result<std::string> make_private_key() {
    const Key key{EVP_EC_gen("P-256")};
    if (!key) return failed(Errc::internal, "cannot make a key");
    // A memory of OpenSSL's that is wiped when it is freed.
    return to_pem(Bio{BIO_new(BIO_s_secmem())}, [&key](BIO* bio) {
        return PEM_write_bio_PKCS8PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
}

Result<std::string> make_csr(std::string_view key_pem, std::string_view common_name) {
    if (common_name.empty() || common_name.size() > common_name_limit)
        return base::fail(Errc::validation_failed, "a certificate's name has 1 to 64 characters");
    const auto key = read_key(key_pem);
    if (!key) return base::fail(key.error());
    const SigningRequest request{X509_REQ_new()};
    if (!request) return failed(Errc::internal, "cannot make a certificate request");
    const auto* const bytes = reinterpret_cast<const unsigned char*>(common_name.data());
    const bool made =
        X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) == 1 &&
        X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(request.get()), NID_commonName, MBSTRING_UTF8, bytes,
                                   static_cast<int>(common_name.size()), -1, 0) == 1 &&
        X509_REQ_set_pubkey(request.get(), key->get()) == 1 &&
        X509_REQ_sign(request.get(), key->get(), EVP_sha256()) > 0;
    if (!made) return failed(Errc::validation_failed, "cannot make a certificate request");
    return to_pem(Bio{BIO_new(BIO_s_mem())},
                  [&request](BIO* bio) { return PEM_write_bio_X509_REQ(bio, request.get()); });
}

Result<CertificateFacts> read_certificate(std::string_view pem) {
    const auto certificate = first_certificate(pem);
    if (!certificate) return base::fail(certificate.error());
    const auto from = to_wall(X509_get0_notBefore(certificate->get()));
    const auto until = to_wall(X509_get0_notAfter(certificate->get()));
    if (!from || !until) return failed(Errc::validation_failed, "a certificate without the time it is valid for");
    return CertificateFacts{common_name(**certificate).value_or(""), *from, *until};
}

Result<void> check_pair(std::string_view certificate_pem, std::string_view key_pem) {
    const auto certificate = first_certificate(certificate_pem);
    if (!certificate) return base::fail(certificate.error());
    const auto key = read_key(key_pem);
    if (!key) return base::fail(key.error());
    if (X509_check_private_key(certificate->get(), key->get()) == 1) return {};
    ERR_clear_error();
    return base::fail(Errc::validation_failed, "the certificate is not for this key");
}

}  // namespace ghost::net
