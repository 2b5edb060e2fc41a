"""The link to Ghost Core: a real agent, a real libvirtd and guests, and the stand-in for Core as a program."""

import os
import shutil
import signal
import socket
import subprocess
import time
from urllib.request import urlopen

import pytest

from harness.agent import Agent
from harness.core import FakeCore
from harness.paths import BINARY
from harness.pki import openssl
from harness.wait import until

TTL = 2
IDLE_BEAT = 400  # bytes
FINAL = ("succeeded", "failed", "rejected")
NO_LIBVIRTD = {"uri": "qemu+unix:///system?socket=/nowhere/libvirt-sock"}


@pytest.fixture(scope="module")
def core(directory):
    made = FakeCore(os.path.join(directory, "core"), 9443, ttl=TTL, grace=60).start()
    yield made
    made.stop()


def joins(core):
    """Sections of an agent that enrols by itself."""
    return {"agent": {"name": "node-1", "api_url": core.url},
            "core": {"enroll_token": core.token, "tls_ca": core.ca}}


@pytest.fixture(scope="module")
def agent_options(core):
    return joins(core)


@pytest.fixture(autouse=True)
def all_is_well_afterwards(request, core):
    yield
    if core.running:
        core.no_faults()
        assert core.violations() == []
    assert "agent" not in request.fixturenames or request.getfixturevalue("agent").process is not None


@pytest.fixture
def node(directory, pki, request):
    """Makes agents beside the module's, without a hypervisor: Core hears of them all the same."""
    made = []

    def make(at, /, **sections):
        agent = Agent(os.path.join(directory, f"{request.node.name}-{len(made)}"), pki,
                      **{"api": {"listen_addr": "127.0.0.1:9192"}, "metrics": {"listen_addr": "127.0.0.1:9191"},
                         "libvirt": NO_LIBVIRTD, **joins(at), **sections})
        made.append(agent)
        return agent

    yield make
    for agent in made:
        if agent.process is not None:
            agent.kill()


@pytest.fixture
def short_lived(directory):
    """A Core whose certificates live as long as a test has patience."""
    made = FakeCore(os.path.join(directory, "short-lived"), 9444, ttl=2, lifetime=10).start()
    yield made
    assert made.violations() == []
    made.stop()


@pytest.fixture
def own_core(directory):
    """A Core that hears of nobody but the test's agent."""
    made = FakeCore(os.path.join(directory, "own-core"), 9445, ttl=TTL).start()
    yield made
    assert made.violations() == []
    made.stop()


def link(agent):
    return agent.local().ok("GET", "/v1")["core"]


def until_link(agent, state, seconds=60):
    return until(lambda: (seen := link(agent))["state"] == state and seen, f"the link is {state}", seconds)


def check(agent):
    found = agent.local().get("/health", checked=False).json["checks"]["core"]
    return found["status"], found.get("reason", "")


def metrics(agent):
    with urlopen(f"http://127.0.0.1:{agent.METRICS_PORT}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
            if not line.startswith("#")}


def file_of(agent, name):
    with open(os.path.join(agent.state, "core", name), encoding="ascii") as file:
        return file.read()


def create(core, vms, name, **changes):
    """The id of the command that asks for this VM."""
    vms.expect(name)
    return core.queue("vm.create", params=vms.body(name, **changes))


def is_running(agent, name):
    return agent.local().ok("GET", f"/v1/vms/{name}")["status"]["power"] == "running"


# ---- all is well ----
def test_an_agent_with_a_token_enrols_and_beats(agent, core):
    seen = until_link(agent, "connected")
    assert seen["url"] == core.url and seen["last_beat_at"] and "reason" not in seen
    (agent_id, known), = core.agents().items()
    assert agent.local().ok("GET", "/v1")["agent_id"] == agent_id
    assert known["presence"] == "online" and known["certificates"] == 1
    folder = os.path.join(agent.state, "core")
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(folder, "key.pem")).st_mode & 0o777 == 0o600
    assert check(agent) == ("up", "")
    assert f"Ghost Core:  connected to {core.url} (last heartbeat " in agent.ghostctl("status").stdout

    shown = metrics(agent)
    assert shown["ghost_agent_heartbeat_success"] == 1
    assert 0 <= shown["ghost_agent_heartbeat_age_seconds"] < 60
    assert 0 < shown["ghost_agent_heartbeat_round_trip_seconds"] < 10
    assert shown['ghost_agent_heartbeats_total{outcome="answered"}'] >= 1


