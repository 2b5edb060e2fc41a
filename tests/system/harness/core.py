"""The stand-in for Ghost Core (tests/fakes), as a program of its own: what it knows, and what it is told to do."""

import json
import os
import subprocess
from urllib.request import Request, urlopen

from harness.paths import FAKE_CORE
from harness.wait import until


class FakeCore:
    """One that may be ended and started again: it keeps its CA and its address, and by them knows its agents."""

    def __init__(self, directory, port, token="welcome", **options):
        """`options`: the program's, such as ttl=5."""
        self.directory = directory
        self.token = token
        self.ca = os.path.join(directory, "ca.crt")
        self.url = f"https://127.0.0.1:{port}"
        self.page = None
        self._log = os.path.join(directory, "log")
        self._process = None
        self._command = [FAKE_CORE, "--dir", directory, "--listen", f"127.0.0.1:{port}", "--token", token]
        for name, value in options.items():
            self._command += [f"--{name.replace('_', '-')}", str(value)]
        os.makedirs(directory, mode=0o700)

    def start(self):
        assert self._process is None
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                             stderr=log)
        line = self._process.stdout.readline()
        assert line, f"fake-core doesn't start:\n{self.log()}"
        ready = json.loads(line)
        assert (ready["url"], ready["ca"]) == (self.url, self.ca)
        self.page = ready["page"]
        return self

    def signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        process, self._process = self._process, None
        process.kill()
        process.wait()
        process.stdout.close()

    def stop(self):
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        assert process.wait(20) == 0, self.log()
        process.stdout.close()

    @property
    def running(self):
        return self._process is not None

    def log(self):
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()

    # ---- its page ----
    def _ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        with urlopen(Request(self.page + path, data, headers), timeout=20) as answer:
            return json.load(answer)

    def state(self):
        """All that it knows."""
        return self._ask("/")

    def agents(self):
        return self.state()["agents"]

    def agent(self, name="node-1"):
        """What it knows of the agent that calls itself so, or None."""
        return next((agent for agent in self.agents().values() if agent["name"] == name), None)

    def vm(self, name):
        """As Core sees it, or None."""
        return next((vm for agent in self.agents().values() for vm in agent["vms"] if vm["name"] == name), None)

    def conditions(self, name="node-1"):
        """type -> condition."""
        return {condition["type"]: condition for condition in self.agent(name)["conditions"]}

    def facts(self, kind=None):
        facts = [item["fact"] for item in self.state()["facts"]]
        return [fact for fact in facts if kind in (None, fact["kind"])]

    def queue(self, kind, **command):
        """Its id."""
        return self._ask("/commands", {"kind": kind, **command})["id"]

    def command(self, identity):
        return self._ask(f"/commands/{identity}")

    def ended(self, identity, seconds=120):
        """The command once its last ack is there and the fact has told the same."""
        def told():
            command = self.command(identity)
            return command if command["told"] is not None and command["told"] == command["state"] else None

        return until(told, f"the command {identity} has ended: {self.command(identity)}", seconds)

    def faults(self, **faults):
        """As POST /faults takes them; what isn't named stays."""
        return self._ask("/faults", faults)

    def refuses(self, route, status):
        """The next request on that route is answered so."""
        self.faults(overrides=[{"route": route, "status": status}])

    def no_faults(self):
        chances = {name: {"probability": 0, "next": 0} for name in (
            "drop_request", "drop_reply", "server_error", "too_many", "slow", "garbage", "truncated", "doubled",
            "reordered", "delivered_again", "forgets_sessions")}
        self.faults(**chances, clock_off_s=0, certificate="own", overrides=[])

    def add_token(self, token):
        self._ask("/tokens", {"token": token})

    def violations(self):
        return self.state()["violations"]
