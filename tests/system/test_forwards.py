"""Port forwards that last: a guest's services at addresses of the host."""

import os
import socket
import subprocess
import urllib.request

import pytest

from harness.agent import Agent
from harness.small_guest import make, make_key, run
from harness.wait import until

UDP_ECHO = r"""
#include <arpa/inet.h>
#include <sys/socket.h>
int main(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(5000)}, peer;
    if (bind(s, (struct sockaddr*)&here, sizeof here)) return 1;
    for (;;) {
        static char data[65536];
        socklen_t size = sizeof peer;
        long n = recvfrom(s, data, sizeof data, 0, (struct sockaddr*)&peer, &size);
        if (n >= 0) sendto(s, data, n, 0, (struct sockaddr*)&peer, size);
    }
}
"""


@pytest.fixture(scope="module")
def key(directory):
    return make_key(directory, "forwards_key")


@pytest.fixture(scope="module")
def guest(agent, key):
    """It serves a page at port 80."""
    vm = make(agent, "web", key, guest_access=True,
              forwards={"http": {"host_port": 8080, "guest_port": 80}, "ssh": {"host_port": 8022, "guest_port": 22}})
    serve(agent)
    return vm


def serve(agent):
    run(agent, "web", "sh", "-c", "mkdir -p /tmp/www; echo it-works > /tmp/www/index.html; "
        "httpd -p 80 -h /tmp/www; head -c 3000000 /dev/zero > /tmp/www/big")


def page(port=8080, path=""):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as answer:
        return answer.read()


def serves(port=8080):
    try:
        return page(port) == b"it-works\n"
    except OSError:
        return False


def condition(agent, name="web"):
    conditions = agent.remote().ok("GET", f"/v1/vms/{name}")["status"]["conditions"]
    return next((c for c in conditions if c["type"] == "ForwardsReady"), None)


def change(agent, forwards, name="web", wait=30):
    return agent.remote().patch(f"/v1/vms/{name}", {"spec": {"forwards": forwards}}, query={"wait": wait})


def test_a_page_of_the_guest_is_read_at_the_host(agent, guest):
    until(serves, "the page is served", 60)
    assert len(page(path="big")) == 3_000_000
    with socket.create_connection(("127.0.0.1", 8022), 30) as ssh:
        assert ssh.recv(64).startswith(b"SSH-2.0-dropbear")
    told = condition(agent)
    assert (told["status"], told["reason"]) == ("true", "listening"), told


def test_forwards_come_and_go_with_a_patch(agent, guest):
    assert change(agent, {"again": {"host_port": 8081, "guest_port": 80}, "ssh": None}).status == 200
    until(lambda: serves(8081), "the new one serves", 30)
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", 8022), 5):
        pass
    assert serves(8080)
    assert change(agent, {"again": None}).status == 200
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", 8081), 5):
        pass
    spec = agent.remote().ok("GET", "/v1/vms/web")["spec"]["forwards"]
    assert spec == {"http": {"host_address": "127.0.0.1", "host_port": 8080, "guest_port": 80, "protocol": "tcp"}}


def test_they_are_there_again_after_the_agents_end(agent, guest):
    agent.kill()
    assert not serves()
    agent.start()
    until(serves, "the page is served again", 60)
    agent.stop()
    agent.start()
    until(serves, "the page is served once more", 60)


def test_they_follow_a_guest_that_starts_anew(agent, guest):
    assert agent.remote().post("/v1/vms/web/restart", {"force": True}, query={"wait": 60}).status == 200
    until(lambda: agent.remote().ok("GET", "/v1/vms/web")["status"]["addresses"], "it has an address", 120)

    def serving():
        try:
            serve(agent)
            return True
        except AssertionError:
            return False
    until(serving, "its guest agent answers", 120, pause=2)
    until(serves, "the page is served by the restarted guest", 60)


