"""The agent killed at any moment: no VM is harmed, nothing is orphaned, every operation ends."""

import json
import os
import subprocess
import time

import pytest

from harness.agent import Agent
from harness.wait import until

pytestmark = pytest.mark.slow

BOOT_ID = "/proc/sys/kernel/random/boot_id"
FINAL = ("succeeded", "failed", "cancelled")


def test_a_killed_agent_finds_its_running_vm_again(agent, vms, libvirt):
    made = vms.create("survivor", memory_mib=64, labels={"a": "b"}, owner="alice")
    qemu = libvirt.qemu_pid(made["id"])
    agent.kill()
    assert libvirt.state(made["id"]) == "running"
    agent.start()
    found = agent.remote().ok("GET", "/v1/vms/survivor")
    assert found["id"] == made["id"] and found["status"]["power"] == "running"
    assert (found["spec"], found["labels"], found["owner"]) == (made["spec"], made["labels"], made["owner"])
    assert found["generation"] == made["generation"] and found["created_at"] == made["created_at"]
    assert libvirt.qemu_pid(made["id"]) == qemu
    stopped = agent.remote().ok("POST", "/v1/vms/survivor/stop", {"force": True}, query={"wait": 60})
    assert stopped["status"]["power"] == "off"


def test_sigterm_leaves_vms_running(agent, vms, libvirt):
    made = vms.create("stayer", memory_mib=64)
    qemu = libvirt.qemu_pid(made["id"])
    assert agent.stop() == 0
    assert libvirt.state(made["id"]) == "running" and libvirt.qemu_pid(made["id"]) == qemu
    agent.start()
    assert agent.remote().ok("GET", "/v1/vms/stayer")["status"]["power"] == "running"


def test_a_restart_starts_and_stops_nothing(agent, vms, libvirt):
    """Not even a VM that is wanted on and was shut down while the agent was away."""
    made = vms.create("sleeper", memory_mib=64, autostart="always")
    assert agent.stop() == 0
    libvirt.virsh("destroy", made["id"])
    agent.start()
    time.sleep(2)
    found = agent.remote().ok("GET", "/v1/vms/sleeper")
    assert found["status"]["power"] == "off" and found["spec"]["power"] == "on"


def test_after_a_boot_of_the_host_what_was_wanted_on_comes_back(agent, vms, libvirt, tmp_path):
    wanted = vms.create("returner", memory_mib=64)
    unwanted = vms.create("sleeper", power="off", memory_mib=64)
    assert agent.stop() == 0
    libvirt.virsh("destroy", wanted["id"])
    boot = tmp_path / "boot_id"
    boot.write_text("01234567-89ab-4cde-8f01-23456789abcd\n")
    subprocess.run(["mount", "--bind", boot, BOOT_ID], check=True)
    try:
        agent.start()
        remote = agent.remote()
        until(lambda: remote.ok("GET", "/v1/vms/returner")["status"]["power"] == "running", "it is started", 60)
        assert libvirt.state(unwanted["id"]) == "shut off"
    finally:
        agent.stop()
        subprocess.run(["umount", BOOT_ID], check=True)
        agent.start()  # it is the host's own boot again


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0])
def test_killed_during_a_create(agent, vms, libvirt, after):
    vms.expect("half")
    known = {op["id"] for op in agent.remote().pages("/v1/operations")}
    connection = agent.local().connection(10)
    connection.request("POST", "/v1/vms", json.dumps(vms.body("half", memory_mib=64, disks={"d": {"size_gib": 1}})),
                       {"Content-Type": "application/json"})
    time.sleep(after)
    agent.kill()
    connection.close()
    agent.start()
    remote = agent.remote()
    begun = [op for op in remote.pages("/v1/operations") if op["id"] not in known]
    assert len(begun) <= 1
    for op in begun:
        ended = remote.ok("GET", f"/v1/operations/{op['id']}", query={"wait": 60})
        assert ended["state"] in FINAL, ended
        if ended["state"] != "succeeded":
            assert ended["error"]["code"] == "interrupted", ended
    made = remote.get("/v1/vms/half")
    if made.status == 404:
        assert agent.disk_files() == [] and libvirt.our_domains() == []
        assert "half" not in libvirt.domains()
        again = vms.create("half", memory_mib=64, power="off")
        remote.ok("DELETE", f"/v1/vms/{again['id']}", query={"wait": 60})
    else:
        assert begun and remote.ok("GET", f"/v1/operations/{begun[0]['id']}")["state"] == "succeeded"
        assert made.json["status"]["phase"] == "ready" and made.json["status"]["power"] == "running"


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_killed_during_a_delete(agent, vms, libvirt, after):
    """A delete that was accepted is finished by the next start."""
    made = vms.create("doomed", memory_mib=64)
    connection = agent.local().connection(10)
    connection.request("DELETE", "/v1/vms/doomed")
    time.sleep(after)
    agent.kill()
    connection.close()
    agent.start()
    remote = agent.remote()
    mine = [op for op in remote.pages("/v1/operations", target=made["id"]) if op["kind"] == "vm.delete"]
    if not mine:
        assert remote.ok("GET", "/v1/vms/doomed")["status"]["power"] == "running", "never accepted, never begun"
        return
    assert remote.ok("GET", f"/v1/operations/{mine[0]['id']}", query={"wait": 60})["state"] == "succeeded"
    assert remote.get("/v1/vms/doomed").status == 404
    assert agent.disk_files() == [] and "doomed" not in libvirt.domains()


