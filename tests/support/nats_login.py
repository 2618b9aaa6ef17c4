"""Keys, tokens and certificates for tests of broker logins; everything is made on the spot."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys
import pytest


@dataclass(frozen=True)
class Nkey:
    """A key pair: `seed` is the secret."""

    seed: str
    public: str

    def sign(self, data: bytes) -> bytes:
        return bytes(nkeys.from_seed(self.seed.encode()).sign(data))


def make_nkey(prefix: int = nkeys.PREFIX_BYTE_USER) -> Nkey:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return Nkey(seed.decode(), nkeys.from_seed(seed).public_key.decode())


def make_jwt(issuer: Nkey, subject: Nkey, name: str, claims: dict[str, Any]) -> str:
    """A NATS JWT, version 2."""
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    body: dict[str, Any] = {
        "iat": 1_700_000_000,
        "iss": issuer.public,
        "name": name,
        "sub": subject.public,
        "nats": claims | {"version": 2},
    }
    body["jti"] = (
        base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    )
    signed = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(body).encode())}"
    return f"{signed}.{_encode(issuer.sign(signed.encode()))}"


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def make_jwt_setup() -> tuple[str, str]:
    """A server config with an operator and one account, and the text of a user's credentials file."""
    operator = make_nkey(nkeys.PREFIX_BYTE_OPERATOR)
    account = make_nkey(nkeys.PREFIX_BYTE_ACCOUNT)
    user = make_nkey()
    limits = {"subs": -1, "data": -1, "payload": -1}
    operator_jwt = make_jwt(operator, operator, "O", {"type": "operator"})
    account_limits = limits | {
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": -1,
        "leaf": -1,
    }
    account_jwt = make_jwt(operator, account, "A", {"type": "account", "limits": account_limits})
    user_jwt = make_jwt(account, user, "U", {"type": "user", "pub": {}, "sub": {}} | limits)
    config = (
        f"operator: {operator_jwt}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account.public}: {account_jwt} }}\n"
    )
    credentials = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    return config, credentials


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, a server for 127.0.0.1, a client, and an authority nobody should trust."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path
    other_ca: Path

    def server_config(self, *, verify: bool = False) -> str:
        """The `tls` block of a server config."""
        lines = f'cert_file: "{self.server_cert}", key_file: "{self.server_key}", timeout: 3'
        if verify:
            lines += f', ca_file: "{self.ca}", verify: true'
        return f"tls {{ {lines} }}\n"


def make_certificates(directory: Path) -> Certificates:
    """Make them with the openssl program; the test is skipped where there is none."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make test certificates with")

    def run(*arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=30
        )

    key_options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        run(
            "req", "-x509", *key_options, "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-subj", f"/CN=test {name}", "-days", "2",
            "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "")):
        (directory / f"{name}.ext").write_text(extension or "basicConstraints=CA:FALSE")
        run(
            "req", "-new", *key_options, "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}",
        )  # fmt: skip
        run(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip
    return Certificates(
        ca=directory / "ca.pem",
        server_cert=directory / "server.pem",
        server_key=directory / "server.key",
        client_cert=directory / "client.pem",
        client_key=directory / "client.key",
        other_ca=directory / "other.pem",
    )
