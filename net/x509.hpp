// Keys, requests for certificates, and what a certificate says: PEM in, PEM out.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <string>
#include <string_view>

namespace ghost::net {

// EC P-256, PKCS#8 PEM without a password. Errors: internal.
[[nodiscard]] base::Result<std::string> make_private_key();

// A PKCS#10 request (PEM) for `common_name`, 1 to 64 characters, signed with the key. Errors: validation_failed.
[[nodiscard]] base::Result<std::string> make_csr(std::string_view key_pem, std::string_view common_name);

struct CertificateFacts {
    std::string common_name;  // empty: it has none
    base::Wall not_before;
    base::Wall not_after;
};
// Of the first certificate of a chain. Errors: validation_failed.
[[nodiscard]] base::Result<CertificateFacts> read_certificate(std::string_view pem);

// Whether the key is that of the chain's first certificate. Errors: validation_failed with a sentence.
[[nodiscard]] base::Result<void> check_pair(std::string_view certificate_pem, std::string_view key_pem);

}  // namespace ghost::net
