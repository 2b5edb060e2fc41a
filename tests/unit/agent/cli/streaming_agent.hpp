// An agent whose streams of events a test writes; when it has no more, a person presses Ctrl-C.
#pragma once

#include "fakes/fake_client.hpp"
#include "tests/unit/agent/cli/bench.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include <deque>
#include <string>
#include <vector>

namespace ghost::cli {

[[nodiscard]] inline std::string sse(unsigned id, std::string_view type, std::string_view data) {
    return fmt::format(
        "id: {}\nevent: {}\ndata: "
        "{{\"id\":{},\"type\":\"{}\",\"time\":\"2026-01-02T03:04:05Z\",\"subject\":\"/v1/vms/u\","
        "\"data\":{}}}\n\n",
        id, type, id, type, data);
}

class StreamingAgent {
public:
    using Answer = base::Result<net::ClientResponse>;
    using Pieces = std::vector<std::string>;
    // Brings some pieces and breaks, unless it ends in another way.
    struct Stream {
        Pieces pieces = {};
        Answer end = base::fail(base::Errc::source_unavailable, "the connection was closed");
    };

    explicit StreamingAgent(Bench& bench) : bench_(bench) {}

    static Stream refused() { return {{}, base::fail(base::Errc::source_unavailable, "Connection refused")}; }
    static Stream expired() {
        return {{}, fakes::json_answer(410, R"({"code":"events_expired","detail":"?","oldest":30,"newest":40})")};
    }

    std::deque<Stream> streams;
    std::deque<std::string> lists;    // bodies of /v1/vms, the last one for ever
    std::vector<std::string> places;  // that streams were asked for
    std::vector<std::string> listed;  // targets
    fakes::FakeClient client{fakes::FakeClient::Script{[this](net::ClientRequest r) { return answer(std::move(r)); }}};

private:
    boost::asio::awaitable<Answer> answer(net::ClientRequest request) {
        if (request.method == net::Method::head) co_return at_event(200, "", "7");
        if (request.target.starts_with("/v1/vms")) {
            listed.push_back(request.target);
            auto body = lists.front();
            if (lists.size() > 1) lists.pop_front();
            co_return at_event(200, std::move(body), "20");
        }
        places.emplace_back(request.headers.find("Last-Event-ID").value_or("none"));
        if (streams.empty()) co_return co_await interrupted();
        const auto stream = std::move(streams.front());
        streams.pop_front();
        (void)fakes::event_stream(request, stream.pieces);
        co_return stream.end;
    }

    boost::asio::awaitable<Answer> interrupted() {
        boost::asio::steady_timer never{bench_.loop, boost::asio::steady_timer::time_point::max()};
        boost::asio::post(bench_.loop, [this] { bench_.ctrl_c.emit(boost::asio::cancellation_type::terminal); });
        boost::system::error_code ended;
        co_await never.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ended));
        co_return base::fail(base::Errc::cancelled);
    }

    static Answer at_event(unsigned status, std::string body, std::string id) {
        auto answer = fakes::json_answer(status, std::move(body));
        answer.headers.set("Ghost-Event-Id", std::move(id));
        return answer;
    }

    Bench& bench_;
};

}  // namespace ghost::cli
