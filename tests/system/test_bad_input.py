"""Bad input, each with its problem, and nothing changed by any of it."""

import http.client
import json
import os
import socket
import subprocess

import pytest

from harness.client import tls_context
from harness.wait import until

GOOD = {"name": "never", "spec": {"image": "tiny", "disk_gib": 1, "vcpus": 1, "memory_mib": 64, "power": "off"}}


def with_spec(**changes):
    return {**GOOD, "spec": {**GOOD["spec"], **changes}}


@pytest.fixture(scope="module")
def keeper(agent):
    """A protected VM that is off, to aim at."""
    body = {"name": "keeper", "labels": {"kept": "yes"}, "spec": {**GOOD["spec"], "protected": True}}
    vm = agent.remote().ok("POST", "/v1/vms", body, query={"wait": 60})
    yield vm["id"]
    agent.remote().ok("PATCH", f"/v1/vms/{vm['id']}", {"spec": {"protected": False}}, query={"wait": 30})
    agent.remote().ok("DELETE", f"/v1/vms/{vm['id']}", query={"wait": 60})


def world(agent, libvirt):
    """All that a request could have changed. Images are made elsewhere, and looked at only when they are settled."""
    local = agent.local()
    vms = {vm["id"]: (vm["generation"], vm["spec"], vm["labels"], vm["owner"], vm["status"]["power"],
                      vm["status"]["phase"]) for vm in local.pages("/v1/vms")}
    cache = sorted(os.listdir(os.path.join(agent.state, "images")))
    images = sorted(image["name"] for image in local.pages("/v1/images"))
    return vms, images, cache, agent.disk_files(), libvirt.domains()


@pytest.fixture(scope="module")
def as_it_was(agent, libvirt, keeper):
    assert keeper
    return world(agent, libvirt)


@pytest.fixture(autouse=True)
def nothing_changes(agent, libvirt, as_it_was):
    yield
    assert world(agent, libvirt) == as_it_was


def refused(answer, status, code, pointer=None):
    assert (answer.status, answer.code) == (status, code), answer
    if pointer is not None:
        assert pointer in [fault["pointer"] for fault in answer.json["errors"]], answer


# What isn't JSON

@pytest.mark.parametrize("body", [b"", b"{", b"{]", b'{"name": }', b"nonsense", b'{"name": "a"} trailing', b'{"a": 01}',
                                  b"{'name': 'a'}", b'{"name": "a",}', b'\xef\xbb\xbf{"name": "a"}',
                                  b'{"name": "\x01"}',
                                  b'{"name": "\\ud800"}', b'{"name": "\xff\xfe"}', b'{"name": "\xc0\xaf"}',
                                  b'{"a": NaN}', b"\0"])
def test_broken_json_is_refused(remote, body):
    refused(remote.post("/v1/vms", body), 400, "invalid_json")
    refused(remote.patch("/v1/vms/keeper", body), 400, "invalid_json")


