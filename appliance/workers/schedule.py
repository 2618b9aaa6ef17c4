"""Scheduled messages: `every` and `cron` of a publish entry. When they are due is decided in `core.schedule`.

One message of a schedule waits at a time: hours without a broker leave one hello to send, not thousands, and so do
restarts. What has to be known for that, and for the beat, is a small durable fact written in the same commit as the
message: kind `FACT_KIND`, key ``<node>/<entry>/<destination>``, value ``<schedule> <time> <id of the message>``.

The first message of a new `every` schedule goes out at once; a hello does so with every start, as a Go node's does.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import math
import time
import zoneinfo
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from typing import NamedTuple, Protocol

from appliance.core.current import Current
from appliance.core.message import Message
from appliance.core.schedule import (
    CronState,
    look_at_cron,
    next_beat,
    next_time,
)
from appliance.core.specs import CatchUp, DesiredState, PublisherSpec, Schedule
from appliance.errors import RequestInvalid, StoreError
from appliance.telemetry.report import Telemetry

FACT_KIND = "schedule"
ID_PLACEHOLDER = "{id}"
"""Stands in a fact's value for the id of the message that it is stored with."""
HELLO_METHOD = "REQHello"
MAX_WAIT_S = 30.0
"""A look at the clock is never further away: time may have jumped, or the machine slept."""
RETRY_S = 5.0
"""When the store would not take a message, it is asked again after this."""

Facts = Mapping[tuple[str, str], str | None]
SubmitScheduled = Callable[[Message, str, Facts], Awaitable[int | None]]
"""Makes a record of the message with the origin given and puts it together with the facts, in whose values
`ID_PLACEHOLDER` is replaced by the record's id. Returns that id once both are durable, None if no message is taken now
(the publisher is draining).

Raises:
    StoreError: nothing was stored; the scheduler asks again.
    RequestInvalid: such a message cannot be sent; the scheduler waits for the next time.
"""


class ScheduleStore(Protocol):
    """What a scheduler needs of the message store."""

    def now(self) -> float:
        """The steady clock: epoch seconds that never jump."""
        ...

    def is_pending(self, record_id: int) -> bool:
        """Whether a record was accepted and is not settled."""
        ...

    def facts(self, kind: str) -> Mapping[str, str]:
        """Small durable facts of a kind."""
        ...

    async def remember(self, kind: str, changes: Mapping[str, str | None]) -> None:
        """Change some of them; None forgets. Raises StoreError."""
        ...


class _Fact(NamedTuple):
    """What is remembered of a schedule."""

    schedule: str
    """The fingerprint of the schedule that it is about."""
    at: float
    """Its last beat in steady seconds, or how far it is dealt with by the clock on the wall."""
    record_id: int | None
    """Its last message."""


