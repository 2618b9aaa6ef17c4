"""Layers of settings: `defaults` below roles below the node below the entry itself.

Maps merge key by key, everything else (lists too) replaces. A key whose value is null says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from appliance.core.durations import parse_duration
from appliance.core.fields import FieldKind, Setting
from appliance.core.findings import KeyPath
from appliance.core.specs import AckOn, CatchUp, SecretRef

Tree = Mapping[str, Any]
"""Part of a config whose shape the schema has checked; hence `Any`."""

Layer = tuple[KeyPath, Tree]
"""Settings and the path where they stand."""


def as_map(value: object) -> Tree:
    """A map, or an empty one for null."""
    return value if isinstance(value, Mapping) else {}


def merge_layers(layers: Iterable[Tree]) -> dict[str, Any]:
    """One map in which later layers win. The inputs stay as they are."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            if value is None:
                continue
            if isinstance(below, dict) and isinstance(value, Mapping):
                merged[key] = merge_layers((below, value))
            else:
                merged[key] = dict(value) if isinstance(value, Mapping) else value
    return merged


def find_value(tree: Tree, keys: Sequence[str]) -> Any:
    """The value at `keys`, None when it is not there."""
    value: Any = tree
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def find_origin(layers: Sequence[Layer], keys: Sequence[str]) -> KeyPath | None:
    """The path at which the value in force of `keys` stands; None when no layer sets it."""
    for prefix, tree in reversed(layers):
        if find_value(tree, keys) is not None:
            return (*prefix, *keys)
    return None


def convert(setting: Setting, value: Any) -> Any:
    """The spec's value for a config value of the right shape.

    Raises:
        ValueError: a duration or percentage that is none, although the schema let it pass.
    """
    match setting.kind:
        case FieldKind.DURATION:
            return parse_duration(value)
        case FieldKind.PERCENT:
            return float(value[:-1] if isinstance(value, str) else value) / 100
        case FieldKind.TEXTS:
            return tuple(str(item) for item in value)
        case FieldKind.SECRET:
            ((kind, name),) = value.items()
            return SecretRef(kind=kind, name=name)
        case FieldKind.PLAIN:
            if setting.attr == "ack_on":
                return AckOn(value)
            if setting.attr == "catch_up":
                return CatchUp(value)
            # NB: JSON Schema counts 3.0 as a whole number.
            return int(value) if isinstance(value, float) else value


def read_settings(settings: Iterable[Setting], tree: Tree) -> dict[str, Any]:
    """Keyword arguments for a spec:

    the settings that are there, converted. Missing ones keep the spec's defaults.
    """
    found = {}
    for setting in settings:
        value = find_value(tree, setting.keys)
        if value is not None:
            found[setting.attr] = convert(setting, value)
    return found
