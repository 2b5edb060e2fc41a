"""The agent killed at every named point of every kind of change, one after the other (base/fail_point.hpp).

A point is where a step of a journalled operation begins or has ended. Killed there, started again and asked again with
the same Idempotency-Key, the agent must come to what was asked for, once, and leave nothing behind.
"""

import hashlib
import http.client
import os
import re
import subprocess
from dataclasses import dataclass
from typing import Callable

import pytest

from harness.agent import Agent
from harness.client import CONTRACT
from harness.image_server import ImageServer
from harness.paths import BINARY
from harness.wait import until

pytestmark = pytest.mark.slow

FINAL = ("succeeded", "failed", "cancelled")
# What is in the state directory of an agent that has nothing, the database apart; the new identity is kept room.
BARE = ["agent.lock", "consoles", "disks", "identity.json", "identity.json.new", "images"]
VM = "box"
FOREIGN = "legacy"  # a domain that others defined
FOREIGN_XML = f"""<domain type='qemu'><name>{FOREIGN}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
    <os><type arch='x86_64'>hvm</type></os></domain>"""
REMOTE_DIRECTORY = "/remote"
REMOTE = f"{REMOTE_DIRECTORY}/blank.qcow2"  # an image of the catalogue, as the vendor's server has it
ORPHAN = "0198c0de-0000-7000-8000-000000000001-root.qcow2"


def vm_body(**spec):
    """A guest that does nothing, from an image with nothing in it."""
    return {"name": VM, "spec": {"image": "blank", "disk_gib": 1, "vcpus": 1, "memory_mib": 64, **spec}}


