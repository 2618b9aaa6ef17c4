"""Words about programs on the subject of the method that starts them: who may say them, and who may not."""

from typing import Any

import pytest

from appliance.bus.base import BusMessage
from appliance.core.message import Message
from appliance.core.method import PROGRAM_LIST, PROGRAM_ORDERS, PROGRAM_STOP
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import DesiredState, SubscriberSpec
from appliance.dialect.headers import Identity
from appliance.methods.programs.orders import PROGRAM_ORDERS as OBEYED
from appliance.methods.registry import METHODS
from appliance.workers.incoming import Admission, Incoming, Order, Refusal

NO_VERIFIER: Any = None
"""Nothing is signed here."""
FLEET = DesiredState(
    run_nodes=(NodeName("ship1"),),
    declared_nodes=frozenset({NodeName("central"), NodeName("ship1"), NodeName("ship2")}),
    workers={},
    publisher_defaults={},
)
SUBJECT = Subject("ship1.REQCliCommand.CommandACK")
APPLIANCE = Identity("0123456789abcdef", 7, False, True)
GO = Identity(None, 7, False)
PROGRAM_HANDLER, STOP_HANDLER = object(), object()


class Dialect:
    """Reads what the test holds."""

    def __init__(self, message, identity):
        self._found = (message, identity)

    def read(self, block, payload, limits):
        return self._found


def admit(method, *, sender="central", identity=APPLIANCE, accept_from=None, orders=True):
    spec = SubscriberSpec(
        node=NodeName("ship1"),
        subject=SUBJECT,
        method=MethodName("REQCliCommand"),
        wants_ack=True,
        accept_from=accept_from,
    )
    message = Message(to_node="ship1", from_node=sender, method=method, method_args=("7",))
    obeyed = {PROGRAM_STOP: STOP_HANDLER, PROGRAM_LIST: STOP_HANDLER} if orders else {}
    admission = Admission(spec, "ship1", FLEET, Dialect(message, identity), NO_VERIFIER, obeyed)
    return admission.admit(BusMessage(SUBJECT, b"", b""), PROGRAM_HANDLER)


@pytest.mark.parametrize("method", PROGRAM_ORDERS)
def test_a_word_of_who_may_start_programs_is_obeyed_at_once(method):
    found = admit(method)
    assert isinstance(found, Order)
    assert found.is_order
    assert found.handler is STOP_HANDLER


def test_a_program_is_no_such_word():
    found = admit("REQCliCommand")
    assert type(found) is Incoming
    assert not found.is_order
    assert found.handler is PROGRAM_HANDLER


@pytest.mark.parametrize(
    "facts",
    [
        {"identity": GO},
        {"sender": "stranger"},
        {"sender": "ship2", "accept_from": frozenset({NodeName("central")})},
        {"orders": False},
    ],
    ids=["without an id", "undeclared", "not in accept_from", "of a method that starts none"],
)
def test_a_word_of_others_is_refused(facts):
    assert isinstance(admit(PROGRAM_STOP, **facts), Refusal)


def test_whatever_runs_programs_understands_them():
    running = {name for name, method in METHODS.items() if method.info.runs_programs}
    assert running == {"REQCliCommand", "REQCliCommandCont"}
    for name, method in METHODS.items():
        assert (set(method.orders) == set(OBEYED)) is (name in running)
    assert set(OBEYED) == set(PROGRAM_ORDERS)
