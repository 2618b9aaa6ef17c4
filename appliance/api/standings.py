"""Why messages wait: asked of the publishers, and told for lanes that have none, or none that runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import cast

from appliance.api.model import Submitted
from appliance.bus.base import Bus
from appliance.core.delivery import DeliveryState, Standing, WaitReason, kind_of_wait
from appliance.core.names import REPLY_TOKEN, WorkerKey
from appliance.outbox.store import MessageStore
from appliance.reconcile.pool import Handle
from appliance.telemetry.metrics import OTHER_REASON
from appliance.workers.publisher import Publisher
from appliance.workers.router import publisher_key

_REPLY_TOKEN = re.compile(rf"(\.{REPLY_TOKEN})\.[0-9a-f]{{8,}}")
"""What differs from try to try in the subject of answers, and would make one reason look like many."""
_STANDS_STILL = frozenset({WaitReason.NOBODY, WaitReason.SILENT, WaitReason.STREAM})
"""Why one record at a time asks whether anybody is there."""
_DENIAL_WORDS = ("permission", "denied", "authorization")


class Standings:
    """Reads the pool's handles, the lanes and the connection; owns nothing."""

    def __init__(self, handles: Mapping[WorkerKey, Handle], store: MessageStore, bus: Bus) -> None:
        self._handles = handles
        self._store = store
        self._bus = bus

    def of_record(self, node: str, subject: str, record_id: int) -> Standing:
        """Where a record of the outbox stands."""
        publisher = self._publisher(node, subject)
        if publisher is not None and self._bus.is_connected:
            known = publisher.standing(record_id)
            if known is not None:
                return Standing(known.state, _REPLY_TOKEN.sub(r"\1", known.why))
        why = self.lane_reason(node, subject)
        return Standing(DeliveryState.WAITING, why or WaitReason.BEHIND)

    def as_shown(self, node: str, subject: str, record_id: int) -> Standing:
        """The same for whoever looks on: while one of a lane that stands still is tried, it waits as the others do.

        Whether somebody is there now is told when that is known; what may be done with it is said by `of_record`.
        """
        standing = self.of_record(node, subject, record_id)
        if standing.state is DeliveryState.SENT:
            why = self.lane_reason(node, subject)
            if kind_of_wait(why) in _STANDS_STILL:
                return Standing(DeliveryState.WAITING, why)
        return standing

    def of_submitted(self, item: Submitted) -> Standing | None:
        """Where a message that was accepted stands; None once it has left the outbox, or is none of ours."""
        if item.id is None or item.from_node is None or item.subject is None:
            return None
        return self.of_record(item.from_node, item.subject, item.id)

    def lane_reason(self, node: str, subject: str) -> str:
        """Why nothing of a lane goes out now; "" while something does."""
        if not self._bus.is_connected:
            return WaitReason.BROKER_AWAY
        handle = self._handles.get(publisher_key(node, subject))
        if handle is None:
            return "no publisher yet"
        if handle.is_down:
            return _say_trouble(handle.last_error)
        publisher = self._publisher(node, subject)
        return "" if publisher is None else _REPLY_TOKEN.sub(r"\1", publisher.lane_reason())

    def waiting(self) -> dict[str, int]:
        """Messages that wait, by the kind of the reason; every kind is there.

        What a publisher has in hand is under way, unless nothing of its lane goes out.
        """
        counts: Counter[str] = Counter()
        for node, subject in self._store.lanes_with_records():
            lane = self._store.lane((node, subject))
            why = self.lane_reason(node, subject)
            if not why:
                counts[WaitReason.BEHIND] += lane.depth
                continue
            counts[kind_of_wait(why) or OTHER_REASON] += lane.depth + lane.held
        return {kind: counts[kind] for kind in (*map(str, WaitReason), OTHER_REASON)}

    def silent_lanes(self) -> list[tuple[str, str]]:
        """Subjects on which nothing is answered although somebody is there, or no stream takes what it is to keep, with the
        words for it.
        """
        found = []
        for node, subject in sorted(self._store.lanes_with_records()):
            why = self.lane_reason(node, subject)
            if kind_of_wait(why) in (WaitReason.SILENT, WaitReason.STREAM):
                found.append((str(subject), why))
        return found

    def _publisher(self, node: str, subject: str) -> Publisher | None:
        handle = self._handles.get(publisher_key(node, subject))
        if handle is None or handle.is_down:
            return None
        return cast("Publisher | None", handle.worker)  # as the key says


def _say_trouble(error: str | None) -> str:
    if error is None:
        return "its publisher does not run"
    text = _REPLY_TOKEN.sub(r"\1", error)
    if kind_of_wait(text) is not None:
        return text
    is_denied = any(word in text.lower() for word in _DENIAL_WORDS)
    return f"{WaitReason.DENIED}: {text}" if is_denied else text
