"""The one way into force: start, reload, rollback and the end of a trial all take it.

A set that was loaded -> what would change -> what speaks against it -> what can be moved is staged beside the old
(listener, inputs, broker) -> from there on it is in force. Up to that point nothing has changed, and whatever was staged
is undone in reverse; beyond it nothing can refuse any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from appliance.config.revision import Revision
from appliance.core.problems import Problem, Severity
from appliance.core.specs import DesiredState
from appliance.errors import ApplianceError
from appliance.reconcile.convergence import Convergence
from appliance.reconcile.history import Recorder
from appliance.reconcile.kept_files import Pin, PinKeeper, SignedCommits
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.reload_result import (
    Applied,
    LoadedSet,
    ReloadResult,
    find_rejections,
)
from appliance.reconcile.start import Start
from appliance.telemetry.report import Telemetry


class Staged(Protocol):
    """New settings that are ready beside the old ones."""

    async def commit(self) -> None:
        """The new ones hold; the old ones go."""
        ...

    async def abandon(self) -> None:
        """As it was. Raises ApplianceError or OSError when that is not possible any more."""
        ...


class Reloadable(Protocol):
    """A part of the daemon whose settings change while it runs."""

    def differs(self, old: DesiredState, new: DesiredState) -> bool:
        """Whether the part has anything to do."""
        ...

    async def stage(self, old: DesiredState, new: DesiredState, *, insist: bool) -> Staged:
        """Make the new settings ready.

        Args:
            insist: whether they must be seen to work; a way back takes them as they are.

        Raises:
            ApplianceError, OSError: they cannot be used; nothing has changed.
        """
        ...

    def describe(self, error: Exception) -> Problem:
        """What to tell of an error of its own."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a set comes into force: what brought it, and which guards hold."""

    trigger: str
    by: str = ""
    """Who asked, where that is known."""
    force: bool = False
    pin: Pin | None = None
    """A way back: the set that is to stay until the files change."""
    goes_back: bool = False
    """The set was in force before, and is to be so again whatever is away now."""
    failures: tuple[Problem, ...] = ()
    """What the set that is in force did wrong on its trial."""
    start: Start | None = None
    """At the start: what the guards compare with, where no set is in force yet."""


