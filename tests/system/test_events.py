"""The event stream: what happens reaches its readers, once, in order, and across a crash."""

import statistics
import time
import uuid

from harness.events import EventStream, check_event
from harness.wait import until


def event_id(answer):
    return int(answer.headers["Ghost-Event-Id"])


def test_a_life_is_told_and_each_event_is_as_described(agent, vms, remote):
    with EventStream(remote) as stream:
        assert stream.status == 200
        made = vms.create("told", memory_mib=64)
        subject = f"/v1/vms/{made['id']}"
        remote.ok("POST", "/v1/vms/told/stop", {"force": True}, query={"wait": 60})
        remote.ok("DELETE", "/v1/vms/told", query={"wait": 60})
        stream.until(lambda e: e["type"] == "vm.deleted" and e["subject"] == subject, "the VM's end")
        types = [event["type"] for event in stream.of(subject)]
        assert types[0] == "vm.created" and types[-1] == "vm.deleted" and types.count("vm.power") >= 2
        ids = [event["id"] for _, event in stream.events]
        assert ids == sorted(set(ids))
        for _, event in stream.events:
            check_event(event)


def test_what_libvirt_does_reaches_a_reader_soon(agent, vms, libvirt, local, record_property):
    """A few milliseconds, of which most is libvirt's own; only a hang fails."""
    made = vms.create("quick", memory_mib=64)
    took = []
    with EventStream(local) as stream:
        for verb, power in (("suspend", "paused"), ("resume", "running")) * 5:
            seen = len(stream.events)
            libvirt.virsh(verb, made["id"])
            done = time.monotonic()
            at, _ = stream.until(lambda e, n=seen, p=power: e["type"] == "vm.power" and e in
                                 [x for _, x in stream.events[n:]] and e["data"]["status"]["power"] == p, power, 30)
            took.append(max(0.0, at - done) * 1000)
    record_property("ms_after_virsh_returned", [round(ms, 2) for ms in took])
    print(f"events came {statistics.median(took):.1f} ms (median), {max(took):.1f} ms (last) after virsh returned")


def test_a_reader_resumes_across_a_kill(agent, vms, local):
    made = vms.create("through", memory_mib=64)
    from_list = event_id(agent.local().get("/v1/vms"))
    with EventStream(local, after=from_list) as stream:
        agent.local().ok("POST", "/v1/vms/through/pause", query={"wait": 60})
        stream.until(lambda e: e["type"] == "vm.power" and e["data"]["status"]["power"] == "paused", "paused")
        last = stream.events[-1][1]["id"]
        agent.local().ok("POST", "/v1/vms/through/resume", query={"wait": 60})
        agent.kill()
    agent.start()
    with EventStream(agent.local(), after=last) as stream:
        stream.until(lambda e: e["type"] == "vm.power" and e["data"]["status"]["power"] == "running", "resumed")
        agent.local().ok("POST", "/v1/vms/through/pause", query={"wait": 60})
        stream.until(lambda e: e["type"] == "vm.power" and e["data"]["status"]["power"] == "paused", "paused again")
        ids = [event["id"] for _, event in stream.events]
        assert ids == sorted(set(ids)) and ids[0] > last
        assert made["id"] in {event["data"]["id"] for event in stream.of(f"/v1/vms/{made['id']}")}


def test_too_old_and_foreign_ids_are_refused(local):
    for after in (1, 2**60):
        answer = local.get("/v1/events", headers={"Last-Event-ID": str(after)})
        assert (answer.status, answer.code) == (410, "events_expired"), answer


def test_sixteen_streams_for_an_identity(agent, pki):
    streams = [EventStream(agent.remote(pki.alice)) for _ in range(16)]
    try:
        assert {stream.status for stream in streams} == {200}
        refused = agent.remote(pki.alice).get("/v1/events", timeout=10)
        assert refused.status == 429 and refused.headers["Retry-After"]
        assert agent.remote(pki.alice).get("/v1/vms").status == 200
    finally:
        for stream in streams:
            stream.close()
    until(lambda: not_refused(agent, pki), "a place is free again", 30)


def not_refused(agent, pki):
    with EventStream(agent.remote(pki.alice)) as stream:
        return stream.status == 200


def test_a_stop_ends_streams_at_once(agent, local):
    stream = EventStream(local)
    started = time.monotonic()
    assert agent.stop() == 0
    print(f"stopped in {time.monotonic() - started:.1f} s with a reader")
    stream.close()
    agent.start()


def test_a_domain_of_others_is_told_and_adopted(agent, libvirt, local, directory):
    name, domain = "legacy", str(uuid.uuid4())
    kind = "qemu"
    xml = f"""<domain type='{kind}'><name>{name}</name><uuid>{domain}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
        <os><type arch='x86_64'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>"""
    path = f"{directory}/legacy.xml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(xml)
    subject = f"/v1/vms/{domain}"
    with EventStream(local) as stream:
        libvirt.virsh("define", path)
        _, event = stream.until(lambda e: e["type"] == "vm.created" and e["subject"] == subject, "defined")
        assert event["data"]["managed"] is False
        libvirt.virsh("start", name)
        stream.until(lambda e: e["type"] == "vm.power" and e["subject"] == subject, "started")
        assert local.post("/v1/vms/legacy/stop", {}).code == "forbidden"
        adopted = local.ok("POST", "/v1/vms/legacy/adopt", {}, query={"wait": 60})
        assert adopted["managed"] and adopted["status"]["power"] == "running" and adopted["id"] == domain
        assert libvirt.is_ours(name)
        agent.kill()
        agent.start()
        assert agent.local().ok("GET", "/v1/vms/legacy")["managed"] is True
        agent.local().ok("DELETE", "/v1/vms/legacy", query={"wait": 60})
        assert name not in libvirt.domains()


def test_orphans_are_listed_and_purged(agent, local):
    orphan = str(uuid.uuid4())
    with open(f"{agent.disks}/{orphan}-root.qcow2", "wb") as file:
        file.write(b"x" * 4096)
    found = agent.local().ok("GET", "/v1/orphans")["items"]
    assert [item["path"] for item in found] == [f"{agent.disks}/{orphan}-root.qcow2"]
    would = agent.local().ok("POST", "/v1/orphans/purge", query={"dry_run": "true"})["would"]
    assert len(would) == 1 and orphan in would[0]
    agent.local().ok("POST", "/v1/orphans/purge", query={"wait": 60})
    assert agent.disk_files() == []
