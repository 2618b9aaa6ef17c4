"""When a schedule's next message is due, and what becomes of times that passed unseen. Pure: all times come in.

`every` runs on the steady clock (epoch seconds that never jump), `cron` on the clock of the wall, read in a time zone.

A cron time is a time of day on the wall, so two nights of the year need a rule. A time that the clock leaves out comes
once, right after the gap. A time that the clock shows twice comes once, the first time; but a schedule whose hours begin
with ``*`` means an interval, and goes on in the repeated hour as in any other. (For such a schedule a time in the gap
needs no making up where the very same instant, by its new name, is one of its times anyway.)

The clock itself may be set. What counts is how far the schedule has been dealt with:

- Set forward over a time, or not running then: the time is missed once its minute is over. `catch_up` says the rest.
- Set back by less than three hours: times that were dealt with do not come again.
- Set back further: the clock was wrong before, and the new time counts. Should it then jump forward again (a machine
  without a clock of its own that starts in 1970), what was dealt with before is not missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from math import floor, inf

from croniter import croniter

from appliance.core.specs import CatchUp

ON_TIME_S = 60.0
"""A cron time is served as long as its minute lasts, then it is missed."""
MAX_SET_BACK_S = 3 * 3_600.0
"""A clock set back by less does not make times come again; by more, it was wrong before."""
MAX_LOOK_GAP_S = 120.0
"""Two looks of a schedule that runs are never further apart on the wall, unless the clock jumped."""
_DAY_S = 86_400

SPELLED_OUT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def spell_out(cron: str) -> str:
    """The five fields that a short name such as ``@daily`` stands for; other texts as they are."""
    return SPELLED_OUT.get(cron.strip().lower(), cron)


# -- times of a cron expression -------------------------------------------------------------------------------------


def next_time(cron: str, after_at: float, zone: tzinfo | None) -> float:
    """The first instant later than `after_at` at which the expression is due, in epoch seconds.

    Args:
        cron: an expression that `config.loader` has found good.
        after_at: epoch seconds.
        zone: None for the zone of the process.
    """
    cron = spell_out(cron)
    is_interval = cron.split()[1].startswith("*")
    at = floor(after_at)
    offset_s = _offset_s(at, zone)
    after_local = at + offset_s
    """Seconds of the clock on the wall, counted as if it were one that never changes."""
    repeated_to_local = None if is_interval else _end_of_repeated(at, offset_s, zone)
    if repeated_to_local is not None:
        after_local = repeated_to_local - 1
    while True:
        local = _next_local(cron, after_local)
        change_at = _find_change(at, local - offset_s, zone)
        if change_at is None:
            return float(local - offset_s)
        new_offset_s = _offset_s(change_at, zone)
        edge_local = change_at + offset_s
        moved_s = new_offset_s - offset_s
        if moved_s > 0:
            if local < edge_local + moved_s and not (
                is_interval and _are_served(cron, edge_local, moved_s)
            ):
                return float(change_at)
            after_local = edge_local + moved_s - 1
        else:
            after_local = (edge_local + moved_s if is_interval else edge_local) - 1
        at, offset_s = change_at, new_offset_s


def _next_local(cron: str, after_local: int) -> int:
    # NB: UTC stands in for a clock without changes; the library's own way through them is not ours
    return round(croniter(cron, datetime.fromtimestamp(after_local, UTC)).get_next(float))


def _are_served(cron: str, edge_local: int, gap_s: int) -> bool:
    """Whether every time that a gap leaves out is one of the schedule's times by its new name, too."""
    missing = _next_local(cron, edge_local - 1)
    while missing < edge_local + gap_s:
        if _next_local(cron, missing + gap_s - 1) != missing + gap_s:
            return False
        missing = _next_local(cron, missing)
    return True


def _end_of_repeated(at: int, offset_s: int, zone: tzinfo | None) -> int | None:
    """Where, on the wall, the times end that the clock is showing for the second time; None if it is not."""
    change_at = _find_change(at - _DAY_S, at, zone)
    if change_at is None:
        return None
    edge_local = change_at + _offset_s(change_at - 1, zone)
    return edge_local if at + offset_s < edge_local else None