@pytest.mark.parametrize("text", ["[" * 10_000, "[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000])
def test_deep_json_is_refused(remote, text):
    refused(remote.post("/v1/vms", text.encode()), 400, "invalid_json")
    refused(remote.patch("/v1/vms/keeper", text.encode()), 400, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"name"', b"true"])
def test_json_that_is_no_object_is_refused(remote, body):
    refused(remote.post("/v1/vms", body), 422, "validation_failed")
    refused(remote.patch("/v1/vms/keeper", body), 422, "validation_failed")


def test_another_media_type_is_refused(remote):
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        answer = remote.post("/v1/vms", json.dumps(GOOD).encode(), headers={"Content-Type": media_type})
        refused(answer, 415, "unsupported_media_type")


# Sizes

def head_of(path, length):
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n\r\n").encode()


def answer_to(stream):
    response = http.client.HTTPResponse(stream)
    response.begin()
    return response.status, json.loads(response.read())


def connect(agent):
    raw = socket.create_connection(("127.0.0.1", agent.API_PORT), 30)
    return tls_context(agent.pki.ca.certificate, agent.pki.alice).wrap_socket(raw, server_hostname="localhost")


def test_a_large_body_is_refused_before_it_is_sent(agent):
    with connect(agent) as stream:
        stream.sendall(head_of("/v1/vms", 2 << 20))
        status, problem = answer_to(stream)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_a_large_body_is_refused_while_it_is_sent(agent):
    with connect(agent) as stream:
        try:
            stream.sendall(head_of("/v1/vms", 2 << 20) + b" " * (2 << 20))
        except OSError:
            pass  # the agent may hang up on what it won't read; its answer came before
        status, problem = answer_to(stream)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_a_large_chunked_body_is_refused(agent):
    with connect(agent) as stream:
        stream.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(32):
                stream.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        except OSError:
            pass
        status, problem = answer_to(stream)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_large_headers_are_refused(agent):
    with connect(agent) as stream:
        stream.sendall(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * (20 << 10) + b"\r\n\r\n")
        status, problem = answer_to(stream)
    assert (status, problem["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("request_line", [b"GET", b"GET /v1", b"GET /v1 HTTP/9.9", b"\0\0\0", b"GET v1 HTTP/1.1",
                                          b"G\xffT /v1 HTTP/1.1", b"GET /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: -1"])
def test_what_is_no_http_ends_in_an_error(agent, request_line):
    with connect(agent) as stream:
        stream.sendall(request_line + b"\r\n\r\n")
        status, _ = answer_to(stream)
    assert 400 <= status < 600


@pytest.mark.parametrize("extra", [b"Content-Length: 5\r\nContent-Length: 6\r\n",
                                   b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"])
def test_two_ideas_of_a_bodys_length_are_refused(agent, extra):
    with connect(agent) as stream:
        stream.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + extra +
                       b"\r\n0\r\n\r\n")
        status, _ = answer_to(stream)
    assert status == 400


# Members and types

def test_unknown_members_are_named(remote):
    refused(remote.post("/v1/vms", {**GOOD, "colour": "red"}), 422, "validation_failed", "/colour")
    refused(remote.post("/v1/vms", with_spec(ram=4)), 422, "validation_failed", "/spec/ram")
    refused(remote.post("/v1/vms", with_spec(cloud_init={"pass/wd": "x"})), 422, "validation_failed",
            "/spec/cloud_init/pass~1wd")
    refused(remote.post("/v1/vms", with_spec(disks={"data": {"size_gib": 1, "bus": "ide"}})), 422, "validation_failed",
            "/spec/disks/data/bus")
    refused(remote.patch("/v1/vms/keeper", {"spec": {"color": 1}}), 422, "validation_failed", "/spec/color")
    refused(remote.post("/v1/images", {"source": "file:///x.qcow2", "url": "y"}), 422, "validation_failed", "/url")
    refused(remote.post("/v1/vms/keeper/stop", {"forced": True}), 422, "validation_failed", "/forced")


def test_all_faults_are_told_at_once(remote):
    answer = remote.post("/v1/vms", {"name": "No", "spec": {"vcpus": 0, "memory_mib": "much", "disk_gib": -1}})
    refused(answer, 422, "validation_failed", "/spec/image")
    told = {fault["pointer"] for fault in answer.json["errors"]}
    assert {"/name", "/spec/vcpus", "/spec/memory_mib", "/spec/disk_gib"} <= told


@pytest.mark.parametrize("member", ["name", "spec"])
def test_required_members_are_named(remote, member):
    body = {key: value for key, value in GOOD.items() if key != member}
    refused(remote.post("/v1/vms", body), 422, "validation_failed", f"/{member}")


@pytest.mark.parametrize("pointer,value", [
    ("name", 7), ("name", None), ("name", ["a"]), ("owner", 7), ("labels", []), ("labels", {"a": 1}), ("spec", []),
    ("wait_for", "forever"), ("wait_for", True)])
def test_wrong_types_are_refused(remote, pointer, value):
    answer = remote.post("/v1/vms", {**GOOD, pointer: value})
    refused(answer, 422, "validation_failed")
    assert any(fault["pointer"].startswith(f"/{pointer}") for fault in answer.json["errors"])


@pytest.mark.parametrize("member,value", [
    ("image", 7), ("image", ""), ("image", "../../etc/passwd"), ("image", "a b"), ("vcpus", "2"), ("vcpus", 1.5),
    ("vcpus", 0), ("vcpus", 10**6), ("power", True), ("power", "paused"), ("autostart", True), ("protected", "yes"),
    ("protected", 1), ("firmware", "efi"), ("disk_gib", 0), ("disk_gib", 2**40), ("disk_gib", 0.5),
    ("disks", {"../x": {"size_gib": 1}}), ("disks", {"root": {"size_gib": 1}}), ("disks", {"a": {}}),
    ("disks", {"a": {"size_gib": 0}}), ("disks", {f"d{n}": {"size_gib": 1} for n in range(17)}), ("disks", [1]),
    ("nics", {"e": {"network": "<evil/>"}}), ("nics", {"e": {"network": ""}}), ("nics", {"e" * 16: {}}),
    ("nics", {"": {}}),
    ("cloud_init", {"hostname": "a b"}), ("cloud_init", {"hostname": "a\nb"}), ("cloud_init", {"user": "root:x"}),
    ("cloud_init", {"ssh_authorized_keys": ["not a key"]}), ("cloud_init", {"ssh_authorized_keys": "ssh-ed25519 AAAA"}),
    ("cloud_init", {"ssh_authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample\nroot: x"]}),
    ("cloud_init", {"user_data": {"a": 1}}), ("cloud_init", {"user_data": "x" * (512 * 1024 + 1)})])
def test_wrong_members_of_the_spec_are_refused(remote, member, value):
    answer = remote.post("/v1/vms", with_spec(**{member: value}))
    refused(answer, 422, "validation_failed")
    assert any(fault["pointer"].startswith(f"/spec/{member}") for fault in answer.json["errors"]), answer


@pytest.mark.parametrize("memory", [0, -1, 2**63, 2**63 - 1, 2**64, -(2**63), 1e300, 1.5, "160", True, None, [], 31])
def test_an_impossible_amount_of_memory_is_refused(remote, memory):
    refused(remote.post("/v1/vms", with_spec(memory_mib=memory)), 422, "validation_failed", "/spec/memory_mib")
    refused(remote.patch("/v1/vms/keeper", {"spec": {"memory_mib": memory}}), 422, "validation_failed",
            "/spec/memory_mib")


# Names

BAD_NAMES = ["", "../x", "..", "a/b", "/etc/passwd", "a<b", "a&b", "&amp;", 'a"b', "a'b", "a`b", "a b", " a", "a\n",
             "a\0b", "A", "-a", "a-", "a.b", "a_b", "ä", "a\u202eb", "x" * 64, "x" * 300,
             "0198b2f0-0000-7000-8000-000000000000",
             "]]></name>", "%n%s", "$(reboot)"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused(remote, name):
    refused(remote.post("/v1/vms", {**GOOD, "name": name}), 422, "validation_failed", "/name")


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "a%3Cb", "a%26b", "a%22b", "x" * 300, "%00",
                                  "%ff%fe", "%", "%zz", "%c0%af"])
def test_a_bad_name_in_a_path_finds_nothing(remote, path):
    for place in ("vms", "images", "operations"):
        answer = remote.request("GET", f"/v1/{place}/{path}", checked=False)
        assert (answer.status, answer.code) in ((404, "not_found"), (400, "bad_request"))


@pytest.mark.parametrize("labels", [{"": "x"}, {"a b": "x"}, {"a": "<b>"}, {"a": 'x"y'}, {"a": "x" * 256},
                                    {"x" * 64: "a"}, {f"k{n}": "v" for n in range(65)}, {"a": "b\nc"}, {"é": "x"}])
def test_bad_labels_are_refused(remote, labels):
    refused(remote.post("/v1/vms", {**GOOD, "labels": labels}), 422, "validation_failed")
    refused(remote.patch("/v1/vms/keeper", {"labels": labels}), 422, "validation_failed")


@pytest.mark.parametrize("change", [{"name": "other"}, {"id": "x"}, {"generation": 9}, {"status": {}},
                                    {"managed": False}, {"spec": {"image": "other"}}, {"spec": {"firmware": "uefi"}},
                                    {"spec": None},
                                    {"spec": {"disks": {"x": {"size_gib": 1}}}}, {"spec": {"nics": {}}},
                                    {"spec": {"cloud_init": {"user": "x"}}}, {"spec": {"power": None}}])
def test_what_is_fixed_is_not_patched(remote, change):
    refused(remote.patch("/v1/vms/keeper", change), 422, "validation_failed")


# The state of things

def test_a_name_in_use_is_refused(remote, keeper):
    answer = remote.post("/v1/vms", {**GOOD, "name": "keeper"})
    refused(answer, 409, "already_exists")
    assert answer.json["id"] == keeper


def test_an_image_name_in_use_is_refused(local, image_file):
    refused(local.post("/v1/images", {"name": "tiny", "source": f"file://{image_file}"}), 409, "already_exists")


def test_an_unknown_image_is_refused(remote):
    answer = remote.post("/v1/vms", with_spec(image="no-such-image"), query={"wait": 30})
    assert answer.status in (404, 422) and "no-such-image" in answer.json["detail"], answer


def test_an_unknown_network_is_refused(remote):
    answer = remote.post("/v1/vms", with_spec(power="on", nics={"eth0": {"network": "nowhere"}}), query={"wait": 60})
    assert answer.status in (404, 409, 422) and "nowhere" in answer.json["detail"], answer


def test_a_protected_vm_is_not_deleted(remote):
    refused(remote.delete("/v1/vms/keeper"), 403, "protected")


@pytest.mark.parametrize("verb", ["stop", "restart", "reset", "pause", "resume", "suspend"])
def test_a_vm_that_is_off_can_only_be_started(remote, verb):
    answer = remote.post(f"/v1/vms/keeper/{verb}")
    refused(answer, 409, "state_conflict")
    assert answer.json["state"] == "off" and "start" in answer.json["allowed"]


def test_a_running_vm_is_not_started(remote, vms):
    vm = vms.create("runner", memory_mib=64)  # gone again at the end, before the world is compared
    refused(remote.post(f"/v1/vms/{vm['id']}/start"), 409, "state_conflict")
    assert remote.post(f"/v1/vms/{vm['id']}/start").json["state"] == "running"
    refused(remote.post(f"/v1/vms/{vm['id']}/resume"), 409, "state_conflict")
    vms.remove()


# Images

def qemu_img(*arguments):
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory, image_file):
    """Files that must not become images, by name."""
    directory = tmp_path_factory.mktemp("odd")
    (directory / "random.qcow2").write_bytes(os.urandom(100_000))
    (directory / "empty.qcow2").write_bytes(b"")
    (directory / "text.img").write_text("I am no disk\n" * 1000)
    with open(image_file, "rb") as image:
        (directory / "cut.qcow2").write_bytes(image.read(1_000_000))
    qemu_img("create", "-f", "qcow2", "-b", image_file, "-F", "qcow2", directory / "backing.qcow2")
    qemu_img("create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", directory / "secret.qcow2")
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={directory}/data.raw,data_file_raw=on",
             directory / "data.qcow2", "1M")
    qemu_img("create", "-f", "vmdk", directory / "other.vmdk", "1M")
    qemu_img("create", "-f", "qcow2", directory / "huge.qcow2", "60T")
    (directory / "directory.qcow2").mkdir()
    os.mkfifo(directory / "fifo.qcow2")
    return directory


