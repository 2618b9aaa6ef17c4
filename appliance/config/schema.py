"""The shape of a config against the JSON Schema. The only importer of the schema validators.

A compiled validator says yes or no for a large fleet in a moment. On no, the interpreted one tells
what is wrong, on the parts that the compiled one refused; its own texts are not used, since they
quote values and name Python types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import referencing
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from appliance.config.print_schema import make_schema


def find_shape_errors(tree: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Every place at which `tree` is not of the schema's shape; nothing for a good config."""
    if not _compiled(None).is_valid(tree):
        yield from _interpreter().iter_errors(_keep_refused(tree))


def is_shape_valid(tree: Mapping[str, Any]) -> bool:
    """The compiled validator's word alone."""
    return bool(_compiled(None).is_valid(tree))


def _keep_refused(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without the nodes and roles that are fine: in a large fleet nearly all of them."""
    kept = dict(tree)
    for section, definition in (("nodes", "node"), ("roles", "role")):
        members = tree.get(section)
        if not isinstance(members, dict):
            continue
        validator = _compiled(definition)
        name = _compiled("node_name")
        kept[section] = {
            key: value
            for key, value in members.items()
            if not (validator.is_valid(value) and name.is_valid(key))
        }
    return kept


@cache
def _compiled(definition: str | None) -> Any:
    schema = make_schema()
    if definition is not None:
        schema = {"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]}
    return jsonschema_rs.Draft202012Validator(schema)


@cache
def _interpreter() -> Any:
    make: Any = extend
    strict = make(Draft202012Validator, {"pattern": _check_pattern})
    # An empty registry: a reference to another document must fail, never fetch.
    return strict(make_schema(), registry=referencing.Registry())


def _check_pattern(
    _validator: Validator, pattern: str, instance: object, _schema: object
) -> Iterator[ValidationError]:
    """`pattern` as the standard means it:

    `$` is the very end, while Python lets a newline through.
    """
    if isinstance(instance, str) and _translate(pattern).search(instance) is None:
        yield ValidationError("does not match the pattern")


@cache
def _translate(pattern: str) -> re.Pattern[str]:
    return re.compile(f"{pattern[:-1]}\\Z" if pattern.endswith("$") else pattern)
