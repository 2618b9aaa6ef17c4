"""The book of jobs: what was asked of whom, what came of it so far, and the output.

A job is on disk before its messages are accepted; that they were is a fact in the same commit as the messages. What
becomes of them is told here by those who learn it, folded into `core.outcome`, and written soon; an answer is on disk
before it is acknowledged. In memory is what something may still come of: a message that is part of no job costs one
look into an empty dictionary.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from appliance.core.current import Current
from appliance.core.delivery import DeliveryState, Standing, state_of_reason, why_of_reason
from appliance.core.message import body_number
from appliance.core.outcome import AnswerFacts
from appliance.core.specs import JobSettings
from appliance.errors import StoreError
from appliance.jobs.asking import Asking
from appliance.jobs.records import (
    LEAVES_OUTBOX,
    Ending,
    JobFacts,
    KeptJob,
    Target,
    TargetFacts,
    TargetState,
    taken_back,
)
from appliance.jobs.writer import JobWriter
from appliance.outbox.facts import FactChanges
from appliance.outbox.job_file import JobFile, Statement
from appliance.outbox.texts import plain_text

FACT_KIND = "job"
"""Of the facts that tell, by job, that its messages were accepted: committed with them."""
ID_CHARACTERS = "23456789abcdefghjkmnpqrstuvwxyz"
"""Without those that are read for one another."""
ID_LENGTH = 8
MAX_JOBS = 10_000
MAX_OPEN = 200_000
"""Messages of all jobs of which something may still come; beyond it the oldest jobs are forgotten."""
ROW_BYTES = 300
"""What a job or a message takes beside its texts, generously."""
MAX_BEING_FILED = 1_000
FORGET_EVERY_S = 10.0
LATE_S = 60.0
"""What the answer of a Go node may take to come after the time that it gives its handler."""
NOT_ACCEPTED = "the appliance stopped before it was accepted"
OUTBOX_LOST = "the outbox that it waited in is gone"

_INSERT_JOB = "INSERT INTO job (key, id, at, is_accepted, facts) VALUES (?, ?, ?, 0, ?)"
_INSERT_TARGET = "INSERT INTO target (key, job, message, is_open, kind, facts, state) VALUES (?, ?, ?, ?, ?, ?, ?)"
_ACCEPT = "UPDATE job SET is_accepted = max(is_accepted, ?) WHERE key = ?"
"""Up to which batch; one is asked after the other."""


class Outbox(Protocol):
    """What is asked of the store."""

    instance: str

    def now(self) -> float:
        """Steady seconds."""
        ...

    def is_pending(self, record_id: int) -> bool:
        """Whether a record was accepted and is not settled."""
        ...

    def facts(self, kind: str) -> Mapping[str, str]:
        """What is remembered of a kind, by key."""
        ...

    async def dead_reasons(self, ids: Sequence[int]) -> Mapping[int, str]:
        """Why records became dead letters, of those that are some."""
        ...


class NewMessage(NamedTuple):
    """A message of a job that is about to be accepted; `id` is None for one that is refused."""

    id: int | None
    facts: TargetFacts
    state: TargetState


class JobLedger:
    """One for a daemon; `load` it before the first message is sent."""

    def __init__(self, file: JobFile, outbox: Outbox, settings: Current[JobSettings]) -> None:
        self.file = file
        self._outbox = outbox
        self._settings = settings
        self._jobs: dict[str, KeptJob] = {}
        """By id, the oldest first."""
        self._by_message: dict[int, Target] = {}
        """Those that have not left the outbox."""
        self._by_number: dict[int, Target] = {}
        """Those whose answer is not complete."""
        self._by_go_nodes: dict[Target, None] = {}
        """Those that Go nodes have, of which at some time nothing is waited for any more."""
        self._being_filed: dict[int, Target] = {}
        """The latest whose answers are complete, and handled from now on."""
        self.asking = Asking()
        """What the daemon itself asks of nodes."""
        self._next_key = 1
        self._stale_facts: dict[str, None] = {}
        self._writer = JobWriter(file, settings)

    # -- what is there ----------------------------------------------------------------------------

    @property
    def is_watching(self) -> bool:
        """Whether any message in the outbox belongs to a job."""
        return bool(self._by_message or self.asking)

    @property
    def jobs(self) -> Mapping[str, KeptJob]:
        """All that are kept, by id, the oldest first."""
        return self._jobs

    @property
    def open_count(self) -> int:
        """Jobs of which something may still come."""
        return sum(1 for job in self._jobs.values() if job.open)

    @property
    def size_bytes(self) -> int:
        """What all of them take, outputs included."""
        return sum(job.size_bytes for job in self._jobs.values())

    def knows(self, number: int) -> bool:
        """Whether an answer to a message with this number in its body is waited for."""
        return (bool(self._by_number) and body_number(number) in self._by_number) or (
            bool(self.asking) and self.asking.knows(number)
        )

    @property
    def holds_answers(self) -> bool:
        """Whether there are answers that are not on disk yet."""
        return self._writer.holds_answers

    def unsettled(self) -> list[Target]:
        """Messages in the outbox."""
        return list(self._by_message.values())

    async def written(self) -> None:
        """Until everything that was told so far is on disk, or turned out not to be possible."""
        await self._writer.written()

    async def wait_for_change(self, timeout_s: float) -> None:
        """Until something changes at any job, or the time is over."""
        await self._writer.wait_for_change(timeout_s)

    async def close(self) -> None:
        """Write what is left, then close the file."""
        await self._writer.close()
        await self.file.close()

    # -- a new job --------------------------------------------------------------------------------

    def new_id(self) -> str:
        """An id that no job has."""
        while True:
            found = "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))
            if found not in self._jobs:
                return found

    async def begin(self, id_: str, facts: JobFacts, messages: Sequence[NewMessage]) -> KeptJob:
        """Record a job, before its messages are accepted.

        Raises:
            StoreError: nothing was recorded.
        """
        facts.instance = self._outbox.instance
        encoded = msgspec.json.encode(facts)
        job = KeptJob(self._take_key(), id_, self._outbox.now(), len(encoded) + ROW_BYTES)
        statement = (_INSERT_JOB, (job.key, id_, job.at, encoded))
        targets = await self._insert([statement], job, facts, messages)
        self._jobs[id_] = job
        self._follow_all(targets)
        return job

    async def extend(
        self, job: KeptJob, facts: JobFacts, messages: Sequence[NewMessage]
    ) -> list[Target]:
        """Record another batch of a job, before its messages are accepted.

        Raises:
            StoreError: nothing was recorded.
        """
        targets = await self._insert([], job, facts, messages)
        self._follow_all(targets)
        return targets

    async def _insert(
        self,
        statements: list[Statement],
        job: KeptJob,
        facts: JobFacts,
        messages: Sequence[NewMessage],
    ) -> list[Target]:
        targets = []
        for message, where, state in messages:
            target = Target(
                *(self._take_key(), job, message, where, state),
                wants_status=facts.wants_status,
                is_now=facts.is_now,
            )
            described, known = msgspec.json.encode(where), msgspec.json.encode(state)
            job.size_bytes += len(described) + ROW_BYTES
            standing = (target.key, job.key, message, target.is_open, str(target.kind))
            statements.append((_INSERT_TARGET, (*standing, described, known)))
            targets.append(target)
        await self.file.write(statements)
        return targets

    def _follow_all(self, targets: Iterable[Target]) -> None:
        # before they are put: one may be acknowledged before the put returns
        for target in targets:
            self._follow(target)

    def facts_with(self, id_: str, batch: int = 1) -> FactChanges:
        """What is committed together with the messages of a batch: that they were accepted."""
        stale, self._stale_facts = self._stale_facts, {}
        accepted = (FACT_KIND, _fact_key(id_, batch))
        return {accepted: "1", **{(FACT_KIND, old): None for old in stale}}

    def accepted(self, job: KeptJob, batch: int = 1) -> None:
        """The messages of a batch are on disk. Nobody waits for this to be written: the fact says it, too."""
        self._stale_facts[_fact_key(job.id, batch)] = None
        self._writer.order(_ACCEPT, (batch, job.key))
        self._make_room()

    def withdraw(self, job: KeptJob) -> None:
        """Its messages were not taken: there is no job."""
        self._forget(job)

    def withdraw_batch(self, targets: Iterable[Target]) -> None:
        """The messages of a further batch were not taken: the job is as it was."""
        for target in targets:
            self._let_go(target)
            self._writer.order("DELETE FROM target WHERE key = ?", (target.key,))

    # -- what becomes of it -----------------------------------------------------------------------

    def concluded(
        self,
        record_id: int,
        reason: str | None,
        *,
        state: DeliveryState = DeliveryState.TAKEN,
        by_seed: bool = False,
    ) -> None:
        """A message left the outbox: delivered to where `state` says, with `by_seed` to a node that is no appliance, as far
        as it says; or with `reason` as a dead letter.
        """
        if self.asking:
            self.asking.concluded(record_id, reason)
        target = self._by_message.get(record_id)
        if target is not None:
            if by_seed and reason is None and not target.facts.via:
                target.state.over_at = self._outbox.now() + target.facts.time_s + LATE_S
            self._settle(target, state, reason)

    def dropped(self, ids: Iterable[int], end: Standing) -> list[Target]:
        """Messages were taken out of the outbox by hand; which of them were of a job."""
        found = []
        for record_id in ids:
            target = self._by_message.get(record_id)
            if target is not None and not self._outbox.is_pending(record_id):
                target.outcome.stand(end, settles=True)
                self._note(target)
                found.append(target)
        return found

    def answered(
        self,
        number: int,
        from_node: str,
        facts: AnswerFacts,
        pieces: Sequence[tuple[str, bytes]],
        source: str | None,
        *,
        asked: str = "",
        relayed_by: str = "",
    ) -> None:
        """An answer to a message of ours, or a piece of one; `source` is what tells it from a resend, `asked` the node that
        it says the message was for, `relayed_by` the Go node that passed it on.
        """
        if self.asking:
            self.asking.answered(number, from_node, pieces[0][1], facts.exit_status)
        target = self._by_number.get(body_number(number))
        if target is None or not target.is_answered_by(from_node, asked, relayed_by):
            return
        target.outcome.answer(facts)
        self._writer.add_answer(target, source, pieces)
        self._note(target)
        if target.facts.filed and not target.is_open:
            self._being_filed[target.number] = target
            if len(self._being_filed) > MAX_BEING_FILED:
                del self._being_filed[next(iter(self._being_filed))]

    def not_filed(
        self, number: int, from_node: str, why: str, *, asked: str = "", relayed_by: str = ""
    ) -> None:
        """The answer that was told of before could not be filed after all."""
        target = self._being_filed.get(body_number(number))
        if target is not None and target.is_answered_by(from_node, asked, relayed_by):
            target.outcome.not_filed = plain_text(why)
            self._note(target)

    def begin_again(self, targets: Iterable[Target]) -> None:
        """Dead letters of these are messages again."""
        for target in targets:
            target.outcome.begin_again()
            target.state.stopped, target.state.ending = "", Ending.NOT_ASKED
            target.state.over_at = 0.0
            self._follow(target)
            self._note(target)

    def note_stop(self, target: Target, words: str, *, is_in_vain: bool) -> None:
        """What came of stopping it."""
        target.state.stopped, target.state.is_stop_in_vain = plain_text(words), is_in_vain
        self._note(target)

    async def note_endings(self, endings: Mapping[Target, Ending]) -> None:
        """How far the wish to end these has come; on disk when it returns, as far as the disk takes it."""
        for target, ending in endings.items():
            if target.state.ending is not ending:
                target.state.ending = ending
                self._note(target)
        await self.written()

    async def note_facts(self, job: KeptJob, facts: JobFacts) -> None:
        """What is known of the whole has changed."""
        # NB: before the wait, so that no further batch comes in between
        job.is_cancelled = bool(facts.cancelled_by)
        await self.file.write(
            [("UPDATE job SET facts = ? WHERE key = ?", (msgspec.json.encode(facts), job.key))]
        )

    def _settle(self, target: Target, state: DeliveryState, reason: str | None) -> None:
        standing = Standing(state)
        if reason is not None:
            # NB: a reason may quote the other side
            standing = Standing(state_of_reason(reason), plain_text(why_of_reason(reason)))
        target.outcome.stand(standing, settles=True)
        self._note(target)

    def _note(self, target: Target) -> None:
        if not target.is_open:
            self._unfollow(target)
        elif target.state.over_at:
            self._by_go_nodes[target] = None
        if target.outcome.is_settled:
            self._by_message.pop(target.message or 0, None)
        self._writer.change(target)

    def _follow(self, target: Target) -> None:
        if target.message is None or not target.is_open:
            return
        target.job.open[target] = None
        if not target.outcome.is_settled:
            self._by_message[target.message] = target
        if target.outcome.wants_answer:
            self._by_number[target.number] = target
        if target.state.over_at:
            self._by_go_nodes[target] = None

    def _unfollow(self, target: Target) -> None:
        self._by_message.pop(target.message or 0, None)
        if self._by_number.get(target.number) is target:
            del self._by_number[target.number]
        self._by_go_nodes.pop(target, None)
        target.job.open.pop(target, None)

    def _take_key(self) -> int:
        self._next_key += 1
        return self._next_key

    # -- forgetting -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Forget what is old, and wait no longer for what no Go node tells, until cancelled."""
        while True:
            self.end_unheard()
            self._make_room()
            await asyncio.sleep(FORGET_EVERY_S)

    def end_unheard(self) -> None:
        """What Go nodes had, and tell no end of, is over when their time is."""
        now = self._outbox.now()
        for target in [item for item in self._by_go_nodes if item.state.over_at <= now]:
            target.outcome.end_unheard()
            self._note(target)

    def _make_room(self) -> None:
        settings = self._settings.value
        oldest_at = self._outbox.now() - settings.keep_s
        total = self.size_bytes
        open_total = sum(len(job.open) for job in self._jobs.values())
        oldest = next(iter(self._jobs.values()), None)
        is_within = total <= settings.max_bytes and len(self._jobs) <= MAX_JOBS
        if oldest is None or (is_within and open_total <= MAX_OPEN and oldest.at >= oldest_at):
            return
        # what is over goes before what is not, whatever their age; of these the oldest
        for job in sorted(self._jobs.values(), key=lambda job: (bool(job.open), job.at)):
            is_old = job.at < oldest_at
            is_crowded = (
                total > settings.max_bytes or len(self._jobs) > MAX_JOBS or open_total > MAX_OPEN
            )
            if not (is_old or is_crowded):
                continue
            # what still waits in the outbox goes on, and is asked about here
            if is_old and not is_crowded and any(not item.outcome.is_settled for item in job.open):
                continue
            total -= job.size_bytes
            open_total -= len(job.open)
            self._forget(job)

    def _forget(self, job: KeptJob) -> None:
        for target in tuple(job.open):
            self._let_go(target)
        self._jobs.pop(job.id, None)
        for table, column in (("piece", "job"), ("target", "job"), ("job", "key")):
            self._writer.order(f"DELETE FROM {table} WHERE {column} = ?", (job.key,))
        self._writer.order("PRAGMA incremental_vacuum", ())

    def _let_go(self, target: Target) -> None:
        self._unfollow(target)
        self._writer.forget(target)

    # -- the start --------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is kept, and find out what became of it while nobody looked.

        Where the file cannot be read there is nothing yet: it has told so.
        """
        try:
            await self._load()
        except StoreError:
            self._jobs.clear()

    async def _load(self) -> None:
        read = self.file.read
        by_key: dict[int, KeptJob] = {}
        accepted: dict[int, tuple[int, JobFacts]] = {}
        query = "SELECT key, id, at, is_accepted, length(facts) FROM job ORDER BY at, key"
        for key, id_, at, is_accepted, size in await read(query):
            by_key[key] = self._jobs[id_] = KeptJob(key, id_, at, size + ROW_BYTES)
            accepted[key] = (is_accepted, JobFacts(command=""))
        query = "SELECT job, sum(length(facts)) + count(*) * ?, max(key) FROM target GROUP BY job"
        for key, size, last in await read(query, (ROW_BYTES,)):
            if key in by_key:
                by_key[key].size_bytes += size
            self._next_key = max(self._next_key, last)
        self._next_key = max(self._next_key, *by_key, 1)
        for key, size in await read("SELECT job, sum(length(data)) FROM piece GROUP BY job"):
            if key in by_key:
                by_key[key].size_bytes += size
        query = "SELECT key, facts FROM job WHERE key IN (SELECT job FROM target WHERE is_open)"
        for key, facts in await read(query):
            known = msgspec.json.decode(facts, type=JobFacts)
            accepted[key] = (accepted[key][0], known)
            by_key[key].is_cancelled = bool(known.cancelled_by)
        targets: list[Target] = []
        query = "SELECT key, job, message, facts, state FROM target WHERE is_open ORDER BY key"
        for key, job, message, facts, state in await read(query):
            if job not in by_key:
                continue
            asked = accepted[job][1]
            target = Target(
                *(key, by_key[job], message),
                msgspec.json.decode(facts, type=TargetFacts),
                msgspec.json.decode(state, type=TargetState),
                wants_status=asked.wants_status,
                is_now=asked.is_now,
            )
            target.job.open[target] = None
            targets.append(target)
        sizes: dict[int, int] = dict(
            await read(
                "SELECT target, sum(length(data)) FROM piece"
                " WHERE target IN (SELECT key FROM target WHERE is_open) GROUP BY target"
            )
        )
        for target in targets:
            target.kept_bytes = sizes.get(target.key, 0)
        await self._find_out(targets, accepted)

    async def _find_out(
        self, targets: Sequence[Target], accepted: Mapping[int, tuple[int, JobFacts]]
    ) -> None:
        """What became of messages that were in the outbox when the daemon before this one ended."""
        known = self._outbox.facts(FACT_KIND)
        self._stale_facts = dict.fromkeys(known)
        away = [
            item.message
            for item in targets
            if item.message is not None
            and not item.outcome.is_settled
            and not self._outbox.is_pending(item.message)
        ]
        reasons = await self._outbox.dead_reasons(away) if away else {}
        for target in targets:
            message, outcome = target.message, target.outcome
            batches, facts = accepted[target.job.key]
            batch = target.facts.batch
            is_accepted = batch <= batches or _fact_key(target.job.id, batch) in known
            if message is None or outcome.is_settled or self._outbox.is_pending(message):
                self._follow(target)
            elif not is_accepted:
                outcome.reject(NOT_ACCEPTED)
                self._note(target)
            elif facts.instance != self._outbox.instance:
                self._follow(target)
                self._settle(target, DeliveryState.FAILED, f"failed: {OUTBOX_LOST}")
            elif target.state.ending in LEAVES_OUTBOX and message not in reasons:
                self._follow(target)
                outcome.stand(taken_back(target.state.ending, facts.cancelled_by), settles=True)
                self._note(target)
            else:
                self._follow(target)
                # it leaves the outbox when it is delivered, or as a dead letter
                self._settle(target, DeliveryState.TAKEN, reasons.get(message))
        for key in known:
            id_, _, number = key.partition(".")
            job = self._jobs.get(id_)
            if job is not None:
                self._writer.order(_ACCEPT, (int(number or 1), job.key))


def _fact_key(id_: str, batch: int) -> str:
    return id_ if batch == 1 else f"{id_}.{batch}"
