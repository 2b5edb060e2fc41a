"""Full disks: what needs room is refused, what doesn't goes on, and guests that stopped go on when there is room."""

import os
import subprocess
import time

import pytest

from harness.filesystem import Impossible, SmallFileSystem
from harness.hypervisor import URI
from harness.wait import until

pytestmark = pytest.mark.slow

MIB = 1 << 20
FINAL = ("succeeded", "failed", "cancelled")


class Disks:
    """The agent's state, its images and its VMs' disks, each on a file system of its own."""

    def __init__(self, directory):
        state = os.path.join(directory, "state")
        os.makedirs(directory, exist_ok=True)

        def make(name, place, mib):
            return SmallFileSystem(os.path.join(directory, f"{name}.img"), place, mib)

        self.state = make("state", state, 64)
        self.disks = make("disks", os.path.join(state, "disks"), 3072)
        self.images = make("images", os.path.join(directory, "images"), 256)

    def make_room(self):
        for each in (self.state, self.disks, self.images):
            each.make_room()


@pytest.fixture(scope="module")
def full(directory):
    try:
        return Disks(os.path.join(directory, "test_full_disk"))
    except Impossible as why:
        pytest.skip(f"no file systems on loop devices here: {why}")


@pytest.fixture(scope="module")
def agent_options(full):
    return {"libvirt": {"uri": URI, "virt_type": os.environ.get("GHOST_TEST_VIRT_TYPE", "auto"),
                        "image_cache": full.images.path}}


@pytest.fixture(autouse=True)
def room_afterwards(full, request):
    request.getfixturevalue("vms")  # its clean-up comes after this one's
    yield
    full.make_room()


def condition(client, vm, kind):
    vm = client.ok("GET", f"/v1/vms/{vm['id']}")
    return next((c for c in vm["status"]["conditions"] if c["type"] == kind), None)


def free_disk(client):
    return client.ok("GET", "/v1/resources")["disk_bytes"]["free"]


def refused_for_room(answer):
    assert (answer.status, answer.code) == (507, "insufficient_storage"), answer
    assert answer.json["needed"]["disk_bytes"] > answer.json["free"]["disk_bytes"] >= 0, answer
    return answer.json


def own_disk_files(agent):
    return [name for name in agent.disk_files() if name != "filler"]


def test_a_create_on_a_full_disk_is_refused(full, agent, remote, vms, libvirt):
    full.disks.fill()
    vms.expect("no-room")
    # The agent hasn't looked at the disk yet, and finds out on the way.
    refused_for_room(remote.post("/v1/vms", vms.body("no-room"), query={"wait": 60}))
    assert remote.get("/v1/vms/no-room").status == 404
    assert own_disk_files(agent) == [] and libvirt.our_domains() == []
    until(lambda: free_disk(remote) < 1 << 30, "the agent has looked at the disk", 60)
    begun = len(remote.pages("/v1/operations"))
    problem = refused_for_room(remote.post("/v1/vms", vms.body("no-room"), query={"wait": 60}))
    assert problem["needed"]["disk_bytes"] == 1 << 30
    assert len(remote.pages("/v1/operations")) == begun, "refused before anything began"
    full.make_room()
    until(lambda: free_disk(remote) > 1 << 30, "the agent has looked at the disk again", 60)
    vms.create("no-room", power="off")


def test_an_import_into_a_full_cache_is_refused(full, agent, local, image_file, tmp_path_factory):
    big = tmp_path_factory.mktemp("big") / "big.raw"
    with open(big, "wb") as file:
        for _ in range(64):
            file.write(os.urandom(MIB))
    before = sorted(os.listdir(full.images.path))
    full.images.fill(leave=32 * MIB)
    answer = local.post("/v1/images", {"name": "big", "source": f"file://{big}", "format": "raw"}, query={"wait": 60})
    problem = refused_for_room(answer)
    assert problem["needed"]["disk_bytes"] >= 64 * MIB > 32 * MIB >= problem["free"]["disk_bytes"]
    assert local.get("/v1/images/big").status == 404
    assert sorted(os.listdir(full.images.path)) == sorted([*before, "filler"])
    full.images.fill()
    answer = local.post("/v1/images", {"name": "again", "source": f"file://{image_file}"}, query={"wait": 60})
    refused_for_room(answer)
    assert local.get("/v1/images/tiny").status == 200
    full.make_room()
    local.ok("POST", "/v1/images", {"name": "big", "source": f"file://{big}", "format": "raw"}, query={"wait": 60})
    # Deleting needs no room.
    full.images.fill()
    local.ok("DELETE", "/v1/images/big", query={"wait": 60})
    assert sorted(os.listdir(full.images.path)) == sorted([*before, "filler"])


def test_a_delete_on_full_disks(full, agent, remote, vms, libvirt):
    vms.create("running")
    vms.create("resting", power="off")
    full.disks.fill()
    full.images.fill()
    for name in ("running", "resting"):
        remote.ok("DELETE", f"/v1/vms/{name}", query={"wait": 60})
        assert remote.get(f"/v1/vms/{name}").status == 404
    assert own_disk_files(agent) == [] and libvirt.our_domains() == []