class Bench:
    """One agent, its libvirtd, and what the scenes do with them."""

    def __init__(self, agent, libvirt, blank, server):
        self.agent = agent
        self.libvirt = libvirt
        self.blank = f"file://{blank}"
        self.blank_bytes = blank.read_bytes()
        self.server = server
        server.publish(REMOTE, self.blank_bytes)

    def files(self):
        """What is in the state directory, but for the database's own."""
        found = (os.path.relpath(os.path.join(directory, name), self.agent.state)
                 for directory, names, files in os.walk(self.agent.state) for name in names + files)
        return sorted(name for name in found if not name.startswith("state.db"))

    def ok(self, method, path, body=None):
        return self.agent.local().ok(method, path, body, query={"wait": 60})

    def add_image(self):
        self.ok("POST", "/v1/images", {"name": "blank", "source": self.blank})

    def add_remote(self):
        self.ok("POST", "/v1/images", {"source": "remote"})

    def add_vm(self, **spec):
        self.add_image()
        return self.ok("POST", "/v1/vms", vm_body(**spec))

    def vms(self):
        return self.agent.local().pages("/v1/vms")

    def operations(self, kind):
        return [op for op in self.agent.local().pages("/v1/operations") if op["kind"] == kind]

    def the_vm(self):
        """The only one there is, in the API and in libvirt."""
        (vm,) = self.vms()
        assert self.libvirt.domains() == [VM]
        assert vm["name"] == VM and vm["managed"] and vm["status"]["phase"] == "ready"
        return vm

    def no_vm(self):
        assert self.vms() == [] and self.libvirt.domains() == []

    def power_is(self, power, wanted):
        vm = self.the_vm()
        assert (vm["status"]["power"], vm["spec"]["power"]) == (power, wanted)
        libvirts = {"running": "running", "paused": "paused", "off": "shut off", "suspended": "shut off"}
        assert self.libvirt.state(VM) == libvirts[power]

    def clear(self):
        """All that there is goes by the API, and nothing may be left by then."""
        local = self.agent.local()
        for vm in self.vms():
            self.ok("DELETE", f"/v1/vms/{vm['id']}")
        for image in local.pages("/v1/images"):
            self.ok("DELETE", f"/v1/images/{image['name']}")
        assert local.ok("GET", "/v1/orphans")["items"] == []
        assert self.libvirt.domains() == []
        assert self.files() == BARE
        for directory in ("/var/lib/libvirt/qemu/save", "/var/lib/libvirt/qemu/nvram", "/etc/libvirt/qemu/autostart"):
            assert not os.path.isdir(directory) or os.listdir(directory) == [], directory
        until(lambda: self.processes() == [self.agent.process.pid], "no process is left but the agent", 10)

    @staticmethod
    def processes():
        """Those of agents, guests and the programs that agents run."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                        if file.read().startswith(("ghost-agent", "qemu")):
                            found.append(int(entry))
                except OSError:
                    continue
        return found

    def forget(self):
        """The next test starts from nothing, whatever this one left."""
        if self.agent.process is not None:
            self.agent.kill()
        self.libvirt.try_virsh(f"destroy {VM}; undefine {VM} --managed-save --nvram; undefine {FOREIGN}")
        self.libvirt.forget_pool()
        self.agent.forget()


@dataclass(frozen=True)
class Scene:
    """A request, what must be there before it, and what must hold after it."""

    kind: str
    steps: tuple
    prepare: Callable
    request: Callable  # of the bench: method, path, body
    check: Callable
    # The first point from which the next start brings the operation to its end. One that is cut off before it ends as
    # interrupted, and the request begins another when it is repeated.
    kept_from: str = "accept.after"
    refused: str = ""  # the code that it fails with, when it is to fail
    last: tuple = ("end.after",)

    @property
    def points(self):
        """In the order in which they are passed."""
        names = ["accept.before", "accept.after"]
        names += [f"{step}.{side}" for step in self.steps for side in ("before", "after")]
        return [f"{self.kind}.{name}" for name in [*names, *self.last]]

    def is_kept(self, point):
        return self.points.index(point) >= self.points.index(f"{self.kind}.{self.kept_from}")


def verb(name, body=None):
    return lambda bench: ("POST", f"/v1/vms/{VM}/{name}", body or {})


def vm_that_is(power):
    def prepare(bench):
        bench.add_vm(power="off" if power == "off" else "on")
        if power == "paused":
            bench.ok("POST", f"/v1/vms/{VM}/pause", {})

    return prepare


def power_is(power, wanted="on"):
    return lambda bench: bench.power_is(power, wanted)


def check_update(bench):
    bench.power_is("running", "on")
    spec = bench.the_vm()["spec"]
    assert (spec["vcpus"], spec["memory_mib"], spec["autostart"], spec["disk_gib"]) == (CPUS, 96, "always", 2)
    info = bench.libvirt.virsh("dominfo", VM)
    assert re.search(rf"^CPU\(s\): +{CPUS}$", info, re.M) and re.search(r"^Autostart: +enable$", info, re.M), info
    assert re.search(rf"^Max memory: +{96 * 1024} KiB$", info, re.M), info
    size = re.search(r"^Capacity: +(\d+)$", bench.libvirt.virsh("domblkinfo", VM, "vda"), re.M)
    assert int(size[1]) == 2 << 30


def define_foreign(bench):
    path = os.path.join(bench.agent.directory, "foreign.xml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(FOREIGN_XML)
    bench.libvirt.virsh("define", path)
    until(bench.vms, "the agent sees the domain", 10)


def check_adopted(bench):
    bench.power_is("off", "off")
    assert bench.libvirt.is_ours(VM)


def leave_orphan(bench):
    with open(os.path.join(bench.agent.disks, ORPHAN), "wb") as file:
        file.write(b"left")


def check_no_orphan(bench):
    assert bench.agent.disk_files() == []


def check_image(bench):
    (image,) = bench.agent.local().pages("/v1/images")
    assert image["name"] == "blank" and image["state"] == "available"


def check_image_is_newest(bench):
    (image,) = bench.agent.local().pages("/v1/images")
    assert image["name"] == "remote" and image["state"] == "available"
    newest = hashlib.sha256(bench.server.sites[REMOTE].content).hexdigest()
    assert image["digest"] == f"sha256:{newest}"
    assert bench.files() == sorted([*BARE, f"images/{newest}.qcow2"])


def leave_image_behind(bench):
    """The vendor has a newer one than is here."""
    bench.add_remote()
    bench.server.publish(REMOTE, bench.blank_bytes + b"newer", etag='"2"')


def check_no_image(bench):
    assert bench.agent.local().pages("/v1/images") == []


CPUS = min(2, os.cpu_count())
QUICKLY = {"timeout_s": 0}  # this guest heeds no request to shut down
CREATE = ("image", "disk", "seed", "define", "start")
EXTRA_DISK = {"data": {"size_gib": 1}}
SECRET = {"user_data": "#cloud-config\n"}
CHANGES = {"spec": {"vcpus": CPUS, "memory_mib": 96, "autostart": "always", "disk_gib": 2, "power": "on"}}

SCENES = {
    "image.add": Scene("image.add", ("fetch",), lambda bench: None,
                       lambda bench: ("POST", "/v1/images", {"name": "blank", "source": bench.blank}), check_image),
    "image.add-remote": Scene("image.add", ("fetch",), lambda bench: None,
                              lambda bench: ("POST", "/v1/images", {"source": "remote"}), check_image_is_newest),
    "image.refresh": Scene("image.refresh", ("fetch",), leave_image_behind,
                           lambda bench: ("POST", "/v1/images/remote/refresh", {}), check_image_is_newest),
    "image.prune": Scene("image.prune", ("delete",), Bench.add_remote,
                         lambda bench: ("POST", "/v1/image-cache/prune", {}), check_no_image),
    "image.delete": Scene("image.delete", ("delete",), Bench.add_image,
                          lambda bench: ("DELETE", "/v1/images/blank", None), check_no_image),
    "vm.create": Scene("vm.create", CREATE, Bench.add_image,
                       lambda bench: ("POST", "/v1/vms", vm_body(disks=EXTRA_DISK)), power_is("running")),
    # What the guest is told in secret isn't kept: until it is on the seed, such a create can't be gone on with.
    "vm.create-secret": Scene("vm.create", CREATE, Bench.add_image,
                              lambda bench: ("POST", "/v1/vms", vm_body(disks=EXTRA_DISK, cloud_init=SECRET)),
                              power_is("running"), kept_from="seed.after"),
    "vm.create-undone": Scene("vm.create", CREATE, Bench.add_image,
                              lambda bench: ("POST", "/v1/vms", vm_body(nics={"eth0": {"network": "nowhere"}})),
                              Bench.no_vm, refused="not_found", last=("undo.before", "end.after")),
    "vm.start": Scene("vm.start", ("prepare", "start"), vm_that_is("off"), verb("start"), power_is("running"),
                      kept_from="start.after"),
    "vm.stop": Scene("vm.stop", ("shutdown", "power_off"), vm_that_is("running"), verb("stop", QUICKLY),
                     power_is("off", "off")),
    "vm.stop-forced": Scene("vm.stop", ("power_off",), vm_that_is("running"), verb("stop", {"force": True}),
                            power_is("off", "off")),
    "vm.restart": Scene("vm.restart", ("shutdown", "power_off", "prepare", "start"), vm_that_is("running"),
                        verb("restart", QUICKLY), power_is("running"), kept_from="shutdown.before"),
    "vm.reset": Scene("vm.reset", ("reset",), vm_that_is("running"), verb("reset"), power_is("running"),
                      kept_from="end.after"),
    "vm.pause": Scene("vm.pause", ("pause",), vm_that_is("running"), verb("pause"), power_is("paused"),
                      kept_from="pause.after"),
    "vm.resume": Scene("vm.resume", ("resume",), vm_that_is("paused"), verb("resume"), power_is("running"),
                       kept_from="resume.after"),
    "vm.suspend": Scene("vm.suspend", ("suspend",), vm_that_is("running"), verb("suspend"), power_is("suspended"),
                        kept_from="suspend.before"),
    # All but the power is made good by the next start.
    "vm.update": Scene("vm.update", ("record", "autostart", "resize", "grow", "prepare", "start"), vm_that_is("off"),
                       lambda bench: ("PATCH", f"/v1/vms/{VM}", CHANGES), check_update, kept_from="start.after"),
    "vm.delete": Scene("vm.delete", ("power_off", "undefine", "disks"), vm_that_is("running"),
                       lambda bench: ("DELETE", f"/v1/vms/{VM}", None), Bench.no_vm),
    "vm.adopt": Scene("vm.adopt", ("inspect", "rename", "record"), define_foreign,
                      lambda bench: ("POST", f"/v1/vms/{FOREIGN}/adopt", {"name": VM}), check_adopted),
    "orphans.purge": Scene("orphans.purge", ("delete",), leave_orphan,
                           lambda bench: ("POST", "/v1/orphans/purge", {}), check_no_orphan),
}
POINTS = [pytest.param(scene, point, id=f"{name}:{point.removeprefix(scene.kind + '.')}")
          for name, scene in SCENES.items() for point in scene.points]
# Those that the next start passes again.
AGAIN = [param for param in POINTS if param.values[0].kept_from == "accept.after"
         and not param.values[1].endswith((".accept.before", ".accept.after"))]


@pytest.fixture(scope="module")
def agent(directory, pki, server):
    with open(BINARY, "rb") as program:
        if b"GHOST_FAIL_POINT" not in program.read():
            pytest.skip("this build has no fail points: they are in debug builds")
    agent = Agent(os.path.join(directory, "fail-points"), pki,
                  images={"tls_ca": pki.ca.certificate, "allow_private_addresses": True})
    agent.write_catalogue({"remote": {"url": server.url(REMOTE), "checksums": server.url(f"{REMOTE_DIRECTORY}/SHA256SUMS")}})
    return agent


@pytest.fixture(scope="module")
def server(pki):
    server = ImageServer(pki.server)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    path = tmp_path_factory.mktemp("blank") / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    return path


@pytest.fixture
def bench(request, agent, libvirt, blank, server):
    """An agent that never was; the test starts it, and in the end it runs again."""
    bench = Bench(agent, libvirt, blank, server)
    failed = request.session.testsfailed
    yield bench
    try:
        if request.session.testsfailed == failed:
            bench.clear()
    finally:
        bench.forget()


def ask(bench, scene, key):
    method, path, body = scene.request(bench)
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    return bench.agent.local().request(method, path, body, headers={"Idempotency-Key": key, "Content-Type": kind},
                                       query={"wait": 60})


def ask_and_be_cut_off(bench, scene, key):
    with pytest.raises((OSError, http.client.HTTPException)):
        answer = ask(bench, scene, key)
        pytest.fail(f"the agent passed its fail point and answered {answer}")
    until(bench.agent.has_killed_itself, "the agent is dead", 10)


def check_answer(scene, answer):
    if scene.refused:
        assert answer.code == scene.refused, answer
    else:
        assert answer.status in (200, 201), answer


def check_operations(bench, scene, point):
    """Of the request: none when it wasn't accepted; else one, at its end for the right reason."""
    found = bench.operations(scene.kind)
    assert len(found) == (0 if point.endswith(".accept.before") else 1)
    for begun in found:
        ended = bench.ok("GET", f"/v1/operations/{begun['id']}")
        if not scene.is_kept(point):
            assert ended["state"] == "failed" and ended["error"]["code"] == "interrupted", ended
        elif scene.refused:
            assert ended["state"] == "failed" and ended["error"]["code"] == scene.refused, ended
        else:
            assert ended["state"] == "succeeded", ended
        assert ended["finished_at"] is not None
    return found


