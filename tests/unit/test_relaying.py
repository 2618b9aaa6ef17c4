"""What a via node passes on, and what it takes for an answer to that, whatever a node behind it makes of the question."""

import pytest

from appliance.bus.node_keys import make_seed, public_key_of, read_seed
from appliance.core.current import Current
from appliance.core.message import Message, make_reply
from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.relay import forward_reply, unwrap, with_mark, wrap
from appliance.core.specs import ANY_METHOD, DesiredState, NodeTraits, SubscriberSpec
from appliance.delivery.signer import Signer, make_signing_key
from appliance.workers.relay_marks import RelayMarks

SEEDS = {name: make_seed() for name in ("via", "new", "ship1")}
DECLARED = frozenset(map(NodeName, ("central", "via", "ship1", "ship2")))
ASKED = Message(
    from_node="central",
    to_node="ship1",
    id=7,
    method="REQCliCommand",
    method_args=("echo", "x"),
    relay_via_node="via",
    reply_method="REQToFile",
    directory="d",
    file_name="f",
    ack_timeout_s=2**31,
    retries=2**31,
)


def relay_spec(final="ship1", **changes):
    return SubscriberSpec(
        node=NodeName("via"),
        subject=Subject(f"{final}.via.REQRelay.EventACK"),
        method=MethodName("REQRelay"),
        wants_ack=True,
        relay_methods=ANY_METHOD,
        **changes,
    )


def passed_on(asked=ASKED):
    return unwrap(wrap(asked)._replace(id=asked.id), relay_spec())


def marks(key="via", keys=("via",)):
    """Of a daemon of the via node with one key, where the config names these."""
    signer = Signer()
    signer.key = make_signing_key(read_seed(SEEDS[key])) if key else None
    public = tuple(public_key_of(SEEDS[name]) for name in keys)
    traits = {NodeName("via"): NodeTraits(public_keys=public)}
    fleet = DesiredState(
        run_nodes=DECLARED,
        declared_nodes=DECLARED,
        workers={},
        publisher_defaults={},
        traits=traits,
    )
    return RelayMarks(signer, Current(fleet))


def echoed(question, node="ship1", **changes):
    return make_reply(question, node, "said").previous_message._replace(**changes)


def note_of(question, **changes):
    return question.previous_message._replace(**changes)


@pytest.mark.parametrize("reply_method", ["", "REQToFile"])
def test_the_answer_to_what_was_asked_is_known_whichever_daemon_hears_it(reply_method):
    question = marks().marked(passed_on(ASKED._replace(reply_method=reply_method)))
    assert marks().is_asked(echoed(question), "via")
    # a Go node fills in nothing
    assert marks().is_asked(question._replace(data=None), "via")
    # another daemon of the node, and the same one after its key was changed
    assert marks("new", ("new", "via")).is_asked(echoed(question), "via")
    assert not marks("new", ("new",)).is_asked(echoed(question), "via")


@pytest.mark.parametrize("key", ["", "ship1"])
def test_without_a_key_that_the_config_knows_the_config_alone_decides(key):
    question = marks(key).marked(passed_on())
    assert question == passed_on()
    assert marks(key).is_asked(echoed(question), "via")


@pytest.mark.parametrize(
    "changes",
    [
        {"relay_from_node": "ship2"},
        {"to_node": "ship2"},
        {"relay_original_method": "REQPing"},
        {"relay_reply_method": "REQToConsole"},
        {"reply_method": "REQToFileAppend"},
        {"reply_method_args": ("stderr",)},
        {"directory": "other"},
        {"file_name": "other"},
        {"directory": "df", "file_name": ""},
        {"previous_message": None},
    ],
    ids=str,
)
def test_a_question_that_nobody_asked_so_is_none(changes):
    question = marks().marked(passed_on())
    assert not marks().is_asked(echoed(question, **changes), "via")


def test_a_mark_is_good_for_its_question_and_for_nobody_who_makes_one_himself():
    question = marks().marked(passed_on())
    number = echoed(question, previous_message=note_of(question, id=8))
    assert not marks().is_asked(number, "via")
    own = marks("ship1", ("ship1",)).marked(passed_on())
    assert not marks().is_asked(echoed(own), "via")
    for mark in ("", "x" * 88, "\udc80" * 88, "=" * 88):
        assert not marks().is_asked(with_mark(echoed(question), mark), "via")


def forwarded(changes=(), question=None, **of_spec):
    reply = make_reply(question or passed_on(), "ship1", "said")._replace(**dict(changes))
    return forward_reply(reply, "via", [relay_spec(**of_spec)], DECLARED)


def test_an_answer_goes_where_and_as_what_its_asker_wished():
    changes = {"directory": "etc", "file_name": "passwd", "method_args": ("stderr",)}
    copy, _ = forwarded(changes)
    assert (copy.to_node, copy.method, copy.data) == ("central", "REQToFile", ("said",))
    assert (copy.directory, copy.file_name, copy.method_args) == ("d", "f", None)
    assert copy.previous_message.id == 7


@pytest.mark.parametrize("asker", ["stranger", "ship2.via", "a b"])
def test_without_accept_from_an_answer_goes_to_declared_nodes_only(asker):
    question = passed_on()._replace(relay_from_node=asker)
    assert "is not a declared node" in (refused := forwarded(question=question)) or (
        "no node name" in refused
    )


@pytest.mark.parametrize(
    "method", ["REQRelay", "REQRelayInitial", "REQErrorLog", "REQCopyFileFrom"]
)
def test_relays_lead_to_no_relays_whatever_a_body_says(method):
    question = wrap(ASKED)
    assert wrap(ASKED._replace(method=method)) == f"{method} cannot be relayed"
    again = unwrap(question._replace(relay_original_method=method), relay_spec())
    assert again == f"{method} cannot be relayed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relay_to_node": "ship2"}, "not the node of the subject"),
        ({"relay_to_node": "via"}, "not the node of the subject"),
        ({"to_node": "ship2.via", "relay_to_node": "ship1"}, "not the node of the subject"),
        ({"relay_original_via_node": "other"}, "relayOriginalViaNode"),
        ({"relay_from_node": "ship2"}, "and not the sender"),
        ({"is_reply": True}, "an answer is not relayed"),
        ({"previous_message": Message(id=1)}, "an answer is not relayed"),
    ],
)
def test_a_relay_does_what_its_subject_says_for_who_sent_it(changes, words):
    assert words in unwrap(wrap(ASKED)._replace(**changes), relay_spec())


def test_what_is_passed_on_is_waited_for_no_longer_than_an_answer_is():
    assert (passed_on().ack_timeout_s, passed_on().retries) == (600, 100)
