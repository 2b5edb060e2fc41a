#include "net/tls.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/ssl/error.hpp>
#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace ghost::net {
namespace {

namespace ssl = boost::asio::ssl;
using boost::system::error_code;

constexpr std::size_t pem_limit = 4 * 1024 * 1024;
constexpr mode_t others_may = S_IRWXG | S_IRWXO;

// Forward secrecy and authenticated encryption; TLS 1.3 has nothing else.
constexpr const char* tls12_ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20";

enum class Secrecy : bool { open, secret };

struct File {
    int fd;
    ~File() { ::close(fd); }
};

// The mode is that of the very file that is read: no one can swap it in between.
base::Result<std::string> read_pem(const std::string& path, Secrecy secrecy) {
    if (path.empty()) return base::fail(base::Errc::io_error, "a PEM file that TLS needs was not named");
    const File file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.fd < 0) return base::fail(base::errno_error(errno, "cannot open " + path));
    struct stat info{};
    if (::fstat(file.fd, &info) != 0) return base::fail(base::errno_error(errno, "cannot stat " + path));
    if (!S_ISREG(info.st_mode)) return base::fail(base::Errc::io_error, path + " is not a regular file");
    if (secrecy == Secrecy::secret && (info.st_mode & others_may) != 0)
        return base::fail(
            base::Errc::io_error,
            fmt::format("{} has mode {:04o}: a private key must be readable by its owner only (chmod 600)", path,
                        info.st_mode & 07777U));
    std::string text;
    std::array<char, 16 * 1024> chunk;
    while (true) {
        const auto count = ::read(file.fd, chunk.data(), chunk.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return base::fail(base::errno_error(errno, "cannot read " + path));
        if (count == 0) return text;
        text.append(chunk.data(), static_cast<std::size_t>(count));
        if (text.size() > pem_limit) return base::fail(base::Errc::io_error, path + " is too large for a PEM file");
    }
}

std::unexpected<base::Error> broken(std::string_view what, const std::string& path, const error_code& error) {
    return base::fail(base::Errc::io_error, fmt::format("{} holds no usable {}: {}", path, what, error.message()));
}

// Certificate and key of `texts`.
base::Result<void> use_identity(ssl::context& context, const TlsTexts& texts) {
    error_code error;
    context.use_certificate_chain(boost::asio::buffer(texts.certificate), error);
    if (error) return broken("PEM certificate", texts.from.certificate, error);
    context.use_private_key(boost::asio::buffer(texts.key), ssl::context::pem, error);
    const auto strange_key = [&] {
        return base::fail(base::Errc::io_error,
                          texts.from.key + " is not the key of the certificate in " + texts.from.certificate);
    };
    if (error && SSL_CTX_get0_privatekey(context.native_handle()) == nullptr &&
        ERR_GET_LIB(static_cast<unsigned long>(error.value())) == ERR_LIB_X509)
        return strange_key();
    if (error) return broken("unencrypted PEM key", texts.from.key, error);
    if (SSL_CTX_check_private_key(context.native_handle()) != 1) {
        ERR_clear_error();
        return strange_key();
    }
    return {};
}

base::Result<void> use_identity(ssl::context& context, const TlsFiles& files) {
    auto chain = read_pem(files.certificate, Secrecy::open);
    if (!chain) return base::fail(chain.error());
    auto key = read_pem(files.key, Secrecy::secret);
    if (!key) return base::fail(key.error());
    TlsTexts texts{*std::move(chain), *std::move(key), {}, files};
    auto used = use_identity(context, texts);
    OPENSSL_cleanse(texts.key.data(), texts.key.size());
    return used;
}

// Trusts the certificates of `pem`, which is what `path` holds.
base::Result<void> trust(ssl::context& context, const std::string& pem, const std::string& path) {
    error_code error;
    context.add_certificate_authority(boost::asio::buffer(pem), error);
    if (error) return broken("PEM certificate of a CA", path, error);
    return {};
}

base::Result<void> trust_file(ssl::context& context, const std::string& path) {
    const auto authorities = read_pem(path, Secrecy::open);
    if (!authorities) return base::fail(authorities.error());
    return trust(context, *authorities, path);
}

base::Result<void> trust_system(ssl::context& context) {
    error_code error;
    context.set_default_verify_paths(error);
    if (error) return base::fail(base::Errc::io_error, "cannot load the system's CAs: " + error.message());
    return {};
}

// Names the CAs to clients that ask which certificate to send.
void announce(ssl::context& context, const std::string& pem) {
    BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
    while (X509* ca = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr)) {
        SSL_CTX_add_client_CA(context.native_handle(), ca);
        X509_free(ca);
    }
    BIO_free(bio);
    ERR_clear_error();
}

