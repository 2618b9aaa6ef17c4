"""The audit trail as a chain: whatever is done to a line is seen."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from appliance.core.audit import BEGINNING, Head, digest_of, make_line, verify

FACTS = st.dictionaries(
    st.sampled_from(("by", "asked", "what", "outcome")), st.text(max_size=20) | st.integers(0, 9)
)


def chain(facts: list[dict[str, object]], head: Head | None = None) -> list[bytes]:
    lines = []
    at = head or Head()
    for one in facts:
        line, at = make_line(at, one)
        lines.append(line)
    return lines


def test_lines_count_and_hold_the_hash_of_the_one_before() -> None:
    first, second = chain([{"by": "root"}, {"by": "root"}])
    assert json.loads(first) == {"number": 1, "by": "root", "previous": BEGINNING}
    assert json.loads(second)["previous"] == digest_of(first)


def test_no_name_of_a_peers_commands_the_terminal_that_a_trail_is_read_on() -> None:
    path = "/a\nb\x1b[2J\x7f\x9b2J\u202e\u2028\u061cé" + "x" * 100
    (line,) = chain([{"what": {"path": path}}])
    assert json.loads(line)["what"]["path"] == path
    shown = line.decode()
    assert "é" in shown
    assert all(character.isprintable() for character in shown), shown
    assert verify([("now", [line])]).breaks == ()


@given(st.lists(FACTS, min_size=1, max_size=8), st.data())
def test_every_change_of_a_line_is_seen(
    facts: list[dict[str, object]], data: st.DataObject
) -> None:
    lines = chain(facts)
    whole = verify([("old", lines[:3]), ("new", lines[3:])])
    assert (whole.breaks, whole.entries, whole.head.number) == ((), len(lines), len(lines))
    at = data.draw(st.integers(0, len(lines) - 1))
    digest = digest_of(lines[-1])
    match data.draw(st.sampled_from(("change", "drop", "double", "swap", "cut"))):
        case "change":
            spot = data.draw(st.integers(0, len(lines[at]) - 1))
            flipped = bytes([lines[at][spot] ^ 1])
            lines[at] = lines[at][:spot] + flipped + lines[at][spot + 1 :]
        case "drop":
            del lines[at]
        case "double":
            lines.insert(at, lines[at])
        case "swap":
            lines.insert(0, lines.pop(at))
            if at == 0:
                return
        case "cut":
            del lines[at:]
    seen = verify([("file", lines)], digest)
    # the end and the beginning are held by the digest that the log said, the rest by the chain
    is_beginning = not seen.breaks and seen.holds
    assert not is_beginning or seen.first > 1 or lines == chain(facts)


def test_a_trail_written_anew_is_seen_by_the_digest_of_the_log() -> None:
    true = chain([{"by": "root", "asked": "reload"}, {"by": "root", "asked": "rollback"}])
    forged = chain([{"by": "nobody", "asked": "reload"}, {"by": "nobody", "asked": "rollback"}])
    assert verify([("file", forged)]).breaks == ()
    assert not verify([("file", forged)], digest_of(true[-1])).holds
    assert verify([("file", true)], digest_of(true[0])).holds


def test_the_oldest_file_may_have_gone_in_time() -> None:
    lines = chain([{"by": str(number)} for number in range(5)])
    found = verify([("file", lines[2:])])
    assert (found.breaks, found.first, found.head.number) == ((), 3, 5)


def test_what_is_no_entry_is_named_by_file_and_line() -> None:
    lines = chain([{}, {}])
    (one,) = verify([("audit.jsonl", [lines[0], b"[" * 100_000, lines[1]])]).breaks
    assert (one.file, one.line, one.why) == ("audit.jsonl", 2, "is no entry")


def test_an_empty_trail_is_whole() -> None:
    assert verify([]) == (0, 0, Head(), (), True)


def test_a_line_longer_than_is_read_at_once_leaves_out_what_it_is_about():
    """It would be two lines to whoever verifies the trail, and break it."""
    what = {"to": ["\u202e" * 200] * 20, "methods": ["\u202e" * 200] * 60}
    line, head = make_line(Head(), {"by": "root", "what": what, "outcome": 202})
    assert len(line) < 1_000
    again, _ = make_line(head, {"by": "root", "what": {}, "outcome": 202})
    assert verify([("a", [line, again])]).breaks == ()
    assert b"left_out_bytes" in line
