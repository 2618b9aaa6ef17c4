"""Placeholders: what is one, what they render to, and that no value is ever read as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.file_names import check_parts
from appliance.core.message import Message, text_to_bytes
from appliance.core.names import NodeName
from appliance.core.templates import (
    Placeholder,
    Source,
    Values,
    fill_node,
    highest_argument,
    parse_template,
    placeholders_of,
    render,
    values_of,
)
from appliance.core.user_method import ExecCall, FileCall
from appliance.errors import HandlerError
from appliance.methods.declared.exec import ExecHandler
from appliance.methods.declared.http import fill_headers, fill_url
from appliance.methods.declared.methods import FileHandler

VALUES = Values(("a0", "a1"), "the data", "central", "ship1", 7)

_SIGNS = st.sampled_from("{}$-/.%?#&=@:;|`'\" \\\n\r\0a0*\udcff\u00e9")
nasty = st.text(_SIGNS, max_size=12) | st.text(max_size=40) | st.just("{args.0}") | st.just("..")
values = st.builds(
    Values, st.lists(nasty, max_size=4).map(tuple), nasty, nasty, nasty, st.integers(0, 2**63)
)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{args.0}", "a0"),
        ("x{args.1}y{args.0}", "xa1ya0"),
        ("{data}|{from}|{to}|{id}", "the data|central|ship1|7"),
        ("{{args.0}}", "{args.0}"),
        ("{{{args.0}}}", "{a0}"),
        ("}}{{", "}{"),
        ("$${HOME}"[1:].replace("{", "{{").replace("}", "}}"), "${HOME}"),
    ],
)
def test_placeholders_are_filled_in_and_doubled_braces_are_braces(text, rendered):
    assert render(parse_template(text), VALUES) == rendered


@pytest.mark.parametrize(
    "text",
    ["{", "}", "a{b", "{args}", "{args.}", "{args.00}", "{args.-1}", "{args.0 }", "{ARGS.0}", "{}",
     "{node}", "{data", "{{data}", "{args.99999}", "{args.*.0}", "{a{data}b}"],
)  # fmt: skip
def test_what_is_no_placeholder_is_refused(text):
    with pytest.raises(ValueError, match=r"placeholder|single"):
        parse_template(text)


def test_missing_argument_makes_the_whole_text_missing():
    assert render(parse_template("x{args.2}"), VALUES) is None


def test_the_node_is_filled_in_before_and_its_escape_stays():
    node = NodeName("north.buoy")
    assert fill_node("a-${node}-{data}", node) == "a-north.buoy-{data}"
    escaped = fill_node("$${node} is ${node}", node)
    assert render(parse_template(escaped), VALUES) == "${node} is north.buoy"


def test_values_come_from_the_message_and_the_own_node():
    message = Message(method_args=("x",), data=("a", "b"), from_node="central", to_node="?", id=3)
    assert values_of(message, NodeName("ship1")) == Values(("x",), "ab", "central", "ship1", 3)
    assert values_of(Message(), NodeName("n")) == Values((), "", "", "n", 0)


def test_highest_argument_counts_numbers_only():
    templates = [parse_template(text) for text in ("{args.*}", "{args.2}{args.1}", "{data}")]
    assert highest_argument(templates) == 2
    assert highest_argument(templates[:1]) == -1
    assert placeholders_of(templates[0]) == [Placeholder(Source.REST)]


@given(st.text(max_size=60))
def test_any_text_with_its_braces_doubled_renders_to_itself(text):
    template = parse_template(text.replace("{", "{{").replace("}", "}}"))
    assert render(template, VALUES) == text


@given(values)
def test_a_value_is_never_read_as_a_placeholder(given_values):
    rendered = render(parse_template("<{data}|{from}>"), given_values)
    assert rendered == f"<{given_values.data}|{given_values.from_node}>"


@given(values)
def test_each_element_of_a_command_stays_one_argument(given_values):
    handler = ExecHandler(
        ExecCall(argv=("prog", "--a={args.0}", "{args.1}", "lit", "{args.*}"), allow_options=True)
    )
    argv = handler.fill(given_values)
    args = given_values.args
    expected = ["prog"]
    expected += [f"--a={args[0]}"] if args else []
    expected += [args[1]] if len(args) > 1 else []
    assert argv == [*expected, "lit", *args[2:]]


@given(values)
def test_no_value_becomes_an_option_or_the_program_unless_the_config_says_so(given_values):
    handler = ExecHandler(
        ExecCall(argv=("prog", "-x{args.0}", "{args.1}{args.0}", "{from}", "{to}", "{args.*}"))
    )
    try:
        argv = handler.fill(given_values)
    except HandlerError:
        return
    assert argv[0] == "prog"
    assert [element for element in argv if element.startswith("-")] in (
        [],
        [f"-x{given_values.args[0] if given_values.args else ''}"],
    )


@given(values)
def test_no_value_leaves_its_component_of_an_address(given_values):
    template = parse_template("https://hooks.example.net:8443/a/{args.0}/b?q={args.1}&r=x{from}")
    try:
        url = fill_url(template, given_values)
    except HandlerError:
        return
    assert url.isascii()
    assert url.startswith("https://hooks.example.net:8443/a/")
    assert not set(url) & set(' \r\n\t\0#\\"<>@')
    path, _, query = url.partition("?")
    assert path.count("/") == 5
    assert ".." not in path.split("/")
    assert query.count("&") == 1
    assert query.count("=") == 2


@given(values)
def test_no_value_ends_a_header(given_values):
    headers = [("X-A", parse_template("a {args.0} b")), ("X-B", parse_template("{from}"))]
    try:
        filled = fill_headers(headers, given_values)
    except HandlerError:
        return
    for text in filled.values():
        assert not set(text) & set("\r\n\0")
        text.encode()
    assert ("X-A" in filled) == bool(given_values.args)


@given(values)
def test_no_value_moves_a_file_to_another_directory(given_values):
    handler = FileHandler(FileCall(directory="notes/{to}", name="{from}-{args.0}.log"))
    try:
        parts = handler.fill(given_values)
    except HandlerError:
        return
    check_parts(parts)
    assert len(parts) == 3
    assert parts[0] == "notes"
    assert all(b"/" not in text_to_bytes(part) for part in parts)
