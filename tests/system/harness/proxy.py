"""A Unix socket between the agent and libvirtd that can be slow, or gone."""

import os
import selectors
import socket
import threading
import time


class Proxy:
    """Hands bytes on both ways; answers come `latency` seconds late, and any number of them may be on the way."""

    def __init__(self, path, target):
        self.path = path
        self.latency = 0.0
        self._target = target
        self._listener = None
        self._lock = threading.Lock()
        self._pairs = set()
        self.open()

    @property
    def uri(self):
        return f"qemu+unix:///system?socket={self.path}"

    def open(self):
        assert self._listener is None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self):
        """The socket's file goes, and every connection through it."""
        listener, self._listener = self._listener, None
        if listener is not None:
            os.unlink(self.path)
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            listener.close()
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair)

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._target)
            except OSError:
                client.close()
                server.close()
                continue
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._copy, args=(pair, client, server, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(pair, server, client, True), daemon=True).start()

    def _copy(self, pair, source, sink, delayed):
        on_the_way = []  # (when it is due, bytes)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(source, selectors.EVENT_READ)
                while True:
                    now = time.monotonic()
                    while on_the_way and on_the_way[0][0] <= now:
                        sink.sendall(on_the_way.pop(0)[1])
                    wait = max(on_the_way[0][0] - now, 0) if on_the_way else None
                    if selector.select(wait):
                        data = source.recv(1 << 18)
                        if not data:
                            return
                        on_the_way.append((time.monotonic() + (self.latency if delayed else 0), data))
        except (OSError, ValueError):
            pass  # the other direction, or close(), ended the connection
        finally:
            self._end(pair)

    def _end(self, pair):
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.remove(pair)
        for end in pair:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()
