"""How many nodes are asked at a time, and how many may fail before the rest is left alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TypeVar

_T = TypeVar("_T")
_AMOUNT = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,6}))?(%?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of nodes, or a part of all of them in percent."""

    number: Fraction
    is_percent: bool

    @classmethod
    def read(cls, text: str) -> Amount:
        """From `5` or `10%`.

        Raises:
            ValueError: it is neither.
        """
        found = _AMOUNT.fullmatch(text.strip())
        if found is None or (found[2] and not found[3]):
            raise ValueError(f"{text[:20]!r} is no number of nodes, and no percentage such as 10%")
        amount = cls(Fraction(f"{found[1]}.{found[2] or 0}"), bool(found[3]))
        if amount.is_percent and amount.number > 100:
            raise ValueError(f"{text} is more than 100%")
        return amount

    def at_least_one_of(self, total: int) -> int:
        """Of so many, rounded up: nobody waits for a batch of none."""
        return max(1, ceil(self._of(total)))

    def at_most_of(self, total: int) -> int:
        """Of so many, rounded down: 10% of nine nodes allow none to fail."""
        return floor(self._of(total))

    def _of(self, total: int) -> Fraction:
        return self.number * total / 100 if self.is_percent else self.number


def split(items: Sequence[_T], size: int) -> list[list[_T]]:
    """Batches of at most `size`, in order."""
    return [list(items[at : at + size]) for at in range(0, len(items), size)]
