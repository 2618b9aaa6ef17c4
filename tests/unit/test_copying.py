"""What rides on the messages of a copy: pieces, hashes, words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.copying import (
    MAX_PIECE_BYTES,
    MAX_SIZE_BYTES,
    Copied,
    Piece,
    check_piece,
    describe_copied,
    is_sha256,
    name_transfer,
    pack_piece,
    read_copied,
    read_piece,
    unpack_piece,
    write_piece,
)
from appliance.errors import ArgumentsInvalid

PIECE = Piece(id="ab" * 16, offset=262_144, size=1_000_001, sha256="cd" * 32)
FACTS = PIECE._asdict()
TRANSFER = {"node": "ship1", "source": "/a", "target": "central:/b", "size": 7, "sha256": "cd" * 32}


def test_the_header_of_a_piece_is_read_as_it_was_written():
    assert read_piece(write_piece(PIECE)) == PIECE
    assert len(write_piece(PIECE._replace(offset=MAX_SIZE_BYTES, size=MAX_SIZE_BYTES))) < 300


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "piece",
        "[]",
        "null",
        "7",
        "{}",
        "[" * 200,
        "\ud800",
        json.dumps({**FACTS, "more": 1}),
        json.dumps({name: value for name, value in FACTS.items() if name != "size"}),
        json.dumps({**FACTS, "id": "AB" * 16}),
        json.dumps({**FACTS, "id": "ab" * 15}),
        json.dumps({**FACTS, "id": "ab" * 16 + "\n"}),
        json.dumps({**FACTS, "id": 7}),
        json.dumps({**FACTS, "sha256": "cd" * 31}),
        json.dumps({**FACTS, "sha256": None}),
        json.dumps({**FACTS, "offset": -1}),
        json.dumps({**FACTS, "offset": 1.0}),
        json.dumps({**FACTS, "offset": True}),
        json.dumps({**FACTS, "offset": "1"}),
        json.dumps({**FACTS, "size": MAX_SIZE_BYTES + 1}),
        json.dumps({**FACTS, "size": float("nan")}),
        write_piece(PIECE) + " " * 300,
    ],
)
def test_a_header_that_no_sender_of_ours_writes_is_refused_in_words(text):
    with pytest.raises(ArgumentsInvalid, match=r"header appl-copy|the header"):
        read_piece(text)


@given(
    st.text(max_size=80) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str)
)
def test_whatever_stands_in_the_header_is_a_piece_or_refused(text):
    try:
        piece = read_piece(text)
    except ArgumentsInvalid:
        return
    assert 0 <= piece.offset <= MAX_SIZE_BYTES


@given(st.binary(max_size=300))
def test_data_of_a_piece_comes_out_as_it_went_in(data):
    packed = pack_piece(data)
    assert packed.isascii()
    assert unpack_piece((packed,)) == data


@pytest.mark.parametrize(
    "texts",
    [None, (), ("YQ==", "YQ=="), ("YQ",), ("YQ=",), ("Y Q==",), ("YQ==\n",), ("\udcff",), ("ä",)],
)
def test_data_that_is_no_piece_is_refused(texts):
    with pytest.raises(ArgumentsInvalid):
        unpack_piece(texts)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 0), (0, MAX_PIECE_BYTES + 1), (1_000_001, 1), (1_000_000, 2), (2**49, 1)],
)
def test_a_piece_that_cannot_be_one_of_its_file_is_refused(offset, length):
    with pytest.raises(ArgumentsInvalid):
        check_piece(PIECE._replace(offset=offset), length)


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (1_000_000, 1), (0, 1_000_001)])
def test_a_piece_within_its_file_is_taken(offset, length):
    check_piece(PIECE._replace(offset=offset), length)


def test_a_transfer_is_named_after_what_goes_where():
    name = name_transfer(**TRANSFER)
    assert name == name_transfer(**TRANSFER)
    read_piece(write_piece(PIECE._replace(id=name)))
    others = [
        name_transfer(**{**TRANSFER, **change})
        for change in (
            {"node": "ship2"},
            {"source": "/a2"},
            {"target": "central:/c"},
            {"size": 8},
            {"sha256": "ce" * 32},
            {"source": "/a\udcff"},
        )
    ]
    assert len({name, *others}) == 7


@pytest.mark.parametrize("is_confirmed", [True, False])
@pytest.mark.parametrize("path", ["/a", "/with, 7 bytes, sha256 x", "/\udcff\n"])
def test_the_line_that_tells_of_a_copy_is_understood_again(path, is_confirmed):
    copied = Copied(123_456, "0f" * 32, is_confirmed)
    line = describe_copied(path, f"ship2:{path}", copied)
    assert read_copied(line) == copied
    assert line.startswith("copied " if is_confirmed else "handed over ")


@pytest.mark.parametrize(
    "line", ["", "copied file", "copied a to b, 7 bytes, sha256 abc\n", "x" * 9_999]
)
def test_other_lines_tell_of_no_copy(line):
    assert read_copied(line) is None


def test_hashes_are_told_from_other_texts():
    assert is_sha256("0f" * 32)
    assert not any(map(is_sha256, ["", "0F" * 32, "0f" * 31, "0f" * 32 + "\n"]))
