"""Ending jobs: what waits is taken back from the outbox, what runs is ended at its node; and trying again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from appliance.api.jobs import JobsView, NoSuchJob
from appliance.api.model import JobWord, JobWords
from appliance.api.programs import ProgramWords
from appliance.api.standings import Standings
from appliance.core.delivery import DeliveryState, Standing, WaitReason, end_reason, kind_of_wait
from appliance.core.method import PROGRAM_STOP
from appliance.errors import StoreError
from appliance.jobs.ledger import JobLedger
from appliance.jobs.records import Ending, JobFacts, Target, taken_back
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry

STOP_WAIT_S = 5.0
"""How long whoever cancels waits for the word of the nodes."""
STOP_EXPIRES_S = 3_600.0
"""How long the word waits for a node that is away."""
NOW_GRACE_S = 5.0
"""How long a node may be silent, or the broker away, until a job for whoever is there goes on without it."""
LOOK_S = 0.2
NOT_THERE = frozenset(
    {WaitReason.NOBODY, WaitReason.SILENT, WaitReason.BROKER_AWAY, WaitReason.DENIED}
)
NEVER_HEARD = frozenset({WaitReason.NOBODY, WaitReason.BEHIND, WaitReason.DENIED})
"""While a message waits for one of these, no earlier try of it has been heard, as far as can be known."""
NO_WORD = "it was taken there and cannot be ended from here: the node is no appliance, as far as is known here"
KEPT = (
    "a stream of the broker keeps it until the node takes it, and it cannot be ended from here: the node is no appliance,"
    " as far as is known here"
)
HEARD_PERHAPS = "taken back; an earlier try may have been heard, and run"


class JobEnding:
    """One for a daemon."""

    def __init__(
        self,
        view: JobsView,
        ledger: JobLedger,
        store: MessageStore,
        standings: Standings,
        telemetry: Telemetry,
        words: ProgramWords,
        call_off_copy: Callable[[int, str], bool],
    ) -> None:
        self._view = view
        self._ledger = ledger
        self._store = store
        self._standings = standings
        self._telemetry = telemetry
        self._words = words
        self._call_off_copy = call_off_copy
        """Ends a copy that this daemon brings; whether there was one."""
        self._stopping: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for nobody's word any more."""
        for task in self._stopping:
            task.cancel()
        await asyncio.gather(*self._stopping, return_exceptions=True)

    # -- cancelling -------------------------------------------------------------------------------

    async def cancel(self, id_: str, *, by: str) -> JobWords:
        """End everything of a job that has not ended.

        Raises:
            NoSuchJob: there is none.
        """
        job = self._view.find(id_)
        facts = await self._view.read_facts(job)
        targets = await self._view.targets(job, facts)
        asked_batches = max((target.facts.batch for target in targets), default=0)
        is_all = asked_batches >= facts.batches and len(targets) >= facts.files
        is_over = is_all and all(item.outcome.is_over for item in targets)
        if not facts.cancelled_by and not is_over:
            facts.cancelled_by, facts.cancelled_at = by or "an operator", self._store.now()
            # before anything is taken back: a kill in between leaves a job that says so
            await self._ledger.note_facts(job, facts)
        words, asked = await self._end(targets, facts, by)
        if asked:
            await asyncio.wait([task for _, _, task in asked], timeout=STOP_WAIT_S)
        for word, target, task in asked:
            word.done = task.done() and not task.cancelled() and not target.state.is_stop_in_vain
            word.words = (
                target.state.stopped or "the node has not answered yet; the word waits for it"
            )
        return JobWords(job=job.id, nodes=words)

    async def resume(self) -> None:
        """Go on with what was being ended when the daemon before this one ended; before anything is sent."""
        for job in tuple(self._ledger.jobs.values()):
            begun = [target for target in job.open if _is_being_ended(target)]
            if not begun:
                continue
            with contextlib.suppress(StoreError, NoSuchJob):
                facts = await self._view.read_facts(job)
                if self._store.now() - facts.cancelled_at < STOP_EXPIRES_S:
                    await self._end(begun, facts, facts.cancelled_by)

    async def _end(
        self, targets: Sequence[Target], facts: JobFacts, by: str
    ) -> tuple[list[JobWord], list[tuple[JobWord, Target, asyncio.Task[None]]]]:
        """What became of each at once, and who was asked to end what runs."""
        await self._ledger.note_endings(
            {
                target: self._how_it_leaves(target)
                for target in targets
                if not target.outcome.is_over and target.message is not None
            }
        )
        words: list[JobWord] = []
        asked: list[tuple[JobWord, Target, asyncio.Task[None]]] = []
        for target in targets:
            word = JobWord(to=target.facts.to)
            words.append(word)
            if target.outcome.is_over or target.message is None:
                word.done, word.words = True, f"nothing to end: {target.outcome.describe()}"
                continue
            if self._call_off_copy(target.message, by):
                word.done, word.words = True, "ended: what is there stays as it was"
                continue
            ending = await self._take_back(target, by)
            if ending is Ending.TAKING_BACK:
                word.done, word.words = True, "taken back: it was not sent"
                continue
            if not self._words.can_end(facts.method):
                word.words = f"it was begun, and {facts.method} cannot be ended from here"
                continue
            if not self._words.understands(target.answerer) or target.facts.via:
                word.done = ending is Ending.LETTING_GO
                is_kept = target.outcome.state is DeliveryState.STORED
                word.words = HEARD_PERHAPS if word.done else KEPT if is_kept else NO_WORD
                continue
            task = asyncio.create_task(
                self._stop(facts, target), name=f"stop {target.job.id} at {target.facts.to}"
            )
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)
            asked.append((word, target, task))
        return words, asked

    def _how_it_leaves(self, target: Target) -> Ending:
        """Whether it can be taken out of the outbox at this moment, and whether anybody may have heard it."""
        if target.message is None or not self._store.is_pending(target.message):
            return Ending.ASKED
        standing = self._where(target)
        if standing.state is not DeliveryState.WAITING:
            # it stays: the node that has it says what became of it
            return Ending.ASKED
        was_heard = kind_of_wait(standing.why) not in NEVER_HEARD
        return Ending.LETTING_GO if was_heard else Ending.TAKING_BACK

    async def _take_back(self, target: Target, by: str) -> Ending:
        """Out of the outbox, unless it is under way by now."""
        ending = self._how_it_leaves(target)
        target.state.ending = ending
        if ending is not Ending.ASKED:
            await self._drop(target, taken_back(ending, by))
        return ending

    async def _drop(self, target: Target, end: Standing) -> None:
        message = target.message
        assert message is not None
        # NB: it is out of its lane before the first wait, so that nothing can have sent it since the look at it
        await self._store.drop([message], dead_only=False)
        if self._ledger.dropped([message], end):
            reason = end_reason(end.state, end.why)
            facts = target.facts
            self._telemetry.message_taken_back(facts.node, message, facts.to, reason)

    async def _stop(self, facts: JobFacts, target: Target) -> None:
        said = await self._words.ask(
            *(target.facts.node, target.facts.to, facts.method),
            *(PROGRAM_STOP, [str(target.message)]),
            expires_s=STOP_EXPIRES_S,
        )
        words = said.text or said.failure or "it says nothing of it"
        message = target.message or 0
        if not said.failure and said.exit_status != "0" and self._store.is_pending(message):
            # it will not run there: what waits here for an acknowledgement waits for nothing
            await self._drop(target, Standing(DeliveryState.FAILED, "cancelled before it began"))
        self._ledger.note_stop(target, words, is_in_vain=bool(said.failure))

    def _where(self, target: Target) -> Standing:
        assert target.message is not None
        return self._standings.of_record(target.facts.node, target.facts.subject, target.message)

    # -- trying again -----------------------------------------------------------------------------

    async def retry(self, id_: str) -> JobWords:
        """Make messages again of dead letters of a job.

        Raises:
            NoSuchJob: there is none.
        """
        job = self._view.find(id_)
        facts = await self._view.read_facts(job)
        targets = await self._view.targets(job, facts)
        ids = [
            target.message
            for target in targets
            if target.message is not None and target.outcome.has_failed
        ]
        was = {target.key: _describe(target) for target in targets}
        again = {target.message for target in await self._view.expect_retry(ids)} if ids else set()
        if ids:
            await self._store.retry_dead(ids)
        words = []
        for target in targets:
            is_again = target.message in again and target.message is not None
            said = "is tried again" if is_again else f"not tried again: {was[target.key]}"
            words.append(JobWord(to=target.facts.to, done=is_again, words=said))
        return JobWords(job=job.id, nodes=words)

    # -- only those that are there ----------------------------------------------------------------

    async def run(self) -> None:
        """Take back what jobs for whoever is there have waiting for others, until cancelled."""
        while True:
            waiting = [target for target in self._ledger.unsettled() if target.is_now]
            if not waiting:
                await self._ledger.wait_for_change(3_600.0)
                continue
            for target in waiting:
                with contextlib.suppress(StoreError):
                    await self._take_back_absent(target)
            await asyncio.sleep(LOOK_S)

    async def _take_back_absent(self, target: Target) -> None:
        if target.message is None or not self._store.is_pending(target.message):
            return
        standing = self._where(target)
        if standing.state is not DeliveryState.WAITING:
            return
        kind = kind_of_wait(standing.why)
        is_late = self._store.now() - target.job.at > NOW_GRACE_S
        if kind is WaitReason.NOBODY or (is_late and (kind in NOT_THERE or kind is None)):
            why = f"{standing.why}; it was for who is there now"
            await self._drop(target, Standing(DeliveryState.EXPIRED, why))


def _is_being_ended(target: Target) -> bool:
    state = target.state
    return state.ending is not Ending.NOT_ASKED and not (state.stopped or target.outcome.is_over)


def _describe(target: Target) -> str:
    outcome = target.outcome
    if outcome.exit_status is not None:
        return f"it ran, exit {outcome.exit_status}"
    return outcome.describe()
