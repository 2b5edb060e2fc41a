"""libvirtd stopped, killed and restarted under the agent."""

import os
import signal
import time

import pytest

from harness.wait import until

SOON = 5.0  # seconds; far above what an answer from memory takes, far below any hypervisor deadline


@pytest.fixture
def pair(vms):
    """A VM that runs and one that is off; nothing needs to boot in them."""
    return vms.create("running", memory_mib=64), vms.create("resting", memory_mib=64, power="off")


@pytest.fixture(autouse=True)
def libvirtd_is_back(libvirt, agent, request):
    request.getfixturevalue("vms")  # its clean-up comes after this one's
    yield
    if libvirt.daemon is None:
        libvirt.start()
    libvirt.signal(signal.SIGCONT)
    if agent.process is not None:
        until(lambda: agent.answers("/ready"), "the agent is ready again", 90)


def check_of(remote):
    return remote.get("/health", timeout=SOON).json["checks"]["libvirt"]["status"]


def reads_are_answered(remote, vm):
    for path in ("/v1", "/v1/vms", f"/v1/vms/{vm['id']}", "/v1/operations", "/v1/images", "/v1/resources", "/health",
                 "/live"):
        asked = time.monotonic()
        answer = remote.get(path, timeout=SOON)
        assert answer.status == 200 or path == "/health"
        assert time.monotonic() - asked < SOON, path


@pytest.mark.slow
def test_libvirtd_stopped_for_half_a_minute(libvirt, remote, pair, agent):
    running, resting = pair
    threads = agent.threads()
    observed = remote.ok("GET", f"/v1/vms/{running['id']}")["status"]["observed_at"]
    libvirt.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    answer = remote.post(f"/v1/vms/{resting['id']}/start", timeout=25)
    assert answer.status in (202, 503), answer
    operation = answer.json["id"] if answer.status == 202 else None
    noticed = False
    while time.monotonic() - stopped < 30:
        reads_are_answered(remote, running)
        noticed = noticed or check_of(remote) != "up"
        time.sleep(0.5)
    assert noticed, "health says that libvirt doesn't answer"
    assert remote.get("/ready").status in (200, 503)
    seen = remote.ok("GET", f"/v1/vms/{running['id']}")
    assert seen["status"]["power"] == "running" and seen["status"]["observed_at"] >= observed
    if operation is not None:
        on_the_way = remote.ok("GET", f"/v1/operations/{operation}")
        assert on_the_way["state"] == "failed" or on_the_way["stalled"], on_the_way
    else:
        assert answer.code == "hypervisor_unavailable"
    refused = remote.post(f"/v1/vms/{running['id']}/pause", timeout=60)
    assert refused.status in (202, 503), refused

    libvirt.signal(signal.SIGCONT)
    until(lambda: remote.get("/ready").status == 200 and check_of(remote) == "up", "all is well again", 90)
    for pending in filter(None, (operation, refused.json.get("id") if refused.status == 202 else None)):
        ended = remote.ok("GET", f"/v1/operations/{pending}", query={"wait": 60})
        assert ended["state"] in ("succeeded", "failed") and not ended["stalled"]
    # What is shown is what is.
    for vm in pair:
        name = {"running": "running", "shut off": "off", "paused": "paused"}[libvirt.state(vm["id"])]
        until(lambda vm=vm, name=name: remote.ok("GET", f"/v1/vms/{vm['id']}")["status"]["power"] == name, "the truth",
              60)
    remote.ok("POST", f"/v1/vms/{running['id']}/stop", {"force": True}, query={"wait": 60})
    remote.ok("POST", f"/v1/vms/{running['id']}/start", query={"wait": 60})
    until(lambda: agent.threads() <= threads + 8, "replaced lanes are few and go again", 60)


def test_libvirtd_killed_and_restarted(libvirt, remote, pair, agent):
    running, resting = pair
    qemu = libvirt.qemu_pid(running["id"])
    libvirt.kill()
    until(lambda: check_of(remote) == "down", "health says that libvirt is gone", 60)
    assert remote.get("/ready").status == 503 and remote.get("/live").status == 200
    assert remote.ok("GET", "/v1")["hypervisor"]["connected"] is False
    reads_are_answered(remote, running)
    for method, path, body in (("POST", f"/v1/vms/{resting['id']}/start", None),
                               ("DELETE", f"/v1/vms/{resting['id']}", None),
                               ("PATCH", f"/v1/vms/{resting['id']}", {"labels": {"a": "b"}}),
                               ("POST", "/v1/vms", {"name": "not-now", "spec": {"image": "tiny"}})):
        refused = remote.request(method, path, body, query={"wait": 30})
        assert (refused.status, refused.code) == (503, "hypervisor_unavailable"), (method, path, refused)
        assert int(refused.headers["retry-after"]) > 0
    assert remote.get("/v1/vms/not-now").status == 404

    libvirt.start()
    until(lambda: remote.get("/ready").status == 200 and check_of(remote) == "up", "all is well again", 90)
    assert libvirt.qemu_pid(running["id"]) == qemu, "the guest didn't notice"
    assert remote.ok("GET", f"/v1/vms/{running['id']}")["status"]["power"] == "running"

    # Events come again: what others do is noticed.
    libvirt.virsh("destroy", running["id"])
    until(lambda: remote.ok("GET", f"/v1/vms/{running['id']}")["status"]["power"] == "off", "the destroy is seen", 30)
    assert remote.ok("GET", f"/v1/vms/{running['id']}")["spec"]["power"] == "on"
    remote.ok("POST", f"/v1/vms/{running['id']}/start", query={"wait": 60})


def test_what_happened_while_libvirtd_was_away_is_seen(libvirt, remote, pair):
    running, resting = pair
    libvirt.kill()
    until(lambda: check_of(remote) == "down", "health says that libvirt is gone", 60)
    os.kill(libvirt.qemu_pid(running["id"]), signal.SIGKILL)  # while nobody looks
    libvirt.start()
    until(lambda: remote.get("/ready").status == 200, "all is well again", 90)
    power = until(lambda: {"off", "crashed"} & {remote.ok("GET", f"/v1/vms/{running['id']}")["status"]["power"]},
                  "the death is seen", 30)
    assert power
    assert remote.ok("GET", f"/v1/vms/{resting['id']}")["status"]["power"] == "off"
    remote.ok("POST", f"/v1/vms/{running['id']}/start", query={"wait": 60})


def test_an_agent_that_starts_without_libvirtd_waits_for_it(libvirt, agent, pair):
    running, _ = pair
    assert agent.stop() == 0
    libvirt.kill()
    agent.start(ready=False)
    local = agent.local()
    assert local.get("/ready").status == 503
    assert local.ok("GET", f"/v1/vms/{running['id']}")["name"] == "running", "known from the database"
    libvirt.start()
    until(lambda: agent.answers("/ready"), "the agent is ready", 90)
    assert local.ok("GET", f"/v1/vms/{running['id']}")["status"]["power"] == "running"


def test_the_agent_stops_though_libvirtd_hangs(libvirt, agent, pair):
    _, resting = pair
    libvirt.signal(signal.SIGSTOP)
    agent.local().post(f"/v1/vms/{resting['id']}/start", timeout=30)
    asked = time.monotonic()
    assert agent.stop(60) == 0
    assert time.monotonic() - asked < 40
    libvirt.signal(signal.SIGCONT)
    agent.start()
