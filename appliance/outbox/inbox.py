"""What is in memory of the messages taken in and not finished. Used by the writer's thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance.outbox.blobs import SeenKey
from appliance.outbox.records import TakeIn
from appliance.outbox.segments import Segments


class Inbox:
    """Where rows are, whose they are, which ids they carry, what was noted of them."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        """By row id."""
        self.by_scope: dict[str, dict[int, None]] = {}
        """Row ids by ``<node>.<method>``, oldest first."""
        self.unfinished: dict[SeenKey, dict[int, int]] = {}
        """Row ids by key and message id."""
        self.started: set[int] = set()
        self.notes: dict[int, str] = {}
        self.next_row_id = 1

    def add(self, row_ids: Sequence[int], first_place: int, items: Sequence[TakeIn]) -> None:
        """Messages were taken in, and stand behind one another in the log."""
        if not row_ids:
            return
        places, last, place = self.places, None, first_place
        rows: dict[int, None] = {}
        ids: dict[int, int] = {}
        for row_id, item in zip(row_ids, items, strict=True):
            places[row_id] = place
            place += 1
            whose = (item.scope, item.sender, item.instance)
            if whose != last:
                last = whose
                scope, sender, instance = whose
                rows = self.by_scope.setdefault(scope, {})
                if instance is not None:
                    ids = self.unfinished.setdefault((scope, sender, instance), {})
            rows[row_id] = None
            if item.instance is not None:
                ids[item.message_id] = row_id
        self.next_row_id = max(self.next_row_id, max(row_ids) + 1)

    def scopes(self) -> dict[str, int]:
        """How many rows each scope has; asked for from other threads as well."""
        # NB: the copy is one step of the interpreter, so the writer's thread cannot come in between
        return {scope: len(rows) for scope, rows in list(self.by_scope.items())}

    def finish(self, finished: Iterable[tuple[str, Sequence[int]]]) -> None:
        """Rows ended, given with their scopes."""
        pop, by_scope = self.places.pop, self.by_scope
        has_marks = bool(self.started or self.notes)
        for scope, row_ids in finished:
            rows = by_scope.get(scope, {})
            for row_id in row_ids:
                pop(row_id, None)
                rows.pop(row_id, None)
                if has_marks:
                    self.forget_marks(row_id)
            if not rows:
                by_scope.pop(scope, None)

    def forget_ids(self, key: SeenKey, ids: Iterable[int]) -> None:
        """These ids are remembered as handled now."""
        unfinished = self.unfinished.get(key)
        if unfinished is None:
            return
        for message_id in ids:
            unfinished.pop(message_id, None)
        if not unfinished:
            del self.unfinished[key]

    def mark(self, started: Iterable[int], notes: Sequence[tuple[int, str]]) -> None:
        """Start marks and notes; those of rows that are gone count for nothing."""
        self.started.update(row_id for row_id in started if row_id in self.places)
        self.notes.update({row_id: text for row_id, text in notes if row_id in self.places})

    def forget_marks(self, row_id: int) -> None:
        """The row is gone, or carries its marks itself."""
        self.started.discard(row_id)
        self.notes.pop(row_id, None)

    # At the start.

    def load(self, row_id: int, place: int, scope: str) -> None:
        """A row of the log, live or not; the last place of a moved one counts."""
        if row_id in self.places:
            self.forget_marks(row_id)  # it was moved, and carries them
        self.places[row_id] = place
        self.by_scope.setdefault(scope, {})[row_id] = None
        self.next_row_id = max(self.next_row_id, row_id + 1)

    def drop_settled(self, segments: Segments) -> None:
        """All of the log was seen: keep what is live."""
        gone = {row_id for row_id, place in self.places.items() if not segments.is_live(place)}
        for row_id in gone:
            del self.places[row_id]
            self.forget_marks(row_id)
        for scope, rows in list(self.by_scope.items()):
            left = dict.fromkeys(sorted(row_id for row_id in rows if row_id not in gone))
            if left:
                self.by_scope[scope] = left
            else:
                del self.by_scope[scope]

    def load_unfinished(self, row_id: int, key: SeenKey, message_id: int) -> None:
        """A live row carries this id."""
        if row_id in self.places:
            self.unfinished.setdefault(key, {})[message_id] = row_id
