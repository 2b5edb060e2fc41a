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
    std::uint64_t last = 0;
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
    return ContentRange{*first, *last, total};
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
    const bool too_much = record_.total && have_ > *record_.total;
    if (record_.url.empty() || too_much) lose_everything();
    best_ = have_;
    const auto same = std::ranges::find(mirrors_, record_.url, &Mirror::url);
    if (same != mirrors_.end()) at_ = static_cast<std::size_t>(same - mirrors_.begin());
}

void FetchPlan::lose_everything() {
    record_ = {};
    have_ = 0;
    complete_ = several_answers_ = false;
    for (auto& mirror : mirrors_) mirror.apart = false;
}

FetchPlan::Next FetchPlan::next(base::Random& random) {
    if (complete_ || (have_ > 0 && record_.total == have_)) return Complete{};
    if (!choose_mirror() || fruitless_ >= patience || attempts_ >= most_attempts) return GiveUp{all_failed()};
    if (pause_first_) {
        pause_first_ = false;
        return Pause{std::max(backoff_.next(random), std::exchange(asked_to_wait_, {})), fault_};
    }
    ++attempts_;
    head_taken_ = too_much_ = false;
    answer_end_.reset();
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
    if (mirror.url == record_.url) return has_checksum_ || !record_.validator.empty();
    return has_checksum_ && !mirror.apart;
}

bool FetchPlan::choose_mirror() {
    // What is here isn't given up for one that can't go on with it, as long as there is another.
    for (const bool those_apart_too : {have_ == 0, true})
        for (std::size_t i = 0; i < mirrors_.size(); ++i) {
            if (!mirrors_[at_].out && (those_apart_too || !mirrors_[at_].apart)) return true;
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
    const auto length = headers.find("Content-Length");
    const auto total = length ? number(*length) : std::nullopt;
    if (is_to_go_on() && !goes_on_alone("doesn't go on with what is here")) return Body::refuse;
    lose_everything();
    record_ = {mirrors_[at_].url, validator_of(headers), total};
    answer_end_ = total;
    head_taken_ = true;
    return Body::start_over;
}

FetchPlan::Body FetchPlan::on_part(const net::Headers& headers) {
    const auto range = content_range(headers);
    const auto& url = mirrors_[at_].url;
    const auto validator = validator_of(headers);
    const bool other_length = range && range->total && record_.total && *range->total != *record_.total;
    const bool other_validator =
        url == record_.url && !validator.empty() && !record_.validator.empty() && validator != record_.validator;
    const bool other_file = other_length || other_validator;
    if (!range || range->first != have_ || other_file) {
        const auto* const fault = other_file ? "has another file" : "answered with another part than was asked for";
        if (is_to_go_on() && !goes_on_alone(fault)) return Body::refuse;
        lose_everything();
        failed(fault);
        return Body::refuse;
    }
    if (have_ == 0 || url != record_.url) record_ = {url, validator, record_.total};
    if (range->total) record_.total = range->total;
    answer_end_ = range->last + 1;
    several_answers_ = have_ > 0;
    head_taken_ = true;
    return Body::append;
}

// Of a mirror that was to go on with what another gave, and can't: what is here stays for those that can. True when
// nobody else is left.
bool FetchPlan::goes_on_alone(std::string fault) {
    auto& mirror = mirrors_[at_];
    mirror.apart = true;
    if (std::ranges::all_of(mirrors_, [](const Mirror& m) { return m.out || m.apart; })) return true;
    failed(std::move(fault));
    return false;
}

void FetchPlan::refused_status(unsigned status, const net::Headers& headers) {
    if (status == 416) {
        // It said that it is longer once, and now that all of it is here: the checksum tells.
        if (has_checksum_ && have_ > 0 && headers.find("Content-Range") == fmt::format("bytes */{}", have_)) {
            record_.total = have_;
            return;
        }
        if (is_to_go_on() && !goes_on_alone("416: it has fewer bytes than are here")) return;
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

bool FetchPlan::on_bytes(std::uint64_t count) {
    too_much_ = too_much_ || (answer_end_ && count > *answer_end_ - std::min(have_, *answer_end_));
    if (!too_much_) have_ += count;
    return !too_much_;
}

void FetchPlan::on_end() {
    if (!head_taken_) return;  // on_head has said all
    const bool all_of_the_answer = answer_end_ && have_ == *answer_end_;
    const bool more_to_ask_for = !record_.total || have_ < *record_.total;
    if (too_much_) {
        lose_everything();
        failed("sent more bytes than it announced");
    } else if (all_of_the_answer && more_to_ask_for) {
        went_further();
    } else if (more_to_ask_for && answer_end_) {
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
    fault_ = fmt::format("{}: {}", shown(mirrors_[at_].url), fault);
    mirrors_[at_].fault = {Errc::source_unavailable, std::move(fault)};
    went_further();
    at_ = (at_ + 1) % mirrors_.size();
    pause_first_ = true;
}

// Or not.
void FetchPlan::went_further() {
    if (have_ < best_ + worth_speaking_of) {
        ++fruitless_;
        return;
    }
    best_ = have_;
    fruitless_ = 0;
    backoff_.reset();
}

void FetchPlan::drop(base::Error fault) {
    mirrors_[at_].fault = std::move(fault);
    mirrors_[at_].out = true;
}

base::Error FetchPlan::all_failed() const {
    base::Error error{Errc::source_unavailable, {}};
    // What is worse than being away says more, when nobody is left to ask.
    const bool all_out = std::ranges::all_of(mirrors_, [](const Mirror& m) { return m.out && m.fault; });
    const auto told = std::ranges::find_if(
        mirrors_, [](const Mirror& m) { return m.fault && m.fault->code != Errc::source_unavailable; });
    if (all_out && told != mirrors_.end()) error = {told->fault->code, {}, {}, told->fault->facts};
    for (const auto& mirror : mirrors_) {
        if (!mirror.fault) continue;
        if (!error.detail.empty()) error.detail += "; ";
        error.detail += shown(mirror.url) + ": " + mirror.fault->detail;
    }
    return error;
}

}  // namespace ghost::storage