def test_what_core_knows_of_resources_is_what_the_agent_tells(agent, core):
    until_link(agent, "connected")
    for part in ("cpus", "memory_mib"):
        assert core.agent()["resources"][part] == agent.local().ok("GET", "/v1/resources")[part]


def test_a_beat_without_news_is_small(agent, core):
    until_link(agent, "connected")
    until(lambda: core.agent()["reasons"].get("periodic", 0) > 0 and core.agent()["last_beat_bytes"] < IDLE_BEAT,
          "a beat without news")


def test_commands_are_carried_out_and_core_sees_what_they_did(agent, core, vms, remote, libvirt):
    made = core.ended(create(core, vms, "by-core"))
    assert made["state"] == "succeeded", made
    operation = remote.ok("GET", f"/v1/operations/{made['operation']}")
    assert (operation["kind"], operation["requested_by"]) == ("vm.create", "core:ghost-core")
    vm = remote.ok("GET", "/v1/vms/by-core")
    assert libvirt.state(vm["id"]) == "running"
    until(lambda: core.vm("by-core")["addresses"], "Core sees the guest's address", 180)
    vm = remote.ok("GET", "/v1/vms/by-core")
    until(lambda: core.vm("by-core") == {
        "id": vm["id"], "name": "by-core", "owner": vm["owner"], "generation": vm["generation"], "power": "running",
        "phase": "ready", "addresses": vm["status"]["addresses"], "vcpus": 1, "memory_mib": 160, "disk_gib": 1},
        "Core sees the VM as it is")

    stopped = core.ended(core.queue("vm.stop", target="by-core", params={"force": True}))
    assert stopped["state"] == "succeeded", stopped
    until(lambda: core.vm("by-core")["power"] == "off", "Core sees that it is off")
    stale = core.ended(core.queue("vm.start", target="by-core", if_generation=vm["generation"] + 7))
    assert stale["state"] == "rejected" and stale["problem"]["code"] == "precondition_failed", stale
    late = core.ended(core.queue("vm.start", target="by-core", not_after="2020-01-01T00:00:00Z"))
    assert late["state"] == "rejected" and late["problem"]["code"] == "deadline_exceeded", late
    assert libvirt.state(vm["id"]) == "shut off"
    deleted = core.ended(core.queue("vm.delete", target=vm["id"]))
    assert deleted["state"] == "succeeded", deleted
    until(lambda: core.vm("by-core") is None, "Core sees that it is gone")

    told = [(fact["kind"], fact.get("cmd_id") or fact["vm"]["name"]) for fact in core.facts()]
    assert told == [("vm.created", "by-core"), ("command.result", made["id"]), ("command.result", stopped["id"]),
                    ("command.result", stale["id"]), ("command.result", late["id"]), ("vm.deleted", "by-core"),
                    ("command.result", deleted["id"])]


def test_core_hears_of_a_drain(agent, core):
    assert agent.ghostctl("agent", "drain", "--reason", "new disks").returncode == 0
    until(lambda: core.conditions().get("Draining", {}).get("message") == "new disks", "Core knows that it drains")
    assert agent.ghostctl("agent", "undrain").returncode == 0
    until(lambda: "Draining" not in core.conditions(), "and that it doesn't any more")
    drained = core.ended(core.queue("agent.drain", params={"reason": "asked by Core"}))
    assert drained["state"] == "succeeded", drained
    assert "asked by Core" in agent.ghostctl("status").stdout
    assert core.ended(core.queue("agent.undrain"))["state"] == "succeeded"


