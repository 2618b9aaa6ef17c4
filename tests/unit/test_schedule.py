"""When schedules are due: cron through both changes of the clocks and through corrections, beats, what is remembered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.loader import find_cron_error
from appliance.core.schedule import (
    MAX_SET_BACK_S,
    SPELLED_OUT,
    CronState,
    look_at_cron,
    next_beat,
    next_time,
    spell_out,
)
from appliance.core.specs import CatchUp, Schedule
from appliance.workers.schedule import fingerprint_of, next_delay_s

HOUR_S = 3_600.0
ZONES = {
    "Europe/Berlin": ("2027-03-28", "2027-10-31"),
    "America/New_York": ("2027-03-14", "2027-11-07"),
    "Australia/Lord_Howe": ("2027-10-03", "2027-04-04"),
}
"""The days of the year 2027 on which the clocks go forward, and back."""


def at(zone: str, text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def times(cron: str, zone: str, after: str, count: int) -> list[str]:
    """The next times as the wall shows them, with the offset."""
    found, now = [], at(zone, after)
    for _ in range(count):
        now = next_time(cron, now, ZoneInfo(zone))
        found.append(datetime.fromtimestamp(now, ZoneInfo(zone)).strftime("%d %H:%M %z"))
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_a_daily_time_keeps_its_place_on_the_wall_through_both_changes(zone: str) -> None:
    for day in ZONES[zone]:
        now = at(zone, f"{day} 12:00") - 2 * 24 * HOUR_S
        fired = []
        for _ in range(4):
            now = next_time("0 6 * * *", now, ZoneInfo(zone))
            fired.append(datetime.fromtimestamp(now, ZoneInfo(zone)))
        assert {f"{item:%H:%M:%S}" for item in fired} == {"06:00:00"}
        assert len({item.date() for item in fired}) == 4


def test_a_time_in_the_gap_comes_once_right_after_it() -> None:
    berlin = "Europe/Berlin"
    assert times("30 2 * * *", berlin, "2027-03-27 12:00", 2) == [
        "28 03:00 +0200",
        "29 02:30 +0200",
    ]
    assert times("*/10 2 * * *", berlin, "2027-03-28 01:00", 2) == [
        "28 03:00 +0200",
        "29 02:00 +0200",
    ]
    assert times("0,30 2,3 * * *", berlin, "2027-03-28 01:00", 3) == [
        "28 03:00 +0200",
        "28 03:30 +0200",
        "29 02:00 +0200",
    ]
    assert times("15 2 * * *", "Australia/Lord_Howe", "2027-10-02 12:00", 2) == [
        "03 02:30 +1100",
        "04 02:15 +1100",
    ]
    assert times("30 2 * * *", "America/New_York", "2027-03-13 12:00", 2) == [
        "14 03:00 -0400",
        "15 02:30 -0400",
    ]


def test_a_time_that_is_repeated_comes_once_for_fixed_hours() -> None:
    berlin = "Europe/Berlin"
    assert times("30 2 * * *", berlin, "2027-10-30 12:00", 2) == [
        "31 02:30 +0200",
        "01 02:30 +0100",
    ]
    assert times("0 1-4 * * *", berlin, "2027-10-31 00:30", 4) == [
        "31 01:00 +0200",
        "31 02:00 +0200",
        "31 03:00 +0100",
        "31 04:00 +0100",
    ]
    assert times("45 1 * * *", "Australia/Lord_Howe", "2027-04-03 12:00", 2) == [
        "04 01:45 +1100",
        "05 01:45 +1030",
    ]
    second = datetime(2027, 10, 31, 2, 10, tzinfo=ZoneInfo(berlin), fold=1).timestamp()
    assert next_time("30 2 * * *", second, ZoneInfo(berlin)) == at(berlin, "2027-11-01 02:30")


def test_an_interval_goes_on_in_the_repeated_hour() -> None:
    assert times("*/30 * * * *", "Europe/Berlin", "2027-10-31 01:40", 6) == [
        "31 02:00 +0200", "31 02:30 +0200", "31 02:00 +0100", "31 02:30 +0100", "31 03:00 +0100", "31 03:30 +0100",
    ]  # fmt: skip
    assert times("*/20 * * * *", "Australia/Lord_Howe", "2027-04-04 01:10", 5) == [
        "04 01:20 +1100", "04 01:40 +1100", "04 01:40 +1030", "04 02:00 +1030", "04 02:20 +1030",
    ]  # fmt: skip


def test_an_interval_needs_no_making_up_where_the_instant_has_a_time_anyway() -> None:
    assert times("30 * * * *", "Europe/Berlin", "2027-03-28 01:00", 3) == [
        "28 01:30 +0100",
        "28 03:30 +0200",
        "28 04:30 +0200",
    ]
    assert times("0 */2 * * *", "Europe/Berlin", "2027-03-27 23:00", 3) == [
        "28 00:00 +0100",
        "28 03:00 +0200",
        "28 04:00 +0200",
    ]


def test_zones_without_changes_leap_days_and_a_day_that_never_was() -> None:
    assert times("30 6 * * *", "Asia/Kolkata", "2027-03-28 05:00", 2) == [
        "28 06:30 +0530",
        "29 06:30 +0530",
    ]
    zone = ZoneInfo("America/New_York")
    leap = next_time("0 0 29 2 *", at("America/New_York", "2096-03-01 00:00"), zone)
    assert datetime.fromtimestamp(leap, zone).strftime("%F %H:%M") == "2104-02-29 00:00"
    assert times("0 12 * * *", "Pacific/Apia", "2011-12-29 13:00", 2) == [
        "31 00:00 +1400",
        "31 12:00 +1400",
    ]


def minutes_of(zone: ZoneInfo, start: float, hours: int) -> Iterator[tuple[float, datetime]]:
    for minute in range(hours * 60):
        now = start + 60.0 * minute
        yield now, datetime.fromtimestamp(now, zone).replace(tzinfo=None, fold=0)


def reference(
    minutes: set[int], hours: set[int], is_interval: bool, zone: ZoneInfo, start: float
) -> list[float]:
    """What is due in the 30 hours from `start`, minute by minute, from the sentences of the documentation."""

    def matches(shown: datetime) -> bool:
        return shown.minute in minutes and shown.hour in hours

    due: list[float] = []
    shown_before: set[datetime] = set()
    last: datetime | None = None
    for now, shown in minutes_of(zone, start, 30):
        is_due = matches(shown) and (is_interval or shown not in shown_before)
        if last is not None and shown > last + timedelta(minutes=1):
            gap = shown - last - timedelta(minutes=1)
            missing = [last + timedelta(minutes=1 + n) for n in range(int(gap.total_seconds() // 60))]  # fmt: skip
            left_out = [item for item in missing if matches(item)]
            is_due |= any(not is_interval or not matches(item + gap) for item in left_out)
        if is_due:
            due.append(now)
        shown_before.add(shown)
        last = shown
    return due


numbers_of_an_hour = st.sets(st.integers(0, 59), min_size=1, max_size=4)
numbers_of_a_day = st.sets(st.integers(0, 4), min_size=1, max_size=4)


@given(
    zone=st.sampled_from(sorted(ZONES)),
    which=st.integers(0, 1),
    minutes=st.one_of(numbers_of_an_hour, st.sampled_from([1, 7, 10, 15, 20, 30])),
    hours=st.one_of(numbers_of_a_day, st.sampled_from([1, 2, 3, 5])),
)
@settings(max_examples=60, deadline=None)
def test_times_around_a_change_are_those_that_a_minute_by_minute_walk_finds(
    zone: str, which: int, minutes: set[int] | int, hours: set[int] | int
) -> None:
    is_interval = isinstance(hours, int)
    written = [
        f"*/{part}" if isinstance(part, int) else ",".join(map(str, sorted(part)))
        for part in (minutes, hours)
    ]
    minute_set = set(range(0, 60, minutes)) if isinstance(minutes, int) else minutes
    hour_set = set(range(0, 24, hours)) if isinstance(hours, int) else hours
    start = at(zone, f"{ZONES[zone][which]} 00:00") - 3 * HOUR_S
    expected = reference(minute_set, hour_set, is_interval, ZoneInfo(zone), start)
    found: list[float] = []
    now = start - 1
    while (now := next_time(f"{' '.join(written)} * * *", now, ZoneInfo(zone))) < start + 30 * HOUR_S:  # fmt: skip
        found.append(now)
    assert found == expected
    for instant in (start + 5.5 * HOUR_S, start + 6.25 * HOUR_S, start + 6.75 * HOUR_S):
        later = [item for item in expected if item > instant]
        if later:  # wherever one begins to look, the same times come
            assert next_time(f"{' '.join(written)} * * *", instant, ZoneInfo(zone)) == later[0]


def test_the_zone_of_the_process_counts_where_none_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        for zone in ("Europe/Berlin", "America/New_York"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            for day in ZONES[zone]:
                now = at(zone, f"{day} 00:10")
                shown = datetime.fromtimestamp(now).astimezone()
                delay_s = next_delay_s(Schedule(cron="0 6 * * *"), shown)
                assert now + delay_s == at(zone, f"{day} 06:00")
                for _ in range(3):
                    assert next_time("17 */5 * * *", now, None) == next_time(
                        "17 */5 * * *", now, ZoneInfo(zone)
                    )
                    now += 17 * HOUR_S
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_named_zone_counts_whatever_the_process_has() -> None:
    schedule = Schedule(cron="0 6 * * *", timezone="Asia/Kolkata")
    now = datetime(2027, 1, 1, 0, 0, tzinfo=UTC)
    assert next_delay_s(schedule, now) == 1_800.0
    assert next_delay_s(Schedule(every_s=7.5), now) == 7.5


@pytest.mark.parametrize("name", [*SPELLED_OUT, "@Daily"])
def test_short_names_are_good_and_mean_what_they_say(name: str) -> None:
    assert find_cron_error(name) is None
    now = at("Europe/Berlin", "2027-06-01 10:30")
    zone = ZoneInfo("Europe/Berlin")
    assert next_time(name, now, zone) == next_time(spell_out(name), now, zone) > now


@pytest.mark.parametrize(
    "text", ["@reboot", "@", "R * * * *", "H 3 * * *", "0 r * * *", "* * * * * *", "0 0 30 2 *"]
)
def test_what_has_no_times_of_its_own_is_no_cron_expression(text: str) -> None:
    assert find_cron_error(text) is not None


# -- corrections of the clock ----------------------------------------------------------------------------------------

DAY = at("Europe/Berlin", "2027-06-01 00:00")
BERLIN = ZoneInfo("Europe/Berlin")


def look(state: CronState, now: float, catch_up: CatchUp = CatchUp.NONE, cron: str = "0 6 * * *"):
    return look_at_cron(cron, BERLIN, catch_up, state, now)


def follow(state: CronState, start: float, hours: float, catch_up: CatchUp = CatchUp.NONE):
    """Looks every 30 s while the clock goes on; the state after them, the times of messages, the times missed."""
    fired, missed = [], []
    now = start
    while now <= start + hours * HOUR_S:
        seen = look(state, now, catch_up)
        state = seen.state
        if seen.missed_at is not None:
            missed.append(seen.missed_at)
        if seen.is_due:
            fired.append(now)
        if seen.is_due or seen.missed_at is not None:
            state = state.deal(now)
        now += 30.0
    return state, fired, missed


def test_a_time_is_due_when_it_comes_and_not_again() -> None:
    state, fired, missed = follow(CronState.begin(DAY + 5 * HOUR_S), DAY + 5 * HOUR_S, 30)
    assert (fired, missed) == ([DAY + 6 * HOUR_S, DAY + 30 * HOUR_S], [])
    assert look(state, DAY + 35 * HOUR_S).next_at == DAY + 54 * HOUR_S


def test_a_look_that_comes_late_within_the_minute_is_on_time() -> None:
    state = CronState.begin(DAY + 6 * HOUR_S - 20)
    assert look(state, DAY + 6 * HOUR_S + 59).is_due
    late = look(state, DAY + 6 * HOUR_S + 61)
    assert (late.is_due, late.missed_at) == (False, DAY + 6 * HOUR_S)


@pytest.mark.parametrize(("catch_up", "messages"), [(CatchUp.NONE, 0), (CatchUp.ONCE, 1)])
def test_a_clock_set_forward_over_times_misses_them_as_catch_up_says(
    catch_up: CatchUp, messages: int
) -> None:
    state, _, _ = follow(CronState.begin(DAY), DAY, 1, catch_up)
    for _ in range(2):  # over two days of the schedule, twice
        start = state.seen_at + 48 * HOUR_S
        state, fired, missed = follow(state, start, 0.5, catch_up)
        assert (len(fired), len(missed)) == (messages, 1)


def test_a_clock_set_back_a_little_does_not_make_a_time_come_again() -> None:
    state, fired, _ = follow(CronState.begin(DAY + 5 * HOUR_S), DAY + 5 * HOUR_S, 1.5)
    assert len(fired) == 1
    for back_s in (60.0, HOUR_S, MAX_SET_BACK_S - 60.0):
        assert follow(state, state.seen_at - back_s, back_s / HOUR_S + 1)[1:] == ([], [])


@pytest.mark.parametrize("back_h", [3.5, 8.0, 24.0 * 365])
def test_a_clock_set_back_far_was_wrong_and_the_new_time_counts(back_h: float) -> None:
    state, _, _ = follow(CronState.begin(DAY + 5 * HOUR_S), DAY + 5 * HOUR_S, 4)
    state, fired, missed = follow(state, DAY + 9 * HOUR_S - back_h * HOUR_S, 24)
    assert (len(fired), missed) == (1, [])
    assert datetime.fromtimestamp(fired[0], BERLIN).hour == 6


@pytest.mark.parametrize("catch_up", list(CatchUp))
def test_a_machine_that_starts_in_1970_misses_nothing_that_was_dealt_with(
    catch_up: CatchUp,
) -> None:
    before, fired, _ = follow(CronState.begin(DAY + 5 * HOUR_S), DAY + 5 * HOUR_S, 2, catch_up)
    assert len(fired) == 1
    state = CronState.resume(before.dealt_at)
    state, fired, missed = follow(state, 10_000.0, 0.2, catch_up)
    assert (fired, missed) == ([], [])
    state, fired, missed = follow(state, DAY + 12 * HOUR_S, 20, catch_up)
    assert (fired, missed) == ([DAY + 30 * HOUR_S], [])


@pytest.mark.parametrize(("catch_up", "messages"), [(CatchUp.NONE, 0), (CatchUp.ONCE, 1)])
def test_times_that_passed_while_the_daemon_was_down_are_missed(
    catch_up: CatchUp, messages: int
) -> None:
    state = CronState.resume(DAY + 6 * HOUR_S)
    _, fired, missed = follow(state, DAY + 80 * HOUR_S, 1, catch_up)
    assert (len(fired), missed) == (messages, [DAY + 30 * HOUR_S])


def test_a_time_of_the_very_restart_is_not_missed_and_not_doubled() -> None:
    resumed = look(CronState.resume(DAY), DAY + 6 * HOUR_S + 40)
    assert (resumed.is_due, resumed.missed_at) == (True, None)
    again = CronState.resume(resumed.state.deal(DAY + 6 * HOUR_S + 40).dealt_at)
    assert not look(again, DAY + 6 * HOUR_S + 50).is_due


def test_minutes_missed_and_the_one_on_time_are_one_message() -> None:
    seen = look(CronState.begin(DAY), DAY + 600, cron="* * * * *")
    assert (seen.is_due, seen.missed_at) == (True, DAY + 60)
    assert not look(seen.state.deal(DAY + 600), DAY + 610, cron="* * * * *").is_due


# -- beats and fingerprints ---------------------------------------------------------------------------------------------


@given(
    every_s=st.floats(0.01, 1e7),
    late_s=st.floats(0, 1e8),
    beat_at=st.floats(1e9, 2e9),
)
def test_a_beat_is_kept_unless_one_was_missed(
    every_s: float, late_s: float, beat_at: float
) -> None:
    now = beat_at + late_s
    due_at = next_beat(beat_at, every_s, now)
    assert due_at > now or every_s < 1e-6 * now
    assert due_at == (beat_at + every_s if beat_at + every_s > now else now + every_s)


def test_what_makes_a_schedule_another_one() -> None:
    cron = Schedule(cron="0 6 * * *", data=("a",))
    assert fingerprint_of(cron) == fingerprint_of(Schedule(cron="0 6 * * *", catch_up=CatchUp.ONCE))
    beat = Schedule(every_s=60.0, data=("a",))
    others = [
        Schedule(cron="0 7 * * *"), Schedule(cron="0 6 * * *", timezone="UTC"), beat,
        Schedule(every_s=61.0, data=("a",)), Schedule(every_s=60.0, data=("b",)),
    ]  # fmt: skip
    assert len({fingerprint_of(item) for item in (cron, *others)}) == 6
