"""What the reconciler last saw of the files and of the commit they stand at, and whether that is still so."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from appliance.config.revision import Revision
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.trigger import Trigger

MAX_QUIET_WAIT_S = 2.0
"""Triggers that keep coming delay a look at most this long; content that keeps changing delays it longer."""
MAX_CONTENT_WAIT_S = 10.0


class FileWatch:
    """Content decides about a look, and so does the commit: `git pull` moves it after the files."""

    def __init__(self, reader: SourceReader, trigger: Trigger) -> None:
        self._reader = reader
        self._trigger = trigger
        self._mono = asyncio.get_running_loop().time
        self.digest = ""
        """Of the files, at the last look; "" where they could not be read."""
        self.content_digest = ""
        """Of the files when they could be read last."""
        self.revision: Revision | None = None
        self._signers = ""

    async def has_changed(self) -> bool:
        """Whether files, commit or those who may sign it are others than at the last look."""
        digest = await self._reader.fingerprint()
        return (
            digest != self.digest
            or await self._reader.revision(self.revision) != self.revision
            or await self._reader.signers(self._signers) != self._signers
        )

    async def hold_still(self, settle_s: float) -> frozenset[str]:
        """Wait until content and triggers are quiet, so that a burst is one look and no half-written file is read.

        Returns the reasons for a look that came meanwhile: it is theirs, too.
        """
        reasons: frozenset[str] = frozenset()
        started = self._mono()
        digest = await self._reader.fingerprint()
        while True:
            # whoever writes goes on giving hints: one that comes during the sleep says that it is not over
            reasons |= self._trigger.take()
            await asyncio.sleep(settle_s)
            # NB: before the files, so that a commit that follows them is noticed as a change
            await self._read_surroundings()
            again = await self._reader.fingerprint()
            waited_s = self._mono() - started
            is_still = again == digest or waited_s >= MAX_CONTENT_WAIT_S
            is_quiet = not self._trigger.pending or waited_s >= MAX_QUIET_WAIT_S
            digest = again
            if is_still and is_quiet:
                reasons |= self._trigger.take()
                self.saw(digest)
                return reasons

    def saw(self, digest: str) -> None:
        """The files have, or had a moment ago, this content."""
        self.digest = digest
        self.content_digest = digest or self.content_digest

    async def begin(self, digest: str, label: Revision | None) -> None:
        """What the daemon read first; without a label the commit is read now."""
        self.saw(digest)
        await self._read_surroundings()
        if label is not None:
            self.revision = replace(label, dirty=None, author=None)

    async def _read_surroundings(self) -> None:
        self.revision = await self._reader.revision(self.revision)
        self._signers = await self._reader.signers(self._signers)
