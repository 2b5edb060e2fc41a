#include "net/request_parser.hpp"

#include "net/text.hpp"

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace ghost::net {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t least_buffer = 16 * 1024;

std::string_view view(boost::beast::string_view text) noexcept { return {text.data(), text.size()}; }

// A body as it comes, with no more room than that takes.
struct Bytes {
    using value_type = std::string;
    class reader {
    public:
        template <class Head>
        reader(Head&, value_type& body) : body_(body) {}
        void init(const boost::optional<std::uint64_t>&, error_code&) {}
        std::size_t put(boost::asio::const_buffer bytes, error_code&) {
            body_.append(static_cast<const char*>(bytes.data()), bytes.size());
            return bytes.size();
        }
        void finish(error_code&) {}

    private:
        value_type& body_;
    };
};

}  // namespace

HeadScan scan_head(std::string_view bytes, std::size_t seen) noexcept {
    constexpr HeadScan malformed{HeadScan::Kind::malformed, 0};
    if (!bytes.empty() && !is_token(bytes.substr(0, 1))) return malformed;
    for (std::size_t i = seen - std::min<std::size_t>(seen, 3); i < bytes.size(); ++i) {
        const char c = bytes[i];
        if (c == '\0') return malformed;
        if (c == '\n' && (i == 0 || bytes[i - 1] != '\r')) return malformed;
        if (c != '\r') continue;
        if (i + 1 == bytes.size()) break;
        if (bytes[i + 1] != '\n') return malformed;
        if (i + 2 == bytes.size()) break;
        if (bytes[i + 2] == ' ' || bytes[i + 2] == '\t') return malformed;
        if (bytes.substr(i + 2, 2) == "\r\n") return {HeadScan::Kind::complete, i + 4};
    }
    return {};
}

struct RequestParser::Beast {
    http::request_parser<Bytes> parser;
};

RequestParser::RequestParser(std::size_t header_limit, std::size_t body_limit, StreamsBody streams)
    : header_limit_(header_limit),
      body_limit_(body_limit),
      which_stream_(std::move(streams)),
      buffer_(std::max(header_limit + 4, least_buffer), '\0') {
    next();
}

RequestParser::~RequestParser() = default;

bool RequestParser::started() const noexcept { return phase_ != Phase::head || end_ > begin_; }

bool RequestParser::expects_continue() const noexcept { return expects_ && begin_ == end_; }

std::span<char> RequestParser::prepare() noexcept {
    if (begin_ > 0) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    return {buffer_.data() + end_, buffer_.size() - end_};
}

void RequestParser::commit(std::size_t count) noexcept {
    assert(count <= buffer_.size() - end_);
    end_ += count;
}

void RequestParser::consume(std::size_t count) noexcept {
    assert(count <= end_ - begin_);
    begin_ += count;
}

void RequestParser::release() noexcept {
    phase_ = Phase::refused;
    beast_.reset();
    begin_ = end_ = 0;
    std::string{}.swap(buffer_);
}

void RequestParser::next() {
    beast_ = std::make_unique<Beast>();
    beast_->parser.header_limit(static_cast<std::uint32_t>(buffer_.size()));
    beast_->parser.body_limit(boost::none);  // until the head tells which it is
    request_ = {};
    refusal_ = {};
    phase_ = Phase::head;
    seen_ = 0;
    keep_alive_ = http_1_0_ = expects_ = streams_ = false;
}

RequestParser::Step RequestParser::advance() {
    switch (phase_) {
        case Phase::head: return read_head();
        case Phase::body: return read_body();
        case Phase::done: return Step::done;
        case Phase::refused: return Step::refused;
    }
    return Step::refused;
}

RequestParser::Step RequestParser::refuse(unsigned status, std::string_view code, std::string_view title,
                                          std::string detail) {
    phase_ = Phase::refused;
    keep_alive_ = false;
    refusal_ = {status, code, title, std::move(detail)};
    return Step::refused;
}

RequestParser::Step RequestParser::refuse_body() {
    return refuse(413, "body_too_large", "Body too large",
                  "a body may have at most " + std::to_string(body_limit_) + " bytes");
}

std::string RequestParser::take_body() {
    return beast_ && streams_ ? std::exchange(beast_->parser.get().body(), {}) : std::string{};
}

std::optional<std::uint64_t> RequestParser::body_size() const {
    const auto& parser = beast_->parser;
    if (parser.chunked()) return std::nullopt;
    return parser.content_length().value_or(0);
}

void RequestParser::time_out() {
    static_cast<void>(refuse(408, "request_timeout", "Request timeout", "the request took too long to arrive"));
}

