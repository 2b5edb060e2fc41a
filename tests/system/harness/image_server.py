"""An HTTPS server of images that misbehaves on purpose."""

import hashlib
import http.server
import os
import re
import ssl
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Asked:
    """One request: what was asked for, and which byte first."""

    path: str
    first: int
    if_range: str


@dataclass
class Site:
    """What is behind one path. `cuts`: after how many bytes of the body each next answer breaks off."""

    content: bytes = b""
    etag: str = '"1"'
    ranges: bool = True
    length: int = 0  # said instead of the true one, of whole answers
    status: int = 200
    location: str = ""
    pause: float = 0.0  # before each piece
    piece: int = 64 * 1024
    cuts: list = field(default_factory=list)
    on_asked: object = None  # called with the Asked before it is answered


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server.owner
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        asked = Asked(self.path, int(first[1]) if first else 0, self.headers.get("If-Range", ""))
        with server.lock:
            server.asked.append(asked)
            site = server.sites.get(self.path.partition("?")[0])
        if site and site.on_asked:
            site.on_asked(asked)
        try:
            self.answer(asked, site)
        except OSError:
            pass  # whom we answer has gone
        self.close_connection = True

    def answer(self, asked, site):
        if site is None or site.status != 200:
            self.send_response(404 if site is None else site.status)
            if site and site.location:
                self.send_header("Location", site.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, size = site.content, len(site.content)
        partial = site.ranges and asked.first > 0 and asked.if_range in ("", site.etag)
        if partial and asked.first >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {asked.first}-{size - 1}/{size}")
            body = body[asked.first:]
        if site.etag:
            self.send_header("ETag", site.etag)
        self.send_header("Content-Length", str(len(body) if partial or not site.length else site.length))
        self.end_headers()
        self.send_body(body, site)

    def send_body(self, body, site):
        cut = site.cuts.pop(0) if site.cuts else len(body)
        for at in range(0, min(cut, len(body)), site.piece):
            if site.pause:
                time.sleep(site.pause)
            self.wfile.write(body[at:min(at + site.piece, cut)])
        self.wfile.flush()


class ImageServer:
    """Serves `sites` by path at every address of the sandbox, with the certificate of `identity`, until stop()."""

    def __init__(self, identity):
        self.sites = {}
        self.asked = []
        self.lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), _Handler)
        self._server.daemon_threads = True
        self._server.owner = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.key)
        # The handshake in the connection's own thread: a client that doesn't shake hands holds up nobody.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.handle_error = lambda *_: None
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self):
        return self._server.server_address[1]

    def url(self, path, host="127.0.0.1"):
        return f"https://{host}:{self.port}{path}"

    def publish(self, path, content, **more):
        """The image at `path` and the list of checksums beside it."""
        directory, name = os.path.split(path)
        self.sites[path] = Site(content, **more)
        self.sites[os.path.join(directory, "SHA256SUMS")] = Site(
            f"{hashlib.sha256(content).hexdigest()} *{name}\n".encode())
        return self.sites[path]

    def asked_for(self, path):
        with self.lock:
            return [asked for asked in self.asked if asked.path == path]

    def forget(self):
        with self.lock:
            self.asked.clear()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
