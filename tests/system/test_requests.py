"""HTTP as the API speaks it: identity, methods, request ids, lists, operations."""

import http.client
import itertools
import json
import os
import socket
import ssl
import stat
import subprocess
import sys

import pytest

from harness.client import CONTRACT, Client
from harness.wait import until


# Identity

def test_without_a_certificate_only_health_answers(agent):
    anonymous = agent.anonymous()
    for path in ("/health", "/ready", "/live"):
        assert anonymous.get(path).status == 200
    for method, path in sorted(CONTRACT.routes()):
        if path.startswith("/v1"):
            answer = anonymous.request(method, path.replace("{", "").replace("}", ""))
            assert (answer.status, answer.code) == (401, "unauthenticated"), (method, path)
    assert anonymous.get("/v1/no/such/thing").status == 401


def test_reasons_are_for_those_with_an_identity(agent):
    checks = agent.anonymous().ok("GET", "/health")["checks"]
    assert checks and all(set(check) == {"status"} for check in checks.values())
    assert "libvirt" in checks


@pytest.mark.parametrize("who", ["expired", "stranger"])
def test_a_bad_certificate_ends_the_handshake(agent, pki, who):
    client = agent.remote(getattr(pki, who))
    for path in ("/v1", "/health"):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            client.get(path)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(agent):
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", agent.API_PORT), 10) as raw, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(raw)


def test_the_port_speaks_no_plain_http(agent):
    plain = Client(lambda seconds: http.client.HTTPConnection("127.0.0.1", agent.API_PORT, timeout=seconds))
    with pytest.raises((OSError, http.client.HTTPException)):
        plain.get("/health")


def test_root_is_let_in_by_the_socket(local):
    assert local.ok("GET", "/v1")["name"] == "node-1"


def test_the_socket_is_for_root_and_its_group(agent):
    mode = os.stat(agent.socket)
    assert stat.S_IMODE(mode.st_mode) == 0o660 and mode.st_uid == 0
    ask = ("import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
           "s.sendall(b'GET /v1/vms HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
           "print(s.recv(100).split()[1].decode())\n")

    def as_nobody(group):
        return subprocess.run([sys.executable, "-c", ask, agent.socket], user="nobody", group=group, extra_groups=[],
                              capture_output=True, text=True, check=False)

    assert as_nobody("ghost").stdout.strip() == "200"
    outsider = as_nobody("nogroup")
    assert outsider.returncode != 0 and "PermissionError" in outsider.stderr


# Methods and paths

def test_every_documented_route_is_served_with_these_methods_and_no_others(remote):
    methods = {}
    for method, path in CONTRACT.routes():
        methods.setdefault(path, {"OPTIONS"}).update({"GET", "HEAD"} if method == "GET" else {method})
    for path, expected in methods.items():
        answer = remote.request("OPTIONS", path.replace("{", "").replace("}", ""))
        assert answer.status == 204, (path, answer)
        assert {method.strip() for method in answer.headers["allow"].split(",")} == expected, path


def test_the_served_description_is_the_one_in_the_tree(remote):
    served = remote.ok("GET", "/v1/openapi.json")
    assert json.dumps(served, indent=1, sort_keys=True).splitlines() == \
        json.dumps(CONTRACT.document, indent=1, sort_keys=True).splitlines()


def test_a_wrong_method_names_the_right_ones(remote):
    for method, path in (("DELETE", "/v1"), ("PUT", "/v1/vms"), ("PATCH", "/v1/images/tiny"), ("POST", "/v1/resources"),
                         ("GET", "/v1/vms/web/start"), ("POST", "/health")):
        answer = remote.request(method, path)
        assert (answer.status, answer.code) == (405, "method_not_allowed"), (method, path)
        assert method not in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/v2", "/v1/", "/v1/vms/", "/v1/event", "/v1/orphans/x",
                                  "/v1/images/tiny/refresh/now", "/v1/image-cache", "/v1/vms/web/start/now", "//v1/vms"])
