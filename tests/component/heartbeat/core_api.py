"""heartbeat/core-api.yaml and fake-core agree: the same routes, the same bodies, answers as they are described.

Usage: core_api.py FAKE_CORE CORE_API_YAML
"""

import copy
import http.client
import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

import jsonschema
import yaml

# What a schema can't say, and Core's problems for it.
BEYOND_SCHEMAS = (
    "in a full delta",
    "says nothing",
    "doesn't go with a state that Core has",
    "at least base_rev",
    "a beat with nothing to tell",
    "stands twice",
    "comes after",
    "is no request",
    "was delivered",
    "must be urn:ghost:problem: and the code",
    " in a session that epoch ",
)


class Api:
    def __init__(self, path):
        self.document = yaml.safe_load(pathlib.Path(path).read_text())
        self.schemas = self.document["components"]["schemas"]

    def validator(self, schema):
        return jsonschema.Draft202012Validator({**schema, "components": self.document["components"]})

    def named(self, name):
        return self.validator(self.schemas[name])

    def operations(self):
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                if method != "parameters":
                    yield method.upper(), path, operation

    def check_answer(self, method, path, status, content_type, body):
        operation = self.document["paths"][path][method.lower()]
        response = operation["responses"].get(str(status)) or operation["responses"]["default"]
        if "$ref" in response:
            response = self.document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        if "content" not in response:
            assert not body, f"{method} {path} {status} has a body"
            return
        assert content_type in response["content"], f"{method} {path} {status}: {content_type}"
        self.validator(response["content"][content_type]["schema"]).validate(json.loads(body))


