// Bytes in, requests out: the server's half of HTTP/1.1, without I/O.
#pragma once

#include "net/http.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace ghost::net {

// Where the head of a message ends.
struct HeadScan {
    enum class Kind : std::uint8_t { need_more, complete, malformed };
    Kind kind = Kind::need_more;
    std::size_t length = 0;  // complete: with the empty line that ends it
};
// Strict about what other HTTP parsers read differently, which is how requests are smuggled: every line ends in CRLF,
// no line is folded, no NUL, and the first byte starts a token. `bytes` starts at the request's first byte; the first
// `seen` of them were scanned before and found wanting more.
[[nodiscard]] HeadScan scan_head(std::string_view bytes, std::size_t seen = 0) noexcept;

// Why a request ends here, before any handler sees it. The connection closes after the answer.
struct Refusal {
    unsigned status = 400;
    std::string_view code;
    std::string_view title;
    std::string detail;
};

// One connection's requests, one after the other. Call advance() until it says need_more, then put bytes into
// prepare()'s room and commit() them. Input is held in one buffer of fixed size.
class RequestParser {
public:
    // Which requests' bodies are taken in pieces, however large they are.
    using StreamsBody = std::function<bool(Method method, std::string_view path)>;
    RequestParser(std::size_t header_limit, std::size_t body_limit, StreamsBody streams = {});
    ~RequestParser();
    RequestParser(const RequestParser&) = delete;
    RequestParser& operator=(const RequestParser&) = delete;

    enum class Step : std::uint8_t {
        need_more,
        head,     // the head is known, a body follows: said once per request
        done,     // request() may be taken, then next() called
        refused,  // see refusal(); the input can't be followed any further
    };
    [[nodiscard]] Step advance();

    [[nodiscard]] std::span<char> prepare() noexcept;  // never empty after need_more
    void commit(std::size_t count) noexcept;

    // The rest of the request takes too long: it is refused with 408.
    void time_out();

    // A byte of the current request is here.
    [[nodiscard]] bool started() const noexcept;
    // Known from `head` on, and in part after a refusal, so that its answer can name the request.
    // `context` is left to the caller.
    [[nodiscard]] Request& request() noexcept { return request_; }
    [[nodiscard]] const Refusal& refusal() const noexcept { return refusal_; }
    [[nodiscard]] bool keep_alive() const noexcept { return keep_alive_; }
    [[nodiscard]] bool http_1_0() const noexcept { return http_1_0_; }
    // The client waits for "100 Continue" and has sent nothing of the body yet.
    [[nodiscard]] bool expects_continue() const noexcept;
    // Its body is not in request(): what has come of it is taken after each advance().
    [[nodiscard]] bool streams_body() const noexcept { return streams_; }
    [[nodiscard]] std::string take_body();
    // What the whole of it is, if the client told.
    [[nodiscard]] std::optional<std::uint64_t> body_size() const;
    // Bytes beyond the request that is done are here.
    [[nodiscard]] bool has_more() const noexcept { return end_ > begin_; }
    // Nothing more will be parsed: gives the input's memory back.
    void release() noexcept;
    // Forgets the request that is done; bytes beyond it are the next one's.
    void next();

private:
    struct Beast;
    [[nodiscard]] Step read_head();
    [[nodiscard]] Step read_body();
    [[nodiscard]] Step check_head();
    [[nodiscard]] Step refuse(unsigned status, std::string_view code, std::string_view title, std::string detail);
    [[nodiscard]] Step refuse_body();
    void consume(std::size_t count) noexcept;

    std::size_t header_limit_;
    std::size_t body_limit_;
    StreamsBody which_stream_;
    std::string buffer_;     // fixed size
    std::size_t begin_ = 0;  // [begin_, end_) is input not yet used
    std::size_t end_ = 0;
    std::size_t seen_ = 0;  // of the head, by scan_head
    std::unique_ptr<Beast> beast_;
    Request request_;
    Refusal refusal_;
    enum class Phase : std::uint8_t { head, body, done, refused } phase_ = Phase::head;
    bool keep_alive_ = false;
    bool http_1_0_ = false;
    bool expects_ = false;
    bool streams_ = false;
};

}  // namespace ghost::net
