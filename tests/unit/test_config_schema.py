"""The JSON Schema that is made from the settings is sound, and so is what they say of themselves."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from appliance.config.print_schema import make_schema, print_schema
from appliance.config.shape import _compiled, _interpreter, find_shape_errors
from appliance.core.durations import DURATION_PATTERN
from appliance.core.names import METHOD_PATTERN, NODE_PATTERN
from appliance.core.settings import ReloadClass, Setting, leaves_of, parts_of, walk_sections
from appliance.core.specs import DesiredState, PublisherSettings, Schedule, SubscriberSpec
from appliance.core.user_method import UserMethod
from appliance.methods.registry import METHOD_TABLE
from tests.support.config_strategies import slightly_broken_configs, valid_configs

SCHEMA = make_schema()
FOR_EDITORS = json.loads(print_schema(METHOD_TABLE))
IN_AN_EDITOR = jsonschema_rs.validator_for(FOR_EDITORS)
KNOWN_KEYWORDS = {
    "$schema", "$id", "$ref", "$defs", "title", "description", "type", "properties", "required",
    "additionalProperties", "propertyNames", "items", "enum", "const", "default", "pattern",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
    "x-expects", "x-reload",
}  # fmt: skip


def resolve(schema: Any) -> Any:
    """Follow a reference; what stands beside it counts too."""
    if "$ref" in schema:
        target = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def leaves(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Leaves below an object: what has no properties of its own, references to secrets included."""
    for name, child in schema.get("properties", {}).items():
        is_secret = child.get("$ref") == "#/$defs/secret"
        child = resolve(child)
        if "properties" in child and not is_secret:
            yield from leaves(child, (*path, name))
        elif "propertyNames" not in child:
            yield (*path, name), child


def subschemas(schema: Any) -> Iterator[Any]:
    yield schema
    for group in ("properties", "$defs"):
        for child in schema.get(group, {}).values():
            yield from subschemas(child)
    for group in ("items", "propertyNames", "additionalProperties"):
        if isinstance(schema.get(group), dict):
            yield from subschemas(schema[group])


def definition(name: str) -> Any:
    return SCHEMA["$defs"][name]


SPECS = (DesiredState, PublisherSettings, Schedule, SubscriberSpec, UserMethod)
"""All that settings are fields of, sections of these included."""


@pytest.mark.parametrize(
    "setting",
    [setting for spec in SPECS for setting in leaves_of(spec)],
    ids=lambda setting: ".".join(setting.keys),
)
def test_default_that_is_told_is_one_that_can_be_written(setting: Setting) -> None:
    written = setting.written_default
    if written is not None:
        assert setting.read(written) == setting.default
        shape: Any = {"type": setting.type, **setting.shape, "$defs": SCHEMA["$defs"]}
        assert written in ("", []) or Draft202012Validator(shape).is_valid(written)


def test_every_field_of_a_section_can_be_set() -> None:
    for _, spec in walk_sections(DesiredState):
        if spec is not DesiredState:
            assert len(parts_of(spec)) == len(dataclasses.fields(spec)), spec


def test_settings_that_need_a_restart_are_those_that_a_reload_refuses() -> None:
    marked = {
        ".".join(setting.keys)
        for setting in leaves_of(DesiredState)
        if setting.reload is ReloadClass.RESTART
    }
    assert marked == {"state.dir", "broker.embedded", "broker.port"}


def test_schema_is_sound_and_closed() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    jsonschema_rs.meta.validate(SCHEMA)
    assert SCHEMA["$id"].endswith(":1")
    for schema in subschemas(SCHEMA):
        assert schema.keys() <= KNOWN_KEYWORDS
        if "properties" in schema:
            assert schema["additionalProperties"] is False
        if "$ref" in schema:
            assert schema["$ref"].rpartition("/")[2] in SCHEMA["$defs"]


def test_every_leaf_is_described_and_has_its_reload_class() -> None:
    whole = [SCHEMA, *(definition(name) for name in ("role", "node"))]
    whole += [definition("subscribe_entry"), definition("publish_entry"), definition("user_method")]
    for schema in whole:
        for path, leaf in leaves(schema):
            assert leaf["description"].endswith("."), path
            assert leaf["x-expects"], path
            assert leaf["x-reload"] in ("live", "swap", "restart"), path
    for schema in subschemas(SCHEMA):
        if "properties" in schema:
            assert schema["description"]


