"""When a file that messages add to begins anew, and how the ones before it are called: ``<name>.1`` is the newest of them.

What has to be looked at stands in the file system alone, so a kill at any moment leaves nothing to be repaired: at the
worst a number is free, up to which the next rotation moves files.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from appliance.core.file_names import MAX_PART_BYTES
from appliance.core.specs import FileSettings


class Rotation(NamedTuple):
    """When, and how many files are kept. 0 stands for never."""

    max_bytes: int = 0
    every_s: float = 0.0
    keep_files: int = 1

    @classmethod
    def of(cls, settings: FileSettings, at_bytes: int | None) -> Rotation:
        """What the config says; of a log of the program's own that has a bound of its own the smaller."""
        bounds = [bound for bound in (settings.max_bytes, at_bytes) if bound]
        is_configured = bool(settings.max_bytes or settings.every_s)
        keep_files = settings.keep_files if is_configured else 1
        return cls(min(bounds, default=0), settings.every_s, keep_files)

    def is_due(self, size_bytes: int, growth_bytes: int, written_at: float, now: float) -> bool:
        """Whether a file is to begin anew before it grows; an empty one never."""
        if not (size_bytes and growth_bytes):
            return False
        if self.max_bytes and size_bytes + growth_bytes > self.max_bytes:
            return True
        return bool(self.every_s) and now // self.every_s > written_at // self.every_s


def predecessor(name: bytes, number: int) -> bytes:
    """What the file is called that was moved aside so many rotations ago."""
    ending = b".%d" % number
    return name[: MAX_PART_BYTES - len(ending)] + ending


def move_aside(directory_fd: int, name: bytes, keep_files: int) -> None:
    """Give a file the name of its newest predecessor, and each of these the next one; the oldest goes.

    Raises:
        OSError: the system refuses; the file has its name still.
    """
    count = 1
    while count < keep_files and _is_there(directory_fd, predecessor(name, count)):
        count += 1
    # from behind, so that each name is free when a file gets it, whatever is killed in between
    for number in range(count, 0, -1):
        older = predecessor(name, number)
        newer = predecessor(name, number - 1) if number > 1 else name
        os.rename(newer, older, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def find_predecessors(path: str, limit: int = 1_000) -> list[str]:
    """Files that one was moved aside to, the newest first."""
    directory, name = os.path.split(os.fsencode(path))
    found = []
    for number in range(1, limit + 1):
        older = os.path.join(directory, predecessor(name, number))
        if not os.path.isfile(older):
            break
        found.append(os.fsdecode(older))
    return found


def _is_there(directory_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
