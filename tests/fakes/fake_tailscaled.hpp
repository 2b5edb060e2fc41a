// tailscaled as its local API tells of it, with the words a test gives it.
#pragma once

#include "tests/fakes/fake_client.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <string>
#include <utility>
#include <vector>

namespace ghost::fakes {

struct FakeTailscaled {
    static constexpr auto socket = "/var/run/tailscale/tailscaled.sock";

    std::string backend = "Running";
    std::vector<std::string> addresses = {"100.64.0.7", "fd7a:115c:a1e0::7"};
    bool online = true;
    bool answers = true;
    unsigned status = 200;

    FakeClient client{FakeClient::Table{[this](const net::ClientRequest& request) { return answer(request); }}};

    // Without peers, as Tailscale 1.8x and Headscale's nodes answer, with what they have beside it left out.
    [[nodiscard]] std::string document() const {
        boost::json::object self{{"ID", "n1"},
                                 {"HostName", "node-1"},
                                 {"DNSName", "node-1.tail0123.ts.net."},
                                 {"OS", "linux"},
                                 {"UserID", 1},
                                 {"TailscaleIPs", boost::json::array(addresses.begin(), addresses.end())},
                                 {"Online", online}};
        return boost::json::serialize(boost::json::object{{"Version", "1.82.0"},
                                                          {"TUN", true},
                                                          {"BackendState", backend},
                                                          {"AuthURL", ""},
                                                          {"Self", std::move(self)},
                                                          {"Peer", nullptr}});
    }

private:
    base::Result<net::ClientResponse> answer(const net::ClientRequest& request) const {
        if (!answers) return base::fail(base::Errc::source_unavailable, "cannot connect: Connection refused");
        const auto host = request.headers.find("Host");
        if (host != "local-tailscaled.sock") return json_answer(403, "");
        if (!request.target.starts_with("/localapi/v0/status")) return json_answer(404, "");
        return json_answer(status, document());
    }
};

}  // namespace ghost::fakes
