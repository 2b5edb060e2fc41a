"""A client of the API over HTTPS or the Unix socket. Every answer is checked against agent/api/openapi.yaml."""

import http.client
import json
import re
import socket
import ssl
from urllib.parse import urlencode, urlsplit

import jsonschema
import yaml

from harness.paths import OPENAPI


class Contract:
    """The API's description, and whether an answer keeps to it."""

    def __init__(self):
        with open(OPENAPI, encoding="utf-8") as file:
            self.document = yaml.safe_load(file)
        self._routes = [(re.compile("^" + re.sub(r"\{[^}]+\}", "[^/]+", path) + "$"), item)
                        for path, item in sorted(self.document["paths"].items(), key=lambda pair: "{" in pair[0])]

    def routes(self):
        """(METHOD, path template) of all operations."""
        methods = ("get", "post", "put", "patch", "delete")
        return {(method.upper(), path) for path, item in self.document["paths"].items()
                for method in methods if method in item}

    def check(self, method, target, answer):
        """Fails unless the answer is one that the description allows."""
        try:
            self._check(method, target, answer)
        except jsonschema.ValidationError as fault:
            raise AssertionError(f"{method} {target} against openapi.yaml: {fault.json_path}: {fault.message}\n"
                                 f"{answer}") from None

    def _check(self, method, target, answer):
        path = urlsplit(target).path
        item = next((item for pattern, item in self._routes if pattern.match(path)), None)
        operation = (item or {}).get(method.lower())
        media_type = (answer.headers.get("content-type") or "").split(";")[0].strip()
        if answer.status >= 400 and not (operation and path in ("/health", "/ready", "/live")):
            assert media_type == "application/problem+json", f"{method} {target}: {answer} is {media_type!r}"
            problem = answer.json
            self._check_schema({"$ref": "#/components/schemas/Problem"}, problem)
            assert problem["status"] == answer.status and problem["type"] == f"urn:ghost:problem:{problem['code']}"
            if problem["request_id"] != answer.headers["x-request-id"]:
                raise AssertionError(f"{method} {target}: the problem's request id isn't the header's")
        if operation is None:
            return
        documented = operation["responses"].get(str(answer.status)) or operation["responses"].get("default")
        assert documented is not None, f"{method} {target} answered {answer.status}, which isn't documented"
        documented = self._resolve(documented)
        preview = media_type == "application/json" and answer.body and answer.json.get("valid") is True
        for name, header in documented.get("headers", {}).items():
            if name == "ETag" and preview:
                continue
            if name == "X-Request-Id" or (answer.status < 400 and name in ("ETag", "Location", "Ghost-Event-Id")):
                value = answer.headers.get(name)
                assert value is not None, f"{method} {target}: {answer.status} without {name}"
                self._check_schema(self._resolve(header)["schema"], value)
        content = documented.get("content", {})
        if content and answer.body:
            assert media_type in content, f"{method} {target}: {answer.status} is {media_type!r}"
            self._check_schema(content[media_type]["schema"], answer.json)

    def check_schema(self, name, value):
        """Fails unless `value` is as the description's schema `name` says."""
        try:
            self._check_schema({"$ref": f"#/components/schemas/{name}"}, value)
        except jsonschema.ValidationError as fault:
            raise AssertionError(f"{name}: {fault.json_path}: {fault.message}\n{value}") from None

    def _resolve(self, node):
        while "$ref" in node:
            target = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def _check_schema(self, schema, value):
        resolver = jsonschema.RefResolver("", self.document)
        jsonschema.Draft202012Validator(schema, resolver=resolver).validate(value)


CONTRACT = Contract()


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        self.version = response.version

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The problem's code, or None."""
        return self.json.get("code") if self.status >= 400 else None

    def __repr__(self):
        return f"<{self.status} {self.body[:2000].decode('utf-8', 'replace')}>"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def tls_context(ca, identity=None):
    context = ssl.create_default_context(cafile=ca)
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


class Client:
    """One connection for each request: what one request does to its connection never shows in the next."""

    def __init__(self, connect, timeout=120.0):
        self._connect = connect
        self._timeout = timeout

    @classmethod
    def over_tls(cls, port, ca, identity=None, timeout=120.0):
        context = tls_context(ca, identity)
        return cls(lambda seconds: http.client.HTTPSConnection("127.0.0.1", port, timeout=seconds, context=context),
                   timeout)

    @classmethod
    def over_socket(cls, path, timeout=120.0):
        return cls(lambda seconds: _UnixConnection(path, seconds), timeout)

    def connection(self, timeout=None):
        return self._connect(timeout or self._timeout)

    def request(self, method, path, body=None, headers=None, query=None, timeout=None, checked=True):
        """`body`: bytes as they are, or anything else as JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        if query:
            path = f"{path}?{urlencode(query, doseq=True)}"
        connection = self.connection(timeout)
        try:
            connection.request(method, path, body, headers)
            answer = Answer(connection.getresponse())
        finally:
            connection.close()
        if checked:
            CONTRACT.check(method, path, answer)
        return answer

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def patch(self, path, body, **more):
        more.setdefault("headers", {}).setdefault("Content-Type", "application/merge-patch+json")
        return self.request("PATCH", path, body, **more)

    def delete(self, path, **more):
        return self.request("DELETE", path, **more)

    def ok(self, method, path, body=None, **more):
        """The JSON of an answer that must be a success."""
        answer = self.request(method, path, body, **more)
        assert answer.status < 300, f"{method} {path}: {answer}"
        return answer.json

    def pages(self, path, **query):
        """All items of a list, page by page."""
        items, token = [], None
        while True:
            page = self.ok("GET", path, query={**query, **({"page_token": token} if token else {})})
            items += page["items"]
            token = page["next_page_token"]
            if token is None:
                return items
