"""How a subject is carried is looked up by the word in its spec."""

from typing import Any, cast

import pytest

from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import Delivery, PublisherSpec, SubscriberSpec
from appliance.delivery import modes
from appliance.delivery.modes import DeliveryModes

NOTHING = cast(Any, None)


class Other:
    """A second way, which carries nothing."""

    def __init__(self, *_):
        pass

    def make_carrier(self, spec):
        return "its carrier"

    def make_intake(self, spec, on_answers_denied, *, begins_once):
        return "its intake"

    def with_rests(self, main, spec, *, begins_once):
        return main


class NoNotes:
    """Nothing is remembered."""

    def facts(self, kind):
        return {}

    async def remember(self, kind, changes):
        raise AssertionError("nothing is noted here")


def test_a_subject_is_carried_as_its_spec_says(monkeypatch):
    word = cast(Delivery, "other")
    monkeypatch.setattr(modes, "_MODES", {**modes._MODES, word: Other})
    delivery = DeliveryModes(NOTHING, NOTHING, "0" * 16, NoNotes(), NOTHING, NOTHING)
    subject = Subject("a.REQPing.EventACK")
    common: dict[str, Any] = {
        "node": NodeName("a"), "subject": subject, "method": MethodName("REQPing"), "wants_ack": True
    }  # fmt: skip
    publisher = PublisherSpec(**common, to_node=NodeName("a"), delivery=word)
    subscriber = SubscriberSpec(**common, delivery=word)
    carried: object = delivery.make_carrier(publisher)
    taken: object = delivery.make_intake(subscriber, NOTHING, begins_once=False)
    assert (carried, taken) == ("its carrier", "its intake")


@pytest.mark.parametrize("word", Delivery)
def test_every_word_has_its_file(word):
    assert callable(modes._MODES[word])
