"""What ghostctl follows until it is stopped, and what it only tries or asks for twice, against the real agent."""

import json
import os
import signal
import subprocess

import pytest

from harness.wait import until


class Follower:
    """A ghostctl that goes on until Ctrl-C."""
    def __init__(self, agent, place, arguments):
        agent.ghostctl("version")  # makes the link
        self.names = [os.path.join(place, name) for name in ("out", "error")]
        with open(self.names[0], "w", encoding="utf-8") as out, open(self.names[1], "w", encoding="utf-8") as error:
            self.process = subprocess.Popen(
                [os.path.join(agent.directory, "ghostctl"), "--socket", agent.socket, *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=error)

    def out(self):
        with open(self.names[0], encoding="utf-8") as file:
            return file.read()

    def error(self):
        with open(self.names[1], encoding="utf-8") as file:
            return file.read()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0
        return self.out()


@pytest.fixture
def follow(agent, tmp_path):
    followers = []

    def begin(*arguments):
        place = tmp_path / str(len(followers))
        place.mkdir()
        followers.append(Follower(agent, place, arguments))
        return followers[-1]
    yield begin
    for follower in followers:
        if follower.process.poll() is None:
            follower.process.kill()
            follower.process.wait()


@pytest.fixture
def create(agent, vms):
    def make(name, *more):
        vms.expect(name)
        size = ("--vcpu", "1", "--ram", "64M", "--disk", "1")
        return agent.ghostctl("vm", "create", "--name", name, "--template", "tiny", *size, "--no-start", *more)
    return make


def last_event(agent):
    return agent.local().get("/v1/vms").headers["Ghost-Event-Id"]


def test_events_go_on_over_a_restart_of_the_agent(agent, create, follow):
    before = last_event(agent)
    assert create("seen").returncode == 0
    told = follow("events", "--after", before, "--subject", "seen", "-o", "json")
    lines = follow("events", "--after", before, "--type", "operation.updated")
    until(lambda: '"succeeded"' in told.out() and "of seen: succeeded" in lines.out(), "the create is told")
    assert agent.stop() == 0
    until(lambda: "connecting again" in told.error() and "connecting again" in lines.error(), "the cut is told")
    agent.start()
    until(lambda: "connected again" in told.error() and "connected again" in lines.error(), "both are back")
    assert create("later").returncode == 0
    until(lambda: "operation vm.create of later: succeeded\n" in lines.out(), "what happens then is told")
    assert lines.stop().count("of seen: succeeded") == 1
    events = [json.loads(line) for line in told.stop().splitlines()]
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})
    assert {"vm.created", "operation.updated"} <= {event["type"] for event in events}
    assert not [event for event in events if "later" in json.dumps(event)]


def test_events_that_are_kept_no_more_are_said_to_be_missed(agent, create, follow):
    events = follow("events", "--after", "1")
    until(lambda: "events were missed" in events.error(), "the loss is told")
    assert create("after").returncode == 0
    until(lambda: "operation vm.create of after: succeeded" in events.out(), "it goes on")
    events.stop()


def test_a_watched_list_stays_true(agent, create, follow):
    assert create("first").returncode == 0
    rows = follow("vm", "list", "--watch", "--label", "tier=web")
    until(lambda: "No VMs." in rows.out(), "the list is empty")
    assert create("second", "--label", "tier=web").returncode == 0
    until(lambda: "\nsecond" in rows.out(), "the new VM is shown")
    assert agent.ghostctl("vm", "start", "second").returncode == 0
    until(lambda: any(line.startswith("second  running") for line in rows.out().splitlines()), "it is seen to run")
    assert agent.ghostctl("vm", "delete", "second", "--yes").returncode == 0
    until(lambda: any(line.startswith("second  deleted") for line in rows.out().splitlines()), "it is seen to go")
    assert "first" not in rows.stop()


def test_a_dry_run_changes_nothing(agent, create):
    done = create("never", "--dry-run")
    assert done.returncode == 0 and done.stdout.startswith("would: ") and "needed: " in done.stdout
    shown = json.loads(create("never", "--dry-run", "-o", "json").stdout)
    assert shown["valid"] and shown["would"] and shown["resources"]["needed"]
    assert create("never", "--dry-run", "--memory-mib", "99999999").returncode != 0
    assert "never" not in agent.ghostctl("vm", "list").stdout


def test_a_change_with_a_key_is_done_once(agent, create):
    first = create("once", "--idempotency-key", "once-1", "-o", "json")
    again = create("once", "--idempotency-key", "once-1", "-o", "json")
    assert (first.returncode, again.returncode) == (0, 0), (first, again)
    assert json.loads(first.stdout)["id"] == json.loads(again.stdout)["id"]
    assert create("once").returncode == 4
