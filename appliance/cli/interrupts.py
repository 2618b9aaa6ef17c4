"""Ctrl-C of a command that waits for others: the first tells how to end what they do, a second does it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

WINDOW_S = 3.0
"""How long after the first a second one counts; then the waiting ends, and nothing else."""


class Interrupts:
    """What was pressed while the block of `heard` ran. Both ways end with a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.is_second = False
        """Whether whoever waits wants the work ended, too."""
        self._count = 0

    @contextlib.contextmanager
    def heard(self, tell: Callable[[], bool]) -> Iterator[None]:
        """`tell` says what a second Ctrl-C does, and whether it does anything: else the first one ends the waiting."""

        def on_interrupt(_number: int, _frame: object) -> None:
            self._count += 1
            self.is_second = self._count > 1
            if self.is_second or not tell():
                raise KeyboardInterrupt
            signal.setitimer(signal.ITIMER_REAL, WINDOW_S)

        def on_time(_number: int, _frame: object) -> None:
            raise KeyboardInterrupt

        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield  # ignored, as in the background of a shell, or somebody else's
            return
        before = signal.signal(signal.SIGALRM, on_time)
        signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGALRM, before)
