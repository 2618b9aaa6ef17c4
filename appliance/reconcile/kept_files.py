"""Small files beside the history: what a restart must not bring back, or let in again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from appliance.config.revision import Revision, SignedCommit
from appliance.durable_file import remove_durably, write_private

PIN_FILE = "pin.json"
"""Below the state directory."""
SIGNED_COMMIT_FILE = "signed-commit.json"
"""Likewise."""

_Value = TypeVar("_Value")


class KeptFile(Generic[_Value]):
    """A value as JSON. Blocks; called in threads."""

    def __init__(self, path: Path, kind: type[_Value]) -> None:
        self._path = path
        self._kind = kind

    def load(self) -> _Value | None:
        """What an earlier run left. What cannot be read counts as nothing; `find_damage` says so."""
        try:
            return self._read()
        except (OSError, ValueError, RecursionError):
            return None

    def find_damage(self) -> str:
        """Why what an earlier run left cannot be read, in words; "" where it can, or where nothing is there."""
        try:
            self._read()
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self._path}: {(error.strerror or str(error)).lower()}"
        except (ValueError, RecursionError):
            return f"{self._path} is damaged"
        return ""

    def _read(self) -> _Value:
        return msgspec.json.decode(self._path.read_bytes(), type=self._kind)

    def save(self, value: _Value | None) -> None:
        """Keep it, or forget it.

        Raises:
            OSError: it cannot be written.
        """
        if value is None:
            remove_durably(self._path)
        else:
            write_private(self._path, json.dumps(msgspec.to_builtins(value), indent=1).encode())


class OnDisk(Generic[_Value]):
    """Has a file follow a value in memory: the pin, the trial, the newest signed commit.

    A disk that takes nothing holds nobody up: it is tried again, and told once.
    """

    def __init__(
        self, what: str, save: Callable[[_Value], None], on_trouble: Callable[[str], None]
    ) -> None:
        """`save` blocks, raises OSError, and is called in threads; `on_trouble` is told what a restart would not know."""
        self._what = what
        self._save = save
        self._on_trouble = on_trouble
        self._behind: tuple[_Value] | None = None
        self._told = ""

    @property
    def is_kept(self) -> bool:
        """Whether a restart would find the newest value."""
        return self._behind is None

    async def put(self, value: _Value) -> None:
        """Write this one, now or as soon as the disk takes it."""
        self.expect(value)
        await self.catch_up()

    def expect(self, value: _Value) -> None:
        """The disk says something else; the next `catch_up` writes this one."""
        self._behind = (value,)

    async def catch_up(self) -> None:
        """Write what could not be written before."""
        behind = self._behind
        if behind is None:
            return
        try:
            await asyncio.to_thread(self._save, *behind)
        except OSError as error:
            # NB: not the whole text, where a temporary file has another name each time
            why = error.strerror or str(error)
            if why != self._told:
                self._told = why
                self._on_trouble(f"{self._what} is not on disk, where a restart looks: {error}")
            return
        self._told = ""
        if self._behind is behind:  # another may have come meanwhile
            self._behind = None


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


class PinKeeper(OnDisk[Pin | None]):
    """The pin in force: it holds an older set, after a rollback or a failed trial, until the files change again.

    A disk that takes no pin blocks no way back: it holds in memory, and is written later.
    """

    def __init__(self, file: KeptFile[Pin], on_trouble: Callable[[str], None]) -> None:
        super().__init__("the pin", file.save, on_trouble)
        self.load = file.load
        self.pin: Pin | None = None

    def restore(self, pin: Pin | None, *, is_on_disk: bool) -> None:
        """What an earlier run left, or that it is over."""
        self.pin = pin
        if not is_on_disk:
            self.expect(pin)

    def holds(self, files_digest: str) -> bool:
        """Whether an older set is pinned, and the files are still those that it was pinned against."""
        return self.pin is not None and self.pin.files_digest == files_digest

    async def put(self, pin: Pin | None) -> None:
        """Pin a set, or (None) let the files decide again."""
        if pin == self.pin and self.is_kept:
            return
        self.pin = pin
        await super().put(pin)


class SignedCommits(OnDisk[SignedCommit]):
    """The newest signed commit that was in force: what an older one is told by, over restarts and sets that look alike."""

    def __init__(self, path: Path, on_trouble: Callable[[str], None] = lambda _: None) -> None:
        self._file = KeptFile(path, SignedCommit)
        super().__init__("the newest commit", self._file.save, on_trouble)
        self.newest: SignedCommit | None = None

    def load(self) -> SignedCommit | None:
        """What an earlier run left. Blocks; called in threads."""
        self.newest = self._file.load()
        return self.newest

    async def put(self, commit: SignedCommit) -> None:
        """This one is in force, and whoever put it there meant to."""
        if commit == self.newest:
            return
        self.newest = commit
        await super().put(commit)
