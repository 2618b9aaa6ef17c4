"""The steady clock of a store: `core.ages` with real clocks. Ages, expiries and due times use it alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from appliance.core.ages import Anchor, choose_offset

BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """What tells this boot of the machine from others; "" where the system does not say."""
    try:
        return BOOT_ID_PATH.read_text().strip().replace("-", "")
    except OSError:
        return ""


class SteadyClock:
    """Epoch seconds that never jump. `start` must be called before the time is asked for."""

    def __init__(
        self, wall: Callable[[], float], mono: Callable[[], float], boot_id: str | None = None
    ) -> None:
        self._wall = wall
        self._mono = mono
        self._boot_id = read_boot_id() if boot_id is None else boot_id
        self._offset = 0.0

    def start(self, last: Anchor | None) -> None:
        """Go on from the newest moment that an earlier process noted."""
        self._offset = choose_offset(
            last, boot_id=self._boot_id, mono=self._mono(), wall=self._wall()
        )

    def now(self) -> float:
        """Steady seconds."""
        return self._mono() + self._offset

    def wall_of(self, steady: float) -> float:
        """What the wall clock, as it is set now, says of a steady time."""
        # by how the wall clock is set now: what is shown must fit what the reader's own clock shows
        return steady + self._wall() - self.now()

    def anchor(self) -> Anchor:
        """This moment, for the next process."""
        mono = self._mono()
        return Anchor(self._boot_id, mono + self._offset, mono, self._wall())
