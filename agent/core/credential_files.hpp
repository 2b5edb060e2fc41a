// What this machine shows to Ghost Core and what it knows Core by, in files below the state directory.
#pragma once

#include "base/error.hpp"
#include "heartbeat/identity.hpp"
#include "net/tls.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <string>

namespace ghost::agent {

struct Credentials {  // PEM; empty: not there
    std::string key;
    std::string certificate;  // chain, for the key and in the agent's name
    std::string ca;           // of Core's own certificates
};

// Each file is written durably, whole or not at all; the folder and the key are private to the agent.
// Errors: those of storage::Files.
class CredentialFiles {
public:
    // Keeps <state_dir>/core/{key,cert,ca}.pem and <state_dir>/identity.json.
    CredentialFiles(storage::Files& files, const std::string& state_dir);

    // io_error as well when others could read the key.
    [[nodiscard]] boost::asio::awaitable<base::Result<Credentials>> load();
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> keep_key(std::string key);
    // `ca` empty: it stays as it is.
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> keep_certificate(std::string certificate, std::string ca);
    [[nodiscard]] boost::asio::awaitable<base::Result<void>> keep_identity(heartbeat::Identity identity);

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
