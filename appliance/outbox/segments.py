"""What is in memory of the log: for every commit on disk which of its messages are live, and what else needs it.

A *segment* is one commit. A message's *place* is the number of its commit above its slot in it. Used by one thread at
a time. About 5 bytes a message: a byte for its state, four for where it ends.

A segment can go when none of its messages is live and nothing else needs it. What needs it: each older segment about
whose messages it says something (that they are settled, that they were tried), as long as that one is there, and the
ids that it remembers, until those are in blocks of their own.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence

from appliance.outbox.blobs import SLOT_BITS, Tries

SLOT_MASK = (1 << SLOT_BITS) - 1
STRAGGLER_SHARE = 0.5
"""A commit of which less than this is live may be moved on, when the log is much larger than what lives."""
SLACK_BYTES = 4 * 1024 * 1024
GROWTH = 2.0
"""The log may be this many times what is live, and `SLACK_BYTES` more, before stragglers are moved."""


class Segment:
    """One commit."""

    __slots__ = ("ends", "live", "live_bytes", "noted_by", "refs", "rowid", "seq", "size", "state")

    def __init__(self, seq: int, size: int, ends: array[int]) -> None:
        self.seq = seq
        self.rowid = seq
        self.size = size
        self.ends = ends
        self.live = len(ends)
        self.state = bytearray(b"\1") * self.live
        self.live_bytes = ends[-1] if ends else 0
        self.noted_by: list[int] = []
        self.refs = 0

    def size_of(self, slot: int) -> int:
        """Bytes of one message."""
        return self.ends[slot] - (self.ends[slot - 1] if slot else 0)

    @property
    def is_free(self) -> bool:
        """Whether nothing needs it any more."""
        return not self.live and not self.refs


class Segments:
    """All commits on disk."""

    def __init__(self) -> None:
        self.by_seq: dict[int, Segment] = {}
        self.tries: dict[int, Tries] = {}
        """By place: what was said of a live record after it was put."""
        self.log_bytes = 0
        self.live_bytes = 0
        self.seq_sum = 0
        self.free: dict[int, None] = {}
        """Numbers of commits that can go."""
        self.free_bytes = 0
        self.forwards: dict[int, int] = {}
        """From old places to new ones, until the event loop knows those."""
        self.unflushed: list[int] = []
        """Commits that are needed for the ids that they remember."""

    def __len__(self) -> int:
        return len(self.by_seq)

    def add(self, seq: int, size: int, ends: array[int], *, remembers: bool) -> Segment:
        """A commit is on disk."""
        segment = self.by_seq[seq] = Segment(seq, size, ends)
        self.log_bytes += size
        self.live_bytes += segment.live_bytes
        self.seq_sum = (self.seq_sum + segment.rowid) & (1 << 64) - 1
        if remembers:
            segment.refs += 1
            self.unflushed.append(seq)
        return segment

    def note(self, segment: Segment, places: Iterable[int]) -> None:
        """A commit says something about messages at these places: it must stay while they do."""
        for seq in {place >> SLOT_BITS for place in places}:
            target = self.by_seq.get(seq)
            if target is not None and target is not segment and seq not in self.free:
                target.noted_by.append(segment.seq)
                segment.refs += 1

    def settle(self, places: Sequence[int]) -> None:
        """Messages are through; a place that is unknown or settled already counts for nothing."""
        at, count = 0, len(places)
        while at < count:
            place = places[at]
            segment = self.by_seq.get(place >> SLOT_BITS)
            slot = place & SLOT_MASK
            if at == count - 1 or segment is None or slot >= len(segment.state):
                self._settle_one(place)
                at += 1
                continue
            # NB: mostly messages are through in the order they came in, so what is left of a commit goes as one
            part = places[at : at + len(segment.state) - slot]
            if self._are_next(segment, slot, part):
                self._settle_slots(segment, slot, len(part))
            else:
                for one in part:
                    self._settle_one(one)
            at += len(part)

    @staticmethod
    def _are_next(segment: Segment, slot: int, places: Sequence[int]) -> bool:
        """Whether these places follow one another from the slot, and all of them are live."""
        first, length = places[0], len(places)
        return (
            places[-1] - first == length - 1
            and segment.state.find(0, slot, slot + length) < 0
            and list(places) == list(range(first, first + length))
        )

    def _settle_one(self, place: int) -> None:
        segment = self.by_seq.get(place >> SLOT_BITS)
        slot = place & SLOT_MASK
        if segment is not None and slot < len(segment.state) and segment.state[slot]:
            self._settle_slots(segment, slot, 1)

    def _settle_slots(self, segment: Segment, slot: int, length: int) -> None:
        segment.state[slot : slot + length] = bytes(length)
        segment.live -= length
        size = segment.ends[slot + length - 1] - (segment.ends[slot - 1] if slot else 0)
        segment.live_bytes -= size
        self.live_bytes -= size
        if self.tries:
            first = segment.seq << SLOT_BITS | slot
            for place in range(first, first + length):
                self.tries.pop(place, None)
        if segment.is_free:
            self._release(segment)

    def place_of(self, place: int) -> int:
        """Where a message is by now."""
        while place in self.forwards:
            place = self.forwards[place]
        return place

    def is_live(self, place: int) -> bool:
        """Whether a message is there and not settled."""
        segment = self.by_seq.get(place >> SLOT_BITS)
        slot = place & SLOT_MASK
        return segment is not None and slot < len(segment.state) and bool(segment.state[slot])

    def check_free(self, segment: Segment) -> None:
        """It may have been free from the beginning."""
        if segment.is_free:
            self._release(segment)

    def _release(self, segment: Segment) -> None:
        """It can go, and with it what was needed for it only: after it, or at the same time."""
        released = [segment]
        while released:
            segment = released.pop()
            if segment.seq in self.free:
                continue
            self.free[segment.seq] = None
            self.free_bytes += segment.size
            for noting in segment.noted_by:
                other = self.by_seq.get(noting)
                if other is not None:
                    other.refs -= 1
                    if other.is_free:
                        released.append(other)
            # what it needed is counted off once, however often it is released
            segment.noted_by.clear()

    def choose_gone(self, last_seq: int) -> list[int]:
        """The commits that can go now; never the last one, which tells how many there were."""
        return [seq for seq in self.free if seq != last_seq]

    def forget(self, gone: Sequence[int]) -> None:
        """These are deleted, the first of `free` or others that are settled by now."""
        for seq in gone:
            self._release(self.by_seq[seq])
            segment = self.by_seq.pop(seq)
            del self.free[seq]
            self.free_bytes -= segment.size
            self.log_bytes -= segment.size
            self.seq_sum = (self.seq_sum - segment.rowid) & (1 << 64) - 1

    def flushed(self, up_to: int) -> None:
        """The ids that commits up to this one remember are in blocks of their own."""
        left: list[int] = []
        for seq in self.unflushed:
            if seq > up_to:
                left.append(seq)
                continue
            segment = self.by_seq.get(seq)
            if segment is not None:
                segment.refs -= 1
                if segment.is_free:
                    self._release(segment)
        self.unflushed = left

    def rows_without(self, gone: Sequence[int]) -> tuple[int, int]:
        """How many commits there are without these, and the sum of their numbers."""
        total = self.seq_sum - sum([self.by_seq[seq].rowid for seq in gone])
        return len(self.by_seq) - len(gone), total & (1 << 64) - 1

    def find_stragglers(self, limit_bytes: int, *, even_if_small: bool = False) -> list[int]:
        """Places of live messages that hold large commits of which little lives, up to so many bytes together.

        Empty while the log is within a small factor of what is live.
        """
        held = self.log_bytes - self.free_bytes
        if not even_if_small and held <= GROWTH * self.live_bytes + SLACK_BYTES:
            return []
        noted: Mapping[int, int] = self._noted_bytes()
        candidates = [
            (segment.live_bytes / (segment.size + noted.get(segment.seq, 0)), segment.seq)
            for segment in self.by_seq.values()
            if segment.live
            and segment.live_bytes < STRAGGLER_SHARE * (segment.size + noted.get(segment.seq, 0))
        ]
        # those of which the least lives first: most is gained for what is written anew
        candidates.sort()
        chosen: list[int] = []
        size_bytes = 0
        for _, seq in candidates:
            segment = self.by_seq[seq]
            if chosen and (
                size_bytes + segment.live_bytes > limit_bytes or len(chosen) + segment.live > 4_096
            ):
                break
            size_bytes += segment.live_bytes
            state = segment.state
            chosen += [seq << SLOT_BITS | slot for slot in range(len(state)) if state[slot]]
        return chosen

    def _noted_bytes(self) -> dict[int, int]:
        """For each commit the bytes of others that are needed for what they say of it alone."""
        noted: dict[int, int] = {}
        for segment in self.by_seq.values():
            for seq in segment.noted_by:
                other = self.by_seq.get(seq)
                if other is not None and not other.live and other.refs == 1:
                    noted[segment.seq] = noted.get(segment.seq, 0) + other.size
        return noted
