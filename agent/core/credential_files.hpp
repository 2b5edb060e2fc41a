// What this machine shows to Ghost Core and what it knows Core by, in files below the state directory.
#pragma once

#include "base/error.hpp"
#include "heartbeat/core_link.hpp"
#include "heartbeat/enrolment.hpp"
#include "heartbeat/identity.hpp"
#include "net/tls.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <string>

namespace ghost::agent {

// Each file is written durably, whole or not at all; the folder and the key are private to the agent.
// Errors: those of storage::Files.
class CredentialFiles {
public:
    // Keeps <state_dir>/core/{key,cert,ca}.pem and <state_dir>/identity.json.
    CredentialFiles(storage::Files& files, const std::string& state_dir);

    // What isn't there is empty. io_error as well when others could read the key.
    [[nodiscard]] boost::asio::awaitable<base::Result<heartbeat::Credentials>> load();
    // The key that is there, or a new one.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::string>> own_key();
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> keep_key(std::string key);
    // `ca` empty: it stays as it is.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> keep_certificate(std::string certificate, std::string ca);
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> keep_identity(heartbeat::Identity identity);
    // The identity comes last: until it tells of the enrolment there was none, and asking Core again with the same
    // token is answered alike. Returns it as it is kept. `used_token`: token_digest().
    [[nodiscard]] boost::asio::awaitable<base::Result<heartbeat::Identity>> keep_enrolment(heartbeat::Identity identity,
                                                                                           heartbeat::Enrolled given,
                                                                                           std::string used_token);

    // As sentences name them.
    [[nodiscard]] const net::TlsFiles& paths() const noexcept { return paths_; }
    [[nodiscard]] const std::string& folder() const noexcept { return folder_; }

private:
    [[nodiscard]] boost::asio::awaitable<base::Result<std::string>> read(std::string path);
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> write(std::string path, std::string text, unsigned mode);

    storage::Files& files_;
    std::string folder_;
    std::string identity_;
    net::TlsFiles paths_;
};

}  // namespace ghost::agent
