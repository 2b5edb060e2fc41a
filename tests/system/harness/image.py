"""The images that guests of the tests are made from: a small one, and for long runs a real Debian."""

import glob
import hashlib
import os
import subprocess

from harness.paths import DEBIAN_BUILDER, IMAGE, IMAGE_BUILDER


def ensure():
    """Builds the image unless there is one that is newer than its builder. Outside the sandbox: it may download."""
    if "GHOST_TEST_IMAGE" in os.environ:
        assert os.path.exists(IMAGE), f"GHOST_TEST_IMAGE is {IMAGE}, which isn't there"
        return
    if os.path.exists(IMAGE) and os.path.getmtime(IMAGE) >= os.path.getmtime(IMAGE_BUILDER):
        return
    os.makedirs(os.path.dirname(IMAGE), exist_ok=True)
    subprocess.run([IMAGE_BUILDER, IMAGE], check=True)


def debian():
    """Where the Debian image is; built anew when its builder changes."""
    with open(DEBIAN_BUILDER, "rb") as builder:
        key = hashlib.sha256(builder.read()).hexdigest()[:16]
    return os.path.abspath(os.environ.get("GHOST_TEST_DEBIAN_IMAGE",
                                          os.path.join(os.path.dirname(IMAGE), f"debian-12-{key}.qcow2")))


def ensure_debian():
    """Builds it unless it is there. Outside the sandbox: it downloads."""
    wanted = debian()
    if os.path.exists(wanted):
        return
    assert "GHOST_TEST_DEBIAN_IMAGE" not in os.environ, f"GHOST_TEST_DEBIAN_IMAGE is {wanted}, which isn't there"
    print("building a Debian image, which takes minutes", flush=True)
    subprocess.run([DEBIAN_BUILDER, wanted], check=True)
    for old in glob.glob(os.path.join(os.path.dirname(wanted), "debian-12-*.qcow2")):
        if old != wanted:
            os.remove(old)
