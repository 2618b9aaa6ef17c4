"""Users and permissions of a fleet as a part of nats-server's configuration. Pure.

Source: nats-server's documentation of `authorization`, `accounts` and of the permissions of a user.
"""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from appliance.core.names import NodeName
from appliance.core.permissions import Permissions, join_permissions

_INDENT = "  "


class Login(NamedTuple):
    """One user of the broker: a public key, and the nodes that log in by it."""

    public_key: str
    nodes: tuple[NodeName, ...]
    permissions: Permissions


def make_logins(
    permissions: Mapping[NodeName, Permissions], keys: Mapping[NodeName, Sequence[str]]
) -> list[Login]:
    """A login for every key. Nodes that share one, since one daemon runs them, have what each of them may.

    A node with two keys, one taking the other's place, has two logins that may the same.
    """
    nodes_of: defaultdict[str, list[NodeName]] = defaultdict(list)
    for node in permissions:
        for key in keys.get(node, ()):
            nodes_of[key].append(node)
    return [
        Login(key, tuple(nodes), join_permissions(permissions[node] for node in nodes))
        for key, nodes in sorted(nodes_of.items(), key=lambda item: (item[1], item[0]))
    ]


def render_conf(logins: Iterable[Login], account: str | None = None) -> str:
    """The text of the `authorization` section, or of the account of that name."""
    users = [line for login in logins for line in _render_login(login)]
    listed = ["users: [", *(f"{_INDENT}{line}" for line in users), "]"]
    inner = [f"{_INDENT}{line}" for line in listed]
    if account is None:
        lines = ["authorization {", *inner, "}"]
    else:
        name = json.dumps(account)
        lines = ["accounts {", f"{_INDENT}{name} {{", *(f"{_INDENT}{line}" for line in inner)]
        lines += [f"{_INDENT}}}", "}"]
    return "".join(f"{line}\n" for line in lines)


def diff_conf(old: str, new: str, name: str) -> str:
    """What a new text changes in an old one, as `diff -u` tells it; "" where nothing."""
    return "".join(
        difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), name, "as the config says"
        )
    )


def _render_login(login: Login) -> list[str]:
    lines = [f"# {', '.join(login.nodes)}", "{", f"{_INDENT}nkey: {login.public_key}"]
    lines.append(f"{_INDENT}permissions: {{")
    for verb, subjects in (
        ("publish", login.permissions.publish),
        ("subscribe", login.permissions.subscribe),
    ):
        # NB: a list that is empty would allow everything
        kind, listed = ("allow", subjects) if subjects else ("deny", (">",))
        lines.append(f"{_INDENT * 2}{verb}: {{{kind}: [")
        lines += [f"{_INDENT * 3}{json.dumps(subject)}" for subject in listed]
        lines.append(f"{_INDENT * 2}]}}")
    return [*lines, f"{_INDENT}}}", "}"]
