"""The newest signed commit that was in force: what an older one is told by, over restarts and sets that look alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.config.revision import SignedCommit
from appliance.durable_file import write_private
from appliance.reconcile.on_disk import OnDisk

SIGNED_COMMIT_FILE = "signed-commit.json"
"""Below the state directory."""


class SignedCommits:
    """Keeps it in memory and on disk. `load` blocks; called in threads."""

    def __init__(self, path: Path, on_trouble: Callable[[str], None] = lambda _: None) -> None:
        self._path = path
        self._on_disk: OnDisk[SignedCommit] = OnDisk("the newest commit", self._save, on_trouble)
        self.newest: SignedCommit | None = None

    def load(self) -> SignedCommit | None:
        """What an earlier run left. What cannot be read counts as nothing."""
        try:
            self.newest = msgspec.json.decode(self._path.read_bytes(), type=SignedCommit)
        except (OSError, msgspec.DecodeError, RecursionError):
            self.newest = None
        return self.newest

    async def put(self, commit: SignedCommit) -> None:
        """This one is in force, and whoever put it there meant to."""
        if commit == self.newest:
            return
        self.newest = commit
        await self._on_disk.put(commit)

    async def catch_up(self) -> None:
        """Write what a full disk did not take: an older commit would be let in after a restart."""
        await self._on_disk.catch_up()

    def _save(self, commit: SignedCommit) -> None:
        write_private(self._path, json.dumps(msgspec.to_builtins(commit)).encode())
