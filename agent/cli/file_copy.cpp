#include "agent/cli/file_copy.hpp"

#include "agent/cli/local_file.hpp"
#include "agent/cli/query.hpp"
#include "agent/cli/transfer_bar.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <utility>

namespace ghost::cli {
namespace asio = boost::asio;
namespace {

constexpr ::mode_t usual_mode = 0644;
constexpr std::string_view folders = "for a folder: tar cf - FOLDER | ghostctl ssh NAME -- tar xf -";

Failure local_fault(const base::Error& error) {
    return {ExitCode::failed,
            error.detail,
            {},
            error.code == base::Errc::validation_failed ? std::string{folders} : std::string{}};
}

std::optional<std::uint64_t> length_of(const net::ClientResponse& head) {
    const auto text = head.headers.find("Content-Length").value_or("");
    std::uint64_t length = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), length);
    return fault == std::errc{} && end == text.data() + text.size() ? std::optional{length} : std::nullopt;
}

// What is sent, piece by piece: a file, or standard input.
class Source {
public:
    Source(OldFile file, TransferBar& bar) : file_(std::move(file)), bar_(bar) {}
    Source(std::unique_ptr<ByteChannel> input, TransferBar& bar) : input_(std::move(input)), bar_(bar) {}

    asio::awaitable<base::Result<std::optional<std::string>>> next() {
        co_await asio::this_coro::throw_if_cancelled(false);
        auto bytes = file_ ? file_->next() : co_await typed();
        if (!bytes) {
            if (bytes.error().code != base::Errc::cancelled) fault_ = bytes.error();
            co_return base::fail(std::move(bytes.error()));
        }
        if (bytes->empty()) co_return std::nullopt;
        bar_.add(bytes->size());
        co_return std::optional{std::move(*bytes)};
    }
    // Why it has no more although it should.
    [[nodiscard]] const std::optional<base::Error>& fault() const { return fault_; }

private:
    asio::awaitable<base::Result<std::string>> typed() {
        std::string bytes(OldFile::piece, '\0');
        const auto got = co_await input_->read(asio::buffer(bytes));
        if (!got) co_return base::fail(got.error());
        bytes.resize(*got);
        co_return bytes;
    }

    std::optional<OldFile> file_;
    std::unique_ptr<ByteChannel> input_;
    TransferBar& bar_;
    std::optional<base::Error> fault_;
};

// Where a body goes.
class Target {
public:
    Target(std::optional<NewFile> file, TransferBar& bar, Console& console)
        : file_(std::move(file)), bar_(bar), console_(console) {}

    bool take(std::string_view piece) {
        if (!file_) {
            console_.out(piece);
            bar_.add(piece.size());
            return console_.has_reader();
        }
        if (auto written = file_->write(piece); !written) {
            fault_ = std::move(written.error());
            return false;
        }
        bar_.add(piece.size());
        return true;
    }
    std::optional<base::Error> finish() {
        if (fault_) return fault_;
        if (file_)
            if (auto finished = file_->finish(); !finished) return std::move(finished.error());
        return std::nullopt;
    }

private:
    std::optional<NewFile> file_;
    TransferBar& bar_;
    Console& console_;
    std::optional<base::Error> fault_;
};

}  // namespace

asio::awaitable<Outcome<std::uint64_t>> fetch_file(CopyPlace place, std::string target, std::string path,
                                                   std::string subject) {
    std::optional<NewFile> file;
    if (path != "-") {
        auto made = NewFile::create(path, place.random);
        if (!made) co_return std::unexpected{local_fault(made.error())};
        file.emplace(std::move(*made));
    }
    TransferBar bar{place.console, place.clock, std::move(subject)};
    Target into{std::move(file), bar, place.console};
    const auto answer = co_await place.agent.download(
        std::move(target),
        [&bar](const net::ClientResponse& head) {
            if (const auto length = length_of(head)) bar.expect(*length);
            return true;
        },
        [&into](std::string_view piece) { return into.take(piece); });
    bar.erase();
    if (!answer) co_return std::unexpected{answer.error()};
    if (const auto fault = into.finish()) co_return std::unexpected{local_fault(*fault)};
    co_return bar.bytes();
}

asio::awaitable<Outcome<std::uint64_t>> send_file(CopyPlace place, std::string target, std::string path,
                                                  std::string subject) {
    TransferBar bar{place.console, place.clock, std::move(subject)};
    std::optional<Source> source;
    std::optional<std::uint64_t> size;
    auto mode = usual_mode;
    if (path == "-") {
        auto input = place.stdio.open(false);
        if (!input) co_return std::unexpected{local_fault(input.error())};
        source.emplace(std::move(*input), bar);
    } else {
        auto file = OldFile::open(path);
        if (!file) co_return std::unexpected{local_fault(file.error())};
        size = file->size();
        mode = file->mode();
        bar.expect(*size);
        source.emplace(std::move(*file), bar);
    }
    add_query(target, "mode", fmt::format("{:04o}", mode));
    const auto sent = co_await place.agent.upload(std::move(target), [&source] { return source->next(); }, size);
    bar.erase();
    if (source->fault()) co_return std::unexpected{local_fault(*source->fault())};
    if (!sent) co_return std::unexpected{sent.error()};
    co_return bar.bytes();
}

}  // namespace ghost::cli
