"""Where a benchmark keeps its state: a directory of its own on the disk that the daemon would use, gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

PREFIX = ".bench-"
LOCK_NAME = "lock"
YOUNG_S = 60.0
"""A directory without a lock may be one that is just being made."""


class BenchPlace:
    """Made by the constructor, removed by `close`; what a killed benchmark left is removed first. Blocks on files."""

    def __init__(self, state_dir: Path) -> None:
        """Find room beside, never in, the state of a daemon.

        Raises:
            OSError: there is no room anywhere.
        """
        parent = _nearest(state_dir)
        device = parent.stat().st_dev
        if not os.access(parent, os.W_OK | os.X_OK):
            parent = Path(tempfile.gettempdir())
        self.is_other_disk = parent.stat().st_dev != device
        _remove_left_over(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _nearest(path: Path) -> Path:
    """The directory itself, or the one that it would be made in."""
    path = Path(os.path.abspath(path))
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def _remove_left_over(parent: Path) -> None:
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            facts = path.lstat()
            # NB: the parent may be open to everybody; a link, or what is another's, is left alone
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid():
                _remove_unless_held(path, is_young=time.time() - facts.st_mtime < YOUNG_S)


def _remove_unless_held(path: Path, *, is_young: bool) -> None:
    try:
        held = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        if not is_young:
            shutil.rmtree(path, ignore_errors=True)
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(held)
