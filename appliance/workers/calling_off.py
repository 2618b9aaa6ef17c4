"""Messages that their sender calls off before they begin, or while they run: on disk, so that no restart begins them.

A message that waits for its turn is concluded at once; one that has not come yet is remembered as failed; one that runs
is told to end by whoever runs it, and only marked here, for a subscriber that would run it again after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from appliance.core.current import Current
from appliance.core.specs import SubscriberSpec
from appliance.methods.programs.running import ProgramKey
from appliance.outbox.records import CalledOff
from appliance.workers.incoming import Incoming
from appliance.workers.services import WorkerServices


class CallingOff:
    """Of one subscriber; `conclude` ends a message that still waits for its turn, and leaves any other alone."""

    def __init__(
        self,
        services: WorkerServices,
        scope: str,
        spec: Current[SubscriberSpec],
        in_hand: Callable[[], Iterable[Incoming]],
        conclude: Callable[[Incoming], None],
    ) -> None:
        self._services = services
        self._scope = scope
        self._spec = spec
        self._in_hand = in_hand
        self._conclude = conclude

    async def call_off(self, key: ProgramKey) -> None:
        """Returns when it is on disk that the message does not begin any more."""
        if not self._spec.value.wants_ack:
            work = self._find(key)  # nothing of it is on disk
        else:
            place = await self._remember(key)
            # looked for after the wait: it may have come, or begun, meanwhile
            work = self._find(key)
            if place is not CalledOff.WAITS:
                # what comes with this id is answered by what the disk knows, or is a new attempt
                self._services.for_handlers.programs.let_begin(key)
        if work is not None:
            self._conclude(work)

    def _find(self, key: ProgramKey) -> Incoming | None:
        for work in self._in_hand():
            identity = work.identity
            if (work.sender, identity.instance, identity.message_id) == key:
                return work
        return None

    async def _remember(self, key: ProgramKey) -> CalledOff:
        spec = self._spec.value
        seen = (self._scope, key.from_node, key.instance) if spec.dedupe else None

        async def call_off() -> CalledOff:
            work = self._find(key)
            row_id = None if work is None else work.row_id
            return await self._services.store.call_off(seen, key.message_id, row_id)

        cannot = f"cannot note that {key.message_id} is called off"
        return await self._services.until_stored(call_off, spec.key, cannot)
