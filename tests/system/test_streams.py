"""Console, screen and ports of a real guest as WebSockets, and the tickets that let a browser in."""

import socket
import struct
import subprocess
import time
import zlib

import pytest

from harness.small_guest import make, make_key
from harness.streams import Refused, open_stream
from harness.wait import until

STOPPED, GOING_AWAY = 4001, 1001
PROMPT = b"/ # "


@pytest.fixture(scope="module")
def ssh_key(directory):
    return make_key(directory, "streams_key")


@pytest.fixture(scope="module")
def guest(agent, ssh_key):
    """One guest with an address for all tests that don't stop it."""
    return make(agent, "way", ssh_key, guest_access=True)


def at_prompt(agent, name, **query):
    """A console whose shell answers."""
    console = open_stream(agent, f"{name}/console", **query)

    def answers(stream):
        return PROMPT in stream.received[-64:]

    deadline = time.monotonic() + 120
    while not answers(console):
        assert time.monotonic() < deadline, console.received[-2000:]
        console.send(b"\n")
        try:
            console.until(answers, 3)
        except AssertionError:
            assert console.closed is None, console.closed
    if query.get("protocol", "") is not None:
        # Whoever was there before may still be leaving.
        console.until(lambda stream: writer_events(stream) and writer_events(stream)[-1]["writer"], 30)
    return console


def refusal(agent, path, **more):
    with pytest.raises(Refused) as refused:
        open_stream(agent, path, **more)
    return refused.value


def writer_events(stream):
    return [event for event in stream.events if event["event"] == "writer"]


def test_typed_on_the_console_the_answer_is_read(agent, guest):
    for identity in ("alice", "socket"):
        with at_prompt(agent, "way", identity=identity) as console:
            console.send(b"echo $((6 * 7))-done\n")
            console.until(b"42-done")


def test_who_connects_is_shown_what_was_printed_before(agent, guest):
    with at_prompt(agent, "way") as console:
        console.send(b"echo mark-$((1000 + 234))\n")
        console.until(b"mark-1234")
        with open_stream(agent, "way/console", identity="socket") as second:
            second.until(b"mark-1234", 10)
            assert writer_events(second)[0]["writer"] is False
    time.sleep(12)  # nobody reads: the device is let go of
    with open_stream(agent, "way/console") as later:
        later.until(b"mark-1234", 10)


def test_one_writes_and_who_forces_takes_over(agent, guest):
    with at_prompt(agent, "way") as first, open_stream(agent, "way/console", identity="socket") as second:
        second.until(writer_events, 10)
        assert not writer_events(second)[0]["writer"]
        second.send(b"echo not-$((40 + 2))-typed\n")
        first.send(b"echo from-$((40 + 1))-first\n")
        second.until(b"from-41-first")
        assert b"not-42-typed" not in second.received
        with open_stream(agent, "way/console", identity="socket", force="true") as third:
            first.until(lambda s: writer_events(s)[-1]["writer"] is False, 10)
            third.send(b"echo from-$((40 + 3))-third\n")
            first.until(b"from-43-third")
        # It left: whoever has been there longest writes again.
        first.until(lambda s: writer_events(s)[-1]["writer"] is True, 10)
        first.send(b"echo again-$((40 + 4))\n")
        second.until(b"again-44")


def test_a_console_without_the_subprotocol_is_bytes_alone(agent, guest):
    with at_prompt(agent, "way", protocol=None) as console:
        console.send(b"echo plain-$((2 + 3))\n")
        console.until(b"plain-5")
        assert console.events == []


def test_a_reader_that_does_not_read_holds_up_nobody(agent, guest):
    with at_prompt(agent, "way") as writer, open_stream(agent, "way/console", identity="socket"):
        writer.send(b"dd if=/dev/zero bs=1024 count=256 2>/dev/null | tr '\\0' x; echo; echo all-$((3 * 33))\n")
        writer.until(b"all-99", 240)


def test_the_console_log_is_served_from_its_end(agent, guest):
    with at_prompt(agent, "way") as console:
        console.send(b"echo logged-$((5000 + 55))\n")
        console.until(b"logged-5055")
    log = until(lambda: (lambda answer: b"logged-5055" in answer.body and answer)(
        agent.remote().get("/v1/vms/way/console/log", query={"tail": 2000}, checked=False)), "the log has it", 20)
    assert log.headers["Content-Type"].startswith("text/plain") and len(log.body) <= 2000
    assert agent.remote().get("/v1/vms/way/console/log", query={"tail": 0}).code == "validation_failed"
    assert agent.remote().get("/v1/vms/none/console/log").status == 404


def test_a_port_of_the_guest_is_reached(agent, guest):
    for identity in ("alice", "socket"):
        with open_stream(agent, "way/forward", identity=identity, port=22) as ssh:
            ssh.until(b"SSH-2.0-dropbear")


