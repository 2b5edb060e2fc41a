// An HTTP client whose answers a test writes.
#pragma once

#include "net/client.hpp"

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace ghost::fakes {

class FakeClient final : public net::Client {
public:
    // Answers one request; it may itself wait, and hand pieces of a body to the request's on_body.
    using Script = std::function<boost::asio::awaitable<base::Result<net::ClientResponse>>(net::ClientRequest)>;
    // The same for answers that are there at once.
    using Table = std::function<base::Result<net::ClientResponse>(const net::ClientRequest&)>;

    explicit FakeClient(Script script) : script_(std::move(script)) {}
    explicit FakeClient(Table table)
        : script_([table = std::move(table)](net::ClientRequest request)
                      -> boost::asio::awaitable<base::Result<net::ClientResponse>> { co_return table(request); }) {}

    [[nodiscard]] boost::asio::awaitable<base::Result<net::ClientResponse>> send(net::ClientRequest request) override {
        requests.push_back(request);
        const auto on_body = request.on_body;
        auto answer = co_await script_(std::move(request));
        // As the real one does: whoever wants a body as it comes finds none in the answer.
        if (on_body && answer && answer->status / 100 == 2 && !answer->body.empty())
            (void)on_body(std::exchange(answer->body, {}));
        co_return answer;
    }

    std::vector<net::ClientRequest> requests;  // all that were sent, in order

private:
    Script script_;
};

[[nodiscard]] inline net::ClientResponse json_answer(unsigned status, std::string body) {
    net::ClientResponse response;
    response.status = status;
    response.headers.set("Content-Type", status >= 400 ? "application/problem+json" : "application/json");
    response.body = std::move(body);
    return response;
}

// A stream of events that brings `pieces`, until no more is wanted, and ends.
[[nodiscard]] inline net::ClientResponse event_stream(const net::ClientRequest& request,
                                                      const std::vector<std::string>& pieces) {
    net::ClientResponse response;
    response.status = 200;
    response.headers.set("Content-Type", "text/event-stream");
    for (const auto& piece : pieces)
        if (!request.on_body(piece)) break;
    return response;
}

}  // namespace ghost::fakes
