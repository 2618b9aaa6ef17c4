"""A setting stands once: as a field of a frozen dataclass.

The field's name, type and default are Python's. Its metadata, made by the functions below, says the rest: where it
stands in the config, how it is read, its bounds, what a change of it does, what it is for. The compiler, the checks,
the plan and the JSON Schema read it there, so a new setting is one field and its use.

Bounds are in the unit of the field: seconds, or a fraction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum, StrEnum
from functools import cache
from typing import Any, TypeVar, cast

from appliance.core.durations import (
    DURATION_PATTERN,
    MAX_DURATION_TEXT,
    format_duration,
    parse_duration,
)

Shape = Mapping[str, Any]
"""Keywords of JSON Schema."""

REQUIRED: Any = MISSING
"""In the place of a default."""

_Value = TypeVar("_Value")
_Entry = TypeVar("_Entry")

MAX_ENTRIES = 100

TEXT: Shape = {"type": "string", "x-expects": "text"}
NODE: Shape = {"$ref": "#/$defs/node_name"}
NAME: Shape = {"$ref": "#/$defs/name"}
LABEL: Shape = {"$ref": "#/$defs/label"}
SENDER: Shape = {"$ref": "#/$defs/sender"}
METHOD: Shape = {"$ref": "#/$defs/method"}
SECRET: Shape = {"$ref": "#/$defs/secret"}


class ReloadClass(StrEnum):
    """What a changed setting does to a running worker, or to the daemon."""

    LIVE = "live"
    SWAP = "swap"
    RESTART = "restart"


def _read_plain(value: Any) -> Any:
    # NB: JSON Schema counts 3.0 as a whole number.
    return int(value) if isinstance(value, float) else value


def _read_texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One leaf of the config. `keys` is its path below its section, the field's name unless said otherwise."""

    words: str
    """What it is for: in editors and in the manual."""
    expects: str = ""
    """What should stand there, as errors say it."""
    type: str | Sequence[str] = "string"
    shape: Shape = field(default_factory=dict)
    """Whatever else the value must be."""
    minimum: float | None = None
    maximum: float | None = None
    reload: ReloadClass = ReloadClass.LIVE
    read: Callable[[Any], Any] = _read_plain
    """From the config's value, of the right shape, to the field's.

    Raises:
        ValueError: a duration or percentage that is none, although the schema let it pass.
    """
    show: Callable[[float], str] | None = None
    """Back to a text, where texts stand for numbers: these escape the schema's bounds."""
    fills_node: bool = False
    """Whether `${node}` in it becomes the own node's name."""
    is_path: bool = False
    """Whether it is a path that counts from the file it stands in."""
    tells_default: bool = True
    entry: Any = None
    """Of a list of maps: the dataclass that each becomes."""
    keys: tuple[str, ...] = ()
    attr: str = ""
    default: Any = None
    is_required: bool = False

    @property
    def is_secret(self) -> bool:
        """Whether it says where a secret is read from."""
        return self.shape is SECRET

    @property
    def written_default(self) -> object:
        """The default as it would stand in a config; None where there is none to tell."""
        if not self.tells_default or self.default is None:
            return None
        if isinstance(self.default, Enum):
            return str(self.default.value).lower()
        if isinstance(self.default, tuple | frozenset):
            return list(self.default)
        return self.show(self.default) if self.show is not None else self.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A map of the config that becomes a dataclass of its own. `keys` is its path, as for a setting."""

    spec: type
    words: str = ""
    keys: tuple[str, ...] = ()
    is_flat: bool = False
    """Whether its settings lie among the parent's."""
    attr: str = ""
    needs_content: bool = False
    """Whether an empty map is the same as none."""


def setting(default: _Value, words: str, **facts: Any) -> _Value:
    """A field that is any setting; `facts` are fields of `Setting`."""
    made: Any = field(default=default, metadata={"part": Setting(words=words, **facts)})
    return cast("_Value", made)


def section(default: _Value, words: str = "", spec: type | None = None, **facts: Any) -> _Value:
    """A field that is a section below this one; `spec` is its class where the default is None."""
    part = Section(spec=spec or type(default), words=words, **facts)
    made: Any = field(default=default, metadata={"part": part})
    return cast("_Value", made)


def switch(default: bool, words: str, **facts: Any) -> bool:
    """True or false."""
    return setting(default, words, type="boolean", expects="true or false", **facts)


def whole(default: _Value, words: str, least: int, most: int, **facts: Any) -> _Value:
    """A whole number."""
    shape = {"minimum": least, "maximum": most}
    return setting(default, words, type="integer", expects="a whole number", shape=shape, **facts)


def duration(default: _Value, words: str, least: float, most: float, **facts: Any) -> _Value:
    """Seconds, in a field whose name ends with ``_s``."""
    return setting(
        default,
        words,
        type=("string", "number"),
        expects="a duration such as 250ms, 5s or 1m30s, or a number of seconds",
        shape={
            "pattern": f"^{DURATION_PATTERN}$",
            "maxLength": MAX_DURATION_TEXT,
            "minimum": least,
            "maximum": most,
        },
        minimum=least,
        maximum=most,
        read=parse_duration,
        show=format_duration,
        **facts,
    )


