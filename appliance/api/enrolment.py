"""New nodes that ask to be let in: kept at the node that the config names for it, listed and turned away by operators
(`enrolment` in the config, `appliance nodes`). They are let in by the config alone.

Whoever has an invitation may send as much as the broker carries. So requests are looked at one after the other with a pause
after each, and what comes meanwhile is counted and left; nothing of it is ever run, and nothing let in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.api import model
from appliance.bus.base import Bus, BusMessage, Denial, Subscription
from appliance.bus.node_keys import verify
from appliance.core.current import Current
from appliance.core.enrolment import (
    MAX_REQUEST_BYTES,
    REPLIES,
    REQUESTS,
    EnrolmentBook,
    EnrolmentRequest,
    Keys,
    Result,
    Shown,
    describe_answer,
    read_request,
)
from appliance.core.public_keys import fingerprint_of
from appliance.core.specs import DesiredState
from appliance.core.times import rfc3339
from appliance.durable_file import write_private
from appliance.errors import BusError, StoreError
from appliance.telemetry.report import Telemetry

PAUSE_S = 0.05
"""After each request: so many in a second are looked at at most, whatever comes."""
MAX_QUEUED = 64
MAX_FILE_BYTES = 32 * 1024**2
LOOK_EVERY_S = 60.0
_AGAIN_S = 5.0
_MAX_REPLY_SUBJECT = 200


class EnrolmentDesk:
    """Life: `open`, then `run` in a task."""

    def __init__(
        self,
        bus: Bus,
        desired: Current[DesiredState],
        path: Path,
        telemetry: Telemetry,
        wall: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._desired = desired
        self._path = path
        self._telemetry = telemetry
        self._wall = wall
        self._book = EnrolmentBook()
        self._queue: deque[BusMessage] = deque()
        self._woken = asyncio.Event()
        self._subscription: Subscription | None = None
        self._is_denied = False
        self._told = ""
        """The trouble that was told last."""
        self.turned_away = 0
        """Requests that were none, came faster than they are looked at, or found no room; since the start."""
        desired.follow(lambda _: self._woken.set())

    async def open(self) -> None:
        """Read who waits; a file that holds nothing of use is told and left behind."""
        try:
            raw = await asyncio.to_thread(_read, self._path)
            if raw:
                self._book.load(raw)
        except (OSError, ValueError) as error:
            self._telemetry.enrolment_troubled(f"{self._path.name} is unusable: {error}")

    async def run(self) -> None:
        """Take requests while the config says so, until cancelled."""
        try:
            while True:
                await self._follow()
                await self._look()
                is_away = self._is_ours and self._subscription is None
                await self._wait(_AGAIN_S if is_away else LOOK_EVERY_S)
        finally:
            await self._unsubscribe()

    @property
    def pending(self) -> int:
        """How many wait."""
        return len(self._book)

    def show(self) -> list[Shown]:
        """Who waits."""
        return self._book.show(self._keys)

    def list(self) -> model.Enrolment:
        """Who waits, as the API shows it."""
        return model.Enrolment(
            requests=[*map(_describe, self.show())], turned_away=self.turned_away
        )

    async def reject(self, public_keys: Sequence[str]) -> model.Count:
        """Turn keys away for good; how many of them had asked. Raises StoreError where that could not be written."""
        gone = self._book.reject(public_keys)
        try:
            if gone:
                await self._keep()
        except OSError as error:
            raise StoreError(
                f"that they are turned away cannot be kept: {error.strerror}"
            ) from None
        return model.Count(count=len(gone))

    @property
    def _is_ours(self) -> bool:
        return self._desired.value.enrolment.node in self._desired.value.run_nodes

    @property
    def _keys(self) -> Keys:
        return {node: traits.public_keys for node, traits in self._desired.value.traits.items()}

    async def _follow(self) -> None:
        """Listen where the config says so. What the broker denies is asked for again: its rights may come later."""
        if self._is_denied or not self._is_ours:
            await self._unsubscribe()
        if not self._is_ours or self._subscription is not None:
            return
        self._is_denied = False
        try:
            self._subscription = await self._bus.subscribe(
                REQUESTS, self._queue_up, queue=REQUESTS, on_denied=self._on_denied
            )
        except BusError as error:
            self._tell(f"new nodes cannot ask: {error}")

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.stop_intake()
            self._queue.clear()

    def _on_denied(self, denial: Denial) -> None:
        # NB: wakes nobody, or a broker that denies it would be asked without a pause
        self._is_denied = True
        self._tell(f"the broker lets us hear no new nodes (appliance broker-conf): {denial.text}")

    def _tell(self, trouble: str) -> None:
        """Once, until somebody asks."""
        if trouble != self._told:
            self._told = trouble
            self._telemetry.enrolment_troubled(trouble)

    def _queue_up(self, messages: Sequence[BusMessage]) -> None:
        self._told = ""
        # what is larger than a request can be is not even kept until its turn
        small = [one for one in messages if len(one.payload) <= MAX_REQUEST_BYTES]
        taken = small[: MAX_QUEUED - len(self._queue)]
        self._queue += taken
        self.turned_away += len(messages) - len(taken)
        self._woken.set()

    async def _wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    async def _look(self) -> None:
        settings = self._desired.value.enrolment
        if self._book.prune(self._keys, self._wall(), settings.keep_s):
            await self._try_to_keep()
        # no more than may have waited: in a flood, too, the config is looked at now and then
        for _ in range(MAX_QUEUED):
            if not self._queue or not self._is_ours:
                return
            message = self._queue.popleft()
            request = read_request(message.payload, verify)
            if request is None:
                self.turned_away += 1
            else:
                await self._take(request, message.reply_to)
            await asyncio.sleep(PAUSE_S)

    async def _take(self, request: EnrolmentRequest, reply_to: str) -> None:
        most = self._desired.value.enrolment.max_pending
        result, is_new = self._book.take(request, self._keys, self._wall(), most)
        fingerprint = fingerprint_of(request.public_key)
        self.turned_away += result is Result.FULL
        if is_new:
            # before it is answered: what was said to wait does so over a restart
            await self._try_to_keep()
            (shown,) = [one for one in self.show() if one.waiting.public_key == request.public_key]
            self._telemetry.node_asks(request.node, fingerprint, shown.warnings)
        # a stranger names the subject: nobody is answered anywhere else than where new nodes listen
        if not reply_to.startswith(f"{REPLIES}.{request.public_key}."):
            return
        if len(reply_to) > _MAX_REPLY_SUBJECT:
            return
        try:
            await self._bus.publish(reply_to, describe_answer(result, fingerprint))
        except BusError:
            return  # it asks again

    async def _try_to_keep(self) -> None:
        try:
            await self._keep()
        except OSError as error:
            self._telemetry.enrolment_troubled(
                f"{self._path.name} cannot be written: {error.strerror}"
            )

    async def _keep(self) -> None:
        await asyncio.to_thread(write_private, self._path, self._book.dump())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return b""


def _describe(one: Shown) -> model.EnrolmentRequest:
    return model.EnrolmentRequest(
        node=one.waiting.node,
        public_key=one.waiting.public_key,
        fingerprint=one.fingerprint,
        first_at=rfc3339(one.waiting.first_at),
        last_at=rfc3339(one.waiting.last_at),
        count=one.waiting.count,
        warnings=list(one.warnings),
    )
