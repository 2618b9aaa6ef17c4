"""The reconciler: looks at the config and brings sets into force, while another loop keeps what runs as it should be.

A look reads the config, refuses it whole or takes it whole (`activation`). Looks, rollbacks and the ends of trials happen
in one task, one after the other. Workers are kept by `convergence`, in a task of its own: a look that waits for a file
system or a broker holds up no worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from appliance.bus.base import Bus
from appliance.config.revision import SignedCommit
from appliance.core.plan import Plan
from appliance.core.problems import Problem
from appliance.core.specs import DesiredState
from appliance.errors import (
    ConfigInvalid,
    ConfigUnreadable,
    DaemonUnreachable,
    RequestInvalid,
    RunNodesUnclear,
)
from appliance.reconcile.activation import Activation, Reloadable, Way
from appliance.reconcile.convergence import RESYNC_S, Convergence
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.file_watch import FileWatch
from appliance.reconcile.history import History, Recorder
from appliance.reconcile.kept_files import KeptFile, Pin, PinKeeper, SignedCommits
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.reload_result import (
    Applied,
    LoadedSet,
    ReloadResult,
    find_problems_of,
    pinned_note,
)
from appliance.reconcile.rollback import Rollback
from appliance.reconcile.start import Start
from appliance.reconcile.trial import KeptTrial
from appliance.reconcile.trigger import Request, Requests, Retry, Trigger
from appliance.telemetry.report import Telemetry

LOOK_REASONS = frozenset({"start", "signal", "request", "watch", "poll", "retry"})
HINTS = frozenset({"watch", "poll", "retry"})
"""What only says that there may be something new."""
WRITE_AGAIN_S = 10.0
"""After so long what a full disk did not take is tried once more, if nothing else is to be done before."""


class Reconciler:
    """Owns the loops, and the verdict of the last look."""

    def __init__(
        self,
        reader: SourceReader,
        convergence: Convergence,
        telemetry: Telemetry,
        history: History,
        *,
        trigger: Trigger,
        reloadables: Sequence[Reloadable],
        on_accepted: Callable[[DesiredState], None],
        overrides: OverrideBook,
        pins: PinKeeper,
        commits: SignedCommits,
        trial_file: KeptFile[KeptTrial],
        bus: Bus,
        wall: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._pins = pins
        self._commits = commits
        self._mono = asyncio.get_running_loop().time
        self.convergence = convergence
        self._recorder = Recorder(history, telemetry)
        self.activation = Activation(
            convergence,
            reloadables,
            overrides=overrides,
            pins=pins,
            commits=commits,
            recorder=self._recorder,
            telemetry=telemetry,
            on_accepted=on_accepted,
            wall=wall,
        )
        self.trigger = trigger
        """Reasons to look; those for a pass over the workers go to `convergence`."""
        self.files = FileWatch(reader, trigger)
        self.rollback = Rollback(
            self.activation,
            convergence,
            reader,
            self.files,
            history,
            telemetry,
            pins,
            trial_file,
            bus=bus,
            wall=wall,
        )
        self.last_attempt: ReloadResult | None = None
        self._ending = asyncio.Event()
        self.on_look: Callable[[ReloadResult | None], None] = lambda _: None
        """Told when a look begins (None), and its verdict when that is there, before those who wait get it."""
        self._requests = Requests()
        self._retry = Retry()
        self._looking: asyncio.Task[None] | None = None

    @property
    def applied(self) -> Applied | None:
        """The set in force."""
        return self.activation.applied

    @property
    def unwritten_records(self) -> int:
        """How many verdicts the disk has not taken."""
        return self._recorder.unwritten

    def find_newest_commit(self) -> SignedCommit | None:
        """The newest signed commit that was in force."""
        newest, applied = self._commits.newest, self.applied
        if newest is not None or applied is None or applied.revision is None:
            return newest
        return SignedCommit(applied.revision)  # an earlier version has kept no more

    @property
    def verdict_on_files(self) -> ReloadResult | None:
        """What became of what the files hold: neither another look nor a restart makes a set good that was taken back."""
        pin, last = self._pins.pin, self.last_attempt
        is_bad = last is not None and last.result in ("refused", "reverted")
        if last is None or is_bad or pin is None or not pin.is_after_trial:
            return last
        problems = tuple(Problem(code="E310", message=failure) for failure in pin.failures)
        return replace(last, result="reverted", problems=problems)

    # -- life -------------------------------------------------------------------------------------

    async def start(self, start: Start) -> ReloadResult:
        """Bring a first set into force: what the files hold, or where that is refused the last good one."""
        # before anything else: the same set after a restart is the same generation
        await self.activation.recall()
        on_disk = await asyncio.to_thread(self._pins.load)
        # the files may have changed while nothing ran: then the pin on disk is out of date, and is removed soon
        self._pins.restore(start.pin, is_on_disk=on_disk == start.pin)
        started = self._mono()
        refusal: ReloadResult | None = None
        if start.problems:
            # told and recorded first, so that the history says why an older set runs
            refusal = await self._refuse_first(start, started)
            verdict = await self._begin_with(start.first, None)
        else:
            way = Way(trigger="start", pin=start.pin, start=start)
            attempt = self.activation.bring_into_force(start.first, way)
            # what is unforeseen refuses a start as it refuses a reload
            found = await self._within_boundary(way, attempt, digest=start.first.digest)
            assert found is not None
            verdict = found
            if verdict.result == "refused":
                # an address or a broker may be gone, which refuses a start as it refuses a reload
                refusal = verdict
                verdict = await self._begin_with(start.last_good or start.first, start.pin)
        # who looks wants to know why the files are not in force, and not that something else is
        self.last_attempt = refusal or verdict
        # the label of another set must not pass for the commit that the files stand at
        is_of_files = start.pin is None and not start.problems
        await self.files.begin(start.files_digest, start.first.label if is_of_files else None)
        if refusal is None and start.last_good is not None:
            # an edit made while nothing ran is on trial as one that is reloaded
            await self.rollback.begin_trial_at_start(start.last_good)
        else:
            await self.rollback.resume_trial()
        # what refused the files at the start may be over in a moment, without an edit
        self._retry.plan(self.last_attempt, self._mono())
        return self.last_attempt

    async def _refuse_first(self, start: Start, started: float) -> ReloadResult:
        async def read_texts() -> dict[str, str]:
            return dict(start.attempted or {})

        return await self.activation.refuse(
            start.problems,
            Way(trigger="start"),
            started,
            digest=start.files_digest,
            read_texts=read_texts,
        )

    async def _begin_with(self, loaded: LoadedSet, pin: Pin | None) -> ReloadResult:
        """A set that was in force before: nothing speaks against it."""
        way = Way(trigger="start", force=True, pin=pin, goes_back=True)
        return await self.activation.bring_into_force(loaded, way)

    async def run(self) -> None:
        """Look and converge until stopped."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.convergence.run(self._ending), name="converging")
            # kept by name: `stop` cuts off a look that waits for a file system
            self._looking = group.create_task(self._look_until_stopped(), name="looking")

    async def _look_until_stopped(self) -> None:
        try:
            while not self._ending.is_set():
                await self._turn()
        finally:
            self._requests.turn_away(DaemonUnreachable("the daemon is stopping"))

    async def _turn(self) -> None:
        # a look that waits for quiet files takes every reason, also one to stop or to go back
        if not self._requests.rollbacks:
            await self.trigger.wait(self._next_wait_s())
        woken_by = self.trigger.take()
        # an event that came before the set in force, which wants none: what was written since is not its business
        reasons = woken_by if self._follows_events else woken_by - {"watch"}
        if self._ending.is_set():
            return
        # a disk that was full has left them unwritten, and a restart would bring back what was taken back
        for kept in (self._pins, self._commits, self.rollback, self._recorder):
            await kept.catch_up()
        if self._retry.due_mono is not None and self._mono() >= self._retry.due_mono:
            reasons |= {"retry"}
        # it was time that woke us: hints may be missing (a network file system, inotify's limits), contents do not lie
        if not woken_by and self.applied is not None and await self.files.has_changed():
            reasons = frozenset({"poll"})
        while self._requests.rollbacks:
            # before the look, which then finds the files pinned instead of bringing them into force once more
            await self._roll_back(self._requests.take_rollback())
        if reasons & LOOK_REASONS:
            await self._look(reasons)
        # after the look: a set that mends a worker on trial takes it over before it would be judged
        verdict = await self._within_boundary(Way(trigger="trial"), self.rollback.judge_trial())
        if verdict is not None:
            self._tell(verdict)

    def hint(self) -> None:
        """The files may have changed. The poll sees it anyway; where the config wants that, look at once."""
        if self._follows_events:
            self.trigger.set("watch")

    @property
    def _follows_events(self) -> bool:
        return self.applied is None or self.applied.desired.reload.watch

    def stop(self) -> None:
        """End after the pass and the look in hand; a look that waits for its file system is given up."""
        self._ending.set()
        self.trigger.set("stop")
        self.convergence.trigger.set("stop")
        # only there: what is being staged or applied ends by itself and must not be cut in two
        if self._reader.is_asking and self._looking is not None:
            self._looking.cancel()

    def busy_s(self) -> float:
        """How long the longest pass or look in hand has been at work."""
        return max(self.trigger.busy_s, self.convergence.trigger.busy_s)

    async def reload(self, *, force: bool, trigger: str, by: str = "") -> ReloadResult:
        """Ask for a look and wait for its verdict."""
        verdict = self._requests.add(self._make_request(force, trigger, by))
        self.trigger.set("request")
        return await verdict

    async def roll_back(self, *, to: str | None, force: bool, by: str = "") -> ReloadResult:
        """Go back to a set that was in force and pin it until the files change again.

        Args:
            to: number, generation, digest or revision of a record; None for the set before this one.

        Raises:
            RequestInvalid: there is no such set, or its files were not kept.
        """
        request = self._make_request(force, "rollback", by)
        request.to = to or ""
        verdict = self._requests.add(request)
        self.trigger.set("rollback")
        return await verdict

    def _make_request(self, force: bool, trigger: str, by: str) -> Request:
        if self._ending.is_set():
            raise DaemonUnreachable("the daemon is stopping")
        return Request(force, trigger, by, asyncio.get_running_loop().create_future())

    def _next_wait_s(self) -> float:
        applied = self.applied
        wait_s = applied.desired.reload.poll_interval_s if applied else RESYNC_S
        for due_mono in (self._retry.due_mono, self.rollback.trial_ends_mono):
            if due_mono is not None:
                wait_s = min(wait_s, max(0.0, due_mono - self._mono()))
        # a disk that has room again is nobody's event
        return min(wait_s, WRITE_AGAIN_S) if self._recorder.unwritten else wait_s

    # -- looking ----------------------------------------------------------------------------------

    async def _look(self, reasons: frozenset[str]) -> None:
        assert self.applied is not None
        self.on_look(None)
        # a signal that comes while the files settle asks no less than one that came before
        reasons |= await self.files.hold_still(self.applied.desired.reload.settle_s)
        # not earlier: whoever asks while the files settle is answered by this look
        requests = self._requests.take_looks()
        by = ", ".join(dict.fromkeys(item.by for item in requests if item.by))
        way = Way(
            # somebody who asked is a better cause than any hint; among hints one is as good as another
            trigger=requests[0].trigger if requests else min(reasons & LOOK_REASONS),
            by=by,
            force=any(request.force for request in requests),
        )
        # who asks wants things to be as the config says, whether it changed or not
        asked = bool(requests) or "signal" in reasons
        verdict = await self._within_boundary(way, self._attempt(way, asked=asked))
        assert verdict is not None
        self._tell(verdict)
        self._retry.plan(verdict, self._mono())
        for request in requests:
            request.answer(verdict)

    def _tell(self, verdict: ReloadResult) -> None:
        self.last_attempt = verdict
        self.on_look(verdict)

    async def _within_boundary(
        self, way: Way, attempt: Awaitable[ReloadResult | None], *, digest: str = ""
    ) -> ReloadResult | None:
        """The boundary around everything that may change the set in force: the daemon must go on."""
        started = self._mono()
        try:
            return await attempt
        except RequestInvalid:
            raise  # who asked for a set that is not there hears it
        except Exception as error:  # noqa: BLE001 - see above
            problem = Problem(
                code="E306", message=f"internal error: {type(error).__name__}: {error}"
            )
            return await self.activation.refuse(
                (problem,),
                way,
                started,
                digest=digest or self.files.digest,
                known=self._known(way),
            )

    def _known(self, way: Way) -> ReloadResult | None:
        return self.last_attempt if way.trigger in HINTS else None

    async def _attempt(self, way: Way, *, asked: bool) -> ReloadResult:
        started = self._mono()
        applied = self.applied
        assert applied is not None
        # not even compiled: a pinned set stays whatever the files hold
        if not way.force and self._pins.holds(self.files.digest):
            return self.activation.unchanged(way, started, pinned_note(self._pins.pin))
        try:
            loaded = await self._reader.load()
        except (ConfigInvalid, ConfigUnreadable, RunNodesUnclear) as error:
            return await self.activation.refuse(
                find_problems_of(error),
                way,
                started,
                digest=self.files.digest,
                revision=self.files.revision,
                read_texts=self._reader.texts,
                known=self._known(way),
            )
        clears = asked and self.convergence.clears_overrides(loaded.desired)
        # the same set is brought into force again only where that clears overrides
        if loaded.digest == applied.digest and not clears:
            return await self.activation.stay(loaded, way, started)
        verdict = await self.activation.bring_into_force(loaded, way, known=self._known(way))
        if verdict.result == "applied":
            # what was loaded may be younger than what `hold_still` saw, and is no change for the next look
            self.files.saw(loaded.digest)
            await self.rollback.begin_trial(applied, verdict.plan)
        return verdict

    async def _roll_back(self, request: Request) -> None:
        way = Way(trigger="rollback", by=request.by)
        try:
            verdict = await self._within_boundary(way, self.rollback.roll_back(request))
        except RequestInvalid as error:
            request.fail(error)
            return
        assert verdict is not None
        self._tell(verdict)
        request.answer(verdict)

    def predict(self, loaded: LoadedSet, *, force: bool = False) -> Prediction:
        """What a look at this set would do if the files that are watched held it."""
        if not force and self._pins.holds(loaded.digest):
            # also where it was read elsewhere: what says the same is no change of the files
            note = pinned_note(self._pins.pin)
            return Prediction(Plan(), (), (note, *loaded.warnings), is_pinned=True)
        objections = self.activation.find_rejections(loaded, Way(trigger="request", force=force))
        plan = self.convergence.predict(loaded.desired)
        return Prediction(plan, objections, tuple(loaded.warnings), is_pinned=False)


class Prediction(NamedTuple):
    """What a look would come to."""

    plan: Plan
    objections: tuple[Problem, ...]
    """Why the set would be refused."""
    warnings: tuple[Problem, ...]
    is_pinned: bool
    """Whether an older set is pinned, so that nothing would happen."""
