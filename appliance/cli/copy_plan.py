"""From what `cp` is told to one job per file: nodes of targets, files of patterns and directories, and where each goes."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from appliance.cli.copy_local import LocalFailed
from appliance.cli.copy_places import (
    Job,
    Place,
    PlacesUnclear,
    is_directory,
    place_inside,
    read_place,
)
from appliance.cli.copy_report import CopyOutcome, CopyState
from appliance.core.copying import COPY_FROM, COPY_TO, Attributes, keep_owner
from appliance.core.listing import DIRECTORY, FILE, MAX_DEPTH, Entry, has_wildcard
from appliance.core.names import is_node_name
from appliance.errors import ApplianceError
from appliance.methods.copies.attributes import name_owner

MAX_JOBS = 200_000
LISTS_AT_ONCE = 8


class NotListed(ApplianceError):
    """A node did not tell which files it has; `is_silent` where it gave no sign of life."""

    def __init__(self, reason: str, *, is_silent: bool) -> None:
        super().__init__(reason)
        self.is_silent = is_silent


class Finder(Protocol):
    """Knows the fleet and what is on it."""

    def nodes(self, targets: str, method: str) -> list[str]:
        """Nodes that are meant. Raises PlacesUnclear."""
        ...

    def files(self, node: str, path: str, *, is_recursive: bool) -> list[Entry]:
        """Files of a node. Raises NotListed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyWishes:
    """What the command line says of all files."""

    is_recursive: bool = False
    preserves: bool = False
    mode: int | None = None
    owner: str = ""


@dataclass(slots=True)
class CopyPlan:
    """`jobs` are to be done; `known` is what came of the rest already. `directories` are made here first."""

    jobs: list[Job] = field(default_factory=list)
    known: list[CopyOutcome] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)


class _Found(NamedTuple):
    """A file to copy: `below` is where it belongs in the target, with the directory of its node where that has one."""

    source: Place
    below: str
    entry: Entry | None = None


