"""The daemon under test: its configuration, its process, its clients."""

import json
import os
import shutil
import signal
import subprocess

from harness.client import Client
from harness.hypervisor import URI
from harness.paths import BINARY
from harness.wait import until

CONFIGURATION_FAULT = 78


class Agent:
    """One installation: a state directory, a configuration and at most one process."""

    API_PORT = 9092
    METRICS_PORT = 9091

    def __init__(self, directory, pki, **sections):
        """`sections` are merged into the configuration, section by section."""
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o711)
        self.directory = directory
        self.pki = pki
        self.state = os.path.join(directory, "state")
        self.socket = os.path.join(directory, "agent.sock")
        self.config_file = os.path.join(directory, "agent.yaml")
        self.log_file = os.path.join(directory, "agent.log")
        self.process = None
        self.config = {
            "agent": {"name": "node-1"},
            "state_dir": self.state,
            "api": {"listen_addr": f"127.0.0.1:{self.API_PORT}", "socket": self.socket,
                    "tls_cert": pki.server.certificate, "tls_key": pki.server.key, "tls_ca": pki.ca.certificate},
            "metrics": {"listen_addr": f"127.0.0.1:{self.METRICS_PORT}"},
            "libvirt": {"uri": URI, "virt_type": os.environ.get("GHOST_TEST_VIRT_TYPE", "auto")},
            "logging": {"level": "debug", "format": "text"},
            # The machines that run tests are small; what is lent must not depend on how small.
            "resources": {"reserved_cpu": 0, "reserved_ram_gb": 0.5, "reserved_disk_gb": 0, "cpu_overcommit": 100},
            "defaults": {"vcpus": 1, "memory_mib": 160, "disk_gib": 1},
        }
        for name, section in sections.items():
            if isinstance(section, dict):
                self.config[name] = {**self.config.get(name, {}), **section}
            else:
                self.config[name] = section
        self.write_config()

    def write_config(self):
        with open(self.config_file, "w", encoding="utf-8") as file:
            json.dump(self.config, file, indent=2)  # JSON is YAML

    def write_catalogue(self, images):
        """Of both architectures the same. `images`: name -> url and what proves it."""
        directory = os.path.join(self.directory, "images.d")
        os.makedirs(directory, exist_ok=True)
        entries = {name: {"amd64": source, "arm64": source} for name, source in images.items()}
        with open(os.path.join(directory, "tests.yaml"), "w", encoding="utf-8") as file:
            json.dump({"images": entries}, file)
        return directory

    @property
    def disks(self):
        return os.path.join(self.state, "disks")

    def disk_files(self):
        return sorted(os.listdir(self.disks)) if os.path.isdir(self.disks) else []

    def spawn(self, **environment):
        """`environment`: variables that it has beside ours."""
        assert self.process is None
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([BINARY, "--config", self.config_file], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env={**os.environ, **environment})
        return self

    def start(self, ready=True, **environment):
        self.spawn(**environment)
        until(lambda: self.alive() and self.answers("/ready" if ready else "/live"),
              f"the agent is {'ready' if ready else 'up'}:\n{self.log_tail()}", 60)
        return self

    def alive(self):
        status = self.process.poll()
        assert status is None, f"the agent ended with {status}:\n{self.log_tail()}"
        return True

    def answers(self, path):
        try:
            return self.local(timeout=10).get(path, checked=False).status == 200
        except OSError:
            return False

    def stop(self, seconds=40):
        """SIGTERM; its exit code."""
        process, self.process = self.process, None
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the agent was still there {seconds} s after SIGTERM:\n{self.log_tail()}") from None

    def kill(self):
        process, self.process = self.process, None
        process.send_signal(signal.SIGKILL)
        process.wait()

    def has_killed_itself(self):
        """True once it ended by SIGKILL, as it does at a fail point; another end fails."""
        status = self.process.poll()
        if status is None:
            return False
        assert status == -signal.SIGKILL, f"the agent ended with {status}:\n{self.log_tail()}"
        self.process = None
        return True

    def run(self, *arguments, seconds=60, **more):
        """Runs the daemon's program to its end."""
        return subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=False, timeout=seconds,
                              stdin=subprocess.DEVNULL, **more)

    def log(self):
        if not os.path.exists(self.log_file):
            return ""
        with open(self.log_file, encoding="utf-8", errors="replace") as file:
            return file.read()

    def log_tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def local(self, timeout=120.0):
        return Client.over_socket(self.socket, timeout)

    def remote(self, identity=None, timeout=120.0):
        """Over HTTPS as `identity`, by default alice."""
        return Client.over_tls(self.API_PORT, self.pki.ca.certificate, identity or self.pki.alice, timeout)

    def anonymous(self, timeout=120.0):
        return Client.over_tls(self.API_PORT, self.pki.ca.certificate, None, timeout)

    def add_image(self, path, name="tiny"):
        answer = self.local().post("/v1/images", {"name": name, "source": f"file://{path}"}, query={"wait": 120})
        assert answer.status == 201, answer
        return answer.json

    def ghostctl(self, *arguments, seconds=120, **more):
        """Runs the client, over the socket unless told otherwise."""
        link = os.path.join(self.directory, "ghostctl")
        if not os.path.lexists(link):
            os.symlink(BINARY, link)
        where = () if {"--agent", "--socket"} & set(arguments) else ("--socket", self.socket)
        return subprocess.run([link, *where, *arguments], capture_output=True, text=True, check=False,
                              timeout=seconds, stdin=subprocess.DEVNULL, **more)

    def forget(self):
        """Deletes the state directory of an agent that doesn't run."""
        assert self.process is None
        shutil.rmtree(self.state, ignore_errors=True)
