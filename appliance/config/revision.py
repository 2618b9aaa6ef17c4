"""Which git commit a path's work tree stands at, read from the repository's files; no git binary is run.

Covers an ordinary clone, linked work trees and submodules (`.git` is a file), git-sync's layout (a symbolic link into
a work tree), detached heads, loose and packed references. What it does not understand (an unborn branch, the
reftable format, damage) is "no revision": this only labels a configuration, nothing is decided by it.

Whether the config's files are as the commit has them is told by `config.git`, which reads packed objects; here `dirty` is
None, which is neither clean nor edited.

Source: gitrepository-layout(5), git-worktree(1).
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

_MAX_LEVELS = 64
"""Directories looked at between the path and the root."""

_MAX_SYMBOLIC_STEPS = 5
"""As git: a reference that points on for longer is a loop."""

_MAX_SMALL_BYTES = 4096
_MAX_PACKED_BYTES = 32 * 1024 * 1024
"""A packed-refs file of some 400,000 references."""

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?").fullmatch
_REF = re.compile(r"refs(?:/[^/\x00-\x20\x7f~^:?*\[\\]+)+").fullmatch
_BRANCH_PREFIX = "refs/heads/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """Where a work tree stands. `branch` is None on a detached head; `dirty` and `author` are None for "not known"."""

    commit: str
    branch: str | None = None
    dirty: bool | None = None
    author: str | None = None
    """Who made the commit, and whose key signed it."""


class SignedCommit(msgspec.Struct, frozen=True):
    """A commit by an allowed key; `committed_at` is what it says of its own time, and stands below the signature.

    None where that is not known: an earlier version has not kept it.
    """

    commit: str
    committed_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Repository:
    """`git_dir` holds HEAD of this work tree, `common_dir` the references it shares with others."""

    git_dir: Path
    common_dir: Path


def read_revision(path: Path | str) -> Revision | None:
    """The revision of the work tree that holds `path`; None where there is none or it cannot be told."""
    try:
        repository = _find_repository(Path(os.path.realpath(path)))
        return None if repository is None else _read_head(repository)
    except (OSError, ValueError):
        return None


def _find_repository(start: Path) -> _Repository | None:
    for directory in (start, *start.parents)[:_MAX_LEVELS]:
        entry = directory / ".git"
        git_dir: Path | None = None
        if entry.is_dir():
            git_dir = entry
        elif entry.is_file():
            word, _, target = _read_small(entry).partition(":")
            if word == "gitdir" and target.strip():
                git_dir = directory / target.strip()
        if git_dir is not None and (git_dir / "HEAD").exists():
            return _Repository(git_dir, _find_common_dir(git_dir))
    return None


def _find_common_dir(git_dir: Path) -> Path:
    pointer = git_dir / "commondir"
    return git_dir / _read_small(pointer).strip() if pointer.is_file() else git_dir


def _read_head(repository: _Repository) -> Revision | None:
    head = repository.git_dir / "HEAD"
    # Very old repositories have a symbolic link instead of "ref: …".
    text = f"ref: {os.readlink(head)}" if head.is_symlink() else _read_small(head)
    branch: str | None = None
    for _ in range(_MAX_SYMBOLIC_STEPS):
        text = text.strip()
        if _COMMIT(text):
            return Revision(commit=text, branch=branch)
        name = text.removeprefix("ref:").strip()
        if name == text or not _is_safe_ref(name):
            return None
        if name.startswith(_BRANCH_PREFIX):
            branch = name.removeprefix(_BRANCH_PREFIX)
        found = _read_ref(repository, name)
        if found is None:
            return None
        text = found
    return None


def _is_safe_ref(name: str) -> bool:
    return _REF(name) is not None and not any(part in {".", ".."} for part in name.split("/"))


def _read_ref(repository: _Repository, name: str) -> str | None:
    """The content of a reference: loose ones win over packed ones, those of the work tree over shared ones."""
    for directory in (repository.git_dir, repository.common_dir):
        try:
            return _read_small(directory / name)
        except OSError:
            continue
    suffix = f" {name}"
    for line in _read_bounded(repository.common_dir / "packed-refs", _MAX_PACKED_BYTES).split("\n"):
        if line.endswith(suffix) and line[0] not in "#^":
            return line.removesuffix(suffix)
    return None


def _read_small(path: Path) -> str:
    return _read_bounded(path, _MAX_SMALL_BYTES)


def _read_bounded(path: Path, limit_bytes: int) -> str:
    """Text of a regular file.

    Raises:
        OSError: it cannot be read or is no regular file.
        ValueError: it is larger than `limit_bytes`.
    """
    # Without O_NONBLOCK a named pipe in the place of a file would hold us for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file")
        raw = file.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        raise ValueError(f"{path} exceeds {limit_bytes} bytes")
    return raw.decode("utf-8", "surrogateescape")
