// Words that open one stream once: for clients that can't show a certificate,
// such as a browser's page.
#pragma once

#include "base/clock.hpp"
#include "base/context.hpp"
#include "base/error.hpp"
#include "base/random.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace ghost::agent {

enum class StreamKind : std::uint8_t { console, vnc, forward };
[[nodiscard]] std::string_view name_of(StreamKind kind) noexcept;

// What a ticket opens, and nothing else.
struct StreamUse {
    std::string vm;  // id
    StreamKind kind = StreamKind::console;
    std::uint16_t port = 0;  // of a forward

    [[nodiscard]] bool operator==(const StreamUse&) const = default;
};

// Decides alone. What was issued is kept as its digest, so that nothing that reads this memory can use it.
class Tickets {
public:
    static constexpr std::chrono::seconds lifetime{30};
    static constexpr std::size_t most = 256;  // that wait for their use
    static constexpr std::size_t most_of_one = 32;

    Tickets(const base::Clock& clock, base::Random& random) : clock_(clock), random_(random) {}

    struct Issued {
        std::string text;  // 43 characters of base64url
        base::Wall expires_at;
    };
    // To `who`, in whose name it opens the stream. Errors: overloaded.
    [[nodiscard]] base::Result<Issued> issue(const base::Principal& who, StreamUse use);
    // Who it was issued to. Whatever becomes of it, it is used now. unauthenticated: it isn't known, was used, is too
    // old or for something else; which of these isn't told.
    [[nodiscard]] base::Result<base::Principal> redeem(std::string_view text, const StreamUse& use);
    [[nodiscard]] std::size_t waiting();

private:
    struct Ticket {
        base::Principal who;
        StreamUse use;
        base::Instant expires;  // by now()
    };
    [[nodiscard]] base::Instant now() const { return clock_.now() + clock_.asleep(); }
    void forget_expired();

    const base::Clock& clock_;
    base::Random& random_;
    std::map<std::string, Ticket, std::less<>> tickets_;  // by the digest of the text
};

}  // namespace ghost::agent
