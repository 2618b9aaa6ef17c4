"""What the reconciler last saw of the files and of the commit they stand at, and whether that is still so."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from appliance.config.revision import Revision
from appliance.reconcile.requests import ConfigSource
from appliance.reconcile.trigger import Trigger

MAX_QUIET_WAIT_S = 2.0
"""Triggers that keep coming delay a look at most this long; content that keeps changing delays it longer."""
MAX_CONTENT_WAIT_S = 10.0


class FileWatch:
    """Content decides about a look, and so does the commit: `git pull` moves it after the files."""

    def __init__(self, source: ConfigSource, trigger: Trigger) -> None:
        self._source = source
        self._trigger = trigger
        self._mono = asyncio.get_running_loop().time
        self.digest = ""
        """Of the files, at the last look."""
        self.revision: Revision | None = None

    async def has_changed(self) -> bool:
        """Whether files or commit are others than at the last look."""
        digest = await asyncio.to_thread(self._source.fingerprint)
        return digest != self.digest or await self._read_revision() != self.revision

    async def hold_still(self, settle_s: float) -> None:
        """Wait until content and triggers are quiet, so that a burst is one look and no half-written file is read."""
        started = self._mono()
        digest = await asyncio.to_thread(self._source.fingerprint)
        while True:
            self._trigger.take()
            await asyncio.sleep(settle_s)
            # NB: before the files, so that a commit that follows them is noticed as a change
            self.revision = await self._read_revision()
            again = await asyncio.to_thread(self._source.fingerprint)
            waited_s = self._mono() - started
            is_still = again == digest or waited_s >= MAX_CONTENT_WAIT_S
            is_quiet = not self._trigger.pending or waited_s >= MAX_QUIET_WAIT_S
            digest = again
            if is_still and is_quiet:
                self._trigger.take()
                self.digest = digest
                return

    async def begin(self, digest: str, label: Revision | None) -> None:
        """What the daemon read first; without a label the commit is read now."""
        self.digest = digest
        known = replace(label, dirty=None, author=None) if label is not None else None
        self.revision = known or await self._read_revision()

    async def _read_revision(self) -> Revision | None:
        return await asyncio.to_thread(self._source.revision)