@pytest.mark.parametrize("name", ["random.qcow2", "empty.qcow2", "text.img", "cut.qcow2", "backing.qcow2",
                                  "secret.qcow2", "data.qcow2", "other.vmdk", "huge.qcow2"])
def test_what_is_no_usable_image_is_refused(local, odd_images, name):
    answer = local.post("/v1/images", {"name": "odd", "source": f"file://{odd_images}/{name}"}, query={"wait": 60})
    refused(answer, 422, "invalid_image")
    assert local.get("/v1/images/odd").status == 404


@pytest.mark.parametrize("source", ["directory.qcow2", "fifo.qcow2", "none.qcow2", "../../../../dev/zero",
                                    "../../../../dev/null"])
def test_what_is_no_file_is_refused(local, odd_images, source):
    answer = local.post("/v1/images", {"name": "odd", "source": f"file://{odd_images}/{source}"}, query={"wait": 60})
    assert answer.status in (404, 422), answer


def test_a_wrong_checksum_is_refused(local, image_file):
    answer = local.post("/v1/images", {"name": "odd", "source": f"file://{image_file}",
                                       "checksum": "sha256:" + "0" * 64},
                        query={"wait": 60})
    refused(answer, 422, "checksum_mismatch")


@pytest.mark.parametrize("change,pointer", [
    ({"source": "/etc/passwd"}, "/source"), ({"source": "file://host/x"}, "/source"),
    ({"source": "ftp://x/y"}, "/source"),
    ({"source": ""}, "/source"), ({"source": 7}, "/source"), ({"source": "file:///x%00y"}, "/source"),
    ({"name": "../up"}, "/name"), ({"name": ""}, "/name"), ({"name": "a/b"}, "/name"), ({"name": "x" * 300}, "/name"),
    ({"format": "vmdk"}, "/format"), ({"checksum": "md5:abc"}, "/checksum"), ({"checksum": "sha256:xyz"}, "/checksum")])
