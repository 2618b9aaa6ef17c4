"""Which files a node has at a place: what REQCopyFileList answers, a line of JSON for each. Pure.

A name that is not UTF-8 is written as JSON escapes of its bytes (``\\udc80``…), as Python has them in texts.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

from appliance.errors import ArgumentsInvalid

COPY_LIST = "REQCopyFileList"
RECURSIVE = "recursive"
"""An argument of it: what is below directories, too."""
MAX_ENTRIES = 100_000
"""Of one answer; more is refused, for a half list looks like a whole one."""
MAX_DEPTH = 64
FILE, DIRECTORY, OTHER = "file", "directory", "other"
WILDCARDS = frozenset("*?[")
_KINDS = frozenset({FILE, DIRECTORY, OTHER})
_MAX_LINE_CHARACTERS = 40_000


class Entry(NamedTuple):
    """One thing there. `match` is the path, of those that were asked for, that it is or lies below; `why` says of `other`
    what it is.
    """

    path: str
    match: str
    kind: str
    size: int = 0
    mode: int = 0
    modified_ns: int = 0
    owner: str = ""
    why: str = ""

    @property
    def below(self) -> str:
        """Its path from the directory in which the match stands."""
        return posixpath.relpath(self.path, posixpath.dirname(self.match))


def has_wildcard(path: str) -> bool:
    """Whether a path is a pattern of several."""
    return not WILDCARDS.isdisjoint(path)


def write_entry(entry: Entry) -> bytes:
    """Its line."""
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def read_entries(text: bytes) -> list[Entry]:
    """The lines of an answer.

    Raises:
        ValueError: it is none of ours, or names what lies elsewhere than was asked for.
    """
    lines = text.split(b"\n")
    if lines.pop() or len(lines) > MAX_ENTRIES:
        raise ValueError("the list is not complete")
    return [_read_entry(line) for line in lines]


def _read_entry(line: bytes) -> Entry:
    if len(line) > _MAX_LINE_CHARACTERS:
        raise ValueError("a line of the list is too long")
    found = json.loads(line)
    if not isinstance(found, list) or len(found) != len(Entry._fields):
        raise ValueError("a line of the list is none")
    entry = Entry._make(found)
    for value, kind in zip(found, (str, str, str, int, int, int, str, str), strict=True):
        if type(value) is not kind:
            raise ValueError("a line of the list holds something else")
    if entry.kind not in _KINDS or not 0 <= entry.size < 2**63 or not 0 <= entry.mode <= 0o7777:
        raise ValueError("a line of the list says nothing that can be")
    # the names become names of files here: none may lead out of where they are put
    for path in (entry.path, entry.match):
        if not path.startswith("/") or "\0" in path or path != posixpath.normpath(path):
            raise ValueError("the list holds a path that is none")
    if entry.path != entry.match and not entry.path.startswith(entry.match.rstrip("/") + "/"):
        raise ValueError("the list holds a path that was not asked for")
    return entry


def read_arguments(arguments: Sequence[str]) -> tuple[str, bool]:
    """The path, and whether what is below it is meant as well.

    Raises:
        ArgumentsInvalid: no absolute path, or something unknown beside it.
    """
    if not arguments or not arguments[0].startswith("/") or "\0" in arguments[0]:
        raise ArgumentsInvalid("methodArgs must hold an absolute path")
    if ".." in arguments[0].split("/"):
        raise ArgumentsInvalid("the path must be without `..`")
    if any(word != RECURSIVE for word in arguments[1:]):
        raise ArgumentsInvalid(f"beside the path only `{RECURSIVE}` may be given")
    return arguments[0], RECURSIVE in arguments[1:]