def test_a_port_that_is_taken_is_told_with_who_has_it(agent, guest, vms):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 8090))
        other.listen()
        assert change(agent, {"late": {"host_port": 8090, "guest_port": 80}}).status == 200
        told = until(lambda: (lambda c: c["status"] == "false" and c)(condition(agent)), "it is told", 30)
        assert told["reason"] == "port_taken" and "127.0.0.1:8090" in told["message"], told
        assert f"pid {os.getpid()}" in told["message"], told
        assert serves(8080)  # the others go on
    until(lambda: serves(8090), "it listens once the port is free", 30)
    # One that another VM forwards already.
    vms.create("rival", power="on", forwards={"mine": {"host_port": 8090, "guest_port": 80}})
    told = until(lambda: (lambda c: c and c["status"] == "false" and c)(condition(agent, "rival")), "it is told", 30)
    assert told["reason"] == "port_taken" and "web" in told["message"], told
    assert change(agent, {"late": None}).status == 200
    until(lambda: condition(agent, "rival")["status"] == "true", "the rival has it", 30)


def test_datagrams_pass_too(agent, guest, directory):
    source = os.path.join(directory, "udp_echo.c")
    with open(source, "w", encoding="utf-8") as file:
        file.write(UDP_ECHO)
    program = os.path.join(directory, "udp_echo")
    subprocess.run(["clang-19", "-static", "-O1", "-o", program, source], check=True)
    with open(program, "rb") as file:
        put = agent.remote().request("PUT", "/v1/vms/web/files", file.read(),
                                     query={"path": "/tmp/echo", "mode": "0755"},
                                     headers={"Content-Type": "application/octet-stream"})
    assert put.status == 204, put
    run(agent, "web", "sh", "-c", "/tmp/echo </dev/null >/dev/null 2>&1 &")
    assert change(agent, {"dns": {"host_port": 8053, "guest_port": 5000, "protocol": "udp"}}).status == 200

    def echoes(data):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.connect(("127.0.0.1", 8053))
            try:
                client.send(data)
                return client.recv(65536) == data
            except OSError:
                return False
    until(lambda: echoes(b"hello"), "a datagram comes back", 30)
    until(lambda: echoes(b"x" * 1400), "a larger one too", 30)
    assert change(agent, {"dns": None}).status == 200


def test_what_the_configuration_does_not_allow_is_refused(agent, guest):
    for forward, pointer, setting in (
            ({"host_port": 80, "guest_port": 80}, "/spec/forwards/no/host_port", "forwards.privileged_ports"),
            ({"host_port": 8100, "guest_port": 80, "host_address": "0.0.0.0"}, "/spec/forwards/no/host_address",
             "forwards.all_addresses"),
            ({"host_port": 8100, "guest_port": 80, "host_address": "10.0.0.1"}, "/spec/forwards/no/host_address",
             "tailscale"),
            ({"host_port": 8100}, "/spec/forwards/no/guest_port", ""),
            ({"host_port": 8080, "guest_port": 81}, "/spec/forwards/no/host_port", "http"),
            ({"host_port": 8100, "guest_port": 81, "protocol": "sctp"}, "/spec/forwards/no/protocol", "udp")):
        refused = change(agent, {"no": forward})
        assert refused.code == "validation_failed", refused
        fault = refused.json["errors"][0]
        assert fault["pointer"] == pointer and setting in fault["detail"], fault


def test_a_vm_that_is_off_or_gone_takes_no_port(agent, guest):
    assert agent.remote().post("/v1/vms/web/stop", {"force": True}, query={"wait": 60}).status == 200
    until(lambda: not serves(), "nothing listens", 10)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", 8080))
    assert condition(agent) is None


def test_privileged_ports_and_all_addresses_where_allowed(agent, directory, pki, libvirt, image_file, key):
    assert agent.stop() == 0
    other = Agent(os.path.join(directory, "allowing"), pki, forwards={"privileged_ports": True, "all_addresses": True})
    other.start()
    try:
        other.add_image(image_file)
        make(other, "open", key, guest_access=True,
             forwards={"http": {"host_port": 81, "guest_port": 22, "host_address": "0.0.0.0"}})
        with socket.create_connection(("127.0.0.1", 81), 30) as ssh:
            assert ssh.recv(64).startswith(b"SSH-2.0-dropbear")
        assert other.remote().delete("/v1/vms/open", query={"wait": 60}).status == 200
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", 81), 5):
            pass
    finally:
        other.kill()
        libvirt.forget_pool()
    agent.start()
