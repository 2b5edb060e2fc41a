// What proves an image before a byte of it is here: a checksum, and who vouches
// for that.
#pragma once

#include "agent/images/image_request.hpp"
#include "base/error.hpp"
#include "storage/fetcher.hpp"
#include "storage/signature.hpp"

#include <boost/asio/awaitable.hpp>

#include <optional>
#include <string>

namespace ghost::agent {

struct Proof {
    std::optional<std::string> checksum;  // "sha256:<hex>" | "sha512:<hex>"
    std::string verified = "none";        // as Image::verified: "signature" | "checksum" | "local" | "none"
};

class ImageProof {
public:
    ImageProof(storage::Fetcher& fetcher, storage::Signatures& signatures)
        : fetcher_(fetcher), signatures_(signatures) {}

    // Fetches the list of checksums and its signature where the source has them. `work_name` is unique among those
    // under way. Errors: source_unavailable, address_not_allowed, signature_invalid, cancelled.
    [[nodiscard]] boost::asio::awaitable<base::Result<Proof>> of(ImageSource source, std::string work_name);

    static constexpr std::size_t longest_list = 4 << 20;  // bytes

private:
    storage::Fetcher& fetcher_;
    storage::Signatures& signatures_;
};

}  // namespace ghost::agent
