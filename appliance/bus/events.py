"""What the bus tells the daemon, and the guard around telling it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)


def _nothing() -> None: ...


def _say_nothing(_text: str) -> None: ...


_NEWS_AGAIN_S = 600.0
"""What was not heard for this long is news again; whatever fails is tried far more often."""

_MAX_KNOWN = 64
"""Different failures whose repeats are known as such."""


class Repeats:
    """Remembers what was heard, and when."""

    def __init__(self, mono: Callable[[], float] = time.monotonic) -> None:
        self._mono = mono
        self._heard_mono: dict[str, float] = {}

    def is_news(self, kind: str) -> bool:
        """Note that something failed; False while it keeps coming."""
        now_mono = self._mono()
        last_mono = self._heard_mono.get(kind)
        if last_mono is None and len(self._heard_mono) >= _MAX_KNOWN:
            self._heard_mono.clear()
        self._heard_mono[kind] = now_mono
        return last_mono is None or now_mono - last_mono >= _NEWS_AGAIN_S

    def forget(self) -> None:
        """All is well: whatever fails from now on is news."""
        self._heard_mono.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class BusEvents:
    """Callbacks on the event loop. They must not block; one that raises does no harm."""

    on_connected: Callable[[], None] = _nothing
    """After every connect, the first included."""
    on_disconnected: Callable[[], None] = _nothing
    on_reconnect: Callable[[], None] = _nothing
    """After every connect but the first."""
    on_error: Callable[[str], None] = _say_nothing
    """Something a person may want to know, without secrets."""
    on_repeated_error: Callable[[str], None] = _say_nothing
    """The same once more: nothing has changed since."""


class Reporter:
    """Calls the daemon's callbacks, come what may."""

    def __init__(self, events: BusEvents, repeats: Repeats | None = None) -> None:
        self._events = events
        self._repeats = Repeats() if repeats is None else repeats

    def report(self, text: str, kind: str = "") -> None:
        """Tell of an error: as news, or as a repeat.

        Args:
            kind: what is the same in errors whose texts differ; "" for the text itself.
        """
        is_news = self._repeats.is_news(kind or text)
        self.call(self._events.on_error if is_news else self._events.on_repeated_error, text)

    def connected(self, *, is_first: bool) -> None:
        """A connection is in use; what failed before is news again."""
        self._repeats.forget()
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