def test_unknown_paths_are_404(remote, path):
    answer = remote.request("GET", path, checked=False)
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v1/vms/no-such-vm", "/v1/images/no-such-image",
                                  "/v1/operations/00000000-0000-7000-8000-000000000000",
                                  "/v1/vms/00000000-0000-7000-8000-000000000000"])
def test_unknown_things_are_404(remote, path):
    assert (remote.get(path).status, remote.get(path).code) == (404, "not_found")


def test_changing_what_is_not_there_is_404(remote):
    for method, path, body in (("DELETE", "/v1/vms/none", None), ("PATCH", "/v1/vms/none", {"labels": {}}),
                               ("POST", "/v1/vms/none/start", None), ("POST", "/v1/vms/none/stop", {"force": True}),
                               ("DELETE", "/v1/images/none", None), ("POST", "/v1/operations/none/cancel", None)):
        assert remote.request(method, path, body).status == 404, (method, path)


def test_head_is_get_without_a_body(remote):
    for path in ("/v1", "/v1/vms", "/v1/images/tiny", "/v1/resources", "/v1/operations", "/v1/openapi.json", "/live"):
        head = remote.request("HEAD", path)
        get = remote.get(path)
        assert head.status == get.status == 200 and head.body == b"", path
        assert head.headers["content-type"] == get.headers["content-type"]
        assert int(head.headers["content-length"]) > 0
    assert remote.request("HEAD", "/v1/vms/none", checked=False).status == 404


# Request ids

def test_a_request_id_is_echoed_or_made(remote):
    assert remote.get("/v1", headers={"X-Request-Id": "A.b_c-9"}).headers["x-request-id"] == "A.b_c-9"
    made = {remote.get("/v1").headers["x-request-id"] for _ in range(5)}
    assert len(made) == 5


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>", "a\x7fb", "é".encode().decode("latin-1")])
def test_a_bad_request_id_is_replaced(remote, given):
    made = remote.get("/v1", headers={"X-Request-Id": given.encode("latin-1")}).headers["x-request-id"]
    assert made and made != given


def test_the_request_id_is_in_the_log_and_on_the_operation(remote, agent):
    answer = remote.post("/v1/vms", {"name": "tagged", "spec": {"image": "no-such-image"}},
                         headers={"X-Request-Id": "find-me-again"})
    assert answer.json["request_id"] == "find-me-again"
    until(lambda: "find-me-again" in agent.log(), "the log has the request id")


# Connections

def test_a_connection_serves_many_requests(agent):
    connection = agent.remote().connection()
    for _ in range(20):
        connection.request("GET", "/v1/vms")
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["items"] == []
    connection.close()


def test_reading_the_agent_says_what_it_drives(remote):
    about = remote.ok("GET", "/v1")
    assert about["hypervisor"]["connected"] is True
    assert about["hypervisor"]["kind"] == ("qemu" if "no_kvm" in about["hypervisor"] else "kvm")
    if not os.path.exists("/dev/kvm"):
        assert about["hypervisor"]["no_kvm"] == "there is no /dev/kvm"
    assert about["hypervisor"]["libvirt_version"].count(".") == 2


# Lists

@pytest.fixture
def five(vms):
    """Five VMs that stay off, of two owners."""
    return [vms.create(f"page-{n}", power="off", owner="ann" if n % 2 else "ben",
                       labels={"n": str(n), "odd": "yes" if n % 2 else "no"}) for n in range(5)]


def test_lists_come_filtered_and_in_pages(remote, five):
    ids = [vm["id"] for vm in five]
    assert [vm["id"] for vm in remote.pages("/v1/vms", limit=2)] == sorted(ids)
    first = remote.ok("GET", "/v1/vms", query={"limit": 2})
    assert len(first["items"]) == 2 and first["next_page_token"]
    assert remote.ok("GET", "/v1/vms", query={"limit": 5})["next_page_token"] is None

    def names(**query):
        return sorted(vm["name"] for vm in remote.pages("/v1/vms", **query))

    assert names(owner="ann") == ["page-1", "page-3"]
    assert names(label="odd=no") == ["page-0", "page-2", "page-4"]
    assert names(label=["odd=no", "n=2"]) == ["page-2"]
    assert names(label="odd=") == [] and names(label="nothing=x") == []
    assert names(name="page-3") == ["page-3"]
    assert len(names(power="off")) == 5 and names(power="running") == []
    assert len(names(managed="true")) == 5 and names(managed="false") == []
    assert names(owner="ben", limit=1) == ["page-0", "page-2", "page-4"]


