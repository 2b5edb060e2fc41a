"""The command-line client against the real agent, over the socket and over TLS."""

import json
import os
import re
import subprocess

import pytest

DONE, FAILED, USAGE, NOT_FOUND, REFUSED, NO_AGENT = range(6)


@pytest.fixture
def ghostctl(agent):
    """Runs ghostctl and expects an exit code."""
    def run(*arguments, expect=DONE):
        done = agent.ghostctl(*arguments)
        assert done.returncode == expect, (arguments, done)
        return done.stdout if expect == DONE else done.stderr
    return run


@pytest.fixture
def tls(agent, pki):
    return ("--agent", f"https://127.0.0.1:{agent.API_PORT}", "--cert", pki.alice.certificate, "--key", pki.alice.key,
            "--cacert", pki.ca.certificate)


def small(name, *more):
    return ("vm", "create", "--name", name, "--template", "tiny", "--vcpu", "1", "--ram", "64M", "--disk", "1", *more)


def test_the_whole_life_of_a_vm(ghostctl, vms, libvirt):
    vms.expect("cli")
    assert "cli" in ghostctl(*small("cli"))
    shown = json.loads(ghostctl("vm", "status", "cli", "-o", "json"))
    assert shown["status"]["power"] == "running" and shown["spec"]["memory_mib"] == 64
    assert re.search(r"^cli\b.*running", ghostctl("vm", "list"), re.M)
    assert [vm["name"] for vm in json.loads(ghostctl("vm", "list", "-o", "json"))] == ["cli"]
    assert ghostctl("vm", "list", "-o", "name") == "cli\n"
    for verb, state in (("pause", "paused"), ("resume", "running"), ("suspend", "shut off"), ("start", "running")):
        ghostctl("vm", verb, "cli")
        assert libvirt.state(shown["id"]) == state, verb
    ghostctl("vm", "stop", "cli", "--force")
    assert libvirt.state(shown["id"]) == "shut off"
    ghostctl("vm", "update", "cli", "--protected", "--ram", "96M", "--label", "tier=web", "--owner", "ada")
    assert "vm update" in ghostctl("vm", "delete", "cli", "--yes", expect=REFUSED)
    ghostctl("vm", "update", "cli", "--unprotected", "--remove-label", "tier", "--owner", "")
    changed = json.loads(ghostctl("vm", "status", "cli", "-o", "json"))
    assert changed["spec"]["memory_mib"] == 96 and not changed["spec"]["protected"]
    assert (changed["labels"], changed["owner"]) == ({}, shown["owner"])
    ghostctl("vm", "delete", "cli", expect=USAGE)
    ghostctl("vm", "delete", "cli", "--yes")
    assert shown["id"] not in libvirt.virsh("list", "--all", "--uuid")
    assert "cli" in ghostctl("vm", "status", "cli", expect=NOT_FOUND)


def test_status_version_and_resources(ghostctl):
    assert "healthy" in ghostctl("status") and "libvirt" in ghostctl("status")
    assert re.search(r"\d+\.\d+\.\d+", ghostctl("version"))
    resources = json.loads(ghostctl("resources", "-o", "json"))
    assert set(resources) == {"cpus", "memory_mib", "disk_bytes", "load", "pressure", "power"}
    assert "free" in ghostctl("resources").lower()


def test_images(ghostctl, image_file):
    ghostctl("image", "add", "second", "--file", image_file)
    assert re.search(r"^second\b.*available", ghostctl("image", "list"), re.M)
    assert "second" in ghostctl("image", "add", "second", "--source", f"file://{image_file}", expect=REFUSED)
    ghostctl("image", "delete", "second")
    ghostctl("image", "delete", "second", expect=NOT_FOUND)


def test_operations(ghostctl, vms):
    vms.expect("op")
    ghostctl(*small("op", "--no-start"))
    operations = json.loads(ghostctl("operation", "list", "-o", "json"))
    mine = next(op for op in operations if op["kind"] == "vm.create" and op["target"]["name"] == "op")
    assert json.loads(ghostctl("operation", "show", mine["id"], "-o", "json"))["state"] == "succeeded"
    ghostctl("operation", "wait", mine["id"])
    assert ghostctl("operation", "cancel", mine["id"], expect=REFUSED)
    ghostctl("operation", "show", "00000000-0000-7000-8000-000000000000", expect=NOT_FOUND)


def test_over_tls(ghostctl, tls, agent, pki, vms):
    assert "healthy" in ghostctl(*tls, "status")
    vms.expect("far")
    ghostctl(*tls, *small("far"))
    ghostctl(*tls, "vm", "delete", "far", "--yes")
    where = tls[:2]
    anonymous = agent.ghostctl(*where, "--cacert", pki.ca.certificate, "vm", "list")
    assert anonymous.returncode == REFUSED and "certificate" in anonymous.stderr
    for who in (pki.stranger, pki.expired):
        refused = agent.ghostctl(*where, "--cert", who.certificate, "--key", who.key, "--cacert", pki.ca.certificate,
                                 "vm", "list")
        assert refused.returncode in (REFUSED, NO_AGENT) and refused.stderr
    unknown_ca = agent.ghostctl(*where, "--cert", pki.alice.certificate, "--key", pki.alice.key, "--cacert",
                                os.path.join(os.path.dirname(pki.ca.certificate), "another-ca.pem"), "vm", "list")
    assert unknown_ca.returncode == NO_AGENT and "certificate" in unknown_ca.stderr


def test_exit_codes_tell_what_happened(ghostctl, agent):
    ghostctl("vm", "start", "nobody", expect=NOT_FOUND)
    ghostctl("vm", "fly", "cli", expect=USAGE)
    ghostctl("vm", "create", "--name", "x", expect=USAGE)
    ghostctl(*small("../x"), expect=REFUSED)
    ghostctl("vm", "create", "--name", "big", "--template", "tiny", "--ram", "50000", "--disk", "1", expect=REFUSED)
    gone = agent.ghostctl("--socket", "/no/such/agent.sock", "status")
    assert gone.returncode == NO_AGENT and "/no/such/agent.sock" in gone.stderr


def test_errors_are_sentences_with_a_hint(ghostctl):
    said = ghostctl("vm", "create", "--name", "big", "--template", "tiny", "--ram", "50000", "--disk", "1",
                    expect=REFUSED)
    assert "needed" in said and "free" in said and "{" not in said
    assert len(said.splitlines()) >= 2, "a hint follows"


def test_the_client_is_the_daemons_file_by_another_name(agent):
    agent.ghostctl("version")
    done = subprocess.run([os.path.join(agent.directory, "ghostctl"), "--help"], capture_output=True, text=True,
                          check=True)
    for word in ("vm", "image", "operation", "resources", "status", "version"):
        assert word in done.stdout
