"""What chaos.sh plays: the script of the piece. It brings itself into a machine of its own (harness/sandbox.py)."""

import http.client
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))

# pylint: disable=wrong-import-position
from harness import image, sandbox
from harness.agent import Agent
from harness.hypervisor import Libvirt
from harness.paths import IMAGE
from harness.pki import Pki
from harness.wait import until

KEY = "chaos-1"
BODY = {"name": "web", "spec": {"image": "tiny", "vcpus": 1, "memory_mib": 160, "disk_gib": 1,
                                "disks": {"data": {"size_gib": 1}}}}
STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:5.1f} s] {text}", flush=True)


class Reader:
    """Reads over the socket every 20 ms from the side, and keeps how long each took."""

    PAUSE = 0.02
    PATHS = ("/v1/vms", "/health")

    def __init__(self, agent):
        self._agent = agent
        self._up = threading.Event()  # an agent is there to answer
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self.took_ms = []
        self.faults = []

    def start(self):
        self._thread.start()

    def agent_is_up(self):
        self._up.set()

    def agent_goes(self):
        """From now on nobody needs to answer."""
        self._up.clear()

    def stop(self):
        self._over = True
        self._up.set()
        self._thread.join()

    def _run(self):
        turn = 0
        while self._up.wait() and not self._over:
            begun = time.monotonic()
            path = self.PATHS[turn % len(self.PATHS)]
            turn += 1
            try:
                answer = self._agent.local(timeout=30).get(path, checked=False)
                fault = "" if answer.status == 200 or path == "/health" else f"was answered {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                fault = f"wasn't answered: {error!r}"
            took = time.monotonic() - begun
            if not fault:
                self.took_ms.append(took * 1000)
            elif self._up.is_set():
                self.faults.append(f"GET {path} {fault}")
            time.sleep(max(0.0, self.PAUSE - took))


class Piece:
    def __init__(self, directory):
        self.libvirt = Libvirt(directory)
        self.agent = Agent(os.path.join(directory, "agent"), Pki(os.path.join(directory, "pki")))
        self.reader = Reader(self.agent)
        self.requests = 0

    def create(self, wait=0):
        self.requests += 1
        return self.agent.local().post("/v1/vms", BODY, headers={"Idempotency-Key": KEY},
                                       query={"wait": wait} if wait else None)

    def creates(self):
        return [op for op in self.agent.local().pages("/v1/operations") if op["kind"] == "vm.create"]

    def play(self):
        self.agent.start()
        self.agent.add_image(IMAGE)
        say("libvirtd and the agent are up, the image is there; GET /v1/vms and /health every 20 ms from now on")
        self.reader.agent_is_up()
        self.reader.start()

        first = self.create()
        assert first.status == 202, first
        self.libvirt.signal(signal.SIGSTOP)
        say(f"POST /v1/vms with Idempotency-Key: {KEY} is accepted; libvirtd is stopped (SIGSTOP) at once")
        time.sleep(2)
        (begun,) = self.creates()
        assert begun["state"] == "running", begun
        say(f"the create hangs in its step {begun['progress']['phase']!r}; {self.told_by_reads()}")

        self.reader.agent_goes()
        self.agent.kill()
        say("the agent is killed (SIGKILL)")
        time.sleep(0.5)
        self.agent.start(ready=False)
        self.reader.agent_is_up()
        say("a new agent is up, with libvirtd still stopped")
        again = self.create()
        assert again.status == 202 and again.json["id"] == begun["id"], again
        say(f"the same request is answered 202 with the same operation, which is {again.json['state']}")
        time.sleep(2)
        say(f"still so; {self.told_by_reads()}")

        self.libvirt.signal(signal.SIGCONT)
        say("libvirtd goes on (SIGCONT)")
        done = self.create(wait=120)
        assert done.status == 201, done
        say(f"the same request is answered 201: the VM is {done.json['status']['power']}")
        address = until(lambda: self.agent.local().ok("GET", "/v1/vms/web")["status"]["addresses"],
                        "the guest has an address", 240, pause=0.5)[0]
        say(f"its guest has booted and has the address {address}")
        self.reader.stop()

    def told_by_reads(self):
        health = self.agent.local().get("/health").json
        vms = self.agent.local().ok("GET", "/v1/vms")["items"]
        libvirt = health["checks"]["libvirt"]["status"]
        return f"reads tell of {len(vms)} VM, {vms[0]['status']['phase']}, and libvirt {libvirt}"

    def sum_up(self):
        """Prints it, and fails unless all is as claimed."""
        vms = self.agent.local().pages("/v1/vms")
        operations = self.creates()
        domains = self.libvirt.domains()
        took = sorted(self.reader.took_ms)
        print()
        for vm in vms:
            print(f"VM {vm['name']}: {vm['status']['power']}, {vm['status']['addresses'][0]}, {vm['id']}")
        print(f"{self.requests} requests with one Idempotency-Key: {len(operations)} operation "
              f"({', '.join(op['state'] for op in operations)}), {len(domains)} domain")
        print(f"{len(took)} reads while an agent was up, {len(self.reader.faults)} without an answer: "
              f"slowest {took[-1]:.1f} ms, p99 {took[len(took) * 99 // 100]:.1f} ms")
        for fault in self.reader.faults[:10]:
            print(fault)
        assert [(vm["name"], vm["status"]["power"]) for vm in vms] == [("web", "running")]
        assert domains == ["web"] and self.libvirt.state("web") == "running"
        assert [op["state"] for op in operations] == ["succeeded"]
        assert not self.reader.faults

    def end(self):
        self.reader.stop()
        self.libvirt.signal(signal.SIGCONT)
        if self.agent.process is not None:
            self.agent.local().delete("/v1/vms/web", query={"wait": 60}, checked=False)
            self.agent.stop()
        self.libvirt.stop()


def main():
    if sys.argv[1:] != ["inside"]:
        faults = sandbox.missing()
        if faults:
            sys.exit("\n".join(faults))
        image.ensure()
        sandbox.enter([sys.executable, __file__, "inside"])
    piece = Piece(sandbox.root())
    try:
        piece.play()
        piece.sum_up()
    except AssertionError as fault:
        sys.exit(f"not as claimed: {fault}\n{piece.agent.log_tail(30)}")
    finally:
        piece.end()


if __name__ == "__main__":
    main()
