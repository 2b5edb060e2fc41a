// Names to addresses by libc, which knows the hosts file, nsswitch and DNS, and blocks for as long as a name server
// stays silent: on threads of its own. Who asked needn't wait for it any longer than he wants, a newer question not for
// an older one that hangs (after a wake or on another network it is answered), and a process that ends for none.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ghost::net {

using Endpoints = std::vector<boost::asio::ip::tcp::endpoint>;

class Lookup {
public:
    static constexpr std::size_t max_threads = 4;  // made when they are needed; then they stay
    static constexpr std::size_t max_queued = 64;

    // Blocks. On any thread.
    using Resolve = std::function<base::Result<Endpoints>(const std::string& host, const std::string& port)>;
    explicit Lookup(Resolve resolve = by_libc);
    // What is still being looked up is left to end by itself, and nobody is told. After the coroutines that wait here.
    ~Lookup();
    Lookup(const Lookup&) = delete;
    Lookup& operator=(const Lookup&) = delete;

    // The addresses of `host`, of which there may be none. Loop thread. Errors: source_unavailable when there is no
    // such name, or nobody who could tell; overloaded; deadline_exceeded; cancelled.
    [[nodiscard]] boost::asio::awaitable<base::Result<Endpoints>> find(std::string host, std::string port,
                                                                       base::Instant deadline);

private:
    struct Question;
    struct State;

    static base::Result<Endpoints> by_libc(const std::string& host, const std::string& port);
    static void answer_all(const std::shared_ptr<State>& state);
    // False: there is neither room in the queue nor a thread.
    [[nodiscard]] bool ask(const std::shared_ptr<Question>& question);

    std::shared_ptr<State> state_;
};

// That of the loop which the executor belongs to.
[[nodiscard]] Lookup& lookup_of(const boost::asio::any_io_executor& executor);

}  // namespace ghost::net
