#include "agent/access/tickets.hpp"

#include "base/base64.hpp"
#include "net/digest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

namespace ghost::agent {
namespace {

constexpr std::size_t secret_bytes = 32;

}  // namespace

std::string_view name_of(StreamKind kind) noexcept {
    switch (kind) {
        case StreamKind::console: return "console";
        case StreamKind::vnc: return "vnc";
        case StreamKind::forward: return "forward";
    }
    return "unknown";
}

void Tickets::forget_expired() {
    std::erase_if(tickets_, [at = now()](const auto& entry) { return entry.second.expires <= at; });
}

base::Result<Tickets::Issued> Tickets::issue(const base::Principal& who, StreamUse use) {
    forget_expired();
    if (tickets_.size() >= most)
        return base::fail(base::Errc::overloaded,
                          fmt::format("{} tickets wait for their use; each is good for {} s", most, lifetime.count()));
    const auto name = who.text();
    const auto own =
        std::ranges::count_if(tickets_, [&](const auto& entry) { return entry.second.who.text() == name; });
    if (static_cast<std::size_t>(own) >= most_of_one)
        return base::fail(base::Errc::overloaded,
                          fmt::format("{} tickets of {} wait for their use; each is good for {} s", most_of_one, name,
                                      lifetime.count()));
    std::string secret(secret_bytes, '\0');
    random_.fill(std::as_writable_bytes(std::span{secret}));
    Issued issued{base::to_base64url(secret), clock_.wall() + lifetime};
    tickets_.insert_or_assign(net::sha256_hex(issued.text), Ticket{who, std::move(use), now() + lifetime});
    return issued;
}

base::Result<base::Principal> Tickets::redeem(std::string_view text, const StreamUse& use) {
    forget_expired();
    const auto node = tickets_.extract(net::sha256_hex(text));
    if (node.empty() || node.mapped().use != use)
        return base::fail(base::Errc::unauthenticated,
                          "the ticket isn't good for this: it is unknown, was used before, is too old or for another "
                          "stream");
    return std::move(node.mapped().who);
}

std::size_t Tickets::waiting() {
    forget_expired();
    return tickets_.size();
}

}  // namespace ghost::agent
