"""A message as Steward JSON: every field under Go's key, any bytes, nothing guessed, slips named."""

import json

import pytest
from hypothesis import given, settings

from appliance.core.message import Message
from appliance.errors import DecodeError
from appliance.wire.steward_json import KEYS, message_from_json, message_to_json, parse_message
from tests.support.wire_cases import any_message


@settings(max_examples=60)
@given(any_message)
def test_any_message_comes_back_from_its_json_text(message):
    assert parse_message(json.dumps(message_to_json(message))) == message


def test_all_fields_are_shown_under_gos_names():
    assert list(message_to_json(Message())) == list(KEYS)
    assert len(KEYS) == 25
    assert {"FromNode", "PreviousMessage", "ACKTimeout"} <= set(KEYS)


def test_nil_and_empty_are_kept_apart():
    shown = message_to_json(Message(data=(), method_args=None))
    assert (shown["data"], shown["methodArgs"]) == ([], None)


def test_what_is_left_out_or_null_is_zero():
    assert (
        parse_message('{"id": null, "data": null, "PreviousMessage": null, "method": null}')
        == Message()
    )


def test_keys_are_taken_in_any_case_as_go_takes_them():
    assert parse_message('{"TONODE": "a", "fromnode": "b"}') == Message(to_node="a", from_node="b")


def test_base64_may_stand_where_a_text_is_none():
    assert message_from_json({"data": [{"base64": "/w=="}, {"base64": "aGk="}]}).data == (
        "\udcff",
        "hi",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"metod": "x"}', 'unknown key "metod"; did you mean method?'),
        ('{"zzzzzzzz": 1}', 'unknown key "zzzzzzzz"'),
        ('{"id": 1.5}', "id must be a whole number, not a number with a fraction"),
        ('{"id": true}', "id must be a whole number, not a bool"),
        ('{"id": 9223372036854775808}', "id exceeds 64 bits"),
        ('{"isReply": 1}', "isReply must be true or false"),
        ('{"data": "x"}', "data must be a list of texts, not a text"),
        ('{"data": [1]}', "data[0] must be a text or"),
        ('{"data": [{"base64": "!"}]}', "data[0] is no base64"),
        ('{"data": [{"base64": "", "x": 1}]}', "data[0] must be a text or"),
        ('{"method": "\\ud800"}', "method holds half of a surrogate pair"),
        ('{"method": "\\udcff"}', "method holds half of a surrogate pair"),
        ('{"id": 1, "id": 2}', 'the key "id" is given twice'),
        ('{"id": 1, "ID": 2}', 'the key "id" is given twice, in different case'),
        ('{"PreviousMessage": {"metod": ""}}', 'unknown key "PreviousMessage.metod"'),
        ('{"PreviousMessage": []}', "PreviousMessage. must be a JSON object"),
        ("[]", "a message must be a JSON object, not a list"),
        ("{", "no JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"PreviousMessage":' * 40 + "null" + "}" * 40, "inside one another"),
    ],
)
def test_what_is_no_message_is_refused_with_its_place(text, said):
    with pytest.raises(DecodeError) as caught:
        parse_message(text)
    assert said in str(caught.value)
