"""What the bus tells the daemon, and the guard around telling it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)

_REPEAT_REPORT_S = 60.0
"""The same failure is reported again after this long; a broker may be away for days."""

_MAX_REPORTED = 64
"""Different failures whose repeats are held back."""


def _nothing() -> None: ...


def _say_nothing(_text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BusEvents:
    """Callbacks on the event loop. They must not block; one that raises does no harm."""

    on_connected: Callable[[], None] = _nothing
    """After every connect, the first included."""
    on_disconnected: Callable[[], None] = _nothing
    on_reconnect: Callable[[], None] = _nothing
    """After every connect but the first."""
    on_error: Callable[[str], None] = _say_nothing
    """Something a person may want to know, without secrets; repeats are held back."""


class Reporter:
    """Calls the daemon's callbacks, come what may."""

    def __init__(self, events: BusEvents) -> None:
        self._events = events
        self._reported_mono: dict[str, float] = {}

    def report(self, text: str, kind: str = "") -> None:
        """Tell of an error, unless the same was told within the last minute.

        Args:
            kind: what is the same in errors whose texts differ; "" for the text itself.
        """
        kind = kind or text
        now_mono = time.monotonic()
        last_mono = self._reported_mono.get(kind)
        if last_mono is not None and now_mono - last_mono < _REPEAT_REPORT_S:
            return
        if len(self._reported_mono) >= _MAX_REPORTED:
            self._reported_mono.clear()
        self._reported_mono[kind] = now_mono
        self.call(self._events.on_error, text)

    def connected(self, *, is_first: bool) -> None:
        """A connection is in use; what failed before is news again."""
        self._reported_mono.clear()
        self.call(self._events.on_connected)
        if not is_first:
            self.call(self._events.on_reconnect)

    def disconnected(self) -> None:
        """The connection in use is gone."""
        self.call(self._events.on_disconnected)

    def call(self, callback: Callable[..., None], *values: str) -> None:
        """Call a callback of somebody else's."""
        try:
            callback(*values)
        except Exception:  # noqa: BLE001 - the guard around code of others
            _log.exception("a callback of the bus failed")
