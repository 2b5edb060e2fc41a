"""Images from a server that misbehaves on purpose: what comes of it, and what is left."""

import hashlib
import os
import signal
import subprocess

import pytest

from harness.events import EventStream
from harness.image_server import ImageServer, Site
from harness.wait import until

pytestmark = pytest.mark.slow

IMAGE = "/main/disk.qcow2"
MIB = 1 << 20
REFUSED = 4  # ghostctl's exit code


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A qcow2 with data in it."""
    directory = tmp_path_factory.mktemp("content")
    (directory / "raw").write_bytes(os.urandom(6 * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", directory / "raw", directory / "qcow2"],
                   check=True)
    return (directory / "qcow2").read_bytes()


@pytest.fixture(scope="module")
def server(pki):
    server = ImageServer(pki.server)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def agent_options(pki):
    return {"images": {"tls_ca": pki.ca.certificate, "allow_private_addresses": True}}


class Keys:
    """A vendor's OpenPGP key, and its signatures."""

    def __init__(self, home):
        self.home = home
        os.makedirs(home, mode=0o700)
        self._gpg("--quick-gen-key", "--passphrase", "", "vendor@example.org", "ed25519", "sign", "never")

    def _gpg(self, *arguments, stdin=b""):
        done = subprocess.run(["gpg", "--homedir", self.home, "--batch", "--quiet", *arguments], input=stdin,
                              capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def public(self):
        return self._gpg("--export")

    def sign(self, text):
        return self._gpg("--detach-sign", "--output", "-", stdin=text)

    def close(self):
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False)


@pytest.fixture(scope="module")
def keys(directory):
    keys = [Keys(os.path.join(directory, name)) for name in ("gpg", "gpg-2")]
    yield keys
    for each in keys:
        each.close()


@pytest.fixture(scope="module")
def shop(agent, server, keys):
    """The agent with a catalogue of the server's images."""
    sums = server.url("/main/SHA256SUMS")
    directory = agent.write_catalogue({
        "main": {"url": server.url(IMAGE), "checksums": sums},
        "mirrored": {"url": server.url("/gone/disk.qcow2"), "mirrors": [server.url("/gone/too"), server.url(IMAGE)],
                     "checksums": sums},
        "signed": {"url": server.url(IMAGE), "checksums": sums, "signature": server.url("/main/SHA256SUMS.gpg"),
                   "keyring": "vendor.gpg"},
    })
    with open(os.path.join(directory, "vendor.gpg"), "wb") as file:
        file.write(keys[0].public())
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: catalogue(agent) >= {"main", "mirrored", "signed"}, "the catalogue has them", 10)
    return agent


def catalogue(agent):
    return {item["name"] for item in agent.local().pages("/v1/images", remote="true")}


@pytest.fixture(autouse=True)
def fresh(shop, server, content):
    server.sites.clear()
    server.forget()
    server.publish(IMAGE, content)
    yield
    local = shop.local()
    for image in local.pages("/v1/images"):
        if image["name"] != "tiny":
            until(lambda name=image["name"]: local.delete(f"/v1/images/{name}", query={"wait": 30}).status in (200, 404),
                  "the image is deleted", 30)
    local.ok("POST", "/v1/image-cache/prune", {}, query={"wait": 30})


def add(shop, source="main", **more):
    return shop.local().post("/v1/images", {"source": source, **more}, query={"wait": 120})


def in_cache(shop):
    """Names of files, but for the blob of `tiny`."""
    tiny = shop.local().ok("GET", "/v1/images/tiny")["digest"].removeprefix("sha256:")
    return sorted(name for name in os.listdir(os.path.join(shop.state, "images")) if not name.startswith(tiny))


def check_came(shop, answer, content, verified="checksum"):
    assert answer.status == 201, answer
    digest = hashlib.sha256(content).hexdigest()
    assert answer.json["digest"] == f"sha256:{digest}"
    assert (answer.json["state"], answer.json["verified"]) == ("available", verified)
    assert in_cache(shop) == [f"{digest}.qcow2"]


def check_refused(shop, answer, code, left=()):
    assert answer.code == code, answer
    assert [image["name"] for image in shop.local().pages("/v1/images")] == ["tiny"]
    assert [name for name in in_cache(shop) if not name.endswith((".part", ".part.json"))] == list(left)


def test_cut_at_each_tenth_it_is_gone_on_with(shop, server, content):
    tenth = len(content) // 10
    server.sites[IMAGE].cuts = [tenth] * 9
    check_came(shop, add(shop), content)
    asked = server.asked_for(IMAGE)
    assert [each.first for each in asked] == [i * tenth for i in range(10)]
    assert all(each.if_range == '"1"' for each in asked[1:])


