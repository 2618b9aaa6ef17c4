"""Time that never jumps: how the steady clock goes on over restarts. Pure.

Steady seconds count from the epoch like those of the wall clock, but they are the monotonic clock plus an offset. The
offset is chosen when a process starts and then holds, so no correction of the wall clock makes anything older or
younger. Within one boot of the machine the offset of the process before is simply kept. Over a reboot the monotonic
clock starts anew; what has passed meanwhile is told by the wall clock, as far as it can be believed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Anchor:
    """What three clocks said at one moment, in seconds, and in which boot of the machine ("" unknown)."""

    boot_id: str
    steady: float
    mono: float
    wall: float


def choose_offset(last: Anchor | None, *, boot_id: str, mono: float, wall: float) -> float:
    """Steady time minus monotonic time for a process that starts now.

    `last` is the newest moment that an earlier process noted; None begins with the wall clock's time.
    """
    if last is None:
        return wall - mono
    is_same_boot = bool(boot_id) and boot_id == last.boot_id and mono >= last.mono
    if is_same_boot:
        # the machine has not started anew: the monotonic clock itself tells what passed
        return last.steady - last.mono
    return last.steady + passed_since(last, mono=mono, wall=wall) - mono


def passed_since(last: Anchor, *, mono: float, wall: float) -> float:
    """Seconds between a moment in an earlier boot and now, never negative.

    At least the time since the machine started (`mono`). The wall clock may have been wrong at either end (a machine
    without a battery starts in 1970): where it and the steady time of `last` disagree, the shorter span is believed,
    because to expire or forget too late harms less than too early.
    """
    spans = [wall - last.wall, wall - last.steady]
    positive = [span for span in spans if span > 0.0]
    return max(min(positive, default=0.0), mono, 0.0)
