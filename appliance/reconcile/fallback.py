"""Ways back to an older set: a rollback that somebody asks for, and a trial that a new set did not stand.

Either pins the older set until the files change again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from appliance.core.plan import Plan
from appliance.core.problems import Problem
from appliance.errors import ApplianceError, ConfigInvalid, ConfigUnreadable, RunNodesUnclear
from appliance.reconcile.contracts import ReloadTelemetry
from appliance.reconcile.history import History, KeptSet
from appliance.reconcile.pins import Pin, PinBook
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.requests import ConfigSource, Request
from appliance.reconcile.trial import MAX_EXTENSIONS, Trial, begin_trial, find_failures
from appliance.reconcile.verdicts import (
    Applied,
    LoadedSet,
    Verdict,
    find_problems_of,
    trial_problems,
)

if TYPE_CHECKING:
    from appliance.reconcile.loop import Reconciler


class Fallback:
    """Belongs to one reconciler and runs inside its loop, so that passes never overlap."""

    def __init__(
        self,
        loop: Reconciler,
        source: ConfigSource,
        pool: WorkerPool,
        history: History,
        telemetry: ReloadTelemetry,
        pins: PinBook,
        *,
        is_connected: Callable[[], bool],
        wall: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._source = source
        self._pool = pool
        self._history = history
        self._telemetry = telemetry
        self._pins = pins
        self._is_connected = is_connected
        self._wall = wall
        self._mono = asyncio.get_running_loop().time
        self.pin: Pin | None = None
        self.trial: Trial | None = None

    @property
    def trial_ends_mono(self) -> float | None:
        """When the set in force must be judged."""
        return self.trial.until_mono if self.trial is not None else None

    def trial_left_s(self) -> float:
        """How long the trial goes on."""
        ends_mono = self.trial_ends_mono
        return 0.0 if ends_mono is None else round(max(0.0, ends_mono - self._mono()), 1)

    def pins_files(self, files_digest: str) -> bool:
        """Whether an older set is pinned, and the files are still those that it was pinned against."""
        return self.pin is not None and self.pin.files_digest == files_digest

    async def load_pin(self, first: LoadedSet) -> Pin | None:
        """The pin of an earlier run, if the daemon started with its set."""
        self.pin = await asyncio.to_thread(self._pins.load)
        if self.pin is not None and self.pin.digest != first.digest:
            await self._set_pin(None)  # the files have changed while nothing ran
        return self.pin

    async def unpin(self) -> None:
        """A set from the files is about to be in force."""
        await self._set_pin(None)

    def begin_trial(self, before: Applied, plan: Plan) -> None:
        """A set from the files is in force, on trial if it asks for that."""
        now = self._loop.applied
        assert now is not None
        self.trial = begin_trial(self.trial, before, now, plan, self._mono())

    async def roll_back(self, request: Request) -> None:
        """Do what a request for an older set asks, and tell its verdict."""
        started = self._mono()
        self._loop.asked_by = request.by
        try:
            verdict = await self._roll_back_to(request.to or None, request.force, started)
        except ApplianceError as error:
            if not request.future.done():
                request.future.set_exception(error)
            return
        finally:
            self._loop.asked_by = ""
        self._loop.last_attempt = verdict
        self._loop.on_look(False)
        if not request.future.done():
            request.future.set_result(verdict)

    async def _roll_back_to(self, to: str | None, force: bool, started: float) -> Verdict:
        applied = self._loop.applied
        assert applied is not None
        kept = await asyncio.to_thread(self._history.find_kept, to, applied.digest)
        try:
            loaded = await asyncio.to_thread(self._load, kept)
        except (ConfigInvalid, ConfigUnreadable, RunNodesUnclear) as error:
            return await self._loop.refuse(find_problems_of(error), "rollback", started)
        return await self._go_back(loaded, "rollback", started, force=force)

    def _load(self, kept: KeptSet) -> LoadedSet:
        """The set as the files hold it, should they hold it; else as the history kept it."""
        if kept.digest == self._source.fingerprint():
            return self._source.load()
        return self._source.load_kept(kept.files, kept.digest, kept.revision)

    async def _go_back(
        self,
        loaded: LoadedSet,
        reason: str,
        started: float,
        *,
        force: bool,
        failures: Sequence[Problem] | None = None,
    ) -> Verdict:
        """Put an older set in force and pin it. The pin is on disk first: no restart undoes this."""
        applied = self._loop.applied
        assert applied is not None
        plan = self._loop.predict(loaded.desired)
        objections = self._loop.find_objections(loaded, plan, force=force)
        if objections:
            return await self._loop.refuse(objections, reason, started, loaded)
        found = await self._loop.prepare(applied.desired, loaded.desired)
        if found:
            return await self._loop.refuse(tuple(map(loaded.place, found)), reason, started, loaded)
        files_digest = await asyncio.to_thread(self._source.fingerprint)
        pin = Pin(
            digest=loaded.digest,
            revision=loaded.revision,
            branch=loaded.branch,
            dirty=loaded.dirty,
            files_digest=files_digest,
            reason=reason,
            by=self._loop.asked_by,
            at=self._wall(),
        )
        # what the files say needs no pin
        await self._set_pin(pin if files_digest != loaded.digest else None)
        self.trial = None
        verdict = await self._loop.accept(
            loaded, plan, reason, started, applied.generation + 1, failures=failures
        )
        self._loop.files.digest = files_digest
        return verdict

    async def _set_pin(self, pin: Pin | None) -> None:
        if pin is None and self.pin is None:
            return
        await asyncio.to_thread(self._pins.save, pin)
        self.pin = pin

    async def judge_trial(self) -> None:
        """At the end of a trial: keep the set, or go back to the one before."""
        trial, applied = self.trial, self._loop.applied
        if trial is None or applied is None or self._mono() < trial.until_mono:
            return
        if not self._is_connected() and not trial.changes_broker:
            self.trial = trial.extended() if trial.extensions < MAX_EXTENSIONS else None
            return
        failed = find_failures(trial, self._loop.wanted(applied.desired), self._pool.observe())
        if not self._is_connected():
            failed["broker"] = "not connected with the new settings"
        self.trial = None
        if not failed:
            self._telemetry.trial_passed(applied.generation)
            return
        baseline = LoadedSet(
            desired=trial.baseline.desired,
            digest=trial.baseline.digest,
            revision=trial.baseline.revision,
            branch=trial.baseline.branch,
            dirty=trial.baseline.dirty,
            files={},
        )
        problems = trial_problems(applied.generation, failed)
        self._loop.last_attempt = await self._go_back(
            baseline, "trial", self._mono(), force=True, failures=problems
        )
        self._loop.on_look(False)
