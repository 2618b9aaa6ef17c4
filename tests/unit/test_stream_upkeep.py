"""What is said to a stream of deliveries in hand, and when stream and consumer are looked at."""

from __future__ import annotations

import asyncio
from typing import Any

from appliance.bus.jetstream import StreamState
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import SubscriberSpec
from appliance.core.streams import ACK_WAIT_S, StreamAddress
from appliance.delivery.claims import Claims
from appliance.delivery.pulling import (
    REPAIR_FIRST_S,
    RESYNC_S,
    TELL_EVERY_S,
    InHand,
    Upkeep,
)
from appliance.errors import BusUnavailable


def test_the_broker_is_told_of_what_is_in_hand_each_time_that_it_has_not_heard_of_it_for_a_while():
    in_hand = InHand()
    in_hand.told |= {"a": 0.0, "b": 1.0}
    assert [frame[0] for frame in in_hand.words_due(TELL_EVERY_S)] == ["a"]
    assert [frame[0] for frame in in_hand.words_due(TELL_EVERY_S + 1.0)] == ["b"]
    assert in_hand.words_due(TELL_EVERY_S + 1.0) == []


def test_what_was_said_shortly_before_a_loss_is_said_again():
    in_hand = InHand()
    in_hand.acked += [(0.0, ("old", "", b"", b"+ACK")), (5.0, ("new", "", b"", b"+ACK"))]
    assert [frame[0] for frame in in_hand.words_again(ACK_WAIT_S)] == ["new"]


class Broker:
    """In the API's place: counts looks, and fails while it is told to."""

    def __init__(self) -> None:
        self.looks = 0
        self.is_away = False
        self.drift = ""

    async def ensure_stream(self, *_: object, is_ours: bool) -> tuple[StreamState, str]:
        self.looks += 1
        if self.is_away:
            raise BusUnavailable("away")
        return StreamState({}, {"last_seq": 7}, "2026-01-01T00:00:00Z"), ""

    async def ensure_consumer(self, *_: object) -> str:
        return self.drift


class Notes:
    def facts(self, _kind: str) -> dict[str, str]:
        return {}

    async def remember(self, _kind: str, _changes: object) -> None: ...


def test_what_is_not_as_it_should_be_is_told_and_looked_at_again_ever_later():
    async def scenario() -> None:
        now = [0.0]
        api: Any = Broker()
        spec = SubscriberSpec(
            node=NodeName("ship1"),
            subject=Subject("ship1.REQPing.CommandACK"),
            method=MethodName("REQPing"),
            wants_ack=True,
        )
        claims = Claims(api, "me", spec.subject, lambda: now[0])
        address = StreamAddress("s")
        upkeep = Upkeep(api, spec, Notes(), address, claims, lambda: now[0], is_rest=False)
        await upkeep.ensure()
        await upkeep.look(RESYNC_S - 1.0)
        assert api.looks == 1, "it was as it should be a moment ago"
        api.is_away = True
        upkeep.look_now()
        await upkeep.look(now[0])
        assert upkeep.trouble == "away"
        await upkeep.look(now[0] + REPAIR_FIRST_S)
        assert api.looks == 2, "twice as long"
        api.is_away, api.drift = False, "other replicas"
        now[0] += 2 * REPAIR_FIRST_S
        await upkeep.look(now[0])
        assert upkeep.trouble == "other replicas"
        upkeep.look_now()
        api.drift = ""
        await upkeep.look(now[0])
        assert upkeep.trouble is None

    asyncio.run(scenario())
