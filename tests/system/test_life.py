"""The whole life of a VM over HTTPS with a client certificate, on a real hypervisor with a guest that boots."""

import hashlib
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from harness.guest import answers_ping, greeting
from harness.wait import until

pytestmark = pytest.mark.slow

USER_DATA = "#cloud-config\npassword: never-to-be-shown\n"


@pytest.fixture(scope="module")
def guest(agent):
    """A VM `web` that runs and has an address; its id."""
    answer = agent.remote().post("/v1/vms", {
        "name": "web", "owner": "alice", "labels": {"tier": "web"}, "wait_for": "address",
        "spec": {"image": "tiny", "disk_gib": 1, "vcpus": 1, "memory_mib": 160, "disks": {"data": {"size_gib": 1}},
                 "cloud_init": {"hostname": "web-host", "user_data": USER_DATA}},
    }, query={"wait": 240}, headers={"X-Request-Id": "make-web"}, timeout=260)
    assert answer.status == 201, answer
    assert answer.headers["location"] == f"/v1/vms/{answer.json['id']}"
    yield answer.json["id"]


@pytest.fixture
def vm(guest, remote):
    """Reads the VM as it is now."""
    return lambda: remote.ok("GET", f"/v1/vms/{guest}")


@pytest.fixture
def act(guest, remote):
    """Asks for a change of power and gives the VM as it is after it."""
    def do(verb, body=None):
        return remote.ok("POST", f"/v1/vms/{guest}/{verb}", body, query={"wait": 120})
    return do


def console(libvirt, guest):
    path = re.search(r"<log file='([^']+)'", libvirt.virsh("dumpxml", guest)).group(1)
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def boots(libvirt, guest):
    """How often the guest has booted since it was started, by its console."""
    return console(libvirt, guest).count("tiny: ready")


def disk_sizes(libvirt, guest):
    """Virtual sizes in GiB by the disk's serial number."""
    xml = libvirt.virsh("dumpxml", guest)
    sizes = {}
    for disk in re.findall(r"<disk type='file' device='disk'.*?</disk>", xml, re.S):
        path = re.search(r"<source file='([^']+)'", disk).group(1)
        info = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], capture_output=True, check=True)
        sizes[re.search(r"<serial>([^<]+)", disk).group(1)] = json.loads(info.stdout)["virtual-size"] >> 30
    return sizes


def test_a_created_vm_boots_and_answers_on_its_address(guest, vm, libvirt):
    seen = vm()
    assert seen["status"]["power"] == "running" and seen["status"]["phase"] == "ready"
    assert libvirt.state(guest) == "running"
    address = seen["status"]["addresses"][0]
    assert ipaddress.ip_address(address) in ipaddress.ip_network("192.168.122.0/24")
    assert until(lambda: answers_ping(address), "the guest answers a ping", 30)
    assert until(lambda: greeting(address), "the guest's ssh answers", 60).startswith(b"SSH-2.0-")
    assert boots(libvirt, guest) == 1
    assert any(c["type"] == "HasAddress" and c["status"] == "true" and c["reason"] == "dhcp_lease"
               for c in seen["status"]["conditions"])


def test_the_guest_got_its_seed(guest, vm, libvirt):
    until(lambda: "web-host" in console(libvirt, guest), "the console shows the host name of the seed", 30)
    assert vm()["spec"]["cloud_init"]["hostname"] == "web-host"


def test_the_vm_is_as_it_was_asked_for(vm, libvirt, guest):
    seen = vm()
    assert seen["name"] == "web" and seen["owner"] == "alice" and seen["labels"] == {"tier": "web"}
    assert seen["managed"] is True
    spec = seen["spec"]
    assert (spec["image"], spec["disk_gib"], spec["vcpus"], spec["memory_mib"]) == ("tiny", 1, 1, 160)
    assert spec["power"] == "on"
    assert spec["disks"] == {"data": {"size_gib": 1}} and spec["nics"] == {"eth0": {"network": "default"}}
    assert (spec["autostart"], spec["protected"], spec["firmware"]) == ("last", False, "bios")
    assert disk_sizes(libvirt, guest) == {"root": 1, "data": 1}


def test_user_data_is_never_shown_but_its_hash_is(vm, agent, libvirt, guest):
    assert vm()["spec"]["cloud_init"]["user_data_sha256"] == hashlib.sha256(USER_DATA.encode()).hexdigest()
    assert "never-to-be-shown" not in json.dumps(vm()) + agent.log() + libvirt.virsh("dumpxml", guest)


def test_a_vm_is_found_by_name_and_by_id(guest, remote):
    assert remote.ok("GET", "/v1/vms/web")["id"] == guest
    assert guest in [vm["id"] for vm in remote.ok("GET", "/v1/vms")["items"]]


def test_an_unchanged_vm_is_304(guest, remote):
    def unchanged():
        etag = remote.get(f"/v1/vms/{guest}").headers["etag"]
        answer = remote.get(f"/v1/vms/{guest}", headers={"If-None-Match": etag})
        assert answer.headers["etag"] and re.fullmatch(r'"g\d+-r\d+"', etag)
        return answer.status == 304 and answer.body == b""

    until(unchanged, "two reads in a row see the same VM")
    assert remote.get(f"/v1/vms/{guest}", headers={"If-None-Match": '"g0-r0"'}).status == 200


