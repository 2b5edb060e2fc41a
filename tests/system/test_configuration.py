"""Bad configuration ends the start with a sentence and exit code 78; a good one is checked and printed."""

import contextlib
import json
import os
import re
import socket
import stat
import subprocess

import pytest

from harness.agent import CONFIGURATION_FAULT, Agent
from harness.client import Client
from harness.paths import BINARY
from harness.wait import until

pytestmark = pytest.mark.usefixtures("libvirt")

GOOD = """\
state_dir: {directory}/state
api:
  listen_addr: 127.0.0.1:9092
  socket: {directory}/agent.sock
  tls_cert: {directory}/server.pem
  tls_key: {directory}/server.key
  tls_ca: {directory}/ca.pem
metrics:
  listen_addr: 127.0.0.1:9091
resources:
  reserved_cpu: 1
"""


@pytest.fixture
def place(tmp_path, pki):
    """A directory with agent.yaml and its certificates."""
    for name, source in (("server.pem", pki.server.certificate), ("server.key", pki.server.key),
                         ("ca.pem", pki.ca.certificate)):
        with open(source, "rb") as file:
            (tmp_path / name).write_bytes(file.read())
    (tmp_path / "server.key").chmod(0o600)
    (tmp_path / "agent.yaml").write_text(GOOD.format(directory=tmp_path))
    return tmp_path


def run(place, *arguments, **environment):
    return subprocess.run([BINARY, "--config", place / "agent.yaml", *arguments], capture_output=True, text=True,
                          check=False, timeout=30, stdin=subprocess.DEVNULL, env={**os.environ, **environment})


def refused(place, *fragments, **environment):
    """Both the check and the start end with 78 and say why, where and what is allowed."""
    for arguments in ((), ("--check-config",)):
        done = run(place, *arguments, **environment)
        assert done.returncode == CONFIGURATION_FAULT, (arguments, done)
        for fragment in fragments:
            assert fragment in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.splitlines()) < 10 and "terminate called" not in done.stderr


def change(place, old, new):
    text = (place / "agent.yaml").read_text()
    assert old in text
    (place / "agent.yaml").write_text(text.replace(old, new))


def test_a_good_configuration_is_checked_and_printed(place):
    done = run(place, "--check-config")
    assert done.returncode == 0, done.stderr
    assert str(place / "state") in done.stdout and "reserved_ram_gb" in done.stdout, "defaults are shown too"
    assert not (place / "state").exists(), "a check changes nothing"


def test_an_unknown_key_is_named_with_its_line(place):
    change(place, "reserved_cpu: 1", "reserved_cpus: 1")
    refused(place, "agent.yaml:11", "resources.reserved_cpus", "reserved_cpu")


def test_a_wrong_type_is_named_with_its_line_and_what_is_allowed(place):
    change(place, "reserved_cpu: 1", "reserved_cpu: two")
    refused(place, "agent.yaml:11: resources.reserved_cpu: expected a number of at least 0, got \"two\"")


def test_all_faults_come_at_once(place):
    change(place, "reserved_cpu: 1", "reserved_cpu: two\n  colour: red\nlogging:\n  level: loud")
    refused(place, "resources.reserved_cpu", "resources.colour", "logging.level")


def test_broken_yaml_is_named_with_its_line(place):
    change(place, "metrics:", "metrics: [")
    refused(place, "agent.yaml:")


def test_a_missing_file_is_named(place):
    (place / "agent.yaml").unlink()
    refused(place, "agent.yaml")


def test_a_key_that_others_can_read_is_refused(place):
    (place / "server.key").chmod(0o640)
    refused(place, "api.tls_key", "server.key")


def test_missing_certificates_are_named(place):
    (place / "server.pem").unlink()
    refused(place, "api.tls_cert", "server.pem")


def test_a_certificate_of_another_key_is_refused_at_start(place, pki):
    with open(pki.alice.certificate, "rb") as file:
        (place / "server.pem").write_bytes(file.read())
    done = run(place)
    assert done.returncode == CONFIGURATION_FAULT and "server.pem" in done.stderr + "" and done.stderr.count("\n") == 1


@pytest.mark.parametrize("key,old", [("api.listen_addr", "listen_addr: 127.0.0.1:9092"),
                                     ("metrics.listen_addr", "listen_addr: 127.0.0.1:9091")])