def check_repeat(bench, scene, point, key):
    """The request that was cut off, made again and once more."""
    begun = check_operations(bench, scene, point)
    for _ in range(2):
        check_answer(scene, ask(bench, scene, key))
    scene.check(bench)
    expected = 1 if begun and scene.is_kept(point) else len(begun) + 1
    assert len(bench.operations(scene.kind)) == expected
    assert all(op["state"] in FINAL for op in bench.agent.local().pages("/v1/operations"))


def test_every_kind_of_operation_has_its_scene():
    kinds = CONTRACT.document["components"]["schemas"]["Operation"]["properties"]["kind"]["description"]
    # These are whole with their acceptance and have no steps: test_drain.py kills a drained agent.
    without_steps = {"agent.drain", "agent.undrain"}
    # A program in a guest is never run twice: test_guest_access.py kills the agent under one.
    not_gone_on_with = {"vm.exec"}
    known = set(re.findall(r"`([a-z.]+)`", kinds))
    assert {scene.kind for scene in SCENES.values()} == known - without_steps - not_gone_on_with


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())
def test_the_points_of_it_are_these(bench, scene, tmp_path):
    """A step that is new, or no longer there, is known here before it is missed below."""
    log = tmp_path / "points"
    bench.agent.start(GHOST_FAIL_POINT_LOG=str(log))
    scene.prepare(bench)
    log.write_text("")
    check_answer(scene, ask(bench, scene, "once"))
    assert list(dict.fromkeys(log.read_text().split())) == scene.points
    scene.check(bench)


@pytest.mark.parametrize("scene, point", POINTS)
def test_killed(bench, scene, point):
    bench.agent.start(GHOST_FAIL_POINT=point)
    scene.prepare(bench)
    ask_and_be_cut_off(bench, scene, "once")
    bench.agent.start()
    check_repeat(bench, scene, point, "once")


@pytest.mark.parametrize("scene, point", AGAIN)
def test_killed_there_again_by_the_next_start(bench, scene, point):
    """Unless that doesn't pass it any more."""
    bench.agent.start(GHOST_FAIL_POINT=point)
    scene.prepare(bench)
    ask_and_be_cut_off(bench, scene, "once")
    bench.agent.spawn(GHOST_FAIL_POINT=point)
    until(lambda: bench.agent.process is None or bench.agent.has_killed_itself() or ended(bench, scene),
          "the operation is at its end, or the agent dead once more", 30)
    if bench.agent.process is not None:
        bench.agent.kill()
    bench.agent.start()
    check_repeat(bench, scene, point, "once")


def ended(bench, scene):
    return bench.agent.answers("/ready") and all(op["state"] in FINAL for op in bench.operations(scene.kind))
