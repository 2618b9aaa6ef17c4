"""Where a message's file lies: the rule, and that no name leads outside."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.file_names import MAX_PART_BYTES, MAX_PATH_BYTES, join_parts, name_parts
from appliance.core.message import Message, text_to_bytes
from appliance.errors import ArgumentsInvalid, HandlerError, PathForbidden

nasty = st.text(
    st.sampled_from(["/", ".", "\\", "\0", "~", "a", "é", "\n", "\udcff", "\ud800", " "]),
    max_size=12,
) | st.text(max_size=300)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message(to_node="ship1", directory="a/b", file_name="f"), ("a", "b", "ship1", "f")),
        (Message(to_node="ship1", file_name="f"), ("ship1", "f")),
        (Message(file_name="f"), ("own", "f")),
        (Message(to_node="a.b", directory="/etc//./x/", file_name="/f"), ("etc", "x", "a.b", "f")),
        (Message(to_node="s", directory="c:\\d", file_name="..\\f"), ("c:\\d", "s", "..\\f")),
        (Message(to_node="s", directory="...", file_name=". ."), ("...", "s", ". .")),
        (
            Message(
                to_node="central",
                from_node="ship1",
                directory="x",
                file_name="x",
                previous_message=Message(to_node="ship2", directory="d", file_name="f"),
            ),
            ("d", "ship2", "f"),
        ),
        (
            Message(from_node="ship1", previous_message=Message(directory="d", file_name="f")),
            ("d", "ship1", "f"),
        ),
    ],
    ids=str,
)
def test_directory_then_node_then_file_name(message, expected):
    assert name_parts(message, "own") == expected


def test_defaults_fill_only_what_is_empty():
    options = {"default_directory": "errorLog", "default_file_name": "error.log"}
    assert name_parts(Message(), "n", **options) == ("errorLog", "n", "error.log")
    given_names = Message(directory="d", file_name="f")
    assert name_parts(given_names, "n", **options) == ("d", "n", "f")


@pytest.mark.parametrize("file_name", ["", "/", "./", "//."])
def test_no_file_name_is_said_so(file_name):
    with pytest.raises(ArgumentsInvalid, match="names no file"):
        join_parts("d", "n", file_name)


@pytest.mark.parametrize(
    ("directory", "owner", "file_name", "reason"),
    [
        ("..", "n", "f", "'..'"),
        ("a/../..", "n", "f", "'..'"),
        ("", "n", "../f", "'..'"),
        ("", "..", "f", "no node name"),
        ("", "a/b", "f", "no node name"),
        ("", "", "f", "no node name"),
        ("a\0", "n", "f", "NUL"),
        ("", "n", ".appliance-appending", "reserved"),
        ("", "n", "é" * 128, "256 bytes exceeds the limit of 255"),
        ("d/" * 63, "n", "f", "65 parts exceeds the limit of 64"),
        ("/".join(["x" * 200] * 20), "n", "f", "exceeds the limit of 3500"),
        ("", "n", "\ud800", "cannot be written"),
    ],
)
def test_hostile_names_are_refused_with_the_reason(directory, owner, file_name, reason):
    with pytest.raises(PathForbidden) as caught:
        join_parts(directory, owner, file_name)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


@given(nasty, nasty, nasty, st.none() | st.tuples(nasty, nasty, nasty))
def test_whatever_the_names_say_the_path_stays_below(directory, owner, file_name, previous):
    request = None
    if previous is not None:
        request = Message(to_node=previous[0], directory=previous[1], file_name=previous[2])
    message = Message(
        to_node=owner,
        from_node=owner,
        directory=directory,
        file_name=file_name,
        previous_message=request,
    )
    try:
        parts = name_parts(message, "own")
    except HandlerError:
        return
    raw = [text_to_bytes(part) for part in parts]
    assert all(0 < len(part) <= MAX_PART_BYTES for part in raw)
    joined = b"/".join(raw)
    assert len(joined) < MAX_PATH_BYTES
    assert b"\0" not in joined
    assert os.path.normpath(b"/data/" + joined) == b"/data/" + joined
