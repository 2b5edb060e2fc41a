"""SIGHUP: certificates and the log's level are swapped without a restart; faults leave everything as it is."""

import os
import shutil
import signal
import socket

import pytest

from harness.client import tls_context
from harness.wait import until


@pytest.fixture(scope="module")
def certs(directory):
    path = os.path.join(directory, "reload-certs")
    os.mkdir(path)
    return path


def install(identity, certs):
    for source, name in ((identity.key, "agent.key"), (identity.certificate, "agent.pem")):
        shutil.copy2(source, os.path.join(certs, f".{name}"))
        os.rename(os.path.join(certs, f".{name}"), os.path.join(certs, name))


@pytest.fixture(scope="module")
def agent_options(certs, pki):
    install(pki.server, certs)
    return {"api": {"tls_cert": f"{certs}/agent.pem", "tls_key": f"{certs}/agent.key"}}


def connect(agent):
    context = tls_context(agent.pki.ca.certificate, agent.pki.alice)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", agent.API_PORT), 30), server_hostname="localhost")


def served_certificate(agent):
    with connect(agent) as connection:
        return connection.getpeercert(binary_form=True)


def hang_up_signal(agent, says):
    """SIGHUP, and the log's answer to it."""
    before = agent.log().count(says)
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: agent.log().count(says) > before, f"the log says: {says}")


def test_renewed_certificates_are_served_and_connections_stay(agent, certs, pki):
    before = served_certificate(agent)
    with connect(agent) as old:
        install(pki.ca.issue("renewed", "serverAuth"), certs)
        hang_up_signal(agent, "configuration read again")
        until(lambda: served_certificate(agent) != before, "the new certificate is served")
        old.sendall(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert old.recv(4096).startswith(b"HTTP/1.1 200")


def test_the_level_is_swapped_and_the_rest_waits_for_a_restart(agent):
    agent.config["logging"]["level"] = "warn"
    agent.config["defaults"]["vcpus"] = 2
    agent.write_config()
    hang_up_signal(agent, "this setting takes effect after a restart")
    quiet = agent.log()
    assert "defaults.vcpus" in quiet.splitlines()[-1] and "logging.level" not in quiet.splitlines()[-1]
    agent.local().ok("GET", "/v1")
    assert agent.log() == quiet, "requests are logged below warn"
    agent.config["logging"]["level"] = "debug"
    agent.config["defaults"]["vcpus"] = 1
    agent.write_config()
    hang_up_signal(agent, "configuration read again")


def test_a_faulty_file_changes_nothing(agent, certs):
    served = served_certificate(agent)
    with open(agent.config_file, "w", encoding="utf-8") as file:
        file.write("logging:\n  level: loud\n")
    hang_up_signal(agent, "agent.yaml:2: logging.level")
    agent.write_config()
    with open(f"{certs}/agent.pem", "w", encoding="utf-8") as file:
        file.write("no certificate\n")
    hang_up_signal(agent, "the certificates stay as they are")
    assert served_certificate(agent) == served
    assert agent.local().ok("GET", "/v1")["name"] == "node-1"
