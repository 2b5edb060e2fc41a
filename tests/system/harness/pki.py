"""A throwaway certificate authority, made anew for each run with the openssl program."""

import os
import subprocess


def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}"


class Identity:
    """A certificate and its key."""

    def __init__(self, directory, name):
        self.certificate = os.path.join(directory, f"{name}.pem")
        self.key = os.path.join(directory, f"{name}.key")


class Authority:
    def __init__(self, directory, name):
        self._directory = directory
        self._name = name
        self.root = Identity(directory, name)
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", self.root.key, "-out", self.root.certificate,
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    @property
    def certificate(self):
        return self.root.certificate

    def issue(self, name, usage, expired=False):
        """`usage` is serverAuth or clientAuth."""
        identity = Identity(self._directory, name)
        request = os.path.join(self._directory, f"{name}.csr")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", identity.key, "-out", request)
        os.chmod(identity.key, 0o600)
        extensions = os.path.join(self._directory, f"{name}.ext")
        with open(extensions, "w", encoding="utf-8") as file:
            file.write(f"basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n"
                       "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        if not expired:
            openssl("x509", "-req", "-in", request, "-CA", self.root.certificate, "-CAkey", self.root.key,
                    "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", identity.certificate)
        else:
            self._issue_in_the_past(request, extensions, identity)
        return identity

    def _issue_in_the_past(self, request, extensions, identity):
        """`openssl x509` can't set dates that lie in the past; `openssl ca` can."""
        base = os.path.join(self._directory, "past")
        os.makedirs(base, exist_ok=True)
        config = (f"[ca]\ndefault_ca=d\n[d]\nnew_certs_dir={base}\ndatabase={base}/index.txt\nserial={base}/serial\n"
                  "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
        for name, text in (("index.txt", ""), ("serial", "1000\n"), ("ca.cnf", config)):
            with open(os.path.join(base, name), "w", encoding="utf-8") as file:
                file.write(text)
        openssl("ca", "-batch", "-config", f"{base}/ca.cnf", "-cert", self.root.certificate, "-keyfile", self.root.key,
                "-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-extfile", extensions,
                "-in", request, "-out", identity.certificate, "-notext")


class Pki:
    def __init__(self, directory):
        os.mkdir(directory, mode=0o700)
        self.ca = Authority(directory, "ghost-test-ca")
        self.server = self.ca.issue("server", "serverAuth")
        self.alice = self.ca.issue("alice", "clientAuth")
        self.expired = self.ca.issue("expired", "clientAuth", expired=True)
        other = Authority(directory, "another-ca")
        self.stranger = other.issue("stranger", "clientAuth")
