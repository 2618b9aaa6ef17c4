"""A pin holds an older set in force, after a rollback or a failed trial, until the files change again.

Kept on disk beside the history: a restart must not bring back what was taken back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from appliance.config.revision import Revision
from appliance.durable_file import remove_durably, write_private
from appliance.reconcile.on_disk import OnDisk

PIN_FILE = "pin.json"
"""Below the state directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """`files_digest` is that of the files when the set was pinned: as long as they hold still, the pin holds."""

    digest: str
    revision: str | None
    files_digest: str
    reason: str
    """`rollback` or `trial`."""
    by: str
    at: float
    branch: str | None = None
    dirty: bool | None = None
    failures: tuple[str, ...] = ()
    """What the set in the files did wrong on its trial."""

    @property
    def is_after_trial(self) -> bool:
        """Whether the files hold a set that did not stand its trial: nobody asked for the older one."""
        return self.reason == "trial"

    @property
    def label(self) -> Revision | None:
        """Where the pinned set's files came from, as one value."""
        if self.revision is None:
            return None
        return Revision(commit=self.revision, branch=self.branch, dirty=self.dirty)


class PinBook:
    """Reads and writes the pin. Blocks; called in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Pin | None:
        """The pin of an earlier run. What cannot be read counts as none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Pin)
        except (OSError, msgspec.DecodeError, RecursionError):
            return None

    def save(self, pin: Pin | None) -> None:
        """Keep it, or forget it.

        Raises:
            OSError: it cannot be written.
        """
        if pin is None:
            remove_durably(self._path)
        else:
            write_private(self._path, json.dumps(asdict(pin), indent=1).encode())


class PinKeeper:
    """The pin in force. A disk that takes no pin blocks no way back: it holds in memory, and is written later."""

    def __init__(self, book: PinBook, on_trouble: Callable[[str], None]) -> None:
        self._book = book
        self._on_disk: OnDisk[Pin | None] = OnDisk("the pin", book.save, on_trouble)
        self.pin: Pin | None = None

    def load(self) -> Pin | None:
        """What is on disk. Blocks."""
        return self._book.load()

    def restore(self, pin: Pin | None, *, is_on_disk: bool) -> None:
        """What an earlier run left, or that it is over."""
        self.pin = pin
        if not is_on_disk:
            self._on_disk.expect(pin)

    @property
    def is_kept(self) -> bool:
        """Whether a restart would know of the pin, or that there is none."""
        return self._on_disk.is_kept

    def holds(self, files_digest: str) -> bool:
        """Whether an older set is pinned, and the files are still those that it was pinned against."""
        return self.pin is not None and self.pin.files_digest == files_digest

    async def put(self, pin: Pin | None) -> None:
        """Pin a set, or (None) let the files decide again."""
        if pin == self.pin and self._on_disk.is_kept:
            return
        self.pin = pin
        await self._on_disk.put(pin)

    async def catch_up(self) -> None:
        """Write what could not be written before."""
        await self._on_disk.catch_up()
