// A streamed body whose pieces a test hands out.
#pragma once

#include "net/http.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <cstddef>
#include <list>
#include <vector>

namespace ghost::test {

// Every reader is given all that was ever pushed. On the loop, but for the counts. Outlives the readers.
class Feed {
public:
    enum class WhenCancelled : std::uint8_t { return_null, throw_it };
    explicit Feed(WhenCancelled how = WhenCancelled::return_null) : how_(how) {}

    [[nodiscard]] net::BodySource source();
    void push(net::Chunk piece);
    void end();  // for all readers, once they have all of it
    void fail();

    std::atomic<int> given{0};      // pieces
    std::atomic<int> waiting{0};    // readers that have all there is
    std::atomic<int> cancelled{0};  // readers
    std::atomic<int> alive{0};      // sources not yet destroyed

private:
    [[nodiscard]] boost::asio::awaitable<net::Chunk> piece(std::size_t index);
    void wake();

    WhenCancelled how_;
    std::vector<net::Chunk> pieces_;
    std::list<boost::asio::steady_timer*> sleepers_;
    bool ended_ = false;
    bool failed_ = false;
};

[[nodiscard]] net::Chunk chunk_of(std::string text);

}  // namespace ghost::test
