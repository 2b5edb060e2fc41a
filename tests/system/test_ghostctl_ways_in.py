"""ghostctl's ways into a real guest: console, ssh, forward, cp, exec, vnc and screenshot."""

import os
import pty
import re
import select
import socket
import subprocess
import termios
import time

import pytest

from harness.paths import BINARY
from harness.small_guest import make, make_key
from harness.wait import until

DONE, FAILED, USAGE, NOT_FOUND, REFUSED, NO_AGENT = range(6)


@pytest.fixture(scope="module")
def key(directory):
    return make_key(directory, "ways_key")


@pytest.fixture(scope="module")
def guest(agent, key):
    vm = make(agent, "box", key, guest_access=True)
    until(lambda: agent.remote().ok("GET", "/v1/vms/box")["status"]["ssh_host_keys"], "its host key is known", 120)
    return vm


@pytest.fixture
def words(agent, pki):
    """Command lines of ghostctl, from here and from afar."""
    link = os.path.join(agent.directory, "ghostctl")
    if not os.path.lexists(link):
        os.symlink(BINARY, link)
    tls = ["--agent", f"https://127.0.0.1:{agent.API_PORT}", "--cert", pki.alice.certificate, "--key", pki.alice.key,
           "--cacert", pki.ca.certificate]
    return {"here": [link, "--socket", agent.socket], "afar": [link, *tls]}


class Terminal:
    """A program with a terminal of its own."""

    def __init__(self, command):
        self._master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        self.shown = b""

    def type(self, text):
        os.write(self._master, text)

    def until(self, what, seconds=60):
        deadline = time.monotonic() + seconds
        while what not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, self.shown
            self._take(left)

    def settings(self):
        return termios.tcgetattr(self._slave)

    def wait(self, seconds=20):
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.shown
            self._take(0.1)
        while self._take(0):  # its last words
            pass
        return self.process.returncode

    def _take(self, seconds):
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self.shown += os.read(self._master, 4096)
        return True

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def terminal():
    opened = []

    def start(command):
        opened.append(Terminal(command))
        return opened[-1]
    yield start
    for each in opened:
        each.close()


def test_console_is_a_terminal_that_ctrl_bracket_leaves(words, guest, terminal):
    for where in ("here", "afar"):
        console = terminal([*words[where], "console", "box"])
        console.until(b"Ctrl-]")
        deadline = time.monotonic() + 60
        while b"sum-42" not in console.shown:
            assert time.monotonic() < deadline, console.shown
            console.type(b"echo sum-$((6 * 7))\r")
            try:
                console.until(b"sum-42", 3)
            except AssertionError:
                pass
        console.type(b"\x1d")
        assert console.wait() == DONE
        assert console.settings() == console.before  # as it was found


def test_console_says_when_the_vm_stops(agent, words, key, terminal):
    make(agent, "brief", key)
    try:
        console = terminal([*words["here"], "console", "brief"])
        console.until(b"Ctrl-]")
        agent.remote().post("/v1/vms/brief/stop", {"force": True}, query={"wait": 60})
        assert console.wait() == DONE
        assert b"stopped" in console.shown
        assert console.settings() == console.before
    finally:
        agent.remote().delete("/v1/vms/brief", query={"wait": 60})


def alone(key):
    """Options of ssh's: with this key, without a person and their configuration."""
    return ["-F", "none", "-i", key, "-o", "BatchMode=yes"]


def test_ssh_logs_in_and_knows_the_host(agent, words, guest, key, directory):
    for where in ("here", "afar"):
        done = subprocess.run([*words[where], "ssh", "box", "--", *alone(key), "id", "-un"],
                              capture_output=True, text=True, check=False, timeout=180, stdin=subprocess.DEVNULL,
                              env={**os.environ, "HOME": directory})
        assert (done.returncode, done.stdout) == (0, "ops\n"), done
    # The exit code is the command's.
    done = subprocess.run([*words["here"], "ssh", "box", "--", *alone(key), "exit 7"],
                          capture_output=True, text=True, check=False, timeout=180, stdin=subprocess.DEVNULL)
    assert done.returncode == 7, done