def test_usage_is_sampled(vm):
    usage = until(lambda: vm()["status"]["usage"], "usage appears", 60)
    assert usage["memory_mib"] > 0 and usage["disk_bytes"] > 0 and vm()["status"]["uptime_s"] > 0


def test_the_create_is_an_operation_with_its_request(guest, remote):
    operations = remote.pages("/v1/operations", kind="vm.create")
    mine = next(op for op in operations if op["target"]["id"] == guest)
    assert mine["state"] == "succeeded" and mine["request_id"] == "make-web"
    assert "alice" in mine["requested_by"]
    assert mine["result"]["href"] == f"/v1/vms/{guest}"
    assert remote.ok("GET", f"/v1/operations/{mine['id']}", query={"wait": 1}) == mine


def test_an_image_in_use_is_kept(guest, remote):
    image = remote.ok("GET", "/v1/images/tiny")
    assert image["used_by"] == [guest] and image["state"] == "available" and image["verified"] == "local"
    refused = remote.delete("/v1/images/tiny")
    assert (refused.status, refused.code) == (409, "state_conflict")
    assert guest in json.dumps(refused.json)


def test_labels_and_protection_change_and_raise_the_generation(guest, remote, vm):
    before = vm()
    after = remote.patch(f"/v1/vms/{guest}", {"labels": {"tier": None, "env": "prod"}, "owner": "bob",
                                              "spec": {"protected": True}}, query={"wait": 30})
    assert after.status == 200, after
    assert after.json["labels"] == {"env": "prod"} and after.json["owner"] == "bob"
    assert after.json["spec"]["protected"] is True
    assert after.json["generation"] > before["generation"]


def test_a_protected_vm_is_not_deleted(guest, remote, libvirt):
    refused = remote.delete(f"/v1/vms/{guest}", query={"wait": 30})
    assert (refused.status, refused.code) == (403, "protected")
    assert libvirt.state(guest) == "running"
    remote.ok("PATCH", f"/v1/vms/{guest}", {"spec": {"protected": False}}, query={"wait": 30})


def test_a_stale_if_match_changes_nothing(guest, remote, vm):
    stale = remote.get(f"/v1/vms/{guest}").headers["etag"]
    remote.ok("PATCH", f"/v1/vms/{guest}", {"labels": {"round": "2"}}, query={"wait": 30})
    before = vm()
    for method, path, body in (("PATCH", "", {"labels": {"round": "3"}}), ("POST", "/stop", {"force": True}),
                               ("DELETE", "", None)):
        refused = remote.request(method, f"/v1/vms/{guest}{path}", body, headers={"If-Match": stale})
        assert (refused.status, refused.code) == (412, "precondition_failed")
    assert vm()["generation"] == before["generation"] and vm()["status"]["power"] == "running"
    fresh = remote.get(f"/v1/vms/{guest}").headers["etag"]
    assert remote.patch(f"/v1/vms/{guest}", {"labels": {"round": "3"}}, query={"wait": 30},
                        headers={"If-Match": fresh, "Content-Type": "application/merge-patch+json"}).status == 200


def test_a_paused_vm_stands_still_and_goes_on(act, vm, guest, libvirt):
    assert act("pause")["status"]["power"] == "paused"
    assert libvirt.state(guest) == "paused"
    address = vm()["status"]["addresses"][0]
    assert not answers_ping(address)
    assert act("resume")["status"]["power"] == "running"
    assert until(lambda: answers_ping(address), "the guest answers again")


def test_a_suspended_vm_starts_where_it_was(act, vm, guest, libvirt):
    # A conversation begun before goes on after: only the same memory knows of it.
    with socket.create_connection((vm()["status"]["addresses"][0], 22), 10) as conversation:
        conversation.settimeout(60)
        assert conversation.recv(64).startswith(b"SSH-2.0-")
        assert act("suspend")["status"]["power"] == "suspended"
        assert libvirt.state(guest) == "shut off" and libvirt.qemu_pid(guest) is None
        assert act("start")["status"]["power"] == "running"
        conversation.sendall(b"SSH-2.0-test\r\n")
        assert conversation.recv(4096)


def stop_the_saver(libvirt, operation):
    """Stops the helper that writes the memory, so that the save goes on for as long as we like; None if it was over
    before."""
    while operation()["state"] in ("pending", "running"):
        saver = libvirt.saver()
        if saver is not None:
            os.kill(saver, signal.SIGSTOP)
            return saver
    return None


