"""libvirtd, a guest's agent and a QEMU that hang under the agent: what is asked of it is answered, and all heals."""

import itertools
import os
import signal
import subprocess
import time
from urllib.request import urlopen

import pytest

from harness.proxy import Proxy
from harness.pulse import Pulse, Stream
from harness.wait import until

HUNG = 5.0  # seconds; nothing that is answered from memory takes so long
SILENT = 25.0  # seconds; the stream says something every 15
LIBVIRTD = "/run/libvirt/libvirt-sock"
MORE_THREADS = 8  # lanes that may be left behind

LONG = pytest.param(600, marks=pytest.mark.long)


@pytest.fixture(scope="module")
def proxy(directory):
    made = Proxy(os.path.join(directory, "slow.sock"), LIBVIRTD)
    yield made
    made.close()


@pytest.fixture(scope="module")
def agent_options(proxy):
    return {"libvirt": {"uri": proxy.uri, "virt_type": os.environ.get("GHOST_TEST_VIRT_TYPE", "auto")}}


@pytest.fixture(autouse=True)
def all_is_well_afterwards(libvirt, proxy, agent, request):
    request.getfixturevalue("vms")  # its clean-up comes after this one's
    yield
    proxy.latency = 0
    if proxy._listener is None:  # pylint: disable=protected-access
        proxy.open()
    if libvirt.daemon is None:
        libvirt.start()
    libvirt.signal(signal.SIGCONT)
    until(lambda: agent.answers("/ready"), "the agent is ready again", 90)


def libvirt_check(client):
    return client.get("/health", timeout=HUNG).json["checks"]["libvirt"]


def status(client, vm):
    return client.ok("GET", f"/v1/vms/{vm['id']}")["status"]


def condition(client, vm, kind):
    return next((c for c in status(client, vm)["conditions"] if c["type"] == kind), None)


class Meter:
    """Makes a VM's disk take more and more of the host's, and sees whether the agent's figures follow."""

    blocks = itertools.count()

    def __init__(self, agent, client, vm):
        self._client = client
        self._vm = vm
        self._path = os.path.join(agent.disks, next(name for name in agent.disk_files()
                                                    if vm["id"] in name and name.endswith(".qcow2")))

    def moves(self, seconds):
        before = (status(self._client, self._vm)["usage"] or {"disk_bytes": 0})["disk_bytes"]
        # Blocks beyond its end: they count as its own, and nobody who reads the file sees them.
        place = (1 << 30) + (next(Meter.blocks) << 20)
        subprocess.run(["fallocate", "--keep-size", "-o", str(place), "-l", str(1 << 20), self._path], check=True)
        until(lambda: (status(self._client, self._vm)["usage"] or {"disk_bytes": 0})["disk_bytes"] > before,
              f"fresh figures of {self._vm['name']}", seconds, pause=0.5)
        return True


def lanes(agent):
    """Lanes by class and state, from the metrics."""
    with urlopen(f"http://127.0.0.1:{agent.METRICS_PORT}/metrics", timeout=HUNG) as answer:
        text = answer.read().decode()
    return {line.split("{")[1].split("}")[0]: float(line.rsplit(" ", 1)[1])
            for line in text.splitlines() if line.startswith("ghost_agent_lanes{")}


def replaced(agent):
    return sum(count for name, count in lanes(agent).items() if 'state="replaced"' in name)


@pytest.fixture
def guest(vms):
    return vms.create("running")


