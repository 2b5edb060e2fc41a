#include "agent/core/enroller.hpp"

#include "heartbeat/enrolment.hpp"
#include "net/x509.hpp"

#include <utility>

namespace ghost::agent {
namespace asio = boost::asio;

using base::Errc;
using base::Result;

asio::awaitable<Result<heartbeat::Identity>> enrol(heartbeat::CoreLink& core, CredentialFiles& files,
                                                   heartbeat::Identity identity, Joining joining) {
    const auto key = co_await files.own_key();
    if (!key) co_return base::fail(key.error());
    const auto csr = net::make_csr(*key, identity.install_id);
    if (!csr) co_return base::fail(Errc::io_error, files.paths().key + ": " + csr.error().detail);
    heartbeat::CoreCall call{.call = heartbeat::Call::enroll, .url = std::move(joining.url), .agent_id = {}};
    call.body["token"] = joining.token;
    call.body["install_id"] = identity.install_id;
    call.body["name"] = joining.name;
    call.body["csr"] = *csr;
    call.body["version"] = GHOST_VERSION;
    call.body["resources"] = std::move(joining.resources);
    call.body["addresses"] = std::move(joining.addresses);
    const auto answer = co_await core.send(std::move(call));
    if (!answer) co_return base::fail(answer.error());
    if (answer->status != 201) co_return base::fail(heartbeat::refusal(answer->status, answer->body));
    auto given = heartbeat::read_enrolled(answer->body, *key);
    if (!given) co_return base::fail(std::move(given.error()));
    auto kept =
        co_await files.keep_enrolment(std::move(identity), *std::move(given), heartbeat::token_digest(joining.token));
    co_return kept;
}

}  // namespace ghost::agent
