"""The byte stream cut anywhere, headers of any shape, subjects of any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bus.frames import (
    MAX_HEADERS,
    check_publish_subject,
    check_subscribe_subject,
    encode_headers,
    parse_denial,
    parse_headers,
)
from appliance.bus.parser import FrameParser
from appliance.bus.servers import Address, ServerPool, hide_userinfo
from appliance.errors import SubjectInvalid

Message = tuple[bytes, bytes, bytes, bytes, bytes]

tokens = st.text("abcXYZ019_-", min_size=1, max_size=8).map(str.encode)
messages = st.tuples(
    tokens,
    st.integers(1, 10**6).map(lambda number: b"%d" % number),
    st.one_of(st.just(b""), tokens),
    st.one_of(st.just(b""), st.just(b"NATS/1.0\r\na: b\r\n\r\n")),
    st.binary(max_size=300),
)


def write(message: Message) -> bytes:
    subject, sid, reply, block, payload = message
    names = b" ".join(part for part in (subject, sid, reply) if part)
    if block:
        total = len(block) + len(payload)
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (names, len(block), total, block, payload)
    return b"MSG %b %d\r\n%b\r\n" % (names, len(payload), payload)


@given(st.lists(st.one_of(messages, st.just("PING")), max_size=12), st.data())
def test_a_stream_cut_anywhere_gives_the_same_frames(
    frames: list[Message | str], data: st.DataObject
) -> None:
    stream = b"".join(b"PING\r\n" if item == "PING" else write(item) for item in frames)  # type: ignore[arg-type]
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    seen: list[Message | str] = []
    parser = FrameParser(lambda *parts: seen.append(parts), lambda line: seen.append(line.decode()))
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        parser.feed(stream[start:stop])
    assert seen == frames


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_give_frames_or_a_value_error(pieces: list[bytes]) -> None:
    parser = FrameParser(lambda *_: None, lambda _: None)
    try:
        for piece in pieces:
            parser.feed(piece)
    except ValueError:
        pass


def test_a_message_in_a_thousand_pieces_is_joined_once() -> None:
    seen: list[bytes] = []
    parser = FrameParser(lambda *parts: seen.append(parts[4]), lambda _: None)
    payload = bytes(range(256)) * 4096
    stream = b"MSG a 1 %d\r\n%b\r\n" % (len(payload), payload)
    for start in range(0, len(stream), 1000):
        parser.feed(stream[start : start + 1000])
    assert seen == [payload]


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
    assert tuple(publish) == (True, "A.b", "")
    queued = parse_denial('Permissions Violation for Subscription to "A.b" using queue "Q"')
    assert queued is not None
    assert tuple(queued) == (False, "A.b", "Q")
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
