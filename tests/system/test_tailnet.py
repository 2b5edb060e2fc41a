"""The API at this machine's addresses in its tailnet, as tailscaled tells of them: it follows when they change."""

import os
import shutil
import signal
import socket
import subprocess

import pytest

from harness.client import tls_context
from harness.tailscaled import Tailscaled
from harness.wait import until

PORT = 9443


@pytest.fixture(scope="module")
def tailscaled(directory):
    return Tailscaled(os.path.join(directory, "tailscaled.sock"))


@pytest.fixture(scope="module")
def certs(directory):
    path = os.path.join(directory, "tailnet-certs")
    os.mkdir(path)
    return path


@pytest.fixture(scope="module")
def agent_options(tailscaled, certs, pki):
    install(pki.server, certs)
    return {"api": {"listen_addr": ["127.0.0.1:9092", f"tailscale:{PORT}"],
                    "tls_cert": f"{certs}/agent.pem", "tls_key": f"{certs}/agent.key"},
            "tailscale": {"socket": tailscaled.path}}


def install(identity, certs):
    for source, name in ((identity.key, "agent.key"), (identity.certificate, "agent.pem")):
        shutil.copy2(source, os.path.join(certs, f".{name}"))
        os.rename(os.path.join(certs, f".{name}"), os.path.join(certs, name))


def connect(agent, address):
    context = tls_context(agent.pki.ca.certificate, agent.pki.alice)
    return context.wrap_socket(socket.create_connection((address, PORT), 30), server_hostname="localhost")


def serves(agent, address):
    try:
        with connect(agent, address) as connection:
            connection.sendall(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def check(agent):
    found = agent.local().get("/health", checked=False).json["checks"]["tailnet"]
    return found["status"], found.get("reason")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def test_without_tailscaled_the_rest_is_served_and_the_check_says_so(agent):
    assert agent.local().get("/ready").status == 200
    assert agent.remote().ok("GET", "/v1")["tailnet"]["connected"] is False
    assert check(agent) == ("degraded", "tailscaled isn't there")
    assert "Tailnet:     tailscaled isn't there\n" in agent.ghostctl("status").stdout


def test_the_listener_follows_the_address(agent, tailscaled):
    tailscaled.addresses = ["127.0.0.2"]
    tailscaled.start()
    until(lambda: serves(agent, "127.0.0.2"), "the API is served at the tailnet's address")
    assert not serves(agent, "127.0.0.3")
    assert check(agent) == ("up", None)
    assert agent.local().ok("GET", "/v1")["tailnet"] == {
        "connected": True, "addresses": ["127.0.0.2"], "dns_name": "pc.tail0123.ts.net", "reason": None}
    assert "Tailnet:     connected (pc.tail0123.ts.net, 127.0.0.2)\n" in agent.ghostctl("status").stdout

    with connect(agent, "127.0.0.2") as idle:
        tailscaled.addresses = ["127.0.0.3"]
        until(lambda: serves(agent, "127.0.0.3"), "the listener has followed")
        assert not serves(agent, "127.0.0.2")
        assert idle.recv(1) == b"", "connections to the address that left are ended"


def test_a_change_of_the_network_is_noticed_and_an_address_that_is_not_assigned_yet_is_tried_again(agent, tailscaled):
    tailscaled.addresses = ["192.0.2.77"]
    ip("addr", "add", "192.0.2.1/32", "dev", "lo")  # any change: tailscaled is asked
    until(lambda: "Cannot assign requested address" in (check(agent)[1] or ""), "it can't listen there yet")
    asked = tailscaled.asked
    ip("addr", "add", "192.0.2.77/32", "dev", "lo")
    until(lambda: serves(agent, "192.0.2.77"), "it listens once the address is assigned")
    assert tailscaled.asked > asked
    assert check(agent) == ("up", None)


def test_renewed_certificates_are_served_there_too(agent, certs, pki, tailscaled):
    def served(address):
        with connect(agent, address) as connection:
            return connection.getpeercert(binary_form=True)

    before = served(tailscaled.addresses[0])
    install(pki.ca.issue("renewed-tailnet", "serverAuth"), certs)
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: served(tailscaled.addresses[0]) != before, "the new certificate is served")


def test_a_tailnet_that_is_left_closes_its_listener_alone(agent, tailscaled):
    address = tailscaled.addresses[0]
    tailscaled.backend = "NeedsLogin"
    until(lambda: not serves(agent, address), "nothing listens there any more")
    assert check(agent) == ("degraded", "not connected: NeedsLogin")
    assert agent.remote().ok("GET", "/v1")["tailnet"]["reason"] == "not connected: NeedsLogin"
    tailscaled.backend = "Running"
    until(lambda: serves(agent, address), "it is served again")
    tailscaled.stop()
    until(lambda: (check(agent)[1] or "").startswith("tailscaled isn't there"), "tailscaled is missed")
    assert serves(agent, address), "it may only be starting again"
    until(lambda: check(agent) == ("degraded", "tailscaled isn't there"), "nor is it any longer", 60)
    assert not serves(agent, address)