def test_a_server_that_ignores_range(shop, server, content):
    server.sites[IMAGE].ranges = False
    server.sites[IMAGE].cuts = [len(content) // 2, len(content) - 1]
    check_came(shop, add(shop), content)


def test_another_file_in_between(shop, server, content):
    newer = content + b"newer"

    def replace(_):
        if len(server.asked_for(IMAGE)) == 1:
            server.publish(IMAGE, newer, etag='"2"', on_asked=None)
            server.sites[IMAGE].cuts = []

    server.publish(IMAGE, newer)
    server.sites[IMAGE] = Site(content, cuts=[len(content) // 2], on_asked=replace)
    check_came(shop, add(shop), newer)
    assert server.asked_for(IMAGE)[1].first == len(content) // 2


@pytest.mark.parametrize("said", [100, 10 * MIB], ids=["less", "more"])
def test_a_wrong_length(shop, server, content, said):
    """Said of whole answers only; what follows tells the truth."""
    server.sites[IMAGE].length = said
    answer = add(shop)
    if said > len(content):
        check_came(shop, answer, content)
    else:
        check_refused(shop, answer, "checksum_mismatch")


def test_bytes_that_come_slowly_come(shop, server, content):
    server.sites[IMAGE].pause = 0.02
    check_came(shop, add(shop), content)


def test_a_wrong_checksum_ends_it_at_once_and_ghostctl_says_what_to_do(shop, server):
    server.sites["/main/SHA256SUMS"].content = b"0" * 64 + b" *disk.qcow2\n"
    told = shop.ghostctl("image", "add", "main")
    assert told.returncode == REFUSED and "checksum" in told.stderr, told
    assert len(server.asked_for(IMAGE)) == 1
    check_refused(shop, add(shop), "checksum_mismatch")
    assert in_cache(shop) == []


def test_a_signed_list(shop, server, content, keys):
    listed = server.sites["/main/SHA256SUMS"].content
    server.sites["/main/SHA256SUMS.gpg"] = Site(keys[0].sign(listed))
    check_came(shop, add(shop, "signed"), content, verified="signature")


@pytest.mark.parametrize("wrong", ["of another text", "by another key", "none", "no signature"])
def test_a_signature_that_is_not_good(shop, server, keys, wrong):
    listed = server.sites["/main/SHA256SUMS"].content
    signature = {"of another text": lambda: keys[0].sign(listed + b"\n"), "by another key": lambda: keys[1].sign(listed),
                 "none": lambda: b"", "no signature": lambda: b"not a signature"}[wrong]()
    server.sites["/main/SHA256SUMS.gpg"] = Site(signature)
    check_refused(shop, add(shop, "signed"), "signature_invalid")
    assert server.asked_for(IMAGE) == []


def test_redirects(shop, server, content):
    server.sites["/r1"] = Site(status=302, location="/r2")
    server.sites["/r2"] = Site(status=307, location=server.url(IMAGE, host="localhost"))
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    check_came(shop, add(shop, server.url("/r1"), name="main", checksum=digest), content)


@pytest.mark.parametrize("location", ["/loop", "http://127.0.0.1/disk.qcow2"], ids=["loop", "to plain HTTP"])
def test_redirects_that_lead_nowhere(shop, server, location):
    server.sites["/loop"] = Site(status=301, location=location)
    answer = add(shop, server.url("/loop"), allow_unverified=True)
    check_refused(shop, answer, "source_unavailable")
    assert len(server.asked) <= 6


def test_mirrors(shop, server, content):
    check_came(shop, add(shop, "mirrored"), content)
    assert len(server.asked_for("/gone/disk.qcow2")) == len(server.asked_for("/gone/too")) == 1


def test_mirrors_of_which_none_has_it(shop, server):
    del server.sites[IMAGE]
    answer = add(shop, "mirrored")
    check_refused(shop, answer, "source_unavailable")
    for path in ("/gone/disk.qcow2", "/gone/too", IMAGE):
        assert path in answer.json["detail"], answer


def test_nothing_proves_it(shop, server):
    check_refused(shop, add(shop, server.url(IMAGE)), "unverified_image")
    answer = add(shop, server.url(IMAGE), name="main", allow_unverified=True)
    assert answer.status == 201 and answer.json["verified"] == "none", answer


def test_whom_the_certificate_names(shop, server):
    answer = add(shop, server.url(IMAGE, host="127.0.0.2"), allow_unverified=True)
    check_refused(shop, answer, "source_unavailable")
    assert "certificate" in answer.json["detail"], answer
    assert server.asked == []


def test_a_certificate_that_nobody_vouches_for(shop, pki):
    other = ImageServer(pki.stranger)
    try:
        answer = add(shop, other.url("/x.qcow2"), allow_unverified=True)
    finally:
        other.stop()
    check_refused(shop, answer, "source_unavailable")
    assert "certificate" in answer.json["detail"], answer


def test_twenty_vms_of_an_image_that_is_not_here_share_one_download(shop, server, vms):
    server.sites[IMAGE].pause = 0.01
    local = shop.local()
    begun = []
    for i in range(20):
        vms.expect(f"vm-{i}")
        begun.append(local.ok("POST", "/v1/vms", vms.body(f"vm-{i}", image="main", power="off")))
    for operation in begun:
        ended = until(lambda op=operation: finished(local, op), "it is made", 120)
        assert ended["state"] == "succeeded", ended
    assert len(server.asked_for(IMAGE)) == 1
    assert local.ok("GET", "/v1/images/main")["used_by"]


def finished(client, operation):
    now = client.ok("GET", f"/v1/operations/{operation['id']}")
    return now if now["state"] in ("succeeded", "failed", "cancelled") else None


def test_who_cancels_leaves_it_to_the_others(shop, server, vms):
    server.sites[IMAGE].pause = 0.05
    local = shop.local()
    vms.expect("one")
    adding = local.ok("POST", "/v1/images", {"source": "main"})
    making = local.ok("POST", "/v1/vms", vms.body("one", image="main", power="off"))
    until(lambda: server.asked_for(IMAGE), "it is asked for", 10)
    cancelled = local.ok("POST", f"/v1/operations/{adding['id']}/cancel", {}, query={"wait": 30})
    assert cancelled["state"] == "cancelled"
    server.sites[IMAGE].pause = 0
    assert until(lambda: finished(local, making), "the VM is made", 60)["state"] == "succeeded"
    assert len(server.asked_for(IMAGE)) == 1


def test_the_last_who_cancels_leaves_nothing(shop, server):
    server.sites[IMAGE].pause = 0.05
    local = shop.local()
    adding = local.ok("POST", "/v1/images", {"source": "main"})
    until(lambda: [name for name in in_cache(shop) if name.endswith(".part")], "it is fetched", 10)
    local.ok("POST", f"/v1/operations/{adding['id']}/cancel", {}, query={"wait": 30})
    assert in_cache(shop) == []


def test_progress_is_told(shop, server, content):
    server.sites[IMAGE].pause = 0.03
    with EventStream(shop.local()) as stream:
        assert add(shop).status == 201
        stream.until(lambda event: event["data"].get("state") == "succeeded", "its end is told")
        told = [event["data"]["progress"] for _, event in stream.events if event["type"] == "operation.updated"]
    downloading = [progress for progress in told if progress["phase"] == "downloading" and progress["done"]]
    assert downloading, told
    assert all(progress["total"] == len(content) and progress["unit"] == "bytes" for progress in downloading)
    assert any(progress["rate"] for progress in downloading)


def test_ghostctl(shop, content):
    listed = shop.ghostctl("image", "list", "--remote")
    assert listed.returncode == 0 and "signature" in listed.stdout and "debian-12" in listed.stdout, listed
    added = shop.ghostctl("image", "add", "main")
    assert added.returncode == 0, added
    assert shop.ghostctl("image", "refresh", "main").returncode == 0
    dry = shop.ghostctl("image", "prune", "--dry-run")
    assert dry.returncode == 0 and "delete the image main" in dry.stdout, dry
    assert hashlib.sha256(content).hexdigest() + ".qcow2" in in_cache(shop)
    assert shop.ghostctl("image", "prune", "--yes").returncode == 0
    assert in_cache(shop) == []


@pytest.mark.parametrize("what", ["image", "vm"])
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_an_agent_that_ends_midway_goes_on_where_it_was(shop, server, content, vms, what, end):
    server.sites[IMAGE].pause = 0.1
    local = shop.local()
    if what == "vm":
        vms.expect("web")
        begun = local.ok("POST", "/v1/vms", vms.body("web", image="main", power="off"))
    else:
        begun = local.ok("POST", "/v1/images", {"source": "main"})
    part = os.path.join(shop.state, "images")

    def some_is_here():
        return [n for n in os.listdir(part) if n.endswith(".part") and os.path.getsize(os.path.join(part, n)) > MIB]

    until(some_is_here, "some of it is on disk", 30)
    getattr(shop, end)()
    server.sites[IMAGE].pause = 0
    server.forget()
    shop.start()
    ended = until(lambda: finished(shop.local(), begun), "it is at its end", 60)
    assert ended["state"] == "succeeded", ended
    (asked,) = server.asked_for(IMAGE)
    assert asked.first >= MIB
    assert f"{hashlib.sha256(content).hexdigest()}.qcow2" in in_cache(shop)


def test_memory_does_not_grow_with_the_image(shop, server):
    """At most 2 MiB a download, over what the agent has after its first."""
    server.publish("/large/disk.raw", os.urandom(MIB) * 96)
    digest = server.sites["/large/SHA256SUMS"].content.split()[0].decode()

    def fetch():
        answer = add(shop, server.url("/large/disk.raw"), name="large", format="raw", checksum=f"sha256:{digest}")
        assert answer.status == 201, answer
        assert shop.local().delete("/v1/images/large", query={"wait": 30}).status == 200

    fetch()
    before = peak(shop)
    fetch()
    assert peak(shop) - before <= 2048


def peak(shop):
    """KiB resident, the most since this was asked last."""
    with open(f"/proc/{shop.process.pid}/status", encoding="ascii") as file:
        kib = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    with open(f"/proc/{shop.process.pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return kib