class Core:
    def __init__(self, program, api, folder):
        self.api = api
        self.folder = folder
        self.process = subprocess.Popen(
            [program, "--token", "t0ken", "--dir", folder], stdout=subprocess.PIPE, text=True
        )
        self.told = json.loads(self.process.stdout.readline())
        self.connection = None

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0

    def connect(self, certificate=None, key=None):
        context = ssl.create_default_context(cafile=self.told["ca"])
        if certificate:
            context.load_cert_chain(certificate, key)
        place = urllib.parse.urlsplit(self.told["url"])
        self.connection = http.client.HTTPSConnection(place.hostname, place.port, context=context, timeout=30)

    def send(self, method, path, body, agent_id=""):
        text = None if body is None else json.dumps(body)
        headers = {} if text is None else {"Content-Type": "application/json"}
        self.connection.request(method, path.replace("{agent_id}", agent_id), text, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        self.api.check_answer(method, path, answer.status, answer.headers.get("Content-Type", ""), content)
        return answer.status, json.loads(content) if content else None

    def page(self):
        with urllib.request.urlopen(self.told["page"] + "/", timeout=30) as answer:
            return json.load(answer)

    def queue(self, command):
        request = urllib.request.Request(
            self.told["page"] + "/commands", json.dumps(command).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["id"]


def mutants(value, rebuild=lambda made: made, where=""):
    """Copies of a JSON document, each with one thing changed: a member gone or added, a value of another type."""
    if isinstance(value, dict):
        yield where + "/+", rebuild({**value, "not_in_the_contract": 1})
        for key, member in value.items():
            rest = {other: kept for other, kept in value.items() if other != key}
            yield f"{where}/-{key}", rebuild(rest)
            yield from mutants(member, lambda made, key=key: rebuild({**value, key: made}), f"{where}/{key}")
        yield where + "=text", rebuild("text")
    elif isinstance(value, list):
        for i, member in enumerate(value):
            yield from mutants(
                member, lambda made, i=i: rebuild(value[:i] + [made] + value[i + 1 :]), f"{where}/{i}"
            )
        yield where + "=object", rebuild({})
    elif isinstance(value, str):
        for other in (17, None, "", "not in the contract!", "x" * 100_000):
            yield f"{where}={str(other)[:20]!r}", rebuild(other)
    elif isinstance(value, bool):
        yield where + "=text", rebuild("true")
    else:
        for other in ("17", -1, 1.5, None, True):
            yield f"{where}={other!r}", rebuild(other)


def check_mutants(core, method, path, schema, body, agent_id=""):
    count = 0
    for where, mutant in mutants(body):
        valid = core.api.named(schema).is_valid(copy.deepcopy(mutant))
        status, answer = core.send(method, path, mutant, agent_id)
        count += 1
        if not valid:
            assert status == 422, f"{schema} {where} is not in the contract, and Core answers {status}"
        elif status == 422:
            assert any(sentence in answer["detail"] for sentence in BEYOND_SCHEMAS), f"{schema} {where}: {answer}"
    return count


def main():
    api = Api(sys.argv[2])
    examples = 0
    for name, schema in api.schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for example in schema.get("examples", []):
            api.named(name).validate(example)
            examples += 1
    folder = tempfile.TemporaryDirectory()
    core = Core(sys.argv[1], api, folder.name)
    try:
        described = {f"{method} {path}" for method, path, _ in api.operations()}
        served = set(core.page()["routes"])
        assert described == served, f"only one side has {described ^ served}"

        key, csr, certificate = (f"{folder.name}/agent.{suffix}" for suffix in ("key", "csr", "pem"))
        subprocess.run(
            ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            + ["-subj", "/CN=anything", "-keyout", key, "-out", csr],
            check=True,
            capture_output=True,
        )
        pem = pathlib.Path(csr).read_text()
        paths = {operation["operationId"]: (method, path) for method, path, operation in api.operations()}

        core.connect()
        enrolment = {**api.schemas["Enrolment"]["examples"][0], "csr": pem}
        status, enrolled = core.send(*paths["enroll"], enrolment)
        assert status == 201, enrolled
        agent_id = enrolled["agent_id"]
        count = check_mutants(core, *paths["enroll"], "Enrolment", enrolment)
        assert core.send(*paths["heartbeat"], {}, agent_id)[0] == 401

        pathlib.Path(certificate).write_text(enrolled["certificate"])
        core.connect(certificate, key)
        assert core.send(*paths["renewCertificate"], {"csr": pem}, agent_id)[0] == 200
        count += check_mutants(core, *paths["renewCertificate"], "Renewal", {"csr": pem}, agent_id)
        begin = api.schemas["SessionBegin"]["examples"][0]
        assert core.send(*paths["beginSession"], begin, agent_id)[0] == 200  # later ones of another boot are copies
        count += check_mutants(core, *paths["beginSession"], "SessionBegin", begin, agent_id)
        status, session = core.send(*paths["beginSession"], begin, agent_id)
        assert status == 200, session

        # The beats of the examples, as they follow each other; their commands have to be asked for first.
        for acked in ("c-17", "c-18"):
            core.queue({"id": acked, "kind": "vm.start", "target": "web-1"})
        beats = [{**beat, "session_id": session["session_id"]} for beat in api.schemas["Heartbeat"]["examples"]]
        for beat in beats:
            status, answer = core.send(*paths["heartbeat"], beat, agent_id)
            assert status == 200, answer
            assert answer["ack_rev"] == beat["state_rev"] and answer["want"] == "delta", answer
        # Not above the last seq: only their form counts.
        for beat in beats:
            beat["acks"] = api.schemas["Ack"]["examples"]
            count += check_mutants(core, *paths["heartbeat"], "Heartbeat", beat, agent_id)
        facts = {**api.schemas["Facts"]["examples"][0], "session_id": session["session_id"]}
        status, answer = core.send(*paths["tellFacts"], facts, agent_id)
        assert (status, answer) == (200, {"ack_rev": 43}), answer
        count += check_mutants(core, *paths["tellFacts"], "Facts", facts, agent_id)
        status, _ = core.send(*paths["leave"], None, agent_id)
        assert status == 204
        print(f"{len(described)} routes, {examples} examples and {count} bodies: both sides agree")
    finally:
        core.stop()
        folder.cleanup()


main()
