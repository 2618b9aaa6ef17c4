"""Finds the files at a place, as far as `allow_paths` lets them be read. Blocking, and bounded.

What may not be read is not there: a pattern tells nothing of names beyond `allow_paths`. Links below a directory are not
followed where they lead out of it; one to a file within is that file. What is listed is opened later by the way every
copy is, which judges it again.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence

from appliance.core.allow import is_path_allowed
from appliance.core.listing import (
    DIRECTORY,
    FILE,
    MAX_DEPTH,
    MAX_ENTRIES,
    OTHER,
    Entry,
    has_wildcard,
)
from appliance.core.message import bytes_to_text, text_to_bytes
from appliance.errors import CopyFailed, HandlerError, PathForbidden
from appliance.methods.copies.attributes import name_owner
from appliance.methods.files.paths import failed, is_of_a_process
from appliance.methods.texts import shorten

MAX_LOOKED_AT = 1_000_000
"""Names that one question may have looked at, however few of them it finds."""


def list_files(path: str, patterns: Sequence[str] | None, *, is_recursive: bool) -> list[Entry]:
    """What stands at a path or a pattern of paths, in order.

    Raises:
        PathForbidden: nothing that may be read is there.
        HandlerError: it is too much, or the system refuses.
    """
    lister = _Lister(patterns)
    found: list[Entry] = []
    matches = (
        lister.expand(posixpath.normpath(path))
        if has_wildcard(path)
        else [posixpath.normpath(path)]
    )
    for match in matches:
        for entry in lister.entries(match, is_recursive=is_recursive):
            found.append(entry)
            if len(found) > MAX_ENTRIES:
                raise HandlerError(f"{shorten(path)}: more than {MAX_ENTRIES} files")
    if not found:
        # the same words whether it is there or not
        raise PathForbidden(f"nothing at {shorten(path)} is there and in allow_paths")
    return found


class _Lister:
    def __init__(self, patterns: Sequence[str] | None) -> None:
        self._patterns = patterns
        self._looked_at = 0

    def expand(self, pattern: str) -> list[str]:
        """Paths that a pattern means; a wildcard stands for anything within one name, as in a shell."""
        found = ["/"]
        for part in [part for part in pattern.split("/") if part]:
            if not has_wildcard(part):
                found = [posixpath.join(path, part) for path in found]
                continue
            # as in a shell, too: names that begin with a dot are matched by name
            found = [
                posixpath.join(path, name)
                for path in found
                for name in self._names(path)
                if fnmatch.fnmatchcase(name, part) and name.startswith(".") <= part.startswith(".")
            ]
        return found

    def entries(self, match: str, *, is_recursive: bool) -> Iterator[Entry]:
        """The match itself, or with `is_recursive` what is below it."""
        real = bytes_to_text(os.path.realpath(text_to_bytes(match)))
        try:
            facts = os.stat(text_to_bytes(real), follow_symlinks=False)
        except OSError:
            return
        if not stat.S_ISDIR(facts.st_mode):
            if self._may_read(real):
                yield _entry(match, match, facts)
            return
        if is_recursive:
            yield from self._below(match, match, real, real, 0)
        elif self._may_read(real) or self._may_read(posixpath.join(real, "x")):
            yield Entry(match, match, DIRECTORY)

    def _below(self, match: str, path: str, real: str, root: str, depth: int) -> Iterator[Entry]:
        if depth > MAX_DEPTH:
            raise HandlerError(f"{shorten(path)}: more than {MAX_DEPTH} directories deep")
        if self._may_read(real):
            yield Entry(path, match, DIRECTORY)
        for name in self._names(real):
            here, there = posixpath.join(path, name), posixpath.join(real, name)
            try:
                facts = os.stat(text_to_bytes(there), follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile
            if stat.S_ISDIR(facts.st_mode):
                yield from self._below(match, here, there, root, depth + 1)
            elif stat.S_ISLNK(facts.st_mode):
                yield from self._link(match, here, there, root)
            elif self._may_read(there):
                yield _entry(here, match, facts)

    def _link(self, match: str, here: str, there: str, root: str) -> Iterator[Entry]:
        """A link is the file that it leads to, where that lies in what is copied."""
        if not self._may_read(there):
            return
        real = bytes_to_text(os.path.realpath(text_to_bytes(there)))
        # before anything is asked of it: whether there is something elsewhere is not to be told
        if not real.startswith(root.rstrip("/") + "/") or not self._may_read(real):
            yield Entry(here, match, OTHER, why="a link that leads out of what is copied")
            return
        try:
            facts = os.stat(text_to_bytes(real), follow_symlinks=False)
        except OSError:
            yield Entry(here, match, OTHER, why="a link that leads nowhere")
            return
        if stat.S_ISDIR(facts.st_mode):
            yield Entry(here, match, OTHER, why="a link to a directory")
        else:
            yield _entry(here, match, facts)

    def _names(self, directory: str) -> list[str]:
        try:
            names = os.listdir(text_to_bytes(directory))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            if self._may_read(posixpath.join(directory, "x")):
                raise failed(directory, error) from error
            return []
        except OSError as error:
            raise failed(directory, error) from error
        self._looked_at += len(names)
        if self._looked_at > MAX_LOOKED_AT:
            raise CopyFailed(shorten(directory), f"over {MAX_LOOKED_AT} names were looked at")
        return sorted(map(bytes_to_text, names))

    def _may_read(self, path: str) -> bool:
        return not is_of_a_process(path) and is_path_allowed(path, self._patterns)


def _entry(path: str, match: str, facts: os.stat_result) -> Entry:
    if not stat.S_ISREG(facts.st_mode):
        return Entry(path, match, OTHER, why="no regular file")
    return Entry(
        path,
        match,
        FILE,
        facts.st_size,
        stat.S_IMODE(facts.st_mode),
        facts.st_mtime_ns,
        name_owner(facts),
    )