@pytest.fixture
def endure(agent, remote, local, guest, record_property):
    """Lets a fault last, and checks what a user sees of it, and that all heals without a restart of the agent."""

    def run(begin, end, seconds, noticed):
        threads = agent.threads()
        pid = agent.process.pid
        seen = status(remote, guest)["observed_at"]
        meter = Meter(agent, remote, guest)
        with Pulse(remote) as pulse, Stream(local) as stream:
            begun = time.monotonic()
            begin()
            if noticed:
                told = until(lambda: (check := libvirt_check(remote))["status"] != "up" and check,
                             "health says that libvirt isn't well", 60)
                assert told["reason"] and told["since"]
            while time.monotonic() - begun < seconds:
                assert status(remote, guest)["power"] == "running"
                assert not condition(remote, guest, "MonitorAnswers"), "the guest isn't blamed"
                time.sleep(1)
            if noticed:
                told_later = libvirt_check(remote)
                assert told_later["status"] != "up" and told_later["since"] >= told["since"]
            over = time.monotonic()
            most = agent.threads()
            end()
            until(lambda: remote.get("/ready").status == 200 and libvirt_check(remote)["status"] == "up",
                  "all is well again", 90)
            healed = time.monotonic() - over
            assert meter.moves(90)
            assert stream.longest_silence(begun, time.monotonic()) < SILENT
        record_property("slowest", {path: round(took, 3) for path, took in pulse.slowest.items()})
        record_property("healed_s", round(healed, 1))
        print(f"slowest {pulse.slowest}, {pulse.asked} asked, healed after {healed:.1f} s, {most} threads at most")
        assert pulse.steady(HUNG)
        assert agent.process.pid == pid and agent.alive()
        assert status(remote, guest)["observed_at"] > seen
        assert most <= threads + MORE_THREADS
        until(lambda: agent.threads() <= threads + MORE_THREADS, "threads that were left behind are few", 60)
        # It isn't just readable: changes go through.
        remote.ok("POST", f"/v1/vms/{guest['id']}/pause", query={"wait": 60})
        remote.ok("POST", f"/v1/vms/{guest['id']}/resume", query={"wait": 60})

    return run


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [20, LONG])
def test_libvirtd_stopped(endure, libvirt, seconds):
    endure(lambda: libvirt.signal(signal.SIGSTOP), lambda: libvirt.signal(signal.SIGCONT), seconds, noticed=True)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, LONG])
def test_libvirtd_killed(endure, libvirt, seconds):
    endure(libvirt.kill, libvirt.start, seconds, noticed=True)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, LONG])
def test_the_socket_and_its_connections_go(endure, proxy, seconds):
    endure(proxy.close, proxy.open, seconds, noticed=True)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, LONG])
def test_the_socket_goes_under_connections_that_stay(endure, proxy, seconds):
    aside = proxy.path + ".aside"
    endure(lambda: os.rename(proxy.path, aside), lambda: os.rename(aside, proxy.path), seconds, noticed=False)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, LONG])
def test_each_answer_of_libvirtd_a_second_late(endure, proxy, remote, guest, agent, seconds):
    def work_while_it_is_slow():
        proxy.latency = 1.0
        for verb, power in (("pause", "paused"), ("resume", "running")):
            remote.ok("POST", f"/v1/vms/{guest['id']}/{verb}", query={"wait": 60})
            until(lambda power=power: status(remote, guest)["power"] == power, f"the VM shows as {power}", 60)
        assert Meter(agent, remote, guest).moves(90)

    def fast_again():
        proxy.latency = 0

    endure(work_while_it_is_slow, fast_again, seconds, noticed=False)


@pytest.fixture
def neighbour(vms):
    return vms.create("neighbour")