// Refuses what the revocation lists beside the CAs name. Once there is one, a client whose CA has none that is valid
// now is refused, too: OpenSSL can't tell who was revoked.
base::Result<void> use_revocations(ssl::context& context, const std::string& pem, const std::string& path) {
    X509_STORE* store = SSL_CTX_get_cert_store(context.native_handle());
    BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
    ERR_clear_error();
    while (X509_CRL* list = PEM_read_bio_X509_CRL(bio, nullptr, nullptr, nullptr)) {
        X509_STORE_add_crl(store, list);
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
        X509_CRL_free(list);
    }
    BIO_free(bio);
    const auto last = ERR_peek_last_error();
    ERR_clear_error();
    if (ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE) return {};  // read to the end
    return broken("PEM revocation list (CRL)", path, {static_cast<int>(last), boost::asio::error::get_ssl_category()});
}

TlsContext make_context(ssl::context::method method) {
    auto context = std::make_shared<ssl::context>(method);
    SSL_CTX* raw = context->native_handle();
    SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(raw, tls12_ciphers);
    SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
    SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
    // OpenSSL would ask for an encrypted key's password on the terminal.
    context->set_password_callback([](std::size_t, ssl::context::password_purpose) { return std::string{}; });
    return context;
}

// "http/1.1" when the client offers it; a client that offers only others goes on without ALPN.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* size, const unsigned char* offered,
                    unsigned offered_size, void*) {
    static constexpr std::string_view ours = "\x08http/1.1";
    unsigned char* chosen = nullptr;
    const auto* wanted = reinterpret_cast<const unsigned char*>(ours.data());
    const int found =
        SSL_select_next_proto(&chosen, size, wanted, static_cast<unsigned>(ours.size()), offered, offered_size);
    if (found != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

}  // namespace

base::Result<TlsContext> make_server_tls(const TlsFiles& files) {
    auto context = make_context(ssl::context::tls_server);
    SSL_CTX* raw = context->native_handle();
    SSL_CTX_set_num_tickets(raw, 0);
    SSL_CTX_set_options(raw, SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_alpn_select_cb(raw, &choose_protocol, nullptr);
    if (auto used = use_identity(*context, files); !used) return base::fail(used.error());
    const auto authorities = read_pem(files.ca, Secrecy::open);
    if (!authorities) return base::fail(authorities.error());
    if (auto trusted = trust(*context, *authorities, files.ca); !trusted) return base::fail(trusted.error());
    announce(*context, *authorities);
    if (auto used = use_revocations(*context, *authorities, files.ca); !used) return base::fail(used.error());
    // Without FAIL_IF_NO_PEER_CERT: who shows none is anonymous, who shows a bad one is refused.
    SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
    return context;
}

base::Result<TlsContext> make_client_tls(const TlsFiles& files) {
    auto context = make_context(ssl::context::tls_client);
    if (!files.certificate.empty() || !files.key.empty()) {
        if (auto used = use_identity(*context, files); !used) return base::fail(used.error());
    }
    const auto trusted = files.ca.empty() ? trust_system(*context) : trust_file(*context, files.ca);
    if (!trusted) return base::fail(trusted.error());
    SSL_CTX_set_verify(context->native_handle(), SSL_VERIFY_PEER, nullptr);
    return context;
}

base::Result<TlsContext> make_client_tls(const TlsTexts& texts) {
    auto context = make_context(ssl::context::tls_client);
    if (!texts.certificate.empty() || !texts.key.empty()) {
        if (auto used = use_identity(*context, texts); !used) return base::fail(used.error());
    }
    const auto trusted = texts.ca.empty() ? trust_system(*context) : trust(*context, texts.ca, texts.from.ca);
    if (!trusted) return base::fail(trusted.error());
    SSL_CTX_set_verify(context->native_handle(), SSL_VERIFY_PEER, nullptr);
    return context;
}

base::Result<TlsContext> make_web_tls(const std::string& extra_ca) {
    auto context = make_client_tls(TlsFiles{});
    if (!context || extra_ca.empty()) return context;
    if (auto trusted = trust_file(**context, extra_ca); !trusted) return base::fail(trusted.error());
    return context;
}

std::string_view certificate_refused(const error_code& error) noexcept {
    if (error.category() != boost::asio::error::get_ssl_category()) return {};
    const auto code = static_cast<unsigned long>(error.value());
    if (ERR_GET_LIB(code) != ERR_LIB_SSL) return {};
    switch (ERR_GET_REASON(code) - SSL_AD_REASON_OFFSET) {
        case SSL_AD_BAD_CERTIFICATE: return "bad_certificate";
        case SSL_AD_UNSUPPORTED_CERTIFICATE: return "unsupported_certificate";
        case SSL_AD_CERTIFICATE_REVOKED: return "certificate_revoked";
        case SSL_AD_CERTIFICATE_EXPIRED: return "certificate_expired";
        case SSL_AD_CERTIFICATE_UNKNOWN: return "certificate_unknown";
        case SSL_AD_UNKNOWN_CA: return "unknown_ca";
        case SSL_AD_ACCESS_DENIED: return "access_denied";
        case SSL_AD_CERTIFICATE_REQUIRED: return "certificate_required";
        default: return {};
    }
}

}  // namespace ghost::net
