"""Ways back to an older set: a rollback that somebody asks for, and a trial that a new set did not stand.

Either pins the older set until the files change again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from appliance.bus.base import Bus
from appliance.core.plan import Plan, apply_to_model, make_plan
from appliance.core.specs import DesiredState
from appliance.errors import ConfigInvalid, ConfigUnreadable, RequestInvalid, RunNodesUnclear
from appliance.reconcile.activation import Activation, Way
from appliance.reconcile.convergence import Convergence
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.file_watch import FileWatch
from appliance.reconcile.history import History, KeptSet
from appliance.reconcile.kept_files import KeptFile, OnDisk, Pin, PinKeeper
from appliance.reconcile.reload_result import (
    Applied,
    LoadedSet,
    ReloadResult,
    find_problems_of,
    trial_problems,
)
from appliance.reconcile.trial import (
    MAX_EXTENSIONS,
    KeptTrial,
    Trial,
    Trials,
    begin_trial,
    examine,
    resume_trial,
)
from appliance.reconcile.trigger import Request
from appliance.telemetry.report import Telemetry

WAY_BACK_RETRY_S = 30.0
"""When a set that did not stand its trial is judged again, where the way back was refused."""


class Rollback:
    """Runs inside the loop that looks at the config, so that nothing else changes the set in force meanwhile."""

    def __init__(
        self,
        activation: Activation,
        convergence: Convergence,
        reader: SourceReader,
        files: FileWatch,
        history: History,
        telemetry: Telemetry,
        pins: PinKeeper,
        trial_file: KeptFile[KeptTrial],
        *,
        bus: Bus,
        wall: Callable[[], float],
    ) -> None:
        self._activation = activation
        self._convergence = convergence
        self._reader = reader
        self._files = files
        self._history = history
        self._telemetry = telemetry
        self._pins = pins
        self._trial_file = trial_file
        self._bus = bus
        self._trial_on_disk: OnDisk[KeptTrial | None] = OnDisk(
            "the trial", trial_file.save, telemetry.history_not_written
        )
        self._wall = wall
        self._mono = asyncio.get_running_loop().time
        self._trials: Trials = ()
        self._refused: ReloadResult | None = None
        """What became of the last way back from a trial, where it was refused."""

    @property
    def pin(self) -> Pin | None:
        """What holds an older set in force."""
        return self._pins.pin

    @property
    def is_pin_kept(self) -> bool:
        """Whether a restart would know of it."""
        return self._pins.is_kept

    @property
    def trial(self) -> Trial | None:
        """The oldest trial that runs: the first to be judged."""
        return self._trials[0] if self._trials else None

    @property
    def trial_ends_mono(self) -> float | None:
        """When the set in force must be judged."""
        return self.trial.until_mono if self.trial is not None else None

    def trial_left_s(self) -> float:
        """How long the trial goes on."""
        ends_mono = self.trial_ends_mono
        return 0.0 if ends_mono is None else round(max(0.0, ends_mono - self._mono()), 1)

    # -- rollback ---------------------------------------------------------------------------------

    async def roll_back(self, request: Request) -> ReloadResult:
        """Do what a request for an older set asks.

        Raises:
            RequestInvalid: there is no such set, or its files were not kept.
        """
        way = Way(trigger="rollback", by=request.by, force=request.force, goes_back=True)
        started = self._mono()
        try:
            loaded = await self._find(request.to or None)
        except (ConfigInvalid, ConfigUnreadable, RunNodesUnclear) as error:
            return await self._activation.refuse(
                find_problems_of(error), way, started, digest=self._files.digest
            )
        return await self._go_back(loaded, way)

    async def _find(self, to: str | None) -> LoadedSet:
        applied = self._activation.applied
        assert applied is not None
        if to is not None:
            return await self._load(await asyncio.to_thread(self._history.find_kept, to))
        for kept in await asyncio.to_thread(self._history.sets_before, applied.digest):
            loaded = await self._load(kept)
            # NB: where only words or their order differ, going back there would be going nowhere
            if loaded.desired != applied.desired:
                return loaded
        raise RequestInvalid("no set was in force before this one")

    async def _load(self, kept: KeptSet) -> LoadedSet:
        """The set as the files hold it, should they hold it; else as the history kept it."""
        if kept.digest == await self._reader.fingerprint():
            return await self._reader.load()
        return await self._reader.load_kept(kept.files, kept.digest, kept.revision)

    async def _go_back(
        self, loaded: LoadedSet, way: Way, known: ReloadResult | None = None
    ) -> ReloadResult:
        """Put an older set in force and pin it; `known` is as of `Activation.refuse`."""
        # NB: files that are away for a moment come back as they were
        files_digest = await self._reader.fingerprint() or self._files.content_digest
        applied = self._activation.applied
        hidden = applied.desired.hidden if applied is not None else loaded.desired.hidden
        pin = Pin(
            digest=loaded.digest,
            revision=loaded.revision,
            branch=loaded.branch,
            dirty=loaded.dirty,
            files_digest=files_digest,
            reason=way.trigger,
            by=way.by,
            at=self._wall(),
            failures=tuple(hidden.text(problem.message) for problem in way.failures),
        )
        # what the files say needs no pin
        is_needed = files_digest != loaded.digest
        pinned = Way(
            trigger=way.trigger,
            by=way.by,
            force=way.force,
            pin=pin if is_needed else None,
            goes_back=True,
            failures=way.failures,
        )
        verdict = await self._activation.bring_into_force(loaded, pinned, known=known)
        # a way back that was refused leaves the trial running
        if verdict.result != "refused":
            # the pin was set against these, so they are nothing new for the next look
            self._files.saw(files_digest)
            await self._put_trials(())
        return verdict

    # -- trials -----------------------------------------------------------------------------------

    async def begin_trial(self, before: Applied, plan: Plan) -> None:
        """A set from the files is in force, on trial if it asks for that; `plan` led to it from the one before."""
        now = self._activation.applied
        assert now is not None
        await self._put_trials(begin_trial(self._trials, before, now.desired, plan, self._mono()))

    async def begin_trial_at_start(self, last_good: LoadedSet) -> None:
        """The daemon started with another set than it ended with: as if that one had been reloaded."""
        # NB: that one may have been on trial itself, and files that touch nothing of it confirm nothing
        kept = await asyncio.to_thread(self._trial_file.load)
        if kept is not None:
            self._trial_on_disk.expect(None)
            running = await self._resume(kept, last_good.digest, last_good.desired)
            self._trials = () if running is None else (running,)
        before = Applied.from_loaded(last_good, generation=0, applied_at=self._wall())
        await self.begin_trial(before, self._plan_from(last_good.desired))
        # now as it stands, whether or not the new set has changed anything of it
        await self._write_trials()

    def _plan_from(self, before: DesiredState) -> Plan:
        """What led from the workers of an earlier run to those in force."""
        now = self._activation.applied
        assert now is not None
        return _plan_between(before, now.desired)

    async def resume_trial(self) -> None:
        """Go on with the trial that an earlier run was in, if its set is the one in force."""
        kept = await asyncio.to_thread(self._trial_file.load)
        applied = self._activation.applied
        if kept is None or applied is None:
            return
        trial = await self._resume(kept, applied.digest, applied.desired)
        await self._put_trials(() if trial is None else (trial,))

    async def _resume(self, kept: KeptTrial, digest: str, desired: DesiredState) -> Trial | None:
        """The trial of the set of this digest, as far as an earlier run came with it."""
        # another set was in force by then, or the history has forgotten the older one: nothing to judge
        baseline = await self._load_baseline(kept) if kept.digest == digest else None
        if baseline is None:
            return None
        plan = _plan_between(baseline.desired, desired)
        return resume_trial(kept, baseline, plan, self._wall(), self._mono())

    async def _load_baseline(self, kept: KeptTrial) -> Applied | None:
        files = await asyncio.to_thread(self._history.files_of, kept.baseline)
        if files is None:
            return None
        try:
            loaded = await self._reader.load_kept(files, kept.baseline, None)
        except (ConfigInvalid, RunNodesUnclear):
            return None
        began_at = kept.ends_at - kept.length_s
        return Applied.from_loaded(loaded, generation=0, applied_at=began_at)

    async def judge_trial(self) -> ReloadResult | None:
        """At the end of a trial: keep the set, or go back to the one before; None while there is nothing to tell."""
        trial, applied = self.trial, self._activation.applied
        if trial is None or applied is None or self._mono() < trial.until_mono:
            return None
        if not self._bus.is_connected and not trial.changes_broker:
            # no worker runs without a broker, whatever the set says; only one that moved to another broker is to blame
            is_enough = trial.extensions >= MAX_EXTENSIONS
            await self._put_trials(
                () if is_enough else tuple(one.extended() for one in self._trials)
            )
            return None
        observed = self._convergence.observe()
        findings = examine(trial, self._convergence.wanted(applied.desired), observed, self._mono())
        failed = dict(findings.failed)
        if not self._bus.is_connected:
            failed["broker"] = "not connected with the new settings"
        if not failed and findings.unclear:
            await self._put_trials((trial.unclear(self._mono()), *self._trials[1:]))
            return None
        if not failed:
            await self._put_trials(self._trials[1:])
            # told once, when no older set waits for its judgement either
            if self.trial is None:
                self._telemetry.trial_passed(applied.generation)
            return None
        # before going back, which may be refused for something that passes: judged again then
        wait_s = min(trial.length_s, WAY_BACK_RETRY_S)
        await self._put_trials((trial.postponed(self._mono() + wait_s), *self._trials[1:]))
        before = trial.baseline
        files = await asyncio.to_thread(self._history.files_of, before.digest) or {}
        baseline = LoadedSet(
            desired=before.desired,
            digest=before.digest,
            revision=before.revision,
            branch=before.branch,
            dirty=before.dirty,
            # the history has kept them since they were in force; later guards ask which of them held something
            files=files,
            blank=frozenset(files) - before.filled,
        )
        problems = trial_problems(applied.generation, failed)
        # the guards ask whether a person means it, and nobody is there to be asked
        way = Way(trigger="trial", force=True, goes_back=True, failures=problems)
        verdict = await self._go_back(baseline, way, known=self._refused)
        is_news = self._refused is None or not self._refused.says_the_same(verdict)
        self._refused = verdict if verdict.result == "refused" else None
        if self._refused is not None and not verdict.may_pass_later:
            await self._put_trials(self._trials[1:])
        return verdict if is_news else None

    async def _put_trials(self, trials: Trials) -> None:
        if not trials and not self._trials:
            return
        self._trials = trials
        await self._write_trials()

    async def _write_trials(self) -> None:
        applied, oldest = self._activation.applied, self.trial
        kept = None
        if oldest is not None and applied is not None:
            kept = KeptTrial(
                digest=applied.digest,
                baseline=oldest.baseline.digest,
                ends_at=self._wall() + oldest.until_mono - self._mono(),
                length_s=oldest.length_s,
                changes_broker=oldest.changes_broker,
            )
        await self._trial_on_disk.put(kept)

    async def catch_up(self) -> None:
        """Write what a full disk did not take: a restart would not know of the trial, or that it is over."""
        await self._trial_on_disk.catch_up()


def _plan_between(before: DesiredState, now: DesiredState) -> Plan:
    model = apply_to_model(make_plan(before.workers, {}, 0.0), {})
    return make_plan(now.workers, model, 0.0)
