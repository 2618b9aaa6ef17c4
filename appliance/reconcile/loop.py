"""The reconciler: one loop owns every pass, so passes never overlap.

A pass that was asked to look reads the config, refuses it whole or accepts it whole, and then closes the gap between
desired and observed. A pass for any other reason (a worker ended, a lane got its first record, a delay is over) only
closes the gap. Everything that can refuse a config stands before the first effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from appliance.core.describe import describe_plan
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
from appliance.reconcile.history import History
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.trigger import Trigger
from appliance.reconcile.verdicts import (
    Applied,
    LoadedSet,
    Verdict,
    drain_json,
    find_objections,
    find_problems_of,
    problem_json,
)

LOOK_REASONS = frozenset({"start", "signal", "request", "watch", "poll"})
MAX_QUIET_WAIT_S = 2.0
"""Triggers that keep coming delay a look at most this long; content that keeps changing delays it longer."""
MAX_CONTENT_WAIT_S = 10.0
RESYNC_S = 30.0


class ConfigSource(Protocol):
    """Where the config comes from. Both calls block and run in a thread."""

    def fingerprint(self) -> str:
        """Digest of the content as it is now, without parsing; "" when it cannot be read."""
        ...

    def load(self) -> LoadedSet:
        """Read, check and compile. Raises ConfigInvalid or ConfigUnreadable."""
        ...


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
        wall: Callable[[], float],
    ) -> None:
        self._source = source
        self._pool = pool
        self._telemetry = telemetry
        self._history = history
        self._prepare = prepare
        self._on_accepted = on_accepted
        self._extra_workers = extra_workers
        self._overrides = overrides
        self._wall = wall
        self._mono = asyncio.get_running_loop().time
        self.trigger = Trigger()
        self.applied: Applied | None = None
        self.last_attempt: Verdict | None = None
        self.last_good_at = 0.0
        self.is_settled = False
        self._seen_digest = ""
        self._last_generation = 0
        """Of the set that an earlier run had in force."""
        self._next_due_mono: float | None = None
        self._ending = asyncio.Event()
        self._requests: list[tuple[bool, str, asyncio.Future[Verdict]]] = []

    # -- life -------------------------------------------------------------------------------------

    async def start(self, first: LoadedSet) -> Verdict:
        """Take the set that the daemon was started with."""
        last = await asyncio.to_thread(self._history.last_applied)
        generation = self._last_generation = _int(last.get("generation")) if last else 0
        if last is None or last.get("digest") != first.digest:
            generation += 1
        verdict = await self._accept(first, Plan(), "start", self._mono(), generation)
        self.is_settled = True
        return verdict

    async def run(self) -> None:
        """Look and converge until stopped."""
        while True:
            await self.trigger.wait(self._next_wait_s())
            reasons = self.trigger.take()
            if self._ending.is_set():
                self._turn_requests_away()
                return
            if not reasons and await self._content_changed():
                reasons = frozenset({"poll"})
            if reasons & LOOK_REASONS:
                await self._look(reasons)
            else:
                await self.converge()

    def _turn_requests_away(self) -> None:
        for _, _, future in self._requests:
            if not future.done():
                future.set_exception(DaemonUnreachable("the daemon is stopping"))
        self._requests.clear()

    def stop(self) -> None:
        """End after the pass in hand."""
        self._ending.set()
        self.trigger.set("stop")

    async def reload(self, *, force: bool, trigger: str) -> Verdict:
        """Ask for a look and wait for its verdict."""
        if self._ending.is_set():
            raise DaemonUnreachable("the daemon is stopping")
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._requests.append((force, trigger, future))
        self.trigger.set("request")
        return await future

    def _next_wait_s(self) -> float:
        applied = self.applied
        wait_s = (
            applied.desired.reload.poll_interval_s
            if applied and applied.desired.reload.watch
            else RESYNC_S
        )
        if self._next_due_mono is not None:
            wait_s = min(wait_s, max(0.0, self._next_due_mono - self._mono()))
        return wait_s

    async def _content_changed(self) -> bool:
        applied = self.applied
        if applied is None or not applied.desired.reload.watch:
            return False
        digest = await asyncio.to_thread(self._source.fingerprint)
        return digest != self._seen_digest

    # -- looking ----------------------------------------------------------------------------------

    async def _hold_still(self) -> str:
        """Wait until content and triggers are quiet, so that a burst is one look and no half-written file is read."""
        assert self.applied is not None
        settle_s = self.applied.desired.reload.settle_s
        started = self._mono()
        digest = await asyncio.to_thread(self._source.fingerprint)
        while True:
            self.trigger.take()
            await asyncio.sleep(settle_s)
            again = await asyncio.to_thread(self._source.fingerprint)
            waited_s = self._mono() - started
            is_still = again == digest or waited_s >= MAX_CONTENT_WAIT_S
            is_quiet = not self.trigger.pending or waited_s >= MAX_QUIET_WAIT_S
            digest = again
            if is_still and is_quiet:
                self.trigger.take()
                return digest

    async def _look(self, reasons: frozenset[str]) -> None:
        self._seen_digest = await self._hold_still()
        requests, self._requests = self._requests, []
        force = any(asked for asked, _, _ in requests)
        trigger = requests[0][1] if requests else min(reasons & LOOK_REASONS)
        started = self._mono()
        try:
            # who asks wants things to be as the config says, whether it changed or not
            asked = bool(requests) or "signal" in reasons
            verdict = await self._attempt(force=force, trigger=trigger, asked=asked)
        except Exception as error:  # noqa: BLE001 - the boundary around a look: the running set must go on
            problem = Problem(
                code="E306", message=f"internal error: {type(error).__name__}: {error}"
            )
            verdict = await self._refuse((problem,), trigger, started)
        self.last_attempt = verdict
        for _, _, future in requests:
            if not future.done():
                future.set_result(verdict)
        await (
            self.converge()
        )  # the quiet wait may have swallowed another reason to look at the workers

    async def _attempt(self, *, force: bool, trigger: str, asked: bool) -> Verdict:
        started = self._mono()
        applied = self.applied
        assert applied is not None
        try:
            loaded = await asyncio.to_thread(self._source.load)
        except (ConfigInvalid, ConfigUnreadable, RunNodesUnclear) as error:
            return await self._refuse(find_problems_of(error), trigger, started)
        is_same = loaded.digest == applied.digest
        if is_same and not (asked and self._clears(loaded.desired)):
            return await self._unchanged(loaded, trigger, started)
        plan = self.predict(loaded.desired)
        objections = self.find_objections(loaded, plan, force=force)
        if objections:
            return await self._refuse(objections, trigger, started, loaded)
        found = await self._prepare(applied.desired, loaded.desired)
        if found:
            return await self._refuse(tuple(map(loaded.place, found)), trigger, started, loaded)
        generation = applied.generation if is_same else applied.generation + 1
        return await self._accept(loaded, plan, trigger, started, generation)

    async def _accept(
        self, loaded: LoadedSet, plan: Plan, trigger: str, started: float, generation: int
    ) -> Verdict:
        """The first point at which anything of the set takes effect."""
        is_restart_of_same = self.applied is None and generation == self._last_generation
        clear = self._clears(loaded.desired) and not is_restart_of_same
        await self._overrides.follow(loaded.desired, clear=clear)
        now = self._wall()
        self.applied = Applied(
            desired=loaded.desired,
            digest=loaded.digest,
            revision=loaded.revision,
            generation=generation,
            applied_at=now,
        )
        self._seen_digest = loaded.digest
        self.last_good_at = now
        self._on_accepted(loaded.desired)
        if plan.is_empty:
            plan = make_plan(self._wanted(loaded.desired), self._pool.observe(), self._mono())
        report = await self._pool.apply(plan, loaded.desired.reload.drain_timeout_s)
        verdict = Verdict(
            result="applied",
            at=now,
            trigger=trigger,
            digest=loaded.digest,
            generation=generation,
            problems=tuple(loaded.warnings),
            plan=plan,
            duration_s=self._mono() - started,
            drains=tuple(report.drains),
            failed=report.failed,
        )
        self.last_attempt = verdict
        self._telemetry.config_applied(
            generation, loaded.digest, loaded.revision, plan.summary(), verdict.duration_s, trigger
        )
        await self._record(verdict, loaded.revision, loaded.files)
        await self.converge()
        return verdict

    async def _unchanged(self, loaded: LoadedSet, trigger: str, started: float) -> Verdict:
        assert self.applied is not None
        self.last_good_at = self._wall()
        if loaded.revision != self.applied.revision:
            self.applied = Applied(
                desired=self.applied.desired,
                digest=self.applied.digest,
                revision=loaded.revision,
                generation=self.applied.generation,
                applied_at=self.applied.applied_at,
            )
        self._telemetry.config_unchanged(trigger)
        await self.converge()
        return Verdict(
            result="unchanged",
            at=self._wall(),
            trigger=trigger,
            digest=loaded.digest,
            generation=self.applied.generation,
            duration_s=self._mono() - started,
        )

    async def _refuse(
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
            digest=loaded.digest if loaded else self._seen_digest,
            generation=self.applied.generation,
            problems=tuple(
                sorted(problems, key=lambda problem: problem.severity is not Severity.ERROR)
            ),
            duration_s=self._mono() - started,
        )
        self._telemetry.config_refused(problems, trigger)
        await self._record(verdict, loaded.revision if loaded else None, {})
        return verdict

    async def _record(
        self, verdict: Verdict, revision: str | None, files: Mapping[str, str]
    ) -> None:
        record = {
            "at": verdict.at,
            "result": verdict.result,
            "trigger": verdict.trigger,
            "generation": verdict.generation,
            "digest": verdict.digest,
            "revision": revision,
            "actions": describe_plan(verdict.plan)[:1_000],
            "problems": [problem_json(problem) for problem in verdict.problems[:200]],
            "duration_seconds": round(verdict.duration_s, 6),
            "drain": drain_json(verdict.drains),
            "failed": dict(verdict.failed),
        }
        try:
            await asyncio.to_thread(self._history.append, record, files)
        except OSError as error:
            self._telemetry.history_not_written(str(error))

    # -- converging -------------------------------------------------------------------------------

    async def converge(self) -> None:
        """Close the gap between desired and observed, whatever made it."""
        applied = self.applied
        if applied is None:
            return
        plan = make_plan(self._wanted(applied.desired), self._pool.observe(), self._mono())
        if not plan.is_empty:
            await self._pool.apply(plan, applied.desired.reload.drain_timeout_s)
            plan = make_plan(self._wanted(applied.desired), self._pool.observe(), self._mono())
            if not plan.is_empty:
                self.trigger.set("worker")
        self._next_due_mono = plan.next_due_mono

    def predict(self, desired: DesiredState) -> Plan:
        """The plan that a reload with this desired state would begin with."""
        wanted = self._wanted(desired, overridden=not self._clears(desired))
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

    def _wanted(
        self, desired: DesiredState, *, overridden: bool = True
    ) -> Mapping[WorkerKey, WorkerSpec]:
        extra = self._extra_workers()
        wanted = {**extra, **desired.workers} if extra else desired.workers
        return apply_overrides(wanted, self._overrides.all, desired) if overridden else wanted


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