def test_a_port_in_use_is_named(place, key, old):
    with socket.create_server(("127.0.0.1", 9993)):
        change(place, old, "listen_addr: 127.0.0.1:9993")
        done = run(place)
    assert done.returncode == CONFIGURATION_FAULT
    assert key.split(".")[1] in done.stderr or "127.0.0.1:9993" in done.stderr
    assert "127.0.0.1:9993" in done.stderr and "in use" in done.stderr and done.stderr.count("\n") == 1


def test_a_socket_somebody_answers_on_is_left_to_him(place):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place / "agent.sock"))
        other.listen()
        done = run(place)
        assert done.returncode == CONFIGURATION_FAULT and "agent.sock" in done.stderr
    assert (place / "agent.sock").exists()


def test_a_state_directory_that_cant_be_written_is_named(place):
    """Root may write anywhere but on a read-only file system."""
    (place / "frozen").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place / "frozen"], check=True)
    try:
        change(place, f"state_dir: {place}/state", f"state_dir: {place}/frozen")
        done = run(place)
        assert done.returncode == CONFIGURATION_FAULT, done
        assert f"{place}/frozen" in done.stderr and "ead-only" in done.stderr and done.stderr.count("\n") == 1
    finally:
        subprocess.run(["umount", place / "frozen"], check=True)


def test_a_full_state_directory_is_no_fault_of_the_configuration(place):
    """The service manager tries again: there may be room by then."""
    (place / "full").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place / "full"], check=True)
    try:
        with open(place / "full" / "ballast", "wb") as ballast, contextlib.suppress(OSError):
            ballast.write(b"x" * (1 << 20))
        change(place, f"state_dir: {place}/state", f"state_dir: {place}/full")
        done = run(place)
        assert done.returncode == 1, done
        assert f"{place}/full" in done.stderr and "No space left" in done.stderr and done.stderr.count("\n") == 1
    finally:
        subprocess.run(["umount", place / "full"], check=True)


def test_a_state_directory_below_a_file_is_named(place):
    change(place, f"state_dir: {place}/state", f"state_dir: {place}/server.pem/state")
    done = run(place)
    assert done.returncode == CONFIGURATION_FAULT and f"{place}/server.pem" in done.stderr


def test_a_state_directory_is_one_agents_own(directory, pki, libvirt):
    first = Agent(os.path.join(directory, "own"), pki)
    first.start()
    try:
        second = Agent(os.path.join(directory, "own-2"), pki, state_dir=first.state,
                       api={"listen_addr": "127.0.0.1:9192"}, metrics={"enabled": False})
        done = second.run("--config", second.config_file)
        assert done.returncode == CONFIGURATION_FAULT and first.state in done.stderr
        assert first.answers("/ready")
    finally:
        assert first.stop() == 0
        libvirt.forget_pool()


def test_a_database_of_a_newer_version_is_not_touched(directory, pki, libvirt):
    agent = Agent(os.path.join(directory, "newer"), pki)
    agent.start()
    assert agent.stop() == 0
    libvirt.forget_pool()
    database = os.path.join(agent.state, "state.db")
    subprocess.run(["/usr/bin/python3", "-c", "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]);"
                    "d.execute('PRAGMA user_version = 9999'); d.commit()", database], check=True)
    done = agent.run("--config", agent.config_file)
    assert done.returncode == CONFIGURATION_FAULT and "state.db" in done.stderr


def test_drop_ins_and_the_environment_come_after_the_file(place):
    (place / "agent.d").mkdir()
    (place / "agent.d" / "20-b.yaml").write_text("resources:\n  reserved_cpu: 3\n")
    (place / "agent.d" / "10-a.yaml").write_text("resources:\n  reserved_cpu: 2\n  reserved_ram_gb: 7\n")
    shown = json.loads(run(place, "--check-config").stdout)
    assert (shown["resources"]["reserved_cpu"], shown["resources"]["reserved_ram_gb"]) == (3, 7)
    shown = json.loads(run(place, "--check-config", GHOST_RESOURCES__RESERVED_CPU="4").stdout)
    assert shown["resources"]["reserved_cpu"] == 4
    refused(place, "GHOST_RESOURCES__RESERVED_CPU", "resources.reserved_cpu", GHOST_RESOURCES__RESERVED_CPU="many")
    (place / "agent.d" / "30-c.yaml").write_text("resources:\n  reserved_cpu: x\n")
    refused(place, "30-c.yaml:2")