def test_a_new_address_is_told_at_once(agent, core):
    until_link(agent, "connected")
    before = core.agent()
    subprocess.run(["ip", "addr", "add", "198.51.100.7/32", "dev", "lo"], check=True)
    try:
        until(lambda: "198.51.100.7" in core.agent()["addresses"]["local"], "Core knows the address")
        until(lambda: core.agent()["reasons"].get("network", 0) > before["reasons"].get("network", 0), "a beat says so")
        assert core.agent()["session_id"] != before["session_id"]
    finally:
        subprocess.run(["ip", "addr", "del", "198.51.100.7/32", "dev", "lo"], check=True)
    until(lambda: "198.51.100.7" not in core.agent()["addresses"]["local"], "and that it left")


# ---- exactly once ----
@pytest.fixture
def told_once(agent, core, libvirt):
    """Checks what became of a command whose agent was killed, while Core repeats all it ever said."""
    known = {operation["id"] for operation in agent.local().pages("/v1/operations")}

    def check_end(command, state="succeeded"):
        core.faults(delivered_again=1)
        agent.start()
        ended = core.ended(command)
        beats = core.agent()["beats"]
        until(lambda: core.agent()["beats"] > beats + 1, "what Core repeats is taken in again")

        assert ended["state"] == state, ended
        begun = [one["id"] for one in agent.local().pages("/v1/operations") if one["id"] not in known]
        assert begun == [ended["operation"]], ended
        names = [vm["name"] for vm in agent.local().pages("/v1/vms", managed="true")]
        if state == "succeeded":
            assert names == ["once"] and is_running(agent, "once") and len(libvirt.our_domains()) == 1
        else:
            assert not names and not libvirt.our_domains() and not agent.disk_files()
        assert len([one for one in ended["acks"] if one in FINAL]) == 1, ended
        told = [fact["state"] for fact in core.facts("command.result") if fact["cmd_id"] == command]
        assert told == [state]
        assert len([fact for fact in core.facts("vm.created") if fact["operation"] == ended["operation"]]) == len(names)
        return ended

    return check_end


@pytest.mark.slow
@pytest.mark.parametrize("moment,after", [("delivered", 0.0), ("delivered", 0.1), ("succeeded", 0.0)])
def test_a_command_takes_effect_once_though_the_agent_is_killed(agent, core, vms, told_once, moment, after):
    """Before its ack, and after it: Core may not have got it, or the agent not that Core did."""
    until_link(agent, "connected")
    core.faults(doubled=1, drop_reply={"next": 1})
    command = create(core, vms, "once", memory_mib=64)
    until(lambda: core.command(command)["delivered"] > 0 if moment == "delivered"
          else core.command(command)["state"] == moment, f"the command is {moment}", 60, pause=0.005)
    time.sleep(after)
    agent.kill()
    told_once(command)


SECRET = {"cloud_init": {"user_data": "#cloud-config\n"}}


@pytest.mark.slow
@pytest.mark.parametrize("point,changes,state", [
    ("accept.before", {}, "succeeded"), ("accept.after", {}, "succeeded"), ("define.before", {}, "succeeded"),
    ("start.after", {}, "succeeded"), ("end.after", {}, "succeeded"),
    # What a guest is told in secret is kept on its seed alone: before that a create can't be gone on with.
    ("disk.after", SECRET, "failed"), ("define.after", SECRET, "succeeded")],
    ids=lambda value: "secret" if value == SECRET else "plain" if value == {} else None)
def test_a_create_of_cores_is_gone_on_with_or_undone(agent, core, vms, told_once, point, changes, state):
    with open(BINARY, "rb") as program:
        if b"GHOST_FAIL_POINT" not in program.read():
            pytest.skip("this build has no fail points: they are in debug builds")
    agent.kill()
    agent.start(GHOST_FAIL_POINT=f"vm.create.{point}")
    until_link(agent, "connected")
    core.faults(doubled=1)
    command = create(core, vms, "once", memory_mib=64, **changes)
    until(agent.has_killed_itself, "the agent is dead", 30)
    ended = told_once(command, state)
    assert state == "succeeded" or ended["problem"]["code"] == "interrupted", ended


