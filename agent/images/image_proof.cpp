#include "agent/images/image_proof.hpp"

#include "storage/checksum.hpp"

#include <utility>

namespace ghost::agent {

boost::asio::awaitable<base::Result<Proof>> ImageProof::of(ImageSource source, std::string work_name) {
    if (source.checksum) co_return Proof{source.checksum, "checksum"};
    if (!source.path.empty()) co_return Proof{{}, "local"};
    if (source.checksums.empty()) co_return Proof{};
    auto list = co_await fetcher_.text(source.checksums, longest_list);
    if (!list) co_return base::fail(std::move(list).error());
    // Who signed the list is known before a word of it counts.
    if (!source.signature.empty()) {
        auto signature = co_await fetcher_.text(source.signature, longest_list);
        if (!signature) co_return base::fail(std::move(signature).error());
        auto signer = co_await signatures_.verify({*list, std::move(*signature), source.keyring}, std::move(work_name));
        if (!signer) co_return base::fail(std::move(signer).error());
    }
    auto checksum = storage::find_checksum(*list, source.listed_as);
    if (!checksum) co_return base::fail(std::move(checksum).error());
    co_return Proof{storage::to_string(*checksum), source.signature.empty() ? "checksum" : "signature"};
}

}  // namespace ghost::agent
