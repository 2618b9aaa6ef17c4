"""What is advised where a config is wrong leads to one that is right."""

import pytest

from appliance.config.loader import load_desired
from appliance.errors import ConfigInvalid
from appliance.methods.registry import METHOD_TABLE

CONFIG = """
version: 1
broker: {{embedded: true}}
inputs: {{socket: {{path: x.sock, mode: {mode}}}}}
nodes:
  a:
    labels: {{rack: {rack}}}
    subscribe:
      REQErrorLog: {{}}
      REQCliCommand: {{allow_commands: [[chmod, {rights}, "*"]], ack: {{retries: {retries}}}}}
"""
RIGHT = {"mode": '"0660"', "rack": "r12", "rights": '"0755"', "retries": "12"}


def load(tmp_path, **values):
    path = tmp_path / "fleet.yaml"
    path.write_text(CONFIG.format(**{**RIGHT, **values}))
    return load_desired([str(path)], environ={}, methods=METHOD_TABLE)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("mode", "0660"),
        ("rack", "012"),
        ("rights", "0755"),
        ("retries", "012"),
        ("retries", "0o14"),
    ],
)
def test_what_is_advised_for_a_number_that_readers_take_differently_is_taken(
    tmp_path, name, written
):
    with pytest.raises(ConfigInvalid) as refused:
        load(tmp_path, **{name: written})
    (problem,) = refused.value.problems
    assert problem.code == "E017"
    advice = problem.hint.removeprefix("write ").removeprefix("quote it: ")
    assert load(tmp_path, **{name: advice}).desired is not None


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("latin-1", ""),
    ],
)
def test_a_file_in_another_encoding_is_named(tmp_path, encoding, named):
    path = tmp_path / "fleet.yaml"
    path.write_bytes("version: 1 # für alle\n".encode(encoding))
    with pytest.raises(ConfigInvalid) as refused:
        load_desired([str(path)], environ={}, methods=METHOD_TABLE)
    (problem,) = refused.value.problems
    assert problem.code == "E004"
    assert problem.message == (
        f"the file is {named}, not UTF-8" if named else "the file is not UTF-8"
    )


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("version: 1\nnodes:\n\ta: {}\n", (3, 1), "this line is indented by a tab"),
        ("version: 1\nnodes: @x\n", (2, 8), "@ cannot begin a text"),
        ("version: 1\nnodes:\n  a: {roles: [x]\n  b: {}\n", (4, 3), "the { of line 3, column 6 is still open"),
        ("version: 1\nnodes: {a: {roles: [x}}\n", (2, 22), "the [ of line 2, column 20 is still open"),
        ("version: 1\nnodes:\n    a: {}\n  b: {}\n", (4, 3), "indented by 2, and the map around it, from line 1 on, by 0"),
        ("version: 1\nnodes:\n  a: {}\n    b: {}\n", (4, 5), "indented by 4, and the map around it, from line 3 on, by 2"),
        ("version: 1\nnodes:\n  a: 'x' y\n", (3, 10), "nothing is expected after the value"),
        ("version: 1\nnodes:\n  a:\n    - x\n    y: {}\n", (5, 5), "no item of the list of dashes that begins in line 4"),
        ("version: 1\nnodes\n  a: {}\n", (2, 1), "a colon is missing after this"),
        ("version: 1\nnodes\nbroker: {}\n", (2, 1), "a colon is missing after this"),
        ("version: 1\nnodes: 'a\n", (2, 8), "the quote that opens here is not closed"),
        ("version: 1\nnodes:\n  a: {b: [c", (3, 10), "the [ that opens here is not closed"),
        ("version: 1\nnodes:\n  a: {b: [c,\n", (3, 12), "the file ends here, and a [ or { is not closed"),
        ("version: 1\nnodes:\n  a: {b: c\n\n", (3, 6), "the { that opens here is not closed"),
    ],
)  # fmt: skip
def test_a_mistake_of_syntax_is_told_in_words_of_an_editor(tmp_path, text, place, words):
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid) as refused:
        load_desired([str(path)], environ={}, methods=METHOD_TABLE)
    (problem,) = refused.value.problems
    assert (problem.code, problem.line, problem.column) == ("E005", *place)
    assert words in problem.message


