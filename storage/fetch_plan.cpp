#include "storage/fetch_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

namespace ghost::storage {
namespace {

using base::Errc;

constexpr std::chrono::seconds longest_asked_wait{120};
constexpr std::chrono::milliseconds first_pause{500};
constexpr std::chrono::seconds longest_pause{60};

std::optional<std::uint64_t> number(std::string_view text) {
    std::uint64_t value = 0;
    const auto* const begin = text.data();
    const auto* const end = begin + text.size();
    const auto [at, fault] = std::from_chars(begin, end, value);
    if (text.empty() || fault != std::errc{} || at != end) return std::nullopt;
    return value;
}

struct ContentRange {  // "bytes 100-199/1000"
    std::uint64_t first = 0;
    std::optional<std::uint64_t> total;
};

std::optional<ContentRange> content_range(const net::Headers& headers) {
    auto text = headers.find("Content-Range").value_or("");
    constexpr std::string_view unit = "bytes ";
    if (!text.starts_with(unit)) return std::nullopt;
    text.remove_prefix(unit.size());
    const auto dash = text.find('-');
    const auto slash = text.find('/');
    if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash) return std::nullopt;
    const auto first = number(text.substr(0, dash));
    const auto last = number(text.substr(dash + 1, slash - dash - 1));
    if (!first || !last || *last < *first) return std::nullopt;
    const auto total = number(text.substr(slash + 1));
    if (!total && text.substr(slash + 1) != "*") return std::nullopt;
    if (total && *last >= *total) return std::nullopt;
    return ContentRange{*first, total};
}

// A weak ETag may stand for other bytes (RFC 9110, 8.8.3.2).
std::string validator_of(const net::Headers& headers) {
    const auto etag = headers.find("ETag").value_or("");
    if (etag.starts_with('"')) return std::string{etag};
    if (!etag.empty()) return {};
    return std::string{headers.find("Last-Modified").value_or("")};
}

std::string shown(std::string_view url) { return std::string{url.substr(0, url.find_first_of("?#"))}; }

}  // namespace

FetchPlan::FetchPlan(FetchSource source, PartRecord known, std::uint64_t have)
    : has_checksum_(source.has_checksum),
      record_(std::move(known)),
      have_(have),
      several_answers_(have > 0),
      backoff_(first_pause, longest_pause) {
    for (auto& url : source.urls) {
        const bool twice = std::ranges::find(mirrors_, url, &Mirror::url) != mirrors_.end();
        if (!twice) mirrors_.push_back({std::move(url), {}});
    }
    best_ = have_;
    const bool too_much = record_.total && have_ > *record_.total;
    if (record_.url.empty() || too_much) lose_everything();
    const auto same = std::ranges::find(mirrors_, record_.url, &Mirror::url);
    if (same != mirrors_.end()) at_ = static_cast<std::size_t>(same - mirrors_.begin());
}

void FetchPlan::lose_everything() {
    record_ = {};
    have_ = 0;
    complete_ = several_answers_ = false;
}

FetchPlan::Next FetchPlan::next(base::Random& random) {
    if (complete_ || (have_ > 0 && record_.total == have_)) return Complete{};
    if (!choose_mirror() || fruitless_ >= patience || attempts_ >= most_attempts) return GiveUp{all_failed()};
    if (pause_first_) {
        pause_first_ = false;
        return Pause{std::max(backoff_.next(random), std::exchange(asked_to_wait_, {}))};
    }
    ++attempts_;
    head_taken_ = false;
    const auto& mirror = mirrors_[at_];
    Ask ask{mirror.url, have_, {}};
    if (have_ == 0) return ask;
    if (mirror.url == record_.url && !record_.validator.empty())
        ask.if_range = record_.validator;
    else if (!can_go_on_at(mirror))
        ask.from = 0;
    return ask;
}

// Without a validator only a checksum tells whether the rest belongs to the beginning.
bool FetchPlan::can_go_on_at(const Mirror& mirror) const {
    return has_checksum_ || (mirror.url == record_.url && !record_.validator.empty());
}

bool FetchPlan::choose_mirror() {
    for (std::size_t i = 0; i < mirrors_.size(); ++i) {
        if (!mirrors_[at_].out) return true;
        at_ = (at_ + 1) % mirrors_.size();
    }
    return false;
}

