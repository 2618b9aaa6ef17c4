"""Scheduled messages: `every` and `cron` of a publish entry.

A message is made only when the previous one of the same schedule has left the outbox: hours without a broker leave
one hello to send, not thousands. The first `every` message goes out at once, as a Go node's first hello does.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable

from croniter import croniter

from appliance.core.message import Message
from appliance.core.specs import PublisherSpec, Schedule
from appliance.errors import RequestInvalid, StoreError
from appliance.telemetry.report import Telemetry

SubmitScheduled = Callable[[Message], Awaitable[None]]
"""Puts the message into the outbox unless its predecessor is still there."""


class Scheduler:
    """Runs beside a publisher's loop and follows its spec."""

    def __init__(self, spec: PublisherSpec, submit: SubmitScheduled, telemetry: Telemetry) -> None:
        self._spec = spec
        self._submit = submit
        self._telemetry = telemetry
        self._changed = asyncio.Event()

    def follow(self, spec: PublisherSpec) -> None:
        """Use another schedule from now on."""
        if spec.schedule != self._spec.schedule:
            self._changed.set()
        self._spec = spec

    def hurry(self) -> None:
        """Produce a message of an `every` schedule now and count anew from there."""
        if self._spec.schedule is not None and self._spec.schedule.every_s is not None:
            self._changed.set()

    async def run(self) -> None:
        """Produce messages until cancelled."""
        is_first = True
        while True:
            schedule = self._spec.schedule
            if schedule is None:
                await self._changed.wait()
                self._changed.clear()
                is_first = True
                continue
            starts_at_once = is_first and schedule.every_s is not None
            now = datetime.datetime.now().astimezone()
            if not starts_at_once and not await self._sleep(next_delay_s(schedule, now)):
                is_first = True
                continue
            is_first = False
            try:
                await self._submit(make_scheduled(self._spec, schedule))
            except (StoreError, RequestInvalid) as error:
                self._telemetry.worker_troubled(
                    self._spec.key, f"scheduled message not accepted: {error}"
                )

    async def _sleep(self, delay_s: float) -> bool:
        """Sleep; False when the schedule changed meanwhile."""
        try:
            async with asyncio.timeout(delay_s):
                await self._changed.wait()
        except TimeoutError:
            return True
        self._changed.clear()
        return False


def next_delay_s(schedule: Schedule, now: datetime.datetime) -> float:
    """Seconds until the schedule's next message."""
    if schedule.every_s is not None:
        return schedule.every_s
    return max(0.0, croniter(schedule.cron or "", now).get_next(float) - now.timestamp())


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
