"""Arguments of methods that the config declares, against their JSON Schema; and that schema against its own rules.

Here and not beside the methods because `appliance.config` alone imports the validators. A schema is the operator's,
arguments are anybody's: patterns run on an engine of linear time, references stay within the schema and make no
circle, and its size is bounded with every reference written out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs

from appliance.config.compiler.findings import KeyPath
from appliance.core.arguments import (
    least_arguments,
    most_arguments,
    name_of,
    parse_arguments,
)
from appliance.core.escape import escape_line

MAX_NODES = 2_000
"""Parts of a schema, counted with every reference written out."""
MAX_DEPTH = 16
MAX_TOLD = 3
"""Problems told at once."""
_MAX_SHOWN = 60
_MAX_REASON = 160
_MAX_PATTERN_BYTES = 1_000_000
"""Memory of one compiled pattern."""
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_FOREIGN = frozenset(
    {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary"}
)
_DATA = frozenset({"enum", "const", "default", "examples"})
"""Keywords below which stands data and no schema."""
_REFERENCE = "#/$defs/"


class ArgumentRules:
    """The arguments that one method admits. Safe to share."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._validator = _compile(schema)

    def find_problem(self, texts: Sequence[str]) -> str | None:
        """Why a message with these arguments must not run, naming the argument; None when it may."""
        schema = self._schema
        for index, text in enumerate(texts):
            if not _is_clean(text):
                return f"{name_of(schema, index)} holds a NUL or bytes that are no UTF-8"
        values = parse_arguments(schema, texts)
        if self._validator.is_valid(values):
            return None
        if len(values) < least_arguments(schema):
            return f"{name_of(schema, len(values))} is missing"
        most = most_arguments(schema)
        if most is not None and len(values) > most:
            return f"{_count(len(values))} given, {'none' if not most else f'at most {most}'} taken"
        told: dict[str, None] = {}
        for error in self._validator.iter_errors(values):
            told.setdefault(self._explain(error, texts))
            if len(told) == MAX_TOLD:
                break
        return "; ".join(told)

    def _explain(self, error: Any, texts: Sequence[str]) -> str:
        path = list(error.instance_path)
        if not path or not isinstance(path[0], int):
            return f"the arguments together: {_shorten(error.message, _MAX_REASON)}"
        index = path[0]
        return f"{name_of(self._schema, index)}: {_say(error, texts[index])}"


def _say(error: Any, text: str) -> str:
    shown = f'"{_shorten(text)}"'
    kind = error.kind
    name = type(kind).__name__.rpartition("_")[2]
    facts = kind.as_dict()
    match name:
        case "Enum":
            return f"{shown} is not one of {_list(facts.get('options'))}"
        case "Constant":
            return f"{shown} is not {_plain(facts.get('expected_value'))}"
        case "Type":
            words = {"integer": "a whole number", "boolean": "true or false", "number": "a number"}
            types = facts.get("types") or [error.schema_path[-1]]
            wanted = " or ".join(words.get(str(item), str(item)) for item in types)
            return f"{shown} is not {wanted}"
        case "Minimum" | "ExclusiveMinimum":
            return f"{shown} is below the least of {facts.get('limit')}"
        case "Maximum" | "ExclusiveMaximum":
            return f"{shown} is above the limit of {facts.get('limit')}"
        case "MinLength":
            return f"{shown} is shorter than {facts.get('limit')}"
        case "MaxLength":
            return f"longer than {facts.get('limit')}"
        case "Pattern":
            return f"{shown} does not match {_shorten(str(facts.get('pattern')))}"
        case "Format":
            return f"{shown} is no {_shorten(str(facts.get('format')))}"
        case _:
            return f"{shown} is not allowed"


@lru_cache(maxsize=1_024)
def compile_arguments(schema_text: str) -> ArgumentRules:
    """The rules of a schema that was checked when the config was read."""
    return ArgumentRules(json.loads(schema_text))


