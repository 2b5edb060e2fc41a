"""The small bootable image that guests of the tests are made from."""

import os
import subprocess

from harness.paths import IMAGE, IMAGE_BUILDER


def ensure():
    """Builds the image unless there is one that is newer than its builder. Outside the sandbox: it may download."""
    if "GHOST_TEST_IMAGE" in os.environ:
        assert os.path.exists(IMAGE), f"GHOST_TEST_IMAGE is {IMAGE}, which isn't there"
        return
    if os.path.exists(IMAGE) and os.path.getmtime(IMAGE) >= os.path.getmtime(IMAGE_BUILDER):
        return
    os.makedirs(os.path.dirname(IMAGE), exist_ok=True)
    subprocess.run([IMAGE_BUILDER, IMAGE], check=True)