RequestParser::Step RequestParser::read_head() {
    // RFC 9112 2.2: empty lines before a request line are skipped (some clients end a body with one too many).
    while (end_ - begin_ >= 2 && buffer_[begin_] == '\r' && buffer_[begin_ + 1] == '\n') consume(2);
    if (begin_ == end_ || (end_ - begin_ == 1 && buffer_[begin_] == '\r')) return Step::need_more;

    const std::string_view input{buffer_.data() + begin_, end_ - begin_};
    const auto scan = scan_head(input, std::exchange(seen_, input.size()));
    if (scan.kind == HeadScan::Kind::malformed)
        return refuse(400, "bad_request", "Bad request", "this is no well-formed HTTP/1.1 request");
    if (scan.length > header_limit_ || (scan.kind == HeadScan::Kind::need_more && input.size() > header_limit_))
        return refuse(431, "headers_too_large", "Request headers too large",
                      "the request line and headers are larger than " + std::to_string(header_limit_) + " bytes");
    if (scan.kind == HeadScan::Kind::need_more) return Step::need_more;

    auto& parser = beast_->parser;
    error_code error;
    const auto used = parser.put(boost::asio::buffer(input.data(), scan.length), error);
    for (const auto& field : parser.get()) request_.headers.add(view(field.name_string()), std::string{field.value()});
    request_.method = method_from_name(view(parser.get().method_string()));
    if (error == http::error::bad_version)
        return refuse(505, "http_version_not_supported", "HTTP version not supported", "HTTP/1.1 and 1.0 are spoken");
    if (error) return refuse(400, "bad_request", "Bad request", "malformed request: " + error.message());
    assert(used == scan.length && parser.is_header_done());
    consume(used);
    return check_head();
}

RequestParser::Step RequestParser::check_head() {
    const auto& parser = beast_->parser;
    const auto bad = [this](std::string detail) {
        return refuse(400, "bad_request", "Bad request", std::move(detail));
    };
    http_1_0_ = parser.get().version() == 10;  // else 11: Beast knows no other

    const auto count = [&](http::field name) { return parser.get().count(name); };
    if (count(http::field::host) > 1 || (!http_1_0_ && count(http::field::host) == 0))
        return bad("a request has exactly one Host header");
    const auto length = view(parser.get()[http::field::content_length]);
    if (count(http::field::content_length) > 1 || length.find_first_not_of("0123456789") != std::string_view::npos)
        return bad("Content-Length is one number");  // Beast lets "1, 1" pass
    if (count(http::field::transfer_encoding) > 0) {
        if (count(http::field::content_length) > 0) return bad("both Content-Length and Transfer-Encoding");
        if (http_1_0_) return bad("Transfer-Encoding in HTTP/1.0");
        const auto coding = view(parser.get()[http::field::transfer_encoding]);
        if (count(http::field::transfer_encoding) > 1 || !same_token(coding, "chunked"))
            return bad("the only Transfer-Encoding is chunked");
    }
    auto target = parse_target(view(parser.get().target()));
    if (!target) return bad("the request target is malformed");
    request_.path = std::move(target->path);
    request_.query = std::move(target->query);

    streams_ = which_stream_ && which_stream_(request_.method, request_.path);
    if (!streams_ && body_size().value_or(0) > body_limit_) return refuse_body();
    if (!streams_) beast_->parser.body_limit(body_limit_);
    keep_alive_ = parser.get().keep_alive();
    if (parser.is_done()) {
        phase_ = Phase::done;
        return Step::done;
    }
    if (const auto expect = request_.headers.find("Expect"); expect && !http_1_0_) {
        if (!same_token(*expect, "100-continue"))
            return refuse(417, "expectation_failed", "Expectation failed", "the only Expect is 100-continue");
        expects_ = true;
    }
    beast_->parser.eager(true);
    phase_ = Phase::body;
    return Step::head;
}

RequestParser::Step RequestParser::read_body() {
    auto& parser = beast_->parser;
    if (begin_ == end_) return Step::need_more;
    expects_ = false;
    // Beast asserts that it isn't shown a last chunk ("0\r\n\r\n") again before all of it is there.
    constexpr std::size_t least_last_chunk = 5;
    if (parser.chunked() && end_ - begin_ < least_last_chunk && buffer_[begin_] == '0') return Step::need_more;
    error_code error;
    const auto used = parser.put(boost::asio::buffer(buffer_.data() + begin_, end_ - begin_), error);
    consume(used);
    if (error == http::error::body_limit) return refuse_body();
    if (error && error != http::error::need_more)
        return refuse(400, "bad_request", "Bad request", "malformed body: " + error.message());
    if (parser.is_done()) {
        if (!streams_) request_.body = std::move(parser.get().body());
        phase_ = Phase::done;
        return Step::done;
    }
    // A chunk's extensions or the trailer, longer than any buffer of ours.
    if (begin_ == 0 && end_ == buffer_.size())
        return refuse(431, "headers_too_large", "Request headers too large",
                      "a chunk's head or the trailer is too long");
    return Step::need_more;
}

}  // namespace ghost::net