def find_argument_problem(schema_text: str, texts: Sequence[str]) -> str | None:
    """The same for a schema given as text."""
    return compile_arguments(schema_text).find_problem(texts)


def find_schema_problem(schema: Mapping[str, Any]) -> tuple[KeyPath, str] | None:
    """Where below `args`, and why, a schema cannot be used; None when it can."""
    try:
        _check_parts(schema)
    except _Unusable as problem:
        return problem.path, problem.reason
    try:
        _compile(schema)
    except jsonschema_rs.ValidationError as error:
        path = tuple(error.instance_path)
        if not path and error.instance is None:  # a reference that leads nowhere
            return (), _shorten(error.message, _MAX_REASON)
        return path, f"no JSON Schema: {_shorten(error.message, _MAX_REASON)}"
    except ValueError as error:
        return (), f"no JSON Schema: {_shorten(str(error), _MAX_REASON)}"
    if schema.get("type", "array") != "array":
        return ("type",), "describes the list of the arguments, so its type is array"
    return None


def _compile(schema: Mapping[str, Any]) -> Any:
    return jsonschema_rs.Draft202012Validator(
        dict(schema),
        validate_formats=True,
        offline=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=_MAX_PATTERN_BYTES),
    )


class _Unusable(Exception):
    def __init__(self, path: KeyPath, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


def _check_parts(schema: Mapping[str, Any]) -> None:
    """References within, without circles, and the size bounded. Raises `_Unusable`."""
    definitions = schema.get("$defs")
    definitions = definitions if isinstance(definitions, Mapping) else {}
    sizes: dict[str, int] = {}
    open_: set[str] = set()

    def size_of(part: Any, path: KeyPath, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise _Unusable(path, f"nested deeper than {MAX_DEPTH}")
        if isinstance(part, Mapping):
            items: Any = part.items()
        elif isinstance(part, (list, tuple)):
            items = enumerate(part)
        else:
            return 1
        size = 1
        for key, value in items:
            here = (*path, key)
            if isinstance(part, Mapping):
                _check_keyword(key, value, here)
                if key == "$ref":
                    size += size_of_definition(value, here)
                    continue
                if key in _DATA:
                    continue
                if key == "$defs" and len(path) == 0:
                    continue  # counted where they are used
            size += size_of(value, here, depth + 1)
            if size > MAX_NODES:
                raise _Unusable(path, f"more than {MAX_NODES} parts, references written out")
        return size

    def size_of_definition(reference: Any, path: KeyPath) -> int:
        name = str(reference).removeprefix(_REFERENCE)
        if not str(reference).startswith(_REFERENCE) or name not in definitions:
            raise _Unusable(path, "a reference must name a part of this schema's own `$defs`")
        if name in open_:
            raise _Unusable(path, "the references make a circle")
        if name not in sizes:
            open_.add(name)
            sizes[name] = size_of(definitions[name], ("$defs", name), 1)
            open_.discard(name)
        return sizes[name]

    size_of(schema, (), 0)
    for name in definitions:
        size_of_definition(f"{_REFERENCE}{name}", ("$defs", name))


def _check_keyword(key: Any, value: Any, path: KeyPath) -> None:
    if key in _FOREIGN:
        raise _Unusable(path, f"`{key}` is not for the arguments of a method")
    if key == "$schema" and str(value).rstrip("#") != _DRAFT:
        raise _Unusable(path, f"only {_DRAFT} is understood")


def _is_clean(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _count(number: int) -> str:
    return f"{number} argument{'s' if number != 1 else ''}"


def _list(values: Any) -> str:
    shown = ", ".join(_plain(value) for value in list(values or ())[:20])
    return shown if len(values or ()) <= 20 else f"{shown}, …"


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _shorten(text)


def _shorten(text: str, limit: int = _MAX_SHOWN) -> str:
    line = escape_line(text)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
