"""The JSON Schema of the config, made from the settings and where they stand.

`make_schema` is what a whole config is checked against once it is read: references replaced, files merged.
`print_schema` is what editors get, who see one file as it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from appliance.core.method import MethodTable
from appliance.core.names import MAX_LABEL_CHARACTERS, METHOD_PATTERN, NODE_PATTERN
from appliance.core.settings import (
    METHOD,
    NAME,
    NODE,
    ReloadClass,
    Section,
    Setting,
    parts_of,
    settings_of,
)
from appliance.core.specs import (
    ACK_MODE,
    DesiredState,
    NodeTraits,
    PublisherSettings,
    Schedule,
    SubscriberDefaults,
    SubscriberSpec,
)
from appliance.core.user_method import RESERVED_PREFIX, UserMethod

Schema = dict[str, Any]

SCHEMA_FILE = "appliance.schema.json"

_METHOD_NAME = {"$ref": "#/$defs/method_name"}

_VERSION = Setting(
    words="The version of this format.",
    expects="the number 1",
    type="integer",
    shape={"const": 1},
    keys=("version",),
)
_ENABLED = Setting(
    words="`false` switches off an entry that a role brought.",
    expects="true or false",
    type="boolean",
    keys=("enabled",),
    default=True,
)
_TO = Setting(
    words="The destination node, or a list of them.",
    expects="a node name, or a list of node names",
    type=("string", "array"),
    shape={"pattern": f"^{NODE_PATTERN}$", "maxLength": 200, "minItems": 1, "items": NODE},
    keys=("to",),
)
_METHOD = Setting(words="The method.", shape=METHOD, keys=("method",))
_RELAY_TO = Setting(
    words="Nodes that messages are passed on to; each gets a subscription of its own, "
    "`<node>.<this node>.REQRelay.EventACK`. REQRelay only.",
    expects="a list of node names",
    type="array",
    shape={"minItems": 1, "items": NODE},
    keys=("relay_to",),
    reload=ReloadClass.SWAP,
)


_SECRET = {
    "description": "Where a secret is read from when it is needed; it never stands in the config itself.",
    "type": "object",
    "x-expects": "a reference to a secret: {file: PATH}, {env: NAME} or {credential: NAME}",
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
    "properties": {
        "file": {
            "description": "A file, relative to the config file it is named in.",
            "type": "string",
            "x-expects": "a path",
            "minLength": 1,
        },
        "env": {
            "description": "An environment variable of the daemon.",
            "type": "string",
            "x-expects": "the name of an environment variable",
            "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        },
        "credential": {
            "description": "A systemd credential: a file below $CREDENTIALS_DIRECTORY.",
            "type": "string",
            "x-expects": "the name of a credential",
            "pattern": "^[A-Za-z0-9_.-]+$",
        },
    },
}


@cache
def make_schema() -> Schema:
    """The schema of a whole config. Not to be changed."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:steward-appliance:schema:config:1",
        "title": "appliance configuration",
        "description": "Nodes, the subjects they subscribe to and publish on, and the settings of the daemon that "
        "runs them.",
        "type": "object",
        "x-expects": "a map",
        "additionalProperties": False,
        "required": ["version"],
        "properties": _properties(),
        "$defs": _definitions(),
    }


def _properties() -> Schema:
    sections = _parts(parts_of(DesiredState))
    return {
        "version": _leaf(_VERSION),
        "broker": sections.pop("broker"),
        "defaults": _map(
            "Settings of every worker; roles, nodes and entries override them.", _layer()
        ),
        "roles": _named(
            "Named bundles of entries, so that a fleet stays short.",
            "a map from role name to role",
            NAME,
            "role",
        ),
        "nodes": _named("The nodes of the fleet.", "a map from node name to node", NODE, "node"),
        "methods": _named(
            "Methods of your own, by name. No shell is between; arguments are checked before anything runs.",
            "a map from method name to method",
            _METHOD_NAME,
            "user_method",
        ),
        **sections,
    }


