"""A small file system of a test's own, on a loop device, that it may fill."""

import errno
import os
import subprocess


class Impossible(Exception):
    """Why there can't be one here."""


class SmallFileSystem:
    """ext4 without a reserve for root. Goes with the sandbox's mounts."""

    def __init__(self, image, mount_point, mib):
        self.path = mount_point
        self._filler = os.path.join(mount_point, "filler")
        os.makedirs(mount_point, exist_ok=True)
        with open(image, "wb") as file:
            file.truncate(mib << 20)
        for command in (["mkfs.ext4", "-q", "-m", "0", image], ["mount", "-o", "loop", image, mount_point]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                raise Impossible(f"no program {command[0]}") from None
            if done.returncode != 0:
                raise Impossible(f"{' '.join(command)}: {done.stderr.strip()}")
        os.rmdir(os.path.join(mount_point, "lost+found"))

    def free(self):
        space = os.statvfs(self.path)
        return space.f_bavail * space.f_frsize

    def fill(self, leave=0):
        """Until `leave` bytes are free; 0: not a single block."""
        step = 1 << 30
        with open(self._filler, "ab") as file:
            size = file.tell()
            while step >= 4096:
                # What it takes to keep track of the blocks comes on top, so the last ones are tried for.
                more = min(step, self.free() - leave)
                try:
                    if more >= 4096:
                        os.posix_fallocate(file.fileno(), size, more)
                        size += more
                    else:
                        break
                except OSError as full:
                    assert full.errno == errno.ENOSPC, full
                    step = more // 2
        return self

    def make_room(self):
        if os.path.exists(self._filler):
            os.remove(self._filler)