def test_a_suspend_is_cancelled_and_the_guest_runs_on(act, vm, guest, libvirt, remote):
    address = until(lambda: vm()["status"]["addresses"], "the guest has its address again", 60)[0]
    for _ in range(20):
        begun = remote.post(f"/v1/vms/{guest}/suspend")
        assert begun.status == 202 and begun.json["cancellable"], begun
        operation = f"/v1/operations/{begun.json['id']}"
        saver = stop_the_saver(libvirt, lambda path=operation: remote.ok("GET", path))
        if saver is not None:
            break
        act("start")
    assert saver is not None, "each save was over before it could be held"
    try:
        assert remote.post(f"{operation}/cancel").status == 202
        time.sleep(3)  # libvirt is asked at once and again every second, and can't finish while the helper is held
    finally:
        os.kill(saver, signal.SIGCONT)
    ended = remote.ok("GET", operation, query={"wait": 60})
    assert ended["state"] == "cancelled", ended
    assert vm()["status"]["power"] == "running" and libvirt.state(guest) == "running"
    assert until(lambda: answers_ping(address), "the guest answers on")
    assert libvirt.saver() is None


def test_reset_boots_the_same_machine_anew(act, guest, libvirt):
    pid, boots_before = libvirt.qemu_pid(guest), boots(libvirt, guest)
    assert act("reset")["status"]["power"] == "running"
    until(lambda: boots(libvirt, guest) > boots_before, "the guest boots again", 90)
    assert libvirt.qemu_pid(guest) == pid


def test_stop_asks_the_guest_and_start_boots_it(act, vm, guest, libvirt):
    stopped = act("stop", {"timeout_s": 90})
    assert stopped["status"]["power"] == "off" and stopped["spec"]["power"] == "off"
    assert stopped["status"]["power_reason"] == "shutdown", "the guest itself shut down"
    assert libvirt.state(guest) == "shut off"
    started = act("start")
    assert started["status"]["power"] == "running" and started["spec"]["power"] == "on"
    address = until(lambda: vm()["status"]["addresses"], "it gets an address again", 120)[0]
    assert until(lambda: greeting(address), "the guest's ssh answers", 90)


def test_a_new_size_waits_for_a_restart(act, vm, guest, remote, libvirt):
    def restart_required():
        return any(c["type"] == "RestartRequired" and c["status"] == "true" for c in vm()["status"]["conditions"])

    changed = remote.patch(f"/v1/vms/{guest}", {"spec": {"memory_mib": 192, "disk_gib": 2}}, query={"wait": 60})
    assert changed.status == 200, changed
    assert changed.json["spec"]["memory_mib"] == 192 and changed.json["spec"]["disk_gib"] == 2
    assert until(restart_required, "the condition appears")
    pid = libvirt.qemu_pid(guest)
    act("restart", {"timeout_s": 90})
    assert libvirt.qemu_pid(guest) != pid
    assert re.search(r"Max memory:\s+196608 KiB", libvirt.virsh("dominfo", guest))
    assert disk_sizes(libvirt, guest)["root"] == 2
    assert until(lambda: not restart_required(), "the condition goes")


def test_a_root_disk_never_shrinks(guest, remote):
    refused = remote.patch(f"/v1/vms/{guest}", {"spec": {"disk_gib": 1}})
    assert (refused.status, refused.code) == (422, "validation_failed")
    assert refused.json["errors"][0]["pointer"] == "/spec/disk_gib"


def test_a_guest_that_shuts_itself_down_is_off_but_still_wanted(guest, vm, libvirt):
    address = until(lambda: vm()["status"]["addresses"], "it has an address", 120)[0]
    until(lambda: greeting(address), "the guest is up", 90)
    libvirt.virsh("shutdown", guest)
    until(lambda: vm()["status"]["power"] == "off", "the agent sees it off", 90)
    assert vm()["spec"]["power"] == "on" and vm()["status"]["power_reason"] == "shutdown"


def test_patching_the_wanted_power_acts(guest, remote, libvirt):
    on = remote.ok("PATCH", f"/v1/vms/{guest}", {"spec": {"power": "on"}}, query={"wait": 60})
    assert on["status"]["power"] == "running" and libvirt.state(guest) == "running"


def test_a_forced_stop_needs_no_guest(act, guest, libvirt):
    stopped = act("stop", {"force": True})
    assert stopped["status"]["power"] == "off"
    assert libvirt.state(guest) == "shut off"


def test_a_deleted_vm_is_gone_with_all_that_was_its(guest, remote, agent, libvirt):
    deleted = remote.delete(f"/v1/vms/{guest}", query={"wait": 60})
    assert deleted.status == 200 and deleted.json["state"] == "succeeded" and deleted.json["kind"] == "vm.delete"
    assert remote.get(f"/v1/vms/{guest}").status == 404
    assert remote.get("/v1/vms/web").status == 404
    assert guest not in libvirt.virsh("list", "--all", "--uuid")
    assert agent.disk_files() == []
    assert remote.ok("GET", "/v1/images/tiny")["used_by"] == []


def test_an_image_that_nobody_uses_can_go(agent, remote, image_file):
    agent.add_image(image_file, "other")
    assert remote.delete("/v1/images/other", query={"wait": 30}).status == 200
    assert remote.get("/v1/images/other").status == 404
    assert remote.get("/v1/images/tiny").status == 200, "the same blob under another name stays"
