"""What `cp` is told to copy: paths here and `node:path` there, told apart as scp does. Looks at the disk, writes nothing."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

from appliance.cli.copy_local import LocalFailed
from appliance.core.names import is_node_name


class PlacesUnclear(ValueError):
    """The words make no sense; the text says why."""


class Place(NamedTuple):
    """A file or directory: at `node`, or here where that is None."""

    node: str | None
    path: str

    def __str__(self) -> str:
        return self.path if self.node is None else f"{self.node}:{self.path}"


class Job(NamedTuple):
    """One file to copy."""

    source: Place
    target: Place


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
    if not is_node_name(head):
        raise PlacesUnclear(f"{head!r} is no node name (a file here: write ./{text})")
    if not path.startswith("/"):
        raise PlacesUnclear(
            f"{text}: the path at a node is absolute, as in {head}:/{path or 'path'}"
        )
    if "\0" in path or ".." in path.split("/"):
        raise PlacesUnclear(f"{text}: write the path without `..`")
    return Place(head, path)


def plan_copies(texts: Sequence[str]) -> list[Job]:
    """One job per source; the last text is where they go.

    Raises:
        PlacesUnclear: with the reason.
        LocalFailed: the directory to copy into is none.
    """
    *sources, target = [read_place(text) for text in texts]
    is_directory = _is_directory(target)
    if len(sources) > 1 and not is_directory:
        if target.node is not None:
            target = Place(target.node, target.path + "/")
        else:
            raise LocalFailed(target.path, f"no directory, and there are {len(sources)} sources")
    jobs = [Job(source, _inside(target, source)) for source in sources]
    for job in jobs:
        if job.source.node is None and job.target.node is None:
            raise PlacesUnclear("both are here: one side is NODE:PATH (cp copies between nodes)")
    names = [str(job.target) for job in jobs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PlacesUnclear(f"two sources would become {twice}")
    return jobs


def _is_directory(place: Place) -> bool:
    if place.node is None:
        return place.path.endswith("/") or os.path.isdir(place.path)
    return place.path.endswith("/")


def _inside(target: Place, source: Place) -> Place:
    """Where one source goes."""
    name = (os.path if source.node is None else posixpath).basename(source.path)
    if not name or name in (".", ".."):
        raise PlacesUnclear(f"{source} is a directory: regular files are copied")
    if target.node is not None:
        if not target.path.endswith("/"):
            return target
        return Place(target.node, posixpath.join(target.path, name))
    if not _is_directory(target):
        return target
    if not os.path.isdir(target.path):
        raise LocalFailed(target.path, "no such directory")
    return Place(None, os.path.join(target.path, name))
