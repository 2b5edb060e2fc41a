"""The demonstrations do what they claim. They make machines of their own, in this one."""

import os
import re
import subprocess

import pytest

from harness.paths import BINARY, IMAGE, REPOSITORY

pytestmark = pytest.mark.slow


def test_chaos(libvirt):
    """libvirtd stopped and the agent killed in the middle of a create: one VM, made once, and reads all along."""
    done = subprocess.run([os.path.join(REPOSITORY, "tests", "demo", "chaos.sh")], capture_output=True, text=True,
                          check=False, timeout=420, stdin=subprocess.DEVNULL,
                          env={**os.environ, "GHOST_AGENT_BINARY": BINARY, "GHOST_TEST_IMAGE": IMAGE})
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^VM web: running, ", done.stdout, re.M)
    assert "3 requests with one Idempotency-Key: 1 operation (succeeded), 1 domain" in done.stdout
    assert re.search(r"^\d+ reads while an agent was up, 0 without an answer: slowest [\d.]+ ms, p99 [\d.]+ ms$",
                     done.stdout, re.M)
    assert libvirt.domains() == [], "this one's libvirtd was played with"
