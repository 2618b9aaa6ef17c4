"""Which records of a lane are on disk only: their ids in order, each with its place, 16 bytes a record."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence

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