def test_a_bad_image_request_is_refused(local, image_file, change, pointer):
    answer = local.post("/v1/images", {"name": "odd", "source": f"file://{image_file}", **change})
    refused(answer, 422, "validation_failed", pointer)


def test_files_are_not_taken_over_the_network(remote, image_file):
    for source in (f"file://{image_file}", "file:///etc/shadow", "file:///no/such/file"):
        refused(remote.post("/v1/images", {"name": "odd", "source": source}), 403, "forbidden")


# Half of it

def test_half_a_request_and_a_hang_up_changes_nothing(agent, remote):
    body = json.dumps(GOOD).encode()
    before = agent.open_files()
    for part in (head_of("/v1/vms", len(body))[:30], head_of("/v1/vms", len(body)),
                 head_of("/v1/vms", len(body)) + body[:-1]):
        for abrupt in (False, True):
            stream = connect(agent)
            stream.sendall(part)
            if abrupt:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            stream.close()
    until(lambda: agent.open_files() <= before, "the connections are let go")
    assert remote.get("/v1/vms/never").status == 404


def test_a_request_can_come_in_small_pieces(agent, keeper):
    """The other way round: slow, but whole."""
    with connect(agent) as stream:
        for byte in b"GET /v1/vms/keeper HTTP/1.1\r\nHost: localhost\r\n\r\n":
            stream.sendall(bytes([byte]))
        status, vm = answer_to(stream)
    assert status == 200 and vm["id"] == keeper
