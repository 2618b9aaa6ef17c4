"""Arguments against their schema: types read from texts, words that name the argument, schemas that are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.arguments import ArgumentRules, compile_arguments, find_schema_problem
from appliance.core.arguments import (
    NO_ARGUMENTS,
    describe_arguments,
    least_arguments,
    most_arguments,
    name_of,
    parse_arguments,
)
from appliance.core.escape import escape_line

SERVICE = {
    "type": "array",
    "prefixItems": [
        {"title": "service", "enum": ["nginx", "caddy"], "description": "Which one."},
        {"title": "port", "type": "integer", "minimum": 1, "maximum": 65535},
    ],
    "minItems": 1,
    "items": False,
}


def problem(schema, *texts):
    assert find_schema_problem(schema) is None
    return ArgumentRules(schema).find_problem(texts)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("nginx",), None),
        (("caddy", "80"), None),
        ((), "service is missing"),
        (("apache",), 'service: "apache" is not one of nginx, caddy'),
        (("nginx", "x"), 'port: "x" is not a whole number'),
        (("nginx", "080"), 'port: "080" is not a whole number'),
        (("nginx", "0"), 'port: "0" is below the least of 1'),
        (("nginx", "65536"), 'port: "65536" is above the limit of 65535'),
        (("nginx", "80", "x"), "3 arguments given, at most 2 taken"),
        (("ngi\0nx",), "service holds a NUL or bytes that are no UTF-8"),
        (("nginx", "\udcff"), "port holds a NUL or bytes that are no UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_the_argument(texts, words):
    assert problem(SERVICE, *texts) == words


def test_without_a_schema_no_argument_is_taken():
    rules = compile_arguments(NO_ARGUMENTS)
    assert rules.find_problem(()) is None
    assert rules.find_problem(("x",)) == "1 argument given, none taken"


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "integer"}, "5", 5),
        ({"type": "integer"}, "-5", -5),
        ({"type": "integer"}, "5.0", "5.0"),
        ({"type": "integer"}, "١", "١"),
        ({"type": "integer"}, "1" * 5_000, "1" * 5_000),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "number"}, "2", 2),
        ({"type": "number"}, "1e999", "1e999"),
        ({"type": "number"}, "nan", "nan"),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "True", "True"),
        ({"type": ["integer", "boolean"]}, "false", False),
        ({"type": ["integer", "string"]}, "5", "5"),
        ({"enum": [80, 443]}, "80", 80),
        ({"const": True}, "true", True),
        ({}, "5", "5"),
        (True, "5", "5"),
        ({"$ref": "#/$defs/port"}, "5", 5),
        ({"$ref": "#/$defs/alias", "minimum": 3}, "5", 5),
    ],
)
def test_texts_are_read_as_the_types_that_the_schema_wants(schema, text, value):
    whole = {
        "prefixItems": [schema],
        "$defs": {"port": {"type": "integer"}, "alias": {"$ref": "#/$defs/port"}},
    }
    found = parse_arguments(whole, [text])
    assert found == [value]
    assert type(found[0]) is type(value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "items", "prefixItems", "$ref", "$defs", "enum", "minItems",
                         "maxItems", "anyOf", "pattern", "array", "integer", "#/$defs/a", "a"]),
        inner | st.sampled_from(["array", "integer", "#/$defs/a", "a("]), max_size=3),
    max_leaves=12,
).filter(lambda schema: isinstance(schema, dict)), st.lists(st.text(max_size=5), max_size=3))  # fmt: skip
def test_every_schema_is_refused_or_works(schema, texts):
    if find_schema_problem(schema) is None:
        describe_arguments(schema)
        most_arguments(schema)
        least_arguments(schema)
        found = ArgumentRules(schema).find_problem(texts)
        assert found is None or found


@given(st.lists(st.text(max_size=8), max_size=4))
def test_whatever_the_arguments_the_answer_is_harmless(texts):
    found = problem(SERVICE, *texts)
    assert found is None or (found == escape_line(found) and len(found) < 500)


DEEP: dict = {}
for _ in range(30):
    DEEP = {"items": DEEP}
WIDE = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)} | {"d30": {}}


@pytest.mark.parametrize(
    ("schema", "path", "word"),
    [
        ({"type": "arrray"}, ("type",), "no JSON Schema"),
        ({"prefixItems": [{"type": "string"}, {"minimum": "x"}]}, ("prefixItems", 1, "minimum"), ""),
        ({"type": "object"}, ("type",), "array"),
        ({"items": {"$ref": "https://example.net/s"}}, ("items", "$ref"), "own `$defs`"),
        ({"items": {"$ref": "#"}}, ("items", "$ref"), "own `$defs`"),
        ({"items": {"$ref": "#/$defs/none"}}, ("items", "$ref"), "own `$defs`"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}}, ("$defs", "a", "$ref"), "circle"),
        ({"$id": "urn:x"}, ("$id",), "not for"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ("$schema",), "understood"),
        (DEEP, ("items",) * 17, "deeper"),
        ({"$defs": WIDE, "items": {"$ref": "#/$defs/d0"}}, None, "more than"),
        ({"items": {"pattern": "("}}, ("items", "pattern"), "regex"),
        ({"items": {"pattern": r"(a)\1"}}, ("items", "pattern"), "regex"),
    ],
)  # fmt: skip
def test_schemas_that_cannot_be_used_are_refused_at_their_place(schema, path, word):
    found = find_schema_problem(schema)
    assert found is not None
    assert word in found[1]
    assert path is None or found[0] == path


@pytest.mark.timeout(60)
def test_no_pattern_makes_an_argument_search_for_ever():
    schema = {"items": {"pattern": "^(a+)+$"}}
    assert problem(schema, "a" * 100_000 + "!") is not None


def test_arguments_are_described_for_people():
    facts = describe_arguments(SERVICE)
    assert facts == [
        {"name": "service", "required": True, "type": "text", "choices": ["nginx", "caddy"],
         "description": "Which one."},
        {"name": "port", "required": False, "type": "whole number", "minimum": 1, "maximum": 65535},
    ]  # fmt: skip
    assert describe_arguments(json.loads(NO_ARGUMENTS)) == []
    assert describe_arguments({"items": {"title": "file"}, "maxItems": 3}) == [
        {"name": "file", "required": False, "type": "text", "repeats": True, "most": 3}
    ]


def test_arguments_without_a_title_are_counted_from_one():
    assert name_of({"items": {"title": "file"}}, 0) == "argument 1"
    assert name_of(SERVICE, 1) == "port"
