"""What a signature covers: no two messages have the same bytes, and nothing that counts lies outside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.signatures import Fault, find_time_fault, longest_age_s
from appliance.wire.ed25519 import is_signature, key_pair, sign
from appliance.wire.headers import encode_headers, parse_headers
from appliance.wire.signature import (
    MAX_LINE_BYTES,
    MOST_TOGETHER,
    SIGNATURE_HEADER,
    Kind,
    digest,
    find_claim,
    find_root,
    grow,
    key_id_of,
    reply_mark,
    sealed_bytes,
    write_facts,
    write_line,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "signatures.json"
PUBLIC, SECRET = key_pair(bytes(range(32)))
SUBJECT = "ship1.REQPing.EventACK"
BLOCK = encode_headers({"serial": "cbor", "appl-id": "0123456789abcdef-7-m"})
FACTS = write_facts("central", key_id_of(PUBLIC), 1_764_000_000_000, 1_764_000_900_000, b"-")

parts = st.tuples(st.binary(max_size=20), st.text(max_size=20), st.binary(max_size=20))


@given(parts, parts, st.binary(max_size=20), st.binary(max_size=20))
def test_no_two_messages_have_one_digest(
    one: tuple[bytes, str, bytes], other: tuple[bytes, str, bytes], first: bytes, second: bytes
) -> None:
    mine, theirs = (*one, first), (*other, second)
    assert (digest(Kind.MESSAGE, *mine) == digest(Kind.MESSAGE, *theirs)) == (mine == theirs)


@given(st.binary(max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_a_boundary_that_moves_makes_other_bytes(raw: bytes, first: int, second: int) -> None:
    """What one part loses and the next one wins: the trick that signatures over joined arguments allow."""
    text = raw.decode("latin-1")

    def cut(at: int) -> bytes:
        return digest(Kind.MESSAGE, text[:at].encode("latin-1"), text[at:], b"", b"")

    first, second = min(first, len(text)), min(second, len(text))
    assert (cut(first) == cut(second)) == (first == second)


def test_a_message_is_no_answer_with_the_same_bytes() -> None:
    assert len({digest(kind, FACTS, SUBJECT, BLOCK, b"x") for kind in Kind}) == len(Kind)


@given(st.integers(1, MOST_TOGETHER), st.data())
@settings(max_examples=60)
def test_each_of_those_signed_together_is_proved_alone_and_nothing_else_is(
    count: int, data: st.DataObject
) -> None:
    leaves = [digest(Kind.MESSAGE, FACTS, SUBJECT, BLOCK, bytes([n])) for n in range(count)]
    root, ways = grow(leaves)
    signature = sign(sealed_bytes(root), SECRET)
    at = data.draw(st.integers(0, count - 1))
    claim = find_claim(write_line(BLOCK, FACTS, ways[at][0], signature, ways[at][1]))
    assert claim is not None
    assert claim.block == BLOCK
    assert claim.facts == FACTS
    assert (claim.signer, claim.created_ms) == ("central", 1_764_000_000_000)
    assert find_root(claim, leaves[at]) == root
    assert is_signature(claim.signature, sealed_bytes(root), PUBLIC)
    for number, leaf in enumerate(leaves):
        assert number == at or find_root(claim, leaf) != root
    # a knot within the tree is no message
    assert count == 1 or find_root(claim._replace(beside=()), leaves[at]) != root


def test_whoever_reads_no_signatures_reads_the_message_as_ever() -> None:
    block = write_line(BLOCK, FACTS, 0, bytes(64), b"")
    headers = parse_headers(block)
    assert headers.pop(SIGNATURE_HEADER)
    assert headers == parse_headers(BLOCK)


def test_what_stands_behind_the_signature_is_not_of_the_message() -> None:
    signed = write_line(BLOCK, FACTS, 0, bytes(64), b"")
    claim = find_claim(signed[:-2] + b"appl-exit: 0\r\n\r\n")
    assert claim is not None
    assert claim.block == BLOCK
    # nor does a second one count
    twice = find_claim(signed[:-2] + signed[signed.index(b"appl-sig") :])
    assert twice == claim


def test_a_long_name_still_fits() -> None:
    facts = write_facts("n" * 200, key_id_of(PUBLIC), 10**14, 10**14, reply_mark("a.b"))
    assert find_claim(write_line(BLOCK, facts, 15, bytes(64), bytes(4 * 32))) is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b"appl-sig: 1 ", b"appl-sig: 2 "),
        lambda line: line.replace(b" central ", b"  "),
        lambda line: line.replace(b"1764000000000", b"-1"),
        lambda line: line.replace(b"1764000000000", b"1" * 16),
        lambda line: line.replace(b"1764000000000", "١".encode()),
        lambda line: line[:-10] + b"\r\n\r\n",
        lambda line: line[:-5] + b"*\r\n\r\n",
        lambda line: line[:-4],
        lambda line: line[:-4] + b"A" * MAX_LINE_BYTES + b"\r\n\r\n",
        lambda line: line.replace(b" - 0 ", b" - 0 x "),
        lambda line: write_line(BLOCK, FACTS, 0, bytes(64), bytes(5 * 32)),
        lambda line: write_line(BLOCK, FACTS, 0, bytes(63), b""),
    ],
)
def test_a_malformed_signature_is_told_as_one(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts are for nobody
        find_claim(spoil(write_line(BLOCK, FACTS, 0, bytes(64), b"")))


@given(st.binary(max_size=200))
def test_whatever_stands_there_is_read_or_told_as_malformed(raw: bytes) -> None:
    for line in (raw, b"1 a b 1 2 - 0 " + raw):
        try:
            find_claim(b"NATS/1.0\r\nappl-sig: " + line + b"\r\n\r\n")
        except ValueError:
            continue


def test_signatures_are_those_of_the_vectors() -> None:
    """For whoever writes a peer. `WRITE_VECTORS=1` writes them anew: then every fleet of ours is another one."""
    found = []
    for count in (1, 2, 3, 5):
        together = [
            (SUBJECT, reply_mark(f"{SUBJECT}.reply.a.{n}"), f"payload {n}".encode())
            for n in range(count)
        ]
        facts = [
            write_facts("central", key_id_of(PUBLIC), 1_764_000_000_000, 1_764_000_900_000, reply)
            for _, reply, _ in together
        ]
        leaves = [
            digest(Kind.MESSAGE, fact, subject, BLOCK, payload)
            for fact, (subject, _, payload) in zip(facts, together, strict=True)
        ]
        root, ways = grow(leaves)
        signature = sign(sealed_bytes(root), SECRET)
        found += [
            {
                "kind": "message",
                "subject": subject,
                "reply": f"{SUBJECT}.reply.a.{n}",
                "headers": BLOCK.decode(),
                "payload": payload.decode(),
                "digest": leaves[n].hex(),
                "root": root.hex(),
                "signed": write_line(BLOCK, facts[n], *_proof(ways[n], signature)).decode(),
            }
            for n, (subject, _, payload) in enumerate(together)
        ]
    vectors = {"seed": bytes(range(32)).hex(), "public": PUBLIC.hex(), "messages": found}
    if os.environ.get("WRITE_VECTORS"):
        VECTORS.write_text(json.dumps(vectors, indent=1) + "\n")
    assert json.loads(VECTORS.read_text()) == vectors


def _proof(way: tuple[int, bytes], signature: bytes) -> tuple[int, bytes, bytes]:
    return way[0], signature, way[1]


NOW = 1_764_000_000.0
DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("created_s", "valid_s", "fault"),
    [
        (0.0, 900.0, None),
        (299.0, 900.0, None),
        (301.0, 900.0, Fault.AHEAD),
        (-1_199.0, 900.0, None),
        (-1_201.0, 900.0, Fault.EXPIRED),
        (-DAY_S + 600, 30 * DAY_S, None),
        # whatever the sender says: the id may be forgotten
        (-DAY_S - 301, 30 * DAY_S, Fault.EXPIRED),
        (-10 * DAY_S, 10**12, Fault.EXPIRED),
        (10**9, 10**12, Fault.AHEAD),
    ],
)
def test_a_signature_is_good_for_a_time_whatever_the_clocks_differ_by(
    created_s: float, valid_s: float, fault: Fault | None
) -> None:
    created_ms = round((NOW + created_s) * 1000)
    expires_ms = created_ms + round(valid_s * 1000)
    found = find_time_fault(created_ms, expires_ms, now_s=NOW, skew_s=300.0, most_s=DAY_S)
    assert found is fault


@given(
    st.floats(-300, 300), st.floats(0, 30 * DAY_S), st.floats(3_600, 40 * DAY_S), st.floats(0, 1e9)
)
def test_what_is_still_good_is_still_remembered(
    skew_s: float, later_s: float, window_s: float, valid_s: float
) -> None:
    """Heard at `NOW` of a sender whose clock differs by `skew_s`, and brought again later by somebody else."""
    created_ms = round((NOW + skew_s) * 1000)
    fault = find_time_fault(
        created_ms,
        created_ms + round(valid_s * 1000),
        now_s=NOW + later_s,
        skew_s=300.0,
        most_s=longest_age_s(window_s, 300.0),
    )
    assert fault is Fault.EXPIRED or later_s <= window_s + 0.001