def percent(default: float, words: str, **facts: Any) -> float:
    """``"50%"`` or a number of percent; the field holds the fraction."""
    return setting(
        default,
        words,
        type=("string", "number"),
        expects="a percentage such as 50%, or a number of percent",
        shape={
            "pattern": r"^(?:100|[0-9]{1,2}(?:\.[0-9]{1,6})?)%$",
            "minimum": 0,
            "maximum": 100,
        },
        minimum=0,
        maximum=1,
        read=lambda value: float(value[:-1] if isinstance(value, str) else value) / 100,
        show="{:.0%}".format,
        **facts,
    )


def word(default: _Value, words: str, choices: Sequence[str], **facts: Any) -> _Value:
    """One of a few words."""
    facts = {"expects": f"one of {', '.join(choices)}", **facts}
    return setting(default, words, shape={"enum": list(choices)}, **facts)


def text(default: _Value, words: str, expects: str = "text", **facts: Any) -> _Value:
    """Any text, or one of the shape given."""
    return setting(default, words, expects=expects, **facts)


def texts(
    default: _Value, words: str, expects: str = "a list of texts", item: Shape = TEXT, **facts: Any
) -> _Value:
    """A list of texts; the field is a tuple."""
    facts = {"read": _read_texts, **facts, "shape": {"items": item, **facts.get("shape", {})}}
    return setting(default, words, type="array", expects=expects, **facts)


def texts_or_any(
    default: _Value,
    words: str,
    expects: str,
    item: Shape,
    anything: object,
    read: Callable[[Any], object] = _read_texts,
    **facts: Any,
) -> _Value:
    """A list, or the word `any`, for which the field holds `anything`."""
    return setting(
        default,
        words,
        type=("string", "array"),
        expects=f"{expects}, or `any`",
        shape={"pattern": "^any$", "items": item},
        read=lambda value: anything if value == "any" else read(value),
        **facts,
    )


def entries(spec: type[_Entry], words: str, expects: str, **facts: Any) -> tuple[_Entry, ...]:
    """A list of maps, each of which becomes a `spec`; the field is a tuple."""

    def read(found: Iterable[Mapping[str, Any]]) -> tuple[_Entry, ...]:
        return tuple(_read_entry(spec, item) for item in found)

    facts = {"shape": {"maxItems": MAX_ENTRIES}, **facts}
    return setting((), words, type="array", expects=expects, entry=spec, read=read, **facts)


def _read_entry(spec: Any, tree: Mapping[str, Any]) -> Any:
    there = ((part, tree.get(part.keys[-1])) for part in settings_of(spec))
    return spec(**{part.attr: part.read(value) for part, value in there if value is not None})


@cache
def parts_of(spec: type) -> tuple[Setting | Section, ...]:
    """The settings and sections of a dataclass, in the order of its fields."""
    found: list[Setting | Section] = []
    for item in fields(spec):
        part = item.metadata.get("part")
        if isinstance(part, Section):
            keys = () if part.is_flat else part.keys or (item.name,)
            found.append(replace(part, attr=item.name, keys=keys))
        elif isinstance(part, Setting):
            found.append(
                replace(
                    part,
                    attr=item.name,
                    keys=part.keys or (_name(item.name, part),),
                    default=None if item.default is MISSING else item.default,
                    is_required=item.default is MISSING,
                )
            )
    return tuple(found)


def _name(attr: str, part: Setting) -> str:
    return attr.removesuffix("_s") if part.show is format_duration else attr


@cache
def settings_of(spec: type) -> tuple[Setting, ...]:
    """The settings of a dataclass, those of its sections left out."""
    return tuple(part for part in parts_of(spec) if isinstance(part, Setting))


@cache
def leaves_of(spec: type) -> tuple[Setting, ...]:
    """The settings of a dataclass and of its sections, each with its whole path."""
    return tuple(
        replace(leaf, keys=(*keys, *leaf.keys))
        for keys, part in walk_sections(spec)
        for leaf in settings_of(part)
    )


def walk_sections(
    spec: type, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type]]:
    """A dataclass and every section of it, with their paths."""
    yield prefix, spec
    for part in parts_of(spec):
        if isinstance(part, Section):
            yield from walk_sections(part.spec, (*prefix, *part.keys))


@cache
def reload_class(spec: type, attr: str) -> ReloadClass:
    """What a change of one field does: a section's is as heavy as the heaviest in it, an unmarked one's a swap."""
    (item,) = (item for item in fields(spec) if item.name == attr)
    part = item.metadata.get("part")
    if isinstance(part, Setting):
        return part.reload
    if isinstance(part, Section):
        return max((leaf.reload for leaf in leaves_of(part.spec)), key=list(ReloadClass).index)
    return ReloadClass(item.metadata.get("reload", ReloadClass.SWAP))
