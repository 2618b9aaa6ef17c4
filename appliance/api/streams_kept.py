"""Streams of the broker as operators see them: what they keep for this daemon's nodes, and what of them is left over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance.api import model
from appliance.bus.base import Bus
from appliance.bus.jetstream import JetStreamApi
from appliance.core.current import Current
from appliance.core.names import NodeName, Subject, WorkerKind
from appliance.core.specs import DesiredState, SubscriberSpec
from appliance.core.streams import (
    UNUSED_SUBJECT,
    StreamAddress,
    find_stream,
    read_note,
    write_note,
)
from appliance.core.times import rfc3339
from appliance.delivery.base import Notes
from appliance.delivery.pulling import NOTE_KIND


class StreamsKept:
    """Lists what streams keep, and takes away what no config asks for any more."""

    def __init__(self, bus: Bus, notes: Notes, desired: Current[DesiredState]) -> None:
        self._bus = bus
        self._notes = notes
        self._desired = desired

    async def list(self) -> list[model.StreamKept]:
        """Every stream that keeps a subject of the own nodes, or did, and is not forgotten yet.

        Raises:
            BusError: the broker is away, or has no JetStream for this login.
        """
        wanted = set(_wanted(self._desired.value))
        notes = [note for key in self._notes.facts(NOTE_KIND) if (note := read_note(key))]
        known = {(Subject(subject), stream) for subject, stream in notes}
        found = [
            await self._describe(subject, stream, is_wanted=(subject, stream) in wanted)
            for subject, stream in sorted(wanted | known)
        ]
        return [one for one in found if one is not None]

    async def _describe(
        self, subject: Subject, address: StreamAddress, *, is_wanted: bool
    ) -> model.StreamKept | None:
        api, stream = self._api(subject, address), address.name
        try:
            found = await api.find_stream(stream)
            consumer = None if found is None else await api.find_consumer(stream, subject)
            described = model.StreamKept(
                stream=stream, domain=address.domain, subject=subject, is_wanted=is_wanted
            )
            if found is None:
                described.exists = False
                return described
            described.bytes = int(found.state.get("bytes", 0))
            if consumer is None:
                described.waiting = await api.count_of(stream, subject)
            else:
                described.waiting, described.in_hand = consumer.waiting, consumer.in_hand
                described.redelivered = consumer.redelivered
                if consumer.waiting or consumer.in_hand:
                    at = await api.stored_at(stream, subject, consumer.floor + 1)
                    described.oldest_at = None if at is None else rfc3339(at)
            return described
        finally:
            await api.close()

    async def _count(self, subject: Subject, stream: StreamAddress) -> int:
        """With what is delivered to nobody any more, or has no consumer."""
        api = self._api(subject, stream)
        try:
            return await api.count_of(stream.name, subject)
        finally:
            await api.close()

    def _api(self, subject: Subject, stream: StreamAddress) -> JetStreamApi:
        nodes = self._desired.value.run_nodes
        own = [spec.node for spec in _subscribers(self._desired.value) if spec.subject == subject]
        node = (own or list(nodes) or [NodeName("local")])[0]
        return JetStreamApi(self._bus, node, stream.domain)

    async def prune(self, *, force: bool) -> Sequence[model.StreamPruned]:
        """Take away what no config of these nodes asks for any more: consumers, subjects, streams without a subject.

        What still holds messages stays, unless it is forced.

        Raises:
            BusError: the broker is away, or has no JetStream for this login.
        """
        done: list[model.StreamPruned] = []
        for kept in await self.list():
            if kept.is_wanted:
                continue
            stream = StreamAddress(kept.stream, kept.domain)
            held = await self._count(Subject(kept.subject), stream) if kept.exists else 0
            pruned = model.StreamPruned(
                stream=stream.name,
                domain=stream.domain,
                subject=kept.subject,
                messages=held,
                is_pruned=force or not held,
            )
            if pruned.is_pruned and kept.exists:
                await self._take_away(Subject(kept.subject), stream)
            if pruned.is_pruned:
                await self._notes.remember(NOTE_KIND, {write_note(kept.subject, stream): None})
            done.append(pruned)
        return done

    async def _take_away(self, subject: Subject, address: StreamAddress) -> None:
        api, stream = self._api(subject, address), address.name
        try:
            await api.delete_consumer(stream, subject)
            await api.drop_subject(stream, subject)
            found = await api.find_stream(stream)
            if found is not None and found.config.get("subjects") == [UNUSED_SUBJECT]:
                await api.delete_stream(stream)
        finally:
            await api.close()


def _subscribers(desired: DesiredState) -> Iterable[SubscriberSpec]:
    for key, spec in desired.workers.items():
        if key.kind is WorkerKind.SUBSCRIBER and isinstance(spec, SubscriberSpec):
            yield spec


def _wanted(desired: DesiredState) -> Iterable[tuple[Subject, StreamAddress]]:
    for spec in _subscribers(desired):
        if (stream := find_stream(spec)) is not None:
            yield spec.subject, stream
