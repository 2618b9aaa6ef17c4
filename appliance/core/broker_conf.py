"""Users and permissions of a fleet as a part of nats-server's configuration. Pure.

Source: nats-server's documentation of `authorization`, `accounts` and of the permissions of a user.
"""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from appliance.core.names import NodeName
from appliance.core.permissions import ASKING, find_keeping, join_permissions
from appliance.core.specs import DesiredState, Permissions

_INDENT = "  "
INVITATION = NodeName("invitation")
"""In the place of the nodes that log in by a key: those that are not known yet."""


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


def find_logins(
    fleet: DesiredState, permissions: Mapping[NodeName, Permissions] | None = None
) -> list[Login]:
    """All that the config declares; `permissions` where they are not those of an embedded broker."""
    keys = {node: traits.public_keys for node, traits in fleet.traits.items()}
    logins = make_logins(fleet.rights if permissions is None else permissions, keys)
    return logins + [Login(key, (INVITATION,), ASKING) for key in fleet.enrolment.invitations]


def find_embedded_logins(fleet: DesiredState, daemon_key: str) -> list[Login]:
    """Those of a secured embedded broker: all that the config declares, and the daemon, which may what its nodes may."""
    own = join_permissions(
        [
            *(fleet.rights[node] for node in fleet.run_nodes),
            *(find_keeping(fleet.kept_streams, node) for node in fleet.run_nodes[:1]),
        ]
    )
    return [Login(daemon_key, fleet.run_nodes, own), *find_logins(fleet)]


def join_logins(sets: Iterable[Iterable[Login]]) -> list[Login]:
    """A login for every key of any set, which may what it may in any of them."""
    of_key: defaultdict[str, list[Login]] = defaultdict(list)
    for login in chain.from_iterable(sets):
        of_key[login.public_key].append(login)
    return [
        Login(
            key,
            tuple(sorted({node for login in found for node in login.nodes})),
            join_permissions(login.permissions for login in found),
        )
        for key, found in of_key.items()
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
