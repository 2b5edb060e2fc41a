"""One loop: the number of threads doesn't depend on connections or VMs, and neither does an answer."""

import resource
import socket
import subprocess

import pytest

from harness.client import tls_context
from harness.wait import until

CONNECTIONS = 500
VMS = 100


@pytest.fixture(scope="module")
def agent_options(directory):
    """A hundred VMs of 1 GiB each want a disk that is large on paper; they stay off and take next to nothing."""
    roomy = f"{directory}/roomy"
    subprocess.run(["mkdir", roomy], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400g,mode=711", "tmpfs", roomy], check=True)
    return {"state_dir": f"{roomy}/state"}


@pytest.fixture(scope="module")
def idle(agent):
    """The number of threads once every kind of work has been done."""
    remote = agent.remote()
    body = {"name": "warm", "spec": {"image": "tiny", "disk_gib": 1, "memory_mib": 64}}
    vm = remote.ok("POST", "/v1/vms", body, query={"wait": 60})
    remote.ok("POST", f"/v1/vms/{vm['id']}/pause", query={"wait": 60})
    remote.ok("DELETE", f"/v1/vms/{vm['id']}", query={"wait": 60})
    until(lambda: remote.get(f"/v1/vms/{vm['id']}").status == 404, "the VM is gone")
    return agent.threads()


def test_threads_are_few(idle):
    assert idle < 64


def test_500_connections_add_no_thread(agent, idle):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    context = tls_context(agent.pki.ca.certificate, agent.pki.alice)
    open_files = agent.open_files()
    connections = []
    try:
        for _ in range(CONNECTIONS):
            raw = socket.create_connection(("127.0.0.1", agent.API_PORT), 30)
            connections.append(context.wrap_socket(raw, server_hostname="localhost"))
        assert agent.threads() == idle
        for connection in connections:
            connection.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200"), "served while 499 others are open"
        assert agent.open_files() >= CONNECTIONS and agent.threads() == idle
    finally:
        for connection in connections:
            connection.close()
    until(lambda: agent.open_files() < open_files + 20, "the connections are let go")
    assert agent.threads() == idle


@pytest.mark.slow
def test_100_vms_add_no_thread(agent, idle, remote, vms):
    running = []
    for n in range(VMS):
        vms.expect(f"vm-{n}")
        running.append(remote.ok("POST", "/v1/vms", vms.body(f"vm-{n}", memory_mib=64, power="off"))["id"])
        if len(running) == 10:  # ten operations side by side
            for operation in running:
                ended = remote.ok("GET", f"/v1/operations/{operation}", query={"wait": 120})
                assert ended["state"] == "succeeded", ended
            running.clear()
    assert agent.threads() == idle
    names = [vm["name"] for vm in remote.pages("/v1/vms", managed="true", limit=30)]
    assert sorted(names) == sorted(f"vm-{n}" for n in range(VMS))
    lag = remote.ok("GET", "/health")["checks"]["loop"]
    assert {"lag_p50_ms", "lag_p99_ms", "lag_max_ms"} <= lag.keys(), lag
    assert agent.threads() == idle
