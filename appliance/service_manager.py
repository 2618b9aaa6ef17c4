"""The service manager's ear: readiness, state, watchdog, told over the socket that it names in NOTIFY_SOCKET.

Without that variable nothing is sent. The variables are taken out of the environment, so that no program which the
daemon starts can speak in its name. A message that finds the socket full waits for the next turn; one that finds
nobody there is forgotten, for then nobody waits for it.

The watchdog is fed by the event loop itself, and only while the reconciler lives: a loop that is blocked, or a pass
that never ends, stops the feeding, and the service manager starts the daemon anew.

Source: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from appliance.core.escape import escape_controls
from appliance.supervision import keep_running

_log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often the state is looked at; a change is told, sameness is not."""
EXTENSION_S = 30.0
"""How much time is asked for at once while work in hand ends; asked for again at every tick."""
MAX_STATUS_CHARS = 400
_MAX_WAITING = 64
"""Messages kept for a service manager that does not read; beyond it the oldest goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifySettings:
    """What the service manager asked for."""

    address: str | None = None
    watchdog_s: float | None = None


def take_settings(environ: MutableMapping[str, str], pid: int) -> NotifySettings:
    """Read the service manager's variables and remove them."""
    address = environ.pop("NOTIFY_SOCKET", "")
    interval = environ.pop("WATCHDOG_USEC", "")
    is_for_us = environ.pop("WATCHDOG_PID", str(pid)) == str(pid)
    watchdog_s = int(interval) / 1e6 if interval.isdecimal() and is_for_us else 0.0
    return NotifySettings(
        address=address if address.startswith(("/", "@")) and len(address) > 1 else None,
        watchdog_s=watchdog_s or None,
    )


class NotifySocket:
    """The way to the service manager: datagrams in their order, kept while it does not read."""

    def __init__(self, address: str) -> None:
        self._target = "\0" + address[1:] if address.startswith("@") else address
        self._waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, lines: Sequence[str]) -> None:
        """Send assignments as one message, or keep it for the next `flush`."""
        self._waiting.append("\n".join(lines).encode(errors="backslashreplace"))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting:
            try:
                self._socket.sendto(self._waiting[0], self._target)
            except BlockingIOError:
                # kept, and sent with the next tick: a word that is lost could be the READY that a start waits for
                return
            except OSError as error:
                _log.debug("the service manager does not listen: %s", error)
            self._waiting.popleft()

    def close(self) -> None:
        """Send what can be sent at once, and no more."""
        self.flush()
        self._socket.close()


class Stage(StrEnum):
    """Where the daemon is in its life, as far as the service manager is told."""

    STARTING = "starting"
    READY = "ready"
    LOOKING = "looking"
    STOPPING = "stopping"


class ServiceManager:
    """Life: `start` -> `ready` -> any number of `reloading`, `reloaded` -> `stopping` -> `close`."""

    def __init__(
        self,
        settings: NotifySettings,
        *,
        summary: Callable[[], str],
        is_alive: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._summary = summary
        self._is_alive = is_alive
        self._stage = Stage.STARTING
        self._last_status = ""
        self._socket: NotifySocket | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Say that the start has begun, and begin to tell."""
        if self._settings.address is None:
            return
        self._socket = NotifySocket(self._settings.address)
        self._task = asyncio.create_task(
            keep_running("talking to the service manager", self._run, _log.error),
            name="service manager",
        )
        self._tell(status="starting")

    def ready(self) -> None:
        """The first pass has settled."""
        if self._stage is not Stage.STOPPING:
            self._stage = Stage.READY
        self._tell("READY=1", status=self._summary())

    def reloading(self) -> None:
        """A look at the config begins."""
        if self._stage in (Stage.READY, Stage.LOOKING):
            self._stage = Stage.LOOKING
            now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
            self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}", status="looking at the config")

    def reloaded(self) -> None:
        """The look has ended; the state tells how."""
        if self._stage in (Stage.READY, Stage.LOOKING):
            self._stage = Stage.READY
            self._tell("READY=1", status=self._summary())

    def stopping(self) -> None:
        """The end has begun; work in hand may need longer than the service manager knows."""
        self._stage = Stage.STOPPING
        self._tell("STOPPING=1", _extension(), status=self._summary())

    async def close(self) -> None:
        """Say no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _run(self) -> None:
        assert self._socket is not None
        watchdog_s = self._settings.watchdog_s
        tick_s = min(TICK_S, watchdog_s / 2) if watchdog_s is not None else TICK_S
        loop = asyncio.get_running_loop()
        fed_mono = loop.time()
        while True:
            await asyncio.sleep(tick_s)
            if watchdog_s is not None and loop.time() - fed_mono >= watchdog_s / 2 - tick_s / 2:
                fed_mono = loop.time()
                # not fed where only a restart helps: then the service manager makes it
                if self._is_alive():
                    self._tell("WATCHDOG=1")
            if self._stage is Stage.STOPPING:
                self._tell(_extension(), status=self._summary())
            elif self._stage is Stage.READY:
                status = self._summary()
                # only news: a datagram a second would say the same
                if status != self._last_status:
                    self._tell(status=status)
            self._socket.flush()

    def _tell(self, *assignments: str, status: str | None = None) -> None:
        lines = list(assignments)
        if status is not None:
            self._last_status = status
            lines.append(f"STATUS={escape_controls(status)[:MAX_STATUS_CHARS]}")
        if self._socket is not None:
            self._socket.send(lines)


def _extension() -> str:
    return f"EXTEND_TIMEOUT_USEC={int(EXTENSION_S * 1e6)}"


def settings_of_process() -> NotifySettings:
    """The settings of this process, taken out of its environment."""
    return take_settings(os.environ, os.getpid())
