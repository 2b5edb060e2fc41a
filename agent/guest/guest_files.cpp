// Files in guests.
#include "agent/guest/guest_service.hpp"
#include "agent/guest/guest_text.hpp"
#include "agent/guest/upload_tools.hpp"
#include "base/cancelled.hpp"
#include "base/shielded.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <exception>
#include <stdexcept>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

constexpr std::chrono::seconds tool_limit{30};
constexpr std::chrono::minutes finish_limit{5};  // with all of it written to the guest's disk
constexpr unsigned usual_mode = 0644;
constexpr std::size_t longest_words = 1024;  // of a tool

base::Error too_large(const std::string& path, std::uint64_t most) {
    return {base::Errc::body_too_large, fmt::format("{} is larger than {} bytes (guest_access.max_file_size)",
                                                    shortened(path, GuestService::longest_told), most)};
}

}  // namespace

// ---- Reading

// A file that is being read, from the request for it until it is known how that ended. Whoever reads it may go away at
// any time; its handle is closed all the same.
class GuestService::Reading {
public:
    Reading(GuestService& service, GuestAccess access, GuestPlaces::Place place)
        : service_(service), alive_(service.alive_), access_(std::move(access)), place_(std::move(place)) {}
    ~Reading() {
        if (*alive_ && !told_) end(base::fail(base::Errc::cancelled, "nobody reads it any more"));
    }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;

    // Opens it and reads its first piece.
    static Task<void> begin(std::shared_ptr<Reading> self, std::string path);
    // The next piece; null: that was all.
    static asio::awaitable<net::Chunk> next(std::shared_ptr<Reading> self);

private:
    static Task<net::Chunk> pull(std::shared_ptr<Reading> self);
    void end(const base::Result<void>& result);

    GuestService& service_;
    std::shared_ptr<bool> alive_;
    GuestAccess access_;
    GuestPlaces::Place place_;
    std::optional<std::int64_t> handle_;
    std::optional<net::Chunk> first_;
    std::uint64_t bytes_ = 0;
    bool told_ = false;
};

void GuestService::Reading::end(const base::Result<void>& result) {
    if (const auto handle = std::exchange(handle_, std::nullopt))
        service_.closers_.spawn("guest's file", service_.close_handle(access_.vm, *handle, std::move(place_)));
    place_.reset();
    access_.bytes = bytes_;
    told_ = true;
    service_.tell(access_, result);
}

asio::awaitable<base::Result<void>> GuestService::Reading::begin(std::shared_ptr<Reading> self, std::string path) {
    auto& hypervisor = self->service_.p_.hypervisor;
    // A handle that nobody knew of would stay open.
    auto opened =
        co_await base::shielded(hypervisor.open_guest_file(self->access_.vm, path, virt::GuestFileMode::read));
    if (!opened) {
        base::Result<void> refused = base::fail(refusal_of_guest(std::move(opened).error()));
        self->end(refused);
        co_return refused;
    }
    self->handle_ = *opened;
    auto first = co_await pull(self);
    if (!first) co_return base::fail(std::move(first).error());
    self->first_ = std::move(*first);
    co_return base::Result<void>{};
}

asio::awaitable<base::Result<net::Chunk>> GuestService::Reading::pull(std::shared_ptr<Reading> self) {
    if (self->told_) co_return net::Chunk{};
    auto& service = self->service_;
    auto result = service.still_permitted(self->access_.vm);
    std::string bytes;
    bool last = false;
    if (result) {
        auto piece = co_await service.p_.hypervisor.read_guest_file(self->access_.vm, *self->handle_);
        if (!piece)
            result = base::fail(refusal_of_guest(piece.error()));
        else if (piece->bytes.empty() && !piece->end)
            result = base::fail(base::Errc::source_unavailable, "the guest agent gives nothing of the file");
        else if (self->bytes_ + piece->bytes.size() > service.max_file_size_)
            result = base::fail(too_large(self->access_.what, service.max_file_size_));
        if (result) {
            bytes = std::move(piece->bytes);
            last = piece->end;
        }
    }
    self->bytes_ += bytes.size();
    if (!result || last) self->end(result);
    if (!result) co_return base::fail(std::move(result).error());
    if (bytes.empty()) co_return net::Chunk{};
    co_return std::make_shared<const std::string>(std::move(bytes));
}