def test_a_blank_that_is_none_is_one_mistake_though_the_parser_stumbles_over_it(tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text("version: 1\nnodes:\n  a:\u00a0{}\n  b: {}\n")
    with pytest.raises(ConfigInvalid) as refused:
        load_desired([str(path)], environ={}, methods=METHOD_TABLE)
    assert [problem.code for problem in refused.value.problems] == ["E016"]


@pytest.mark.parametrize(
    ("raw", "place", "words"),
    [
        (b"\0" * 4096, (1, 1), "the file holds nothing but zeros"),
        (b"version: 1\nno" + b"\0" * 40, (2, 3), "from here on the file holds nothing but zeros"),
        (b"version: 1\n\0nodes: {}\n", (2, 1), "U+0000 may not stand in a file"),
        (b"version: 1\n\xef\xbb\xbfnodes: {}\n", (2, 1), "U+FEFF, a byte order mark"),
        (b"version: 1\nnodes:\n  a: {}\n\xef\xbb\xbf  b: {}\n", (4, 1), "U+FEFF"),
    ],
)
def test_what_a_power_cut_or_a_concatenation_leaves_is_told_as_that(tmp_path, raw, place, words):
    path = tmp_path / "fleet.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigInvalid) as refused:
        load_desired([str(path)], environ={}, methods=METHOD_TABLE)
    (problem,) = refused.value.problems
    assert (problem.code, problem.line, problem.column) == ("E016", *place)
    assert words in problem.message


SCHEDULED = "nodes: {a: {subscribe: {REQHello: {}, REQErrorLog: {}}, publish: {p: {to: a, method: REQHello, cron:"


def advise(tmp_path, text):
    path = tmp_path / "fleet.yaml"
    path.write_text("version: 1\nbroker: {embedded: true}\n" + text.replace("@CRON", SCHEDULED))
    with pytest.raises(ConfigInvalid) as refused:
        load_desired([str(path)], environ={}, methods=METHOD_TABLE)
    (problem,) = refused.value.problems
    return f"{problem.message} / {problem.hint}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: {a: {subscribe: {REQErrorLog: {}, REQCliCommand: {allow_commands: [uptime]}}}}", "in brackets: [a, b]"),
        ("nodes: {a: {subscribe: {REQErrorLog: {}, REQPing: {accept_from: b}}}}", "in brackets: [a, b]"),
        ("nodes: {a: {publish: {p: {to: a, method: REQPing, every: 1d}}}}", "hours are the largest unit: 24h"),
        ("nodes: {a: {publish: {p: {to: a, method: REQPing, every: 2w}}}}", "hours are the largest unit: 336h"),
        ("nodes: {a: {}}\nadmin: {listen: 8090}", "write 127.0.0.1:8090"),
        ("nodes: {a: {}}\nb:\n  subscribe: {REQPing: {}}", "a node? indent it below `nodes`"),
        ("@CRON '61 * * * *'}}}}", "its minute (0 to 59) is wrong"),
        ("@CRON '* * * foo *'}}}}", "its month (1 to 12, jan to dec) is wrong"),
        ("@CRON '0 0 30 2 *'}}}}", "never comes due"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_what_to_write(tmp_path, text, words):
    assert words in advise(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (SCHEDULED.replace("cron:", "every: '${X}', data: ['${X}', '${X}']}}}}"), "E013", "here and in 2 more places"),
        ("roles: {m: {publish: {p: {to: c, method: REQPing}}}}\nnodes: [{c: {roles: [m]}}]", "E102", "expected a map"),
        ("nodes: {a: {roles: [{{ role }}]}}", "E009", "template's {{ … }} that nobody has filled in"),
        ("nodes:\n  {{ name }}: {subscribe: {REQErrorLog: {}}}", "E009", "a key must be text"),
        ("nodes: {{\n", "E009", "a key must be text"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_problem(tmp_path, text, code, words):
    path = tmp_path / "fleet.yaml"
    path.write_text("version: 1\nbroker: {embedded: true}\n" + text)
    with pytest.raises(ConfigInvalid) as refused:
        load_desired([str(path)], environ={}, methods=METHOD_TABLE)
    told = [problem for problem in refused.value.problems if problem.code != "E103"]
    (problem,) = told
    assert problem.code == code
    assert words in f"{problem.message} / {problem.hint}"