# ---- what may be away ----
def test_beats_go_on_while_libvirtd_hangs(agent, core, libvirt):
    until_link(agent, "connected")
    before = core.agent()
    libvirt.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        told = until(lambda: core.conditions().get("HypervisorReady"), "Core knows that the hypervisor hangs", 60)
        assert told["status"] == "false" and told["message"]
        while time.monotonic() - begun < 2.5 * TTL:
            assert core.agent()["last_beat_age_s"] < TTL + 1
            time.sleep(0.1)
        known = core.agent()
        assert known["session_id"] == before["session_id"] and known["seq"] >= before["seq"] + 2
    finally:
        libvirt.signal(signal.SIGCONT)
    until(lambda: "HypervisorReady" not in core.conditions(), "Core knows that it is well again", 90)


def test_a_core_that_was_away_is_found_again(agent, core, vms):
    vms.create("stayer", memory_mib=64)
    until(lambda: core.vm("stayer"), "Core sees the VM")
    core.kill()
    seen = until_link(agent, "unreachable")
    status, reason = check(agent)
    assert status == "degraded" and reason == seen["reason"] and "127.0.0.1:9443" in reason, reason
    assert f"unreachable, {core.url}" in agent.ghostctl("status").stdout
    assert metrics(agent)["ghost_agent_heartbeat_success"] == 0
    assert agent.local().get("/ready").status == 200 and is_running(agent, "stayer")
    core.start()
    until_link(agent, "connected", 120)
    assert check(agent) == ("up", "")
    assert core.vm("stayer")["power"] == "running"
    assert core.agent()["certificates"] == 0, "the new one has issued none"


def test_a_core_that_hangs_holds_nobody_up(agent, core):
    until_link(agent, "connected", 120)
    core.signal(signal.SIGSTOP)
    try:
        until(lambda: agent.local(timeout=5).ok("GET", "/v1")["core"]["state"] == "unreachable", "it is noticed", 60)
        status, reason = check(agent)
        assert status == "degraded" and reason, reason
    finally:
        core.signal(signal.SIGCONT)
    until_link(agent, "connected", 120)


def test_a_core_that_refuses_the_certificate_is_asked_for_a_new_one(agent, core):
    until_link(agent, "connected", 120)
    before, known = file_of(agent, "cert.pem"), core.agent()
    core.refuses("heartbeat", 401)
    until(lambda: file_of(agent, "cert.pem") != before, "the certificate is renewed")
    until(lambda: core.agent()["beats"] > known["beats"], "beats go on")
    until_link(agent, "connected")


def test_an_agent_that_is_too_old_says_so(agent, core):
    until_link(agent, "connected", 120)
    core.refuses("heartbeat", 426)
    seen = until_link(agent, "refused")
    assert "newer version" in seen["reason"] and check(agent) == ("degraded", seen["reason"])
    assert "newer version" in agent.ghostctl("status").stdout
    assert agent.stop() == 0
    agent.start()
    until_link(agent, "connected")


def test_clocks_that_differ_are_told_and_heeded(agent, core):
    until_link(agent, "connected")
    core.faults(clock_off_s=7200)
    told = until(lambda: core.conditions().get("ClockSkew"), "Core knows of the clocks")
    assert told["status"] == "true" and told["reason"] == "clock_behind", told
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))  # an hour ago by Core's clock
    late = core.ended(core.queue("vm.start", target="nobody", not_after=soon))
    assert late["state"] == "rejected" and late["problem"]["code"] == "deadline_exceeded", late
    core.faults(clock_off_s=0)
    until(lambda: "ClockSkew" not in core.conditions(), "they agree again")


@pytest.mark.parametrize("shown,words", [("other_ca", "certificate"), ("other_name", "certificate")])
def test_whoever_is_not_core_hears_nothing(agent, core, shown, words):
    until_link(agent, "connected", 120)
    beats = core.agent()["beats"]
    core.faults(certificate=shown)
    until_link(agent, "unreachable")
    status, reason = check(agent)
    assert status == "degraded" and words in reason, reason
    assert core.agent()["beats"] == beats
    core.faults(certificate="own")
    until_link(agent, "connected", 120)