class Scheduler:
    """Runs beside a publisher's loop and follows its spec. See the module for the idea.

    Args:
        submit: see `SubmitScheduled`.
        wall: wall-clock seconds since the epoch; may jump.
        mono: seconds that never jump, as the event loop counts them.
    """

    def __init__(
        self,
        spec: PublisherSpec,
        submit: SubmitScheduled,
        telemetry: Telemetry,
        *,
        store: ScheduleStore,
        wall: Callable[[], float],
        mono: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._submit = submit
        self._telemetry = telemetry
        self._store = store
        self._wall = wall
        self._mono = mono
        self._wake = asyncio.Event()
        self._current = ""
        """Fingerprint of the schedule that the state below belongs to."""
        self._beat_at = 0.0
        """Of `every`: the beat that comes next, in steady seconds."""
        self._cron = CronState.begin(0.0)
        self._record_id: int | None = None
        self._is_hurried = spec.method == HELLO_METHOD
        self._retry_due_mono = 0.0
        self._trouble_told = ""
        self._missed_told_at: float | None = None

    def use(self, spec: PublisherSpec) -> None:
        """Use another schedule from now on; one that is new begins anew."""
        self._spec = spec
        self._wake.set()

    def hurry(self) -> None:
        """Produce a message of an `every` schedule now and count anew from there, unless one still waits."""
        if self._spec.schedule is not None and self._spec.schedule.every_s is not None:
            self._is_hurried = True
            self._wake.set()

    def clock_jumped(self) -> None:
        """The wall clock was set: look at it now."""
        self._wake.set()

    async def run(self) -> None:
        """Produce messages until cancelled."""
        while True:
            # before the look: a schedule that changes during it is looked at next
            self._wake.clear()
            wait_s = await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait_s is None else min(wait_s, MAX_WAIT_S)):
                    await self._wake.wait()

    # -- looking at the clock ---------------------------------------------------------------------

    async def _look(self) -> float | None:
        """Do what is due; seconds until the next look, None for none."""
        schedule = self._spec.schedule
        if schedule is None:
            self._current = ""
            return None
        if self._mono() < self._retry_due_mono:
            # also where something else woke us: a full store is not asked for each hint
            return self._retry_due_mono - self._mono()
        fingerprint = fingerprint_of(schedule)
        if fingerprint != self._current:
            await self._begin(schedule, fingerprint)
        if schedule.every_s is not None:
            return await self._look_at_beat(schedule, schedule.every_s)
        return await self._look_at_cron(schedule)

    async def _begin(self, schedule: Schedule, fingerprint: str) -> None:
        """Go on where an earlier run, or worker, has stopped; or begin, if the schedule is new."""
        fact = _parse(self._store.facts(FACT_KIND).get(self._key))
        is_known = fact is not None and fact.schedule == fingerprint
        if fact is not None and self._record_id is None:
            self._record_id = fact.record_id
        if schedule.every_s is not None:
            now = self._store.now()
            self._beat_at = now
            if fact is not None and is_known:
                # the beat goes on over restarts; a fact from the future does not stop it
                self._beat_at = min(fact.at, now) + schedule.every_s
        elif fact is not None and is_known:
            self._cron = CronState.resume(fact.at)
        else:
            self._cron = CronState.begin(self._wall())
            await self._remember(fingerprint, self._cron.dealt_at)
        self._current = fingerprint

    async def _look_at_beat(self, schedule: Schedule, every_s: float) -> float:
        now = self._store.now()
        if now >= self._beat_at or self._is_hurried:
            is_late = self._is_hurried or now >= self._beat_at + every_s
            beat_at = now if is_late else self._beat_at
            if not self._is_waiting and not await self._produce(schedule, beat_at):
                return RETRY_S
            self._is_hurried = False
            self._beat_at = next_beat(beat_at, every_s, self._store.now())
        return max(0.0, self._beat_at - self._store.now())

    async def _look_at_cron(self, schedule: Schedule) -> float:
        zone = self._find_zone(schedule)
        if zone is _NO_ZONE:
            return MAX_WAIT_S
        now = self._wall()
        look = look_at_cron(schedule.cron or "", zone, schedule.catch_up, self._cron, now)
        self._cron = look.state
        if not look.is_due and look.missed_at is None:
            return max(0.0, look.next_at - now)
        dealt = look.state.deal(now)
        if look.missed_at is not None:
            is_made_up = look.is_due and schedule.catch_up is CatchUp.ONCE  # else this minute's own
            self._tell_missed(look.missed_at, is_made_up=is_made_up)
        if look.is_due and not self._is_waiting:
            if not await self._produce(schedule, dealt.dealt_at):
                return RETRY_S
        else:
            # without a message, too: after a restart this time must not count as missed
            await self._remember(self._current, dealt.dealt_at)
        self._cron = dealt
        self._missed_told_at = None
        return 0.0

    def _find_zone(self, schedule: Schedule) -> datetime.tzinfo | None:
        if schedule.timezone is None:
            time.tzset()  # the system's zone may be another than when this process started
            return None
        try:
            return zoneinfo.ZoneInfo(schedule.timezone)
        except (
            KeyError,
            ValueError,
            OSError,
        ) as error:  # the database changed since the config was checked
            self._tell(f"no time zone {schedule.timezone}: {error}")
            return _NO_ZONE

    # -- messages ---------------------------------------------------------------------------------

    @property
    def _is_waiting(self) -> bool:
        """Whether the message before is still in the outbox."""
        return self._record_id is not None and self._store.is_pending(self._record_id)

    @property
    def _key(self) -> str:
        return fact_key(self._spec)

    async def _produce(self, schedule: Schedule, at: float) -> bool:
        """Make a message; False if the store would not take it now."""
        value = f"{self._current} {at!r} {ID_PLACEHOLDER}"
        message = make_scheduled(self._spec, schedule)
        try:
            record_id = await self._submit(
                message, f"schedule:{self._spec.entry or ''}", {(FACT_KIND, self._key): value}
            )
        except StoreError as error:
            self._retry_due_mono = self._mono() + RETRY_S
            self._tell(f"scheduled message not accepted: {error}")
            return False
        except RequestInvalid as error:
            self._tell(f"scheduled message cannot be sent: {error}")
            return True
        if record_id is None:
            self._retry_due_mono = self._mono() + RETRY_S
            return False
        self._record_id = record_id
        self._trouble_told = ""
        return True

    async def _remember(self, fingerprint: str, at: float) -> None:
        value = f"{fingerprint} {at!r} {self._record_id if self._record_id is not None else '-'}"
        try:
            await self._store.remember(FACT_KIND, {self._key: value})
        except StoreError as error:  # at worst a missed time is told again after a restart
            self._tell(f"schedule not remembered: {error}")

    def _tell(self, text: str) -> None:
        """A trouble, once for as long as it lasts."""
        if text != self._trouble_told:
            self._trouble_told = text
            self._telemetry.worker_troubled(self._spec.key, text)

    def _tell_missed(self, missed_at: float, *, is_made_up: bool) -> None:
        if missed_at != self._missed_told_at:  # asked again while the store takes nothing
            self._missed_told_at = missed_at
            self._telemetry.schedule_missed(self._spec.key, missed_at, is_made_up=is_made_up)


