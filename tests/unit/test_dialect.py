"""What peers of Steward's generation, and appliances among them, write and answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.message import Message
from appliance.dialect.base import Answer, AnswerKind
from appliance.dialect.headers import (
    NOBODY,
    Ending,
    Identity,
    parse_identity,
    read_ending,
    write_ending,
)
from appliance.dialect.steward import StewardDialect
from appliance.errors import DecodeError
from appliance.wire.frame import DEFAULT_LIMITS, encode_stored
from appliance.wire.headers import encode_headers, parse_headers

DIALECT = StewardDialect()
INSTANCE = "0123456789abcdef"
SHIP = DIALECT.asked("ship", "REQToConsole")
MESSAGE = Message(to_node="ship", from_node="central", method="REQToConsole", data=("hello",))


@pytest.mark.parametrize("serialization", ["cbor", "gob"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize(
    "extra", [{}, {"taker": "fedcba9876543210"}, {"attempt": 3}, {"headers": {"appl-turn": "a.1"}}]
)
def test_a_message_is_read_as_it_was_written(
    serialization: str, compression: str, extra: dict[str, object]
) -> None:
    payload, encoding = encode_stored(MESSAGE, serialization, compression)
    headers = extra.pop("headers", None) if extra else None
    block = DIALECT.write_headers(encoding, INSTANCE, 77, headers, **extra)  # type: ignore[arg-type]
    message, identity = DIALECT.read(block, payload, DEFAULT_LIMITS)
    assert message.data == ("hello",)
    assert identity == Identity(
        INSTANCE, 77, True, True, str(extra.get("taker", "")), int(extra.get("attempt", 0))
    )
    assert DIALECT.identify(block) == identity


@given(st.binary(max_size=200))
def test_any_header_block_is_identified_as_its_headers_say(raw: bytes) -> None:
    assert DIALECT.identify(b"NATS/1.0\r\n" + raw) == parse_identity(
        parse_headers(b"NATS/1.0\r\n" + raw)
    )


def test_the_short_way_through_headers_says_what_the_long_one_says() -> None:
    block = DIALECT.write_headers("cbor+zstd", INSTANCE, 2**62, None)
    assert DIALECT.identify(block) == parse_identity(parse_headers(block))
    assert b"serial: cbor\r\ncmp: z\r\n" in block


def test_a_message_of_a_go_node_has_no_identity() -> None:
    payload, _ = encode_stored(MESSAGE, "gob", "none")
    assert DIALECT.read(b"", payload, DEFAULT_LIMITS)[1] == NOBODY


def test_garbage_is_no_message() -> None:
    with pytest.raises(DecodeError):
        DIALECT.read(DIALECT.write_headers("cbor", INSTANCE, 1, None), b"\xff", DEFAULT_LIMITS)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(AnswerKind.TAKEN, True),
        Answer(AnswerKind.DONE, True),
        Answer(AnswerKind.TAKEN, True, is_unwanted=True),
        Answer(AnswerKind.DONE, True, is_unwanted=True),
        Answer(AnswerKind.WORKING, True, INSTANCE),
        Answer(AnswerKind.BUSY, True, "", 250),
        Answer(AnswerKind.REFUSED, True, "not allowed"),
        Answer(AnswerKind.FAILED, True, "disk full"),
        Answer(AnswerKind.HERE, True),
    ],
)
def test_an_answer_is_read_as_it_was_written(answer: Answer) -> None:
    block, payload = DIALECT.write_answer(answer, "ship", 5, to_appliance=True)
    assert DIALECT.read_answer(block, payload, SHIP) == answer


@pytest.mark.parametrize("kind", [AnswerKind.TAKEN, AnswerKind.DONE])
def test_a_go_node_hears_the_text_that_it_knows_and_no_headers(kind: AnswerKind) -> None:
    written = DIALECT.write_answer(Answer(kind), "ship", 5, to_appliance=False)
    assert written == (b"", b"confirmed from: ship: 5")


def test_an_earlier_appliance_takes_a_failure_for_a_refusal_and_not_for_an_acknowledgement() -> (
    None
):
    block, _ = DIALECT.write_answer(
        Answer(AnswerKind.FAILED, detail="disk full"), "ship", 5, to_appliance=True
    )
    assert parse_headers(block)["appl-refused"] == "disk full"


@pytest.mark.parametrize(
    ("block", "payload", "kind"),
    [
        (b"", b"confirmed from: ship: 0", AnswerKind.TAKEN),
        (b"", b"confirmed from: ship2: 0", AnswerKind.FOREIGN),
        (b"", b"confirmed from: other: 0", AnswerKind.FOREIGN),
        (b"", b'{"stream":"AUDIT", "seq":7}', AnswerKind.FOREIGN),
        (b"", b"+ACK", AnswerKind.FOREIGN),
        (b"", b"", AnswerKind.FAILED),
        (b"NATS/1.0 503\r\n\r\n", b"", AnswerKind.NOBODY),
        (b"NATS/1.0 408 Timeout\r\n\r\n", b"", AnswerKind.FOREIGN),
        (encode_headers({"appl-done": "1"}), b"confirmed from: ship: 3", AnswerKind.DONE),
        (encode_headers({"appl-done": "1"}), b"confirmed from: other: 3", AnswerKind.FOREIGN),
        (encode_headers({"appl-refused": "no"}), b"", AnswerKind.FOREIGN),
        (encode_headers({"appl-refused": "no"}), b"refused by: ship: 3: no", AnswerKind.REFUSED),
        (encode_headers({"appl-busy": "x"}), b"busy at: ship: 0", AnswerKind.BUSY),
    ],
)
def test_an_answer_is_what_it_says_and_counts_for_the_node_that_it_names(
    block: bytes, payload: bytes, kind: AnswerKind
) -> None:
    assert DIALECT.read_answer(block, payload, SHIP).kind is kind


def test_the_acknowledgement_of_a_stream_names_the_stream() -> None:
    answer = DIALECT.read_answer(b"", b'{"stream":"AUDIT", "seq":7}', SHIP)
    assert "AUDIT" in answer.detail


def test_error_reports_are_taken_by_whoever_is_central_and_relays_by_the_node_on_the_way() -> None:
    central = DIALECT.asked("errorCentral", "REQErrorLog")
    assert DIALECT.read_answer(b"", b"confirmed from: shore: 1", central).kind is AnswerKind.TAKEN
    relay = DIALECT.asked("far.hub", "REQRelay")
    for payload, kind in (
        (b"confirmed from: hub: 1", AnswerKind.TAKEN),
        (b"confirmed REQRelay from: hub: 1", AnswerKind.TAKEN),
        (b"confirmed from: far: 1", AnswerKind.FOREIGN),
    ):
        assert DIALECT.read_answer(b"", payload, relay).kind is kind


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_no_answer_whatever_is_in_it_raises(block: bytes, payload: bytes) -> None:
    DIALECT.read_answer(b"NATS/1.0\r\n" + block, payload, SHIP)
    DIALECT.read_answer(b"", payload, SHIP)


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        ({"Appl-V": "2", "Appl-Busy": "500"}, b"busy at: beta: 5"),
        ({"APPL-REFUSED": "no"}, b"refused by: beta: 5: no"),
        ({"Appl-Working": "0000000000000001"}, b"working at: beta: 5"),
        ({}, b"busy at: beta: 5"),
        ({}, b"refused by: beta: 5: no"),
        ({}, b"here: beta: 0"),
    ],
)
def test_a_text_that_does_not_confirm_is_no_acknowledgement_whatever_its_headers(headers, payload):
    block = encode_headers(headers) if headers else b""
    found = DIALECT.read_answer(block, payload, DIALECT.asked("beta", "REQToConsole"))
    assert found.kind is AnswerKind.FOREIGN


@pytest.mark.parametrize(
    ("payload", "number"),
    [
        (b"confirmed from: ship.one: 12", 12),
        (b"confirmed REQRelay from: hub: 12", 12),
        (b"refused by: ship1: 12: why", 12),
        (b"confirmed from: ship1: 12x", None),
        (b"confirmed from: ship1: " + b"9" * 30, None),
        (b"confirmed from: ship1", None),
        (b"", None),
    ],
)
def test_an_answer_tells_the_number_of_its_message(payload, number):
    assert DIALECT.read_number(payload) == number


@pytest.mark.parametrize(
    "ending",
    [Ending(), Ending(10.0), Ending(0.25, True, 9), Ending(is_held=True), Ending(31_536_000.0)],
)
def test_how_a_program_ended_comes_back_as_it_was_written(ending):
    assert read_ending(write_ending(ending)) == ending


@pytest.mark.parametrize(
    "text", ["stopped=", "stopped=nan", "signal=-1", "signal=99999", "x,,=", None]
)
def test_an_ending_that_is_none_counts_as_absent(text):
    assert read_ending(text) == Ending()


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        ("appl-id: 00112233aabbccdd-7-m", "00112233aabbccdd"),
        ("Nats-Msg-Id: 1\r\nappl-id: 00112233aabbccdd-7", "00112233aabbccdd"),
        ("appl-id: 0011/../aabbccdd-7", ""),
        ("appl-v: 1", ""),
    ],
)
def test_a_glance_tells_who_sent_a_message(header: str, sender: str):
    assert DIALECT.sender_of(f"NATS/1.0\r\n{header}\r\n\r\n".encode()) == sender
