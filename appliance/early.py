"""SIGHUP before anything else is there: remembered, never fatal.

The default action of SIGHUP ends a process, and a supervisor may send it the moment the process
exists. So the very first thing the program does is to take the signal over. Only `signal` is
imported here: what stands before `install` in the life of the process is the start of the
interpreter itself, which no program can guard.

A handler, not a signal mask: a mask would be inherited by every child.
"""

from __future__ import annotations

import signal

_hups = [0]
_previous: list[object] = []


def _remember(_number: int, _frame: object) -> None:
    _hups[0] += 1


def install() -> None:
    """Take SIGHUP over. Called once, before the heavy imports."""
    if hasattr(signal, "SIGHUP") and not _previous:
        _previous.append(signal.signal(signal.SIGHUP, _remember))


def take_hup() -> bool:
    """Whether a SIGHUP came since the last call.

    The daemon asks after it has put its own handler in place: from then on none can be missed.
    """
    had = _hups[0] > 0
    _hups[0] = 0
    return had


def restore() -> None:
    """Give SIGHUP back its default: every command but `run` shall end with its terminal."""
    if not _previous:
        return
    previous = _previous.pop()
    signal.signal(signal.SIGHUP, previous)  # type: ignore[arg-type]
    if take_hup():
        signal.raise_signal(signal.SIGHUP)
