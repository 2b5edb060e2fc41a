"""System tests: the real binary, a real libvirtd, real guests, in a machine of their own (harness/sandbox.py).

GHOST_AGENT_BINARY  the daemon to test (default: build/dev/ghost-agent)
GHOST_FAKE_CORE     the stand-in for Ghost Core (default: build/dev/tests/fakes/fake-core)
GHOST_TEST_IMAGE    the bootable image (default: build/test-image.qcow2, built when it isn't there)
GHOST_TEST_DEBIAN_IMAGE  the Debian image of long runs (default: in build/, built when it isn't there)
GHOST_TEST_VIRT_TYPE  qemu where a KVM is there that can't run guests; tests/run.sh finds out (default: auto)
GHOST_KEEP=1        keep the directory with state and logs
"""

import os
import re
import sys

import pytest

from harness import image, sandbox
from harness.agent import Agent
from harness.hypervisor import Libvirt
from harness.paths import BINARY, IMAGE
from harness.pki import Pki
from harness.wait import until


def pytest_configure(config):
    if config.option.collectonly or config.option.help or sandbox.inside():
        return
    faults = sandbox.missing()
    if not os.access(BINARY, os.X_OK):
        faults.append(f"no program {BINARY}: build it, or set GHOST_AGENT_BINARY")
    if faults:
        pytest.exit("\n".join(faults), returncode=3)
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    image.ensure()
    if wants_debian(config):
        image.ensure_debian()
    sandbox.enter([sys.executable, "-m", "pytest", *config.invocation_params.args])


def wants_debian(config):
    """Whether the long tests are to run, and of the files with such tests the one that needs it."""
    files = [os.path.basename(name.split("::")[0]) for name in config.option.file_or_dir if ".py" in name]
    return re.search(r"(?<!not )\blong\b", config.option.markexpr) and (not files or "test_debian_guest.py" in files)


@pytest.fixture(scope="session")
def directory():
    return sandbox.root()


@pytest.fixture(scope="session")
def libvirt(directory):
    daemon = Libvirt(directory)
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def pki(directory):
    return Pki(os.path.join(directory, "pki"))


@pytest.fixture(scope="session")
def image_file():
    return IMAGE


@pytest.fixture(scope="module")
def agent_options():
    """Sections of the configuration that a module wants otherwise; overridden there."""
    return {}


def check_nothing_left(agent, libvirt):
    assert agent.disk_files() == [], "disks left behind"
    assert libvirt.our_domains() == [], "domains left behind"
    assert not os.listdir("/var/lib/libvirt/qemu/save"), "saved memory left behind"


@pytest.fixture(scope="module")
def agent(request, directory, libvirt, pki, image_file, agent_options):
    """An agent with the image `tiny`, which must end cleanly and leave nothing behind."""
    name = request.module.__name__.rpartition(".")[2]
    agent = Agent(os.path.join(directory, name), pki, **agent_options)
    agent.start()
    agent.add_image(image_file)
    yield agent
    try:
        if agent.process is None:  # a test that failed left it so
            agent.start()
        remove_all_vms(agent)
        check_nothing_left(agent, libvirt)
        pid = agent.process.pid
        assert agent.stop() == 0, f"exit code after SIGTERM:\n{agent.log_tail()}"
        assert not os.path.exists(f"/proc/{pid}")
        check_nothing_left(agent, libvirt)
    finally:  # the next module's agent has the same ports and the same libvirtd
        if agent.process is not None:
            agent.kill()
        libvirt.forget_pool()


def remove_all_vms(agent):
    """Only what a failed test left: each test's own VMs are deleted by `vms`."""
    local = agent.local()
    for vm in local.pages("/v1/vms", managed="true"):
        remove_vm(local, vm["id"])


def remove_vm(client, vm):
    """Deletes a VM whatever it is doing."""
    def gone():
        client.patch(f"/v1/vms/{vm}", {"spec": {"protected": False}}, query={"wait": 30})
        answer = client.delete(f"/v1/vms/{vm}", query={"wait": 60})
        return answer.status in (200, 404)

    until(gone, f"VM {vm} is deleted", 120, pause=0.5)


class Vms:
    """Makes VMs and deletes them when the test is over."""

    def __init__(self, agent):
        self._agent = agent
        self._names = []

    def body(self, name, **changes):
        """A small VM. `changes` go into the spec, but for owner, labels and wait_for."""
        outer = {key: changes.pop(key) for key in ("owner", "labels", "wait_for") if key in changes}
        return {"name": name, "spec": {"image": "tiny", "disk_gib": 1, "vcpus": 1, "memory_mib": 160, **changes},
                **outer}

    def create(self, name, client=None, **changes):
        self._names.append(name)
        answer = (client or self._agent.remote()).post("/v1/vms", self.body(name, **changes), query={"wait": 120})
        assert answer.status == 201, answer
        return answer.json

    def expect(self, name):
        """Deletes `name` too, which the test creates by itself."""
        self._names.append(name)

    def remove(self):
        for name in reversed(self._names):
            remove_vm(self._agent.local(), name)


@pytest.fixture
def vms(agent):
    made = Vms(agent)
    yield made
    if agent.process is None:
        agent.start()
    made.remove()


@pytest.fixture
def remote(agent):
    """Over HTTPS as alice."""
    return agent.remote()


@pytest.fixture
def local(agent):
    """Over the Unix socket as root."""
    return agent.local()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        agent = getattr(item, "funcargs", {}).get("agent")
        if agent is not None:
            report.sections.append(("agent's log", agent.log_tail(40)))
        log = os.path.join(sandbox.root(), "libvirtd.log")
        if os.path.exists(log):
            with open(log, encoding="utf-8", errors="replace") as file:
                report.sections.append(("libvirtd's log", "".join(file.readlines()[-10:])))
