"""libvirtd of the sandbox: started, stopped and killed by the tests as they like."""

import os
import re
import signal
import subprocess

from harness.wait import until

URI = "qemu:///system"
METADATA_NAMESPACE = "ghost"  # our metadata element's namespace URI has this word


class Libvirt:
    def __init__(self, directory):
        self._log = open(os.path.join(directory, "libvirtd.log"), "ab")  # pylint: disable=consider-using-with
        self._helpers = [self._spawn(name) for name in ("virtlogd", "virtlockd")]
        self.daemon = None
        self.start()

    def _spawn(self, *command):
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    def start(self):
        assert self.daemon is None
        self.daemon = self._spawn("libvirtd")
        until(lambda: self.try_virsh("version") is not None, "libvirtd answers", 60)

    def signal(self, number):
        self.daemon.send_signal(number)

    def kill(self):
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = None

    def stop(self):
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGCONT)
        for process in [self.daemon, *self._helpers]:
            if process is not None:
                process.terminate()
        for process in [self.daemon, *self._helpers]:
            if process is not None:
                process.wait(30)
        self._log.close()

    def try_virsh(self, *arguments, seconds=60):
        try:
            done = subprocess.run(["virsh", "-q", "-c", URI, *arguments], capture_output=True, text=True, check=False,
                                  timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def virsh(self, *arguments, seconds=60):
        done = subprocess.run(["virsh", "-q", "-c", URI, *arguments], capture_output=True, text=True, check=False,
                              timeout=seconds)
        assert done.returncode == 0, f"virsh {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def domains(self):
        return [name for name in self.virsh("list", "--all", "--name").split("\n") if name]

    def our_domains(self):
        """Names of the domains that carry the agent's metadata."""
        return [name for name in self.domains() if self.is_ours(name)]

    def is_ours(self, name):
        xml = self.try_virsh("dumpxml", "--inactive", name) or ""
        metadata = re.search(r"<metadata>.*?</metadata>", xml, re.S)
        return metadata is not None and METADATA_NAMESPACE in metadata.group(0)

    def state(self, name):
        return self.virsh("domstate", name)

    def forget_pool(self):
        """The agent's storage pool is at its state directory: the next one's is elsewhere."""
        self.try_virsh("pool-destroy ghost; pool-undefine ghost")

    def children(self):
        """Process ids of what the daemon has started itself."""
        found = []
        for task in os.listdir(f"/proc/{self.daemon.pid}/task"):
            try:
                with open(f"/proc/{self.daemon.pid}/task/{task}/children", encoding="ascii") as file:
                    found += map(int, file.read().split())
            except OSError:
                continue  # a thread that has ended
        return found

    def saver(self):
        """Process id of the helper that writes a domain's memory to its file just now, or None."""
        for pid in self.children():
            try:
                with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                    if file.read().startswith("libvirt_iohelp"):
                        return pid
            except OSError:
                continue
        return None

    def qemu_pid(self, uuid):
        """Process id of the QEMU of this domain, or None."""
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/cmdline", "rb") as file:
                        words = file.read().split(b"\0")
                except OSError:
                    continue
                if words and b"qemu-system" in words[0] and uuid.encode() in words:
                    return int(entry)
        return None
