"""Files on their way to or from somebody at this daemon's API: a directory of its own, one file per transfer.

A file for the API comes as any copy does, only that its path is a word made for it (`appliance-copy:<token>`), which
nobody can guess and which means something to this daemon alone. The node that was asked may bring that one file,
whatever `allow_paths` says. What nobody fetches is removed after an hour, and all of it when the daemon starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.core.copying import NOWHERE, SPOOL_WORD, Piece, TargetPlace
from appliance.errors import AnswerUnwanted, PathForbidden, RequestInvalid
from appliance.methods.base import WriteRights
from appliance.methods.copies.receiver import CopyTaker
from appliance.supervision import keep_running

MAX_ENTRIES = 64
MAX_GONE = 256
"""Words of late that are told from those that were never given."""
_log = logging.getLogger(__name__)

KEEP_S = 3_600.0
BRING_S = 60.0
"""A file that goes out is brought and sent at once: one that nobody is busy with for so long is nobody's any more."""
TIDY_EVERY_S = 60.0


@dataclass(slots=True, eq=False)
class SpoolEntry:
    """One file. `node` is the own node that takes part, `other` the node at the other end."""

    token: str
    path: Path
    node: str
    other: str
    touched_mono: float
    target: TargetPlace = NOWHERE
    """Of a file that goes out: where at the other node."""
    name: str = ""
    sha256: str | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    is_fetched: bool = False
    """Whether whoever asked for it has begun to read it."""
    users: int = 0
    """How many read or write it now: then it is not removed for its age."""

    @property
    def is_outgoing(self) -> bool:
        """Whether it goes to the other node, and does not come from there."""
        return bool(self.target.path)

    @property
    def word(self) -> str:
        """The path that the other node is told."""
        return f"{SPOOL_WORD}{self.token}"


class CopySpool:
    """Implements `base.FileTaker` before the real one."""

    def __init__(
        self, directory: Path, taker: CopyTaker, *, mono: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._taker = taker
        self._mono = mono
        self._entries: dict[str, SpoolEntry] = {}
        self._gone: OrderedDict[str, SpoolEntry] = OrderedDict()
        self._tidying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Remove what an earlier run left: nobody can ask for it any more."""
        await asyncio.to_thread(self._empty)
        self._tidying = asyncio.create_task(
            keep_running("tidying copies", self._tidy, _log.error), name="tidy copies"
        )

    async def close(self) -> None:
        """Tidy no more."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)

    def add(
        self,
        node: str,
        other: str,
        *,
        target: TargetPlace = NOWHERE,
        name: str = "",
    ) -> SpoolEntry:
        """Room for one file.

        Raises:
            RequestInvalid: too many are on their way.
        """
        # before the bound is asked, so that what nobody takes any more keeps nobody out
        self._remove_old()
        if len(self._entries) >= MAX_ENTRIES:
            raise RequestInvalid(f"{MAX_ENTRIES} copies are on their way already")
        token = secrets.token_hex(16)
        entry = SpoolEntry(
            token,
            self._directory / token,
            node,
            other,
            self._mono(),
            target=target,
            name=name,
        )
        self._entries[token] = entry
        return entry

    def find(self, token: str) -> SpoolEntry | None:
        """The entry of a token."""
        entry = self._entries.get(token)
        if entry is not None:
            entry.touched_mono = self._mono()
        return entry

    def remove(self, token: str) -> bool:
        """Forget an entry; pieces that still come for it are refused."""
        entry = self._entries.pop(token, None)
        if entry is None:
            return False
        self._unlink(entry)
        self._gone[token] = entry
        while len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)
        return True

    async def take_file(
        self, path: str, data: bytes, sha256: str | None, sender: str, rights: WriteRights
    ) -> None:
        """See `base.FileTaker`."""
        if not path.startswith(SPOOL_WORD):
            await self._taker.take_file(path, data, sha256, sender, rights)
            return
        entry = self._expected(path, sender, is_whole=True)
        await self._taker.take_file(str(entry.path), data, sha256, sender, _any_path(rights))
        self._note(entry, hashlib.sha256(data).hexdigest())

    async def take_piece(
        self, path: str, data: bytes, piece: Piece, sender: str, rights: WriteRights
    ) -> None:
        """See `base.FileTaker`."""
        if not path.startswith(SPOOL_WORD):
            await self._taker.take_piece(path, data, piece, sender, rights)
            return
        entry = self._expected(path, sender)
        try:
            await self._taker.take_piece(str(entry.path), data, piece, sender, _any_path(rights))
        finally:
            if self._entries.get(entry.token) is not entry:
                self._unlink(entry)  # removed while this was written
        if piece.offset + len(data) == piece.size:
            self._note(entry, piece.sha256)

    async def forget(self, path: str, piece: Piece, sender: str, rights: WriteRights) -> None:
        """See `base.FileTaker`."""
        if path.startswith(SPOOL_WORD):
            path, rights = str(self._expected(path, sender).path), _any_path(rights)
        await self._taker.forget(path, piece, sender, rights)

    def _expected(self, path: str, sender: str, *, is_whole: bool = False) -> SpoolEntry:
        """The entry that a file of this sender is to come for; what goes out is none.

        Raises:
            PathForbidden: there is none.
            AnswerUnwanted: there was one, and whoever asked has gone.
        """
        token = path.removeprefix(SPOOL_WORD)
        entry = self.find(token) or self._gone.get(token)
        if entry is None or entry.is_outgoing:
            raise _unexpected()
        # NB: a Go node sends the file in the name of whoever asked for it
        if sender != entry.other and not (is_whole and sender == entry.node):
            raise _unexpected()
        # told apart from a token that never was: its sender learns that it may stop
        if token in self._gone:
            raise AnswerUnwanted
        return entry

    def _note(self, entry: SpoolEntry, sha256: str) -> None:
        entry.sha256 = sha256
        entry.arrived.set()
        if self._entries.get(entry.token) is not entry:
            self._unlink(entry)

    def _unlink(self, entry: SpoolEntry) -> None:
        """Its file, and what has come of it so far."""
        with contextlib.suppress(OSError):
            entry.path.unlink()
        if not entry.is_outgoing:
            self._taker.remove_parts(entry.path)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            self._remove_old()
            with contextlib.suppress(OSError):  # a disk in trouble is told of where files come
                await self._taker.sweep()

    def _remove_old(self) -> None:
        now = self._mono()
        for token, entry in list(self._entries.items()):
            keep_s = BRING_S if entry.is_outgoing or entry.is_fetched else KEEP_S
            if not entry.users and now - entry.touched_mono > keep_s:
                self.remove(token)

    def _empty(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        os.makedirs(self._directory, 0o700, exist_ok=True)
        # a path that holds links would not be written through: see `_paths`
        self._directory = Path(os.path.realpath(self._directory))


def _unexpected() -> PathForbidden:
    return PathForbidden("no such copy is expected here")


def _any_path(rights: WriteRights) -> WriteRights:
    return WriteRights(allow_paths=None, max_bytes=rights.max_bytes)
