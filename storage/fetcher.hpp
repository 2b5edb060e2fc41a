// Gets files over the web as a FetchPlan says: into a .part that outlives cuts,
// restarts and crashes, hashed as it comes, at a rate that all share.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/random.hpp"
#include "net/web.hpp"
#include "storage/checksum.hpp"
#include "storage/fetch_plan.hpp"
#include "storage/files.hpp"
#include "storage/token_bucket.hpp"

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ghost::storage {

struct FetchProgress {
    std::string phase;  // "checking what is here", "downloading", "waiting to try again (URL: why)"
    std::uint64_t done = 0;
    std::uint64_t total = 0;  // bytes, 0: not known
};

struct FetchRequest {
    std::vector<std::string> urls;  // https://, the first and mirrors of it
    std::optional<Checksum> checksum;
    std::string part;  // path; what is known of it is in <part>.json
    // Awaited before the file grows beyond what it was last asked for, with the bytes that it then may have, and again
    // every 64 MiB; empty: whatever the disk has. Its error ends the fetch.
    std::function<boost::asio::awaitable<base::Result<void>>(std::uint64_t bytes)> room = {};
    std::function<void(const FetchProgress&)> progress = {};
};

class Fetcher {
public:
    Fetcher(net::Web& web, Files& files, base::Clock& clock, base::Random& random, std::uint64_t max_rate)
        : web_(web), files_(files), clock_(clock), random_(random), rate_(max_rate) {}

    // The file at `part`, whole, and with the checksum that was asked for; sealed, mode 0444. Errors:
    // source_unavailable (each mirror and why), address_not_allowed, checksum_mismatch (expected, actual),
    // insufficient_storage, io_error, cancelled. On a mismatch nothing is left; otherwise the .part stays, so that the
    // next fetch goes on with it.
    [[nodiscard]] boost::asio::awaitable<base::Result<Copied>> fetch(FetchRequest request);
    // A small text. Tries a few times. Errors: source_unavailable, address_not_allowed, cancelled.
    [[nodiscard]] boost::asio::awaitable<base::Result<std::string>> text(std::string url, std::size_t max_bytes);

private:
    net::Web& web_;
    Files& files_;
    base::Clock& clock_;
    base::Random& random_;
    TokenBucket rate_;
};

}  // namespace ghost::storage
