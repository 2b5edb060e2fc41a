"""Programs run and files moved in a real guest, through its guest agent."""

import hashlib
import os

import pytest

from harness.events import EventStream
from harness.small_guest import make, make_key, run
from harness.wait import until


@pytest.fixture(scope="module")
def guest(agent, directory):
    vm = make(agent, "in", make_key(directory, "access_key"), guest_access=True)

    def answers():
        return agent.remote().post("/v1/vms/in/exec", {"command": ["true"]}, query={"wait": 60}).status == 200
    until(answers, "its guest agent answers", 120, pause=2)
    return vm


def execute(agent, body, name="in", wait=120):
    return agent.remote().post(f"/v1/vms/{name}/exec", body, query={"wait": wait})


def put(agent, path, data, name="in", **query):
    return agent.remote().request("PUT", f"/v1/vms/{name}/files", data, query={"path": path, **query},
                                  headers={"Content-Type": "application/octet-stream"}, timeout=300)


def get(agent, path, name="in"):
    return agent.remote().get(f"/v1/vms/{name}/files", query={"path": path}, timeout=300, checked=False)


def test_a_program_is_run_with_all_that_belongs_to_it(agent, guest):
    answer = execute(agent, {"command": ["sh", "-c", "read line; echo got $line $WHAT; echo oops >&2; exit 3"],
                             "env": {"WHAT": "it"}, "stdin": "hello\n"})
    assert answer.status == 200, answer
    operation = answer.json
    assert operation["kind"] == "vm.exec" and operation["state"] == "succeeded"
    assert operation["result"] == {"exit_code": 3, "stdout": "got hello it\n", "stderr": "oops\n", "truncated": False}


def test_output_is_bounded_and_says_so(agent, guest):
    answer = execute(agent, {"command": ["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"]})
    result = answer.json["result"]
    assert result["truncated"] is True and len(result["stdout"]) == 64 * 1024


def test_a_program_that_goes_on_is_not_waited_for(agent, guest):
    answer = execute(agent, {"command": ["sleep", "600"], "timeout_s": 2})
    assert answer.code == "deadline_exceeded" and "guest" in answer.json["detail"], answer
    # A second one isn't held up.
    assert run(agent, "in", "echo", "next") == "next\n"


def test_an_agent_that_is_killed_runs_no_program_twice(agent, guest):
    key = {"Idempotency-Key": "once"}
    body = {"command": ["sh", "-c", "echo ran >> /root/runs; sleep 20"]}
    begun = agent.remote().post("/v1/vms/in/exec", body, headers=key)
    assert begun.status == 202, begun
    until(lambda: run(agent, "in", "sh", "-c", "cat /root/runs 2>/dev/null; true") == "ran\n", "it runs", 30)
    agent.kill()
    agent.start()
    operation = until(lambda: (lambda op: op["state"] == "failed" and op)(
        agent.remote().ok("GET", f"/v1/operations/{begun.json['id']}")), "it has ended", 60)
    assert operation["error"]["code"] == "interrupted" and "may go on" in operation["error"]["detail"], operation
    again = agent.remote().post("/v1/vms/in/exec", body, headers=key, query={"wait": 30})
    assert again.code == "interrupted", again
    assert run(agent, "in", "cat", "/root/runs") == "ran\n"


def test_what_cannot_be_run_is_said(agent, guest):
    assert execute(agent, {"command": ["/no/such/program"]}).status >= 400
    for body, pointer in (({}, "/command"), ({"command": []}, "/command"), ({"command": "ls"}, "/command"),
                          ({"command": ["ls"], "timeout_s": 0}, "/timeout_s"),
                          ({"command": ["ls"], "shell": 1}, "/shell")):
        answer = execute(agent, body)
        assert answer.code == "validation_failed" and answer.json["errors"][0]["pointer"] == pointer, answer


def test_files_go_in_and_come_out_as_they_are(agent, guest):
    data = os.urandom(3_000_000)
    assert put(agent, "/root/blob", data, mode="0640").status == 204
    assert run(agent, "in", "sha256sum", "/root/blob").split()[0] == hashlib.sha256(data).hexdigest()
    assert run(agent, "in", "stat", "-c", "%a", "/root/blob") == "640\n"
    back = get(agent, "/root/blob")
    assert back.status == 200 and back.body == data
    assert put(agent, "/root/blob", b"").status == 204
    assert get(agent, "/root/blob").body == b""
    assert "ghost-" not in run(agent, "in", "ls", "-a", "/root")


def test_a_broken_upload_leaves_the_old_file(agent, guest):
    assert put(agent, "/root/kept", b"old").status == 204
    connection = agent.remote().connection()
    connection.putrequest("PUT", "/v1/vms/in/files?path=/root/kept")
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", "2000000")
    connection.endheaders()
    connection.send(b"n" * 700_000)
    connection.close()
    until(lambda: "ghost-" not in run(agent, "in", "ls", "-a", "/root"), "what came is taken away", 60)
    assert get(agent, "/root/kept").body == b"old"


def test_files_that_cannot_be_had_are_told(agent, guest):
    assert get(agent, "/no/such/file").status == 404
    assert get(agent, "relative").json["code"] == "validation_failed"
    assert put(agent, "/no/such/folder/file", b"x").status in (404, 409)


def test_a_guest_without_room_says_so(agent, guest, directory):
    large = os.path.join(directory, "large")
    with open(large, "wb") as file:
        file.truncate(200_000_000)  # more than its memory, of which /run is a part
    done = agent.ghostctl("cp", large, "in:/run/full", seconds=300)
    assert done.returncode == 4 and "No space left on device" in done.stderr, done
    assert "ghost-" not in run(agent, "in", "ls", "-a", "/run")


def test_it_is_off_unless_it_is_asked_for(agent, guest, vms):
    vms.create("closed")
    for answer in (execute(agent, {"command": ["true"]}, "closed"), put(agent, "/tmp/x", b"x", "closed"),
                   get(agent, "/etc/passwd", "closed")):
        assert answer.status == 403, answer
        assert "guest_access" in answer.json["detail"]
    changed = agent.remote().patch("/v1/vms/in", {"spec": {"guest_access": False}}, query={"wait": 30})
    assert changed.status == 200
    assert execute(agent, {"command": ["true"]}).status == 403
    agent.remote().patch("/v1/vms/in", {"spec": {"guest_access": True}}, query={"wait": 30})
    assert run(agent, "in", "echo", "open") == "open\n"


def test_each_use_is_in_the_log_and_the_events(agent, guest):
    with EventStream(agent.remote()) as stream:
        run(agent, "in", "echo", "seen")
        put(agent, "/tmp/seen", b"x")
        get(agent, "/tmp/seen")

        def actions():
            told = [event["data"]["action"] for _, event in stream.events if event["type"] == "vm.guest_access"]
            return len(told) >= 3 and told
        assert until(actions, "all three are told", 30) == ["exec", "file_write", "file_read"]
    assert "/tmp/seen" in agent.log()


def test_the_host_keys_are_known(agent, guest):
    keys = until(lambda: agent.remote().ok("GET", "/v1/vms/in")["status"]["ssh_host_keys"], "the keys are known", 120)
    assert keys[0].startswith("ssh-ed25519 AAAA"), keys
