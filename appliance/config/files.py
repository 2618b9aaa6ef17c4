"""Which files a config consists of, and their bytes.

A path is a file, or a directory of which every ``*.yaml`` and ``*.yml`` below counts, in lexical
order. Names that begin with a dot are left out, directories too: editors keep their swap files so,
Git its store, and Kubernetes the generations of a mounted ConfigMap, whose ``..data`` link the
visible names lead through.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from appliance.config.positions import Place, make_problem
from appliance.core.problems import Problem
from appliance.errors import ConfigUnreadable

MAX_TOTAL_BYTES = 8 * 1024**2
MAX_ENTRIES = 100_000
"""Files and directories looked at below one path: a wrong one may be the root of a disk."""
_MAX_DEPTH = 32
_SUFFIXES = (".yaml", ".yml")
_NEARLY = (*_SUFFIXES, ".yaml.txt", ".yml.txt")
"""In any case, and with blanks behind it: what some systems and editors make of such a name."""


@dataclass(slots=True)
class FileSet:
    """Contents by the name to show, in reading order. `digest` tells two sets apart."""

    contents: dict[str, bytes] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    digest: str = ""
    overlooked: list[str] = field(default_factory=list)
    """Files whose names are nearly those of a config."""


def read_files(paths: Sequence[str | os.PathLike[str]]) -> FileSet:
    """Read every file of a config.

    Raises:
        ConfigUnreadable: a path given does not exist or may not be read.
    """
    found = FileSet()
    hasher = hashlib.sha256()
    seen: set[str] = set()
    total_bytes = 0
    for path in [os.fspath(path) for path in paths]:
        names = []
        for name, relative in _find_files(path):
            # a file that is named is read, whatever its name
            if name == path or name.endswith(_SUFFIXES) or os.path.isdir(name):
                names.append((name, relative))
            else:
                found.overlooked.append(name)
        if not names:
            found.problems.append(
                make_problem(
                    "E002",
                    Place(path, 0, 0, 1),
                    "no *.yaml or *.yml file is below this directory",
                    hint="files whose name begins with a dot do not count",
                )
            )
        for name, relative in names:
            real = os.path.realpath(name)
            # named twice, or reached through a link: its settings would stand twice
            if real in seen:
                continue
            seen.add(real)
            try:
                raw = _read(name, MAX_TOTAL_BYTES - total_bytes)
            except OSError as error:
                # a path that was named must be there; a file below it may have gone this moment
                if name == path:
                    raise ConfigUnreadable(path, _reason(error)) from error
                found.problems.append(_unreadable(name, _reason(error)))
                continue
            if raw is None:
                found.problems.append(
                    make_problem(
                        "E003",
                        Place(name, 1, 1, 1),
                        f"the config exceeds {MAX_TOTAL_BYTES // 1024**2} MB with this file",
                    )
                )
                found.digest = f"sha256:{hasher.hexdigest()}"
                return found
            total_bytes += len(raw)
            found.contents[name] = raw
            # names as well, from the path on: a renamed file makes another set, a tree that was moved does not
            hasher.update(relative.encode("utf-8", "surrogateescape") + b"\0")
            hasher.update(hashlib.sha256(raw).digest())
    found.digest = f"sha256:{hasher.hexdigest()}"
    return found


def fingerprint(paths: Sequence[str | os.PathLike[str]]) -> str:
    """The digest of the files as they are now, without parsing them.

    Raises:
        ConfigUnreadable: a path given does not exist or may not be read.
    """
    return read_files(paths).digest


def _find_files(path: str) -> Iterator[tuple[str, str]]:
    """Names to show, and names that go into the digest; among them those that are nearly such names."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise ConfigUnreadable(path, _reason(error)) from error
    if not stat.S_ISDIR(status.st_mode):
        yield path, os.path.basename(path)
        return
    left = iter(range(MAX_ENTRIES))
    for relative in sorted(_walk(path, "", frozenset({os.path.realpath(path)}), left)):
        yield os.path.join(path, relative), relative


def _walk(root: str, below: str, above: frozenset[str], left: Iterator[int]) -> Iterator[str]:
    """Relative names of the files below a directory, and of directories that cannot be entered.

    Links are followed, but never in a circle.

    Raises:
        ConfigUnreadable: the root itself cannot be entered, or too much is below it.
    """
    try:
        with os.scandir(os.path.join(root, below)) as entries:
            listed = sorted(
                # a directory may hold more than memory does
                (entry for entry in entries if next(left, None) is not None or _give_up(root)),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        if not below:
            raise ConfigUnreadable(root, _reason(error)) from error
        yield below  # reading it as a file tells why, and where
        return
    for entry in listed:
        if entry.name.startswith((".", "#")):
            continue
        relative = os.path.join(below, entry.name)
        if _is_directory(entry):
            real = os.path.realpath(entry.path)
            if real not in above and len(above) < _MAX_DEPTH:
                yield from _walk(root, relative, above | {real}, left)
        elif entry.name.strip().lower().endswith(_NEARLY):
            yield relative


def _give_up(root: str) -> bool:
    raise ConfigUnreadable(
        root, f"more than {MAX_ENTRIES} files and directories are below it: it is no config"
    )


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that goes in a circle: told where it is named as a config file


def _read(name: str, limit_bytes: int) -> bytes | None:
    """The content; None when it is larger than the limit."""
    # NB: opened without waiting, since a pipe with nobody at the other end would hold us for ever.
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        raw = file.read(limit_bytes + 1)
    return raw if len(raw) <= limit_bytes else None


def _unreadable(name: str, reason: str) -> Problem:
    return make_problem("E001", Place(name, 0, 0, 1), f"cannot be read: {reason}")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).lower()
