#include "agent/host/tailnet.hpp"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

using namespace ghost;
using namespace ghost::agent;

namespace {

TailnetState read(std::string_view answer) {
    auto state = read_tailscale_status(answer);
    INFO((state ? "" : state.error().detail));
    REQUIRE(state);
    return *std::move(state);
}

std::string running(std::string_view self) {
    return R"({"BackendState": "Running", "Self": )" + std::string{self} + "}";
}

}  // namespace

TEST_CASE("a Tailscale client that runs has its addresses and its name") {
    const auto state = read(R"({
        "Version": "1.82.0-tf4f57b815-gd4f37a5bf", "TUN": true, "BackendState": "Running", "HaveNodeKey": true,
        "AuthURL": "", "TailscaleIPs": ["100.101.102.103", "fd7a:115c:a1e0::c001:6667"],
        "Self": {"ID": "nEXAMPLE11CNTRL", "PublicKey": "nodekey:00", "HostName": "pc",
                 "DNSName": "pc.tail0123.ts.net.", "OS": "linux", "UserID": 7,
                 "TailscaleIPs": ["fd7a:115c:a1e0::c001:6667", "100.101.102.103"],
                 "AllowedIPs": ["100.101.102.103/32"], "Addrs": ["203.0.113.9:41641"], "CurAddr": "", "Relay": "fra",
                 "RxBytes": 0, "Online": true, "CapMap": {"https": null}, "InNetworkMap": true},
        "Health": [], "MagicDNSSuffix": "tail0123.ts.net",
        "CurrentTailnet": {"Name": "example.org", "MagicDNSSuffix": "tail0123.ts.net", "MagicDNSEnabled": true},
        "CertDomains": null, "Peer": null, "User": {"7": {"ID": 7, "LoginName": "me@example.org"}}})");
    CHECK(state.present);
    CHECK(state.connected);
    CHECK(state.addresses == std::vector<std::string>{"100.101.102.103", "fd7a:115c:a1e0::c001:6667"});
    CHECK(state.settled);
    CHECK(state.address() == "100.101.102.103");
    CHECK(state.dns_name == "pc.tail0123.ts.net");
    CHECK(state.reason.empty());
}

TEST_CASE("a Headscale node may have one address, no name and no word of being online") {
    const auto state = read(R"({"Version": "1.56.1", "TUN": true, "BackendState": "Running", "AuthURL": "",
        "TailscaleIPs": ["100.64.0.3"], "Self": {"ID": "3", "HostName": "pc", "DNSName": "",
        "OS": "linux", "TailscaleIPs": ["100.64.0.3"], "Relay": ""}, "Health": null, "Peer": {}})");
    CHECK(state.connected);
    CHECK(state.addresses == std::vector<std::string>{"100.64.0.3"});
    CHECK(state.dns_name.empty());
    const auto v6 = read(running(R"({"TailscaleIPs": ["fd7a:115c:a1e0::3"], "DNSName": "pc.headscale.example.org."})"));
    CHECK(v6.connected);
    CHECK(v6.address() == "fd7a:115c:a1e0::3");
    CHECK(v6.dns_name == "pc.headscale.example.org");
}

TEST_CASE("a client that doesn't run says in what state it is, and its old addresses don't count") {
    for (const std::string backend : {"NoState", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting"}) {
        CAPTURE(backend);
        const auto state = read(R"({"BackendState": ")" + backend +
                                R"(", "Self": {"TailscaleIPs": ["100.64.0.3"], "DNSName": "pc.example.org."}})");
        CHECK(state.present);
        CHECK_FALSE(state.connected);
        CHECK(state.settled == (backend != "NoState" && backend != "Starting"));  // it passes through those
        CHECK(state.addresses.empty());
        CHECK(state.address().empty());
        CHECK(state.dns_name.empty());
        CHECK(state.reason == "not connected: " + backend);
    }
}

TEST_CASE("without its coordination server it isn't connected, but its addresses are its own") {
    const auto state = read(running(R"({"TailscaleIPs": ["100.64.0.3"], "Online": false})"));
    CHECK_FALSE(state.connected);
    CHECK(state.reason == "not connected: the coordination server is out of reach");
    CHECK(state.addresses == std::vector<std::string>{"100.64.0.3"});
}

TEST_CASE("one that runs without an address isn't connected") {
    for (const auto* const self :
         {"null", "{}", R"({"TailscaleIPs": null})", R"({"TailscaleIPs": []})",
          R"({"TailscaleIPs": ["", "100.64.0", 7, null, "100.64.0.1/32"]})",
          R"({"TailscaleIPs": ["0.0.0.0", "::", "::ffff:0.0.0.0", "fe80::1%1", "224.0.0.1"]})"}) {
        CAPTURE(self);
        const auto state = read(running(self));
        CHECK_FALSE(state.connected);
        CHECK(state.addresses.empty());
        CHECK_THAT(state.reason, Catch::Contains("no address"));
    }
    CHECK_FALSE(read(R"({"BackendState": "Running"})").connected);
}

TEST_CASE("addresses are taken once each and are few, and names are plain") {
    std::string many;
    for (int i = 1; i <= 50; ++i) many += (many.empty() ? "\"100.64.0." : ", \"100.64.0.") + std::to_string(i) + '"';
    CHECK(read(running(R"({"TailscaleIPs": [)" + many + "]}")).addresses.size() == 8);
    CHECK(read(running(R"({"TailscaleIPs": ["100.64.0.3", "100.64.0.3"]})")).addresses.size() == 1);
    for (const auto& name : {std::string{"a\\nb"}, std::string{"a b"}, std::string(300, 'a')})
        CHECK(read(running(R"({"TailscaleIPs": ["100.64.0.3"], "DNSName": ")" + name + "\"}")).dns_name.empty());
}

TEST_CASE("what is no answer of tailscaled's is refused") {
    for (const auto& answer :
         {std::string{}, std::string{"garbage"}, std::string{"[]"}, std::string{"null"}, std::string{"{}"},
          std::string{R"({"BackendState": 6})"}, std::string{R"({"BackendState": ""})"},
          std::string{R"({"BackendState": "Run\nning"})"}, R"({"BackendState": ")" + std::string(65, 'R') + "\"}",
          R"({"BackendState": "Running", "x": )" + std::string(20, '[') + std::string(20, ']') + "}",
          R"({"BackendState": "Running", "x": ")" + std::string(300'000, 'x') + "\"}",
          std::string{R"({"BackendState": "Running"} and more)"}}) {
        CAPTURE(answer.substr(0, 80));
        CHECK_FALSE(read_tailscale_status(answer));
    }
}
