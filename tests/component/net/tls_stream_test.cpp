#include "net/tls_stream.hpp"

#include "tests/component/net/server_fixture.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <catch2/catch.hpp>
#include <openssl/ssl.h>

#include <signal.h>
#include <sys/socket.h>

#include <array>
#include <exception>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace ghost;
using namespace ghost::test;
namespace asio = boost::asio;

namespace {

using Side = net::TlsStream::Side;

// The two ends of one connection, on one loop.
struct Ends {
    asio::io_context loop{1};
    net::StreamSocket client_socket{loop};
    net::StreamSocket server_socket{loop};
    net::TlsStream client{client_socket, certificates().client("alice")};
    net::TlsStream server{server_socket, certificates().server()};

    Ends() {
        std::array<int, 2> pair{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
        client_socket.assign({AF_UNIX, 0}, pair[0]);
        server_socket.assign({AF_UNIX, 0}, pair[1]);
        spawn(shake(client, Side::client));
        spawn(shake(server, Side::server));
        loop.run();
        REQUIRE(SSL_is_init_finished(client.native_handle()) == 1);
        REQUIRE(SSL_is_init_finished(server.native_handle()) == 1);
    }

    void spawn(asio::awaitable<void> work) {
        asio::co_spawn(loop, std::move(work), [](const std::exception_ptr& fault) {
            if (fault) std::rethrow_exception(fault);
        });
    }
    void run() {
        loop.restart();
        loop.run();
    }

private:
    static asio::awaitable<void> shake(net::TlsStream& stream, Side side) { CHECK(!co_await stream.handshake(side)); }
};

std::string bytes_of(std::size_t size, unsigned seed) {
    std::mt19937 random{seed};
    std::string bytes(size, '\0');
    for (auto& byte : bytes) byte = static_cast<char>(random());
    return bytes;
}

// Cut anywhere, into pieces of up to 40 000 bytes of which some are empty.
std::vector<asio::const_buffer> cut(const std::string& bytes, unsigned seed) {
    std::mt19937 random{seed};
    std::vector<asio::const_buffer> pieces;
    for (std::size_t at = 0; at < bytes.size();) {
        const std::array<std::size_t, 4> choices{0, random() % 50, random() % 5000, random() % 40000};
        const auto size = std::min(choices.at(random() % choices.size()), bytes.size() - at);
        pieces.emplace_back(bytes.data() + at, size);
        at += size;
    }
    return pieces;
}

asio::awaitable<void> write_all(net::TlsStream& stream, const std::string& bytes, unsigned seed, bool new_keys) {
    const auto pieces = cut(bytes, seed);
    int asked = 0;
    for (std::size_t at = 0; at < pieces.size();) {
        const auto count = std::min<std::size_t>(1 + at % 7, pieces.size() - at);
        std::size_t size = 0;
        for (std::size_t i = at; i < at + count; ++i) size += pieces[i].size();
        const auto io = co_await stream.write({pieces.data() + at, count});
        REQUIRE(!io.error);
        REQUIRE(io.bytes == size);
        at += count;
        // It is refused while the last wish hasn't gone out.
        if (new_keys && at % 3 == 0) asked += SSL_key_update(stream.native_handle(), SSL_KEY_UPDATE_REQUESTED);
    }
    CHECK((asked > 10) == new_keys);
}

asio::awaitable<void> read_all(net::TlsStream& stream, std::string& bytes, std::size_t size) {
    std::array<char, 3000> room;
    while (bytes.size() < size) {
        const auto io = co_await stream.read_some(asio::buffer(room));
        REQUIRE(!io.error);
        REQUIRE(io.bytes > 0);
        bytes.append(room.data(), io.bytes);
    }
}

asio::awaitable<void> read_one(net::TlsStream& stream, net::Io& io) {
    std::array<char, 100> room;
    io = co_await stream.read_some(asio::buffer(room));
}

asio::awaitable<void> say_goodbye(net::TlsStream& stream, boost::system::error_code& error) {
    error = co_await stream.shutdown();
}

}  // namespace

TEST_CASE("TLS carries both directions at once, however the pieces are cut, and with new keys in between") {
    const bool new_keys = GENERATE(false, true);
    const auto up = bytes_of(3'000'000, 1);
    const auto down = bytes_of(2'000'000, 2);
    std::string got_up;
    std::string got_down;
    Ends ends;
    // So that each direction is held up again and again.
    const int small = 4096;
    for (auto* const socket : {&ends.client_socket, &ends.server_socket})
        REQUIRE(::setsockopt(socket->native_handle(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    ends.spawn(write_all(ends.client, up, 3, new_keys));
    ends.spawn(write_all(ends.server, down, 4, new_keys));
    ends.spawn(read_all(ends.client, got_down, down.size()));
    ends.spawn(read_all(ends.server, got_up, up.size()));
    ends.run();
    CHECK(got_up == up);
    CHECK(got_down == down);
}

TEST_CASE("a read of TLS that is cancelled has lost nothing") {
    Ends ends;
    net::Io io;
    ends.spawn(read_one(ends.server, io));
    asio::post(ends.loop, [&] { ends.server_socket.cancel(); });
    ends.run();
    CHECK(io.error == asio::error::operation_aborted);
    std::string got;
    const auto bytes = bytes_of(20'000, 5);
    ends.spawn(write_all(ends.client, bytes, 6, false));
    ends.spawn(read_all(ends.server, got, bytes.size()));
    ends.run();
    CHECK(got == bytes);
    CHECK(ends.server.read_ready(asio::buffer(got)).error == asio::error::would_block);
}

TEST_CASE("TLS tells a goodbye from a connection that was cut") {
    Ends ends;
    net::Io io;
    SECTION("a goodbye") {
        boost::system::error_code ours;
        boost::system::error_code theirs;
        const auto hear_and_say = [&]() -> asio::awaitable<void> {
            co_await read_one(ends.server, io);
            co_await say_goodbye(ends.server, theirs);
        };
        ends.spawn(hear_and_say());
        ends.spawn(say_goodbye(ends.client, ours));
        ends.run();
        CHECK(io.error == asio::error::eof);
        CHECK(!ours);
        CHECK(!theirs);
    }
    SECTION("cut") {
        ends.client_socket.close();
        ends.spawn(read_one(ends.server, io));
        ends.run();
        CHECK(io.error == asio::ssl::error::stream_truncated);
    }
    SECTION("closed by this side while it waits") {
        ends.spawn(read_one(ends.server, io));
        asio::post(ends.loop, [&] { ends.server_socket.close(); });
        ends.run();
        CHECK(io.error == asio::error::operation_aborted);
        ends.spawn(read_one(ends.server, io));
        ends.run();
        CHECK(io.error);
    }
    CHECK(io.bytes == 0);
}

TEST_CASE("what a peer said before it went is read beside a write that it didn't take") {
    Ends ends;
    net::Io read;
    net::Io written;
    const auto bytes = bytes_of(2'000'000, 9);
    const auto write = [&]() -> asio::awaitable<void> {
        const asio::const_buffer piece = asio::buffer(bytes);
        written = co_await ends.server.write({&piece, 1});
    };
    const auto answer_and_go = [&]() -> asio::awaitable<void> {
        for (int i = 0; i < 100; ++i) co_await asio::post(ends.loop, asio::use_awaitable);
        const asio::const_buffer piece{"enough", 6};
        CHECK(!(co_await ends.client.write({&piece, 1})).error);
        ends.client_socket.close();
    };
    ends.spawn(write());
    ends.spawn(read_one(ends.server, read));
    ends.spawn(answer_and_go());
    ends.run();
    CHECK(written.error);
    CHECK(!read.error);
    CHECK(read.bytes == 6);
}

TEST_CASE("a peer that says much and sends nothing leaves the loop to others") {
    Ends ends;
    for (int i = 0; i < 200; ++i) {
        REQUIRE(SSL_key_update(ends.client.native_handle(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
        REQUIRE(SSL_do_handshake(ends.client.native_handle()) == 1);
    }
    net::Io io;
    int turns_of_others = 0;
    const auto others = [&]() -> asio::awaitable<void> {
        for (; io.bytes == 0 && turns_of_others < 1000; ++turns_of_others)
            co_await asio::post(ends.loop, asio::use_awaitable);
    };
    const auto bytes = bytes_of(10, 10);
    ends.spawn(write_all(ends.client, bytes, 11, false));
    ends.spawn(read_one(ends.server, io));
    ends.spawn(others());
    ends.run();
    CHECK(io.bytes == 10);
    CHECK(turns_of_others >= 4);
}

TEST_CASE("writing TLS to a peer that is gone is an error and no signal") {
    Ends ends;
    ends.client_socket.close();
    const auto before = ::signal(SIGPIPE, SIG_DFL);
    net::Io io;
    const std::string bytes(1000, 'x');
    const auto write = [&]() -> asio::awaitable<void> {
        const asio::const_buffer piece = asio::buffer(bytes);
        io = co_await ends.server.write({&piece, 1});
    };
    ends.spawn(write());
    ends.run();
    ::signal(SIGPIPE, before);
    CHECK(io.error == asio::error::broken_pipe);
    CHECK(io.bytes == 0);
}

TEST_CASE("a peer that always has more leaves the loop to others") {
    Ends ends;
    const auto bytes = bytes_of(150'000, 7);
    ends.spawn(write_all(ends.client, bytes, 8, false));
    ends.run();
    std::size_t read = 0;
    std::size_t turns_of_others = 0;
    const auto read_slowly = [&]() -> asio::awaitable<void> {
        std::array<char, 100> room;
        while (read < bytes.size()) {
            const auto io = co_await ends.server.read_some(asio::buffer(room));
            REQUIRE(!io.error);
            read += io.bytes;
        }
    };
    const auto others = [&]() -> asio::awaitable<void> {
        for (; read < bytes.size(); ++turns_of_others) co_await asio::post(ends.loop, asio::use_awaitable);
    };
    ends.spawn(read_slowly());
    ends.spawn(others());
    ends.run();
    CHECK(read == bytes.size());
    CHECK(turns_of_others > 20);
}
