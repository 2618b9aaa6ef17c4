"""Why messages wait: asked of the publishers, and told for lanes that have none, or none that runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from appliance.core.delivery import DeliveryState, Standing, WaitReason, kind_of_wait
from appliance.core.names import REPLY_TOKEN, WorkerKey
from appliance.core.specs import Phase
from appliance.outbox.records import LaneKey
from appliance.reconcile.pool import Handle
from appliance.telemetry.metrics import OTHER_REASON
from appliance.workers.router import publisher_key

_NOT_RUNNING = (Phase.BACKING_OFF, Phase.FAILED, Phase.STOPPED)
_REPLY_TOKEN = re.compile(rf"(\.{REPLY_TOKEN})\.[0-9a-f]{{8,}}")
"""What differs from try to try in the subject of answers, and would make one reason look like many."""
_DENIAL_WORDS = ("permission", "denied", "authorization")


@runtime_checkable
class TellsStanding(Protocol):
    """What a publisher knows of its lane."""

    def standing(self, record_id: int) -> Standing | None:
        """Where a record stands; None where nothing is known but that it waits behind others."""
        ...

    def lane_reason(self) -> str:
        """Why nothing goes out now; "" while something does."""
        ...


class Lane(Protocol):
    """What a lane of the store tells of itself."""

    @property
    def depth(self) -> int:
        """Records that no publisher has in hand."""
        ...

    @property
    def held(self) -> int:
        """Records that its publisher has in hand."""
        ...


class Lanes(Protocol):
    """Where the lanes are."""

    def lanes_with_records(self) -> set[LaneKey]:
        """Those with anything unsettled."""
        ...

    def lane(self, key: LaneKey) -> Lane:
        """The lane of a key."""
        ...


class Link(Protocol):
    """The connection to the broker."""

    @property
    def is_connected(self) -> bool:
        """Whether messages can go out."""
        ...


class Standings:
    """Reads the pool's handles, the lanes and the connection; owns nothing."""

    def __init__(self, handles: Mapping[WorkerKey, Handle], lanes: Lanes, link: Link) -> None:
        self._handles = handles
        self._lanes = lanes
        self._link = link

    def of_record(self, node: str, subject: str, record_id: int) -> Standing:
        """Where a record of the outbox stands."""
        worker = self._worker(node, subject)
        if worker is not None and self._link.is_connected:
            known = worker.standing(record_id)
            if known is not None:
                return Standing(known.state, _REPLY_TOKEN.sub(r"\1", known.why))
        why = self.lane_reason(node, subject)
        return Standing(DeliveryState.WAITING, why or WaitReason.BEHIND)

    def lane_reason(self, node: str, subject: str) -> str:
        """Why nothing of a lane goes out now; "" while something does."""
        if not self._link.is_connected:
            return WaitReason.BROKER_AWAY
        handle = self._handles.get(publisher_key(node, subject))
        if handle is None:
            return "no publisher yet"
        if handle.phase in _NOT_RUNNING:
            return _say_trouble(handle.last_error)
        worker = self._worker(node, subject)
        return "" if worker is None else _REPLY_TOKEN.sub(r"\1", worker.lane_reason())

    def waiting(self) -> dict[str, int]:
        """Messages that wait, by the kind of the reason; every kind is there.

        What a publisher has in hand is under way, unless nothing of its lane goes out.
        """
        counts: Counter[str] = Counter()
        for node, subject in self._lanes.lanes_with_records():
            lane = self._lanes.lane((node, subject))
            why = self.lane_reason(node, subject)
            if not why:
                counts[WaitReason.BEHIND] += lane.depth
                continue
            counts[kind_of_wait(why) or OTHER_REASON] += lane.depth + lane.held
        return {kind: counts[kind] for kind in (*map(str, WaitReason), OTHER_REASON)}

    def silent_lanes(self) -> list[tuple[str, str]]:
        """Subjects on which nothing is answered although somebody is there, with the words for it."""
        found = []
        for node, subject in sorted(self._lanes.lanes_with_records()):
            why = self.lane_reason(node, subject)
            if kind_of_wait(why) is WaitReason.SILENT:
                found.append((str(subject), why))
        return found

    def _worker(self, node: str, subject: str) -> TellsStanding | None:
        handle = self._handles.get(publisher_key(node, subject))
        if handle is None or handle.phase in _NOT_RUNNING:
            return None
        worker: object = handle.worker
        return worker if isinstance(worker, TellsStanding) else None


def _say_trouble(error: str | None) -> str:
    if error is None:
        return "its publisher does not run"
    text = _REPLY_TOKEN.sub(r"\1", error)
    if kind_of_wait(text) is not None:
        return text
    is_denied = any(word in text.lower() for word in _DENIAL_WORDS)
    return f"{WaitReason.DENIED}: {text}" if is_denied else text
