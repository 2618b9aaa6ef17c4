"""The byte stream cut anywhere, headers of any shape, subjects of any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bus.base import BusMessage, Frame
from appliance.bus.frames import (
    check_publish_subject,
    check_subscribe_subject,
    parse_denial,
    write_frames,
)
from appliance.bus.parser import FrameParser
from appliance.bus.servers import Address, ServerPool, hide_userinfo
from appliance.errors import PayloadTooLarge, SubjectInvalid
from appliance.wire.headers import MAX_HEADERS, encode_headers, parse_headers

Message = tuple[str, str, str, bytes, bytes]
"""Subscription id, subject, reply subject, header block, payload."""

tokens = st.text("abcXYZ019_-", min_size=1, max_size=8)
messages = st.tuples(
    st.integers(1, 4).map(str),
    tokens,
    st.one_of(st.just(""), tokens),
    st.one_of(st.just(b""), st.just(b"NATS/1.0\r\na: b\r\n\r\n")),
    st.binary(max_size=300),
)


def write(message: Message) -> bytes:
    sid, subject, reply, block, payload = message
    names = " ".join(part for part in (subject, sid, reply) if part).encode()
    if block:
        total = len(block) + len(payload)
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (names, len(block), total, block, payload)
    return b"MSG %b %d\r\n%b\r\n" % (names, len(payload), payload)


class Seen:
    """What a parser gave: the batches in order, and for each subscription everything with the control lines between."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[BusMessage]]] = []
        self.streams: dict[str, list[Message | str]] = {str(sid): [] for sid in range(1, 5)}
        self.parser = FrameParser(self._take, self._note)

    def _take(self, sid: str, batch: list[BusMessage]) -> None:
        self.batches.append((sid, batch))
        self.streams[sid] += [
            (sid, item.subject, item.reply_to, item.block, item.payload) for item in batch
        ]

    def _note(self, line: bytes) -> None:
        for stream in self.streams.values():
            stream.append(line.decode())


@given(st.lists(st.one_of(messages, st.just("PING")), max_size=12), st.data())
def test_a_stream_cut_anywhere_gives_each_subscription_the_same_in_order(
    frames: list[Message | str], data: st.DataObject
) -> None:
    stream = b"".join(
        item.encode() + b"\r\n" if isinstance(item, str) else write(item) for item in frames
    )
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    seen = Seen()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        seen.parser.feed(stream[start:stop])
    for sid, taken in seen.streams.items():
        assert taken == [item for item in frames if item == "PING" or item[0] == sid]


def test_what_one_read_brought_comes_at_once_and_a_control_line_parts_it() -> None:
    one, two = ("1", "a", "", b"", b"x"), ("2", "b", "r", b"", b"y")
    seen = Seen()
    seen.parser.feed(b"".join(map(write, [one, two, one, one])) + b"PING\r\n" + write(one))
    assert [(sid, len(batch)) for sid, batch in seen.batches] == [("1", 3), ("2", 1), ("1", 1)]


def test_what_came_whole_before_nonsense_is_handed_over() -> None:
    seen = Seen()
    with pytest.raises(ValueError, match="impossible size"):
        seen.parser.feed(write(("1", "a", "", b"", b"x")) + b"MSG a 1 -5\r\n")
    assert [(sid, len(batch)) for sid, batch in seen.batches] == [("1", 1)]


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_give_frames_or_a_value_error(pieces: list[bytes]) -> None:
    parser = FrameParser(lambda *_: None, lambda _: None)
    try:
        for piece in pieces:
            parser.feed(piece)
    except ValueError:
        pass


def test_a_message_in_a_thousand_pieces_is_joined_once() -> None:
    seen = Seen()
    payload = bytes(range(256)) * 4096
    stream = write(("1", "a", "", b"", payload))
    for start in range(0, len(stream), 1000):
        seen.parser.feed(stream[start : start + 1000])
    assert seen.streams["1"] == [("1", "a", "", b"", payload)]


def send(*frames: Frame, max_payload: int = 1000) -> bytes:
    return b"".join(write_frames(frames, max_payload=max_payload, known=set())[0])


def test_frames_are_written_in_order_as_the_protocol_wants_them() -> None:
    block = b"NATS/1.0\r\n\r\n"
    assert send(("a.b", "", b"", b"1"), ("c", "r.1", block, b"23"), ("c", "", block, b"")) == (
        b"PUB a.b 1\r\n1\r\n"
        b"HPUB c r.1 12 14\r\nNATS/1.0\r\n\r\n23\r\n"
        b"HPUB c 12 12\r\nNATS/1.0\r\n\r\n\r\n"
    )


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_subject_or_reply_subject_can_add_a_word_or_a_line(subject: str, reply: str) -> None:
    try:
        written = send((subject, reply, b"", b""))
    except SubjectInvalid:
        return
    names = [name.encode() for name in (subject, reply) if name]
    assert written == b" ".join([b"PUB", *names, b"0"]) + b"\r\n\r\n"
    assert not any(mark in name for name in names for mark in (b" ", b"\r", b"\n", b"\t", b"\0"))


def test_one_frame_too_large_fails_them_all_and_headers_count() -> None:
    with pytest.raises(PayloadTooLarge) as raised:
        send(("a", "", b"", b"1"), ("a", "", b"x" * 500, b"x" * 501))
    assert (raised.value.size_bytes, raised.value.limit_bytes) == (1001, 1000)
    assert send(("a", "", b"x" * 500, b"x" * 500))


