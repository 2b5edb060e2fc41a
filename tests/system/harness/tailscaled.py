"""A tailscaled as far as its local API's status goes, on a Unix socket."""

import http.server
import json
import os
import socketserver
import threading
from urllib.parse import urlsplit


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass

    def do_GET(self):  # pylint: disable=invalid-name
        daemon = self.server.daemon
        if self.headers.get("Host") != "local-tailscaled.sock":
            return self.answer(403, b"invalid localapi request")
        if urlsplit(self.path).path != "/localapi/v0/status":
            return self.answer(404, b"not found")
        daemon.asked += 1
        return self.answer(200, json.dumps(daemon.status()).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Tailscaled:
    """Its words may be changed at any time; the agent hears them when it asks next."""

    def __init__(self, path):
        self.path = path
        self.backend = "Running"
        self.addresses = []
        self.asked = 0
        self._server = None

    def status(self):
        return {"Version": "1.82.0", "TUN": True, "BackendState": self.backend, "AuthURL": "",
                "TailscaleIPs": self.addresses, "Health": [], "Peer": None,
                "Self": {"ID": "n1", "HostName": "pc", "DNSName": "pc.tail0123.ts.net.", "OS": "linux",
                         "TailscaleIPs": self.addresses, "Online": True}}

    def start(self):
        self._server = _Server(self.path, _Handler)
        self._server.daemon = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        os.unlink(self.path)
