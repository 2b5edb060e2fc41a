"""The small guest of tests/system, as people would use it: made with a key, its programs run, its files moved."""

import os
import subprocess


def make_key(directory, name):
    """Path of a new private key; the public one is beside it."""
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)
    return path


def public(key):
    with open(key + ".pub", encoding="utf-8") as file:
        return file.read().strip()


def spec(key, **more):
    return {"image": "tiny", "disk_gib": 1, "vcpus": 1, "memory_mib": 160,
            "cloud_init": {"user": "ops", "ssh_authorized_keys": [public(key)]}, **more}


def make(agent, name, key, wait_for="address", **more):
    body = {"name": name, "wait_for": wait_for, "spec": spec(key, **more)}
    answer = agent.remote().post("/v1/vms", body, query={"wait": 240}, timeout=300)
    assert answer.status == 201, answer
    return answer.json


def run(agent, name, *command, expect=0, **more):
    """Runs a program in it through its agent; what it printed."""
    answer = agent.remote().post(f"/v1/vms/{name}/exec", {"command": list(command), **more}, query={"wait": 120})
    assert answer.status == 200, answer
    result = answer.json["result"]
    assert result["exit_code"] == expect, result
    return result["stdout"]
