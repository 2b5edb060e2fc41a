// SHA-2 of what passes by.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <array>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>

namespace ghost::storage {

class Digest {
public:
    explicit Digest(const EVP_MD* kind) : context_(EVP_MD_CTX_new()) {
        if (!context_ || EVP_DigestInit_ex(context_.get(), kind, nullptr) != 1) throw std::bad_alloc{};
    }
    void add(std::span<const char> bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }
    // Lower case hex; nothing may be added after it.
    [[nodiscard]] std::string hex() {
        std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
        unsigned length = 0;
        EVP_DigestFinal_ex(context_.get(), out.data(), &length);
        return fmt::format("{:02x}", fmt::join(out.begin(), out.begin() + length, ""));
    }

private:
    struct Free {
        void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
    };
    std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// SHA-256, by which blobs are named, and SHA-512 when a checksum is of that kind.
struct Digests {
    explicit Digests(bool with_sha512) {
        if (with_sha512) sha512.emplace(EVP_sha512());
    }
    void add(std::span<const char> bytes) {
        sha256.add(bytes);
        if (sha512) sha512->add(bytes);
    }

    Digest sha256{EVP_sha256()};
    std::optional<Digest> sha512;
};

}  // namespace ghost::storage
