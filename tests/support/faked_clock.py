"""A wall clock of its own for programs, by libfaketime (Debian: `faketime`), and nothing but the wall clock.

`prove` shows that of the machine it runs on. Left to itself, libfaketime also converts the timed waits of condition
variables that count by the monotonic clock, and the interpreter's lock is made of these. By most offsets such a wait is over
at once, so that threads fight for the lock (ten times the work for the same load); by others, 1970 among them, it never
ends, so that a thread gets the lock only when another one happens to rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import LONG_S

PROBE = Path(__file__).with_name("clock_probe.py")
SHARED_MEMORY = Path("/dev/shm")


def find_library() -> Path | None:
    """The library, where Debian or Fedora put it; None if it is not installed."""
    places = ("lib/*/faketime/libfaketimeMT.so.1", "lib64/faketime/libfaketimeMT.so.1")
    return next((path for place in places for path in Path("/usr").glob(place)), None)


class FakedClock:
    """So many seconds off this machine's. Whoever has its `environment` sees a jump at the next look.

    Raises:
        FileNotFoundError: libfaketime is not installed.
    """

    def __init__(self, path: Path, offset_s: float = 0.0) -> None:
        library = find_library()
        if library is None:
            raise FileNotFoundError("libfaketime is not installed here (Debian: faketime)")
        self._library = library
        self._path = path
        self._history: list[tuple[float, float]] = []
        self.set(offset_s)

    def set(self, offset_s: float) -> None:
        self.offset_s = offset_s
        new = self._path.with_name("new-clock")
        new.write_text(f"{offset_s:+.0f}s\n")
        new.replace(self._path)
        self._history.append((time.monotonic(), offset_s))

    def stretches(self, until_mono: float) -> list[tuple[float, float, float]]:
        """Between the jumps: from when to when by the monotonic clock, and how far the wall is ahead of that."""
        ahead_s = time.time() - time.monotonic()
        ends = [mono for mono, _ in self._history[1:]] + [until_mono]
        return [
            (from_mono, to_mono, ahead_s + offset_s)
            for (from_mono, offset_s), to_mono in zip(self._history, ends, strict=True)
        ]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # without this the line above is not true of waits: see the module
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def prove(self) -> None:
        """Fail where a program sees another wall clock than this one, or has anything else faked."""
        offset_s = float(round(self.offset_s))  # as it is written
        before = _Moment.now()
        probed = subprocess.run(
            [sys.executable, str(PROBE)],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=LONG_S,
            check=True,
        )
        after = _Moment.now()
        seen = json.loads(probed.stdout)
        for name in ("monotonic", "boottime"):
            assert getattr(before, name) <= seen[name] <= getattr(after, name), (name, seen)
        for wall in seen["walls"]:
            assert before.wall <= wall - offset_s <= after.wall, (before, offset_s, seen)
        short = {what: took_s for what, took_s in seen["waits"].items() if took_s < seen["wait_s"]}
        assert not short, f"waits of {seen['wait_s']} s that are over too early: {short}"


@dataclass(frozen=True)
class _Moment:
    wall: float
    monotonic: float
    boottime: float

    @classmethod
    def now(cls) -> _Moment:
        return cls(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))


def clear_after_kill(pid: int) -> None:
    """Take away what libfaketime leaves of a killed process: another one of that number would not start."""
    for name in (f"sem.faketime_sem_{pid}", f"faketime_shm_{pid}"):
        (SHARED_MEMORY / name).unlink(missing_ok=True)
