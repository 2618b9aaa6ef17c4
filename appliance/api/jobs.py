"""Jobs as operators see them: what was asked of whom, what came of it so far, the output; and ending them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import UNSET

from appliance.api import model
from appliance.api.standings import Standings
from appliance.core.delivery import DeliveryState, Standing
from appliance.core.escape import escape_controls
from appliance.core.outcome import Kind
from appliance.core.times import rfc3339
from appliance.errors import RequestInvalid
from appliance.jobs.ledger import JobLedger
from appliance.jobs.records import JobFacts, KeptJob, Target, TargetFacts, TargetState
from appliance.methods.files.rotation import find_predecessors
from appliance.outbox.job_file import Row
from appliance.outbox.store import MessageStore

MAX_MOVED_ASIDE = 3
MAX_FILES_SHOWN = 1_000
"""Of a copy of many."""
MAX_PIECES = 500
MAX_PIECES_BYTES = 4 * 1024 * 1024
"""Of one answer; whoever wants more asks for what follows."""
_TARGET = "SELECT key, message, facts, state FROM target"
_NOT_DONE_FIRST = "WHERE job = ? ORDER BY kind = 'done', key LIMIT ?"
_COUNT_BY_NODE = "SELECT json_extract(CAST(facts AS TEXT), '$.to'), kind, count(*) FROM target WHERE job = ? GROUP BY 1, 2"
_KEPT = "SELECT target, sum(length(data)) FROM piece WHERE job = ? GROUP BY target"


class NoSuchJob(RequestInvalid):
    """There is none of that id, or more than one."""


class JobsView:
    """Reads the ledger and its file; owns nothing."""

    def __init__(
        self,
        ledger: JobLedger,
        store: MessageStore,
        standings: Standings,
        state_dir: Path | None = None,
    ) -> None:
        """Below `state_dir` answers are filed."""
        self._state_dir = state_dir
        self._ledger = ledger
        self._store = store
        self._standings = standings

    def find(self, id_: str) -> KeptJob:
        """The job of an id, or of the beginning of one.

        Raises:
            NoSuchJob: there is none, or there are several.
        """
        jobs = self._ledger.jobs
        job = jobs.get(id_)
        if job is not None:
            return job
        found = [other for name, other in jobs.items() if id_ and name.startswith(id_)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(other.id for other in found[:5])
            raise NoSuchJob(f"{id_[:40]!r} is the beginning of several jobs: {names}")
        raise NoSuchJob(f"no job {id_[:40]!r}: it was never here, or is kept no longer")

    async def newest(self, limit: int) -> list[model.Job]:
        """The newest jobs, without their nodes."""
        ledger = self._ledger
        await ledger.written()
        chosen = list(reversed(tuple(ledger.jobs.values())))[:limit]
        keys = msgspec.json.encode([job.key for job in chosen]).decode()
        among = "IN (SELECT value FROM json_each(?))"
        facts: dict[int, bytes] = dict(
            await ledger.file.read(f"SELECT key, facts FROM job WHERE key {among}", (keys,))
        )
        counts: dict[int, model.JobCounts] = {}
        query = f"SELECT job, kind, count(*) FROM target WHERE job {among} GROUP BY job, kind"
        for key, kind, count in await ledger.file.read(query, (keys,)):
            _count(counts.setdefault(key, model.JobCounts()), kind, count)
        return [
            self._describe(job, _read_facts(facts[job.key]), counts.get(job.key, model.JobCounts()))
            for job in chosen
            if job.key in facts
        ]

    async def show(self, id_: str) -> model.Job:
        """One job with its nodes."""
        job = self.find(id_)
        facts = await self.read_facts(job)
        kept: dict[int, int] = dict(await self._ledger.file.read(_KEPT, (job.key,)))
        live = {target.key: target for target in job.open}
        if facts.files:
            return await self._show_files(job, facts, live, kept)
        counts = model.JobCounts()
        nodes = []
        for target in await self.targets(job, facts):
            nodes.append(self._describe_node(live.get(target.key, target), kept.get(target.key, 0)))
            _count(counts, nodes[-1].kind, 1)
        described = self._describe(job, facts, counts)
        described.nodes = nodes
        return described

    async def _show_files(
        self,
        job: KeptJob,
        facts: JobFacts,
        live: Mapping[int, Target],
        kept: Mapping[int, int],
    ) -> model.Job:
        """A copy of many files: counts by node, and of single files those that are not done before the others."""
        read = self._ledger.file.read
        counts = model.JobCounts()
        by_node: dict[str, model.JobCounts] = {}
        for to, kind, number in await read(_COUNT_BY_NODE, (job.key,)):
            _count(by_node.setdefault(to, model.JobCounts()), kind, number)
            _count(counts, kind, number)
        begun = counts.total
        rows = await read(f"{_TARGET} {_NOT_DONE_FIRST}", (job.key, MAX_FILES_SHOWN))
        described = self._describe(job, facts, counts)
        described.nodes = [
            self._describe_node(
                live.get(row[0]) or _read_target(row, job, facts), kept.get(row[0], 0)
            )
            for row in rows
        ]
        described.files = [model.JobFiles(to=to, counts=each) for to, each in by_node.items()]
        described.left_out = begun - len(rows) or UNSET
        return described

    async def wait_for_change(self, timeout_s: float) -> None:
        """Until something changes at any job, or the time is over."""
        await self._ledger.wait_for_change(timeout_s)

    async def output(self, id_: str, *, after: int, node: str | None) -> model.JobOutput:
        """What its nodes said after a piece, in the order in which it came."""
        job = self.find(id_)
        await self._ledger.written()
        where = "" if node is None else " AND target IN (SELECT value FROM json_each(?))"
        to = {target.key: target for target in await self.targets(job, await self.read_facts(job))}
        asked = [key for key, target in to.items() if node in (None, target.facts.to)]
        if node is not None and not asked:
            raise NoSuchJob(f"job {job.id} did not ask {node[:60]}")
        values = (job.key, after, *(() if node is None else (msgspec.json.encode(asked).decode(),)))
        rows = await self._ledger.file.read(
            "SELECT seq, target, stream, data FROM piece WHERE job = ? AND seq > ?"
            f"{where} ORDER BY seq LIMIT {MAX_PIECES}",
            values,
        )
        pieces: list[model.JobPiece] = []
        size = 0
        for seq, key, stream, data in rows:
            if size > MAX_PIECES_BYTES:
                break
            size += len(data)
            pieces.append(_describe_piece(seq, to[key], stream, data))
        has_more = len(pieces) < len(rows) or len(rows) == MAX_PIECES
        return model.JobOutput(pieces=pieces, next=pieces[-1].number if has_more else None)

    def note_dropped(self, ids: Sequence[int], by: str) -> None:
        """An operator took messages out of the outbox."""
        self._ledger.dropped(
            ids, Standing(DeliveryState.FAILED, f"dropped by {by or 'an operator'}")
        )

    async def expect_retry(self, ids: Sequence[int] | None) -> list[Target]:
        """Dead letters (None: all) are about to be messages again; which of them are of a job.

        NB: before they are, for one may be delivered before the order to the store returns.
        """
        ledger = self._ledger
        if not ledger.jobs:
            return []
        await ledger.written()
        where = "kind = 'failed'"
        values: tuple[object, ...] = ()
        if ids is not None:
            where = "message IN (SELECT value FROM json_each(?))"
            values = (msgspec.json.encode(list(ids)).decode(),)
        rows = await ledger.file.read(
            f"SELECT job, key, message, facts, state FROM target WHERE {where}", values
        )
        dead = await self._store.dead_reasons([row[2] for row in rows if row[2] is not None])
        by_key = {job.key: job for job in ledger.jobs.values()}
        again: list[Target] = []
        for key, *row in rows:
            job = by_key.get(key)
            if job is None or row[1] not in dead:
                continue
            live = {target.key: target for target in job.open}
            again.append(
                live.get(row[0]) or _read_target(tuple(row), job, await self.read_facts(job))
            )
        ledger.begin_again(again)
        return again

    async def read_facts(self, job: KeptJob) -> JobFacts:
        """What is known of the whole. Raises NoSuchJob: it was forgotten meanwhile."""
        await self._ledger.written()
        rows = await self._ledger.file.read("SELECT facts FROM job WHERE key = ?", (job.key,))
        if not rows:
            raise NoSuchJob(f"job {job.id} is kept no longer")
        return _read_facts(rows[0][0])

    async def targets(self, job: KeptJob, facts: JobFacts) -> Sequence[Target]:
        """All its messages; of those that are open the very objects."""
        live = {target.key: target for target in job.open}
        rows = await self._ledger.file.read(f"{_TARGET} WHERE job = ? ORDER BY key", (job.key,))
        return [live.get(row[0]) or _read_target(row, job, facts) for row in rows]

    def _describe(self, job: KeptJob, facts: JobFacts, counts: model.JobCounts) -> model.Job:
        store = self._store
        # those whose turn has not come are none of its messages yet
        counts.total = max(counts.total, facts.files)
        return model.Job(
            id=job.id,
            at=rfc3339(store.wall_of(job.at)),
            age_seconds=round(max(0.0, store.now() - job.at), 3),
            state="open" if counts.silent else "over",
            command=facts.command,
            by=facts.by,
            from_node=facts.node,
            method=facts.method,
            args=facts.args,
            data_bytes=facts.data_bytes,
            bytes=job.size_bytes,
            counts=counts,
            batches=facts.batches,
            cancelled_by=facts.cancelled_by or UNSET,
            cancelled_at=rfc3339(store.wall_of(facts.cancelled_at))
            if facts.cancelled_by
            else UNSET,
        )

    def _describe_node(self, target: Target, kept_bytes: int) -> model.JobNode:
        outcome, facts = target.outcome, target.facts
        state, why = outcome.word, outcome.why
        # a copy that this daemon brings is none of the outbox's
        if not outcome.is_settled and target.message is not None and facts.subject:
            standing = self._standings.as_shown(facts.node, facts.subject, target.message)
            state, why = str(standing.state), standing.why
        return model.JobNode(
            to=facts.to,
            from_node=facts.node,
            via=facts.via or UNSET,
            id=target.message,
            state=state,
            why=why,
            kind=str(target.kind),
            is_delivered=outcome.is_delivered,
            is_answered=outcome.is_answered,
            exit_status=outcome.exit_status,
            is_status_unknown=outcome.is_status_unknown,
            signal=outcome.signal,
            stopped_after_seconds=outcome.stopped_after_s,
            is_held=outcome.is_held,
            is_truncated=outcome.is_truncated,
            is_cut=outcome.is_cut,
            is_stderr_cut=outcome.is_stderr_cut,
            output_bytes=kept_bytes,
            forgotten_bytes=target.state.forgotten_bytes,
            batch=facts.batch,
            file=facts.file or UNSET,
            filed=facts.filed or UNSET,
            not_filed=outcome.not_filed or UNSET,
            filed_before=self._moved_aside(facts.filed) or UNSET,
            stopped=target.state.stopped or UNSET,
        )

    def _moved_aside(self, filed: str) -> list[str]:
        if not filed or self._state_dir is None:
            return []
        found = find_predecessors(str(self._state_dir / filed), MAX_MOVED_ASIDE)
        return [str(Path(filed).with_name(Path(path).name)) for path in found]


def _read_facts(raw: bytes) -> JobFacts:
    return msgspec.json.decode(raw, type=JobFacts)


def _read_target(row: Row, job: KeptJob, facts: JobFacts) -> Target:
    key, message, where, state = row
    return Target(
        *(key, job, message),
        msgspec.json.decode(where, type=TargetFacts),
        msgspec.json.decode(state, type=TargetState),
        wants_status=facts.wants_status,
        is_now=facts.is_now,
    )


def _count(counts: model.JobCounts, kind: str, number: int) -> None:
    counts.total += number
    match kind:
        case Kind.DONE:
            counts.done += number
        case Kind.FAILED:
            counts.failed += number
        case _:
            counts.silent += number


def _describe_piece(number: int, target: Target, stream: str, data: bytes) -> model.JobPiece:
    text = data.decode("utf-8", "surrogateescape")
    shown = escape_controls(text)
    return model.JobPiece(
        number=number,
        to=target.facts.to,
        id=target.message,
        stream=stream,
        data=shown,
        data_base64=UNSET if shown == text else base64.b64encode(data).decode(),
    )