def test_patterns_are_anchored_and_those_of_the_core() -> None:
    patterns = {schema["pattern"] for schema in subschemas(SCHEMA) if "pattern" in schema}
    assert all(pattern.startswith("^") and pattern.endswith("$") for pattern in patterns)
    assert {f"^{NODE_PATTERN}$", f"^{METHOD_PATTERN}$", f"^{DURATION_PATTERN}$"} <= patterns


@pytest.mark.timeout(60)
def test_no_pattern_can_be_made_to_search_for_ever() -> None:
    for schema in subschemas(SCHEMA):
        if "pattern" in schema:
            pattern = re.compile(schema["pattern"])
            for evil in ("a" * 5_000 + "!", "1" * 5_000, "1s" * 2_500 + "x", "a." * 2_500 + "!"):
                pattern.search(evil)


@given(valid_configs())
def test_generated_valid_configs_have_the_right_shape(tree: Any) -> None:
    assert list(find_shape_errors(tree)) == []


@given(slightly_broken_configs() | valid_configs())
def test_compiled_and_interpreted_validators_agree(tree: Any) -> None:
    assert list(_interpreter().iter_errors(tree)) == [] or not _compiled(None).is_valid(tree)
    assert _compiled(None).is_valid(tree) or list(find_shape_errors(tree))


@given(slightly_broken_configs() | valid_configs())
def test_an_editor_takes_what_the_reader_takes(tree: Any) -> None:
    if _compiled(None).is_valid(tree):
        assert IN_AN_EDITOR.is_valid(tree)
    elif "${" not in repr(tree) and "version" in tree:
        assert not IN_AN_EDITOR.is_valid(tree)


def with_entry(kind: str, name: str, **entry: object) -> dict[str, object]:
    return {"nodes": {"alpha": {kind: {name: entry}}}}


@pytest.mark.parametrize(
    ("tree", "is_right"),
    [
        ({}, True),
        ({"version": 2}, False),
        ({"version": "${VERSION}"}, True),
        ({"broker": {"servers": ["${SERVER:-nats://localhost}", "nats://${HOST}:4222"]}}, True),
        ({"broker": {"servers": ["$${SERVER}"]}}, False),
        ({"broker": {"embedded": "${EMBEDDED}", "auth": {"user": "${USER}"}}}, True),
        ({"broker": {"auth": {"token": "${TOKEN}"}}}, False),
        ({"broker": {"auth": {"token": {"env": "${PREFIX}_TOKEN"}}}}, True),
        ({"defaults": {"window": "${WINDOW}", "ack": {"timeout": "${SECONDS}s"}}}, True),
        ({"defaults": {"window": "${WINDOW}0"}}, False),
        ({"defaults": {"window": "${node}"}}, False),
        ({"log": {"level": "${LEVEL:-info}"}}, True),
        ({"log": {"level": "loud"}}, False),
        ({"nodes": {"${NODE}": {}}}, False),
        ({"nodes": {"alpha": {"roles": ["${ROLE}"]}}}, True),
        (with_entry("subscribe", "REQPing", accept_from=["${NODE}"]), True),
        (with_entry("subscribe", "REQPing", accept_from="${NODES}"), True),
        (with_entry("subscribe", "REQPing", accept_from="some"), False),
        (with_entry("subscribe", "REQPng"), False),
        (with_entry("subscribe", "REQCopyFileChunk"), False),
        (with_entry("subscribe", "OfTheConfig"), True),
        (with_entry("publish", "any", to="alpha", method="REQPing"), True),
        (with_entry("publish", "any", to="alpha", method="REQPng"), False),
        (with_entry("publish", "any", to="alpha", method="OfTheConfig"), True),
        (with_entry("publish", "any", to="${NODE}", method="${METHOD}"), True),
    ],
)
def test_an_editor_sees_one_file_as_it_is_written(tree: object, is_right: bool) -> None:
    assert IN_AN_EDITOR.is_valid(tree) is is_right


def test_an_editor_says_what_is_expected_in_the_words_of_check() -> None:
    assert "x-expects" not in repr(FOR_EDITORS)
    limits, reference = FOR_EDITORS["$defs"]["method_timeout"]["anyOf"]
    expected = SCHEMA["$defs"]["method_timeout"]["x-expects"]
    assert limits["patternErrorMessage"] == f"Expected {expected}."
    assert reference == {"$ref": "#/$defs/text_with_reference"}


def test_an_editor_offers_the_methods_with_what_they_do() -> None:
    offered = FOR_EDITORS["$defs"]["subscribe"]["properties"]
    assert {name: entry["description"] for name, entry in offered.items()} == {
        name: info.summary for name, info in METHOD_TABLE.items() if not info.is_companion
    }
    Draft202012Validator.check_schema(FOR_EDITORS)