def test_an_agent_that_is_told_to_leave_keeps_its_vms(agent, core, vms):
    vms.create("stayer", memory_mib=64)
    until_link(agent, "connected", 120)
    core.refuses("heartbeat", 410)
    seen = until_link(agent, "left")
    assert check(agent) == ("degraded", seen["reason"]) and "told this agent to leave" in seen["reason"]
    assert "told this agent to leave" in agent.ghostctl("status").stdout
    assert agent.local().get("/ready").status == 200 and is_running(agent, "stayer")
    assert agent.stop() == 0
    agent.start()
    until_link(agent, "connected")
    until(lambda: core.vm("stayer")["power"] == "running", "Core sees the VM as libvirt does")


def test_a_copy_of_an_agent_is_noticed(agent, core, node, vms):
    vms.create("stayer", memory_mib=64)
    until_link(agent, "connected", 120)
    copy = node(core)
    os.makedirs(copy.state, mode=0o711)
    shutil.copy2(os.path.join(agent.state, "identity.json"), copy.state)
    shutil.copytree(os.path.join(agent.state, "core"), os.path.join(copy.state, "core"))
    copy.start(ready=False)
    seen = until_link(agent, "duplicate")
    assert check(agent) == ("degraded", seen["reason"]) and "copied" in seen["reason"]
    assert is_running(agent, "stayer")
    assert link(copy)["state"] == "connected"
    assert copy.stop() == 0
    assert agent.stop() == 0
    agent.start()
    until_link(agent, "connected")
    until(lambda: core.vm("stayer"), "Core sees the VM again")


def test_an_agent_that_stops_says_goodbye(agent, core):
    until_link(agent, "connected", 120)
    assert agent.stop() == 0
    assert core.agent()["presence"] == "left" and core.agent()["reasons"]["shutdown"] > 0
    agent.start()
    until_link(agent, "connected")


@pytest.fixture
def silent_name_server(directory):
    """It takes questions and answers none; libc waits minutes for it. The socket that hears them."""
    file = os.path.join(directory, "resolv.conf")
    with open(file, "w", encoding="ascii") as text:
        text.write("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        server.settimeout(30)
        subprocess.run(["mount", "--bind", file, "/etc/resolv.conf"], check=True)
        yield server
        subprocess.run(["umount", "/etc/resolv.conf"], check=True)


def test_a_stop_waits_for_no_name_server(node, core, silent_name_server):
    agent = node(core, agent={"name": "node-2", "api_url": "https://core.example.net"}).spawn()
    assert b"example" in silent_name_server.recv(512)
    assert agent.stop() == 0


# ---- certificates ----
def test_a_certificate_is_renewed_without_a_restart(node, short_lived):
    agent = node(short_lived).start(ready=False)
    until_link(agent, "connected")
    first, key, pid = file_of(agent, "cert.pem"), file_of(agent, "key.pem"), agent.process.pid
    until(lambda: short_lived.agent()["certificates"] >= 2 and file_of(agent, "cert.pem") != first, "it is renewed")
    beats = short_lived.agent()["beats"]
    until(lambda: short_lived.agent()["beats"] > beats + 2, "beats go on")
    assert link(agent)["state"] == "connected" and agent.process.pid == pid and agent.alive()
    assert file_of(agent, "key.pem") == key

    # As after a long night: an expired one is renewed, too.
    agent.kill()
    renewed = file_of(agent, "cert.pem")
    known = short_lived.agent()["certificates"]
    ends = short_lived.agent()["certificate_expires"]
    until(lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1)) > ends, "it has expired")
    agent.start(ready=False)
    until_link(agent, "connected")
    assert short_lived.agent()["certificates"] > known and file_of(agent, "cert.pem") != renewed


# ---- enrolment ----
def test_a_token_that_core_does_not_know_is_said_to_be_wrong(node, core):
    agent = node(core, core={"enroll_token": "wrong", "tls_ca": core.ca}).start(ready=False)
    seen = until_link(agent, "refused")
    assert "token" in seen["reason"] and check(agent) == ("degraded", seen["reason"])
    assert agent.local().ok("GET", "/v1")["agent_id"] is None


