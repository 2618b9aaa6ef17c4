"""Shape errors in words: code, place, what was expected, the nearest name. Values that may be
secrets are not shown.
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

from appliance.config.merge import RawConfig
from appliance.config.parse import Trap
from appliance.config.positions import KeyPath, make_problem
from appliance.config.print_schema import make_schema
from appliance.core.durations import format_duration
from appliance.core.problems import Problem
from appliance.core.settings import leaves_of
from appliance.core.specs import DesiredState
from appliance.core.suggest import describe_kind, did_you_mean_quoted, find_nearest, shorten

MAX_SUGGESTIONS = 1_000
"""Different words that one look at a config finds the meant one for; the search is dear."""

_TYPE_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map",
    "null": "nothing",
}


def find_problems(raw: RawConfig) -> tuple[list[Problem], list[KeyPath]]:
    """Everything about the shape, and the paths that are to be left out when the rest is looked at
    further.
    """
    problems: list[Problem] = []
    bad_paths: list[KeyPath] = []
    traps = {trap.path: trap for trap in raw.traps}
    trapped: set[KeyPath] = set()
    damage = _Damage(raw)
    suggestions = _Suggestions()
    for error in find_shape_errors(raw.tree):
        path: KeyPath = tuple(error.absolute_path)
        for code, where, message, hint, on_key in _explain(error, path, raw, suggestions):
            # also what is not told: nothing may be built on it
            bad_paths.append(where)
            # told when it was read: what is missing now was cut out there
            if damage.explains(code, where):
                continue
            trap = traps.get(where)
            if trap is not None and code in ("E102", "E104", "E106"):
                trapped.add(where)
                problems.append(_trap_error(trap, _expected(error), wants_text=_wants_text(error)))
                continue
            place = raw.place_of(where, on_key=on_key)
            problems.append(make_problem(code, place, message, hint=hint, path=where))
    for trap in raw.traps:
        if trap.path in trapped:
            continue
        if isinstance(trap.value, str):
            problems.append(_trap_warning(trap))
        else:
            bad_paths.append(trap.path)
            problems.append(_trap_error(trap, "a number"))
    return problems, bad_paths


def prune(tree: dict[str, Any], bad_paths: list[KeyPath]) -> dict[str, Any]:
    """A copy of `tree` without what stands at `bad_paths`, copied only along these.

    A list with a bad item goes as a whole: without one item the others would be looked for in the
    wrong places.
    """
    pruned = dict(tree)
    own = {id(pruned)}
    for path in bad_paths:
        cut = next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))
        if path:
            _cut_out(pruned, path[:cut], own)
    return pruned


def _cut_out(holder: dict[str, Any], path: KeyPath, own: set[int]) -> None:
    """Cut from `holder`, which is a copy already; what lies on the way is copied once, and noted in `own`."""
    *way, last = map(str, path)
    for part in way:
        below = holder.get(part)
        if not isinstance(below, dict):
            return
        if id(below) not in own:
            below = holder[part] = dict(below)
            own.add(id(below))
        holder = below
    holder.pop(last, None)


class _Suggestions:
    """Finds what a word was meant to be; no longer once very many were asked for, which would take minutes."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, tuple[str, ...]], str | None] = {}

    def find(self, word: str, names: tuple[str, ...]) -> str | None:
        """Remembered: a mistake in a generated config stands there ten thousand times."""
        key = (word, names)
        if key not in self._found and len(self._found) < MAX_SUGGESTIONS:
            self._found[key] = find_nearest(word, names)
        return self._found.get(key)


_Explained = tuple[str, KeyPath, str, str, bool]


def _explain(
    error: ValidationError, path: KeyPath, raw: RawConfig, suggestions: _Suggestions
) -> Iterator[_Explained]:
    """Code, path, message, hint, and whether the key is meant."""
    schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    instance: Any = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "additionalProperties":
            yield from _explain_unknown_keys(error, path, schema, suggestions)
        case "required":
            known = schema.get("properties", {})
            strange = [key for key in instance if key not in known]
            for name in wanted:
                is_misspelt = any(suggestions.find(key, (name,)) for key in strange)
                if name not in instance and not is_misspelt:  # else it is told with that key
                    yield "E103", path, f"`{name}` is missing", _hint_for_missing(name), True
        case "type":
            if _is_secret(schema) and isinstance(instance, str):
                yield (
                    "E109",
                    path,
                    "a secret may not stand in a config",
                    "write where it is read from: {file: PATH}, {env: NAME} or {credential: NAME}",
                    False,
                )
                return
            found = describe_kind(error.instance)
            hint = _hint_for_type(raw, path, error)
            yield "E102", path, f"expected {_expected(error)}, found {found}", hint, False
        case "enum" | "const":
            yield from _explain_choice(error, path, raw, suggestions)
        case "maxProperties" if not _is_secret(schema):
            yield "E105", path, f"more than {wanted} of them", "", True
        case "minProperties" | "maxProperties":
            yield (
                "E110",
                path,
                "a reference to a secret names exactly one of `file`, `env` and `credential`",
                "",
                True,
            )
        case "minItems" | "minLength":
            yield "E108", path, f"empty; expected {_expected(error)}", "", False
        case "minimum" | "maximum" | "maxLength" | "maxItems":
            yield "E105", path, _explain_bound(error), "", False
        case "pattern" if isinstance(error.parent, ValidationError) or _is_name(error):
            name = str(error.instance)
            yield "E107", (*path, name), f"{shorten(name)} is not {_expected(error)}", "", True
        case _:
            message, hint = _explain_pattern(error, raw, path)
            yield "E106", path, message, hint, False


