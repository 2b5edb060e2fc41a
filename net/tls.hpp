// TLS contexts from PEM files, for our listeners and our client.
#pragma once

#include "base/error.hpp"

#include <boost/asio/ssl/context.hpp>

#include <memory>
#include <string>

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

// For anybody's servers: verifies them against the system's store and, unless empty, the CAs in the PEM file `extra_ca`
// beside it.
[[nodiscard]] base::Result<TlsContext> make_web_tls(const std::string& extra_ca = {});

}  // namespace ghost::net
