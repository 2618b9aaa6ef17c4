"""A value that changes now and then, and those who want to know when: in the place of a function that is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
P = TypeVar("P")


class Current(Generic[T]):
    """Holds the value in force. Owned by one, who puts; everybody else reads `value` or follows."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._followers: list[Callable[[T], None]] = []

    def put(self, value: T) -> None:
        """Another value is in force from here on; whoever follows is told, in the order they began to."""
        self.value = value
        for on_change in tuple(self._followers):
            on_change(value)

    def follow(self, on_change: Callable[[T], None]) -> Callable[[], None]:
        """Be told of every change to come; the result ends it."""
        self._followers.append(on_change)
        return lambda: self._followers.remove(on_change)

    def part(self, pick: Callable[[T], P]) -> Current[P]:
        """A part of it, or what follows from it, as a value of its own that changes along."""
        part = Current(pick(self.value))
        self.follow(lambda new: part.put(pick(new)))
        return part
