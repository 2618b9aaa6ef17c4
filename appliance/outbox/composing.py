"""From operations to the plan of one commit: what is settled, what is fresh, what is known. No I/O of its own."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.outbox.blobs import SeenKey, Verdict
from appliance.outbox.database import CommitPlan, Database
from appliance.outbox.operations import Annotate, Bury, Finish, Operation, Put, Settle, Take
from appliance.outbox.records import (
    DONE_VERDICT,
    MAX_VERDICT_CHARS,
    DoneRun,
    FinishItem,
    OutboxRecord,
    TakeIn,
    TakeInResult,
    Taken,
)
from appliance.outbox.texts import plain_text

_FRESH = Taken(TakeInResult.FRESH, None, None)
_FRESH_KIND = TakeInResult.FRESH
_REPEAT_IN_HAND = Taken(TakeInResult.REPEAT_UNFINISHED, None, None)


class Composer:
    """Makes one plan. Row ids and whatever else it counts on hold once the plan is committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._records: list[OutboxRecord] = []
        self._settled: list[int] = []
        self._rows: list[TakeIn] = []
        self._row_ids: list[int] = []
        self._seen: dict[SeenKey, dict[int, Verdict | None]] = {}
        self._taken: dict[SeenKey, dict[int, int | None]] = {}
        self.plan = CommitPlan()

    def compose(self, operations: Sequence[Operation]) -> CommitPlan:
        """The plan of some operations, in order; results of a `Take` are in it."""
        for operation in operations:
            if isinstance(operation, Settle):
                self._settle(operation)
            elif isinstance(operation, Put):
                self._records += operation.records
                if operation.facts:
                    self.plan.facts = {**self.plan.facts, **operation.facts}
            elif isinstance(operation, Finish):
                for run in operation.done:
                    self._finish_run(run)
                self._finish(operation.items)
                # with what they answer: a reply without its finished message, or the other way round, cannot be on disk
                self._records += operation.replies
            elif isinstance(operation, Take):
                operation.results = self._take(operation.items)
            elif isinstance(operation, Annotate):
                self._annotate(operation)
            else:
                self._bury(operation)
        content = self.plan.content
        content.records = self._records
        content.settled = self._settled
        content.rows = self._rows
        content.row_ids = self._row_ids
        content.seen = self._seen
        return self.plan

    def _settle(self, operation: Settle) -> None:
        segments = self._database.segments
        if not segments.forwards:
            self._settled += operation.done
        else:
            self._settled += map(segments.place_of, operation.done)
        is_live, tried = segments.is_live, self.plan.content.misc.tries
        for old_place, tries in operation.tries.items():
            place = segments.place_of(old_place)
            # a record that was settled meanwhile has no tries to remember
            if is_live(place):
                tried.append((place, tries))

    def _bury(self, operation: Bury) -> None:
        segments = self._database.segments
        for old_place, letter in zip(operation.places, operation.letters, strict=True):
            place = segments.place_of(old_place)
            if segments.is_live(place):
                self._settled.append(place)
                self.plan.letters.append(letter)

    def _annotate(self, operation: Annotate) -> None:
        places, misc = self._database.inbox.places, self.plan.content.misc
        known = [row_id for row_id in operation.row_ids if row_id in places]
        if operation.note is None:
            misc.started += known
        else:
            misc.notes += [(row_id, operation.note) for row_id in known]

    def _finish_run(self, run: DoneRun) -> None:
        if run.row_ids:
            place_of = self._database.inbox.places.get
            self._settled += [
                place for row_id in run.row_ids if (place := place_of(row_id)) is not None
            ]
            self.plan.finished.append((run.scope, run.row_ids))
        if run.instance is not None and run.message_ids:
            key = (run.scope, run.sender, run.instance)
            self._seen.setdefault(key, {}).update(dict.fromkeys(run.message_ids))

    def _finish(self, items: Sequence[FinishItem]) -> None:
        places, settled, finished = (
            self._database.inbox.places,
            self._settled,
            self.plan.finished,
        )
        last_scope = last_sender = last_instance = None
        group: dict[int, Verdict | None] = {}
        for row_id, scope, sender, instance, message_id, attempt, verdict in items:
            if row_id is not None:
                place = places.get(row_id)
                if place is not None:
                    settled.append(place)
                    finished.append((scope, (row_id,)))
            if instance is None:
                continue
            if scope != last_scope or sender != last_sender or instance != last_instance:
                last_scope, last_sender, last_instance = scope, sender, instance
                key = (scope, sender, instance)
                group = self._seen.setdefault(key, {})
            if verdict == DONE_VERDICT and not attempt:
                group[message_id] = None
            else:
                group[message_id] = (attempt, plain_text(verdict)[:MAX_VERDICT_CHARS])

    def _take(self, items: Sequence[TakeIn]) -> list[Taken]:
        database = self._database
        inbox, dedupe = database.inbox, database.dedupe
        rows, row_ids = self._rows, self._row_ids
        next_row_id = inbox.next_row_id + len(rows)
        results: list[Taken] = []
        last_key: SeenKey | None = None
        unfinished: dict[int, int] = {}
        finished: dict[int, Verdict | None] = {}
        taken: dict[int, int | None] = {}
        sender = None
        for item in items:
            scope, _, _, _, name, instance, message_id, attempt, _, _, _, keep_body = item
            if instance is not None:
                key = (scope, name, instance)
                if key != last_key:
                    last_key = key
                    unfinished = inbox.unfinished.get(key) or {}
                    finished = self._seen.get(key) or {}
                    taken = self._taken.setdefault(key, {})
                    sender = dedupe.senders.get(key)
                known: Verdict | None = None
                if message_id in finished:  # by an operation of this very batch
                    known = finished[message_id] or (0, DONE_VERDICT)
                elif message_id in unfinished:
                    results.append(
                        Taken(TakeInResult.REPEAT_UNFINISHED, unfinished[message_id], None)
                    )
                    continue
                elif sender is not None and message_id <= sender.highest:
                    known = dedupe.find(key, message_id)
                # what was done is never done again; what failed is, where an operator has asked for another attempt
                if known is not None and (known[1] == DONE_VERDICT or attempt <= known[0]):
                    results.append(Taken(TakeInResult.REPEAT_DONE, None, known[1]))
                    continue
                # two copies in one batch: the second is told that the first is in hand
                if message_id in taken:
                    row_id = taken[message_id]
                    results.append(
                        _REPEAT_IN_HAND
                        if row_id is None
                        else Taken(TakeInResult.REPEAT_UNFINISHED, row_id, None)
                    )
                    continue
                taken[message_id] = next_row_id if keep_body else None
            if not keep_body:
                results.append(_FRESH)
                continue
            rows.append(item)
            row_ids.append(next_row_id)
            # NB: as Taken(...), which costs twice as much
            results.append(tuple.__new__(Taken, (_FRESH_KIND, next_row_id, None)))
            next_row_id += 1
        return results
