"""An authority for tests of TLS: it signs certificates for listeners and callers, good ones and expired ones."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


class Authority:
    """Made with the openssl program; the test is skipped where there is none."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to make test certificates with")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._name = name
        self._issued = 0
        self.pem = directory / f"{name}.pem"
        self._run(
            "req", "-x509", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-subj", f"/CN=test {name}", "-days", "100",
            "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(self, cn: str, san: str = "IP:127.0.0.1,DNS:localhost", days: int = 30) -> Pair:
        """A certificate for this name; with negative days one that has expired."""
        self._issued += 1
        stem = f"{self._name}-{self._issued}"
        (self._directory / f"{stem}.ext").write_text(f"subjectAltName={san}\n")
        self._run(
            "req", "-new", *_NEW_KEY, "-keyout", f"{stem}.key", "-out", f"{stem}.csr",
            "-subj", f"/CN={cn}",
        )  # fmt: skip
        self._run(
            "x509", "-req", "-in", f"{stem}.csr", "-CA", f"{self._name}.pem",
            "-CAkey", f"{self._name}.key", "-CAcreateserial", "-days", str(days),
            "-extfile", f"{stem}.ext", "-out", f"{stem}.pem",
        )  # fmt: skip
        return Pair(self._directory / f"{stem}.pem", self._directory / f"{stem}.key")

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments],
            cwd=self._directory,
            check=True,
            capture_output=True,
            timeout=30,
        )