def _definitions() -> Schema:
    layer = _layer()
    subscriptions = {
        "subscribe": {"$ref": "#/$defs/subscribe"},
        "publish": {"$ref": "#/$defs/publish"},
    }
    in_layers = {item.attr for item in settings_of(SubscriberDefaults)}
    of_entries = [item for item in settings_of(SubscriberSpec) if item.attr not in in_layers]
    method_name = {
        "type": "string",
        "x-expects": "a method name: letters, digits, '_' and '-'",
        "pattern": f"^{METHOD_PATTERN}$",
        "maxLength": 100,
    }
    return {
        "node_name": _name("a node name"),
        "sender": {
            "type": "string",
            "x-expects": "a node name, a pattern of names such as ship*, a role such as @edge, or a label such as site=oslo",
            "pattern": f"^(?:{_PATTERN_OF_NAMES}|@{_PATTERN_OF_NAMES}|{NODE_PATTERN}={_PATTERN_OF_NAMES})$",
            "maxLength": 300,
        },
        "name": _name("a name"),
        "label": _name("a label or its value", MAX_LABEL_CHARACTERS),
        "method_name": method_name,
        "method": method_name,
        "secret": _SECRET,
        "text_or_secret": {
            **_SECRET,
            "description": "Text, or where a secret is read from.",
            "type": ["string", "object"],
            "x-expects": "text, or a reference such as {env: NAME}",
        },
        **_worker_settings(),
        "subscribe_entry": _map(
            "One subscription.", _parts((_ENABLED, *of_entries, _RELAY_TO)) | layer
        ),
        "publish_entry": _map(
            "Messages of one method to one or more nodes.",
            _parts((_ENABLED, _TO, _METHOD, *settings_of(Schedule))) | layer,
        ),
        "user_method": {
            **_map(
                "One method of your own. It has exactly one of `exec`, `http` and `file`.",
                _parts(parts_of(UserMethod)),
            ),
            "type": "object",
        },
        "subscribe": _named(
            "Subscriptions by method.", "a map from method to entry", METHOD, "subscribe_entry"
        ),
        "publish": _named(
            "Publishers by a name of your choice.",
            "a map from name to entry",
            NAME,
            "publish_entry",
        ),
        "role": _map("A named bundle of entries and settings.", subscriptions | layer),
        "node": _map("One node.", _parts(settings_of(NodeTraits)) | subscriptions | layer),
    }


def _worker_settings() -> Schema:
    """What may stand in `defaults`, in a role, in a node and in an entry."""
    of_subscribers = _parts(settings_of(SubscriberDefaults))
    of_publishers = _parts(parts_of(PublisherSettings))
    of_publishers["ack"]["properties"] = (
        _parts((ACK_MODE,)) | of_publishers["ack"]["properties"] | {"on": of_subscribers.pop("on")}
    )
    return of_publishers | of_subscribers


def _layer() -> Schema:
    return {name: {"$ref": f"#/$defs/{name}"} for name in _worker_settings()}


def _parts(parts: Iterable[Setting | Section]) -> Schema:
    """Properties of a map."""
    found: Schema = {}
    for part in parts:
        if isinstance(part, Setting):
            found[part.keys[-1]] = _leaf(part)
        elif part.is_flat:
            found |= _parts(parts_of(part.spec))
        else:
            required = [item.keys[-1] for item in settings_of(part.spec) if item.is_required]
            found[part.keys[-1]] = _map(part.words, _parts(parts_of(part.spec)), required)
    return found


def _leaf(setting: Setting) -> Schema:
    described: Schema = {"description": setting.words}
    if "$ref" not in setting.shape:
        named = isinstance(setting.type, str)
        described["type"] = setting.type if named else list(setting.type)
        described["x-expects"] = setting.expects
    described |= {"x-reload": str(setting.reload), **setting.shape}
    if setting.entry is not None:
        parts = settings_of(setting.entry)
        required = [item.keys[-1] for item in parts if item.is_required]
        described["items"] = {**_map("One of them.", _parts(parts), required), "type": "object"}
    if setting.written_default is not None:
        described["default"] = setting.written_default
    return described


def _map(words: str, properties: Mapping[str, Any], required: Iterable[str] = ()) -> Schema:
    required = list(required)
    return {
        "description": words,
        "type": ["object", "null"],
        "x-expects": "a map",
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "properties": properties,
    }


_PATTERN_OF_NAMES = r"[A-Za-z0-9_*?-]+(?:\.[A-Za-z0-9_*?-]+)*"


