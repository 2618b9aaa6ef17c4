"""Methods in JSON: what `status`, `methods` and the API show of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from appliance.core.arguments import describe_arguments
from appliance.core.hidden import NOTHING_HIDDEN, Hidden
from appliance.core.method import MethodInfo, MethodTable
from appliance.core.names import MethodName
from appliance.core.user_method import UserMethod

Json = dict[str, Any]


def describe_methods(
    builtin: MethodTable,
    declared: Mapping[MethodName, UserMethod],
    hidden: Hidden = NOTHING_HIDDEN,
) -> list[Json]:
    """The config's own first, each kind by name; of these without what is hidden."""
    own = [
        _hide(_describe(method.info, "config", method), hidden)
        for _, method in sorted(declared.items())
    ]
    return own + [
        _describe(info, "builtin", None)
        for _, info in sorted(builtin.items())
        if not info.is_companion
    ]


def _hide(described: Json, hidden: Hidden) -> Json:
    for argument in described["args"] or ():
        choices = argument.get("choices")
        if choices is not None and hidden.value(choices) != choices:
            # nobody could choose what is not shown: the receiver judges what is given
            del argument["choices"]
    shown: Any = hidden.value(described)
    # a name is no value
    return {**shown, "name": described["name"]}


def _describe(info: MethodInfo, source: str, method: UserMethod | None) -> Json:
    """`args` lists the arguments where the config describes them; else they are only known in words.

    What exactly a method of the config runs is not told: it may name what is nobody else's business.
    """
    described: Json = {
        "name": info.name,
        "kind": info.category.lower(),
        "summary": info.summary,
        "source": source,
        "replies": info.replies,
        "usage": info.arguments,
        "args": None,
    }
    if method is not None:
        described["args"] = arguments = describe_arguments(json.loads(method.args))
        described["usage"] = " ".join(_usage_of(argument) for argument in arguments)
        described["does"] = _action_of(method)
        described["timeout_seconds"] = method.timeout_s
    return described


def _usage_of(argument: Json) -> str:
    name = str(argument["name"]).replace(" ", "-").upper()
    name = f"{name}…" if argument.get("repeats") else name
    return name if argument["required"] else f"[{name}]"


def _action_of(method: UserMethod) -> str:
    if method.exec is not None:
        return "exec"
    return "http" if method.http is not None else "file"
