"""Streams of the API as WebSockets, spoken by a client that isn't ours."""

import json
import socket
import ssl
import time
from urllib.parse import urlencode

import websocket

from harness.client import tls_context

PROTOCOL = "ghost.stream.v1"


class Refused(Exception):
    """The agent answered with a problem instead."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status
        self.problem = json.loads(body) if body else {}

    @property
    def code(self):
        return self.problem.get("code")


class Stream:
    """Binary messages as one flow of bytes; text messages, with the subprotocol, as events."""

    def __init__(self, connection):
        self._connection = connection
        self.received = b""
        self.events = []
        self.closed = None  # (code, reason)

    def send(self, data):
        self._connection.send_binary(data)

    def tell(self, **event):
        self._connection.send(json.dumps(event))

    def _take(self, seconds):
        """One message. False: nothing came in time, or the stream is closed."""
        if self.closed:
            return False
        self._connection.settimeout(seconds)
        try:
            opcode, data = self._connection.recv_data(control_frame=True)
        except (websocket.WebSocketTimeoutException, ssl.SSLWantReadError):
            return False
        except (websocket.WebSocketConnectionClosedException, OSError):
            self.closed = (1006, "")
            return False
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            self.closed = (code, data[2:].decode())
        elif opcode == websocket.ABNF.OPCODE_BINARY:
            self.received += data
        elif opcode == websocket.ABNF.OPCODE_TEXT:
            self.events.append(json.loads(data))
        return True

    def until(self, what, seconds=30.0):
        """All bytes so far, once `what` (bytes, or a question about this stream) is there."""
        deadline = time.monotonic() + seconds
        while not (what(self) if callable(what) else what in self.received):
            left = deadline - time.monotonic()
            came = left > 0 and self._take(left)
            if not came and not (what(self) if callable(what) else what in self.received):
                raise AssertionError(f"{what!r} didn't come: {self.received[-2000:]!r}, events {self.events}, "
                                     f"closed {self.closed}")
        return self.received

    def until_closed(self, seconds=60.0):
        self.until(lambda stream: stream.closed is not None, seconds)
        return self.closed

    def close(self):
        self._connection.close(timeout=5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close(timeout=1)


class _Kept:
    """A socket that stays open when the client gives up on it: what it didn't read is still to be had."""

    def __init__(self, raw):
        self._raw = raw
        self.keep = True

    def __getattr__(self, name):
        return getattr(self._raw, name)

    def close(self):
        if not self.keep:
            self._raw.close()

    def shutdown(self, how):
        if not self.keep:
            self._raw.shutdown(how)


def _rest_of_answer(raw, headers):
    """The problem that follows a head which was read already."""
    raw.settimeout(10)
    length = int(headers.get("content-length", "0"))
    body = b""
    while len(body) < length:
        piece = raw.recv(length - len(body))
        if not piece:
            break
        body += piece
    return body


def open_stream(agent, path, identity="alice", protocol=PROTOCOL, origin=None, **query):
    """`identity`: "alice" of the test's CA, None without a certificate, "socket" over the Unix socket."""
    target = f"/v1/vms/{path}" + (f"?{urlencode(query)}" if query else "")
    more = {"subprotocols": [protocol]} if protocol else {}
    if origin:
        more["origin"] = origin
    else:
        more["suppress_origin"] = True
    if identity == "socket":
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(agent.socket)
        url = f"ws://localhost{target}"
    else:
        raw = socket.create_connection(("127.0.0.1", agent.API_PORT), 30)
        context = tls_context(agent.pki.ca.certificate, agent.pki.alice if identity == "alice" else identity)
        raw = context.wrap_socket(raw, server_hostname="127.0.0.1")
        url = f"ws://127.0.0.1:{agent.API_PORT}{target}"
    kept = _Kept(raw)
    try:
        connection = websocket.create_connection(url, timeout=60, socket=kept, **more)
    except websocket.WebSocketBadStatusException as refused:
        body = _rest_of_answer(raw, refused.resp_headers)
        raw.close()
        raise Refused(refused.status_code, body) from None
    kept.keep = False
    return Stream(connection)
