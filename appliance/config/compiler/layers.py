"""Layers of settings: `defaults` below roles below the node below the entry itself.

Maps merge key by key, everything else (lists too) replaces. A key whose value is null says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from appliance.config.compiler.findings import KeyPath
from appliance.core.settings import Section, parts_of, settings_of

_Spec = TypeVar("_Spec")

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


def read_values(spec: type, tree: Tree) -> dict[str, Any]:
    """Keyword arguments for a dataclass of settings: those that are there, converted.

    Missing ones keep its defaults. Where one may not be missing, that was told, and an empty one stands for it.
    """
    found: dict[str, Any] = {}
    for part in parts_of(spec):
        value = find_value(tree, part.keys)
        if isinstance(part, Section):
            if _is_on(part, value):
                found[part.attr] = read_section(part.spec, value)
        elif value is not None:
            found[part.attr] = part.read(value)
        elif part.is_required:
            found[part.attr] = part.read("")
    return found


def _is_on(part: Section, tree: Any) -> bool:
    if part.is_flat:
        required = [item for item in settings_of(part.spec) if item.is_required]
        return any(find_value(tree, item.keys) is not None for item in required)
    return isinstance(tree, Mapping) and (bool(tree) or not part.needs_content)


def read_section(spec: type[_Spec], tree: Tree) -> _Spec:
    """The section of the config that `tree` is, as the dataclass that describes it."""
    return spec(**read_values(spec, tree))