@pytest.fixture(scope="module")
def bulky(tmp_path_factory):
    """An image that takes a moment to copy."""
    directory = tmp_path_factory.mktemp("bulky")
    with open(directory / "bulky.raw", "wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", directory / "bulky.raw", directory / "bulky.qcow2"],
                   check=True)
    return directory / "bulky.qcow2"


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.3, 0.6])
def test_killed_while_an_image_is_added(agent, bulky, after):
    local = agent.local()
    cache = os.path.join(agent.state, "images")
    before = sorted(os.listdir(cache))
    connection = local.connection(10)
    connection.request("POST", "/v1/images", json.dumps({"name": "half", "source": f"file://{bulky}"}),
                       {"Content-Type": "application/json"})
    time.sleep(after)
    agent.kill()
    connection.close()
    agent.start()
    for op in local.pages("/v1/operations"):
        assert local.ok("GET", f"/v1/operations/{op['id']}", query={"wait": 60})["state"] in FINAL
    if local.get("/v1/images/half").status == 404:
        assert sorted(os.listdir(cache)) == before
        agent.add_image(bulky, "half")
    assert local.ok("GET", "/v1/images/half")["state"] == "available"
    local.ok("DELETE", "/v1/images/half", query={"wait": 60})
    assert sorted(os.listdir(cache)) == before


def test_a_create_that_sigterm_cut_off_is_gone_on_with(agent, vms, tmp_path_factory):
    blank = tmp_path_factory.mktemp("blank") / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", blank, "1M"], check=True)
    agent.add_image(blank, "blank")
    vms.expect("cut-short")
    begun = agent.remote().post("/v1/vms", {"name": "cut-short", "wait_for": "address",
                                            "spec": {"image": "blank", "disk_gib": 1, "memory_mib": 64}})
    assert begun.status == 202
    until(lambda: agent.remote().ok("GET", "/v1/vms/cut-short")["status"]["power"] == "running", "the VM runs", 60)
    assert agent.stop() == 0
    agent.start()
    href = f"/v1/operations/{begun.json['id']}"
    going_on = agent.remote().ok("GET", href)
    assert going_on["state"] == "running" and going_on["cancellable"], going_on
    assert agent.remote().ok("GET", "/v1/vms/cut-short")["status"]["power"] == "running"
    # It waits for an address that never comes, so it is called off, and all of it is undone.
    ended = agent.remote().ok("POST", f"{href}/cancel", query={"wait": 60})
    assert ended["state"] == "cancelled", ended
    assert agent.remote().get("/v1/vms/cut-short").status == 404
    assert agent.disk_files() == []
    agent.local().ok("DELETE", "/v1/images/blank", query={"wait": 60})


def test_a_lost_database_doesnt_lose_the_vm(directory, pki, libvirt, image_file):
    """The domain's own metadata tells whose it is."""
    agent = Agent(os.path.join(directory, "lost"), pki, api={"listen_addr": "127.0.0.1:9192"},
                  metrics={"enabled": False})
    agent.start()
    agent.add_image(image_file)
    local = agent.local()
    made = local.ok("POST", "/v1/vms", {"name": "remembered", "labels": {"a": "b"}, "owner": "alice",
                                        "spec": {"image": "tiny", "memory_mib": 64}}, query={"wait": 120})
    try:
        assert agent.stop() == 0
        for name in os.listdir(agent.state):
            if name.startswith("state.db"):
                os.remove(os.path.join(agent.state, name))
        agent.start()
        found = local.ok("GET", "/v1/vms/remembered")
        assert found["id"] == made["id"] and found["status"]["power"] == "running"
        assert found["managed"] is True
        assert (found["labels"], found["owner"], found["spec"]) == (made["labels"], made["owner"], made["spec"])
        local.ok("DELETE", "/v1/vms/remembered", query={"wait": 60})
        assert agent.disk_files() == []
    finally:
        libvirt.try_virsh("destroy", made["id"])
        libvirt.try_virsh("undefine", made["id"])
        assert agent.stop() == 0
