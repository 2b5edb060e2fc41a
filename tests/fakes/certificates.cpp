#include "tests/fakes/certificates.hpp"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <stdexcept>

namespace ghost::fakes {
namespace {

void must(bool ok, const char* what) {
    if (!ok) throw std::runtime_error(std::string{"cannot make a certificate: "} + what);
}

template <class Write>
std::string pem(Write write) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio{BIO_new(BIO_s_mem()), &BIO_free};
    must(bio && write(bio.get()) == 1, "PEM");
    char* text = nullptr;
    const long length = BIO_get_mem_data(bio.get(), &text);
    return {text, static_cast<std::size_t>(length)};
}

std::unique_ptr<BIO, decltype(&BIO_free)> reader(const std::string& text) {
    return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free};
}

std::string certificate_pem(const X509* certificate) {
    return pem([certificate](BIO* bio) { return PEM_write_bio_X509(bio, certificate); });
}

void add_name(X509_NAME* name, const char* field, const std::string& value) {
    if (value.empty()) return;
    const auto* bytes = reinterpret_cast<const unsigned char*>(value.data());
    must(X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, bytes, static_cast<int>(value.size()), -1, 0) == 1,
         field);
}

void add_extension(X509* certificate, X509V3_CTX* context, int nid, const std::string& value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, context, nid, value.c_str());
    must(extension != nullptr, value.c_str());
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

}  // namespace

CertificateAuthority::CertificateAuthority(const std::string& name)
    : key_(EVP_EC_gen("P-256"), &EVP_PKEY_free), certificate_(nullptr, &X509_free) {
    must(key_ != nullptr, "key");
    certificate_ = make({.common_name = name}, key_.get(), nullptr);
    pem_ = certificate_pem(certificate_.get());
}

CertificateAuthority::CertificateAuthority(const Identity& kept, long serial)
    : key_(nullptr, &EVP_PKEY_free), certificate_(nullptr, &X509_free), pem_(kept.certificate), serial_(serial) {
    const auto certificate = reader(kept.certificate);
    certificate_.reset(PEM_read_bio_X509(certificate.get(), nullptr, nullptr, nullptr));
    must(certificate_ != nullptr, "PEM of the CA");
    const auto key = reader(kept.key);
    key_.reset(PEM_read_bio_PrivateKey(key.get(), nullptr, nullptr, nullptr));
    must(key_ && X509_check_private_key(certificate_.get(), key_.get()) == 1, "key of the CA");
}

CertificateAuthority::~CertificateAuthority() = default;

Identity CertificateAuthority::kept() const {
    return {pem_, pem([this](BIO* bio) {
                return PEM_write_bio_PKCS8PrivateKey(bio, key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
            })};
}

std::optional<std::string> CertificateAuthority::sign(const std::string& request, const Subject& subject) {
    const auto bio = reader(request);
    const std::unique_ptr<X509_REQ, decltype(&X509_REQ_free)> asked{
        PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr), &X509_REQ_free};
    EVP_PKEY* key = asked ? X509_REQ_get0_pubkey(asked.get()) : nullptr;
    const bool proven = key != nullptr && X509_REQ_verify(asked.get(), key) == 1;
    ERR_clear_error();
    if (!proven) return std::nullopt;
    return certificate_pem(make(subject, key, certificate_.get()).get());
}

CertificateAuthority::Certificate CertificateAuthority::make(const Subject& subject, EVP_PKEY* key,
                                                             const X509* issuer) {
    Certificate certificate{X509_new(), &X509_free};
    X509* raw = certificate.get();
    must(raw != nullptr, "memory");
    X509_set_version(raw, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(raw), serial_++);
    X509_gmtime_adj(X509_getm_notBefore(raw), subject.valid_from_s);
    X509_gmtime_adj(X509_getm_notAfter(raw), subject.valid_until_s);
    X509_set_pubkey(raw, key);
    add_name(X509_get_subject_name(raw), "O", subject.organization);
    add_name(X509_get_subject_name(raw), "CN", subject.common_name);
    const X509* signer = issuer ? issuer : raw;
    X509_set_issuer_name(raw, X509_get_subject_name(signer));
    X509V3_CTX context;
    X509V3_set_ctx(&context, const_cast<X509*>(signer), raw, nullptr, nullptr, 0);
    add_extension(raw, &context, NID_basic_constraints, issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
    if (!subject.alternative_names.empty())
        add_extension(raw, &context, NID_subject_alt_name, subject.alternative_names);
    must(X509_sign(raw, key_.get(), EVP_sha256()) > 0, "signature");
    return certificate;
}

Identity CertificateAuthority::issue(const Subject& subject, const std::string& password) {
    const Key key{EVP_EC_gen("P-256"), &EVP_PKEY_free};
    must(key != nullptr, "key");
    const auto certificate = make(subject, key.get(), certificate_.get());
    const auto write_key = [&](BIO* bio) {
        const EVP_CIPHER* cipher = password.empty() ? nullptr : EVP_aes_128_cbc();
        return PEM_write_bio_PKCS8PrivateKey(bio, key.get(), cipher, password.data(), static_cast<int>(password.size()),
                                             nullptr, nullptr);
    };
    return {certificate_pem(certificate.get()), pem(write_key)};
}

std::string CertificateAuthority::revoke(const std::vector<Identity>& revoked, long valid_s) const {
    const std::unique_ptr<X509_CRL, decltype(&X509_CRL_free)> list{X509_CRL_new(), &X509_CRL_free};
    must(list != nullptr, "memory");
    const std::unique_ptr<ASN1_TIME, decltype(&ASN1_TIME_free)> time{ASN1_TIME_new(), &ASN1_TIME_free};
    X509_CRL_set_version(list.get(), X509_CRL_VERSION_2);
    X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(certificate_.get()));
    X509_CRL_set1_lastUpdate(list.get(), X509_gmtime_adj(time.get(), -7200));
    X509_CRL_set1_nextUpdate(list.get(), X509_gmtime_adj(time.get(), valid_s));
    for (const auto& identity : revoked) {
        const std::unique_ptr<BIO, decltype(&BIO_free)> bio{BIO_new_mem_buf(identity.certificate.data(), -1),
                                                            &BIO_free};
        const Certificate certificate{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free};
        must(certificate != nullptr, "PEM of the revoked one");
        X509_REVOKED* entry = X509_REVOKED_new();
        X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate.get()));
        X509_REVOKED_set_revocationDate(entry, X509_gmtime_adj(time.get(), -60));
        must(X509_CRL_add0_revoked(list.get(), entry) == 1, "revocation");
    }
    X509_CRL_sort(list.get());
    must(X509_CRL_sign(list.get(), key_.get(), EVP_sha256()) > 0, "signature of the list");
    return pem([&list](BIO* bio) { return PEM_write_bio_X509_CRL(bio, list.get()); });
}

}  // namespace ghost::fakes
