// Ghost Core over HTTPS and JSON, as core-api.yaml has it.
#pragma once

#include "heartbeat/core_link.hpp"
#include "net/client.hpp"

#include <memory>
#include <string>

namespace ghost::heartbeat {

class HttpsCore final : public CoreLink {
public:
    [[nodiscard]] boost::asio::awaitable<base::Result<CoreAnswer>> send(CoreCall call) override;
    void drop() override { client_.reset(); }
    [[nodiscard]] base::Result<void> use(Credentials credentials, std::optional<std::string> root) override;

    static constexpr std::chrono::seconds connect_limit{5};
    static constexpr std::size_t max_answer = 4 * 1024 * 1024;

private:
    std::string root_;
    net::TlsContext tls_;
    std::string origin_;                   // that client_ leads to
    std::shared_ptr<net::Client> client_;  // shared: a call under way outlives a drop
};

// "PUT /v1/agents/<id>/session", ... under the path of Core's URL.
[[nodiscard]] net::ClientRequest request_of(const CoreCall& call, const std::string& base_path);
// Seconds, or nullopt for what is none (a date is not read).
[[nodiscard]] std::optional<std::chrono::seconds> retry_after_in(const net::Headers& headers);

}  // namespace ghost::heartbeat