def _find_change(from_at: int, to_at: int, zone: tzinfo | None) -> int | None:
    """The first instant after `from_at`, up to `to_at`, at which the offset from UTC is another than at `from_at`."""
    offset_s = _offset_s(from_at, zone)
    low = from_at
    while low < to_at:
        high = min(low + _DAY_S, to_at)
        if _offset_s(high, zone) != offset_s:
            while high - low > 1:
                middle = (low + high) // 2
                if _offset_s(middle, zone) == offset_s:
                    low = middle
                else:
                    high = middle
            return high
        low = high
    return None


def _offset_s(at: int, zone: tzinfo | None) -> int:
    """How far the clock on the wall is ahead of UTC."""
    wall = datetime.fromtimestamp(at, zone).replace(tzinfo=UTC)
    return round(wall.timestamp()) - at


# -- how far a schedule is dealt with ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CronState:
    """How far a cron schedule has been dealt with, in epoch seconds of the wall clock."""

    dealt_at: float
    """All times up to here, as far as this is known to have been; kept over restarts."""
    seen_at: float
    """The same by the clock as it goes now; other than `dealt_at` after the clock was set back far."""

    @classmethod
    def begin(cls, now_at: float) -> CronState:
        """A schedule that is new: only later times count."""
        return cls(now_at, now_at)

    @classmethod
    def resume(cls, dealt_at: float) -> CronState:
        """A schedule that an earlier run of the daemon has brought so far."""
        return cls(dealt_at, dealt_at)

    def deal(self, now_at: float) -> CronState:
        """Everything up to now is done; the clock as it goes is the right one."""
        dealt_at = max(now_at, self.seen_at)
        return CronState(dealt_at, dealt_at)


@dataclass(frozen=True, slots=True)
class CronLook:
    """What a look at the clock says.

    After a message was accepted, or was not to be, the caller goes on with `state.deal(now)`.
    """

    state: CronState
    is_due: bool = False
    """A message is to be made now."""
    missed_at: float | None = None
    """The first time that passed unseen, None if none did."""
    next_at: float = inf
    """The next time, by the wall. Meaningless when `is_due`, or when times were missed."""


def look_at_cron(
    cron: str, zone: tzinfo | None, catch_up: CatchUp, state: CronState, now_at: float
) -> CronLook:
    """Decide what is due at `now_at`, wall-clock seconds."""
    seen_at = state.seen_at
    if now_at < seen_at - MAX_SET_BACK_S:
        # set back far: what it showed before was wrong, so times count from what it shows now
        state = CronState(state.dealt_at, now_at)
        return CronLook(state, next_at=next_time(cron, now_at, zone))
    if now_at - seen_at > MAX_LOOK_GAP_S:
        # not seen: a jump, or the daemon was down. What was dealt with before the clock was set back is not missed.
        seen_at = max(seen_at, min(state.dealt_at, now_at))
    next_at = next_time(cron, seen_at, zone)
    seen = CronState(state.dealt_at, max(seen_at, now_at))
    if next_at > now_at:
        return CronLook(seen, next_at=next_at)
    before = CronState(state.dealt_at, seen_at)
    # asked apart from what was missed: after a long gap this very minute may be one of its times, too
    is_on_time = next_time(cron, max(seen_at, now_at - ON_TIME_S), zone) <= now_at
    missed_at = next_at if next_at <= now_at - ON_TIME_S else None
    return CronLook(before, is_on_time or catch_up is CatchUp.ONCE, missed_at, next_at)


def next_beat(beat_at: float, every_s: float, now_at: float) -> float:
    """The beat after the one at `beat_at`: kept exactly, unless a whole one was missed, then counted anew from now.

    Times are of the steady clock.
    """
    due_at = beat_at + every_s
    return due_at if due_at > now_at else now_at + every_s
