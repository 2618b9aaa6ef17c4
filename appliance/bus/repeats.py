"""Which failures are news: what keeps coming with the same words is told once, however long it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable

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
