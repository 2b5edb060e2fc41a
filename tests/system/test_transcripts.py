"""The terminal sessions that the README shows: each is played here, and must end as it is written.

A transcript is what a person would see: lines that begin with "$ " are commands, what follows is their output. Ids,
numbers, times and the like differ from run to run and are compared as if they were all the same.

GHOST_RECORD=1 writes down what happens instead of comparing; read what it wrote, and copy it to the README.
"""

import os
import re
import shutil
import subprocess

import pytest

from harness.agent import Agent
from harness.paths import BINARY, REPOSITORY, TRANSCRIPTS
from harness.wait import until

NAMES = sorted(name for name in os.listdir(TRANSCRIPTS) if name.endswith(".txt"))


def read(name):
    with open(os.path.join(TRANSCRIPTS, name), encoding="utf-8") as file:
        return file.read()


def steps(text):
    """[(command, output)]"""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(output)) for command, output in found]


def normal(text):
    """What doesn't differ from run to run."""
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>", text)
    text = re.sub(r"(?<![\w.])(\d+[smhd]\b ?)+", "<span>", text)
    text = re.sub(r"(?<![\w.])\d+(\.\d+)? [KMGT]iB", "<size>", text)
    text = re.sub(r"(?<![\w.])\d+(\.\d+)*", "<number>", text)
    text = re.sub(r"[ \t]+", " ", text)
    return text.strip()


@pytest.fixture(scope="module")
def stage(directory, libvirt, pki, image_file):
    """An agent, and a directory as a person would have it: programs in PATH, certificates and files at hand."""
    place = os.path.join(directory, "transcripts")
    agent = Agent(place, pki, api={"socket": "/run/ghost/agent.sock"},
                  resources={"reserved_cpu": 1, "reserved_ram_gb": 2, "reserved_disk_gb": 0, "cpu_overcommit": 4})
    agent.socket = "/run/ghost/agent.sock"
    os.makedirs(os.path.join(place, "bin"))
    os.makedirs("/run/ghost", exist_ok=True)
    for name in ("ghost-agent", "ghostctl"):
        os.symlink(BINARY, os.path.join(place, "bin", name))
    for name, source in (("alice.pem", pki.alice.certificate), ("alice.key", pki.alice.key),
                         ("ca.pem", pki.ca.certificate)):
        shutil.copy(source, os.path.join(place, name))
    with open(os.path.join(place, "wrong.yaml"), "w", encoding="utf-8") as file:
        file.write("agent:\n  name: node-1\nresources:\n  reserved_cpu: two\n  reserved_memory: 4\n")
    agent.start()
    agent.add_image(image_file)
    web = {"name": "web", "spec": {"image": "tiny", "disk_gib": 1, "memory_mib": 64, "power": "off"}}
    created = agent.remote().post("/v1/vms", web, query={"wait": 60})
    assert created.status == 201
    yield agent
    if libvirt.daemon is None:
        libvirt.start()
    if agent.process is None:
        agent.start()
    until(lambda: agent.local().delete("/v1/vms/web", query={"wait": 60}).status in (200, 404), "the VM is deleted", 90)
    assert agent.stop() == 0
    libvirt.forget_pool()


def play(command, place):
    environment = {**os.environ, "PATH": os.path.join(place, "bin") + ":" + os.environ["PATH"], "COLUMNS": "100"}
    done = subprocess.run(["bash", "-c", command], cwd=place, env=environment, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120)
    return done.stdout, done.returncode


@pytest.mark.parametrize("name", NAMES)
def test_a_transcript_is_true(stage, libvirt, name):
    last, played, same = 0, "", True
    for command, expected in steps(read(name)):
        if command.startswith("systemctl stop libvirtd"):  # what the reader would do; here there is no systemd
            libvirt.kill()
            until(lambda: "cannot connect" in stage.local().get("/health").body.decode(), "the agent has tried again",
                  60)
            output = ""
        elif command == "echo $?":
            output = f"{last}\n"
        else:
            output, last = play(command, stage.directory)
        played += f"$ {command}\n{output}"
        same = same and normal(output) == normal(expected)
    if libvirt.daemon is None:
        libvirt.start()
        until(lambda: stage.answers("/ready"), "the agent is ready again", 90)
    if "GHOST_RECORD" in os.environ:
        with open(os.path.join(TRANSCRIPTS, name), "w", encoding="utf-8") as file:
            file.write(played)
    else:
        assert same, f"now it goes:\n{played}"


def test_there_is_one_for_each_kind_of_error():
    assert {"bad-configuration.txt", "does-not-fit.txt", "hypervisor-down.txt"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_shows_it(name):
    with open(os.path.join(REPOSITORY, "README.md"), encoding="utf-8") as file:
        assert read(name).strip() in file.read()