def _is_name(error: ValidationError) -> bool:
    return "propertyNames" in error.absolute_schema_path


_NODE_KEYS = frozenset({"subscribe", "publish", "roles"})


def _explain_unknown_keys(
    error: ValidationError, path: KeyPath, schema: dict[str, Any], suggestions: _Suggestions
) -> Iterator[_Explained]:
    known = schema.get("properties", {})
    instance: Any = error.instance
    for key in instance:
        if key in known:
            continue
        below = _find_below(key, known)
        # what is called so one section further down is no slip of the pen
        nearest = (
            None
            if below is not None
            else suggestions.find(key, tuple(name for name in known if name not in instance))
        )
        if below is not None:
            section, name = below
            message = f"unknown key {shorten(key)}; did you mean {section}.{name}?"
            hint = f"write `{section}: {{{name}: …}}`"
        elif nearest is not None:
            message, hint = f"unknown key {shorten(key)}{did_you_mean_quoted(nearest)}", ""
        else:
            message = f"unknown key {shorten(key)}"
            is_node = not path and isinstance(instance[key], dict)
            if is_node and not _NODE_KEYS.isdisjoint(instance[key]):
                hint = "a node? indent it below `nodes`"
            else:
                hint = f"known here: {', '.join(known)}"
        yield "E101", (*path, key), message, hint, True


def _find_below(key: str, known: Mapping[str, Any]) -> tuple[str, str] | None:
    """The one section below which a key stands, and its name there: ``ack``, ``timeout`` for `ack_timeout` and `timeout`."""
    word = _flat(key)
    by_name, by_both = [], []
    for section, schema in known.items():
        defined = _definitions().get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
        for name in defined.get("properties", {}):
            if _flat(section + name) == word:
                by_both.append((section, name))
            elif _flat(name) == word:
                by_name.append((section, name))
    found = by_both or by_name
    return found[0] if len(found) == 1 else None


def _flat(name: object) -> str:
    return str(name).replace("_", "").replace("-", "").lower()


@cache
def _definitions() -> Mapping[str, Any]:
    found: Mapping[str, Any] = make_schema()["$defs"]
    return found


def _explain_choice(
    error: ValidationError, path: KeyPath, raw: RawConfig, suggestions: _Suggestions
) -> Iterator[_Explained]:
    if path == ("version",):
        if isinstance(error.instance, str):
            return  # told as a wrong type
        yield "E111", path, "this program reads version 1", "write `version: 1`", False
        return
    allowed: Any = error.validator_value
    words = tuple(str(word) for word in allowed)
    if not isinstance(error.instance, str):
        return  # told as a wrong type
    nearest = suggestions.find(error.instance, words)
    yield (
        "E104",
        path,
        f"{_show(raw, path, error.instance)} is not one of {', '.join(words)}"
        + did_you_mean_quoted(nearest),
        "",
        False,
    )


def _explain_bound(error: ValidationError) -> str:
    limit: Any = error.validator_value
    shown = format_duration(limit) if _expected(error).startswith("a duration") else str(limit)
    match error.validator:
        case "minimum":
            return f"below the least of {shown}"
        case "maximum":
            return f"above the limit of {shown}"
        case _:
            return f"longer than {limit}"


def _explain_pattern(error: ValidationError, raw: RawConfig, path: KeyPath) -> tuple[str, str]:
    if path[:2] == ("broker", "servers") and "@" in str(error.instance):
        return (
            "an address may not hold user or password",
            "move them to `broker.auth`",
        )
    expected = _expected(error)
    hint = ""
    if expected.startswith("a list"):
        hint = _LIST_HINT
    elif expected.startswith("a duration") and not _is_from_elsewhere(raw, path):
        hint = _hint_for_days(str(error.instance))
    return f"{_show(raw, path, error.instance)} is not {expected}", hint


_LIST_HINT = "a list stands in brackets: [a, b]"
_IN_DAYS = re.compile(r"([0-9]{1,5}) ?(d|w)(?:ays?|eeks?)?")