class Planner:
    """For one call."""

    def __init__(self, finder: Finder, wishes: CopyWishes) -> None:
        self._finder = finder
        self._wishes = wishes
        self._plan = CopyPlan()
        self._target = Place(None, "")
        self._is_group = False
        """Whether files of several nodes, or a pattern's, come: the directory for them is made."""
        self._is_many = False
        """Whether what is found goes into a directory, however much that is."""

    def plan(self, texts: Sequence[str]) -> CopyPlan:
        """Every file and where it goes.

        Raises:
            PlacesUnclear: the words make no sense; the text says why.
            LocalFailed: the directory to copy into is none.
        """
        *sources, target = [read_place(text) for text in texts]
        if target.node is None and any(source.node is None for source in sources):
            raise PlacesUnclear("both are here: one side is NODE:PATH (cp copies between nodes)")
        self._target = target
        self._is_many = len(sources) > 1
        found = [item for source in sources for item in self._find(source)]
        is_into = is_directory(target)
        if not is_into and self._is_many:
            if target.node is None and len(sources) > 1:
                raise LocalFailed(
                    target.path, f"no directory, and there are {len(sources)} sources"
                )
            is_into = True
        makes = self._is_group or self._wishes.is_recursive
        if target.node is None and is_into and not os.path.isdir(target.path) and not makes:
            raise LocalFailed(target.path, "no such directory")
        targets: list[str | None] = [None]
        if target.node is not None:
            targets = [*self._finder.nodes(target.node, COPY_TO)]
        # a directory that is copied to a name of its own
        renames = not is_into and self._wishes.is_recursive
        for node in targets:
            for item in found:
                self._add(node, item, is_into=is_into, renames=renames)
        self._check_twice()
        return self._plan

    def _add(self, node: str | None, item: _Found, *, is_into: bool, renames: bool) -> None:
        target = Place(node, self._target.path)
        below = item.below
        # the target itself only where its own directory is there: a slip makes no tree
        within = posixpath.dirname(self._target.path.rstrip("/")) or "/"
        is_renamed = renames and "/" in below
        if is_renamed:
            below = below.partition("/")[2]
            is_into = True
        if is_into:
            target = place_inside(target, below)
        entry = item.entry
        if entry is not None and entry.kind == DIRECTORY:
            if node is None:
                self._plan.directories.append(target.path)
            return
        if entry is not None and entry.kind != FILE:
            job = Job(item.source, target)
            self._plan.known.append(CopyOutcome(job, CopyState.SKIPPED, reason=entry.why))
            return
        makes = is_renamed or (is_into and "/" in below)
        if is_into and node is None and (makes or self._is_group):
            self._plan.directories.append(os.path.dirname(target.path))
        if len(self._plan.jobs) >= MAX_JOBS:
            raise PlacesUnclear(f"these are more than {MAX_JOBS} files")
        size = None if entry is None else entry.size
        self._plan.jobs.append(
            Job(
                item.source,
                target,
                self._attributes(entry),
                makes,
                size=size,
                within=within if makes and node is not None else "",
            )
        )

    def _attributes(self, entry: Entry | None) -> Attributes:
        wishes = self._wishes
        if entry is None or not wishes.preserves:
            return Attributes(wishes.mode, wishes.owner)
        mode = entry.mode & 0o777 if wishes.mode is None else wishes.mode
        kept = "" if wishes.owner else keep_owner(entry.owner)
        return Attributes(mode, wishes.owner, entry.modified_ns, kept)

    def _check_twice(self) -> None:
        seen: set[Place] = set()
        for job in self._plan.jobs:
            if job.target in seen:
                raise PlacesUnclear(f"two sources would become {job.target}")
            seen.add(job.target)

    # -- sources ----------------------------------------------------------------------------------

    def _find(self, source: Place) -> Iterator[_Found]:
        if source.node is None:
            yield from self._find_here(source.path)
            return
        nodes = self._finder.nodes(source.node, COPY_FROM)
        is_group = not is_node_name(source.node) or len(nodes) > 1
        self._is_group |= is_group or has_wildcard(source.path)
        self._is_many |= self._is_group
        wishes = self._wishes
        if not (has_wildcard(source.path) or wishes.is_recursive or wishes.preserves):
            name = _name_of(source.path, source)
            for node in nodes:
                yield _Found(
                    Place(node, source.path), posixpath.join(node, name) if is_group else name
                )
            return
        with ThreadPoolExecutor(LISTS_AT_ONCE) as pool:
            answers = pool.map(lambda node: self._list(Place(node, source.path)), nodes)
            for node, entries in zip(nodes, answers, strict=True):
                for entry in entries:
                    below = posixpath.join(node, entry.below) if is_group else entry.below
                    if entry.kind == DIRECTORY and not wishes.is_recursive:
                        self._skip(Place(node, entry.path), "it is a directory (-r copies it)")
                    else:
                        yield _Found(Place(node, entry.path), below, entry)

    def _list(self, place: Place) -> list[Entry]:
        assert place.node is not None
        try:
            return self._finder.files(
                place.node, place.path, is_recursive=self._wishes.is_recursive
            )
        except NotListed as error:
            outcome = CopyOutcome(Job(place, self._target), reason=str(error))
            outcome.state = CopyState.SILENT if error.is_silent else CopyState.FAILED
            self._plan.known.append(outcome)
            return []

    def _skip(self, source: Place, why: str) -> None:
        job = Job(source, self._target)
        self._plan.known.append(CopyOutcome(job, CopyState.FAILED, reason=f"{source}: {why}"))

    def _find_here(self, path: str) -> Iterator[_Found]:
        wishes = self._wishes
        name = os.path.basename(os.path.normpath(path))
        if not wishes.is_recursive or not os.path.isdir(path):
            place = Place(None, path)
            entry = _entry_of(path, path) if wishes.preserves else None
            yield _Found(place, _name_of(path, place), entry)
            return
        if name in ("", ".", ".."):
            name = os.path.basename(os.path.realpath(path))
        root = os.path.realpath(path)
        yield from self._below(path, name, root, 0)

    def _below(self, directory: str, below: str, root: str, depth: int) -> Iterator[_Found]:
        if depth > MAX_DEPTH:
            raise LocalFailed(directory, f"more than {MAX_DEPTH} directories deep")
        try:
            names = sorted(os.listdir(directory))
        except OSError as error:
            self._skip(Place(None, directory), (error.strerror or str(error)).lower())
            return
        for name in names:
            path, there = os.path.join(directory, name), posixpath.join(below, name)
            if os.path.isdir(path) and not os.path.islink(path):
                yield from self._below(path, there, root, depth + 1)
                continue
            why = _why_not(path, root)
            entry = _entry_of(path, path) if why is None else Entry(path, path, "other", why=why)
            yield _Found(Place(None, path), there, entry)


def _why_not(path: str, root: str) -> str | None:
    """Why something below a directory here is not copied; a link is the file that it leads to within."""
    if os.path.islink(path):
        real = os.path.realpath(path)
        if not os.path.exists(real):
            return "a link that leads nowhere"
        if os.path.isdir(real):
            return "a link to a directory"
        if not real.startswith(root.rstrip("/") + "/"):
            return "a link that leads out of what is copied"
    return None if os.path.isfile(path) else "no regular file"


def _entry_of(path: str, match: str) -> Entry | None:
    """Facts of a file here; None where there is none, which is told when it is copied."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    mode, owner = stat.S_IMODE(facts.st_mode), name_owner(facts)
    return Entry(path, match, FILE, facts.st_size, mode, facts.st_mtime_ns, owner)


def _name_of(path: str, place: Place) -> str:
    name = os.path.basename(path) if place.node is None else posixpath.basename(path)
    if not name or name in (".", ".."):
        raise PlacesUnclear(f"{place} is a directory (-r copies it)")
    return name


def make_directories(paths: Sequence[str], target: str) -> None:
    """Those that are to be here. Raises LocalFailed."""
    if not paths:
        return
    for path in sorted(set(paths)):
        try:
            # the target itself only where its own directory is there: a slip makes no tree
            if not os.path.isdir(target):
                os.mkdir(target)
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise LocalFailed(path, (error.strerror or str(error)).lower()) from error
