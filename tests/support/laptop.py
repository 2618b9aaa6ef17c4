"""A daemon whose listener speaks TLS, and a laptop that reaches it by contexts: tokens and a certificate."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.support import forked
from tests.support.appliance import Appliance
from tests.support.authority import Authority

CONFIG = """
version: 1
broker: {{embedded: true}}
reload: {{settle: 1ms, poll_interval: 50ms}}
roles:
  ship:
    subscribe:
      REQPing: {{}}
      REQCliCommand: {{allow_commands: [[sh, -c, "*"]]}}
      REQCliCommandCont: {{allow_commands: [[sh, -c, "*"]]}}
      REQTailFile: {{allow_paths: ["{root}/ship1/**"]}}
      REQCopyFileTo: {{allow_paths: ["{root}/ship1/**"]}}
      REQCopyFileFrom: {{allow_paths: ["{root}/ship1/**"]}}
nodes:
  central: {{subscribe: {{REQErrorLog: {{}}, REQToFileAppend: {{}}, REQPong: {{}}, REQCopyFileTo: {{}}}}}}
  ship1: {{roles: [ship]}}
admin:
  listen: 127.0.0.1:{port}
  reading: known
  tls: {{cert: {{file: server.pem}}, key: {{file: server.key}}, client_ca: {{file: clients.pem}}}}
  tokens:
    - {{name: operator, token: {{file: operator.token}}, scopes: [read, send, reload, config-values]}}
    - {{name: watcher, token: {{file: watcher.token}}, scopes: [read]}}
    {more}
  certificates:
    - {{name: anna, cn: anna, scopes: [read, send]}}
"""
TEMPORARY = "- {name: temporary, token: {file: temporary.token}, scopes: [read, send]}"


class Laptop:
    """A directory of its own, with nothing of the daemon's but what is brought along."""

    def __init__(self, directory: Path, port: int) -> None:
        self.home = directory
        self.url = f"https://127.0.0.1:{port}"
        (directory / "config").mkdir(parents=True)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")
        }
        return {
            **kept,
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "LC_ALL": "C",
            "COLUMNS": "80",
            **more,
        }

    def run(self, *arguments, context="operator", environ=(), **options):
        words = ["-c", context, *arguments] if context else arguments
        return forked.run(
            list(words),
            env=self.environment(**dict(environ)),
            timeout=100,
            cwd=self.home,
            **options,
        )


class World:
    """The daemon, and the laptop. `config` holds places for `root`, `port` and `more`, tokens for a while."""

    def __init__(self, directory: Path, config: str = CONFIG) -> None:
        self._config = config
        self.root = directory / "files"
        (self.root / "ship1").mkdir(parents=True)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.directory = directory / "daemon"
        self.directory.mkdir()
        self.authority = Authority(directory / "ca")
        self.clients = Authority(directory / "clients", "clients")
        (self.directory / "clients.pem").write_bytes(self.clients.pem.read_bytes())
        self.renew(self.authority.issue("ship1"))
        for name in ("operator", "watcher", "temporary"):
            (self.directory / f"{name}.token").write_text(f"secret-of-{name}\n")
        self.daemon = Appliance(self.config(TEMPORARY), self.directory)
        self.laptop = Laptop(directory / "laptop", self.port)
        self.anna = self.clients.issue("anna")

    def config(self, more: str = "") -> str:
        return self._config.format(root=self.root, port=self.port, more=more)

    def renew(self, pair) -> None:
        (self.directory / "server.key").write_bytes(pair.key.read_bytes())
        (self.directory / "server.pem").write_bytes(pair.cert.read_bytes())

    def add_contexts(self) -> None:
        ca = ["--ca", str(self.authority.pem)]
        for name in ("operator", "watcher", "temporary"):
            done = self.laptop.run(
                *("context", "add", name, "--server", self.laptop.url, "--token-stdin", *ca),
                context=None,
                input=f"secret-of-{name}\n".encode(),
            )
            assert done.returncode == 0, done.stderr
        files = ["--cert", str(self.anna.cert), "--key", str(self.anna.key)]
        done = self.laptop.run(
            "context", "add", "anna", "--server", self.laptop.url, *ca, *files, context=None
        )
        assert done.returncode == 0, done.stderr
