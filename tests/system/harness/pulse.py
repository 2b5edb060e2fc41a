"""What a user of the agent feels meanwhile: answers that come or don't, and a stream that goes on."""

import threading
import time

PATHS = ("/v1/vms", "/health", "/v1/operations")


class Pulse:
    """Asks for the same few things over and over until it is left."""

    def __init__(self, client, limit=20.0, pause=0.25):
        self._client = client
        self._limit = limit  # seconds; no answer by then counts as one that took so long
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.slowest = dict.fromkeys(PATHS, 0.0)
        self.asked = 0
        self.faults = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(2 * self._limit)

    def _run(self):
        while not self._over.wait(self._pause):
            for path in PATHS:
                begun = time.monotonic()
                try:
                    answer = self._client.get(path, timeout=self._limit, checked=False)
                    if answer.status != 200 and not (path == "/health" and answer.status == 503):
                        self.faults.append(f"{path}: {answer}")
                except OSError as fault:
                    self.faults.append(f"{path}: {fault!r}")
                self.slowest[path] = max(self.slowest[path], time.monotonic() - begun)
                self.asked += 1

    def steady(self, seconds):
        """Whether every answer came, and none took longer."""
        assert not self.faults, self.faults[:5]
        assert self.asked >= len(PATHS)
        assert max(self.slowest.values()) < seconds, self.slowest
        return True


class Stream:
    """Follows /v1/events until it is left."""

    def __init__(self, client):
        self._connection = client.connection(60)
        self._connection.request("GET", "/v1/events")
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.status
        self.heard = []  # (when, event type or "ping")
        self.ended = None  # when
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.ended = self.ended or 0
        self._connection.sock.shutdown(2)
        self._thread.join(20)
        self._connection.close()

    def _run(self):
        try:
            while line := self._answer.readline():
                if line.startswith(b": ping"):
                    self.heard.append((time.monotonic(), "ping"))
                elif line.startswith(b"event:"):
                    self.heard.append((time.monotonic(), line.split(b":", 1)[1].strip().decode()))
        except OSError:
            pass
        if self.ended is None:
            self.ended = time.monotonic()

    def longest_silence(self, begun, over):
        """Seconds between two things heard, or an end of the time asked about."""
        assert not self.ended, "the stream was cut"
        times = [begun, *(when for when, _ in self.heard if begun < when < over), over]
        return max(later - earlier for earlier, later in zip(times, times[1:]))