def test_the_agent_restarts_where_its_state_is_full(full, agent, remote, vms, libvirt):
    running = vms.create("running")
    resting = vms.create("resting", power="off")
    known = {op["id"]: op["state"] for op in remote.pages("/v1/operations")}
    full.state.fill()
    # Whatever still fits into the database: nothing hangs, and nothing is half done.
    for n in range(12):
        answer = remote.patch("/v1/vms/resting", {"labels": {"n": str(n)}}, query={"wait": 30})
        assert answer.status in (200, 507), answer
    labels = remote.ok("GET", "/v1/vms/resting")["labels"]
    for _ in range(2):
        agent.kill()
        agent.start()
        found = agent.remote()
        assert {vm["id"] for vm in found.pages("/v1/vms", managed="true")} == {running["id"], resting["id"]}
        operations = {op["id"]: op["state"] for op in found.pages("/v1/operations")}
        assert known.items() <= operations.items(), "every operation that was"
        assert set(operations.values()) <= set(FINAL)
        assert found.ok("GET", "/v1/vms/resting")["labels"] == labels, "what was answered is what is"
        assert found.ok("GET", "/v1/vms/running")["status"]["power"] == "running"
        full.state.fill()
    full.state.make_room()
    remote.ok("PATCH", "/v1/vms/resting", {"labels": {"n": "after"}}, query={"wait": 30},
              headers={"Content-Type": "application/merge-patch+json"})
    assert agent.stop() == 0
    agent.start()
    assert agent.remote().ok("GET", "/v1/vms/resting")["labels"] == {"n": "after"}


def test_a_reserve_lets_the_journal_finish_on_a_full_disk(full, agent, remote, vms):
    vms.create("running")
    vms.create("resting", power="off")
    reserve = os.path.join(full.state.path, "state.db.reserve")
    size = until(lambda: os.path.exists(reserve) and os.stat(reserve).st_blocks * 512, "a reserve is kept", 60)
    assert size >= 2 * MIB
    begun = remote.post("/v1/vms/running/stop", {"timeout_s": 20})
    assert begun.status == 202, begun
    full.state.fill()
    # More than fits into what the database's files have already.
    answers = []
    while os.path.exists(reserve) and len(answers) < 500:
        answers.append(remote.patch("/v1/vms/resting", {"labels": {"n": str(len(answers))}}, query={"wait": 30}).status)
    assert not os.path.exists(reserve), "it was given up"
    assert set(answers) == {200}, f"it was given up before anybody was refused: {answers}"
    state = remote.ok("GET", "/health")["checks"]["state"]
    assert state["status"] == "degraded" and "reserve" in str(state), state
    ended = remote.ok("GET", f"/v1/operations/{begun.json['id']}", query={"wait": 60})
    assert ended["state"] == "succeeded", ended
    remote.ok("POST", "/v1/vms/running/start", query={"wait": 60})
    full.state.make_room()
    until(lambda: os.path.exists(reserve), "the reserve is back", 120)


# Fills the second disk, over and over, a MiB at a time.
WRITER = """#!/bin/sh
(
    while true; do yes ghost | dd of=/dev/vdb bs=1M; sleep 1; done
) >/dev/null 2>&1 &
"""


def test_a_guest_that_runs_out_of_room_goes_on_when_there_is_some(full, agent, remote, local, vms, libvirt):
    vm = vms.create("writer", power="off", disks={"data": {"size_gib": 1}},
                    cloud_init={"user_data": WRITER})
    full.disks.fill(leave=40 * MIB)
    remote.ok("POST", "/v1/vms/writer/start", query={"wait": 60})
    fault = until(lambda: condition(remote, vm, "StorageFault"), "the guest stands still", 180, pause=0.5)
    assert (fault["status"], fault["reason"]) == ("true", "io_error")
    seen = remote.ok("GET", f"/v1/vms/{vm['id']}")
    assert seen["status"]["power"] == "paused" and seen["spec"]["power"] == "on"
    assert libvirt.state(vm["id"]) == "paused"
    assert remote.ok("GET", "/health")["checks"]["storage"]["free_bytes"] >= 0
    time.sleep(6)
    assert condition(remote, vm, "StorageFault") == fault, "since when, and not resumed without room"

    used = os.stat(data_disk(agent, vm)).st_blocks
    full.make_room()
    until(lambda: condition(remote, vm, "StorageFault") is None, "it goes on by itself", 90)
    assert remote.ok("GET", f"/v1/vms/{vm['id']}")["status"]["power"] == "running"
    assert libvirt.state(vm["id"]) == "running"
    until(lambda: os.stat(data_disk(agent, vm)).st_blocks > used, "it writes on", 60)
    assert not [op for op in remote.pages("/v1/operations", target=vm["id"]) if op["kind"] == "vm.resume"]
    # The guest saw no broken disk.
    console = subprocess.run(["grep", "-c", "I/O error", os.path.join(agent.state, "consoles", f"{vm['id']}.log")],
                             capture_output=True, text=True, check=False).stdout.strip()
    assert console == "0"


def data_disk(agent, vm):
    return os.path.join(agent.disks, f"{vm['id']}-data.qcow2")
