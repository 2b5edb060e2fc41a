"""A guest as people have them: Debian 12 with cloud-init, its guest agent and sshd."""

import os
import subprocess

import pytest

from harness import image
from harness.wait import until

pytestmark = pytest.mark.long

# An emulated processor boots Debian in two to four minutes, more when others are busy.
BOOT = 900


@pytest.fixture(scope="module")
def agent_options():
    return {"resources": {"reserved_cpu": 0, "reserved_ram_gb": 0, "reserved_disk_gb": 0, "cpu_overcommit": 100}}


@pytest.fixture(scope="module")
def debian(agent):
    return agent.add_image(image.debian(), "debian-12")["name"]


@pytest.fixture(scope="module")
def key(directory):
    path = os.path.join(directory, "guest_key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)
    return path


def spec(name, key, **cloud_init):
    with open(key + ".pub", encoding="utf-8") as public:
        keys = [public.read().strip()]
    return {"image": name, "disk_gib": 4, "vcpus": 1, "memory_mib": 768,
            "cloud_init": {"user": "ops", "ssh_authorized_keys": keys, **cloud_init}}


def readiness(client, name):
    conditions = client.ok("GET", f"/v1/vms/{name}")["status"]["conditions"]
    return next((c for c in conditions if c["type"] == "GuestReady"), None)


def ssh(key, address, *command):
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=60",
               "LogLevel=ERROR"]
    told = subprocess.run(["ssh", "-F", "none", "-i", key, *(f"-o{option}" for option in options),
                           f"ops@{address}", *command],
                          capture_output=True, text=True, check=False, timeout=180, stdin=subprocess.DEVNULL)
    assert told.returncode == 0, told
    return told.stdout


def test_a_debian_is_ready_and_lets_its_key_in(agent, remote, vms, debian, key):
    vms.expect("deb")
    begun = remote.post("/v1/vms", {"name": "deb", "wait_for": "guest_ready", "spec": spec(debian, key)})
    assert begun.status == 202, begun
    seen = []

    def ended():
        told = readiness(remote, "deb")
        if told and told["reason"] not in seen:
            seen.append(told["reason"])
        operation = remote.ok("GET", f"/v1/operations/{begun.json['id']}", query={"wait": 2})
        return operation["state"] not in ("pending", "running") and operation

    operation = until(ended, "the create ends", BOOT)
    assert operation["state"] == "succeeded", operation
    told = readiness(remote, "deb")
    assert (told["status"], told["reason"]) == ("true", "cloud_init_done"), told
    assert seen[0] == "no_guest_agent" and "cloud_init_running" in seen, seen
    address = until(lambda: remote.ok("GET", "/v1/vms/deb")["status"]["addresses"], "it has an address", 60)[0]
    assert ssh(key, address, "hostname; whoami; sudo -n id -u").split() == ["deb", "ops", "0"]
    assert "done" in ssh(key, address, "cloud-init status")
    # The disk was grown to what was asked for.
    assert int(ssh(key, address, "df --output=size -BM / | tail -n 1").strip().rstrip("M")) > 3000

    before = agent.log().count("the guest is ready")
    assert remote.ok("POST", "/v1/vms/deb/reset", query={"wait": 60})["status"]["power"] == "running"
    until(lambda: readiness(remote, "deb")["status"] != "true", "what it said before the reset is forgotten", 30)
    until(lambda: readiness(remote, "deb")["status"] == "true", "it is ready once more", BOOT, pause=2)
    assert agent.log().count("the guest is ready") == before + 1


def test_a_module_that_fails_is_named(remote, vms, debian, key):
    vms.expect("broken")
    data = "#cloud-config\nruncmd:\n  - [sh, -c, 'exit 3']\n"
    made = remote.post("/v1/vms", {"name": "broken", "spec": spec(debian, key, user_data=data)}, query={"wait": 120})
    assert made.status == 201, made

    def failed():
        told = readiness(remote, "broken")
        return told["reason"] == "cloud_init_error" and told

    told = until(failed, "the failure shows", BOOT, pause=2)
    assert told["status"] == "false", told
    assert "scripts" in told["message"] and "user" in told["message"] and "runcmd" in told["message"], told
    # The key came all the same, as vendor data.
    address = until(lambda: remote.ok("GET", "/v1/vms/broken")["status"]["addresses"], "it has an address", 60)[0]
    assert "error" in ssh(key, address, "cloud-init status || true")
