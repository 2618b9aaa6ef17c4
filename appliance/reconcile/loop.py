"""The reconciler: one loop owns every pass, so passes never overlap.

A pass that was asked to look reads the config, refuses it whole or accepts it whole, and then closes the gap between
desired and observed. A pass for any other reason (a worker ended, a lane got its first record, a delay is over) only
closes the gap. Everything that can refuse a config stands before the first effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from appliance.core.names import WorkerKey
from appliance.core.overrides import apply_overrides
from appliance.core.plan import Plan, make_plan
from appliance.core.problems import Problem, Severity
from appliance.core.specs import DesiredState, WorkerSpec
from appliance.errors import (
    ConfigInvalid,
    ConfigUnreadable,
    DaemonUnreachable,
    RunNodesUnclear,
)
from appliance.reconcile.contracts import ReloadTelemetry
from appliance.reconcile.fallback import Fallback
from appliance.reconcile.file_watch import FileWatch
from appliance.reconcile.history import History
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pins import PinBook
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.recorder import Recorder
from appliance.reconcile.requests import ConfigSource, Request
from appliance.reconcile.trigger import Trigger
from appliance.reconcile.verdicts import (
    Applied,
    LoadedSet,
    Verdict,
    find_objections,
    find_problems_of,
    pinned_note,
)

LOOK_REASONS = frozenset({"start", "signal", "request", "watch", "poll"})
HINTS = frozenset({"watch", "poll"})
"""What only says that there may be something new."""
RESYNC_S = 30.0


PrepareSettings = Callable[[DesiredState, DesiredState], Awaitable[Sequence[Problem]]]
"""Brings broker and listener settings into force, new one first; problems mean that nothing was changed."""


class Reconciler:
    """Owns the applied set and the verdict of the last look."""

    def __init__(
        self,
        source: ConfigSource,
        pool: WorkerPool,
        telemetry: ReloadTelemetry,
        history: History,
        *,
        prepare: PrepareSettings,
        on_accepted: Callable[[DesiredState], None],
        extra_workers: Callable[[], Mapping[WorkerKey, WorkerSpec]],
        overrides: OverrideBook,
        pins: PinBook,
        is_connected: Callable[[], bool] = lambda: True,
        wall: Callable[[], float],
    ) -> None:
        self._source = source
        self._pool = pool
        self._telemetry = telemetry
        self._history = history
        self._recorder = Recorder(history, telemetry)
        self.fallback = Fallback(
            self, source, pool, history, telemetry, pins, is_connected=is_connected, wall=wall
        )
        self.prepare = prepare
        self._on_accepted = on_accepted
        self._extra_workers = extra_workers
        self._overrides = overrides
        self._wall = wall
        self._mono = asyncio.get_running_loop().time
        self.trigger = Trigger()
        self.files = FileWatch(source, self.trigger)
        self.applied: Applied | None = None
        self.last_attempt: Verdict | None = None
        self.last_good_at = 0.0
        self.is_settled = False
        self._last_generation = 0
        """Of the set that an earlier run had in force."""
        self._next_due_mono: float | None = None
        self._ending = asyncio.Event()
        self.on_look: Callable[[bool], None] = lambda _: None
        """Told when a look begins (True) and when its verdict is there (False), before those who wait get it."""
        self.asked_by = ""
        self._requests: list[Request] = []
        self._rollbacks: list[Request] = []

    # -- life -------------------------------------------------------------------------------------

    async def start(self, first: LoadedSet) -> Verdict:
        """Take the set that the daemon was started with."""
        last = await asyncio.to_thread(self._history.last_applied)
        generation = self._last_generation = _int(last.get("generation")) if last else 0
        if last is None or last.get("digest") != first.digest:
            generation += 1
        pin = await self.fallback.load_pin(first)
        verdict = await self.accept(first, Plan(), "start", self._mono(), generation)
        if pin is None:
            await self.files.begin(first.digest, first.label)
        else:
            await self.files.begin(pin.files_digest, None)
        self.is_settled = True
        return verdict

    async def run(self) -> None:
        """Look and converge until stopped."""
        while True:
            # a look that waits for quiet files takes every reason, also one to stop or to go back
            if not (self._ending.is_set() or self._rollbacks):
                await self.trigger.wait(self._next_wait_s())
            reasons = self.trigger.take()
            if self._ending.is_set():
                self._turn_requests_away()
                return
            if not reasons and self.applied is not None and await self.files.has_changed():
                reasons = frozenset({"poll"})
            while self._rollbacks:
                await self.fallback.roll_back(self._rollbacks.pop(0))
            if reasons & LOOK_REASONS:
                await self._look(reasons)
            else:
                await self.converge()
            await self.fallback.judge_trial()

    def _turn_requests_away(self) -> None:
        for request in (*self._requests, *self._rollbacks):
            if not request.future.done():
                request.future.set_exception(DaemonUnreachable("the daemon is stopping"))
        self._requests.clear()
        self._rollbacks.clear()

    def hint(self) -> None:
        """The files may have changed. The poll sees it anyway; where the config wants that, look at once."""
        if self.applied is None or self.applied.desired.reload.watch:
            self.trigger.set("watch")

    def stop(self) -> None:
        """End after the pass in hand."""
        self._ending.set()
        self.trigger.set("stop")

    async def reload(self, *, force: bool, trigger: str, by: str = "") -> Verdict:
        """Ask for a look and wait for its verdict."""
        request = self._make_request(force, trigger, by)
        self._requests.append(request)
        self.trigger.set("request")
        return await request.future

    async def roll_back(self, *, to: str | None, force: bool, by: str = "") -> Verdict:
        """Go back to a set that was in force and pin it until the files change again.

        Args:
            to: number, generation, digest or revision of a record; None for the set before this one.

        Raises:
            RequestInvalid: there is no such set, or its files were not kept.
        """
        request = self._make_request(force, "rollback", by)
        request.to = to or ""
        self._rollbacks.append(request)
        self.trigger.set("rollback")
        return await request.future

    def _make_request(self, force: bool, trigger: str, by: str) -> Request:
        if self._ending.is_set():
            raise DaemonUnreachable("the daemon is stopping")
        return Request(force, trigger, by, asyncio.get_running_loop().create_future())

    def _next_wait_s(self) -> float:
        applied = self.applied
        wait_s = applied.desired.reload.poll_interval_s if applied else RESYNC_S
        for due_mono in (self._next_due_mono, self.fallback.trial_ends_mono):
            if due_mono is not None:
                wait_s = min(wait_s, max(0.0, due_mono - self._mono()))
        return wait_s

    # -- looking ----------------------------------------------------------------------------------

    async def _look(self, reasons: frozenset[str]) -> None:
        assert self.applied is not None
        self.on_look(True)
        await self.files.hold_still(self.applied.desired.reload.settle_s)
        requests, self._requests = self._requests, []
        force = any(request.force for request in requests)
        trigger = requests[0].trigger if requests else min(reasons & LOOK_REASONS)
        self.asked_by = ", ".join(dict.fromkeys(item.by for item in requests if item.by))
        started = self._mono()
        try:
            # who asks wants things to be as the config says, whether it changed or not
            asked = bool(requests) or "signal" in reasons
            verdict = await self._attempt(force=force, trigger=trigger, asked=asked)
        except Exception as error:  # noqa: BLE001 - the boundary around a look: the running set must go on
            problem = Problem(
                code="E306", message=f"internal error: {type(error).__name__}: {error}"
            )
            verdict = await self.refuse((problem,), trigger, started)
        finally:
            self.asked_by = ""
        self.last_attempt = verdict
        self.on_look(False)
        for request in requests:
            if not request.future.done():
                request.future.set_result(verdict)
        await (
            self.converge()
        )  # the quiet wait may have swallowed another reason to look at the workers

    async def _attempt(self, *, force: bool, trigger: str, asked: bool) -> Verdict:
        started = self._mono()
        applied = self.applied
        assert applied is not None
        if not force and self.fallback.pins_files(self.files.digest):
            return self._still_pinned(trigger, started)
        try:
            loaded = await asyncio.to_thread(self._source.load)
        except (ConfigInvalid, ConfigUnreadable, RunNodesUnclear) as error:
            return await self.refuse(find_problems_of(error), trigger, started)
        is_same = loaded.digest == applied.digest
        if is_same and not (asked and self._clears(loaded.desired)):
            return await self._unchanged(loaded, trigger, started)
        plan = self.predict(loaded.desired)
        objections = self.find_objections(loaded, plan, force=force)
        if objections:
            return await self.refuse(objections, trigger, started, loaded)
        found = await self.prepare(applied.desired, loaded.desired)
        if found:
            return await self.refuse(tuple(map(loaded.place, found)), trigger, started, loaded)
        generation = applied.generation if is_same else applied.generation + 1
        await self.fallback.unpin()
        verdict = await self.accept(loaded, plan, trigger, started, generation)
        self.fallback.begin_trial(applied, verdict.plan)
        return verdict

    def _still_pinned(self, trigger: str, started: float) -> Verdict:
        """The files are as they were when an older set was pinned: it stays."""
        assert self.applied is not None
        self._telemetry.config_unchanged(trigger)
        return Verdict(
            result="unchanged",
            at=self._wall(),
            trigger=trigger,
            by=self.asked_by,
            digest=self.applied.digest,
            generation=self.applied.generation,
            problems=(pinned_note(self.fallback.pin),),
            duration_s=self._mono() - started,
        )

    async def accept(
        self,
        loaded: LoadedSet,
        plan: Plan,
        trigger: str,
        started: float,
        generation: int,
        *,
        failures: Sequence[Problem] | None = None,
    ) -> Verdict:
        """The first point at which anything of the set takes effect.

        `failures` are those of the set that this one replaces after its trial.
        """
        is_restart_of_same = self.applied is None and generation == self._last_generation
        clear = self._clears(loaded.desired) and not is_restart_of_same
        await self._overrides.follow(loaded.desired, clear=clear)
        now = self._wall()
        previous_digest = self.applied.digest if self.applied is not None else None
        self.applied = Applied(
            desired=loaded.desired,
            digest=loaded.digest,
            revision=loaded.revision,
            branch=loaded.branch,
            dirty=loaded.dirty,
            generation=generation,
            applied_at=now,
        )
        self.files.digest = loaded.digest
        self.last_good_at = now
        self._on_accepted(loaded.desired)
        if plan.is_empty:
            plan = make_plan(self.wanted(loaded.desired), self._pool.observe(), self._mono())
        report = await self._pool.apply(plan, loaded.desired.reload.drain_timeout_s)
        verdict = Verdict(
            result="applied" if failures is None else "reverted",
            at=now,
            trigger=trigger,
            by=self.asked_by,
            digest=loaded.digest,
            generation=generation,
            problems=(*(failures or ()), *loaded.warnings),
            plan=plan,
            duration_s=self._mono() - started,
            drains=tuple(report.drains),
            failed=report.failed,
        )
        self.last_attempt = verdict
        self._telemetry.config_applied(
            generation,
            loaded.digest,
            loaded.revision,
            plan.summary(),
            verdict.duration_s,
            trigger,
            verdict.result,
        )
        if failures is not None:
            self._telemetry.config_reverted(tuple(failures))
        await self._recorder.record(
            verdict,
            revision=loaded.label,
            previous_digest=previous_digest,
            files=loaded.files,
        )
        await self.converge()
        return verdict

    async def _unchanged(self, loaded: LoadedSet, trigger: str, started: float) -> Verdict:
        assert self.applied is not None
        self.last_good_at = self._wall()
        await self.fallback.unpin()
        self.applied = replace(
            self.applied, revision=loaded.revision, branch=loaded.branch, dirty=loaded.dirty
        )
        self._telemetry.config_unchanged(trigger)
        await self.converge()
        return Verdict(
            result="unchanged",
            at=self._wall(),
            trigger=trigger,
            by=self.asked_by,
            digest=loaded.digest,
            generation=self.applied.generation,
            duration_s=self._mono() - started,
        )

    async def refuse(
        self,
        problems: tuple[Problem, ...],
        trigger: str,
        started: float,
        loaded: LoadedSet | None = None,
    ) -> Verdict:
        assert self.applied is not None
        verdict = Verdict(
            result="refused",
            at=self._wall(),
            trigger=trigger,
            by=self.asked_by,
            digest=loaded.digest if loaded else self.files.digest,
            generation=self.applied.generation,
            problems=tuple(
                sorted(problems, key=lambda problem: problem.severity is not Severity.ERROR)
            ),
            duration_s=self._mono() - started,
        )
        if trigger in HINTS and self._is_known(verdict):
            return verdict
        self._telemetry.config_refused(problems, trigger)
        await self._recorder.record(
            verdict,
            revision=loaded.label if loaded else self.files.revision,
            previous_digest=self.applied.digest,
            files={},
            attempted=loaded.files if loaded else await asyncio.to_thread(self._source.texts),
        )
        return verdict

    def _is_known(self, verdict: Verdict) -> bool:
        """Whether the look before said the same of the same files: a late event is nothing new."""
        last = self.last_attempt
        return (
            last is not None
            and (last.result, last.digest) == (verdict.result, verdict.digest)
            and last.problems == verdict.problems
        )

    # -- converging -------------------------------------------------------------------------------

    async def converge(self) -> None:
        """Close the gap between desired and observed, whatever made it."""
        applied = self.applied
        if applied is None:
            return
        plan = make_plan(self.wanted(applied.desired), self._pool.observe(), self._mono())
        if not plan.is_empty:
            await self._pool.apply(plan, applied.desired.reload.drain_timeout_s)
            plan = make_plan(self.wanted(applied.desired), self._pool.observe(), self._mono())
            if not plan.is_empty:
                self.trigger.set("worker")
        self._next_due_mono = plan.next_due_mono

    def predict(self, desired: DesiredState) -> Plan:
        """The plan that a reload with this desired state would begin with."""
        wanted = self.wanted(desired, overridden=not self._clears(desired))
        return make_plan(wanted, self._pool.observe(), self._mono())

    def _clears(self, desired: DesiredState) -> bool:
        """Whether a reload to this desired state makes an end of overrides."""
        return bool(self._overrides.all) and desired.reload.overrides == "clear"

    def find_objections(
        self, loaded: LoadedSet, plan: Plan, *, force: bool = False
    ) -> tuple[Problem, ...]:
        """Why a valid set would be refused all the same."""
        assert self.applied is not None
        found = find_objections(
            self.applied.desired, loaded.desired, plan, self._pool.observe(), force=force
        )
        return tuple(map(loaded.place, found))

    def wanted(
        self, desired: DesiredState, *, overridden: bool = True
    ) -> Mapping[WorkerKey, WorkerSpec]:
        extra = self._extra_workers()
        wanted = {**extra, **desired.workers} if extra else desired.workers
        return apply_overrides(wanted, self._overrides.all, desired) if overridden else wanted


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