def test_an_enrolment_whose_answer_is_lost_is_made_once(node, own_core):
    own_core.faults(drop_reply={"next": 1})
    agent = node(own_core).start(ready=False)
    until_link(agent, "connected")
    assert list(own_core.agents()) == [agent.local().ok("GET", "/v1")["agent_id"]]
    # The token was used: the next start does without.
    agent.kill()
    agent.start(ready=False)
    until_link(agent, "connected")
    assert own_core.agent()["certificates"] == 2, "one of them was lost"


@pytest.fixture(scope="module")
def by_hand(core, directory):
    """A certificate and its key that an operator had Core's CA sign."""
    identity = os.path.join(directory, "operators")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=node-by-hand", "-keyout", f"{identity}.key", "-out", f"{identity}.csr")
    openssl("x509", "-req", "-in", f"{identity}.csr", "-CA", core.ca, "-CAkey", f"{core.directory}/ca.key",
            "-set_serial", "77", "-days", "2", "-out", f"{identity}.pem")
    return {"tls_cert": f"{identity}.pem", "tls_key": f"{identity}.key", "tls_ca": core.ca}


def test_a_certificate_of_the_operators_needs_no_enrolment(node, core, by_hand):
    agent = node(core, agent={"name": "operators", "api_url": core.url}, core=by_hand)
    agent.start(ready=False)
    until_link(agent, "connected")
    assert core.agents()["node-by-hand"]["name"] == "operators" and core.agent("operators")["certificates"] == 0
    assert agent.local().ok("GET", "/v1")["agent_id"] == "node-by-hand"


def test_a_ca_that_is_replaced_is_trusted_after_a_hangup(node, core, by_hand, pki, directory):
    trusted = os.path.join(directory, "trusted.crt")
    shutil.copy(pki.ca.certificate, trusted)
    agent = node(core, agent={"name": "operators", "api_url": core.url}, core={**by_hand, "tls_ca": trusted})
    agent.start(ready=False)
    until_link(agent, "unreachable")
    with open(trusted, "w", encoding="ascii") as file:
        file.write("no certificate\n")
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: "the certificates for Ghost Core stay as they are" in agent.log_tail(), "it says what is wrong")
    shutil.copy(core.ca, trusted)
    agent.process.send_signal(signal.SIGHUP)
    until_link(agent, "connected")


def test_an_agent_enrolled_by_hand_connects_when_it_starts(node, core):
    core.add_token("by-hand")
    agent = node(core, agent={"name": "by-hand"}, core={})
    words = ("--config", agent.config_file, "--core", core.url)

    refused = agent.run("enroll", *words, "--token", "wrong", "--ca", core.ca)
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith("ghost-agent: ") and "token" in refused.stderr, refused
    away = agent.run("enroll", "--config", agent.config_file, "--core", "https://127.0.0.1:9", "--token", "by-hand")
    assert away.returncode == 1 and "127.0.0.1:9" in away.stderr and "refused" in away.stderr, away
    unknown_ca = agent.run("enroll", *words, "--token", "by-hand")
    assert unknown_ca.returncode == 1 and "--ca" in unknown_ca.stderr, unknown_ca

    joined = agent.run("enroll", *words, "--token", "by-hand", "--ca", core.ca)
    assert joined.returncode == 0 and joined.stderr == "", joined
    agent_id = agent.start(ready=False).local().ok("GET", "/v1")["agent_id"]
    assert joined.stdout.startswith(f"Enrolled with {core.url} as {agent_id}.\n"), joined
    until_link(agent, "connected")
    assert core.agents()[agent_id]["name"] == "by-hand" and core.agents()[agent_id]["presence"] == "online"

    running = agent.run("enroll", *words, "--token", "by-hand", "--ca", core.ca)
    assert running.returncode == 1 and "stop it first" in running.stderr, running
    print(refused.stderr, away.stderr, unknown_ca.stderr, joined.stdout, running.stderr, sep="")
