"""What `exec` and `tail` write for the lines of the API, and what they conclude from them."""

import base64

import pytest

from appliance.api.model import Line
from appliance.cli.answer_view import Answers, Stream, Style
from appliance.cli.exec_command import exit_code_of
from appliance.cli.following import tell_troubles
from tests.support.api_answers import read

TERMINAL = frozenset({Stream.OUT, Stream.ERR})


def accepted(node, id_):
    return {"event": "accepted", "to": node, "id": id_, "replies": True}


def piece(id_, data, **more):
    return {"event": "reply", "id": id_, "data": data, "has_more": True, "stream": "stdout", **more}


def end(id_, status="0", data="", **more):
    return {"event": "reply", "id": id_, "data": data, "exit_status": status, **more}


def go_answer(id_, data=""):
    return {"event": "reply", "id": id_, "data": data, "exit_status": None}


def take(*lines, nodes=1, escapes=frozenset(), prefixes=None, keeps=False, **more):
    labels = more.pop("labels", ())
    style = Style(
        prefixes=nodes > 1 if prefixes is None else prefixes,
        escapes=escapes,
        keeps=keeps,
        in_lines=nodes > 1,
        **more,
    )
    answers = Answers(style, labels)
    opening = [accepted(f"ship{number}", number) for number in range(1, nodes + 1)]
    chunks = [chunk for line in [*opening, *lines] for chunk in answers.take(read(line, Line))]
    chunks += answers.finish()
    return answers, chunks


def text_of(chunks, stream=Stream.OUT):
    return b"".join(data for where, data in chunks if where is stream)


def test_one_node_gives_its_bytes_as_they_are_and_its_own_status():
    raw = b"\x00\xff\x1b[31m"
    answers, chunks = take(
        end(1, "7", "shown", data_base64=base64.b64encode(raw).decode(), stderr="oh\n")
    )
    assert text_of(chunks) == raw
    assert text_of(chunks, Stream.ERR) == b"oh\n"
    assert exit_code_of(answers) == 7


def test_stderr_that_is_no_text_comes_as_bytes():
    _, chunks = take(end(1, stderr="\\xff", stderr_base64=base64.b64encode(b"\xff").decode()))
    assert text_of(chunks, Stream.ERR) == b"\xff"


def test_on_a_terminal_nothing_can_command_it_and_characters_survive_the_cut_between_pieces():
    first, second = "é".encode()[:1], "é".encode()[1:]
    pieces = [
        piece(1, "", data_base64=base64.b64encode(part).decode())
        for part in (b"\x1b[2J" + first, second + b"\n")
    ]
    _, chunks = take(*pieces, end(1), escapes=TERMINAL)
    assert text_of(chunks).decode() == "\\x1b[2Jé\n"


def test_bytes_that_end_in_mid_character_are_shown_at_the_end():
    _, chunks = take(end(1, data_base64=base64.b64encode(b"a\xc3").decode()), escapes=TERMINAL)
    assert text_of(chunks) == b"a\\xc3"


def test_several_nodes_have_their_name_before_every_line_and_lines_are_not_torn():
    answers, chunks = take(
        piece(1, "one\ntw"),
        piece(2, "x\n"),
        piece(1, "oh\n", stream="stderr"),
        piece(1, "o\nrest"),
        end(1),
        end(2, "3"),
        nodes=2,
    )
    assert text_of(chunks) == b"ship1: one\nship2: x\nship1: two\nship1: rest\n"
    assert text_of(chunks, Stream.ERR) == b"ship1: oh\n"
    assert exit_code_of(answers) == 1


def test_a_line_without_an_end_is_broken_before_it_fills_the_memory():
    _, chunks = take(*[piece(1, "x" * 50_000)] * 4, nodes=2)
    assert max(len(data) for _, data in chunks) < 200_000
    assert text_of(chunks).count(b"x") == 200_000


def test_what_is_unfinished_when_one_stops_is_written_all_the_same():
    _, chunks = take(piece(1, "half"), nodes=2)
    assert text_of(chunks) == b"ship1: half\n"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            {"event": "refused", "id": 1, "reason": "not in accept_from"},
            1,
            "refused: not in accept_from",
        ),
        ({"event": "dead", "id": 1, "reason": "expired: nobody there"}, 1, "expired: nobody there"),
        (end(1, "failed: not in allow_commands"), 1, "failed: not in allow_commands"),
        (end(1, "0", truncated=True), 1, "the output is not complete"),
        (end(1, "0", is_cut=True), 1, "the output is not complete"),
        (end(1, "4", truncated=True), 4, "exit 4"),
        (end(1, "255"), 255, "exit 255"),
    ],
)
def test_one_nodes_failure_is_worded_and_coded(line, code, said):
    answers, _ = take(line)
    assert exit_code_of(answers) == code
    assert [item.describe() for item in answers.failed] == [said]


def test_silence_is_3_and_a_failure_elsewhere_wins():
    answers, _ = take(nodes=2)
    assert exit_code_of(answers) == 3
    answers, _ = take(end(1, "1"), nodes=2)
    assert exit_code_of(answers) == 1
    answers, _ = take(end(1), {"event": "delivered", "id": 2}, nodes=2)
    assert exit_code_of(answers) == 3
    assert [item.describe() for item in answers.silent] == ["no answer yet"]


