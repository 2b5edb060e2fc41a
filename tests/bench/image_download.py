#!/usr/bin/env python3
"""How long an image of 1 GiB takes over loopback TLS: the agent, which hashes it, writes it and syncs it, beside
`curl | sha256sum`, which only hashes it; from the same server, in turn, in the same run.

Usage: image_download.py BINARY [--mib 1024] [--rounds 3]

BINARY is a release build of ghost-agent. The server, the agent and their files live in a directory of their own; no
VM is made. The agent wants a libvirtd.
"""

import argparse
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time

PIECE = 1 << 20


def certificate(directory):
    """Of 127.0.0.1, by itself."""
    paths = [os.path.join(directory, name) for name in ("server.key", "server.pem")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", paths[0],
                    "-out", paths[1]], check=True, capture_output=True)
    return paths


def serve(key, cert, piece, count):
    """Sends `piece` `count` times to whoever asks; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(plain):
        try:
            with context.wrap_socket(plain, server_side=True) as client:
                while b"\r\n\r\n" not in client.recv(65536):
                    pass
                client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(piece) * count}\r\n\r\n".encode())
                for _ in range(count):
                    client.sendall(piece)
        except OSError:
            pass  # whom we answer has gone

    def accept():
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


class Agent:
    def __init__(self, binary, directory, ca):
        self.socket = os.path.join(directory, "agent.sock")
        config = {"state_dir": os.path.join(directory, "state"), "metrics": {"enabled": False},
                  "api": {"socket": self.socket}, "libvirt": {"storage_pool": "ghost-bench"},
                  "resources": {"reserved_disk_gb": 0},
                  "images": {"tls_ca": ca, "allow_private_addresses": True},
                  "logging": {"level": "warn", "format": "text"}}
        path = os.path.join(directory, "agent.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        self.process = subprocess.Popen([binary, "--config", path])
        while not self.ready():
            time.sleep(0.1)

    def ready(self):
        assert self.process.poll() is None, "the agent ended"
        try:
            return self.call("GET", "/ready")[0] == 200
        except OSError:
            return False

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def fetch(self, url, digest):
        body = {"name": "bench", "source": url, "format": "raw", "checksum": f"sha256:{digest}"}
        started = time.perf_counter()
        status, told = self.call("POST", "/v1/images?wait=300", body)
        taken = time.perf_counter() - started
        assert status == 201, told
        assert self.call("DELETE", "/v1/images/bench?wait=60")[0] == 200
        return taken

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def curl(url, ca, digest):
    started = time.perf_counter()
    done = subprocess.run(f"curl -sf --cacert '{ca}' '{url}' | sha256sum", shell=True, check=True, capture_output=True,
                          text=True)
    taken = time.perf_counter() - started
    assert done.stdout.split()[0] == digest, done
    return taken


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("binary")
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=3)
    options = options.parse_args()
    piece = os.urandom(PIECE)
    digest = hashlib.sha256()
    for _ in range(options.mib):
        digest.update(piece)
    digest = digest.hexdigest()
    with tempfile.TemporaryDirectory(prefix="ghost-bench-") as directory:
        key, cert = certificate(directory)
        url = f"https://127.0.0.1:{serve(key, cert, piece, options.mib)}/image.raw"
        agent = Agent(options.binary, directory, cert)
        try:
            taken = [(curl(url, cert, digest), agent.fetch(url, digest)) for _ in range(options.rounds)]
        finally:
            agent.stop()
            subprocess.run("virsh -q pool-destroy ghost-bench; virsh -q pool-undefine ghost-bench", shell=True,
                           check=False, capture_output=True)
    for name, seconds in zip(("curl | sha256sum", "ghost-agent"), zip(*taken)):
        best = min(seconds)
        rounds = ", ".join(f"{each:.2f}" for each in seconds)
        print(f"{name:<20} {best:6.2f} s   {options.mib / best:7.0f} MiB/s   (rounds: {rounds})")


if __name__ == "__main__":
    main()
