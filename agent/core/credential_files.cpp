#include "agent/core/credential_files.hpp"

#include "net/x509.hpp"

#include <fmt/format.h>

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

using base::Errc;
using base::Result;

constexpr std::size_t largest = 256 * 1024;
constexpr unsigned others_may = 0077;

}  // namespace

CredentialFiles::CredentialFiles(storage::Files& files, const std::string& state_dir)
    : files_(files),
      folder_(state_dir + "/core"),
      identity_(state_dir + "/identity.json"),
      paths_{folder_ + "/cert.pem", folder_ + "/key.pem", folder_ + "/ca.pem"} {}

asio::awaitable<Result<std::string>> CredentialFiles::read(std::string path) {
    auto text = co_await files_.read(path, largest);
    if (!text && text.error().code == Errc::not_found) co_return std::string{};
    co_return text;
}

asio::awaitable<Result<void>> CredentialFiles::write(std::string path, std::string text, unsigned mode) {
    if (auto made = co_await files_.make_directories(folder_, 0700); !made) co_return made;
    auto written = co_await files_.write(std::move(path), std::move(text), mode);
    co_return written;
}

asio::awaitable<Result<heartbeat::Credentials>> CredentialFiles::load() {
    const auto found = co_await files_.stat(paths_.key);
    if (!found) co_return base::fail(found.error());
    if (*found && ((*found)->mode & others_may) != 0)
        co_return base::fail(
            Errc::io_error,
            fmt::format("{} has mode {:04o}: a private key must be readable by its owner only (chmod 600)", paths_.key,
                        (*found)->mode));
    auto key = co_await read(paths_.key);
    if (!key) co_return base::fail(std::move(key.error()));
    auto certificate = co_await read(paths_.certificate);
    if (!certificate) co_return base::fail(std::move(certificate.error()));
    auto ca = co_await read(paths_.ca);
    if (!ca) co_return base::fail(std::move(ca.error()));
    co_return heartbeat::Credentials{*std::move(key), *std::move(certificate), *std::move(ca)};
}

asio::awaitable<Result<std::string>> CredentialFiles::own_key() {
    auto there = co_await load();
    if (!there) co_return base::fail(std::move(there.error()));
    if (!there->key.empty()) co_return std::move(there->key);
    auto made = net::make_private_key();
    if (!made) co_return made;
    if (auto kept = co_await keep_key(*made); !kept) co_return base::fail(std::move(kept.error()));
    co_return made;
}

asio::awaitable<Result<void>> CredentialFiles::keep_key(std::string key) {
    auto kept = co_await write(paths_.key, std::move(key), 0600);
    co_return kept;
}

asio::awaitable<Result<void>> CredentialFiles::keep_certificate(std::string certificate, std::string ca) {
    // The CAs come first: the certificate that is there goes on with them, and will be renewed again.
    if (!ca.empty())
        if (auto kept = co_await write(paths_.ca, std::move(ca), 0644); !kept) co_return kept;
    auto kept = co_await write(paths_.certificate, std::move(certificate), 0644);
    co_return kept;
}

asio::awaitable<Result<void>> CredentialFiles::keep_identity(heartbeat::Identity identity) {
    auto kept = co_await files_.write(identity_, heartbeat::to_text(identity), 0600);
    co_return kept;
}

asio::awaitable<Result<heartbeat::Identity>> CredentialFiles::keep_enrolment(heartbeat::Identity identity,
                                                                             heartbeat::Enrolled given,
                                                                             std::string used_token) {
    if (!identity.agent_id.empty() && identity.agent_id != given.agent_id) {
        // In between this is nobody: the other name must not stand beside the new certificate.
        identity.agent_id.clear();
        if (auto kept = co_await keep_identity(identity); !kept) co_return base::fail(std::move(kept.error()));
    }
    auto kept = co_await keep_certificate(std::move(given.certificate), std::move(given.ca));
    if (!kept) co_return base::fail(std::move(kept.error()));
    identity.agent_id = std::move(given.agent_id);
    identity.used_token = std::move(used_token);
    identity.core_urls = std::move(given.core_urls);
    if (kept = co_await keep_identity(identity); !kept) co_return base::fail(std::move(kept.error()));
    co_return identity;
}

}  // namespace ghost::agent
