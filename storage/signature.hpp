// OpenPGP signatures, judged by gpgv in a child process with limits.
#pragma once

#include "base/error.hpp"
#include "base/process.hpp"
#include "storage/files.hpp"

#include <boost/asio/awaitable.hpp>

#include <string>
#include <string_view>

namespace ghost::storage {

struct SignedText {
    std::string text;
    std::string signature;  // detached, binary or armoured
    std::string keyring;    // binary OpenPGP keys; a signature by any of them is good
};

class Signatures {
public:
    // What gpgv reads is written to files in `directory` for as long as it runs.
    Signatures(std::string directory, Files& files, base::ProcessRunner& processes)
        : directory_(std::move(directory)), files_(files), processes_(processes) {}

    // The fingerprint of the key that signed it. `work_name` is unique among those under way. Errors: signature_invalid
    // (gpgv's words), io_error, cancelled, deadline_exceeded.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::string>> verify(SignedText what, std::string work_name);

    static constexpr std::string_view prefix = ".proof-";  // of those files

private:
    [[nodiscard]] boost::asio::awaitable<base::Result<std::string>> run(std::string stem, SignedText what);

    std::string directory_;
    Files& files_;
    base::ProcessRunner& processes_;
};

// What gpgv's status lines (--status-fd) say: the fingerprint of the good signature's key. Errors: signature_invalid.
[[nodiscard]] base::Result<std::string> read_gpgv_status(std::string_view status);

}  // namespace ghost::storage
