"""What a new node says before it has a login: bounded, signed by its own key, and let in by nobody but the config."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bus.node_keys import sign, verify
from appliance.core.broker_conf import find_logins
from appliance.core.enrolment import (
    MAX_PER_NODE,
    MAX_REJECTED,
    MAX_REQUEST_BYTES,
    REPLIES,
    REQUESTS,
    EnrolmentBook,
    EnrolmentRequest,
    Result,
    describe_answer,
    read_answer,
    read_request,
    signed_bytes,
    write_request,
)
from appliance.core.names import NodeName
from appliance.core.permissions import find_permissions
from appliance.core.public_keys import fingerprint_of
from appliance.core.specs import Permissions
from tests.support.config_files import load_text
from tests.support.nats_login import make_nkey

SHIP, OTHER = make_nkey(), make_nkey()
REQUEST = EnrolmentRequest("ship7", SHIP.public)


def body(request: EnrolmentRequest = REQUEST, seed: str = SHIP.seed, nonce: str = "1a") -> bytes:
    return write_request(request, nonce, sign(seed, signed_bytes(request, nonce)))


def test_a_request_is_read_when_its_own_key_signed_it() -> None:
    assert read_request(body(), verify) == REQUEST


WRONG = {
    "nothing": b"",
    "no facts": b"{}",
    "deep": b"[" * 2_000,
    "signed by another": body(seed=OTHER.seed),
    "another name": body().replace(b"ship7", b"ship8"),
    "another nonce": body().replace(b'"1a"', b'"1b"'),
    "no name": body(EnrolmentRequest("a b", SHIP.public)),
    "a wildcard": body(EnrolmentRequest("*", SHIP.public)),
    "a long name": body(EnrolmentRequest("n" * 300, SHIP.public)),
    "a zero byte": body(nonce="\0"),
    "a name below others' answers": body(
        EnrolmentRequest("central.REQPing.EventACK.reply", SHIP.public)
    ),
    "a name below what new nodes hear": body(EnrolmentRequest("enrolment.reply", SHIP.public)),
    "a short signature": write_request(
        REQUEST, "1a", sign(SHIP.seed, signed_bytes(REQUEST, "1a"))[:-1]
    ),
    "no signature": write_request(REQUEST, "1a", b""),
    "too large": body(nonce="x" * MAX_REQUEST_BYTES),
    "a mistyped key": body().replace(SHIP.public.encode(), SHIP.public.encode()[:-1] + b"0"),
    "half a key": json.dumps(
        {"node": "a", "public_key": "U", "nonce": "", "signature": ""}
    ).encode(),
    "a surrogate": json.dumps(
        {"node": "a", "public_key": SHIP.public, "nonce": "\ud800", "signature": ""}
    ).encode(),
    "other types": json.dumps(
        {"node": 1, "public_key": [], "nonce": {}, "signature": "%"}
    ).encode(),
}


@pytest.mark.parametrize("name", WRONG)
def test_anything_else_is_no_request(name: str) -> None:
    assert read_request(WRONG[name], verify) is None


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=1_200), st.integers(0, len(body())), st.integers(0, 5))
def test_no_bytes_make_it_fail(noise: bytes, at: int, cut: int) -> None:
    good = body()
    assert read_request(noise, verify) is None
    read_answer(noise)
    mixed = good[:at] + noise[:20] + good[at + cut :]
    assert read_request(mixed, verify) in (None, REQUEST)


def take(book: EnrolmentBook, node: str, key: str, now: float = 0.0, most: int = 100) -> Result:
    keys = {NodeName("ship1"): (OTHER.public,)}
    return book.take(EnrolmentRequest(node, key), keys, now, most)[0]


def test_what_was_asked_is_one_request_however_often() -> None:
    book = EnrolmentBook()
    assert book.take(REQUEST, {}, 1.0, 9) == (Result.PENDING, True)
    assert book.take(REQUEST, {}, 2.0, 9) == (Result.PENDING, False)
    (shown,) = book.show({})
    assert (shown.waiting.count, shown.waiting.first_at, shown.waiting.last_at) == (2, 1.0, 2.0)
    assert (shown.fingerprint, shown.warnings) == (fingerprint_of(SHIP.public), ())


def test_two_keys_for_one_name_and_a_name_that_has_a_key_are_told_loudly() -> None:
    book = EnrolmentBook()
    take(book, "ship7", "A")
    take(book, "ship7", "B")
    take(book, "ship1", "C")
    told = {one.waiting.public_key: one.warnings for one in book.show({NodeName("ship1"): ("K",)})}
    assert "2 keys are asked for" in told["A"][0]
    assert told["A"] == told["B"]
    assert told["C"] == ("this node has another key already",)


def test_the_config_alone_lets_in_and_a_key_stands_for_one_node() -> None:
    book = EnrolmentBook()
    assert take(book, "ship1", OTHER.public) is Result.ACCEPTED
    assert take(book, "ship7", OTHER.public) is Result.REJECTED
    assert take(book, "ship7", "A") is Result.PENDING
    assert take(book, "ship8", "A") is Result.REJECTED
    assert book.prune({NodeName("ship7"): ("A",)}, 0.0, 60.0)
    assert book.show({}) == []


def test_who_was_turned_away_stays_so_over_a_restart_in_bounds() -> None:
    book = EnrolmentBook()
    take(book, "ship7", "A")
    take(book, "ship7", "B")
    assert [one.public_key for one in book.reject(["A", "unknown"])] == ["A"]
    again = EnrolmentBook()
    again.load(book.dump())
    assert take(again, "ship7", "A") is Result.REJECTED
    assert [one.waiting.public_key for one in again.show({})] == ["B"]
    for number in range(MAX_REJECTED):
        take(again, f"n{number}", str(number), most=10_000)
        again.reject([str(number)])
    assert take(again, "n0", "0") is Result.REJECTED
    assert take(again, "ship7", "A") is Result.PENDING
    with pytest.raises(ValueError, match=r".+"):
        again.load(b"nonsense")


def test_a_flood_takes_the_room_there_is_and_no_more_of_it_than_a_name_may_have() -> None:
    book = EnrolmentBook()
    found = [take(book, "ship7", f"K{number}") for number in range(10)]
    assert found == [Result.PENDING] * MAX_PER_NODE + [Result.FULL] * (10 - MAX_PER_NODE)
    assert take(book, "ship8", "A", most=MAX_PER_NODE + 1) is Result.PENDING
    assert take(book, "ship9", "B", most=MAX_PER_NODE + 1) is Result.FULL
    # what is not asked again for long makes room
    assert take(book, "ship8", "A", now=100.0) is Result.PENDING
    book.prune({}, 100.0, 60.0)
    assert [one.waiting.node for one in book.show({})] == ["ship8"]


def test_an_answer_says_what_came_of_it() -> None:
    assert read_answer(describe_answer(Result.FULL, "f")) is Result.FULL
    for nonsense in (b"", b"[]", b'{"result": 1}', b'{"result": "yes"}', b"\xff"):
        assert read_answer(nonsense) is None


def test_an_invitation_may_ask_and_nothing_else(tmp_path) -> None:
    text = f"""
version: 1
broker: {{embedded: {{secured: true}}}}
enrolment: {{node: central, invitations: [{OTHER.public}]}}
nodes: {{central: {{subscribe: {{REQErrorLog: {{}}}}}}, ship1: {{public_keys: [{SHIP.public}]}}}}
"""
    fleet = load_text(tmp_path, text).desired
    ship1, invited = find_logins(fleet)
    assert (invited.public_key, invited.nodes) == (OTHER.public, ("invitation",))
    assert invited.permissions == Permissions((REQUESTS,), (f"{REPLIES}.>",))
    may = find_permissions(fleet)
    assert f"{REPLIES}.>" in may[NodeName("central")].publish
    assert f"{REQUESTS} {REQUESTS}" in may[NodeName("central")].subscribe
    assert not [one for kind in ship1.permissions for one in kind if one.startswith("enrolment.")]