def test_subjects_that_are_remembered_have_a_bound() -> None:
    known: set[str] = set()
    for number in range(10_000):
        write_frames([(f"a.{number}", f"r.{number}", b"", b"")], max_payload=10, known=known)
    assert len(known) < 5_000
    assert not any(subject.startswith("r.") for subject in known)


WRONG_TOKENS = ("", "*", ">", "a b", "a\r\n", "\x7f", "ä*", "\udcff", "x" * 600)


@pytest.mark.parametrize("token", WRONG_TOKENS)
@pytest.mark.parametrize("is_reply", [False, True])
def test_token_behind_a_known_beginning_is_checked_like_any_other(
    token: str, is_reply: bool
) -> None:
    known: set[str] = set()

    def write(token: str) -> None:
        subject = f"node.REQPing.reply.{token}"
        frame = ("node.REQPing", subject, b"", b"") if is_reply else (subject, "", b"", b"")
        write_frames([frame], max_payload=10, known=known)

    write("0a1b")
    assert "node.REQPing.reply" in known
    for good in ("ff00", "a-b", "ä", "a.b"):
        write(good)
    with pytest.raises(SubjectInvalid):
        write(token)


header_names = st.text("abcABC-_09", min_size=1, max_size=12)
header_values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)


@given(st.dictionaries(header_names, header_values.map(str.strip), max_size=6))
def test_headers_come_back_as_they_were_written(headers: dict[str, str]) -> None:
    assert parse_headers(encode_headers(headers)) == headers


@given(st.dictionaries(header_names, st.text(max_size=30), max_size=4))
def test_no_header_value_can_add_a_line(headers: dict[str, str]) -> None:
    block = encode_headers(headers)
    assert block.count(b"\r\n") == len(headers) + 2
    assert set(parse_headers(block)) == set(headers)


@given(st.binary(max_size=200))
def test_any_header_block_gives_a_mapping(block: bytes) -> None:
    assert isinstance(parse_headers(block), dict)
    assert isinstance(parse_headers(b"NATS/1.0" + block), dict)


def test_header_lines_beyond_the_limit_are_ignored() -> None:
    block = b"NATS/1.0\r\n" + b"".join(b"h%d: v\r\n" % number for number in range(1000)) + b"\r\n"
    assert len(parse_headers(block)) == MAX_HEADERS


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 404 No Messages\r\n\r\n", {"Status": "404", "Description": "No Messages"}),
        (b"NATS/1.0 100\r\na: b\r\n\r\n", {"Status": "100", "a": "b"}),
        (b"NATS/1.0 50x\r\n\r\n", {}),
        (b"NATS/1.0\r\nserial:cbor\r\nserial: gob\r\n\r\n", {"serial": "cbor"}),
        (b"NATS/1.0\r\nser ial: cbor\r\n: x\r\n\r\n", {}),
    ],
)
def test_header_blocks_read_as_expected(block: bytes, expected: dict[str, str]) -> None:
    assert parse_headers(block) == expected


@given(st.text(max_size=40))
def test_a_subject_that_passes_can_be_written_on_one_line(subject: str) -> None:
    for check in (check_publish_subject, check_subscribe_subject):
        try:
            check(subject)
        except SubjectInvalid:
            continue
        assert subject
        assert not any(character in subject for character in "\r\n \t\0")
        assert "" not in subject.split(".")
        subject.encode()


def test_denials_are_taken_apart() -> None:
    publish = parse_denial('Permissions Violation for Publish to "A.b"')
    assert publish is not None
    assert publish[1:] == (True, "A.b", "")
    queued = parse_denial('Permissions Violation for Subscription to "A.b" using queue "Q"')
    assert queued is not None
    assert queued[1:] == (False, "A.b", "Q")
    reply = parse_denial('Permissions Violation for Publish with Reply of "A.b.reply.1"')
    assert reply is not None
    assert reply.subject == "A.b.reply.1"
    assert parse_denial("Stale Connection") is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://u:p@host:4222", "nats://host:4222"),
        ("tls://token@host", "tls://host"),
        ("host:4222", "nats://host:4222"),
        ("u:p@host:4222", "nats://host:4222"),
        ("nats://u:p@[::1]:4222", "nats://[::1]:4222"),
        ("nats://u:p@[bad", "bad"),
        ("nats://u:p@ss@host", "nats://host"),
    ],
)
def test_addresses_are_shown_without_userinfo(url: str, shown: str) -> None:
    assert hide_userinfo(url).rpartition("[")[2] == shown.rpartition("[")[2]
    assert "u:p" not in hide_userinfo(url)
    assert "token" not in hide_userinfo(url)


def test_announced_addresses_come_after_the_configured_and_keep_login_and_name() -> None:
    pool = ServerPool(["tls://u:p@nats-a:4222"])
    first = pool.take()
    pool.stay()
    pool.discover(["nats-a:4222", "10.0.0.2:4222", "nats-c:4222"], first)
    assert [pool.take() for _ in range(4)] == [
        Address("tls://u:p@nats-a:4222"),
        Address("tls://u:p@10.0.0.2:4222", "nats-a"),
        Address("tls://u:p@nats-c:4222"),
        Address("tls://u:p@nats-a:4222"),
    ]
