#include "agent/core/enroller.hpp"

#include "heartbeat/enrolment.hpp"
#include "net/x509.hpp"

#include <chrono>
#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;
namespace {

using base::Errc;
using base::Result;

net::ClientRequest post(std::string target, std::string body) {
    using namespace std::chrono_literals;
    return {.method = net::Method::post,
            .target = std::move(target),
            .headers = {},
            .body = std::move(body),
            .timeout = 10s,
            .connect_timeout = 5s,
            .max_body = 4UL << 20};
}

// The body of an answer with `status`.
asio::awaitable<Result<std::string>> ask(net::Client& core, net::ClientRequest request, unsigned status) {
    auto answer = co_await core.send(std::move(request));
    if (!answer) co_return base::fail(std::move(answer.error()));
    if (answer->status != status) co_return base::fail(heartbeat::refusal(answer->status, answer->body));
    co_return std::move(answer->body);
}

asio::awaitable<Result<std::string>> own_key(CredentialFiles& files) {
    auto there = co_await files.load();
    if (!there) co_return base::fail(std::move(there.error()));
    if (!there->key.empty()) co_return std::move(there->key);
    auto made = net::make_private_key();
    if (!made) co_return made;
    if (auto kept = co_await files.keep_key(*made); !kept) co_return base::fail(std::move(kept.error()));
    co_return made;
}

base::Result<std::string> request_for(const std::string& key, const std::string& name, const CredentialFiles& files) {
    auto csr = net::make_csr(key, name);
    if (!csr) return base::fail(Errc::io_error, files.paths().key + ": " + csr.error().detail);
    return csr;
}

}  // namespace

asio::awaitable<Result<heartbeat::Identity>> enrol(net::Client& core, CredentialFiles& files,
                                                   heartbeat::Identity identity, Joining joining) {
    const auto key = co_await own_key(files);
    if (!key) co_return base::fail(key.error());
    auto csr = request_for(*key, identity.install_id, files);
    if (!csr) co_return base::fail(std::move(csr.error()));
    const auto body = heartbeat::enrolment_body({.token = joining.token,
                                                 .install_id = identity.install_id,
                                                 .name = std::move(joining.name),
                                                 .csr = *std::move(csr),
                                                 .version = GHOST_VERSION,
                                                 .resources = std::move(joining.resources),
                                                 .addresses = std::move(joining.addresses)});
    const auto answer =
        co_await ask(core, post(joining.base_path + std::string{heartbeat::enrolment_target}, body), 201);
    if (!answer) co_return base::fail(answer.error());
    auto given = heartbeat::read_enrolled(*answer, *key);
    if (!given) co_return base::fail(std::move(given.error()));

    if (!identity.agent_id.empty() && identity.agent_id != given->agent_id) {
        // In between this is nobody: the other name must not stand beside the new certificate.
        identity.agent_id.clear();
        if (auto kept = co_await files.keep_identity(identity); !kept) co_return base::fail(std::move(kept.error()));
    }
    auto kept = co_await files.keep_certificate(std::move(given->certificate), std::move(given->ca));
    if (!kept) co_return base::fail(std::move(kept.error()));
    identity.agent_id = std::move(given->agent_id);
    identity.used_token = heartbeat::token_digest(joining.token);
    identity.core_urls = std::move(given->core_urls);
    if (kept = co_await files.keep_identity(identity); !kept) co_return base::fail(std::move(kept.error()));
    co_return identity;
}

asio::awaitable<Result<Credentials>> renew(net::Client& core, CredentialFiles& files, std::string agent_id,
                                           std::string base_path) {
    auto credentials = co_await files.load();
    if (!credentials) co_return credentials;
    auto csr = request_for(credentials->key, agent_id, files);
    if (!csr) co_return base::fail(std::move(csr.error()));
    const auto answer =
        co_await ask(core, post(base_path + heartbeat::renewal_target(agent_id), heartbeat::renewal_body(*csr)), 200);
    if (!answer) co_return base::fail(answer.error());
    auto given = heartbeat::read_renewed(*answer, credentials->key, agent_id);
    if (!given) co_return base::fail(std::move(given.error()));
    if (auto kept = co_await files.keep_certificate(given->certificate, given->ca); !kept)
        co_return base::fail(std::move(kept.error()));
    credentials->certificate = std::move(given->certificate);
    if (!given->ca.empty()) credentials->ca = std::move(given->ca);
    co_return credentials;
}

}  // namespace ghost::agent
