"""Hints that the configuration may have changed. Never the truth: the reconciler polls the content's digest anyway.

Directories are watched, never files: a watch on a file stays with the inode, and editors, package managers and
Kubernetes replace files by renaming. For a path that is reached through symbolic links, every directory that holds
one of the links is watched too, as that is where git-sync and ConfigMaps swap whole trees. A directory that is
deleted and made again, or mounted over, silences its watch without an error; so the watch is set up anew when a
watched directory or link itself changes, when the identity of what is watched differs (compared every second), and
every minute in any case.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import watchfiles

_log = logging.getLogger(__name__)

_STEP_MS = 20
"""A hint comes one to two of these after the change."""

_DEBOUNCE_MS = 100
"""A storm of changes gives a hint at least this often."""

_REARM_EVERY_MS = 1000
"""How often the identity of the watched directories is compared."""

_REARM_AT_LEAST_S = 60.0
"""A directory made again may get the inode of the old one; should its event be missed too, this ends the silence."""

_RETRY_S = 1.0
"""Pause after the operating system refused a watch (limits, races)."""

_MAX_DIRECTORIES = 2000
"""Of a tree of configuration; the poll sees what lies beyond."""

_MAX_LINKS = 40
"""As the kernel: a path through more symbolic links is a loop."""

_SUFFIXES = (".yaml", ".yml")

Identities = dict[str, tuple[int, int]]


class _Watched:
    """What is to be watched for `paths` at one moment."""

    def __init__(self, paths: Iterable[Path | str]) -> None:
        self.identities: Identities = {}
        """Every watched directory with device and inode."""
        self.trees: set[str] = set()
        """Directories whose configuration files count."""
        self.names: set[str] = set()
        """Single files, links and directories that count wherever they lie."""
        for path in paths:
            self._add_path(os.path.abspath(path))

    def is_relevant(self, changed: str) -> bool:
        """Whether a change of this path may change the configuration."""
        if changed in self.names or changed in self.identities:
            return changed in self.names or changed in self.trees
        directory, name = os.path.split(changed)
        if directory not in self.trees:
            return False
        return name.endswith(_SUFFIXES) or name == "..data" or os.path.isdir(changed)

    def is_itself(self, changed: str) -> bool:
        """Whether this is one of the watched directories or links, so that what is watched may be another thing now."""
        return changed in self.identities or (changed in self.names and os.path.islink(changed))

    def _add_path(self, path: str) -> None:
        self._add_links(path)
        real = os.path.realpath(path)
        for each in {path, real}:
            self._add_entry(each)
        if os.path.isdir(real):
            self._add_tree(path)
            if real != path:
                self._add_tree(real)

    def _add_links(self, path: str) -> None:
        """Watch the directory of every symbolic link that stands on the way to `path`."""
        pending = [part for part in path.split("/") if part]
        done = "/"
        followed = 0
        while pending:
            done = os.path.join(done, pending.pop(0))
            if not os.path.islink(done):
                continue
            followed += 1
            if followed > _MAX_LINKS:
                return
            self.names.add(done)
            self._add_directory(os.path.dirname(done))
            with suppress(OSError):
                target = os.path.normpath(os.path.join(os.path.dirname(done), os.readlink(done)))
                pending[:0] = [part for part in target.split("/") if part]
                done = "/"

    def _add_tree(self, root: str) -> None:
        for directory, below, files in os.walk(root):
            if len(self.identities) >= _MAX_DIRECTORIES:
                return
            below[:] = [name for name in below if not name.startswith(".")]
            self.trees.add(directory)
            self.names.add(directory)
            self._add_directory(directory)
            for name in files:
                full = os.path.join(directory, name)
                if name.endswith(_SUFFIXES) and os.path.islink(full):
                    self._add_path_of_link(full)

    def _add_path_of_link(self, link: str) -> None:
        self._add_links(link)
        self._add_entry(os.path.realpath(link))

    def _add_entry(self, path: str) -> None:
        """Watch the directory that holds `path`, or would: the nearest one that exists."""
        self.names.add(path)
        directory = os.path.dirname(path)
        while not os.path.isdir(directory):
            self.names.add(directory)
            directory = os.path.dirname(directory)
        self._add_directory(directory)

    def _add_directory(self, directory: str) -> None:
        with suppress(OSError):
            found = os.stat(directory)
            self.identities[directory] = (found.st_dev, found.st_ino)


async def watch_paths(
    paths: Iterable[Path | str], *, on_hint: Callable[[], None], stop: asyncio.Event
) -> None:
    """Call `on_hint` soon after something at or below `paths` may have changed, until `stop` is set.

    Survives missing paths, directories that come and go, and refusals of the operating system.

    Cancellation: the watch ends; a thread of the library ends within some 20 ms.
    """
    targets = tuple(paths)
    is_first = True
    while not stop.is_set():
        watched = await asyncio.to_thread(_Watched, targets)
        if not is_first:
            # What changed while nobody watched gave no event. NB: the library sets its watches up before it gives the
            # loop its first turn, so this hint comes after them and no gap is left.
            asyncio.get_running_loop().call_soon(on_hint)
        is_first = False
        try:
            await _watch_until_changed(targets, watched, on_hint, stop)
        except Exception as error:  # noqa: BLE001 - the boundary around a library whose own errors come in groups
            # a limit of the system, a directory gone this moment, a name that is no UTF-8; the poll sees what it misses
            _log.debug("watching the configuration: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_S):
                    await stop.wait()


async def _watch_until_changed(
    targets: tuple[Path | str, ...],
    watched: _Watched,
    on_hint: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Watch until the set of directories is another one."""
    loop = asyncio.get_running_loop()
    rearm_mono = loop.time() + _REARM_AT_LEAST_S
    async for changes in watchfiles.awatch(
        *watched.identities,
        watch_filter=None,
        debounce=_DEBOUNCE_MS,
        step=_STEP_MS,
        stop_event=stop,
        rust_timeout=_REARM_EVERY_MS,
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    ):
        if any(watched.is_relevant(path) for _, path in changes):
            on_hint()
        if loop.time() >= rearm_mono or any(watched.is_itself(path) for _, path in changes):
            return
        now = await asyncio.to_thread(_Watched, targets)
        if now.identities != watched.identities or now.names != watched.names:
            return


# Hints that something in one folder may have changed. Never the truth: its user looks anyway, by and by.


async def watch_folder(path: str, *, on_hint: Callable[[], None], stop: asyncio.Event) -> None:
    """Call `on_hint` soon after an entry of the folder changed, until `stop` is set.

    Cancellation: the watch ends; a thread of the library ends within some 20 ms.
    """
    while not stop.is_set():
        try:
            await _watch_for_a_while(path, on_hint, stop)
        except Exception as error:  # noqa: BLE001 - the boundary around a library whose own errors come in groups
            # a limit of the system, a folder that is gone, a name that is no UTF-8; its user looks anyway
            _log.debug("watching %s: %s", path, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_S):
                    await stop.wait()


async def _watch_for_a_while(path: str, on_hint: Callable[[], None], stop: asyncio.Event) -> None:
    async for changes in watchfiles.awatch(
        path,
        watch_filter=None,
        debounce=_DEBOUNCE_MS,
        step=_STEP_MS,
        stop_event=stop,
        rust_timeout=int(_REARM_AT_LEAST_S * 1000),
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    ):
        if not changes:
            return
        on_hint()
