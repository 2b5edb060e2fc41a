"""What the cache of images keeps, and what it gives up."""

import os
import subprocess

import pytest

from harness.shop import MIB, Cache, Vendor, path_of
from harness.wait import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(pki, tmp_path_factory):
    server = Vendor(pki.server, tmp_path_factory.mktemp("images"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cache(directory, libvirt, pki, server):
    cache = Cache(os.path.join(directory, "cache"), pki, server, cache_max=f"{7 * MIB}B")
    cache.agent.start()
    yield cache
    assert cache.agent.stop() == 0
    libvirt.forget_pool()


@pytest.fixture(autouse=True)
def empty(request):
    yield
    if "cache" in request.fixturenames:
        cache = request.getfixturevalue("cache")
        cache.agent.local().ok("POST", "/v1/image-cache/prune", {}, query={"wait": 30})
        assert os.listdir(cache.directory) == []


def make_vm(cache, name, image):
    body = {"name": name, "spec": {"image": image, "disk_gib": 1, "vcpus": 1, "memory_mib": 64, "power": "off"}}
    answer = cache.agent.local().post("/v1/vms", body, query={"wait": 60})
    assert answer.status == 201, answer


def delete_vm(cache, name):
    cache.agent.local().ok("DELETE", f"/v1/vms/{name}", query={"wait": 60})


def test_the_longest_unused_goes_when_room_is_needed(cache):
    for name in "abc":
        assert cache.add(name).status == 201
    assert cache.add("d").status == 201
    assert cache.names() == "bcd"
    assert not os.path.exists(cache.blob("a"))


def test_what_a_vm_stands_on_stays_and_so_does_what_a_domain_of_others_does(cache, libvirt, tmp_path):
    for name in "abc":
        assert cache.add(name).status == 201
    make_vm(cache, "ours", "a")
    os.chmod(tmp_path, 0o755)
    overlay = tmp_path / "theirs.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", cache.blob("b"), "-F", "qcow2", overlay], check=True)
    (tmp_path / "theirs.xml").write_text(
        "<domain type='qemu'><name>theirs</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>"
        f"<driver name='qemu' type='qcow2'/><source file='{overlay}'/><target dev='vda' bus='virtio'/></disk>"
        "</devices></domain>")
    libvirt.virsh("define", tmp_path / "theirs.xml")
    local = cache.agent.local()
    try:
        until(lambda: any(vm["name"] == "theirs" for vm in local.pages("/v1/vms")), "the agent sees it", 10)
        assert local.delete("/v1/images/b", query={"wait": 30}).code == "state_conflict"
        assert cache.add("d").status == 201
        assert cache.names() == "abd"
        local.ok("POST", "/v1/image-cache/prune", {}, query={"wait": 30})
        assert cache.names() == "ab"
    finally:
        libvirt.virsh("undefine", "theirs")
        delete_vm(cache, "ours")
    until(lambda: all(vm["name"] != "theirs" for vm in local.pages("/v1/vms")), "it is gone", 10)


def test_nothing_goes_when_that_would_not_be_enough(cache):
    for name in "abc":
        make_vm(cache, f"vm-{name}", name)
    refused = cache.add("d")
    assert (refused.status, refused.code) == (507, "insufficient_storage"), refused
    assert "images.cache_max" in refused.json["detail"]
    assert cache.names() == "abc"
    for name in "abc":
        delete_vm(cache, f"vm-{name}")


def test_a_refresh_moves_the_name_and_the_vm_keeps_its_blob(cache):
    make_vm(cache, "web", "a")
    old, content = cache.blob("a"), cache.server.sites[path_of("a")].content
    cache.server.publish(path_of("a"), cache.server.newer, etag='"2"')
    try:
        cache.agent.local().ok("POST", "/v1/images/a/refresh", {}, query={"wait": 60})
        assert os.path.exists(old) and os.path.exists(cache.blob("a"))
        delete_vm(cache, "web")
        until(lambda: not os.path.exists(old), "the older blob goes with its last VM", 10)
        assert os.path.exists(cache.blob("a"))
    finally:
        cache.server.publish(path_of("a"), content, etag='"3"')