def test_half_a_forward_can_be_closed(agent, guest):
    with at_prompt(agent, "way") as console:
        console.send(b"nc -l -p 4000 -e cat &\n")
        console.until(PROMPT)
        def connected():
            try:
                return open_stream(agent, "way/forward", port=4000)
            except Refused:
                return None
        with until(connected, "cat listens", 30) as echo:
            echo.send(b"x" * 100_000)
            echo.tell(event="eof")
            echo.until(lambda s: len(s.received) == 100_000, 60)
            echo.until(lambda s: {"event": "eof"} in s.events or s.closed, 30)
            assert echo.until_closed()[0] == 1000


def test_what_cannot_be_forwarded_is_said_before_the_upgrade(agent, guest):
    assert refusal(agent, "way/forward").code == "validation_failed"
    assert refusal(agent, "way/forward", port=0).code == "validation_failed"
    assert refusal(agent, "way/forward", port=65536).code == "validation_failed"
    assert refusal(agent, "way/forward", port=4999).code == "source_unavailable"
    assert refusal(agent, "way/forward", port=22, host="192.168.122.1").code == "validation_failed"
    assert refusal(agent, "none/console").status == 404
    assert refusal(agent, "way/console", identity=None).status == 401
    plain = agent.remote().get("/v1/vms/way/console")
    assert (plain.status, plain.code) == (426, "upgrade_required")
    assert refusal(agent, "way/vnc", origin="https://evil.example").code == "forbidden"


def test_another_machine_at_the_guests_address_is_not_reached(agent, guest, ssh_key):
    """The guest goes from its address, and another VM takes it: what is meant for the one never goes to the other."""
    make(agent, "thief", ssh_key)
    try:
        address = agent.remote().ok("GET", "/v1/vms/way")["status"]["addresses"][0]
        with at_prompt(agent, "thief") as thief, at_prompt(agent, "way") as victim:
            victim.send(b"ip link set eth0 down; echo gone-$((1 + 1))\n")
            victim.until(b"gone-2")
            thief.send(f"ip addr add {address}/24 dev eth0; ip link set eth0 up; "
                       f"arping -c 2 -U -I eth0 -s {address} {address}; echo took-$((1 + 1))\n".encode())
            thief.until(b"took-2", 60)
            subprocess.run(["ip", "neigh", "flush", "all"], check=True)
            # The host itself reaches the thief there.
            with socket.create_connection((address, 22), 20) as direct:
                assert direct.recv(3) == b"SSH"
            assert refusal(agent, "way/forward", port=22).code in ("address_not_allowed", "state_conflict")
            victim.send(b"ip link set eth0 up; ip route; echo back-$((1 + 1))\n")
            victim.until(b"back-2")
    finally:
        assert agent.remote().delete("/v1/vms/thief", query={"wait": 60}).status == 200
    subprocess.run(["ip", "neigh", "flush", "all"], check=True)

    def back():
        try:
            with open_stream(agent, "way/forward", port=22) as ssh:
                return ssh.until(b"SSH-2.0")
        except Refused:
            return None
    until(back, "the guest is reached again", 60)


def read_exactly(stream, count, seconds=20):
    stream.until(lambda s: len(s.received) >= count, seconds)
    taken, stream.received = stream.received[:count], stream.received[count:]
    return taken


def test_a_vnc_client_shakes_hands(agent, guest, libvirt):
    with open_stream(agent, "way/vnc", protocol=None) as vnc:
        assert read_exactly(vnc, 12) == b"RFB 003.008\n"
        vnc.send(b"RFB 003.008\n")
        kinds = read_exactly(vnc, read_exactly(vnc, 1)[0])
        assert 1 in kinds, kinds  # no password
        vnc.send(b"\x01")
        assert read_exactly(vnc, 4) == b"\0\0\0\0"
        vnc.send(b"\x01")  # shared
        width, height = struct.unpack(">HH", read_exactly(vnc, 4))
        assert width >= 320 and height >= 200
        name_length = struct.unpack(">I", read_exactly(vnc, 20)[16:])[0]
        assert b"way" in read_exactly(vnc, name_length)
        vnc.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 16, 16))  # a piece of the screen, please
        assert read_exactly(vnc, 4)[0] == 0
    assert libvirt.virsh("domdisplay", guest["id"]).strip().startswith("vnc+unix://") or \
        "unix" in libvirt.virsh("domdisplay", guest["id"])
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    assert "qemu" not in listening, listening


