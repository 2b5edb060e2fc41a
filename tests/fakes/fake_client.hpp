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
    // Answers one request; it may itself wait.
    using Script = std::function<boost::asio::awaitable<base::Result<net::ClientResponse>>(net::ClientRequest)>;
    // The same for answers that are there at once.
    using Table = std::function<base::Result<net::ClientResponse>(const net::ClientRequest&)>;

    explicit FakeClient(Script script) : script_(std::move(script)) {}
    explicit FakeClient(Table table)
        : script_([table = std::move(table)](net::ClientRequest request)
                      -> boost::asio::awaitable<base::Result<net::ClientResponse>> { co_return table(request); }) {}

    [[nodiscard]] boost::asio::awaitable<base::Result<net::ClientResponse>> send(net::ClientRequest request) override {
        requests.push_back(request);
        auto answer = co_await script_(std::move(request));
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

}  // namespace ghost::fakes
