"""When the interpreter looks for garbage.

A full collection walks every object there is, and nothing else runs meanwhile: 0.4 s with 10,000 workers, twenty times in
a start of theirs that takes 2.5 s without. So it does not look while something large is built, when all that is made
stays; and what is there once a set is in force is left out of later looks, which then cost what came since. Reference
counts free what messages leave behind; only what stands in a circle waits for a look.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_look_for_garbage() -> Iterator[None]:
    """For work with an end that is near: of the check of 110,000 subscriptions half the time went into looks."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


YOUNG_OBJECTS = 10_000
"""How many more objects there must be before the young ones are looked at: 700 is meant for small programs."""
TURNOVER_WORKERS = 1_000
TURNOVER_OF_WORKERS = 0.1
"""How many workers may come and go, at least and as a part of those there are, before all is looked at again."""


class Collector:
    """Life: `starting` around what is built first -> `settle` whenever a set is in force and its workers have moved."""

    def __init__(self) -> None:
        self._settled_moves: int | None = None
        gc.set_threshold(YOUNG_OBJECTS, 10, 10)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Look at nothing inside of it."""
        try:
            with no_look_for_garbage():
                yield
        finally:
            # all that a start makes stays, so no later look need walk it
            gc.freeze()

    def settle(self, moves: int, workers: int) -> None:
        """Look at everything once if enough has changed, and leave what stays out of the looks to come.

        `moves` counts the workers that came or went since the start, `workers` are those there are.
        """
        if self._settled_moves is None:
            self._settled_moves = moves  # what the start has made
        if moves - self._settled_moves <= max(TURNOVER_WORKERS, workers * TURNOVER_OF_WORKERS):
            return
        self._settled_moves = moves
        # the frozen ones too: workers that have gone are among them
        gc.unfreeze()
        gc.collect()
        gc.freeze()
