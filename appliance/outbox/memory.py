"""Who is remembered for having sent what: the table `senders` and the sizes of `seen` as they are on disk.

A sender is a subject, a node's name and the instance of the store that made the message. Names are those that the
config declares, instances are whatever a peer writes, so each crowd (one name on one subject) has a bound of its own:
who invents instances shortens the memory of the name that he uses, and of no other.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping

SenderKey = tuple[str, str, str]
"""Subject, name, instance."""
MAX_INSTANCES = 64
"""Instances that are remembered in one crowd. Beyond it those that were not heard of for longest go."""

_Crowd = dict[int, None]
"""Numbers of senders, the one not heard of for longest first."""


class Senders:
    """Numbers and counts; changed only after the commit that makes it so."""

    def __init__(self) -> None:
        self.numbers: dict[SenderKey, int] = {}
        self.counts: dict[int, int] = {}
        """Remembered ids of each; an upper bound."""
        self.next_number = 1
        self._keys: dict[int, SenderKey] = {}
        self._crowds: dict[tuple[str, str], _Crowd] = {}
        self._round: deque[int] = deque()

    def load(
        self, rows: Iterable[tuple[int, str, str, str]], counts: Iterable[tuple[int, int]]
    ) -> None:
        """Take over what an earlier run left, in the order of numbers."""
        for number, subject, sender, instance in rows:
            self._add((subject, sender, instance), number)
        self.counts = dict(counts)

    def learn(self, new: Mapping[SenderKey, int], remembered: Iterable[int]) -> None:
        """A batch is committed: new senders, and one number for each id that is remembered from now on."""
        for key, number in new.items():
            self._add(key, number)
        counts = self.counts
        for number in remembered:
            counts[number] = counts.get(number, 0) + 1
            crowd = self._crowds[self._keys[number][:2]]
            if next(reversed(crowd)) != number:
                del crowd[number]
                crowd[number] = None

    def forget_ids(self, number: int, count: int) -> None:
        """So many ids of a sender are gone."""
        self.counts[number] = max(0, self.counts.get(number, 0) - count)

    def forget(self, number: int) -> None:
        """A sender is gone, with all its ids."""
        key = self._keys.pop(number)
        del self.numbers[key]
        self.counts.pop(number, None)
        crowd = self._crowds[key[:2]]
        del crowd[number]
        if not crowd:
            del self._crowds[key[:2]]

    def crowded_out(self) -> list[int]:
        """Those that their crowds have no room for."""
        found: list[int] = []
        for crowd in self._crowds.values():
            excess = len(crowd) - MAX_INSTANCES
            if excess > 0:
                found += [number for number, _ in zip(crowd, range(excess), strict=False)]
        return found

    def next_of_round(self, count: int) -> list[int]:
        """The next few, so that all have their turn; none twice."""
        if not self._round:
            self._round.extend(self._keys)
        taken = [self._round.popleft() for _ in range(min(count, len(self._round)))]
        return [number for number in taken if number in self._keys]

    def put_back(self, numbers: Iterable[int]) -> None:
        """These have not had their turn after all."""
        self._round.extendleft(reversed(list(numbers)))

    def _add(self, key: SenderKey, number: int) -> None:
        subject, sender, instance = key
        # NB: few names, many senders
        key = (sys.intern(subject), sys.intern(sender), instance)
        self.numbers[key] = number
        self._keys[number] = key
        self._crowds.setdefault(key[:2], {})[number] = None
        self.next_number = max(self.next_number, number + 1)
