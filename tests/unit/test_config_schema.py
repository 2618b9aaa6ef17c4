"""The JSON Schema, the table of settings and the specs say the same; the schema itself is sound."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from appliance.config.schema import _interpreter, find_shape_errors, is_shape_valid, load_schema
from appliance.core.durations import DURATION_PATTERN, parse_duration
from appliance.core.fields import (
    ACK_FIELDS,
    ENABLED,
    METHOD_FIELDS,
    PUBLISH_ONLY,
    PUBLISHER_FIELDS,
    RELAY_TO,
    SCHEDULE_FIELDS,
    SECTION_FIELDS,
    SUBSCRIBE_ONLY,
    SUBSCRIBER_FIELDS,
    WORKER_FIELDS,
    FieldKind,
    Setting,
)
from appliance.core.names import METHOD_PATTERN, NODE_PATTERN, Category
from appliance.core.specs import (
    RELOAD_CLASSES,
    AckSettings,
    AdminSettings,
    AuthSettings,
    BrokerSettings,
    FolderInput,
    InputSettings,
    LimitSettings,
    ListenInput,
    LogSettings,
    PublisherSpec,
    ReloadClass,
    ReloadSettings,
    Schedule,
    SocketInput,
    SourceSettings,
    StateSettings,
    SubscriberSpec,
    TlsSettings,
)
from appliance.core.user_method import ExecCall, FileCall, HttpCall, UserMethod
from tests.support.config_strategies import slightly_broken_configs, valid_configs

SCHEMA = load_schema()
KNOWN_KEYWORDS = {
    "$schema", "$id", "$ref", "$defs", "title", "description", "type", "properties", "required",
    "additionalProperties", "propertyNames", "items", "enum", "const", "default", "pattern",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
    "x-expects", "x-reload",
}  # fmt: skip

SPECS = {
    ("broker",): BrokerSettings,
    ("broker", "tls"): TlsSettings,
    ("broker", "auth"): AuthSettings,
    ("admin",): AdminSettings,
    ("inputs",): InputSettings,
    ("inputs", "socket"): SocketInput,
    ("inputs", "tcp"): ListenInput,
    ("inputs", "http"): ListenInput,
    ("inputs", "folder"): FolderInput,
    ("state",): StateSettings,
    ("reload",): ReloadSettings,
    ("limits",): LimitSettings,
    ("log",): LogSettings,
    ("config",): SourceSettings,
}


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


def names_of(settings: tuple[Setting, ...]) -> set[tuple[str, ...]]:
    return {setting.keys for setting in settings}


def definition(name: str) -> Any:
    return SCHEMA["$defs"][name]


def test_leaves_of_the_schema_are_those_that_the_compiler_reads() -> None:
    sections = {
        (*keys, *setting.keys) for keys, settings in SECTION_FIELDS.items() for setting in settings
    }
    workers = names_of(WORKER_FIELDS)
    assert {path for path, _ in leaves(SCHEMA)} == (
        {("version",)} | sections | {("defaults", *keys) for keys in workers}
    )
    assert {path for path, _ in leaves(definition("role"))} == workers
    assert {path for path, _ in leaves(definition("node"))} == workers | {("roles",)}
    entry = workers | {ENABLED.keys}
    assert {path for path, _ in leaves(definition("subscribe_entry"))} == (
        entry | names_of(SUBSCRIBE_ONLY) | {RELAY_TO.keys}
    )
    assert {path for path, _ in leaves(definition("publish_entry"))} == (
        entry | names_of(PUBLISH_ONLY)
    )
    assert {path for path, _ in leaves(definition("user_method"))} == names_of(METHOD_FIELDS)


def settings_and_specs() -> list[tuple[Setting, type, Any]]:
    """Every setting with the spec it becomes part of, and its schema."""
    found: list[tuple[Setting, type, Any]] = []
    for keys, settings in SECTION_FIELDS.items():
        schema: Any = SCHEMA
        for key in keys:
            schema = schema["properties"][key]
        by_name = dict(leaves(schema))
        found += [(setting, SPECS[keys], by_name[setting.keys]) for setting in settings]
    defaults = dict(leaves(SCHEMA["properties"]["defaults"]))
    publish = dict(leaves(definition("publish_entry")))
    subscribe = dict(leaves(definition("subscribe_entry")))
    found += [(item, AckSettings, defaults[item.keys]) for item in ACK_FIELDS]
    found += [(item, PublisherSpec, defaults[item.keys]) for item in PUBLISHER_FIELDS]
    found += [(item, SubscriberSpec, defaults[item.keys]) for item in SUBSCRIBER_FIELDS]
    found += [(item, Schedule, publish[item.keys]) for item in SCHEDULE_FIELDS]
    found += [(item, SubscriberSpec, subscribe[item.keys]) for item in SUBSCRIBE_ONLY]
    return found


ALL = pytest.mark.parametrize(
    ("setting", "spec", "schema"),
    settings_and_specs(),
    ids=lambda value: ".".join(value.keys) if isinstance(value, Setting) else "",
)


def as_spec_value(setting: Setting, value: Any) -> Any:
    match setting.kind:
        case FieldKind.DURATION:
            return parse_duration(value)
        case FieldKind.PERCENT:
            return float(value.rstrip("%")) / 100
        case FieldKind.TEXTS:
            return tuple(value)
        case _:
            return value


@ALL
def test_default_of_the_schema_is_the_one_of_the_spec(
    setting: Setting, spec: type, schema: Any
) -> None:
    (field,) = [item for item in dataclasses.fields(spec) if item.name == setting.attr]
    if "default" in schema:
        value = as_spec_value(setting, schema["default"])
        if isinstance(field.default, frozenset):
            value = frozenset(value)
        assert value == field.default
    else:
        assert field.default in (None, dataclasses.MISSING)


@ALL
def test_bounds_of_the_schema_are_those_of_the_table(
    setting: Setting, spec: type, schema: Any
) -> None:
    scale = 100 if setting.kind is FieldKind.PERCENT else 1
    for bound in ("minimum", "maximum"):
        value = getattr(setting, bound)
        assert schema.get(bound) == (None if value is None else value * scale)


@ALL
def test_reload_class_of_the_schema_is_that_of_the_table_and_of_the_plan(
    setting: Setting, spec: type, schema: Any
) -> None:
    assert schema["x-reload"] == setting.reload
    owner, attr = {
        AckSettings: (PublisherSpec, "ack"),
        Schedule: (PublisherSpec, "schedule"),
    }.get(spec, (spec, setting.attr))
    if owner in RELOAD_CLASSES:
        assert RELOAD_CLASSES[owner][attr] == setting.reload


PARTS_OF_METHODS = {"exec": ExecCall, "http": HttpCall, "file": FileCall}


@pytest.mark.parametrize("setting", METHOD_FIELDS, ids=lambda setting: ".".join(setting.keys))
def test_setting_of_a_method_is_the_one_of_its_value(setting: Setting) -> None:
    schema = dict(leaves(definition("user_method")))[setting.keys]
    assert schema["x-reload"] == setting.reload
    assert (schema.get("minimum"), schema.get("maximum")) == (setting.minimum, setting.maximum)
    part, _, attr = setting.attr.rpartition(".")
    spec = PARTS_OF_METHODS[part] if part else UserMethod
    (field,) = [item for item in dataclasses.fields(spec) if item.name == attr]
    if "default" in schema:
        default = schema["default"]
        assert (Category(default.title()) if attr == "category" else default) == field.default


def test_every_field_that_changes_in_place_can_be_set() -> None:
    reachable = {(spec, setting.attr) for setting, spec, _ in settings_and_specs()}
    for spec, classes in RELOAD_CLASSES.items():
        for attr in classes.keys() - {"ack", "schedule", "entry", "definition"}:
            assert (spec, attr) in reachable
    for spec in (*SPECS.values(), AckSettings):
        for field in dataclasses.fields(spec):
            assert (spec, field.name) in reachable or field.name in (
                "tls", "auth", "socket", "tcp", "http", "folder",
            )  # fmt: skip


def test_settings_that_need_a_restart_are_those_that_a_reload_refuses() -> None:
    marked = {
        ".".join((*keys, *setting.keys))
        for keys, settings in SECTION_FIELDS.items()
        for setting in settings
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
    assert list(_interpreter().iter_errors(tree)) == [] or not is_shape_valid(tree)
    assert is_shape_valid(tree) or list(find_shape_errors(tree))