def _hint_for_days(text: str) -> str:
    found = _IN_DAYS.fullmatch(text)
    if found is None:
        return ""
    hours = int(found[1]) * (24 if found[2] == "d" else 168)
    return f"hours are the largest unit: {hours}h"


def _is_from_elsewhere(raw: RawConfig, path: KeyPath) -> bool:
    """Whether the value is what a reference became: it may be a secret."""
    source_map = raw.source_map.find(path)
    return source_map is not None and source_map.written is not None


def _expected(error: ValidationError) -> str:
    schema = error.schema if isinstance(error.schema, dict) else {}
    expects = schema.get("x-expects")
    if isinstance(expects, str):
        return expects
    types = schema.get("type", ())
    names = [types] if isinstance(types, str) else list(types)
    return " or ".join(_TYPE_NAMES.get(name, name) for name in names) or "something else"


def _hint_for_type(raw: RawConfig, path: KeyPath, error: ValidationError) -> str:
    if path == ("version",):
        return _hint_for_missing("version")
    expected, instance = _expected(error), error.instance
    if expected.startswith("a list") and isinstance(instance, str):
        return _LIST_HINT
    if expected.startswith("an address and port") and type(instance) is int:
        return f"write 127.0.0.1:{instance}, to listen on this machine alone"
    found = raw.source_map.find(path)
    if found is not None and found.written is not None:
        return f"in quotes it is text: write {path[-1]}: {found.written} on a line of its own, without quotes and braces"
    return ""


def _hint_for_missing(name: str) -> str:
    return "write `version: 1`" if name == "version" else ""


def _is_secret(schema: dict[str, Any]) -> bool:
    return set(schema.get("properties", ())) == {"file", "env", "credential"}


def _show(raw: RawConfig, path: KeyPath, value: object) -> str:
    """The value as it stands in the file: what a reference became may be a secret."""
    source_map = raw.source_map.find(path)
    written = source_map.written if source_map is not None else None
    if any(path[: len(keys)] == keys for keys in _SECRETS):
        return "the text"
    return shorten(value if written is None else written)


_SECRETS = tuple(setting.keys for setting in leaves_of(DesiredState) if setting.is_secret)


class _Damage:
    """What was refused while reading. One mistake is told once: what follows from it is not told again."""

    def __init__(self, raw: RawConfig) -> None:
        self._paths = set(raw.damaged)
        self._above = {path[:end] for path in raw.damaged for end in range(len(path))}
        self._is_whole = raw.is_whole

    def explains(self, code: str, path: KeyPath) -> bool:
        """Whether a shape error may be nothing but the trace of something refused."""
        if any(path[:end] in self._paths for end in range(len(path) + 1)):
            return True
        if code in ("E103", "E108", "E110") and path in self._above:
            return True
        return code == "E103" and not self._is_whole


def _wants_text(error: ValidationError) -> bool:
    schema = error.schema if isinstance(error.schema, dict) else {}
    types = schema.get("type", ())
    return types == "string" or ("string" in types and not {"integer", "number"} & set(types))


def _trap_error(trap: Trap, expected: str, *, wants_text: bool = False) -> Problem:
    value = trap.value if isinstance(trap.value, str) else None
    reads = "is text here" if value is not None else f"is {trap.value} here"
    return make_problem(
        "E017",
        trap.place,
        f"{shorten(trap.text)} {reads}, but {trap.reading} to a YAML 1.1 reader; "
        f"expected {expected}",
        hint=f'quote it: "{trap.text}"' if wants_text else _trap_hint(trap, expected),
        path=trap.path,
    )


def _trap_hint(trap: Trap, expected: str) -> str:
    if trap.reading.startswith("the truth value"):
        return f"write {trap.reading.rpartition(' ')[2]}" if "true" in expected else ""
    if isinstance(trap.value, (int, float)):
        return f"write {trap.value:g}" if isinstance(trap.value, float) else f"write {trap.value}"
    return ""


def _trap_warning(trap: Trap) -> Problem:
    return make_problem(
        "W001",
        trap.place,
        f"{shorten(trap.text)} is text here, but {trap.reading} to a YAML 1.1 reader",
        hint="quote it",
        path=trap.path,
    )


# The shape of a config against the JSON Schema. The only importer of the schema validators.
#
# A compiled validator says yes or no for a large fleet in a moment. On no, the interpreted one tells
# what is wrong, on the parts that the compiled one refused; its own texts are not used, since they
# quote values and name Python types.


def find_shape_errors(tree: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Every place at which `tree` is not of the schema's shape; nothing for a good config."""
    if not _compiled(None).is_valid(tree):
        yield from _interpreter().iter_errors(_keep_refused(tree))


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
