"""Run the real daemon as a process, talk to it over its unix socket, kill it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.support import forked
from tests.support.forked import ForkedProcess
from tests.support.waiting import LONG_S, until

START_TIMEOUT_S = 60.0
PLAIN_COMMAND = [sys.executable, "-m", "appliance"]
"""For tests of the start itself: a fresh interpreter that loads everything."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        # by the directory: the paths of tests may be longer than the name of a socket
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


class Appliance:
    """One daemon. Use as a context manager; `start` returns when it is ready unless told otherwise."""

    def __init__(
        self,
        config: str | None,
        directory: Path,
        *,
        args: list[str] | None = None,
        command: list[str] | None = None,
        config_path: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.state = directory / "state"
        self.config_path = config_path or directory / "appliance.yaml"
        if config is not None:
            self.config_path.write_text(config)
        self.args = args or []
        self.command = command
        """Something else than a fork of what is loaded already: see `forked`."""
        self.log_path = directory / "log"
        self.only_named = False
        self.environment: dict[str, str] = {}
        """What the daemon has in its environment beside our own."""
        self.before = ""
        """Python that runs in its process before the program does: see `forked.start`."""
        self.first = ""
        """A module that is imported before the program is: see `forked.start`."""
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None

    def __enter__(self) -> Appliance:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def spawn(self) -> None:
        """Start the process without waiting."""
        arguments = [
            *("run", str(self.config_path), "--state-dir", str(self.state)),
            *([] if self.only_named else ["--all-nodes"]),
            *self.args,
        ]
        env = {k: v for k, v in os.environ.items() if not k.startswith("APPLIANCE_")}
        env |= self.environment
        with open(self.log_path, "ab") as log:
            assert not (self.command and (self.before or self.first))
            if self.command is None:
                self.process = forked.start(
                    arguments,
                    stdout=log,
                    stderr=log,
                    env=env,
                    before=self.before,
                    first=self.first,
                )
            else:
                self.process = subprocess.Popen(
                    [*self.command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env,
                )

    def start(self, *, ready: bool = True) -> Appliance:
        self.spawn()
        if ready:
            self.wait_ready()
        return self

    def wait_api(self) -> None:
        """Until the API answers, ready or not."""
        self.wait_ready(codes=(200, 503))

    def wait_ready(
        self, timeout_s: float = START_TIMEOUT_S, codes: tuple[int, ...] = (200,)
    ) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(
                    f"the daemon ended with {self.process.returncode}:\n{self.log()}"
                )
            try:
                return self.request("GET", "/readyz")[0] in codes
            except OSError:
                return False

        until(is_ready, timeout_s=timeout_s, tell=lambda: f"not ready:\n{self.log()}")

    def request(self, verb: str, path: str, body: object = None, timeout_s: float = 30.0):
        """One API call: status code and decoded body."""
        connection = _UnixConnection(self.state / "appliance.sock", timeout_s)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(verb, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            raw = response.read()
            if response.headers.get_content_type() == "application/json":
                return response.status, json.loads(raw)
            return response.status, raw.decode()
        finally:
            connection.close()

    def status(self) -> dict:
        code, body = self.request("GET", "/api/v1/status")
        assert code == 200, body
        return body

    def reload(self, **body) -> dict:
        return self.request("POST", "/api/v1/reload", body)[1]

    def send(self, *messages: dict) -> list[dict]:
        code, body = self.request("POST", "/api/v1/messages", list(messages))
        assert code == 202, (code, body)
        return body["messages"] if isinstance(body, dict) else body

    def follow(self, message: dict, wait_s: float = 20.0) -> str:
        """Send one message and return the lines that tell its fate, until it is answered or the wait is over."""
        connection = _UnixConnection(self.state / "appliance.sock", wait_s + 10.0)
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
            path = f"/api/v1/messages?wait={wait_s:g}s"
            connection.request("POST", path, json.dumps(message), headers)
            response = connection.getresponse()
            lines = response.read().decode()
            assert response.status == 202, lines
            return lines
        finally:
            connection.close()

    def worker(self, name: str) -> dict | None:
        for node in self.status()["nodes"].values():
            for worker in node["workers"]:
                if worker["name"] == name:
                    return worker
        return None

    def wait_until(self, predicate, timeout_s: float = LONG_S):
        """Poll the status until `predicate(status)` is true; returns that status."""
        status: dict = {}

        def look() -> object:
            nonlocal status
            status = self.status()
            return predicate(status)

        until(
            look,
            timeout_s=timeout_s,
            every_s=0.01,
            tell=lambda: f"{json.dumps(status, indent=1)}\n{self.log()}",
        )
        return status

    def write_config(self, text: str) -> None:
        """Replace the config as an editor does: a new file renamed over the old one."""
        temporary = self.config_path.with_name(".writing")
        temporary.write_text(text)
        temporary.replace(self.config_path)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 30.0) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        try:
            self.stop(15.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-8_000:] if self.log_path.exists() else ""

    def data(self, *parts: str) -> Path:
        return self.state.joinpath("data", *parts)


def settle(*daemons: Appliance) -> None:
    """Until nothing waits at any of them, nor is in hand or on its way between them."""

    def is_quiet(daemon: Appliance) -> bool:
        status = daemon.status()
        return status["outbox"]["pending"] == 0 and status["inbox"]["unfinished"] == 0

    # what one has just handed over shows at another: each is looked at again after all
    until(lambda: all(map(is_quiet, (*daemons, *daemons))), tell=daemons[0].log)
