"""Plans in words and JSON: what `plan`, `reload`, `status` and the history show of an action."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass

from appliance.core.hidden import NOTHING_HIDDEN, Hidden
from appliance.core.plan import Action, Changes, Plan
from appliance.core.settings import Section, parts_of, settings_of
from appliance.core.specs import DesiredState
from appliance.core.user_method import UserMethod


def describe_changes(changes: Changes, hidden: Hidden = NOTHING_HIDDEN) -> dict[str, list[object]]:
    """Field path -> [old, new], nested settings taken apart so that only what differs is named.

    What is hidden is shown as it is written in the config.
    """
    described: dict[str, list[object]] = {}
    for name, (old, new) in changes.items():
        _describe(name, old, new, described)
    return _hide(described, hidden)


def _hide(described: dict[str, list[object]], hidden: Hidden) -> dict[str, list[object]]:
    return {
        name: [hidden.value(value, name.rpartition(".")[2]) for value in pair]
        for name, pair in described.items()
    }


def _describe(name: str, old: object, new: object, into: dict[str, list[object]]) -> None:
    if is_dataclass(old) and is_dataclass(new) and type(old) is type(new):
        for item in fields(old):
            before, after = getattr(old, item.name), getattr(new, item.name)
            if before == after:
                continue
            if isinstance(old, UserMethod) and item.name == "args":
                before, after = json.loads(before), json.loads(after)
            _describe(f"{name}.{item.name}", before, after, into)
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                _describe(f"{name}.{key}", old.get(key), new.get(key), into)
        return
    into[name] = [_plain(old), _plain(new)]


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, frozenset | set):
        return sorted(str(item) for item in value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, UserMethod):
        return value.info.summary  # that it came or went; what it does is in the config
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return str(value)


def describe_settings(old: DesiredState, new: DesiredState) -> dict[str, list[object]]:
    """What differs beside the workers. Secrets are references here, and what came from the environment is hidden."""
    described: dict[str, list[object]] = {}
    for part in parts_of(DesiredState):
        before, after = getattr(old, part.attr), getattr(new, part.attr)
        if before != after and isinstance(part, Section) and part.is_flat:
            for leaf in settings_of(part.spec):
                was, now = getattr(before, leaf.attr), getattr(after, leaf.attr)
                if was != now:
                    _describe(leaf.keys[-1], was, now, described)
        elif before != after:
            _describe(part.attr, before, after, described)
    for node in sorted(old.traits.keys() & new.traits.keys()):
        labels = dict(old.traits[node].labels), dict(new.traits[node].labels)
        if labels[0] != labels[1]:
            _describe(f"nodes.{node}.labels", *labels, described)
    for method in sorted(old.methods.keys() | new.methods.keys()):
        found = old.methods.get(method), new.methods.get(method)
        if found[0] != found[1]:
            _describe(f"methods.{method}", *found, described)
    return _hide(described, new.hidden.joined(old.hidden))


def describe_action(action: Action, hidden: Hidden = NOTHING_HIDDEN) -> dict[str, object]:
    """One action as JSON."""
    return {
        "action": str(action.kind),
        "worker": action.key.name,
        "node": action.key.node,
        "fields": describe_changes(action.changed, hidden),
    }


def describe_plan(plan: Plan, hidden: Hidden = NOTHING_HIDDEN) -> list[dict[str, object]]:
    """All actions as JSON."""
    return [describe_action(action, hidden) for action in plan.actions]