def until_moving(agent, client, vm):
    meter = Meter(agent, client, vm)
    meter.moves(60)
    return meter


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 100, LONG])
def test_a_qemu_stopped_beside_a_neighbour(agent, remote, local, libvirt, guest, neighbour, record_property, seconds):
    threads = agent.threads()
    before = replaced(agent)
    meter = until_moving(agent, remote, neighbour)
    until_moving(agent, remote, guest)
    qemu = libvirt.qemu_pid(guest["id"])
    with Pulse(remote) as pulse, Stream(local) as stream:
        begun = time.monotonic()
        os.kill(qemu, signal.SIGSTOP)
        told = until(lambda: condition(remote, guest, "MonitorAnswers"), "the VM says that its monitor hangs", 60)
        assert (told["status"], told["reason"]) == ("false", "monitor_not_answering")
        while True:
            assert meter.moves(30), "the neighbour's figures stay fresh"
            assert not condition(remote, neighbour, "MonitorAnswers")
            assert condition(remote, guest, "MonitorAnswers") == told, "and since when it does"
            assert status(remote, guest)["power"] == "running"
            if time.monotonic() - begun >= seconds:
                break
        assert remote.get("/ready").status == 200
        if seconds > 80:
            assert replaced(agent) > before, lanes(agent)
        os.kill(qemu, signal.SIGCONT)
        until(lambda: condition(remote, guest, "MonitorAnswers") is None, "the monitor answers again", 90)
        assert stream.longest_silence(begun, time.monotonic()) < SILENT
    record_property("slowest", {path: round(took, 3) for path, took in pulse.slowest.items()})
    print(f"slowest {pulse.slowest}, {pulse.asked} asked")
    assert pulse.steady(HUNG)
    until(lambda: agent.threads() <= threads, "the thread that was left behind is gone", 60)
    assert until_moving(agent, remote, guest)


@pytest.mark.slow
def test_a_stopped_qemu_is_powered_off_by_force(agent, remote, libvirt, guest, neighbour):
    os.kill(libvirt.qemu_pid(guest["id"]), signal.SIGSTOP)
    until(lambda: condition(remote, guest, "MonitorAnswers"), "the VM says that its monitor hangs", 60)
    stopped = remote.ok("POST", f"/v1/vms/{guest['id']}/stop", {"force": True}, query={"wait": 60}, timeout=70)
    assert stopped["status"]["power"] == "off"
    assert libvirt.qemu_pid(guest["id"]) is None
    started = remote.ok("POST", f"/v1/vms/{guest['id']}/start", query={"wait": 60}, timeout=70)
    assert started["status"]["power"] == "running"
    assert not condition(remote, guest, "MonitorAnswers")
    assert until_moving(agent, remote, guest) and until_moving(agent, remote, neighbour)


# Opens the agent's port as the agent does, and reads what libvirt asks without ever answering.
SILENT_AGENT = """#!/bin/sh
cat >/usr/sbin/qemu-ga <<'END'
#!/bin/sh
while [ "$1" != -p ]; do shift; done
exec cat "$2" >/dev/null
END
chmod 755 /usr/sbin/qemu-ga
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [20, LONG])
def test_a_guest_agent_that_never_answers(agent, remote, local, libvirt, vms, neighbour, record_property, seconds):
    mute = vms.create("mute", cloud_init={"user_data": SILENT_AGENT})
    channel = "org.qemu.guest_agent.0' state='connected'"
    until(lambda: channel in libvirt.virsh("dumpxml", mute["id"]), "the guest opens its agent's port", 120, pause=1)
    meter = until_moving(agent, remote, neighbour)
    with Pulse(remote) as pulse, Stream(local) as stream:
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            assert meter.moves(30) and until_moving(agent, remote, mute), "nobody's figures wait for it"
        over = time.monotonic()
        assert status(remote, mute)["addresses"], "from the DHCP lease"
        assert libvirt_check(remote)["status"] == "up"
        # Asked to shut down it says nothing, and the power button does it.
        begun_stop = time.monotonic()
        off = remote.ok("POST", f"/v1/vms/{mute['id']}/stop", {"timeout_s": 60}, query={"wait": 90}, timeout=100)
        record_property("stop_s", round(time.monotonic() - begun_stop, 1))
        assert off["status"]["power"] == "off"
        assert stream.longest_silence(begun, over) < SILENT
    record_property("slowest", {path: round(took, 3) for path, took in pulse.slowest.items()})
    print(f"slowest {pulse.slowest}, {pulse.asked} asked")
    assert pulse.steady(HUNG)
