"""What `cp` is told to copy: paths here and `node:path` there, told apart as scp does. Looks at the disk, writes nothing."""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple

from appliance.core.copying import NO_ATTRIBUTES, Attributes
from appliance.core.names import is_node_name
from appliance.core.targets import read_targets
from appliance.errors import TargetsUnclear

_TARGET_MARKS = frozenset("*?@=!,")


class PlacesUnclear(ValueError):
    """The words make no sense; the text says why."""


class Place(NamedTuple):
    """A file or directory: at `node`, or here where that is None. Of what was typed, `node` may be targets of several."""

    node: str | None
    path: str

    def __str__(self) -> str:
        return self.path if self.node is None else f"{self.node}:{self.path}"


class Job(NamedTuple):
    """One file to copy."""

    source: Place
    target: Place
    attributes: Attributes = NO_ATTRIBUTES
    makes_directories: bool = False
    """It lies below a directory that is copied: those on the way to it are made."""
    within: str = ""
    """Of these only those below this one, at a node."""
    size: int | None = None
    """Where that is known before it is copied."""


def read_place(text: str) -> Place:
    """A colon before the first slash makes it remote.

    Raises:
        PlacesUnclear: it is no node's name, or no absolute path.
    """
    head, colon, path = text.partition(":")
    if not colon or "/" in head or not head:
        if not text:
            raise PlacesUnclear("an empty path names no file")
        return Place(None, text)
    if not is_node_name(head) and not _are_targets(head):
        raise PlacesUnclear(f"{head!r} is no node name (a file here: write ./{text})")
    if not path.startswith("/"):
        raise PlacesUnclear(
            f"{text}: the path at a node is absolute, as in {head}:/{path or 'path'}"
        )
    if "\0" in path or ".." in path.split("/"):
        raise PlacesUnclear(f"{text}: write the path without `..`")
    return Place(head, path)


def _are_targets(text: str) -> bool:
    """Whether words before a colon mean nodes: a list, a pattern, a role, a label."""
    if not _TARGET_MARKS & set(text):
        return False
    try:
        read_targets([text])
    except TargetsUnclear as error:
        raise PlacesUnclear(str(error)) from None
    return True


def is_directory(place: Place) -> bool:
    """Whether a target is one to copy into."""
    if place.node is None:
        return place.path.endswith("/") or os.path.isdir(place.path)
    return place.path.endswith("/")


def place_inside(target: Place, below: str) -> Place:
    """Where something goes in a directory."""
    join = os.path.join if target.node is None else posixpath.join
    return Place(target.node, join(target.path, below))