FetchPlan::Body FetchPlan::on_head(unsigned status, const net::Headers& headers) {
    if (status == 206) return on_part(headers);
    if (status == 200) return on_whole(headers);
    refused_status(status, headers);
    return Body::refuse;
}

FetchPlan::Body FetchPlan::on_whole(const net::Headers& headers) {
    lose_everything();
    record_ = {mirrors_[at_].url, validator_of(headers), std::nullopt};
    if (const auto length = headers.find("Content-Length")) record_.total = number(*length);
    head_taken_ = true;
    return Body::start_over;
}

FetchPlan::Body FetchPlan::on_part(const net::Headers& headers) {
    const auto range = content_range(headers);
    const auto& url = mirrors_[at_].url;
    const auto validator = validator_of(headers);
    const bool other_file = (range && range->total && record_.total && *range->total != *record_.total) ||
                            (url == record_.url && !validator.empty() && validator != record_.validator);
    if (!range || range->first != have_ || other_file) {
        lose_everything();
        failed(other_file ? "the file changed meanwhile" : "answered with another part than was asked for");
        return Body::refuse;
    }
    if (have_ == 0 || url != record_.url) record_ = {url, validator, record_.total};
    if (range->total) record_.total = range->total;
    several_answers_ = have_ > 0;
    head_taken_ = true;
    return Body::append;
}

void FetchPlan::refused_status(unsigned status, const net::Headers& headers) {
    if (status == 416) {
        // It said that it is longer once, and now that all of it is here: the checksum tells.
        if (has_checksum_ && have_ > 0 && headers.find("Content-Range") == fmt::format("bytes */{}", have_)) {
            record_.total = have_;
            return;
        }
        lose_everything();
        failed("416: it has fewer bytes than are here");
        return;
    }
    if (const auto wait = number(headers.find("Retry-After").value_or("")))
        asked_to_wait_ =
            std::min<base::Duration>(std::chrono::seconds{std::min<std::uint64_t>(*wait, 3600)}, longest_asked_wait);
    const bool passing = status >= 500 || status == 408 || status == 425 || status == 429;
    auto fault = fmt::format("answered with status {}", status);
    if (passing)
        failed(std::move(fault));
    else
        drop({Errc::source_unavailable, std::move(fault)});
}

void FetchPlan::on_bytes(std::uint64_t count) { have_ += count; }

void FetchPlan::on_end() {
    if (!head_taken_) return;  // on_head has said all
    if (record_.total && have_ > *record_.total) {
        lose_everything();
        failed("sent more bytes than it announced");
    } else if (record_.total && have_ < *record_.total) {
        failed("ended before all was here");
    } else {
        record_.total = have_;
        complete_ = true;
    }
}

void FetchPlan::on_end(const net::WebFailure& failure) {
    if (failure.permanent)
        drop(failure.error);
    else
        failed(failure.error.detail);
}

void FetchPlan::on_mismatch(base::Error why) {
    const bool patched = several_answers_;
    lose_everything();
    // Pieces of different files may have been put together: once more, in one go. Otherwise this mirror has another
    // file, and will have it the next time.
    if (patched)
        failed(why.detail);
    else
        drop(std::move(why));
}

// For now, and it is another's turn.
void FetchPlan::failed(std::string fault) {
    mirrors_[at_].fault = {Errc::source_unavailable, std::move(fault)};
    if (have_ >= best_ + worth_speaking_of) {
        best_ = have_;
        fruitless_ = 0;
        backoff_.reset();
    } else {
        ++fruitless_;
    }
    at_ = (at_ + 1) % mirrors_.size();
    pause_first_ = true;
}

void FetchPlan::drop(base::Error fault) {
    mirrors_[at_].fault = std::move(fault);
    mirrors_[at_].out = true;
}

base::Error FetchPlan::all_failed() const {
    const auto& first = mirrors_.front();
    base::Error error{Errc::source_unavailable, {}};
    const bool agree = std::ranges::all_of(
        mirrors_, [&](const Mirror& m) { return m.out && m.fault && m.fault->code == first.fault->code; });
    if (agree) error = {first.fault->code, {}, {}, first.fault->facts};
    for (const auto& mirror : mirrors_) {
        if (!mirror.fault) continue;
        if (!error.detail.empty()) error.detail += "; ";
        error.detail += shown(mirror.url) + ": " + mirror.fault->detail;
    }
    return error;
}

}  // namespace ghost::storage
