"""A vendor with a few images, and an agent that knows them by name."""

import hashlib
import os
import subprocess

from harness.agent import Agent
from harness.image_server import ImageServer

MIB = 1 << 20
NAMES = "abcd"


def path_of(name):
    return f"/{name}/disk.qcow2"


def qcow2(directory, name, mib=2):
    """An image that is about as large as its data."""
    raw, made = os.path.join(directory, f"{name}.raw"), os.path.join(directory, f"{name}.qcow2")
    with open(raw, "wb") as file:
        file.write(os.urandom(mib * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made], check=True)
    with open(made, "rb") as file:
        return file.read()


class Vendor(ImageServer):
    """Serves an image for each of NAMES, and has a newer one at hand."""

    def __init__(self, identity, directory):
        super().__init__(identity)
        for name in NAMES:
            self.publish(path_of(name), qcow2(directory, name))
        self.newer = qcow2(directory, "newer")


class Cache:
    """An agent whose cache has little room."""

    def __init__(self, directory, pki, server, **images):
        self.server = server
        options = {"tls_ca": pki.ca.certificate, "allow_private_addresses": True, **images}
        self.agent = Agent(directory, pki, images=options)
        self.agent.write_catalogue({name: {"url": server.url(path_of(name)),
                                           "checksums": server.url(f"/{name}/SHA256SUMS")} for name in NAMES})
        self.directory = os.path.join(self.agent.state, "images")

    def add(self, name):
        return self.agent.local().post("/v1/images", {"source": name}, query={"wait": 60})

    def names(self):
        return "".join(image["name"] for image in self.agent.local().pages("/v1/images"))

    def blob(self, name):
        digest = hashlib.sha256(self.server.sites[path_of(name)].content).hexdigest()
        return os.path.join(self.directory, f"{digest}.qcow2")