def test_the_seeds_configuration_is_taken(place):
    (place / "agent.yaml").write_text(f"""\
agent: {{name: node-1, api_url: "", heartbeat_interval: 30s, version: "1.0.0"}}
libvirt: {{uri: "qemu:///system", storage_pool: default, network: default, image_cache: {place}/images}}
resources: {{reserved_cpu: 1, reserved_ram_gb: 2, reserved_disk_gb: 20}}
grpc: {{listen_addr: "127.0.0.1:9090", tls_enabled: true, tls_cert: {place}/server.pem,
       tls_key: {place}/server.key, tls_ca: {place}/ca.pem}}
logging: {{level: info, output: stdout, file: {place}/agent.log, format: json, max_size: 100MB, max_age: 30d}}
metrics: {{enabled: true, listen_addr: "127.0.0.1:9091", path: /metrics}}
health: {{listen_addr: "127.0.0.1:9092", path: /health}}
""")
    done = run(place, "--check-config")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["agent"]["name"] == "node-1"


def test_with_no_file_at_all_the_unix_socket_serves(libvirt):
    assert not os.path.exists("/etc/ghost/agent.yaml")
    process = subprocess.Popen([BINARY], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)
    try:
        client = Client.over_socket("/run/ghost/agent.sock")

        def ready():
            try:
                return client.get("/ready").status == 200
            except OSError:
                return False

        until(lambda: process.poll() is not None or ready(), "it serves the socket", 60)
        assert process.poll() is None, process.stdout.read()
        health = client.ok("GET", "/health")
        assert health["status"] in ("healthy", "degraded") and "api.tls_cert" in json.dumps(health)
        assert client.ok("GET", "/v1")["name"] == socket.gethostname()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", 9092)) != 0, "no certificates, no TCP"
        assert stat.S_IMODE(os.stat("/run/ghost/agent.sock").st_mode) == 0o660
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=40)
        libvirt.forget_pool()
    assert process.returncode == 0, output
    assert not os.path.exists("/run/ghost/agent.sock")


def test_a_socket_left_by_a_dead_agent_is_replaced(directory, pki, libvirt):
    agent = Agent(os.path.join(directory, "dead"), pki)
    agent.start()
    agent.kill()
    assert os.path.exists(agent.socket)
    agent.start()
    assert agent.stop() == 0
    libvirt.forget_pool()


def test_sighup_swaps_certificates_and_a_bad_file_changes_nothing(directory, pki, libvirt):
    agent = Agent(os.path.join(directory, "hup"), pki)
    agent.start()
    try:
        agent.config["colour"] = "red"
        agent.write_config()
        agent.process.send_signal(1)
        until(lambda: "colour" in agent.log(), "the fault is told")
        assert agent.remote().get("/ready").status == 200
        del agent.config["colour"]
        renewed = pki.ca.issue("renewed", "serverAuth")
        agent.config["api"].update(tls_cert=renewed.certificate, tls_key=renewed.key)
        agent.write_config()
        agent.process.send_signal(1)

        def subject():
            connection = agent.remote().connection()
            connection.connect()
            name = dict(pair[0] for pair in connection.sock.getpeercert()["subject"])["commonName"]
            connection.close()
            return name

        until(lambda: subject() == "renewed", "the new certificate is served")
        until(lambda: "configuration read again" in agent.log(), "the log says so")
        assert "takes effect after a restart" not in agent.log(), "it has taken effect"
    finally:
        assert agent.stop() == 0
        libvirt.forget_pool()


def test_the_version_is_told():
    done = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"ghost-agent \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["surplus"], ["--config"], ["--config", ""]])
def test_a_wrong_command_line_is_not_started(arguments):
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2 and done.stderr


def test_the_log_files_folder_is_made_and_a_fault_names_the_setting(place):
    (place / "agent.yaml").write_text((place / "agent.yaml").read_text() +
                                      f"logging:\n  output: both\n  file: {place}/no/folder/agent.log\n")
    done = run(place)
    assert done.returncode == CONFIGURATION_FAULT
    assert done.stderr.startswith("ghost-agent: logging.file:") and done.stderr.count("\n") == 1
    # One level is made; what fails then is something else.
    change(place, "/no/folder/", "/folder/")
    with socket.create_server(("127.0.0.1", 9993)):
        change(place, "listen_addr: 127.0.0.1:9092", "listen_addr: 127.0.0.1:9993")
        assert "in use" in run(place).stderr
    assert (place / "folder" / "agent.log").exists()
