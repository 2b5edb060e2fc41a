#include "agent/guest/ssh_host_keys.hpp"

#include <catch2/catch.hpp>

using namespace ghost::agent;
using Keys = std::vector<std::string>;

namespace {

const std::string ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const std::string ecdsa =
    "ecdsa-sha2-nistp256 "
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJico"
    "KSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

}  // namespace

TEST_CASE("host keys are read from what OpenSSH and Dropbear have, without their comments, each once") {
    CHECK(host_keys_in(ed25519 + " root@web\n" + ecdsa + "\r\n" + ed25519 + "\n") == Keys{ecdsa, ed25519});
    CHECK(host_keys_in("Public key portion is:\n" + ed25519 + " root@web\nFingerprint: SHA256:x\n") == Keys{ed25519});
    CHECK(host_keys_in(ed25519) == Keys{ed25519});
    CHECK(host_keys_in("").empty());
}

TEST_CASE("what has not the form of a host key is none") {
    for (const auto& line : {
             std::string{"ssh-ed25519"}, std::string{"ssh-ed25519 AAAA"}, std::string{"ssh-ed25519 not/base64!"},
             "ssh-rsa " + ed25519.substr(12),          // of another type inside
             "ssh-ed25519 " + ed25519.substr(12, 67),  // not all of it
             "command=\"rm\" " + ed25519,              // options
             "@cert-authority * " + ed25519, "ssh-magic " + ed25519.substr(12),
             "ssh-ed25519\x1b[2J " + ed25519.substr(12), ed25519 + std::string(3000, ' ') + "x",  // too long
         }) {
        CAPTURE(line);
        CHECK(host_keys_in(line + "\n").empty());
    }
}

TEST_CASE("a guest that prints keys without end has few of them") {
    std::string many;
    const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (const char letter : letters) {
        auto key = ed25519;
        key.back() = letter;
        many += key + '\n';
    }
    CHECK(host_keys_in(many).size() == max_host_keys);
}

TEST_CASE("host keys are asked for by way of the shell") {
    const auto question = host_keys_question();
    REQUIRE(question.size() == 3);
    CHECK(question[0] == "/bin/sh");
    CHECK(question[2].contains("/etc/ssh/ssh_host_*_key.pub"));
}