def test_an_acknowledgement_after_the_answer_takes_nothing_back():
    answers, _ = take(end(1), {"event": "delivered", "id": 1})
    assert exit_code_of(answers) == 0


def test_an_absent_node_is_told_once():
    missed = {"event": "missed", "id": 1, "outcome": "no_responder", "attempt": 0}
    answers, chunks = take(missed, missed)
    assert [data for _, data in chunks] == [b"ship1: waiting: nobody there"]
    assert answers.silent[0].progress.is_absent


def test_lost_pieces_are_no_success():
    answers, _ = take(end(1), {"event": "end", "lost_events": 3})
    assert (answers.lost_events, exit_code_of(answers)) == (3, 1)


def test_as_json_everything_is_kept_and_ids_come_as_text_too():
    big = 2**60 + 1
    answers = Answers(Style(escapes=frozenset(), keeps=True))
    for line in (accepted("ship1", big), piece(big, "a\n"), end(big, "2", "b", stderr="no")):
        assert answers.take(read(line, Line)) == []
    (node,) = answers.facts()["nodes"]
    assert (node["stdout"], node["stderr"], node["exit_status"]) == ("a\nb", "no", 2)
    assert (node["id"], node["id_text"]) == (big, str(big))


def test_words_of_nodes_cannot_command_the_terminal():
    _, chunks = take({"event": "accepted", "to": "x", "id": 9, "note": "\x1b]0;owned\x07\nfake"})
    assert text_of(chunks, Stream.NOTE) == b"\\x1b]0;owned\\x07\\nfake"


def test_an_exit_status_that_is_not_told_is_not_zero():
    answers, _ = take(go_answer(1, "shown"), wants_status=True)
    assert exit_code_of(answers) == 1
    (node,) = answers.failed
    assert "exit status is unknown" in node.describe()
    assert "--accept-unknown" in node.reason


def test_whoever_accepts_an_unknown_status_has_it_taken_for_zero():
    answers, _ = take(go_answer(1, "shown"), wants_status=False)
    assert exit_code_of(answers) == 0
    assert answers.facts()["nodes"][0]["is_status_unknown"]


def test_of_several_nodes_the_one_that_tells_no_status_is_a_failed_one():
    answers, _ = take(end(1), go_answer(2), nodes=2, wants_status=True)
    assert exit_code_of(answers) == 1
    assert [node.node for node in answers.failed] == ["ship2"]


def test_pieces_of_which_nobody_tells_whether_more_is_to_come_do_not_end_an_answer():
    lines = [go_answer(1, f"line {number}\n") for number in (1, 2, 3)]
    answers, chunks = take(*lines, streams=True, wants_status=True)
    assert text_of(chunks) == b"line 1\nline 2\nline 3\n"
    assert not answers.are_complete(1)
    assert not answers.silent
    assert exit_code_of(answers) == 1


def test_what_was_heard_of_a_file_that_a_go_node_follows_is_no_failure():
    answers, _ = take(go_answer(1, "line\n"), streams=True)
    assert not answers.are_complete(1)
    assert exit_code_of(answers) == 0


def test_an_answer_in_pieces_that_tells_its_end_is_complete_with_it():
    answers, _ = take(piece(1, "a\n"), end(1), streams=True, wants_status=True)
    assert answers.are_complete(1)
    assert exit_code_of(answers) == 0


def test_without_names_lines_of_several_nodes_stay_whole():
    _, chunks = take(
        piece(1, "be"), piece(2, "be"), piece(1, "gin\n"), piece(2, "gin\n"), end(1, data="last"), end(2),
        nodes=2, prefixes=False,
    )  # fmt: skip
    assert text_of(chunks) == b"begin\nbegin\nlast\n"


def test_how_a_program_ended_is_told_beside_its_output():
    answers, _ = take(end(1, "124", "data", stopped_after_seconds=1.0, signal=15), keeps=True)
    (node,) = answers.facts()["nodes"]
    assert (node["stdout"], node["exit_status"], node["signal"]) == ("data", 124, 15)
    assert (node["stopped_after_seconds"], node["reason"]) == (1.0, "stopped after 1 s")
    answers, _ = take(end(1, "0", "data", is_held=True), keeps=True)
    (node,) = answers.facts()["nodes"]
    assert (node["is_held"], exit_code_of(answers)) == (True, 0)


def test_a_signal_that_ended_a_program_is_told_beside_its_status(capsys):
    answers, _ = take(end(1, "137", signal=9), keeps=True)
    tell_troubles(answers)
    assert capsys.readouterr().err == (
        "appliance: ship1: the program was ended by signal 9 (SIGKILL)\n"
    )
    (node,) = answers.facts()["nodes"]
    assert node["reason"] == "ended by signal 9 (SIGKILL)"
    answers, _ = take(end(1, "137"), keeps=True)
    tell_troubles(answers)
    assert capsys.readouterr().err == ""
