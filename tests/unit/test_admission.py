"""Who may be acted on: the subject decides, the body has to agree."""

import dataclasses

import pytest

from appliance.core.admission import find_refusal, is_file_asked_for, is_reply_subject_safe
from appliance.core.message import Message
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import ANY_SENDER, SubscriberSpec

DECLARED = frozenset({NodeName("central"), NodeName("ship1")})


def spec(**changes):
    return SubscriberSpec(
        node=NodeName("ship1"),
        subject=Subject("ship1.REQPing.EventACK"),
        method=MethodName("REQPing"),
        wants_ack=True,
        **changes,
    )


def refusal(message, accept_from=None):
    return find_refusal(spec(accept_from=accept_from), "ship1", message, DECLARED)


GOOD = Message(to_node="ship1", from_node="central", method="REQPing")


def test_a_message_that_agrees_with_its_subject_is_admitted():
    assert refusal(GOOD) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"method": "REQCliCommand"}, "names method"),
        ({"to_node": "ship2"}, "addressed to"),
        ({"to_node": ""}, "addressed to"),
        ({"from_node": "stranger"}, "not a declared node"),
        ({"from_node": "central\r\nPUB x 0"}, "no node name"),
        ({"from_node": ""}, "no node name"),
    ],
)
def test_a_body_that_disagrees_is_refused_with_its_reason(changed, words):
    assert words in refusal(GOOD._replace(**changed))


def test_accept_from_narrows_or_opens_the_senders():
    assert refusal(GOOD, frozenset({NodeName("central")})) is None
    assert "accept_from" in refusal(GOOD, frozenset({NodeName("ship2")}))
    assert refusal(GOOD._replace(from_node="stranger"), ANY_SENDER) is None
    assert refusal(GOOD._replace(from_node="not a name"), ANY_SENDER) is not None


def test_a_file_that_this_node_asked_for_may_come_in_its_own_name_and_nothing_else():
    asked_for = Message(
        to_node="ship1",
        from_node="ship1",
        method="REQCopyFileTo",
        method_args=("/var/log/x", "ship1", "appliance-copy:0123"),
    )
    taker = dataclasses.replace(
        spec(accept_from=frozenset({NodeName("goer")})), method=MethodName("REQCopyFileTo")
    )
    assert is_file_asked_for(taker, asked_for)
    assert not is_file_asked_for(spec(), asked_for)
    for changes in (
        {"from_node": "central"},
        {"to_node": "central"},
        {"method": "REQToFile"},
        {"method_args": ("/var/log/x", "ship1", "/etc/passwd")},
        {"method_args": ("/var/log/x", "ship1")},
        {"method_args": None},
    ):
        assert not is_file_asked_for(taker, asked_for._replace(**changes)), changes


def test_relay_fields_and_previous_messages_change_nothing():
    forged = GOOD._replace(
        relay_via_node="ship2",
        relay_original_method="REQCliCommand",
        previous_message=Message(relay_original_via_node="x", relay_reply_method="REQCliCommand"),
    )
    assert refusal(forged) is None


@pytest.mark.parametrize(
    ("subject", "is_safe"),
    [
        ("ship1.REQPing.EventACK.reply", True),
        ("ship2.REQPing.EventACK.reply", False),
        ("ship2.REQCliCommand.CommandACK.evil", False),
        ("ship1.REQPing.EventACK.replying", False),
        ("client.acks.1", True),
        ("ship1.REQPing.EventACK.reply.ab.cd", True),
        ("_INBOX.abc", True),
        ("", False),
        ("ship2.REQCliCommand.CommandACK", False),
        ("ship2.REQHello.EventNACK", False),
        ("$SYS.REQ.SERVER.PING", False),
        ("$JS.API.STREAM.DELETE.x", False),
    ],
)
def test_an_acknowledgement_never_goes_to_a_request_subject(subject, is_safe):
    assert is_reply_subject_safe(subject, "ship1.REQPing.EventACK") is is_safe
