#include "storage/fetcher.hpp"

#include "storage/boot_id.hpp"
#include "storage/part_record.hpp"
#include "storage/part_writer.hpp"

#include <boost/asio/this_coro.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ghost::storage {
namespace {

namespace asio = boost::asio;
using base::Errc;
using base::Result;

// A source that doesn't say how long it is gets its room in pieces, and any is looked after again as often.
constexpr std::uint64_t room_step = 64ULL << 20;
constexpr std::chrono::milliseconds report_every{250};
constexpr int text_attempts = 5;

// What a line of people's has room for.
std::string shortened(std::string text) {
    constexpr std::size_t longest = 200;
    if (text.size() > longest) text.replace(longest, std::string::npos, "...");
    return text;
}

// One fetch, over as many connections as it takes.
class Fetch {
public:
    struct Parts {
        net::Web& web;
        Files& files;
        base::Clock& clock;
        base::Random& random;
        TokenBucket& rate;
    };
    Fetch(Parts parts, FetchRequest request) : p_(parts), request_(std::move(request)) {}

    asio::awaitable<Result<Copied>> run() {
        if (auto opened = co_await open(); !opened) co_return base::fail(std::move(opened).error());
        for (;;) {
            const auto next = plan_->next(p_.random);
            if (const auto* why = std::get_if<FetchPlan::GiveUp>(&next)) co_return base::fail(why->why);
            if (std::holds_alternative<FetchPlan::Complete>(next)) {
                auto whole = co_await finish();
                if (whole || whole.error().code != Errc::checksum_mismatch) co_return whole;
                if (auto cut = co_await mismatched(std::move(whole).error()); !cut) co_return base::fail(cut.error());
                continue;
            }
            if (const auto* ask = std::get_if<FetchPlan::Ask>(&next)) {
                if (auto asked = co_await attempt(*ask); !asked) co_return base::fail(std::move(asked).error());
                continue;
            }
            const auto& pause = std::get<FetchPlan::Pause>(next);
            report(fmt::format("waiting to try again ({})", shortened(pause.why)));
            if (!co_await p_.clock.sleep_for(pause.span)) co_return base::fail(cancelled());
        }
    }

    [[nodiscard]] bool has_nothing() const { return file_ && file_->size() == 0; }
    [[nodiscard]] const std::string& part() const { return request_.part; }

private:
    static base::Error cancelled() { return {Errc::cancelled, "the download was cancelled"}; }

    void report(std::string_view phase) {
        if (request_.progress)
            request_.progress({std::string{phase}, plan_ ? plan_->have() : 0,
                               plan_ ? plan_->record().total.value_or(0) : std::uint64_t{0}});
        next_report_ = p_.clock.now() + report_every;
    }

    asio::awaitable<Result<void>> open() {
        const auto known = co_await read_part_record(p_.files, request_.part);
        GrowOptions options{.sha512 = request_.checksum && request_.checksum->kind == "sha512"};
        if (request_.progress)
            options.progress = [this](std::uint64_t done, std::uint64_t total) {
                request_.progress({"checking what is here", done, total});
            };
        auto file = co_await p_.files.grow(request_.part, std::move(options));
        if (!file) co_return base::fail(std::move(file).error());
        file_ = std::move(*file);
        writer_.emplace(co_await asio::this_coro::executor, file_);
        bool usable = known.has_value();
        if (usable && !request_.checksum) {
            // Nothing would tell if they weren't whole.
            const auto boot = co_await boot_id(p_.files);
            usable = boot && known->boot == *boot;
        }
        plan_.emplace(FetchSource{request_.urls, request_.checksum.has_value()}, usable ? known->record : PartRecord{},
                      file_->size());
        if (plan_->have() < file_->size())
            if (auto cut = co_await writer_->start_over(); !cut) co_return cut;
        recorded_ = usable ? known->record : PartRecord{};
        co_return Result<void>{};
    }

    asio::awaitable<Result<void>> attempt(FetchPlan::Ask ask) {
        net::WebRequest get{.url = ask.url};
        if (ask.from > 0) get.headers.set("Range", fmt::format("bytes={}-", ask.from));
        if (ask.from > 0 && !ask.if_range.empty()) get.headers.set("If-Range", ask.if_range);
        body_ = FetchPlan::Body::refuse;
        pending_start_ = false;
        fault_.reset();
        get.on_head = [this](const net::WebResponse& head) {
            body_ = plan_->on_head(head.status, head.headers);
            pending_start_ = body_ == FetchPlan::Body::start_over;
            return body_ != FetchPlan::Body::refuse;
        };
        get.on_body = [this](std::string_view piece) {
            if (!plan_->on_bytes(piece.size())) return false;
            if (pending_start_)
                first_.append(piece);
            else
                writer_->take(piece);
            unpaid_ += piece.size();
            return true;
        };
        get.ready_for_more = [this]() -> asio::awaitable<bool> { return keep_pace(); };
        report("downloading");
        const auto answer = co_await p_.web.get(std::move(get));
        const auto stopped = (co_await asio::this_coro::cancellation_state).cancelled();
        // What came before the cut is kept.
        auto kept = co_await settle();
        if (stopped != asio::cancellation_type::none) co_return base::fail(cancelled());
        if (fault_) co_return base::fail(*std::exchange(fault_, std::nullopt));
        if (!kept) co_return kept;
        if (!answer)
            plan_->on_end(answer.error());
        else if (answer->status / 100 != 2)
            static_cast<void>(plan_->on_head(answer->status, answer->headers));
        else
            plan_->on_end();
        if (plan_->have() < file_->size()) co_return co_await writer_->start_over();
        co_return Result<void>{};
    }