_NO_ZONE = datetime.timezone(datetime.timedelta(0), "none")
"""Stands for a zone that cannot be had."""


def next_delay_s(schedule: Schedule, now: datetime.datetime) -> float:
    """Seconds from `now`, which knows its zone, until a schedule's next message."""
    if schedule.every_s is not None:
        return schedule.every_s
    zone = None if schedule.timezone is None else zoneinfo.ZoneInfo(schedule.timezone)
    return next_time(schedule.cron or "", now.timestamp(), zone) - now.timestamp()


def make_scheduled(spec: PublisherSpec, schedule: Schedule) -> Message:
    """The message that a schedule sends."""
    return Message(
        to_node=spec.to_node,
        from_node=spec.node,
        method=spec.method,
        data=schedule.data or None,
        method_args=schedule.method_args or None,
        reply_method=schedule.reply_method,
        reply_method_args=schedule.reply_method_args or None,
        method_timeout_s=int(schedule.method_timeout_s),
        directory=schedule.directory,
        file_name=schedule.file_name,
    )


# -- facts ------------------------------------------------------------------------------------------------------------


def fingerprint_of(schedule: Schedule) -> str:
    """What makes a schedule another one: everything for `every`, whose new messages go out at once; else its times."""
    names = [item.name for item in fields(schedule)]
    if schedule.every_s is None:
        names = ["cron", "timezone"]
    bare = (
        Schedule()
    )  # what is as by default is left out, so that a field to come changes no fingerprint
    said = {name: getattr(schedule, name) for name in names}
    what = repr([(name, said[name]) for name in names if said[name] != getattr(bare, name)])
    return hashlib.blake2s(what.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def fill_facts(facts: Facts, record_id: int) -> Facts:
    """Facts as they are stored with a record."""
    return {
        key: None if value is None else value.replace(ID_PLACEHOLDER, str(record_id))
        for key, value in facts.items()
    }


def fact_key(spec: PublisherSpec) -> str:
    """Under which the schedule of a publisher is remembered."""
    return f"{spec.node}/{spec.entry or ''}/{spec.to_node}"


def stale_facts(
    known: Mapping[str, str], desired: DesiredState, is_pending: Callable[[int], bool]
) -> list[str]:
    """Keys of schedules that no entry of the run nodes has any more, and of which no message waits.

    Should such an entry come back, it is new.
    """
    kept = {
        fact_key(spec)
        for spec in desired.workers.values()
        if isinstance(spec, PublisherSpec) and spec.schedule is not None
    }
    stale = []
    for key, value in known.items():
        fact = _parse(value)
        waits = fact is not None and fact.record_id is not None and is_pending(fact.record_id)
        if key not in kept and not waits:
            stale.append(key)
    return stale


async def forget_stale(desired: Current[DesiredState], store: ScheduleStore) -> None:
    """What is remembered of schedules that a set has no more goes with it; until cancelled."""
    has_changed = asyncio.Event()
    end_following = desired.follow(lambda _: has_changed.set())
    try:
        while True:
            await has_changed.wait()
            has_changed.clear()
            stale = stale_facts(store.facts(FACT_KIND), desired.value, store.is_pending)
            if stale:
                with contextlib.suppress(StoreError):  # they are looked for again with the next set
                    await store.remember(FACT_KIND, dict.fromkeys(stale))
    finally:
        end_following()


def _parse(text: str | None) -> _Fact | None:
    parts = (text or "").split(" ")
    if len(parts) != 3:
        return None
    try:
        fact = _Fact(parts[0], float(parts[1]), int(parts[2]) if parts[2] != "-" else None)
    except ValueError:
        return None
    return fact if math.isfinite(fact.at) else None
