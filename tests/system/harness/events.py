"""A reader of the event stream, which notes when each event came."""

import json
import socket
import threading
import time

from harness.client import CONTRACT


class EventStream:
    """Follows /v1/events from `after`, or from now, until it is closed or cut off."""

    def __init__(self, client, after=None, timeout=60):
        self._connection = client.connection(timeout)
        headers = {"Last-Event-ID": str(after)} if after is not None else {}
        self._connection.request("GET", "/v1/events", headers=headers)
        self._socket = self._connection.sock
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.events = []  # (time.monotonic(), event)
        self.pings = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was first
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._connection.close()

    def _read(self):
        try:
            for line in self._response:
                self._take(line.decode())
        except (OSError, ValueError, AttributeError):
            pass  # cut off, or closed by us

    def _take(self, line):
        with self._changed:
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                self.events.append((time.monotonic(), event))
            elif line.startswith(": ping"):
                self.pings += 1
            self._changed.notify_all()

    def of(self, subject):
        return [event for _, event in self.events if event["subject"] == subject]

    def until(self, matches, what, seconds=60):
        """The first event that `matches`, and when it came."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for at, event in self.events:
                    if matches(event):
                        return at, event
                left = deadline - time.monotonic()
                assert left > 0, f"{what}: not among {[(e['type'], e['subject']) for _, e in self.events]}"
                self._changed.wait(left)


def check_event(event):
    """Against the API's description."""
    CONTRACT.check_schema("Event", event)
    kind = event["subject"].split("/")[2] if event["subject"] != "/v1" else "agent"
    schema = {"vms": "Vm", "operations": "Operation", "images": "Image", "agent": "Agent"}[kind]
    if event["type"] != "vm.deleted" and event["data"].get("state") != "deleted":
        CONTRACT.check_schema(schema, event["data"])
