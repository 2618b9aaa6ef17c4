"""A lane: the records of one node and subject, oldest first, of which a bounded window is in memory.

A record is *waiting* (due), *delayed* (due later), *held* by the publisher, *on disk* only, or *coming* from there.
The window's rule: every waiting record is older than those on disk only and those coming. Used on the event loop only.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from appliance.dialect.headers import TURN_HEADER
from appliance.outbox.records import LaneKey, OutboxRecord

MAX_RECORDS = 2_048
MAX_BYTES = 32 * 1024 * 1024

RequestPage = Callable[["Lane", "list[tuple[int, int]]"], None]
"""Asks for records by id and place; answered with `Lane.add_page`, or `Lane.page_failed`."""


class Lane:
    """One publisher's view of what it has to send. Set `on_wake` to own it and be told of new work."""

    def __init__(
        self,
        key: LaneKey,
        clock: Callable[[], float],
        request_page: RequestPage,
        lane_of: Callable[[OutboxRecord], Lane],
    ) -> None:
        self.key = key
        self.on_wake: Callable[[], None] | None = None
        self.on_removed: Callable[[set[int]], None] | None = None
        """Told of ids that an operator dropped, so that the owner does not send them again."""
        self.on_renamed: Callable[[LaneKey], None] | None = None
        """Told where all records of this lane are from now on, those in the owner's hands included."""
        self._clock = clock
        self._request_page = request_page
        self._lane_of = lane_of
        self._waiting: deque[OutboxRecord] = deque()
        self._waiting_bytes = 0
        self._delayed: list[tuple[float, int, OutboxRecord]] = []
        self._held: dict[int, OutboxRecord] = {}
        self._disk = DiskIndex()
        self._coming: dict[int, int] = {}
        self._strict = False

    # What a publisher does.

    def take(self, limit: int, *, strict: bool = False) -> list[OutboxRecord]:
        """The oldest records that are due, at most `limit`; held until settled or put back.

        With `strict` only the oldest record of all, and nothing while that one is not due.
        """
        self._strict = strict
        if self._delayed:
            self._release_due()
        # asked for before it is needed: the disk answers while what is in memory goes out
        if self._disk and not self._coming and self._has_room():
            self._ask()
        waiting = self._waiting
        if strict:
            limit = min(limit, 1) if waiting and self._is_head_waiting() else 0
        if limit >= len(waiting):
            taken = list(waiting)
            waiting.clear()
            self._waiting_bytes = 0
        else:
            taken = [waiting.popleft() for _ in range(limit)]
            self._waiting_bytes -= sum([len(record.payload) for record in taken])
        held = self._held
        for record in taken:
            held[record.id] = record
        return taken

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

    def next_expiry_at(self) -> float:
        """When `take_expired` next gives one of the records in memory, by `take` before it if need be; steady seconds,
        infinite if none ends.
        """
        ends = [record.expires_at for record in self._waiting if record.expires_at is not None]
        ends += [
            max(due_at, record.expires_at)
            for due_at, _, record in self._delayed
            if record.expires_at is not None
        ]
        return min(ends, default=math.inf)

    def put_back(self, records: Sequence[OutboxRecord]) -> None:
        """End the hold without a conclusion: each is due again at its `next_at`."""
        now = self._clock()
        for record in records:
            if self._held.pop(record.id, None) is None:
                lane = self._lane_of(record)
                if lane is not self:  # renamed while it was held
                    lane.put_back([record])
                continue
            self._place(record, now)
        self._trim()

    def next_due_at(self) -> float | None:
        """When `take` can next give something (in the past: now); None when only a wake-up will
        tell. Steady seconds.
        """
        if self._waiting and not (self._strict and not self._is_head_waiting()):
            return 0.0
        if self._disk and not self._coming and self._has_room():
            return 0.0  # `take` has yet to ask for them; their coming is told by a wake-up
        if self._strict and self._delayed:
            return self._oldest_delayed()[0]
        return self._delayed[0][0] if self._delayed else None

    @property
    def depth(self) -> int:
        """Records that nobody holds."""
        return len(self._waiting) + len(self._delayed) + len(self._disk) + len(self._coming)

    @property
    def held(self) -> int:
        """Records in a publisher's hands."""
        return len(self._held)

    @property
    def in_memory(self) -> int:
        """Records kept in memory, held ones included."""
        return len(self._waiting) + len(self._delayed) + len(self._held)

    @property
    def is_reading(self) -> bool:
        """Whether records are on their way from the disk; their coming is told by a wake-up."""
        return bool(self._coming)

    def oldest_created_at(self) -> float | None:
        """When the oldest record in memory was accepted."""
        times = [record.created_at for record in self._held.values()]
        times += [record.created_at for _, _, record in self._delayed]
        if self._waiting:
            times.append(self._waiting[0].created_at)
        return min(times, default=None)

    def first_unread(self) -> int | None:
        """The smallest id that is not in memory."""
        numbers = [*self._coming, *([] if self._disk.first is None else [self._disk.first])]
        return min(numbers, default=None)

    # What the store does.

    def add(self, records: Sequence[OutboxRecord]) -> None:
        """Records were committed. Cheapest when their ids ascend and are beyond all others."""
        waiting = self._waiting
        if not self._disk and not self._coming and len(waiting) + len(records) <= MAX_RECORDS:
            last = waiting[-1].id if waiting else -1
            size_bytes = 0
            for record in records:
                if record.id <= last:
                    break
                last = record.id
                size_bytes += len(record.payload)
            else:
                if self._waiting_bytes + size_bytes <= MAX_BYTES:
                    waiting.extend(records)
                    self._waiting_bytes += size_bytes
                    return
        for record in records:
            self._insert(record)
        self._trim()

    def add_loaded(self, records: Sequence[OutboxRecord]) -> None:
        """Records of an earlier run that were read at the start; some may be due later."""
        now = self._clock()
        for record in records:
            self._place(record, now)

    def add_on_disk(self, ids: Sequence[int], places: Sequence[int]) -> None:
        """Records that are in the database and not in memory."""
        # the window's rule: nothing that waits in memory may be younger than what is on disk only
        boundary = min(ids, default=0)
        while self._waiting and self._waiting[-1].id > boundary:
            self._drop_youngest()
        self._disk.extend(ids, places)

    def forget(self, record_id: int) -> OutboxRecord | None:
        """A held record was settled; None when it is not held (dropped by an operator meanwhile)."""
        return self._held.pop(record_id, None)

    def forget_many(self, records: Sequence[OutboxRecord]) -> list[int]:
        """Held records were settled; their places, those not held left out."""
        pop = self._held.pop
        return [record.place for record in records if pop(record.id, None) is not None]

    def knows(self, record_id: int) -> bool:
        """Whether a record of this id is unsettled here."""
        if record_id in self._held or record_id in self._coming:
            return True
        at = bisect_left(self._waiting, record_id, key=_id_of)
        if at < len(self._waiting) and self._waiting[at].id == record_id:
            return True
        if self._disk.find(record_id) is not None:
            return True
        return any(number == record_id for _, number, _ in self._delayed)

    def entries(self) -> Iterator[tuple[int, int]]:
        """Id and place of every unsettled record, in no order."""
        for record in self._in_memory():
            yield record.id, record.place
        yield from self._coming.items()
        yield from self._disk

    def find_entries(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Id and place of those of these records that are unsettled here."""
        places = {record.id: record.place for record in self._in_memory()}
        found: list[tuple[int, int]] = []
        for number in ids:
            place = places.get(number)
            if place is None:
                place = self._coming.get(number)
            if place is None:
                place = self._disk.find(number)
            if place is not None:
                found.append((number, place))
        return found

    def remove(self, ids: set[int]) -> list[int]:
        """An operator drops these, wherever they are here; the places of those that were."""
        places = [record.place for record in self._in_memory() if record.id in ids]
        for number in ids:
            self._held.pop(number, None)
            place = self._coming.pop(number, None)
            if place is None:
                place = self._disk.pop(number)
            if place is not None:
                places.append(place)
        self._delayed = [entry for entry in self._delayed if entry[1] not in ids]
        heapq.heapify(self._delayed)
        self._waiting = deque(record for record in self._waiting if record.id not in ids)
        self._waiting_bytes = sum(len(record.payload) for record in self._waiting)
        if places and self.on_removed is not None:
            self.on_removed(ids)
        return places

    def add_page(self, records: Sequence[OutboxRecord], asked: Sequence[int]) -> None:
        """The answer to a request. What is missing in it was damaged, and is a dead letter by now.

        `asked` are the ids that were looked at; those left for the next request are told by `page_failed`.
        """
        now = self._clock()
        coming = self._coming
        fresh = [record for record in records if coming.pop(record.id, None) is not None]
        for number in asked:
            coming.pop(number, None)
        for record in fresh:
            self._place(record, now)
        self.wake()

    def page_failed(self, asked: Sequence[int]) -> None:
        """The database could not be read now; the next `take` asks again."""
        for number in asked:
            place = self._coming.pop(number, None)
            if place is not None:
                self._disk.insert(number, place)

    def move(self, moved: Mapping[int, int]) -> None:
        """Records (by id) are at other places of the database from now on."""
        for record in self._in_memory():
            place = moved.get(record.id)
            if place is not None:
                record.place = place
        for number, place in moved.items():
            if number in self._coming:
                self._coming[number] = place
            else:
                self._disk.move(number, place)

    def hand_over(self, moved: Mapping[int, int], other: Lane) -> int:
        """Records (by id, with their new places) belong to another lane from now on; how many."""
        now = self._clock()
        node, subject = other.key
        mine = [record for record in self._in_memory() if record.id in moved]
        for record in mine:
            record.place = moved[record.id]
            record.node, record.subject = node, subject
        free = [record for record in mine if record.id not in self._held]
        held = [record for record in mine if self._held.pop(record.id, None) is not None]
        self._waiting = deque(record for record in self._waiting if record.id not in moved)
        self._waiting_bytes = sum(len(record.payload) for record in self._waiting)
        self._delayed = [entry for entry in self._delayed if entry[1] not in moved]
        heapq.heapify(self._delayed)
        unread = [
            number
            for number in moved
            if self._coming.pop(number, None) is not None or self._disk.pop(number) is not None
        ]
        unread.sort()
        other._held.update({record.id: record for record in held})
        if unread:
            other.add_on_disk(unread, [moved[number] for number in unread])
        for record in free:
            other._place(record, now)
        other._trim()
        return len(mine) + len(unread)

    def wake(self) -> None:
        """Tell the owner that there may be something to take."""
        if self.on_wake is not None:
            self.on_wake()

    # Inside.

    def _in_memory(self) -> Iterator[OutboxRecord]:
        yield from self._waiting
        for _, _, record in self._delayed:
            yield record
        yield from self._held.values()

    def _has_room(self) -> bool:
        return len(self._waiting) < MAX_RECORDS // 2 and self._waiting_bytes < MAX_BYTES // 2

    def _is_head_waiting(self) -> bool:
        """Whether the oldest waiting record is the oldest of the whole lane."""
        return not self._delayed or self._waiting[0].id < self._oldest_delayed()[1]

    def _ask(self) -> None:
        asked = self._disk.pop_first(MAX_RECORDS // 2)
        self._coming = dict(asked)
        self._request_page(self, asked)

    def _oldest_delayed(self) -> tuple[float, int, OutboxRecord]:
        return min(self._delayed, key=lambda entry: entry[1])

    def _release_due(self) -> None:
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            self._insert(heapq.heappop(self._delayed)[2])
        self._trim()

    def _place(self, record: OutboxRecord, now: float) -> None:
        # NB: a piece of a stream is not left out of the order: who takes it waits for its time
        if record.next_at > now and not (record.headers and TURN_HEADER in record.headers):
            heapq.heappush(self._delayed, (record.next_at, record.id, record))
        else:
            self._insert(record)

    def _insert(self, record: OutboxRecord) -> None:
        """Among the waiting ones, in order of id; behind what is on disk only it is there as well."""
        boundary = next(iter(self._coming), None) if self._coming else self._disk.first
        if boundary is not None and record.id > boundary:
            self._disk.extend([record.id], [record.place])
            return
        waiting = self._waiting
        if len(waiting) >= MAX_RECORDS and record.id > waiting[-1].id:
            self._disk.extend([record.id], [record.place])
            return
        self._waiting_bytes += len(record.payload)
        if not waiting or record.id > waiting[-1].id:
            waiting.append(record)
        elif record.id < waiting[0].id:
            waiting.appendleft(record)
        else:
            # NB: a deque has no fast middle; this is the path of retries and of commits out of order
            waiting.insert(bisect_left(waiting, record.id, key=_id_of), record)

    def _trim(self) -> None:
        """Let go of the youngest when the window is over its bounds; they are on disk anyway."""
        while len(self._waiting) > 1 and (
            len(self._waiting) > MAX_RECORDS or self._waiting_bytes > MAX_BYTES
        ):
            self._drop_youngest()

    def _drop_youngest(self) -> None:
        record = self._waiting.pop()
        self._waiting_bytes -= len(record.payload)
        # its place there is known, so no write is needed
        self._disk.insert(record.id, record.place)


def _id_of(record: OutboxRecord) -> int:
    return record.id


# Which records of a lane are on disk only: their ids in order, each with its place, 16 bytes a record.

BLOCK = 1_024
"""Entries of a block; twice that before it is split. Ids and places of one are arrays of equal length."""

_Block = tuple["array[int]", "array[int]"]


class DiskIndex:
    """A sorted map from id to place."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for ids, places in self._blocks:
            yield from zip(ids, places, strict=True)

    @property
    def first(self) -> int | None:
        """The smallest id."""
        return self._blocks[0][0][0] if self._blocks else None

    def extend(self, ids: Sequence[int], places: Sequence[int]) -> None:
        """Add entries, cheapest when their ids ascend and are beyond all others."""
        last = self._blocks[-1][0][-1] if self._blocks else -1
        at = 0
        while at < len(ids):
            if ids[at] <= last:
                self.insert(ids[at], places[at])
                at += 1
                continue
            if not self._blocks or len(self._blocks[-1][0]) >= BLOCK:
                self._blocks.append((array("Q"), array("Q")))
            block_ids, block_places = self._blocks[-1]
            block_ids.append(ids[at])
            block_places.append(places[at])
            last = ids[at]
            self._count += 1
            at += 1

    def insert(self, number: int, place: int) -> None:
        """Add one entry anywhere."""
        if not self._blocks:
            self._blocks.append((array("Q", [number]), array("Q", [place])))
            self._count += 1
            return
        at = min(self._block_of(number), len(self._blocks) - 1)
        ids, places = self._blocks[at]
        inside = bisect_left(ids, number)
        ids.insert(inside, number)
        places.insert(inside, place)
        self._count += 1
        if len(ids) >= 2 * BLOCK:
            self._blocks[at : at + 1] = [
                (ids[:BLOCK], places[:BLOCK]),
                (ids[BLOCK:], places[BLOCK:]),
            ]

    def pop_first(self, count: int) -> list[tuple[int, int]]:
        """Take out the entries with the smallest ids."""
        taken: list[tuple[int, int]] = []
        while self._blocks and len(taken) < count:
            ids, places = self._blocks[0]
            part = min(count - len(taken), len(ids))
            taken += zip(ids[:part], places[:part], strict=True)
            del ids[:part], places[:part]
            if not ids:
                del self._blocks[0]
        self._count -= len(taken)
        return taken

    def pop(self, number: int) -> int | None:
        """Take out one entry; its place."""
        at = self._block_of(number)
        if at == len(self._blocks):
            return None
        ids, places = self._blocks[at]
        inside = bisect_left(ids, number)
        if ids[inside] != number:
            return None
        del ids[inside]
        place = places.pop(inside)
        if not ids:
            del self._blocks[at]
        self._count -= 1
        return place

    def find(self, number: int) -> int | None:
        """The place of an id."""
        at = self._block_of(number)
        if at == len(self._blocks):
            return None
        ids, places = self._blocks[at]
        inside = bisect_left(ids, number)
        return places[inside] if ids[inside] == number else None

    def move(self, number: int, place: int) -> bool:
        """The record is somewhere else now; False when it is not here."""
        at = self._block_of(number)
        if at == len(self._blocks):
            return False
        ids, places = self._blocks[at]
        inside = bisect_left(ids, number)
        if ids[inside] != number:
            return False
        places[inside] = place
        return True

    def clear(self) -> None:
        """Forget all."""
        self._blocks.clear()
        self._count = 0

    def _block_of(self, number: int) -> int:
        """The first block whose last id is not below a number."""
        return bisect_left(self._blocks, number, key=lambda block: block[0][-1])
