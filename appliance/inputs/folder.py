"""The read folder: files are claimed, injected, and put away with their answers.

What is promised. A file is accepted once: the mark of its claim is committed together with its
messages, so a daemon that was killed at any moment asks its store after the restart whether they
are there. That holds for `state.dedupe_window` after the claim; a claim that is found later, which
nobody can judge any more, is put into `failed` with words that say so. Neither loses a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from appliance.api.requests import Once
from appliance.config.watch import watch_folder
from appliance.core.current import Current
from appliance.core.escape import escape_line
from appliance.core.specs import DesiredState, FolderInput, InputSettings
from appliance.errors import DaemonError, StoreError, say_os_error
from appliance.inputs.claims import DONE, FAILED, Claim, FolderFiles, Stamp, UnfitFile
from appliance.inputs.importer import Answer, Importer, Outcome, refuse
from appliance.inputs.notes import Note

_log = logging.getLogger(__name__)

SOURCE = "inputs.folder"
STOP_GRACE_S = 5.0
SWEEP_EVERY_S = 60.0

OnTrouble = Callable[[str | None], None]
"""Told why the folder cannot be used, and None once it can again."""


class Folder:
    """One folder, looked at by one task."""

    def __init__(
        self,
        section: FolderInput,
        store: str,
        importer: Importer,
        settings: Current[InputSettings],
        *,
        now: Callable[[], float],
        desired: Current[DesiredState],
        on_trouble: OnTrouble,
    ) -> None:
        self.section = section
        self.error: str | None = None
        self.waiting = 0
        """Claimed files that the store has no room for."""
        self._files = FolderFiles(section.path, store, now)
        self._importer = importer
        self._settings = settings
        self._now = now
        self._desired = desired
        self._on_trouble = on_trouble
        self._seen: dict[str, tuple[Stamp, float]] = {}
        self._told_lying: frozenset[str] = frozenset()
        self._hint = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._swept_mono = float("-inf")

    async def prepare(self) -> None:
        """Make the folder.

        Raises:
            DaemonError: it cannot be used.
        """
        try:
            await asyncio.to_thread(self._files.prepare)
        except OSError as error:
            raise DaemonError(f"folder {self.section.path}: {say_os_error(error)}") from error

    def begin(self) -> None:
        """Take files from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="input folder")

    async def stop(self) -> None:
        """Finish the file in hand, then no more."""
        self._stop.set()
        self._hint.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_GRACE_S)
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        watching = asyncio.get_running_loop().create_task(
            watch_folder(self.section.path, on_hint=self._hint.set, stop=self._stop),
            name="input folder watch",
        )
        try:
            # files are safe where they lie: none is taken before there is a set to send by
            await self._wait_until_open()
            while not self._stop.is_set():
                # before the look: a file that comes during it makes another one
                self._hint.clear()
                wait_s = await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._hint.wait()
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _wait_until_open(self) -> None:
        opened = asyncio.get_running_loop().create_task(self._importer.opened.wait())
        stopped = asyncio.get_running_loop().create_task(self._stop.wait())
        try:
            await asyncio.wait({opened, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (opened, stopped):
                task.cancel()
            await asyncio.wait({opened, stopped})

    async def _look(self) -> float:
        """Take what holds still; returns how long the next look may wait."""
        try:
            await asyncio.to_thread(self._files.prepare)  # it may have been deleted
            # before new files, so that what came first is sent first
            await self._resume_claims()
            trouble: str | None = self._find_other_owner()
            wait_s = self.section.poll_interval_s
            if trouble is None:
                wait_s, trouble = await self._take_ready()
            await self._sweep()
        except OSError as error:
            self._set_error(say_os_error(error))
            return self.section.poll_interval_s
        except StoreError as error:
            self._set_error(str(error))
            return self.section.poll_interval_s
        except Exception as error:  # noqa: BLE001 - the boundary: a folder must not end the daemon
            _log.exception("looking at the folder failed")
            self._set_error(f"internal error: {type(error).__name__}: {error}")
            return self.section.poll_interval_s
        self._set_error(trouble)
        return wait_s

    def _find_other_owner(self) -> str | None:
        """That the files are for another daemon of the folder, in words: it would be refused here what that one takes."""
        sender, nodes = self._settings.value.from_node, self._desired.value.run_nodes
        if sender is None or sender in nodes:
            return None
        return f"files are left to the daemon that runs {sender} (inputs.from): this one runs {', '.join(nodes[:10])}"

    def _set_error(self, error: str | None) -> None:
        if error != self.error:
            self.error = error
            self._on_trouble(error)

    async def _resume_claims(self) -> None:
        """Files claimed before: by a daemon that was killed, or while the store had no room."""
        claims = await asyncio.to_thread(lambda: list(self._files.claims()))
        self.waiting = len(claims)
        for claim in claims:
            if self._stop.is_set():
                return
            await self._resume(claim)

    async def _resume(self, claim: Claim) -> None:
        # killed between commit and rename: the mark in the store knows, and nothing is sent twice
        if await self._importer.is_accepted(_mark(claim)):
            words = "accepted before the daemon was interrupted; the ids are in its outbox"
            answer = Answer(outcome=Outcome.TAKEN, warnings=[Note(message=words)])
            await asyncio.to_thread(self._files.put_away, claim, DONE, answer.encode())
        elif self._now() - claim.claimed_at >= self._desired.value.state.dedupe_window_s:
            words = (
                "the daemon was interrupted with this file in hand, so long ago that it can no"
                " longer be told whether the messages were accepted; put it back to send them"
            )
            answer = refuse(Outcome.REFUSED, words)
            await asyncio.to_thread(self._files.put_away, claim, FAILED, answer.encode())
            self._importer.count_refused("folder")
        else:
            await self._inject(claim)

    async def _take_ready(self) -> tuple[float, str | None]:
        """Take what holds still; when to look again, and which file cannot be claimed."""
        found, left_lying = await asyncio.to_thread(self._files.list)
        self._tell_left_lying(left_lying)
        now = asyncio.get_running_loop().time()
        settle_s = self.section.settle_s
        wait_s = self.section.poll_interval_s
        seen: dict[str, tuple[Stamp, float]] = {}
        ready: list[str] = []
        trouble: str | None = None
        for name, stamp in found.items():
            known, since_mono = self._seen.get(name, (None, now))
            # it is still being written: its time of holding still begins anew
            if known != stamp:
                since_mono = now
            left_s = since_mono + settle_s - now
            if left_s <= 0:
                ready.append(name)
            else:
                seen[name] = (stamp, since_mono)
                wait_s = min(wait_s, left_s)
        self._seen = seen
        for name in ready:
            if self._stop.is_set():
                break
            try:
                # renamed before it is read: no other daemon, nor our next look, takes it as well
                claim = await asyncio.to_thread(self._files.claim, name)
            except OSError as error:
                trouble = f"cannot take {escape_line(name)[:200]}: {say_os_error(error)}"
                continue
            if claim is not None:
                await self._inject(claim)
        return wait_s, trouble

    def _tell_left_lying(self, left_lying: Mapping[str, str]) -> None:
        """Once a name, as long as it lies there."""
        for name in left_lying.keys() - self._told_lying:
            if not name.startswith("."):  # what is hidden is meant to be
                _log.info(
                    "left lying in the folder: %s: %s", escape_line(name)[:200], left_lying[name]
                )
        self._told_lying = frozenset(left_lying)

    async def _inject(self, claim: Claim) -> None:
        try:
            raw = await asyncio.to_thread(self._files.read, claim, self._settings.value.max_bytes)
        except UnfitFile as error:
            self._importer.count_refused("folder")
            answer = refuse(Outcome.REFUSED, str(error))
            await asyncio.to_thread(self._files.put_away, claim, FAILED, answer.encode())
            return
        # it has changed since it was claimed: its writer was not done; or whose it is has changed
        if raw is None or self._find_other_owner() is not None:
            await asyncio.to_thread(self._files.give_back, claim)
            return
        answer = await self._importer.inject("folder", raw, once=_mark(claim))
        if answer.outcome is Outcome.BUSY:
            # the claim stays, and is tried again with the next look
            raise StoreError(answer.problems[0].message)
        is_taken = answer.outcome in (Outcome.TAKEN, Outcome.PARTLY)
        where = DONE if is_taken else FAILED
        await asyncio.to_thread(self._files.put_away, claim, where, answer.encode())

    async def _sweep(self) -> None:
        now_mono = asyncio.get_running_loop().time()
        if now_mono - self._swept_mono >= SWEEP_EVERY_S:
            self._swept_mono = now_mono
            await asyncio.to_thread(self._files.sweep, self.section.keep_s)


def _mark(claim: Claim) -> Once:
    return Once(SOURCE, claim.number)