def test_a_page_goes_on_after_what_was_deleted_meanwhile(remote, five):
    page = remote.ok("GET", "/v1/vms", query={"limit": 2})
    remote.ok("DELETE", f"/v1/vms/{page['items'][-1]['id']}", query={"wait": 60})
    rest = remote.pages("/v1/vms", page_token=page["next_page_token"])
    assert len(rest) == 3 and len(five) == 5


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "page_token=zz", "page_token=%00",
                                   "power=on", "managed=maybe", "label=novalue", "colour=red", "limit=1&limit=2",
                                   "wait=5"])
def test_a_bad_list_query_is_a_fault(remote, query):
    answer = remote.get(f"/v1/vms?{query}")
    assert (answer.status, answer.code) in ((422, "validation_failed"), (400, "bad_request"))


def test_domains_of_others_are_shown_and_left_alone(remote, libvirt, tmp_path):
    xml = tmp_path / "other.xml"
    xml.write_text("<domain type='qemu'><name>Other_1</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
                   "<os><type machine='q35'>hvm</type></os></domain>")
    libvirt.virsh("define", str(xml))
    try:
        seen = until(lambda: remote.pages("/v1/vms", managed="false"), "the domain is seen")
        assert [(vm["name"], vm["managed"], vm["status"]["power"]) for vm in seen] == [("Other_1", False, "off")]
        for method, path, body in (("DELETE", "", None), ("POST", "/start", None),
                                   ("PATCH", "", {"labels": {"a": "b"}})):
            refused = remote.request(method, f"/v1/vms/{seen[0]['id']}{path}", body)
            assert (refused.status, refused.code) == (403, "forbidden")
        assert "Other_1" in libvirt.domains()
    finally:
        libvirt.virsh("undefine", "Other_1")
    until(lambda: not remote.pages("/v1/vms", managed="false"), "the domain is gone")


# Operations

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def blank(agent, tmp_path_factory):
    """An image without a system: what is made from it never gets an address."""
    path = tmp_path_factory.mktemp("blank") / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    return agent.add_image(path, "blank")["name"]


@pytest.fixture
def endless(blank, vms, remote):
    """A create that goes on until it is cancelled; its operation. The VM runs already."""
    name = f"endless-{next(NUMBERS)}"
    vms.expect(name)
    begun = remote.post("/v1/vms", {"name": name, "spec": {"image": blank, "disk_gib": 1, "memory_mib": 64},
                                    "wait_for": "address"})
    assert begun.status == 202, begun
    operation = begun.json
    assert begun.headers["location"] == f"/v1/operations/{operation['id']}"
    until(lambda: remote.ok("GET", f"/v1/vms/{name}")["status"]["power"] == "running", "the VM runs", 60)
    yield operation
    if remote.ok("GET", f"/v1/operations/{operation['id']}")["state"] in ("pending", "running"):
        remote.post(f"/v1/operations/{operation['id']}/cancel")
        remote.ok("GET", f"/v1/operations/{operation['id']}", query={"wait": 60})


def test_a_cancelled_create_leaves_only_its_operation(remote, endless, agent, libvirt):
    path = f"/v1/operations/{endless['id']}"
    assert remote.post(f"{path}/cancel").status == 202
    ended = remote.ok("GET", path, query={"wait": 60})
    assert ended["state"] == "cancelled" and ended["error"]["code"] == "cancelled", ended
    assert remote.get(f"/v1/vms/{endless['target']['id']}").status == 404
    assert agent.disk_files() == [] and libvirt.our_domains() == []
    again = remote.post(f"{path}/cancel")
    assert (again.status, again.code) == (409, "state_conflict")