asio::awaitable<net::Chunk> GuestService::Reading::next(std::shared_ptr<Reading> self) {
    if (auto first = std::exchange(self->first_, std::nullopt)) co_return std::move(*first);
    auto piece = co_await pull(self);
    if (!piece) throw std::runtime_error{piece.error().detail};
    co_return std::move(*piece);
}

asio::awaitable<base::Result<net::BodySource>> GuestService::read_file(base::Context context, std::string ref,
                                                                       std::string path) {
    const auto vm = permitted(ref, "give files");
    if (!vm) co_return base::fail(vm.error());
    auto place = transfers_.take((*vm)->id);
    if (!place) co_return base::fail(place.error());
    auto reading = std::make_shared<Reading>(*this,
                                             GuestAccess{.vm = (*vm)->id,
                                                         .name = (*vm)->name,
                                                         .action = "file_read",
                                                         .what = path,
                                                         .by = context.who.text(),
                                                         .request_id = context.request_id},
                                             std::move(*place));
    auto begun = co_await Reading::begin(reading, std::move(path));
    if (!begun) co_return base::fail(std::move(begun).error());
    co_return [reading = std::move(reading)] { return Reading::next(reading); };
}

asio::awaitable<void> GuestService::close_handle(std::string id, std::int64_t handle, GuestPlaces::Place /*place*/) {
    const auto closed = co_await p_.hypervisor.close_guest_file(id, handle);
    if (!closed) p_.log.debug("a file in a guest can't be closed", {{"vm", id}, {"error", closed.error().detail}});
}

// ---- Writing

// Of an upload, where its bytes go until it is whole.
struct GuestService::Upload {
    std::string vm;  // id
    UploadPlace at;
    std::int64_t handle = 0;
};

asio::awaitable<base::Result<void>> GuestService::write_file(base::Context context, std::string ref,
                                                             GuestUpload upload) {
    const auto vm = permitted(ref, "take files");
    if (!vm) co_return base::fail(vm.error());
    if (upload.size && *upload.size > max_file_size_) co_return base::fail(too_large(upload.path, max_file_size_));
    const auto place = transfers_.take((*vm)->id);
    if (!place) co_return base::fail(place.error());
    GuestAccess access{.vm = (*vm)->id,
                       .name = (*vm)->name,
                       .action = "file_write",
                       .what = upload.path,
                       .by = context.who.text(),
                       .request_id = context.request_id};
    std::uint64_t written = 0;
    const auto executor = co_await asio::this_coro::executor;
    // A caller that is cancelled stops it, and waits for it to clean up.
    auto result =
        co_await asio::co_spawn(executor, write_apart(access.vm, std::move(upload), written), asio::use_awaitable);
    access.bytes = written;
    tell(access, result);
    co_return result;
}

asio::awaitable<base::Result<void>> GuestService::write_apart(std::string id, GuestUpload upload,
                                                              std::uint64_t& written) {
    co_await asio::this_coro::throw_if_cancelled(false);
    const auto digits = [this] { return fmt::format("{:016x}", p_.random.next()); };
    Upload into{.vm = std::move(id), .at = upload_place(upload.path, digits(), digits())};
    const auto made = co_await base::shielded(run_tool(into.vm, make_upload_folder(into.at), tool_limit));
    if (made && made->exit_code == is_a_directory)
        co_return base::fail(base::Errc::state_conflict,
                             fmt::format("{} is a directory in the guest", shortened(into.at.path, longest_told)));
    if (auto usable = ended_well(made); !usable) co_return usable;
    auto opened =
        co_await base::shielded(p_.hypervisor.open_guest_file(into.vm, into.at.draft(), virt::GuestFileMode::write));
    if (!opened) {
        co_await base::shielded(take_away(into));
        co_return base::fail(refusal_of_guest(std::move(opened).error()));
    }
    into.handle = *opened;
    base::Result<void> poured;
    try {
        poured = co_await pour(into, std::move(upload), written);
    } catch (const std::exception& e) {
        p_.log.error("an upload ended by an exception", {{"vm", into.vm}, {"error", e.what()}});
        poured = base::fail(base::Errc::internal, "an internal fault ended the upload");
    }
    co_return co_await base::shielded(put_in_place(std::move(into), std::move(poured)));
}

