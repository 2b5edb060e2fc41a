// net::Web in memory: sites by URL, with faults for their next answers. The body comes in pieces, as the real one's.
#pragma once

#include "net/web.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::fakes {

class FakeWeb final : public net::Web {
public:
    struct Fault {
        unsigned status = 0;                          // answers with that and nothing else
        std::optional<std::uint64_t> cut_after = {};  // bytes of this answer's body; the connection breaks then
        std::uint64_t extra = 0;                      // bytes that follow what it announces
        std::optional<net::WebFailure> failure = {};  // no answer at all
        net::Headers headers = {};                    // added to the answer's
    };
    struct Site {
        std::string bytes = {};
        std::string etag = "\"1\"";  // empty: none
        bool ranges = true;          // honours Range and If-Range
        bool length = true;          // says how long its body is
        std::deque<Fault> faults = {};
    };
    struct Asked {
        std::string url;
        std::uint64_t from = 0;
        std::string if_range;
    };

    std::map<std::string, Site> sites;  // one that isn't here answers 404
    std::vector<Asked> asked;
    // Asked before each piece is handed out; empty: there is no waiting.
    std::function<boost::asio::awaitable<void>(std::string_view url, std::uint64_t at)> before_piece;

    [[nodiscard]] std::size_t asked_for(std::string_view url) const;
    [[nodiscard]] std::size_t under_way() const noexcept { return under_way_; }

    boost::asio::awaitable<Answer> get(net::WebRequest request) override;

    static constexpr std::size_t piece = 16 * 1024;

private:
    boost::asio::awaitable<Answer> answer(const net::WebRequest& request);
    boost::asio::awaitable<Answer> send(const net::WebRequest& request, net::WebResponse head, std::string body,
                                        std::optional<std::uint64_t> cut_after);

    std::size_t under_way_ = 0;
};

}  // namespace ghost::fakes
