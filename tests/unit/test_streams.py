"""Which stream a subject is kept by, and what is remembered and said of it."""

from __future__ import annotations

import pytest

from appliance.core.specs import StreamSettings
from appliance.core.streams import (
    PubAck,
    StreamAddress,
    address_of_stream,
    read_note,
    read_receipt,
    write_note,
)
from appliance.delivery.jetstream import _StreamWords
from appliance.dialect.base import AnswerKind, Asked
from appliance.dialect.spoken import make_dialect

SUBJECT = "ship.1.REQPing.EventACK"


@pytest.mark.parametrize(
    ("settings", "address", "told"),
    [
        (StreamSettings(), StreamAddress("appl-ship=1"), "appl-ship=1"),
        (StreamSettings(name="all"), StreamAddress("all"), "all"),
        (
            StreamSettings(domain="shore"),
            StreamAddress("appl-ship=1", "shore"),
            "appl-ship=1@shore",
        ),
    ],
)
def test_a_stream_is_a_name_in_a_domain(
    settings: StreamSettings, address: StreamAddress, told: str
) -> None:
    found = address_of_stream(settings, SUBJECT)
    assert (found, str(found)) == (address, told)
    assert read_note(write_note(SUBJECT, found)) == (SUBJECT, found)


@pytest.mark.parametrize("note", ["", "subject", "a b c d"])
def test_a_note_of_another_form_names_no_stream(note: str) -> None:
    assert read_note(note) is None


@pytest.mark.parametrize(("asked", "is_kept"), [("", True), ("shore", True), ("board", False)])
def test_only_the_stream_of_the_domain_asked_for_says_that_it_has_a_message(
    asked: str, is_kept: bool
) -> None:
    said = PubAck(stream="all", domain="shore", seq=1)
    assert said.is_of(StreamAddress("all", asked)) is is_kept


def test_one_name_in_two_domains_is_two_streams() -> None:
    here, there = StreamSettings(name="all"), StreamSettings(name="all", domain="shore")
    assert not here.is_same_stream(there)


@pytest.mark.parametrize(
    "ack",
    [
        "$JS.ACK.appl-ship.C.2.70.9.1796050155744442719.0",
        "$JS.ACK.shore.hash.appl-ship.C.2.70.9.1796050155744442719.0",
        "$JS.ACK.shore.hash.appl-ship.C.2.70.9.1796050155744442719.0.token",
    ],
)
def test_how_a_delivery_is_acknowledged_says_which_it_is(ack: str) -> None:
    assert read_receipt(ack) == (ack, "appl-ship", 2, 70, True, 9, 1_796_050_155_744_442_719)


@pytest.mark.parametrize(
    "ack",
    [
        "ship.1.REQPing.EventACK",
        "$JS.ACK.appl-ship.C.2.70.9.1796050155744442719",
        "$JS.ACK.appl-ship.C..70.9.1796050155744442719.0",
        "$JS.ACK.appl-ship.C.2.-70.9.1796050155744442719.0",
        "$JS.ACK.appl-ship.C.2.70.x.1796050155744442719.0",
        "$JS.ACK.appl-ship.C.2.70.9.1e9.0",
        "$JS.ACK.appl-ship.C.2." + "7" * 10_000 + ".9.1796050155744442719.0",
    ],
)
def test_what_names_no_delivery_is_none(ack: str) -> None:
    assert read_receipt(ack) is None


NO_WORDS_OF_A_STREAM = {
    "no place": b'{"stream":"appl-ship"}',
    "before the first place": b'{"stream":"appl-ship","seq":-1}',
    "beyond all places": b'{"stream":"appl-ship","seq":9223372036854775808}',
    "very far": b'{"stream":"appl-ship","seq":1' + b"0" * 400 + b"}",
    "very deep": b'{"stream":"appl-ship","seq":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no text": b'{"stream":"appl-ship","seq":1,"domain":"\xff"}',
    "another's": b'{"stream":"another","seq":1}',
    "a part": b'{"stream":"appl-ship","seq":1',
    "a list": b'{"stream":["appl-ship"],"seq":1}',
}


@pytest.mark.parametrize("payload", NO_WORDS_OF_A_STREAM.values(), ids=NO_WORDS_OF_A_STREAM)
def test_what_no_stream_says_stores_nothing_and_fails_nothing(payload: bytes) -> None:
    """Whoever hears a reply subject may write there what he likes; what came in the same read is taken all the same."""
    words = _StreamWords(make_dialect(), StreamAddress("appl-ship"), b"secret")
    asked = Asked(b"confirmed from: ship: ", lambda name: name == "ship")
    assert words.read_answer(b"", b'{"stream":"appl-ship","seq":1}', asked).detail == "appl-ship 1"
    assert words.read_answer(b"", payload, asked).kind is not AnswerKind.STORED