asio::awaitable<base::Result<void>> GuestService::pour(const Upload& into, GuestUpload from, std::uint64_t& written) {
    // The guest's agent lets everybody write to what it makes.
    if (auto set = ended_well(
            co_await run_tool(into.vm, set_upload_mode(into.at, from.mode.value_or(usual_mode)), tool_limit));
        !set)
        co_return set;
    std::string waiting;
    std::uint64_t taken = 0;
    for (bool more = true; more;) {
        if (co_await base::is_cancelled()) co_return base::fail(base::Errc::cancelled, "nobody sends it any more");
        auto piece = co_await from.body();
        if (!piece) co_return base::fail(std::move(piece).error());
        more = piece->has_value();
        if (more) {
            taken += (*piece)->size();
            if (taken > max_file_size_) co_return base::fail(too_large(into.at.path, max_file_size_));
            waiting += **piece;
        }
        while (waiting.size() >= virt::max_guest_piece || (!more && !waiting.empty())) {
            if (auto still = still_permitted(into.vm); !still) co_return still;
            auto next = waiting.substr(0, virt::max_guest_piece);
            waiting.erase(0, next.size());
            const auto size = next.size();
            auto taken_there = co_await p_.hypervisor.write_guest_file(into.vm, into.handle, std::move(next));
            if (!taken_there) co_return base::fail(refusal_of_guest(std::move(taken_there).error()));
            written += size;
        }
    }
    if (from.size && taken != *from.size)
        co_return base::fail(base::Errc::source_unavailable,
                             fmt::format("{} bytes came of {}; the file stays as it was", taken, *from.size));
    co_return base::Result<void>{};
}

asio::awaitable<base::Result<void>> GuestService::put_in_place(Upload upload, base::Result<void> poured) {
    auto result = std::move(poured);
    auto closed = co_await p_.hypervisor.close_guest_file(upload.vm, upload.handle);
    if (result && !closed) result = base::fail(refusal_of_guest(std::move(closed).error()));
    if (result) result = still_permitted(upload.vm);
    if (result) result = ended_well(co_await run_tool(upload.vm, finish_upload(upload.at), finish_limit));
    if (!result) co_await take_away(upload);
    co_return result;
}

asio::awaitable<void> GuestService::take_away(const Upload& upload) {
    const auto removed = ended_well(co_await run_tool(upload.vm, remove_upload(upload.at), tool_limit));
    if (!removed)
        p_.log.warn("what there is of a broken upload can't be removed in the guest",
                    {{"vm", upload.vm}, {"path", upload.at.folder}, {"error", removed.error().detail}});
}

asio::awaitable<base::Result<virt::GuestRun>> GuestService::run_tool(std::string id, std::vector<std::string> argv,
                                                                     base::Duration limit) {
    auto run =
        co_await p_.hypervisor.run_in_guest(id, {.argv = std::move(argv), .max_output = longest_words, .limit = limit});
    if (!run || run->how == virt::GuestRun::How::exited) co_return run;
    const auto* vm = p_.index.find(id);
    co_return base::fail(refusal_of_guest(no_end_of(*run, vm == nullptr ? id : vm->name)));
}

base::Result<void> GuestService::ended_well(const base::Result<virt::GuestRun>& run) {
    if (!run) return base::fail(run.error());
    if (run->exit_code == 0) return {};
    auto words = readable_text(run->errors.empty() ? run->output : run->errors, longest_words).text;
    while (words.ends_with('\n')) words.pop_back();
    return base::fail(refusal_of_guest(
        {base::Errc::state_conflict, words.empty() ? fmt::format("the guest's program ended with {}", run->exit_code)
                                                   : fmt::format("the guest says: {}", words)}));
}

}  // namespace ghost::agent
