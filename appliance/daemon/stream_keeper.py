"""Makes the streams of the fleet, and keeps them as the config says, where this daemon is the one to do it.

A node itself may not make its stream: a stream records whatever it is told to, and has the broker send that on to any
subject, so that one login that may make streams opens all of the broker. See `core.permissions.find_keeping`.

What a stream keeps no longer is remembered on disk, so that it lets go of a subject that goes another way now.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

from appliance.bus.base import Bus
from appliance.bus.jetstream import JetStreamApi
from appliance.core.current import Current
from appliance.core.names import parse_subject
from appliance.core.specs import DesiredState, KeptStream
from appliance.core.streams import StreamAddress, address_of_stream
from appliance.errors import BusError, StoreError, SubjectInvalid
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry

FACT_KIND = "keeps"
"""Of the facts that tell which streams this daemon has made: name and domain."""
LOOK_EVERY_S = 30.0
AGAIN_FIRST_S, AGAIN_MAX_S = 0.2, 10.0


class StreamKeeper:
    """Life: `run` in a task, until cancelled."""

    def __init__(
        self,
        bus: Bus,
        desired: Current[DesiredState],
        store: MessageStore,
        telemetry: Telemetry,
    ) -> None:
        self._bus = bus
        self._desired = desired
        self._store = store
        self._telemetry = telemetry
        self._woken = asyncio.Event()
        self._again_s = AGAIN_FIRST_S
        self._told = ""
        desired.follow(lambda _: self._woken.set())
        self._end_connected: Callable[[], None] = bus.on_connected(self._woken.set)

    async def run(self) -> None:
        """Look whenever the config changes or the broker is back, and now and then."""
        try:
            while True:
                self._woken.clear()
                wait_s = await self._look()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            self._end_connected()

    async def _look(self) -> float:
        """After how long to look again."""
        fleet = self._desired.value
        if not (fleet.kept_streams or self._store.facts(FACT_KIND)) or not self._bus.is_connected:
            return LOOK_EVERY_S
        troubles = await self._keep(fleet)
        trouble = "; ".join(troubles[:3])
        if trouble and trouble != self._told:
            self._telemetry.streams_troubled(trouble)
        self._told = trouble
        if not trouble:
            self._again_s = AGAIN_FIRST_S
            return LOOK_EVERY_S
        self._again_s = min(self._again_s * 2, AGAIN_MAX_S)
        return self._again_s

    async def _keep(self, fleet: DesiredState) -> list[str]:
        wanted = _by_stream(fleet.kept_streams)
        known = {_read_fact(fact) for fact in self._store.facts(FACT_KIND)}
        troubles: list[str] = []
        node = fleet.streams.keeper or next(iter(fleet.run_nodes), "local")
        apis: dict[str, JetStreamApi] = {}
        for _, domain in known | wanted.keys():
            apis.setdefault(domain, JetStreamApi(self._bus, node, domain))
        try:
            # first: two streams must not record one subject
            for address in sorted(known | wanted.keys()):
                kept = wanted.get(address, [])
                try:
                    await _release(apis[address.domain], fleet, address, kept)
                    if not kept:
                        await self._store.remember(FACT_KIND, {_write_fact(address): None})
                except (BusError, StoreError) as error:
                    troubles.append(str(error))
            for address, kept in wanted.items():
                subjects = [one.subject for one in kept]
                try:
                    if address not in known:
                        await self._store.remember(FACT_KIND, {_write_fact(address): ""})
                    await apis[address.domain].ensure_stream(
                        kept[0].settings, address.name, *subjects, is_ours=True
                    )
                except (BusError, StoreError) as error:
                    troubles.append(str(error))
        finally:
            for api in apis.values():
                await api.close()
        return troubles


async def _release(
    api: JetStreamApi, fleet: DesiredState, address: StreamAddress, kept: Iterable[KeptStream]
) -> None:
    """Have a stream let go of subjects of declared nodes that it is not to record."""
    recorded = {subject for subject, _ in kept}
    found = await api.find_stream(address.name)
    gone = [
        subject
        for subject in (found.config.get("subjects") or () if found else ())
        if subject not in recorded and _is_of(subject, fleet)
    ]
    if gone:
        await api.release_subjects(address.name, *gone)


def _by_stream(kept: Iterable[KeptStream]) -> dict[StreamAddress, list[KeptStream]]:
    found: defaultdict[StreamAddress, list[KeptStream]] = defaultdict(list)
    for one in kept:
        found[address_of_stream(one.settings, one.subject)].append(one)
    return dict(found)


def _is_of(subject: str, fleet: DesiredState) -> bool:
    """Whether it is the subject of a node of the fleet, without what stands below one."""
    try:
        return parse_subject(subject).node in fleet.declared_nodes
    except SubjectInvalid:
        return False


def _write_fact(address: StreamAddress) -> str:
    return " ".join(filter(None, address))


def _read_fact(fact: str) -> StreamAddress:
    return StreamAddress(*fact.split(" ")[:2])
