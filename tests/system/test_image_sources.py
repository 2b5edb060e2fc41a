"""Agents that are in the way of their own downloads: a full disk, private addresses, a proxy."""

import os
import socket
import threading

import pytest

from harness.filesystem import Impossible, SmallFileSystem
from harness.hypervisor import URI
from harness.shop import MIB, Cache, Vendor, path_of
from harness.wait import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(pki, tmp_path_factory):
    server = Vendor(pki.server, tmp_path_factory.mktemp("images"))
    yield server
    server.stop()


def parts(directory):
    """Sizes of what is there of downloads."""
    return [size for size in (os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory)
                              if name.endswith(".part")) if size]


def test_a_full_disk_ends_a_download_and_room_lets_it_go_on(directory, pki, server, libvirt):
    place = os.path.join(directory, "full-cache")
    os.makedirs(place, exist_ok=True)
    try:
        small = SmallFileSystem(os.path.join(directory, "full-cache.img"), place, 16)
    except Impossible as why:
        pytest.skip(f"no file systems on loop devices here: {why}")
    cache = Cache(os.path.join(directory, "full"), pki, server)
    cache.agent.config["libvirt"] = {**cache.agent.config["libvirt"], "uri": URI, "image_cache": place}
    cache.agent.write_config()
    cache.agent.start()
    try:
        # Before: it is told how long the image is, and no byte of it is written.
        small.fill(leave=MIB)
        refused = cache.add("a")
        assert (refused.status, refused.code) == (507, "insufficient_storage"), refused
        assert refused.json["needed"]["disk_bytes"] > refused.json["free"]["disk_bytes"], refused
        assert cache.names() == "" and parts(place) == []
        small.make_room()
        # During: others fill the disk.
        site = server.sites[path_of("a")]
        site.pause, site.piece = 0.1, 64 * 1024
        local = cache.agent.local()
        adding = local.ok("POST", "/v1/images", {"source": "a"})
        until(lambda: parts(place), "some of it is on disk", 30)
        small.fill()
        ended = until(lambda: local.ok("GET", f"/v1/operations/{adding['id']}")["error"], "it ends", 30)
        assert ended["code"] == "insufficient_storage", ended
        assert cache.names() == "" and cache.agent.answers("/ready")
        small.make_room()
        site.pause = 0
        server.forget()
        assert cache.add("a").status == 201
        assert server.asked_for(path_of("a"))[0].first > 0, "it goes on with what is there"
    finally:
        assert cache.agent.stop() == 0
        libvirt.forget_pool()


def test_private_addresses_are_not_fetched_from(directory, pki, server, libvirt):
    cache = Cache(os.path.join(directory, "private"), pki, server, allow_private_addresses=False)
    cache.agent.start()
    try:
        refused = cache.add("a")
        assert (refused.status, refused.code) == (422, "address_not_allowed"), refused
        told = cache.agent.ghostctl("image", "add", "a")
        assert told.returncode == 4 and "images.allow_private_addresses" in told.stderr, told
    finally:
        assert cache.agent.stop() == 0
        libvirt.forget_pool()


class ConnectProxy:
    """An HTTP proxy that knows CONNECT, once for each connection, and notes whereto."""

    def __init__(self):
        self.targets = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self):
        self._listener.close()

    def _serve(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        target = head.split()[1].decode()
        self.targets.append(target)
        host, _, port = target.rpartition(":")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        client.close()
        server.close()

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.mark.parametrize("direct", ["", "127.0.0.0/8"], ids=["through it", "past it"])
def test_a_proxy_of_the_environment(directory, pki, server, libvirt, direct):
    proxy = ConnectProxy()
    cache = Cache(os.path.join(directory, f"proxy-{len(direct)}"), pki, server)
    cache.agent.start(HTTPS_PROXY=proxy.address, NO_PROXY=direct)
    try:
        assert cache.add("a").status == 201
        assert set(proxy.targets) == (set() if direct else {f"127.0.0.1:{server.port}"})
    finally:
        assert cache.agent.stop() == 0
        libvirt.forget_pool()
        proxy.close()