def test_ssh_refuses_another_host_key(agent, words, guest, key):
    shown = subprocess.run([*words["here"], "ssh", "--print", "box"], capture_output=True, text=True, check=True).stdout
    assert "KnownHostsCommand" in shown and "StrictHostKeyChecking=yes" in shown, shown
    # The guest makes itself a new key; what the agent read before doesn't fit it.
    remove = ["sh", "-c", "rm /etc/dropbear/dropbear_ed25519_host_key; killall dropbear; "
              "dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key >/dev/null 2>&1"]
    answer = agent.remote().post("/v1/vms/box/exec", {"command": remove}, query={"wait": 60})
    assert answer.status == 200, answer

    def refused():
        done = subprocess.run([*words["here"], "ssh", "box", "--", *alone(key), "true"],
                              capture_output=True, text=True, check=False, timeout=180, stdin=subprocess.DEVNULL)
        return done.returncode == 255 and "verification failed" in done.stderr.lower()
    until(refused, "the wrong key is refused", 60)


def start_forward(words, *arguments):
    process = subprocess.Popen([*words, "forward", "box", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, stdin=subprocess.DEVNULL)
    line = process.stdout.readline()
    return process, line


def test_forward_listens_here(words, guest):
    for where in ("here", "afar"):
        process, line = start_forward(words[where], "0:22")
        try:
            port = int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), 30) as ssh:
                    ssh.settimeout(30)
                    assert ssh.recv(64).startswith(b"SSH-2.0-dropbear")
        finally:
            process.terminate()
            process.wait(10)


def test_files_are_copied_both_ways(agent, words, guest, directory):
    data = os.urandom(700_000)
    local, back = os.path.join(directory, "up"), os.path.join(directory, "down")
    with open(local, "wb") as file:
        file.write(data)
    os.chmod(local, 0o750)
    assert agent.ghostctl("cp", local, "box:/root/up").returncode == DONE
    assert agent.ghostctl("cp", "box:/root/up", back).returncode == DONE
    with open(back, "rb") as file:
        assert file.read() == data
    assert agent.ghostctl("exec", "box", "--", "stat", "-c", "%a", "/root/up").stdout == "750\n"
    assert agent.ghostctl("cp", "box:/no/such", back).returncode == NOT_FOUND
    with open(back, "rb") as file:
        assert file.read() == data  # nothing is lost by one that failed
    assert agent.ghostctl("cp", local, back).returncode == USAGE


def test_exec_ends_as_the_program_did(agent, guest, words):
    done = agent.ghostctl("exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "out\n", "err\n")
    done = subprocess.run([*words["afar"], "exec", "box", "-i", "--env", "A=b", "--", "sh", "-c", "cat; echo $A"],
                          input="typed\n", capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "typed\nb\n"), done
    assert agent.ghostctl("exec", "nobody", "--", "true").returncode == NOT_FOUND


def test_screenshot_and_vnc(agent, guest, words, directory):
    picture = os.path.join(directory, "shot.png")
    done = agent.ghostctl("screenshot", "box", "-o", picture)
    assert done.returncode == DONE, done
    with open(picture, "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    process = subprocess.Popen([*words["here"], "vnc", "box", "--listen", "127.0.0.1:5977"], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL)
    try:
        assert "5977" in process.stdout.readline()
        with socket.create_connection(("127.0.0.1", 5977), 20) as vnc:
            assert vnc.recv(12) == b"RFB 003.008\n"
    finally:
        process.terminate()
        process.wait(10)


def test_without_access_it_says_what_to_do(agent, guest, vms):
    vms.create("shut")
    done = agent.ghostctl("exec", "shut", "--", "true")
    assert done.returncode == REFUSED and "guest" in done.stderr, done
    for command in (["console", "nobody"], ["vnc", "nobody", "--listen", "127.0.0.1:5978"],
                    ["screenshot", "nobody", "-o", "x"]):
        assert agent.ghostctl(*command).returncode == NOT_FOUND, command
