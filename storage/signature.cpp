#include "storage/signature.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace ghost::storage {
namespace {

namespace asio = boost::asio;
using base::Errc;
using base::Result;

constexpr std::chrono::seconds deadline{30};
constexpr std::uint64_t address_space = 512ULL << 20;
constexpr std::size_t longest_words = 500;  // of gpgv's own
constexpr std::array<std::string_view, 3> suffixes{".text", ".sig", ".gpg"};

struct Verdict {
    std::string_view keyword;
    std::string_view sentence;
};
// Any of these spoils the signature, whatever else is said.
constexpr std::array bad{
    Verdict{"BADSIG", "it doesn't belong to the text"},
    Verdict{"EXPSIG", "it has expired"},
    Verdict{"EXPKEYSIG", "its key has expired"},
    Verdict{"REVKEYSIG", "its key was revoked"},
};

std::string_view word(std::string_view& line) {
    const auto end = std::min(line.find(' '), line.size());
    const auto first = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
    return first;
}

auto invalid(std::string_view why) {
    return base::fail(Errc::signature_invalid, fmt::format("the checksum list's signature is not good: {}", why));
}

}  // namespace

Result<std::string> read_gpgv_status(std::string_view status) {
    std::string signer;
    std::string unknown_key;
    bool good = false;
    while (!status.empty()) {
        const auto end = std::min(status.find('\n'), status.size());
        auto line = status.substr(0, end);
        status.remove_prefix(std::min(end + 1, status.size()));
        if (word(line) != "[GNUPG:]") continue;
        const auto keyword = word(line);
        if (const auto* const found = std::ranges::find(bad, keyword, &Verdict::keyword); found != bad.end())
            return invalid(found->sentence);
        if (keyword == "NO_PUBKEY") unknown_key = word(line);
        if (keyword == "GOODSIG") good = true;
        if (keyword == "VALIDSIG") signer = word(line);
    }
    if (good && !signer.empty()) return signer;
    if (!unknown_key.empty())
        return invalid(fmt::format("it was made with the key {}, which isn't trusted", unknown_key));
    return invalid("it is none");
}

asio::awaitable<Result<std::string>> Signatures::verify(SignedText what, std::string work_name) {
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    const auto stem = fmt::format("{}/{}{}", directory_, prefix, work_name);
    auto result = co_await run(stem, std::move(what));
    for (const auto suffix : suffixes) static_cast<void>(co_await files_.remove(fmt::format("{}{}", stem, suffix)));
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return result;
}

asio::awaitable<Result<std::string>> Signatures::run(std::string stem, SignedText what) {
    const auto path = [&stem](std::size_t i) { return fmt::format("{}{}", stem, suffixes.at(i)); };
    const std::array contents{&what.text, &what.signature, &what.keyring};
    for (std::size_t i = 0; i < contents.size(); ++i)
        if (auto written = co_await files_.write(path(i), std::move(*contents.at(i)), 0600); !written)
            co_return base::fail(std::move(written).error());
    base::Command command;
    command.argv = {"gpgv", "--status-fd", "1", "--keyring", path(2), "--", path(1), path(0)};
    command.deadline = deadline;
    command.limits.address_space = address_space;
    command.limits.cpu_seconds = static_cast<std::uint64_t>(deadline.count());
    const auto exit = co_await processes_.run(std::move(command));
    if (!exit && exit.error().code == Errc::not_found)
        co_return base::fail(Errc::io_error, "gpgv is not installed (package gpgv)");
    if (!exit) co_return base::fail(exit.error());
    // Without a word of its own it judged nothing.
    if (exit->output.find("[GNUPG:]") == std::string::npos)
        co_return base::fail(Errc::io_error, fmt::format("gpgv can't judge the signature (exit code {}): {}",
                                                         exit->status, exit->error.substr(0, longest_words)));
    co_return read_gpgv_status(exit->output);
}

}  // namespace ghost::storage
