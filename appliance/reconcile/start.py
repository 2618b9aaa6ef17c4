"""The set that a daemon starts with: a start promises what a reload promises.

What the files hold is compared with the last set that was in force here, and takes the same way into force. Where it is
refused or cannot be read, the last good set starts instead, and says so; a pinned set starts whatever the files hold.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from appliance.config.revision import SignedCommit
from appliance.core.plan import apply_to_model, find_restart_fields, make_plan
from appliance.core.problems import Problem
from appliance.core.specs import DesiredState, ObservedState, StartFallback
from appliance.core.times import rfc3339, say_moment
from appliance.errors import ConfigError, ConfigUnreadable
from appliance.reconcile.disk import LOAD_TIMEOUT_S, READ_TIMEOUT_S
from appliance.reconcile.history import History, Record
from appliance.reconcile.kept_files import KeptFile, Pin, SignedCommits
from appliance.reconcile.reload_result import LoadedSet, find_problems_of, lost_pin_note
from appliance.reconcile.source import FileConfigSource

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a daemon is started with."""

    first: LoadedSet
    """To be brought into force: what the files hold, or else a set that was in force before."""
    last_good: LoadedSet | None = None
    """The last set that was in force, where that is another one and can still be used."""
    problems: tuple[Problem, ...] = ()
    """Why `first` is not what the files hold."""
    attempted: Mapping[str, str] | None = None
    """The files that were refused."""
    pin: Pin | None = None
    files_digest: str = ""

    @property
    def built(self) -> DesiredState:
        """What the parts of the daemon are built for, before anything is brought into force."""
        if self.last_good is None:
            return self.first.desired
        old, new = self.last_good.desired, self.first.desired
        if not find_restart_fields(old, new):
            return old
        # NB: what only a restart can change changes here
        return replace(old, broker=new.broker, state=new.state)

    @property
    def filled(self) -> frozenset[str]:
        """Names of the files that held something of the last good set."""
        return frozenset() if self.last_good is None else self.last_good.filled

    @property
    def observed(self) -> ObservedState | None:
        """The workers that ran with the last good set."""
        if self.last_good is None:
            return None
        return apply_to_model(make_plan(self.last_good.desired.workers, {}, 0.0), {})


def find_start(
    source: FileConfigSource,
    history: History,
    pins: KeptFile[Pin],
    commits: SignedCommits,
    *,
    path: str,
) -> Start:
    """Decide what to start with. Blocks.

    Raises:
        ConfigError: the files cannot be used, and no set was in force here before.
    """
    # first, as a pinned set starts even where the files cannot be read
    pin = pins.load()
    try:
        files_digest = _ask(source.fingerprint, path, READ_TIMEOUT_S)
        is_answering = True
    except ConfigUnreadable:
        files_digest, is_answering = "", False
    damage = "" if pin is not None else pins.find_damage()
    lost = (lost_pin_note(damage),) if damage else ()
    # files that do not answer may still be those that it was pinned against
    if pin is not None and files_digest in ("", pin.files_digest):
        pinned = _load_kept(source, history, pin.digest)
        if pinned is not None:
            labelled = replace(pinned, revision=pin.revision, branch=pin.branch, dirty=pin.dirty)
            return Start(first=labelled, pin=pin, files_digest=pin.files_digest)
        # NB: what somebody took back comes into force by that, and must not do so without a word
        lost = (lost_pin_note(_explain_kept(source, history, pin.digest, pin.at)),)
    last = history.last_applied() or {}
    last_digest = str(last.get("digest") or "")
    last_good: LoadedSet | None = None
    if last_digest != files_digest:
        # where the files hold it anyway it is not compiled twice
        last_good = _load_kept(source, history, last_digest)
    if last_good is not None:
        # whose signature a commit needs is not for the commit to say
        source.trust(last_good.desired)
        if last_good.desired.start.fallback is StartFallback.NONE:
            last_good = None
    newest = commits.load() or _commit_of(last)
    source.compare_with(lambda: newest)
    try:
        if not is_answering:
            raise _no_answer(path)
        found = _ask(source.load, path, LOAD_TIMEOUT_S)
    except ConfigError as error:
        # the files may hold the last good set itself and be refused for what lies outside, a signature say
        good = last_good or _load_kept(source, history, last_digest)
        if good is None or good.desired.start.fallback is StartFallback.NONE:
            if last_digest:
                error.add_note(_explain_no_fallback(source, history, last, good))
            raise
        return Start(
            first=good,
            problems=(*find_problems_of(error), *lost),
            attempted=_read_texts(source, path) if is_answering else {},
            files_digest=files_digest,
        )
    if found.digest == last_digest:
        # they have become the last good ones between fingerprint and load
        last_good = None
        # an older commit that says the same puts nothing back
        found = replace(found, older_than=None, signed=None) if found.older_than else found
    if lost:
        found = replace(found, warnings=(*lost, *found.warnings))
    return Start(first=found, last_good=last_good, files_digest=found.digest)


def _explain_no_fallback(
    source: FileConfigSource, history: History, last: Record, good: LoadedSet | None
) -> str:
    """Why the last set that was in force does not start instead."""
    digest = str(last.get("digest") or "")
    at = last.get("at")
    if good is not None:
        name = f"the last good set ({_say_set(digest, at)})"
        return f"{name} does not start instead: it says `start: {{fallback: none}}`"
    return f"the last good set {_explain_kept(source, history, digest, at)}"


def _explain_kept(source: FileConfigSource, history: History, digest: str, at: object) -> str:
    """Which set that was in force before cannot start, and why."""
    name = f"({_say_set(digest, at)})"
    files = history.files_of(digest)
    if files is None:
        return f"{name} cannot start instead: its files are not in the history any more"
    try:
        source.load_kept(files, digest, history.revision_of(digest))
    except ConfigError as error:
        return f"{name} cannot start instead: {error}"
    return f"{name} starts with the next try"  # it could not be read a moment ago


def _say_set(digest: str, at: object) -> str:
    since = f", of {say_moment(rfc3339(at))}" if isinstance(at, int | float) else ""
    return f"{digest.removeprefix('sha256:')[:8]}{since}"


def _commit_of(last: Mapping[str, object]) -> SignedCommit | None:
    """Of the last set in force, where an earlier version has kept no more."""
    revision = last.get("revision")
    return SignedCommit(revision) if isinstance(revision, str) and revision else None


def _load_kept(source: FileConfigSource, history: History, digest: str) -> LoadedSet | None:
    files = history.files_of(digest) if digest else None
    if files is None:
        return None
    try:
        return source.load_kept(files, digest, history.revision_of(digest))
    except ConfigError:
        return None  # made for another version, or without the variables it needs


def _read_texts(source: FileConfigSource, path: str) -> dict[str, str]:
    """What was refused, for the record; nothing where the disk that just answered does not any more."""
    try:
        return _ask(source.texts, path, READ_TIMEOUT_S)
    except ConfigUnreadable:
        return {}


def _no_answer(path: str) -> ConfigUnreadable:
    return ConfigUnreadable(path, "the file system does not answer")


def _ask(function: Callable[[], T], path: str, timeout_s: float) -> T:
    """Call it in a thread: a file system that hangs must not keep the daemon from starting."""
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((function(), None))
        except BaseException as error:  # noqa: BLE001 - the boundary: the thread hands everything on
            answers.put((None, error))

    threading.Thread(target=run, name="config files", daemon=True).start()
    try:
        result, error = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise _no_answer(path) from None
    if error is not None:
        raise error
    answer: T = result
    return answer
