"""What a JSON Schema of arguments says: how many, of which types, under which names. Pure; no validator is here.

Arguments travel as texts. Where the schema wants a whole number, a number or a truth value, the text is read as one
before it is checked; a text that is none stays a text, so that the check names its type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Json = Any
"""A JSON value; the meta-schema has been checked before anything here is asked."""

NO_ARGUMENTS = '{"maxItems":0,"type":"array"}'
"""The schema of a method that declares no arguments."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_TRUTH = {"true": True, "false": False}
_MAX_REFERENCES = 16

_TYPE_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false"}


def most_arguments(schema: Mapping[str, Json]) -> int | None:
    """How many arguments the schema admits at most; None when it sets no bound."""
    most = schema.get("maxItems")
    if schema.get("items") is False:
        count = len(schema.get("prefixItems", ()))
        return count if most is None else min(count, int(most))
    return None if most is None else int(most)


def least_arguments(schema: Mapping[str, Json]) -> int:
    """How many arguments the schema asks for at least."""
    return int(schema.get("minItems", 0))


def item_schema(schema: Mapping[str, Json], index: int) -> Json:
    """The schema of one argument."""
    prefix = schema.get("prefixItems", ())
    found = prefix[index] if index < len(prefix) else schema.get("items", True)
    return _resolve(found, schema)


def _resolve(found: Json, schema: Mapping[str, Json]) -> Json:
    """Follow references to `$defs`; what stands beside one counts too."""
    for _ in range(_MAX_REFERENCES):
        if not isinstance(found, Mapping) or "$ref" not in found:
            break
        target = schema.get("$defs", {}).get(str(found["$ref"]).removeprefix("#/$defs/"), True)
        beside = {name: value for name, value in found.items() if name != "$ref"}
        found = {**target, **beside} if isinstance(target, Mapping) else beside or target
    return found


def parse_arguments(schema: Mapping[str, Json], texts: Sequence[str]) -> list[Json]:
    """The arguments as the schema's types want them."""
    return [_parse(text, _types(item_schema(schema, index))) for index, text in enumerate(texts)]


def _types(schema: Json) -> frozenset[str]:
    """The types that a schema admits as far as it says so itself, by `type`, `enum` or `const`."""
    if not isinstance(schema, Mapping):
        return frozenset()
    named = schema.get("type")
    if named is not None:
        return frozenset([named] if isinstance(named, str) else named)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return frozenset(_type_of(choice) for choice in choices)


def _type_of(value: Json) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case _:
            return "other"


def _parse(text: str, types: frozenset[str]) -> Json:
    if not types or "string" in types:
        return text
    if "boolean" in types and text in _TRUTH:
        return _TRUTH[text]
    if types & {"integer", "number"} and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def name_of(schema: Mapping[str, Json], index: int) -> str:
    """What an argument is called: its title, else its number counted from 1."""
    found = item_schema(schema, index)
    title = found.get("title") if isinstance(found, Mapping) else None
    is_own = index < len(schema.get("prefixItems", ()))
    return str(title) if title and is_own else f"argument {index + 1}"


def describe_arguments(schema: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Each argument as facts for people: name, type, choices, description, whether it must be given.

    The last one has `repeats` where the schema admits any number of a kind.
    """
    prefix = schema.get("prefixItems", ())
    least, most = least_arguments(schema), most_arguments(schema)
    count = len(prefix) if most is None else min(len(prefix), most)
    facts = [
        {"name": name_of(schema, index), "required": index < least}
        | _facts_of(item_schema(schema, index))
        for index in range(count)
    ]
    if most is None or most > count:
        rest = item_schema(schema, len(prefix))
        title = rest.get("title") if isinstance(rest, Mapping) else None
        facts.append(
            {"name": str(title or "argument"), "required": least > count}
            | _facts_of(rest)
            | {"repeats": True}
        )
        if most is not None:
            facts[-1]["most"] = most - count
    return facts


def _facts_of(schema: Json) -> dict[str, Json]:
    if not isinstance(schema, Mapping):
        return {"type": "text"}
    types = sorted(_types(schema)) or ["string"]
    facts: dict[str, Json] = {"type": " or ".join(_TYPE_WORDS.get(name, name) for name in types)}
    if "enum" in schema:
        facts["choices"] = list(schema["enum"])
    elif "const" in schema:
        facts["choices"] = [schema["const"]]
    for name in ("description", "pattern", "minimum", "maximum"):
        if name in schema:
            facts[name] = schema[name]
    if "minLength" in schema or "maxLength" in schema:
        facts["length"] = [schema.get("minLength", 0), schema.get("maxLength")]
    return facts
