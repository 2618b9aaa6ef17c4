"""A pin holds an older set in force, after a rollback or a failed trial, until the files change again.

Kept on disk beside the history: a restart must not bring back what was taken back.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from appliance.config.revision import Revision

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
            self._path.unlink(missing_ok=True)
            return
        temporary = self._path.with_suffix(".tmp")
        with open(temporary, "w", encoding="utf-8", opener=_private) as file:
            json.dump(asdict(pin), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
