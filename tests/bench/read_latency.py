#!/usr/bin/env python3
"""How long a read takes, beside what a person would use instead: `GET /v1/vms` over one kept TLS connection and over
the Unix socket, and `virsh list --all`, on the same machine in the same run. Also what the daemon costs while idle.

Usage: read_latency.py --agent https://127.0.0.1:9092 --cert C --key K --cacert CA --socket S --pid PID

Needs a running agent; changes nothing.
"""

import argparse
import http.client
import socket
import ssl
import subprocess
import time
import urllib.parse


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


def timed(call, times):
    """Milliseconds of each call, sorted."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    return sorted(taken)


def show(name, taken):
    at = lambda share: taken[min(len(taken) - 1, int(len(taken) * share))]
    print(f"{name:<44} p50 {at(0.5):8.2f} ms   p99 {at(0.99):8.2f} ms   n={len(taken)}")


def get(connection):
    def call():
        connection.request("GET", "/v1/vms")
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status

    return call


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("agent", "cert", "key", "cacert", "socket", "pid"):
        options.add_argument(f"--{name}", required=True)
    options = options.parse_args()
    address = urllib.parse.urlparse(options.agent)
    tls = ssl.create_default_context(cafile=options.cacert)
    tls.load_cert_chain(options.cert, options.key)

    secure = http.client.HTTPSConnection(address.hostname, address.port, context=tls)
    local = UnixConnection(options.socket)
    for connection in (secure, local):
        get(connection)()
    show("GET /v1/vms, TLS, kept connection", timed(get(secure), 2000))
    show("GET /v1/vms, Unix socket, kept connection", timed(get(local), 2000))
    virsh = ["virsh", "-q", "-c", "qemu:///system", "list", "--all"]
    show("virsh list --all", timed(lambda: subprocess.run(virsh, check=True, stdout=subprocess.DEVNULL), 20))

    with open(f"/proc/{options.pid}/status", encoding="ascii") as status:
        figures = dict(line.split(":", 1) for line in status)
    print(f"resident memory {int(figures['VmRSS'].split()[0]) / 1024:.1f} MiB, threads {figures['Threads'].strip()}")
    before, wall = cpu(options.pid), time.monotonic()
    time.sleep(20)
    print(f"CPU while nobody asks: {100 * (cpu(options.pid) - before) / (time.monotonic() - wall):.2f} % of one core")


def cpu(pid):
    """Seconds of CPU the process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()