class Activation:
    """Owns the set in force. Called by one task at a time."""

    def __init__(
        self,
        convergence: Convergence,
        reloadables: Sequence[Reloadable],
        *,
        overrides: OverrideBook,
        pins: PinKeeper,
        commits: SignedCommits,
        recorder: Recorder,
        telemetry: Telemetry,
        on_accepted: Callable[[DesiredState], None],
        wall: Callable[[], float],
    ) -> None:
        self._convergence = convergence
        self._reloadables = reloadables
        self._overrides = overrides
        self._pins = pins
        self._commits = commits
        self._recorder = recorder
        self._telemetry = telemetry
        self._on_accepted = on_accepted
        self._wall = wall
        self._mono = asyncio.get_running_loop().time
        self.applied: Applied | None = None
        self.last_generation = 0
        """Of the set that an earlier run had in force."""
        self.last_digest = ""
        """Of that set."""

    async def recall(self) -> None:
        """Learn what an earlier run had in force."""
        last = await self._recorder.last_applied()
        generation = last.get("generation")
        self.last_generation = generation if isinstance(generation, int) else 0
        self.last_digest = str(last.get("digest") or "")

    async def bring_into_force(
        self, loaded: LoadedSet, way: Way, *, known: ReloadResult | None = None
    ) -> ReloadResult:
        """Put a set in force, or refuse it whole; `known` is as of `refuse`."""
        started = self._mono()
        # first what can be said without touching anything
        problems = self.find_rejections(loaded, way)
        if problems:
            return await self.refuse(problems, way, started, loaded, known=known)
        old = self._compared_with(loaded, way)
        async with AsyncExitStack() as undo:
            staged, found = await self._stage(old, loaded.desired, undo, insist=not way.goes_back)
            if not found:
                # all are ready: from here on nobody may undo them
                undo.pop_all()
        if found:
            # only now: what could not be undone either has been added to the list meanwhile
            placed = tuple(map(loaded.place, found))
            return await self.refuse(placed, way, started, loaded, known=known)
        for one in staged:
            await one.commit()
        # NB: before the workers move: no restart in between undoes a way back
        await self._pins.put(way.pin)
        return await self._accept(loaded, way, started)

    def find_rejections(self, loaded: LoadedSet, way: Way) -> tuple[Problem, ...]:
        """Why a valid set would be refused all the same."""
        old = self._compared_with(loaded, way)
        start = way.start
        filled = self.applied.filled if self.applied else start.filled if start else frozenset()
        is_same = loaded.digest == (self.applied.digest if self.applied else self.last_digest)
        observed = start.observed if start is not None else None
        if observed is None:
            observed = self._convergence.observe()
        return find_rejections(
            loaded,
            old,
            filled,
            self._convergence.predict(loaded.desired, observed),
            observed,
            force=way.force,
            restarts=self.applied is None,
            is_known=way.goes_back or is_same,
        )

    def _compared_with(self, loaded: LoadedSet, way: Way) -> DesiredState:
        if self.applied is not None:
            return self.applied.desired
        return loaded.desired if way.start is None else way.start.built

    async def _stage(
        self, old: DesiredState, new: DesiredState, undo: AsyncExitStack, *, insist: bool
    ) -> tuple[list[Staged], list[Problem]]:
        staged: list[Staged] = []
        problems: list[Problem] = []
        for part in self._reloadables:
            if not part.differs(old, new):
                continue
            try:
                one = await part.stage(old, new, insist=insist)
            except (ApplianceError, OSError) as error:
                problems.append(part.describe(error))
                # what follows is not touched: each part that was staged has to be undone
                break
            undo.push_async_callback(_abandon, part, one, problems)
            staged.append(one)
        return staged, problems

    async def _accept(self, loaded: LoadedSet, way: Way, started: float) -> ReloadResult:
        """The first point at which anything of the set takes effect."""
        before = self.applied
        hidden = loaded.desired.hidden.joined(self._compared_with(loaded, way).hidden)
        generation = self._next_generation(loaded, way)
        # a restart is no reload: what an operator started or stopped by hand survives it
        is_restart_of_same = before is None and generation == self.last_generation
        clear = self._convergence.clears_overrides(loaded.desired) and not is_restart_of_same
        # before the plan is made, which counts with the overrides that are left
        await self._overrides.drop_idle(loaded.desired, clear=clear)
        now = self._wall()

        def take() -> None:
            self.applied = Applied.from_loaded(loaded, generation=generation, applied_at=now)
            self._on_accepted(loaded.desired)

        plan, report = await self._convergence.converge_to(loaded.desired, take)
        verdict = ReloadResult(
            result="reverted" if way.failures else "applied",
            at=now,
            trigger=way.trigger,
            by=way.by,
            digest=loaded.digest,
            revision=loaded.revision,
            generation=generation,
            problems=(*way.failures, *loaded.warnings),
            plan=plan,
            duration_s=self._mono() - started,
            drains=tuple(report.drains),
            failed={name: hidden.text(why) for name, why in report.failed.items()},
            hidden=hidden,
        )
        self._telemetry.config_applied(
            generation,
            loaded.digest,
            loaded.revision,
            plan.summary(),
            verdict.duration_s,
            way.trigger,
            verdict.result,
            is_taken_back=self._is_taken_back,
        )
        await self._note_commit(loaded, way)
        if way.failures:
            self._telemetry.config_reverted(way.failures)
        # last, as it tells what became of the workers; no disk keeps them from moving
        await self._recorder.record(
            verdict,
            revision=loaded.label,
            previous_digest=before.digest if before is not None else None,
            files=loaded.files,
        )
        return verdict

    async def _note_commit(self, loaded: LoadedSet, way: Way) -> None:
        """What older commits are told by: a way back does not lower it, only somebody who insists does."""
        if loaded.signed is None or way.goes_back or (loaded.older_than and not way.force):
            return
        await self._commits.put(loaded.signed)

    def _next_generation(self, loaded: LoadedSet, way: Way) -> int:
        if self.applied is None:
            is_same = self.last_digest == loaded.digest
            return self.last_generation + (0 if is_same and self.last_generation else 1)
        is_same = self.applied.digest == loaded.digest and not way.goes_back
        return self.applied.generation + (0 if is_same else 1)

    async def stay(self, loaded: LoadedSet, way: Way, started: float) -> ReloadResult:
        """The files hold the set in force: whatever was wrong with them is over, and nothing is pinned any more."""
        assert self.applied is not None
        await self._pins.put(None)
        await self._note_commit(loaded, way)
        # a commit may have changed nothing here: the status still says where the files stand
        self.applied = replace(
            self.applied, revision=loaded.revision, branch=loaded.branch, dirty=loaded.dirty
        )
        return self.unchanged(way, started)

    def unchanged(self, way: Way, started: float, *notes: Problem) -> ReloadResult:
        """A look that changed nothing; `notes` say why, where it is not for being the same."""
        assert self.applied is not None
        self._telemetry.config_unchanged(way.trigger, is_taken_back=self._is_taken_back)
        return ReloadResult(
            result="unchanged",
            at=self._wall(),
            trigger=way.trigger,
            by=way.by,
            digest=self.applied.digest,
            revision=self.applied.revision,
            generation=self.applied.generation,
            problems=notes,
            duration_s=self._mono() - started,
        )

    @property
    def _is_taken_back(self) -> bool:
        """Whether the files hold a set that did not stand its trial: no look is good until they change."""
        return self._pins.pin is not None and self._pins.pin.is_after_trial

    async def refuse(
        self,
        problems: Sequence[Problem],
        way: Way,
        started: float,
        loaded: LoadedSet | None = None,
        *,
        digest: str = "",
        revision: Revision | None = None,
        read_texts: Callable[[], Awaitable[dict[str, str]]] | None = None,
        known: ReloadResult | None = None,
    ) -> ReloadResult:
        """The set in force stays, and why is told.

        Args:
            digest, revision, read_texts: of what was refused, where it is no loaded set.
            known: a verdict that, saying the same, makes this one no news.
        """
        applied = self.applied
        label = loaded.label if loaded else revision
        verdict = ReloadResult(
            result="refused",
            at=self._wall(),
            trigger=way.trigger,
            by=way.by,
            digest=loaded.digest if loaded else digest,
            revision=label.commit if label else None,
            generation=applied.generation if applied else self.last_generation,
            problems=tuple(sorted(problems, key=lambda one: one.severity is not Severity.ERROR)),
            duration_s=self._mono() - started,
        )
        if known is not None and known.says_the_same(verdict):
            return verdict
        self._telemetry.config_refused(verdict.problems, way.trigger)
        # the disk is asked for the texts only when there is something to record
        attempted = loaded.files if loaded else await read_texts() if read_texts else {}
        await self._recorder.record(
            verdict,
            revision=label,
            previous_digest=applied.digest if applied else self.last_digest or None,
            files={},
            attempted=attempted,
        )
        return verdict


async def _abandon(part: Reloadable, staged: Staged, problems: list[Problem]) -> None:
    try:
        await staged.abandon()
    except (ApplianceError, OSError) as error:
        gone = part.describe(error)
        problems.append(replace(gone, message=f"and the old settings are gone: {gone.message}"))
