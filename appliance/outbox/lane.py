"""A lane: the records of one node and subject, oldest first, of which a bounded window is in
memory.

A record is *waiting* (due), *delayed* (due later), *held* by the publisher, or on disk only. The
window's rule: every record up to `_loaded_to` is in one of the first three; those beyond it are on
disk, except held and delayed ones, which are skipped when the window is filled on. Used on the
event loop only.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence

from appliance.outbox.records import LaneKey, OutboxRecord

MAX_RECORDS = 2_048
MAX_BYTES = 32 * 1024 * 1024
_ALL = 2**63 - 1
"""The `_loaded_to` of a lane with nothing on disk only."""

RequestPage = Callable[["Lane", int], None]
"""Asks for the records after an id; answered with `Lane.add_page`, or `Lane.page_failed`."""


class Lane:
    """One publisher's view of what it has to send. Set `on_wake` to own it and be told of new work."""

    def __init__(self, key: LaneKey, clock: Callable[[], float], request_page: RequestPage) -> None:
        self.key = key
        self.on_wake: Callable[[], None] | None = None
        self.on_removed: Callable[[set[int]], None] | None = None
        """Told of ids that an operator dropped, so that the owner does not send them again."""
        self._clock = clock
        self._request_page = request_page
        self._waiting: deque[OutboxRecord] = deque()
        self._waiting_bytes = 0
        self._delayed: list[tuple[float, int, OutboxRecord]] = []
        self._held: dict[int, OutboxRecord] = {}
        self._on_disk = 0
        self._loaded_to = _ALL
        self._is_asking = False
        self._strict = False

    # What a publisher does.

    def take(self, *, strict: bool = False) -> OutboxRecord | None:
        """The oldest record that is due; it stays held until it is settled or put back.

        With `strict` only the oldest record of all, and nothing while that one is not due.
        """
        self._strict = strict
        if self._delayed:
            self._release_due()
        if self._on_disk and not self._is_asking and self._has_room():
            self._ask()
        if not self._waiting or (strict and not self._is_head_waiting()):
            return None
        record = self._waiting.popleft()
        self._waiting_bytes -= len(record.payload)
        self._held[record.id] = record
        return record

    def take_expired(self, now: float) -> list[OutboxRecord]:
        """The waiting records in memory whose time is over; they are held as if taken."""
        expired = [
            record
            for record in self._waiting
            if record.expires_at is not None and record.expires_at <= now
        ]
        if expired:
            gone = {record.id for record in expired}
            self._waiting = deque(record for record in self._waiting if record.id not in gone)
            self._waiting_bytes -= sum(len(record.payload) for record in expired)
            self._held.update({record.id: record for record in expired})
        return expired

    def put_back(self, record: OutboxRecord) -> None:
        """End the hold without a conclusion: the record is due again at its `next_at`."""
        if self._held.pop(record.id, None) is None:
            return
        if record.next_at > self._clock():
            heapq.heappush(self._delayed, (record.next_at, record.id, record))
        else:
            self._insert(record)

    def next_due_at(self) -> float | None:
        """When `take` can next give something (in the past: now); None when only a wake-up will
        tell.
        """
        if self._waiting and not (self._strict and not self._is_head_waiting()):
            return 0.0
        if self._on_disk and not self._is_asking and self._has_room():
            return 0.0  # `take` has yet to ask for them; their coming is told by a wake-up
        if self._strict and self._delayed:
            return self._oldest_delayed()[0]
        return self._delayed[0][0] if self._delayed else None

    @property
    def depth(self) -> int:
        """Records that nobody holds."""
        return len(self._waiting) + len(self._delayed) + self._on_disk

    @property
    def held(self) -> int:
        """Records in a publisher's hands."""
        return len(self._held)

    @property
    def in_memory(self) -> int:
        """Records kept in memory, held ones included."""
        return len(self._waiting) + len(self._delayed) + len(self._held)

    def oldest_created_at(self) -> float | None:
        """When the oldest record in memory was accepted."""
        times = [record.created_at for record in self._held.values()]
        times += [record.created_at for _, _, record in self._delayed]
        if self._waiting:
            times.append(self._waiting[0].created_at)
        return min(times, default=None)

    # What the store does.

    def add(self, record: OutboxRecord) -> None:
        """A record was committed."""
        if record.id > self._loaded_to:
            self._on_disk += 1
            return
        self._insert(record)
        self._trim()

    def add_on_disk(self, ids: Sequence[int]) -> None:
        """Records appeared in the database without passing through memory (dead letters tried
        again).
        """
        self._on_disk += len(ids)
        self._unload_from(min(ids))

    def forget(self, record_id: int) -> bool:
        """A held record was settled; False when it is not held (dropped by an operator meanwhile)."""
        return self._held.pop(record_id, None) is not None

    def remove(self, ids: Sequence[int]) -> None:
        """Records were deleted from the database, wherever they are here."""
        gone = set(ids)
        if self.on_removed is not None:
            self.on_removed(gone)
        in_memory = 0
        for number in ids:
            in_memory += self._held.pop(number, None) is not None
        delayed = [entry for entry in self._delayed if entry[1] not in gone]
        in_memory += len(self._delayed) - len(delayed)
        heapq.heapify(delayed)
        self._delayed = delayed
        waiting = deque(record for record in self._waiting if record.id not in gone)
        in_memory += len(self._waiting) - len(waiting)
        self._waiting = waiting
        self._waiting_bytes = sum(len(record.payload) for record in waiting)
        self._on_disk = max(0, self._on_disk - (len(ids) - in_memory))
        if not self._on_disk:
            self._loaded_to = _ALL

    def expect_on_disk(self, count: int) -> None:
        """Records of an earlier run wait in the database; nothing is in memory yet."""
        self._on_disk = count
        self._loaded_to = 0 if count else _ALL

    def add_page(
        self,
        records: Sequence[OutboxRecord],
        *,
        after_id: int,
        damaged: int,
        last_id: int,
        is_end: bool,
    ) -> None:
        """The answer to a request for records after an id, those already settled left out."""
        self._is_asking = False
        self._on_disk = max(0, self._on_disk - damaged)
        if (
            self._loaded_to == after_id
        ):  # else the window changed meanwhile: the next `take` asks anew
            self._add_loaded(records)
            self._loaded_to = _ALL if is_end else last_id
            if is_end:
                self._on_disk = 0
        self.wake()

    def _add_loaded(self, records: Sequence[OutboxRecord]) -> None:
        known = {number for _, number, _ in self._delayed}
        known.update(record.id for record in self._waiting if record.id > self._loaded_to)
        now = self._clock()
        for record in records:
            if record.id in self._held or record.id in known:
                continue
            self._on_disk -= 1
            if record.next_at > now:
                heapq.heappush(self._delayed, (record.next_at, record.id, record))
            else:
                self._insert(record)

    def page_failed(self) -> None:
        """The database could not be read now; the next `take` asks again."""
        self._is_asking = False

    def wake(self) -> None:
        """Tell the owner that there may be something to take."""
        if self.on_wake is not None:
            self.on_wake()

    # Inside.

    def _has_room(self) -> bool:
        return len(self._waiting) < MAX_RECORDS // 2 and self._waiting_bytes < MAX_BYTES // 2

    def _is_head_waiting(self) -> bool:
        """Whether the oldest waiting record is the oldest of the whole lane."""
        head = self._waiting[0].id
        if self._on_disk and head > self._loaded_to:
            return False
        return not self._delayed or head < self._oldest_delayed()[1]

    def _ask(self) -> None:
        self._is_asking = True
        self._request_page(self, self._loaded_to)

    def _oldest_delayed(self) -> tuple[float, int, OutboxRecord]:
        return min(self._delayed, key=lambda entry: entry[1])

    def _release_due(self) -> None:
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            self._insert(heapq.heappop(self._delayed)[2])

    def _insert(self, record: OutboxRecord) -> None:
        """Among the waiting ones, in order of id."""
        waiting = self._waiting
        self._waiting_bytes += len(record.payload)
        if not waiting or record.id > waiting[-1].id:
            waiting.append(record)
        elif record.id < waiting[0].id:
            waiting.appendleft(record)
        else:
            # NB: a deque has no fast middle; this is the path of retries and of commits out of order
            at = bisect_left(waiting, record.id, key=lambda other: other.id)
            waiting.insert(at, record)

    def _trim(self) -> None:
        """Let go of the youngest when the window is over its bounds; they are on disk anyway."""
        if len(self._waiting) <= MAX_RECORDS and self._waiting_bytes <= MAX_BYTES:
            return
        while len(self._waiting) > 1 and (
            len(self._waiting) > MAX_RECORDS or self._waiting_bytes > MAX_BYTES
        ):
            self._drop_youngest()

    def _drop_youngest(self) -> None:
        record = self._waiting.pop()
        self._waiting_bytes -= len(record.payload)
        self._on_disk += 1
        self._loaded_to = min(self._loaded_to, record.id - 1)

    def _unload_from(self, number: int) -> None:
        """Make `_loaded_to` end before an id."""
        while self._waiting and self._waiting[-1].id >= number:
            self._drop_youngest()
        self._loaded_to = min(self._loaded_to, number - 1)
