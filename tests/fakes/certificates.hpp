// Certificates for tests, made on the spot: a CA and what it signs, as PEM.
#pragma once

#include <openssl/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ghost::fakes {

struct Identity {
    std::string certificate;  // PEM
    std::string key;          // PEM, PKCS#8
};

// What a certificate says. Empty names are left out.
struct Subject {
    std::string common_name;
    std::string organization = {};
    std::string alternative_names = {};  // "DNS:localhost,IP:127.0.0.1"
    long valid_from_s = -3600;           // from now
    long valid_until_s = 3600;
};

class CertificateAuthority {
public:
    explicit CertificateAuthority(const std::string& name);
    // One that was made before. What it signs is numbered from `serial` on. Throws std::runtime_error when the PEMs
    // are none.
    CertificateAuthority(const Identity& kept, long serial);
    ~CertificateAuthority();
    CertificateAuthority(const CertificateAuthority&) = delete;
    CertificateAuthority& operator=(const CertificateAuthority&) = delete;

    [[nodiscard]] const std::string& certificate() const noexcept { return pem_; }
    [[nodiscard]] Identity kept() const;  // the CA itself, with its key
    // For the key of the certificate request in PEM; nullopt: it is no request, or not signed with its key.
    [[nodiscard]] std::optional<std::string> sign(const std::string& request, const Subject& subject);
    // `password` not empty: the key is encrypted with it.
    [[nodiscard]] Identity issue(const Subject& subject, const std::string& password = {});
    // A revocation list with these, PEM; it is due for renewal in `valid_s`.
    [[nodiscard]] std::string revoke(const std::vector<Identity>& revoked, long valid_s = 3600) const;

private:
    using Key = std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)>;
    using Certificate = std::unique_ptr<X509, void (*)(X509*)>;
    [[nodiscard]] Certificate make(const Subject& subject, EVP_PKEY* key, const X509* issuer);

    Key key_;
    Certificate certificate_;
    std::string pem_;
    long serial_ = 1;
};

}  // namespace ghost::fakes
