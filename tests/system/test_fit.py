"""What is reserved for the owner is never given away; what doesn't fit is told by how much."""

import pytest

KINDS = ("cpus", "memory_mib", "disk_bytes")


@pytest.fixture(scope="module")
def host_memory_mib():
    """As the kernel tells it."""
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) // 1024


@pytest.fixture(scope="module")
def agent_options(host_memory_mib):
    """All but 1 GiB of the host's memory is the owner's."""
    return {"resources": {"reserved_cpu": 0, "reserved_ram_gb": host_memory_mib / 1024 - 1, "reserved_disk_gb": 1,
                          "cpu_overcommit": 2}}


@pytest.fixture
def free(remote):
    def figures():
        resources = remote.ok("GET", "/v1/resources")
        return {kind: resources[kind]["free"] for kind in KINDS}
    return figures


def refused(answer, code, kind):
    assert (answer.status, answer.code) == (507 if code == "insufficient_storage" else 409, code), answer
    assert answer.json["needed"][kind] > answer.json["free"][kind]
    return answer.json


def test_the_sums_are_right(remote, free, vms, host_memory_mib):
    before = remote.ok("GET", "/v1/resources")
    for figures in (before[kind] for kind in KINDS):
        assert 0 <= figures["free"] <= figures["total"] * 2 and figures["reserved"] <= figures["total"]
    assert before["memory_mib"]["total"] == host_memory_mib
    assert abs(before["memory_mib"]["free"] - 1024) < 8
    vms.create("sum-on", memory_mib=256, vcpus=1)
    vms.create("sum-off", memory_mib=512, vcpus=1, power="off")
    after = remote.ok("GET", "/v1/resources")
    assert before["memory_mib"]["free"] - after["memory_mib"]["free"] == 256, "only what runs counts"
    assert before["cpus"]["free"] - after["cpus"]["free"] == 1
    assert after["disk_bytes"]["allocated"] - before["disk_bytes"]["allocated"] == 2 << 30, "every disk counts"
    vms.remove()
    assert free()["memory_mib"] == before["memory_mib"]["free"]
    assert remote.ok("GET", "/v1/resources")["disk_bytes"]["allocated"] == before["disk_bytes"]["allocated"]


def test_a_vm_that_doesnt_fit_is_refused_with_needed_and_free(remote, vms, agent, libvirt, free):
    cpus = int(remote.ok("GET", "/v1/resources")["cpus"]["total"])
    for changes, code, kind in (({"memory_mib": 2048}, "insufficient_resources", "memory_mib"),
                                ({"vcpus": cpus + 1}, "insufficient_resources", "vcpus"),
                                ({"disk_gib": 65536}, "insufficient_storage", "disk_bytes"),
                                ({"disks": {"big": {"size_gib": 65536}}}, "insufficient_storage", "disk_bytes")):
        before = free()
        problem = refused(remote.post("/v1/vms", vms.body("big", **changes), query={"wait": 60}), code, kind)
        assert str(problem["needed"][kind])[:3] in problem["detail"] or "GiB" in problem["detail"]
        assert remote.get("/v1/vms/big").status == 404
        assert free() == before
    assert agent.disk_files() == [] and libvirt.our_domains() == []


def test_the_last_one_that_fits_is_taken_and_the_next_is_not(remote, vms):
    vms.create("first", memory_mib=700)
    problem = refused(remote.post("/v1/vms", vms.body("second", memory_mib=700)), "insufficient_resources",
                      "memory_mib")
    assert problem["needed"]["memory_mib"] == 700 and 300 <= problem["free"]["memory_mib"] <= 324
    vms.create("second", memory_mib=700, power="off")
    refused(remote.post("/v1/vms/second/start"), "insufficient_resources", "memory_mib")
    refused(remote.patch("/v1/vms/second", {"spec": {"power": "on"}}), "insufficient_resources", "memory_mib")
    remote.ok("POST", "/v1/vms/first/stop", {"force": True}, query={"wait": 60})
    assert remote.ok("POST", "/v1/vms/second/start", query={"wait": 60})["status"]["power"] == "running"
    refused(remote.post("/v1/vms/first/start"), "insufficient_resources", "memory_mib")


def test_vcpus_are_overcommitted_only_as_configured(remote, vms):
    cpus = int(remote.ok("GET", "/v1/resources")["cpus"]["total"])
    vms.create("cpu-1", vcpus=cpus, memory_mib=64)
    vms.create("cpu-2", vcpus=cpus, memory_mib=64)
    refused(remote.post("/v1/vms", vms.body("cpu-3", vcpus=1, memory_mib=64)), "insufficient_resources", "vcpus")


def test_two_at_once_dont_take_the_same_memory(remote, vms):
    """Promised when accepted, not when started."""
    bodies = [vms.body(f"race-{n}", memory_mib=400) for n in range(4)]
    for body in bodies:
        vms.expect(body["name"])
    answers = [remote.post("/v1/vms", body) for body in bodies]
    assert sorted(answer.status for answer in answers) == [202, 202, 409, 409]
    for answer in answers:
        if answer.status == 202:
            assert remote.ok("GET", f"/v1/operations/{answer.json['id']}", query={"wait": 120})["state"] == "succeeded"


def test_a_disk_grows_only_into_what_is_free(remote, vms):
    vms.create("grower", power="off")
    refused(remote.patch("/v1/vms/grower", {"spec": {"disk_gib": 65536}}), "insufficient_storage", "disk_bytes")
    assert remote.ok("GET", "/v1/vms/grower")["spec"]["disk_gib"] == 1
