"""Where the files of a config that is planned from a laptop would stand at the daemon, by which their references count.

Pure. A clone on a laptop and the directory of the service hold the same files in other places; their references to
secrets and paths count from where a file stands, and so would all differ.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FILES = (".yaml", ".yml")


class Places:
    """Names of files here and there."""

    def __init__(self, names: Iterable[str], here: Sequence[str], there: Sequence[str]) -> None:
        """`names` of files that were found at the paths `here`, and the daemon's own paths; in the same order, where they
        are as many.
        """
        pairs = list(zip(here, there, strict=True)) if len(here) == len(there) else []
        self._there = {name: _move(name, pairs) for name in names}
        self._here = {moved: name for name, moved in self._there.items()}

    def there(self, name: str) -> str:
        """Where a file of ours would be."""
        return self._there.get(name, name)

    def told_here(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """A plan whose problems stand in our files."""
        told = dict(answer)
        for key in ("problems", "warnings"):
            if told.get(key):
                told[key] = [
                    {**item, "file": self._here.get(item.get("file"), item.get("file"))}
                    for item in told[key]
                ]
        return told


def _move(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    for here, there in pairs:
        is_file = there.endswith(_FILES)
        if name == here:
            return there if is_file else os.path.join(there, os.path.basename(name))
        if name.startswith(here.rstrip("/") + "/") and not is_file:
            return os.path.join(there, os.path.relpath(name, here))
    return name