    // Between two reads of the network: false ends the answer, and fault_ says why.
    asio::awaitable<bool> keep_pace() {
        auto done = co_await begin_body();
        if (done) done = co_await make_room();
        if (done && writer_->full()) done = co_await writer_->pass_on();
        if (!done) {
            fault_ = std::move(done).error();
            co_return false;
        }
        if (p_.clock.now() >= next_report_) report("downloading");
        const auto wait = p_.rate.take(std::exchange(unpaid_, 0), p_.clock.now());
        if (wait > base::Duration{}) co_return co_await p_.clock.sleep_for(wait);
        co_return true;
    }

    // Before the first of its bytes is written: what is here goes if it must, and what comes is known by where it
    // comes from.
    asio::awaitable<Result<void>> begin_body() {
        if (pending_start_) {
            pending_start_ = false;
            if (auto cut = co_await writer_->start_over(); !cut) co_return cut;
            writer_->take(std::exchange(first_, {}));
        }
        if (plan_->record() == recorded_) co_return Result<void>{};
        recorded_ = plan_->record();
        co_return co_await write_part_record(p_.files, request_.part, recorded_, p_.clock.wall());
    }

    asio::awaitable<Result<void>> make_room() {
        const auto have = plan_->have();
        const auto wanted = plan_->record().total.value_or(have);
        if (!request_.room || (wanted <= room_ && have < ask_again_at_)) co_return Result<void>{};
        const auto ask = plan_->record().total ? wanted : wanted + room_step;
        auto may = co_await request_.room(ask);
        if (may) room_ = ask;
        ask_again_at_ = have + room_step;
        co_return may;
    }

    // No write is under way after it.
    asio::awaitable<Result<void>> settle() {
        auto may = base::Result<void>{};
        if (!fault_ && (pending_start_ || !first_.empty())) may = co_await begin_body();
        if (!fault_ && may) may = co_await make_room();
        if (!fault_ && may) co_return co_await writer_->flush();
        auto kept = co_await writer_->give_up();
        co_return may ? kept : may;
    }

    asio::awaitable<Result<Copied>> finish() {
        report("downloading");
        auto copied = co_await file_->seal(0444);
        if (!copied || !request_.checksum) co_return copied;
        if (auto same = compare(*request_.checksum, *copied); !same) co_return base::fail(std::move(same).error());
        co_return copied;
    }

    asio::awaitable<Result<void>> mismatched(base::Error why) {
        plan_->on_mismatch(std::move(why));
        // Sealed for good: its digests are used up.
        file_.reset();
        writer_.reset();
        if (auto gone = co_await remove_part_files(p_.files, request_.part); !gone) co_return gone;
        auto file = co_await p_.files.grow(request_.part, {.sha512 = request_.checksum->kind == "sha512"});
        if (!file) co_return base::fail(std::move(file).error());
        file_ = std::move(*file);
        writer_.emplace(co_await asio::this_coro::executor, file_);
        recorded_ = {};
        co_return Result<void>{};
    }

    Parts p_;
    FetchRequest request_;
    std::optional<FetchPlan> plan_;
    std::shared_ptr<GrowingFile> file_;
    std::optional<PartWriter> writer_;
    PartRecord recorded_;  // on disk
    FetchPlan::Body body_ = FetchPlan::Body::refuse;
    bool pending_start_ = false;      // what is here must go before what comes is written
    std::string first_;               // what came until then
    std::uint64_t unpaid_ = 0;        // bytes not yet taken from the rate
    std::uint64_t room_ = 0;          // bytes that the file may have
    std::uint64_t ask_again_at_ = 0;  // bytes: others fill the disk, too
    std::optional<base::Error> fault_;
    base::Instant next_report_{};
};

}  // namespace

asio::awaitable<Result<Copied>> Fetcher::fetch(FetchRequest request) {
    const auto throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    Fetch fetch{{web_, files_, clock_, random_, rate_}, std::move(request)};
    auto result = co_await fetch.run();
    if (!result && fetch.has_nothing()) static_cast<void>(co_await remove_part_files(files_, fetch.part()));
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return result;
}

asio::awaitable<Result<std::string>> Fetcher::text(std::string url, std::size_t max_bytes) {
    base::Backoff backoff{std::chrono::milliseconds{500}, std::chrono::seconds{15}};
    for (int attempt = 1;; ++attempt) {
        auto answer = co_await web_.get({.url = url, .max_body = max_bytes});
        if (answer && answer->status == 200) co_return std::move(answer->body);
        const bool passing = answer ? answer->status >= 500 || answer->status == 429 : !answer.error().permanent;
        auto why = answer
                       ? base::Error{Errc::source_unavailable, fmt::format("answered with status {}", answer->status)}
                       : answer.error().error;
        const bool gone = why.code == Errc::cancelled;
        if (!passing || gone || attempt == text_attempts) {
            if (!gone) why.detail = fmt::format("{}: {}", url.substr(0, url.find_first_of("?#")), why.detail);
            co_return base::fail(std::move(why));
        }
        if (!co_await clock_.sleep_for(backoff.next(random_))) co_return base::fail(Errc::cancelled);
    }
}

}  // namespace ghost::storage
