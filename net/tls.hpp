// TLS contexts from PEM files or texts, for our listeners and our client.
#pragma once

#include "base/error.hpp"

#include <boost/asio/ssl/context.hpp>
#include <boost/system/error_code.hpp>

#include <memory>
#include <string>
#include <string_view>

namespace ghost::net {

struct TlsFiles {
    std::string certificate;  // chain, PEM
    std::string key;          // PEM, readable by its owner only
    std::string ca;           // whom we trust, PEM; on a server also the CRLs that say whom no longer
};

using TlsContext = std::shared_ptr<boost::asio::ssl::context>;

// TLS 1.2 and newer; asks for a client certificate of `files.ca` without forcing one; a certificate that doesn't
// verify, or that a CRL in `files.ca` revokes, ends the handshake. Once the file has a CRL, each CA in it needs one
// that is valid now. No session tickets or renegotiation. Errors say which file and why: missing, not PEM, key and
// certificate don't belong together, key readable by group or others.
[[nodiscard]] base::Result<TlsContext> make_server_tls(const TlsFiles& files);

// Verifies the peer against `files.ca` (the system's store when empty); certificate and key are optional.
[[nodiscard]] base::Result<TlsContext> make_client_tls(const TlsFiles& files);

// The same with what the files hold.
struct TlsTexts {
    std::string certificate;  // chain, PEM; it and the key may be empty
    std::string key;
    std::string ca;      // one or more; empty: the system's store
    TlsFiles from = {};  // where they come from, as sentences name it
};
[[nodiscard]] base::Result<TlsContext> make_client_tls(const TlsTexts& texts);

// For anybody's servers: verifies them against the system's store and, unless empty, the CAs in the PEM file `extra_ca`
// beside it.
[[nodiscard]] base::Result<TlsContext> make_web_tls(const std::string& extra_ca = {});

// The name of the alert with which the peer refused our certificate ("certificate_expired", "unknown_ca"), when `error`
// is one; else empty. With TLS 1.3 it comes after the handshake: the first read tells it.
[[nodiscard]] std::string_view certificate_refused(const boost::system::error_code& error) noexcept;

}  // namespace ghost::net
