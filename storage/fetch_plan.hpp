// What to do next to get one file over the web: which mirror to ask for which
// bytes, what an answer's head means for those that are here, when to wait and
// when to give up. No I/O and no clock: storage/fetcher does what it says.
#pragma once

#include "base/backoff.hpp"
#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/random.hpp"
#include "net/web.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace ghost::storage {

// Where the bytes that are on disk came from; kept beside them.
struct PartRecord {
    std::string url;                     // as it was asked, before redirects; empty: nothing is known
    std::string validator;               // strong ETag, or Last-Modified; empty: none was given
    std::optional<std::uint64_t> total;  // of the whole file, bytes

    friend bool operator==(const PartRecord&, const PartRecord&) = default;
};

struct FetchSource {
    std::vector<std::string> urls;  // the first, and mirrors of it
    // A checksum will judge the whole: what one mirror began, another may go on with.
    bool has_checksum = false;
};

class FetchPlan {
public:
    struct Ask {
        std::string url;
        std::uint64_t from = 0;  // the first byte wanted
        std::string if_range;    // validator; empty: none to send
    };
    struct Pause {
        base::Duration span;
        std::string why;  // of the last fault: at which URL, without its query, and what
    };
    struct Complete {};
    struct GiveUp {
        base::Error why;
    };
    using Next = std::variant<Ask, Pause, Complete, GiveUp>;

    // What the body of an answer is for.
    enum class Body : std::uint8_t {
        append,      // goes on where what is here ends
        start_over,  // the whole file: what is here is worth nothing
        refuse,      // not to be read
    };

    // `have`: bytes on disk, which `known` tells of.
    FetchPlan(FetchSource source, PartRecord known, std::uint64_t have);

    [[nodiscard]] Next next(base::Random& random);

    // Of the answer to the last Ask. After start_over, have() is 0 and what is on disk is to be cut to that; on refuse
    // too, unless have() says otherwise.
    [[nodiscard]] Body on_head(unsigned status, const net::Headers& headers);
    // False: those are more than it announced, and not to be kept; it is over.
    [[nodiscard]] bool on_bytes(std::uint64_t count);
    // The answer came to its end, was broken off, or there was none.
    void on_end();
    void on_end(const net::WebFailure& failure);
    // The whole was here, and the checksum is another's. What is on disk is worth nothing.
    void on_mismatch(base::Error why);

    [[nodiscard]] std::uint64_t have() const noexcept { return have_; }
    [[nodiscard]] const PartRecord& record() const noexcept { return record_; }

    static constexpr unsigned patience = 12;  // attempts in a row that get no further
    static constexpr std::uint64_t worth_speaking_of = 64ULL << 10;
    static constexpr unsigned most_attempts = 1000;

private:
    struct Mirror {
        std::string url;
        std::optional<base::Error> fault;  // of its last answer
        bool out = false;                  // not asked any more
        bool apart = false;                // doesn't go on with what is here: asked only when no other is left
    };

    void lose_everything();
    void drop(base::Error fault);
    void failed(std::string fault);
    void went_further();
    void refused_status(unsigned status, const net::Headers& headers);
    [[nodiscard]] bool goes_on_alone(std::string fault);
    [[nodiscard]] bool is_to_go_on() const noexcept { return have_ > 0 && mirrors_[at_].url != record_.url; }
    [[nodiscard]] Body on_part(const net::Headers& headers);
    [[nodiscard]] Body on_whole(const net::Headers& headers);
    [[nodiscard]] bool can_go_on_at(const Mirror& mirror) const;
    [[nodiscard]] bool choose_mirror();
    [[nodiscard]] base::Error all_failed() const;

    std::vector<Mirror> mirrors_;
    bool has_checksum_;
    PartRecord record_;
    std::uint64_t have_;
    std::size_t at_ = 0;            // the mirror asked last, or next
    std::uint64_t best_ = 0;        // the most that was ever here
    bool complete_ = false;         // an answer without a length came to its end
    bool several_answers_ = false;  // the bytes here came in more than one answer
    unsigned fruitless_ = 0;
    unsigned attempts_ = 0;
    bool head_taken_ = false;
    std::optional<std::uint64_t> answer_end_;  // where the answer's bytes end, in the file
    bool too_much_ = false;                    // it went on beyond
    bool pause_first_ = false;
    std::string fault_;               // the last
    base::Duration asked_to_wait_{};  // Retry-After
    base::Backoff backoff_;
};

}  // namespace ghost::storage