def pixels_of(png):
    """Width, height and bytes of the decoded rows."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, size = 8, b"", None
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        body = png[at + 8:at + 8 + length]
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        if kind == b"IDAT":
            data += body
        at += 12 + length
    return (*size, zlib.decompress(data))


def test_a_screenshot_is_a_picture(agent, guest):
    shot = agent.remote().get("/v1/vms/way/screenshot", checked=False)
    assert shot.status == 200 and shot.headers["Content-Type"] == "image/png", shot
    width, height, rows = pixels_of(shot.body)
    assert width >= 320 and height >= 200 and len(rows) > width * height
    # Text is on it: not all of one colour.
    assert len(set(rows)) > 2
    same = agent.remote().get("/v1/vms/way/screenshot", headers={"If-None-Match": shot.headers["ETag"]}, checked=False)
    assert same.status in (200, 304)  # a cursor may have blinked
    assert agent.local().get("/v1/vms/none/screenshot").status == 404


def ticket(agent, vm="way", **body):
    answer = agent.remote().post(f"/v1/vms/{vm}/tickets", body)
    assert answer.status == 201, answer
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json["ticket"]


def test_a_ticket_lets_a_browser_in_once(agent, guest):
    origin = "https://app.example"
    made = ticket(agent, **{"for": "console"})
    with open_stream(agent, "way/console", identity=None, protocol=None, origin=origin, ticket=made) as console:
        console.send(b"\n")
        console.until(PROMPT, 60)
    again = refusal(agent, "way/console", identity=None, ticket=made)
    assert (again.status, again.code) == (401, "unauthenticated")
    forward = ticket(agent, **{"for": "forward", "port": 22})
    with open_stream(agent, "way/forward", identity=None, protocol=None, port=22, ticket=forward) as ssh:
        ssh.until(b"SSH-2.0-dropbear")


def test_a_ticket_is_good_for_what_it_was_made_for_alone(agent, guest, vms):
    vms.create("other", power="off")
    for path, query in (("other/console", {}), ("way/vnc", {}), ("way/forward", {"port": 22})):
        made = ticket(agent, **{"for": "console"})
        refused = refusal(agent, path, identity=None, ticket=made, **query)
        assert (refused.status, refused.code) == (401, "unauthenticated"), path
    made = ticket(agent, **{"for": "forward", "port": 22})
    assert refusal(agent, "way/forward", identity=None, port=23, ticket=made).status == 401
    assert refusal(agent, "way/console", identity=None, ticket="x" * 43).status == 401
    # Nothing else of the API opens with one.
    made = ticket(agent, **{"for": "console"})
    assert agent.anonymous().get("/v1/vms/way", query={"ticket": made}, checked=False).status == 401
    assert agent.anonymous().post("/v1/vms/way/tickets", {"for": "vnc"}).status == 401
    for body, pointer in (({}, "/for"), ({"for": "ssh"}, "/for"), ({"for": "forward"}, "/port"),
                          ({"for": "vnc", "port": 5900}, "/port")):
        answer = agent.remote().post("/v1/vms/way/tickets", body)
        assert answer.code == "validation_failed" and answer.json["errors"][0]["pointer"] == pointer, answer


def test_a_ticket_that_is_late_is_refused(agent, guest):
    made = ticket(agent, **{"for": "console"})
    time.sleep(31)
    assert refusal(agent, "way/console", identity=None, ticket=made).status == 401


def test_a_new_agent_opens_the_same_console(agent, guest):
    with at_prompt(agent, "way") as console:
        console.send(b"echo before-$((7 * 11))\n")
        console.until(b"before-77")
        agent.stop()
        code, reason = console.until_closed(30)
        assert code == GOING_AWAY and "stopping" in reason
    agent.start()
    until(lambda: agent.remote().ok("GET", "/v1/vms/way")["status"]["addresses"], "it is known again", 60)
    with at_prompt(agent, "way") as console:
        assert b"before-77" in console.received
        console.send(b"echo after-$((7 * 13))\n")
        console.until(b"after-91")
    with open_stream(agent, "way/forward", port=22) as ssh:
        ssh.until(b"SSH-2.0-dropbear")
    agent.kill()
    agent.start()
    with at_prompt(agent, "way") as console:
        console.send(b"echo killed-$((7 * 17))\n")
        console.until(b"killed-119")


def test_a_guest_that_goes_takes_its_streams_with_it(agent, ssh_key):
    make(agent, "goes", ssh_key)
    try:
        with at_prompt(agent, "goes") as console, open_stream(agent, "goes/vnc") as vnc, \
                open_stream(agent, "goes/forward", port=22) as forward:
            forward.until(b"SSH-2.0")
            console.send(b"poweroff\n")
            console.until(b"stopping", 60)  # the last words are not lost
            for stream in (console, vnc, forward):
                code, reason = stream.until_closed(60)
                assert (code, reason) == (STOPPED, "the VM stopped")
        for path, query in (("goes/console", {}), ("goes/vnc", {}), ("goes/forward", {"port": 22})):
            assert refusal(agent, path, **query).code == "state_conflict"
        assert agent.remote().get("/v1/vms/goes/screenshot").code == "state_conflict"
    finally:
        agent.remote().delete("/v1/vms/goes", query={"wait": 60})


def test_streams_are_counted_and_leave_nothing_open(agent, guest):
    def descriptors():
        time.sleep(11)  # the console is let go of ten seconds after its last reader
        return agent.open_files()
    before = descriptors()
    for _ in range(5):
        streams = [open_stream(agent, "way/console"), open_stream(agent, "way/vnc"),
                   open_stream(agent, "way/forward", port=22)]
        for stream in streams:
            stream.close()
    until(lambda: agent.open_files() <= before, "descriptors are given back", 30)