def _named(words: str, expects: str, names: Mapping[str, Any], entry: str) -> Schema:
    """A map whose keys are names, and its values entries of one kind."""
    return {
        "description": words,
        "type": ["object", "null"],
        "x-expects": expects,
        "propertyNames": names,
        "additionalProperties": {"$ref": f"#/$defs/{entry}"},
    }


def _name(what: str, most: int = 200) -> Schema:
    return {
        "type": "string",
        "x-expects": f"{what}: letters, digits, '_', '-' and inner dots",
        "pattern": f"^{NODE_PATTERN}$",
        "maxLength": most,
    }


def print_schema(methods: MethodTable) -> str:
    """The schema as it is shipped: of one file of a config as it is written, which is what an editor sees."""
    schema = make_schema()
    written = {**_written(schema), "$defs": {**_REFERENCES}}
    del written["required"]  # each file may leave `version` to another one of the set
    for name, definition in schema["$defs"].items():
        written["$defs"][name] = _written(definition, is_name=name in _NAMES)
    declared = {name: info for name, info in sorted(methods.items()) if not info.is_companion}
    written["$defs"]["method"] = _method_of(sorted(methods))
    written["$defs"]["subscribe"] |= {
        "propertyNames": _method_of(declared),
        "properties": {
            name: {"description": info.summary, "$ref": "#/$defs/subscribe_entry"}
            for name, info in declared.items()
        },
    }
    return f"{_print(written, 0)}\n"


def _method_of(names: Iterable[str]) -> Schema:
    """A method of the program, or one of the config's own, which may stand in another file."""
    own = f"^(?!{RESERVED_PREFIX}){METHOD_PATTERN}$"
    return {"anyOf": [{"enum": list(names)}, {"type": "string", "pattern": own, "maxLength": 100}]}


_NAMES = ("node_name", "sender", "name", "label", "method_name", "method")
"""Definitions of what stands in keys too, where no reference is replaced."""

_REFERENCE = r"\$\{(?!node\})[A-Za-z_][A-Za-z0-9_]*(?::-[^{}]*)?\}"
_REFERENCES = {
    "reference": {
        "description": "A value from the environment: ${NAME}, or ${NAME:-default}.",
        "type": "string",
        "pattern": f"^{_REFERENCE}$",
    },
    "text_with_reference": {
        "description": "Text with a value from the environment in it: ${NAME}, or ${NAME:-default}.",
        "type": "string",
        "pattern": f"(?:^|[^$]){_REFERENCE}",
    },
}
_OF_TEXTS = ("const", "enum", "pattern", "maxLength")
_OF_VALUES = ("$ref", "type", "minimum", "maximum", "minLength", *_OF_TEXTS, "patternErrorMessage")


def _written(schema: Schema, *, is_name: bool = False) -> Schema:
    """What may be written where `schema` is wanted: a reference too, unless it is the name of something, for keys."""
    found = dict(schema)
    expects = found.pop("x-expects", "")
    if "pattern" in schema:
        found["patternErrorMessage"] = f"Expected {expects}."
    if is_name:
        return found
    if "propertyNames" in schema:
        found["propertyNames"] = _written(schema["propertyNames"], is_name=True)
    if "properties" in schema:
        found["properties"] = {
            name: _written(child) for name, child in schema["properties"].items()
        }
    for group in ("items", "additionalProperties"):
        if isinstance(schema.get(group), dict):
            found[group] = _written(schema[group])
    types = schema.get("type", ())
    if "$ref" in schema:
        names_something = schema["$ref"].rpartition("/")[2] in _NAMES
        reference = "text_with_reference" if names_something else ""
    elif "string" in types:
        is_limited = any(key in schema for key in _OF_TEXTS)
        reference = "text_with_reference" if is_limited else ""
    else:
        # A number or a truth value is read from a text that is one reference and nothing else.
        is_scalar = types in ("integer", "boolean") or "boolean" in types
        reference = "reference" if is_scalar else ""
    if reference:
        value = {key: found.pop(key) for key in _OF_VALUES if key in found}
        found["anyOf"] = [value, {"$ref": f"#/$defs/{reference}"}]
    return found


_COLUMNS = 100


def _print(value: Any, indent: int) -> str:
    """JSON in which a map that fits on a line stands on one."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) or indent + len(flat) <= _COLUMNS:
        return flat
    pad = " " * (indent + 2)
    lines = (f'{pad}"{key}": {_print(item, indent + 2)}' for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{' ' * indent}}}"