def test_one_operation_at_a_time(remote, endless):
    vm = f"/v1/vms/{endless['target']['name']}"
    for method, path, body in (("POST", "/restart", None), ("POST", "/pause", None), ("DELETE", "", None),
                               ("PATCH", "", {"labels": {"a": "b"}}), ("POST", "/stop", {})):
        refused = remote.request(method, f"{vm}{path}", body)
        assert (refused.status, refused.code) == (409, "operation_in_progress"), (method, path)
        assert refused.json["operation"] == f"/v1/operations/{endless['id']}"
    assert remote.ok("GET", vm)["status"]["operation"] == f"/v1/operations/{endless['id']}"


def test_a_forced_stop_passes_and_leaves_the_name_free(remote, endless, agent, vms):
    """Here it ends a create, which then takes everything back."""
    name = endless["target"]["name"]
    stopped = remote.post(f"/v1/vms/{name}/stop", {"force": True}, query={"wait": 60}, checked=False)
    assert stopped.status < 500 and isinstance(stopped.json, dict), stopped
    assert remote.ok("GET", f"/v1/operations/{endless['id']}", query={"wait": 60})["state"] == "failed"
    assert remote.get(f"/v1/vms/{name}").status == 404 and agent.disk_files() == []
    vms.create(name, power="off")


def test_waiting_ends_with_the_time(remote, endless):
    operation = remote.ok("GET", f"/v1/operations/{endless['id']}", query={"wait": 1})
    assert operation["state"] == "running"
    assert [op["id"] for op in remote.pages("/v1/operations", state="running")] == [endless["id"]]


def test_an_identity_has_64_requests_in_flight(agent, endless):
    waiting = [agent.remote().connection() for _ in range(64)]
    try:
        for connection in waiting:
            connection.request("GET", f"/v1/operations/{endless['id']}?wait=15")
        refused = until(lambda: next((a for a in [agent.remote().get("/v1")] if a.status == 429), None),
                        "it is refused", 30)
        assert refused.code == "rate_limited" and int(refused.headers["retry-after"]) > 0
        assert agent.local().get("/v1").status == 200, "another identity is served"
    finally:
        for connection in waiting:
            connection.close()
    until(lambda: agent.remote().get("/v1").status == 200, "those who are done don't count", 60)


def test_a_wait_out_of_bounds_is_a_fault(remote):
    for wait in ("-1", "301", "soon", "1.5"):
        answer = remote.get("/v1/operations/00000000-0000-7000-8000-000000000000", query={"wait": wait})
        assert (answer.status, answer.code) == (422, "validation_failed")


def test_a_vanished_waiter_doesnt_stop_its_operation(remote, vms, agent):
    vms.expect("patient")
    connection = agent.remote().connection()
    connection.request("POST", "/v1/vms?wait=60", json.dumps(vms.body("patient", power="off")),
                       {"Content-Type": "application/json"})
    connection.close()
    until(lambda: remote.get("/v1/vms/patient").status == 200
          and remote.ok("GET", "/v1/vms/patient")["status"]["phase"] == "ready", "the VM is made all the same", 60)


# Metrics

def test_metrics_have_the_named_series(remote, vms, agent):
    made = vms.create("counted", power="off")
    remote.ok("DELETE", f"/v1/vms/{made['id']}", query={"wait": 60})
    connection = http.client.HTTPConnection("127.0.0.1", agent.METRICS_PORT, timeout=10)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert float(values["ghost_agent_vms_created_total"]) >= 1 and float(values["ghost_agent_vms_deleted_total"]) >= 1
    assert values["ghost_agent_vms_running"] == "0"
    for start in ('ghost_agent_operations_total{', 'ghost_agent_http_requests_total{', 'ghost_agent_lanes{',
                  'ghost_agent_http_request_duration_seconds_bucket{', 'ghost_agent_loop_lag_seconds_bucket{',
                  'ghost_agent_lane_queue_length{', 'ghost_agent_lane_breaker_open{', 'ghost_agent_info{'):
        assert any(name.startswith(start) for name in values), start
    assert any('kind="vm.create"' in name and 'outcome="succeeded"' in name for name in values)
    assert any('route="/v1/vms/{vm}"' in name and 'code="200"' in name for name in values)
    assert made["id"] not in text, "ids don't become labels"
