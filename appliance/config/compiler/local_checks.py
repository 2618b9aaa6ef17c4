"""Meaning checks of what is written in one place: a role or a node, and each entry in it.

These need no resolved layers, so they also reach roles that no node has, and run once however many
nodes share a role.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from appliance.config.compiler.findings import PLACE, Findings, KeyPath
from appliance.config.compiler.layers import Tree, as_map, find_value
from appliance.config.compiler.section_checks import check_bounds
from appliance.core.method import PROGRAM_ORDERS, MethodTable
from appliance.core.names import MethodName, NodeName, find_taken
from appliance.core.problems import say_more_places
from appliance.core.public_keys import PUBLIC_KEYS, is_user_key
from appliance.core.settings import METHOD, Setting, leaves_of, settings_of
from appliance.core.specs import (
    Carried,
    PublisherSettings,
    Schedule,
    SubscriberDefaults,
    SubscriberSpec,
)
from appliance.core.suggest import did_you_mean_quoted, find_nearest, shorten
from appliance.core.targets import is_selector
from appliance.core.urls import find_pattern_problem
from appliance.core.user_method import NO_METHODS, UserMethod

OWN_NODE = NodeName("local")
"""Names the node an entry belongs to."""

_MAX_SUGGESTIONS = 100

CronCheck = Callable[[str], str | None]
"""Why a text is no cron expression, None if it is one. Handed in: the library stays out of the
core.
"""


@dataclass(frozen=True, slots=True)
class ZoneTable:
    """Time zones, handed in like the cron check: which names there are is the machine's business."""

    has: Callable[[str], bool]
    names: Callable[[], Iterable[str]]
    """For suggestions."""


NO_ZONES = ZoneTable(lambda _name: True, lambda: ())

_DURATIONS = tuple(
    setting
    for spec in (PublisherSettings, SubscriberDefaults, Schedule)
    for setting in leaves_of(spec)
    if setting.show is not None
)
_OF_BOTH = frozenset(setting.keys for setting in leaves_of(Carried))
_ON_SUBSCRIBE_IDLE = tuple(
    setting for setting in leaves_of(PublisherSettings) if setting.keys not in _OF_BOTH
)
_ON_PUBLISH_IDLE = tuple(
    setting
    for setting in settings_of(SubscriberDefaults)
    if setting.attr != "method_timeout_s" and setting.keys not in _OF_BOTH
)
_LISTS_OF_METHODS = tuple(
    setting.keys[0]
    for setting in settings_of(SubscriberSpec)
    if setting.shape.get("items") is METHOD
)
CRON_ONLY = tuple(
    setting for setting in settings_of(Schedule) if setting.attr in ("timezone", "catch_up")
)
"""Settings that say something about `cron` alone."""
_SCHEDULE_ONLY = tuple(
    setting for setting in settings_of(Schedule) if setting.attr not in ("every_s", "cron")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What names may refer to."""

    methods: MethodTable
    """All of them, those that the config declares included."""
    user_methods: Mapping[MethodName, UserMethod]
    nodes: Tree
    roles: Tree
    special: dict[str, MethodName]
    """Node tokens that stand for whoever subscribes a method (errorCentral), and that method."""
    options: frozenset[str]
    """Subscriber fields that only some methods know."""
    find_cron_error: CronCheck
    zones: ZoneTable
    suggestions: dict[tuple[str, str], str | None]
    """Likeness searches already made: a wrong name often stands in a thousand places."""
    missing: dict[tuple[str, str], list[tuple[KeyPath, bool]]]
    """Where each role, node or method that is not declared is named, and whether by a key; told by `tell_missing`."""

    def miss(self, what: str, name: str, path: KeyPath, *, on_key: bool = False) -> None:
        """Note that `path` names something that is not declared."""
        self.missing.setdefault((what, name), []).append((path, on_key))

    def suggest(self, what: str, name: str, names: Iterable[str]) -> str | None:
        """The nearest of `names`; None too once very many were asked for, which would take minutes."""
        key = (what, name)
        if key not in self.suggestions and len(self.suggestions) < _MAX_SUGGESTIONS:
            self.suggestions[key] = find_nearest(name, names)
        return self.suggestions.get(key)


def make_known(
    tree: Tree,
    methods: MethodTable,
    find_cron_error: CronCheck,
    user_methods: Mapping[MethodName, UserMethod] = NO_METHODS,
    zones: ZoneTable = NO_ZONES,
) -> Known:
    """Collect the names of a config."""
    return Known(
        methods={**methods, **{name: method.info for name, method in user_methods.items()}},
        user_methods=user_methods,
        nodes=as_map(tree.get("nodes")),
        roles=as_map(tree.get("roles")),
        special={
            info.subject_node: name
            for name, info in methods.items()
            if info.subject_node is not None
        },
        options=frozenset().union(*(info.options for info in methods.values())),
        find_cron_error=find_cron_error,
        zones=zones,
        suggestions={},
        missing={},
    )


def check_locally(findings: Findings, tree: Tree, known: Known) -> None:
    """Check `defaults`, every role, every node and every entry for itself."""
    check_bounds(findings, ("defaults",), _DURATIONS, as_map(tree.get("defaults")))
    for section in ("roles", "nodes"):
        for name, owner in as_map(tree.get(section)).items():
            _check_owner(findings, (section, name), as_map(owner), known)
    for name in known.nodes:
        if name in known.special or name == OWN_NODE:
            meaning = (
                "the own node" if name == OWN_NODE else f"whoever subscribes {known.special[name]}"
            )
            findings.add(
                "E222",
                ("nodes", name),
                f"{shorten(name)} is reserved: it stands for {meaning}",
                on_key=True,
            )
        elif taken := find_taken(name):
            findings.add(
                "E222",
                ("nodes", name),
                f"{shorten(name)} is reserved: its subjects would lie below {shorten(taken)}",
                on_key=True,
            )


def tell_missing(findings: Findings, known: Known) -> None:
    """Whatever was taken away is one mistake, told where it is named first, however many places name it."""
    for (what, name), places in known.missing.items():
        path, on_key = places[0]
        times = len(dict(places))
        match what:
            case "role":
                _add_unknown(findings, "E203", path, what, name, known, times=times)
            case "node" if not known.nodes:
                continue  # none is declared, or what declares them is no map: that is told
            case "node":
                _add_unknown(findings, "E202", path, what, name, known, times=times)
            case _:
                _add_unknown_method(findings, path, name, known, times=times, on_key=on_key)


def _check_owner(findings: Findings, prefix: KeyPath, owner: Tree, known: Known) -> None:
    check_bounds(findings, prefix, _DURATIONS, owner)
    roles = owner.get("roles") or ()
    _check_twice(findings, (*prefix, "roles"), roles)
    for index, role in enumerate(roles):
        if role not in known.roles:
            known.miss("role", role, (*prefix, "roles", index))
    keys = owner.get(PUBLIC_KEYS) or ()
    _check_twice(findings, (*prefix, PUBLIC_KEYS), keys)
    for index, key in enumerate(keys):
        if not is_user_key(key):
            findings.add(
                "E245",
                (*prefix, PUBLIC_KEYS, index),
                f"{shorten(key)} is no public key: its checksum is wrong",
                hint="copy it again; `appliance keys show FILE` prints it",
            )
    for method, entry in as_map(owner.get("subscribe")).items():
        _check_subscribe(findings, (*prefix, "subscribe", method), method, as_map(entry), known)
    for name, entry in as_map(owner.get("publish")).items():
        _check_publish(findings, (*prefix, "publish", name), as_map(entry), known)


def _check_subscribe(
    findings: Findings, path: KeyPath, method: str, entry: Tree, known: Known
) -> None:
    info = known.methods.get(MethodName(method))
    if info is None:
        known.miss("method", method, path, on_key=True)
    elif info.is_companion:
        owners = sorted(
            name
            for name, other in known.methods.items()
            if method in other.companions or (other.runs_programs and method in PROGRAM_ORDERS)
        )
        findings.add(
            "E228",
            path,
            f"{method} comes along with {' and '.join(owners)} and is not declared by itself",
            hint="drop the entry",
            on_key=True,
        )
    if not entry:
        return
    check_bounds(findings, path, _DURATIONS, entry)
    if info is not None:
        for field in entry.keys() & (known.options - info.options):
            knowing = sorted(
                name for name, other in known.methods.items() if field in other.options
            )
            findings.add(
                "E209",
                (*path, field),
                f"`{field}` is no option of {method}",
                hint=f"it belongs to {', '.join(knowing)}" if knowing else "",
                on_key=True,
            )
    senders = entry.get("accept_from")
    if isinstance(senders, (list, tuple)):
        _check_senders(findings, (*path, "accept_from"), senders, known)
    for field in _LISTS_OF_METHODS:
        listed = entry.get(field)
        if isinstance(listed, (list, tuple)):
            _check_twice(findings, (*path, field), listed)
            for index, name in enumerate(listed):
                if MethodName(name) not in known.methods:
                    known.miss("method", name, (*path, field, index))
    if isinstance(entry.get("relay_to"), (list, tuple)):
        _check_nodes(findings, (*path, "relay_to"), entry["relay_to"], known)
    _check_paths(findings, path, entry)
    _check_urls(findings, path, entry)
    commands = entry.get("allow_commands")
    if isinstance(commands, (list, tuple)):
        for index, command in enumerate(commands):
            if command and any(sign in command[0] for sign in "*?["):
                findings.add(
                    "E221",
                    (*path, "allow_commands", index, 0),
                    "the program of a command must be written out, without wildcards",
                    hint="to allow every command write `allow_commands: any`",
                )
            if command:
                check_program_word(findings, (*path, "allow_commands", index, 0), command[0])
    _add_idle(findings, path, _ON_SUBSCRIBE_IDLE, entry, "on a subscription: the sender decides")


def check_program_word(findings: Findings, path: KeyPath, word: str) -> None:
    """A command line written as one word would be the name of one program."""
    parts = word.split()
    if len(parts) > 1 and "/" not in parts[0]:
        findings.add(
            "W210",
            path,
            f"{shorten(word)} is the name of one program, blanks and all",
            hint=f"program and arguments are words of their own: {', '.join(map(shorten, parts))}",
        )


def _check_paths(findings: Findings, path: KeyPath, entry: Tree) -> None:
    listed = [
        (field, index, pattern)
        for field in ("allow_paths", "allow_directories")
        if isinstance(entry.get(field), (list, tuple))
        for index, pattern in enumerate(entry[field])
    ]
    for field, index, pattern in listed:
        if not pattern.startswith("/") or ".." in pattern.split("/") or "\0" in pattern:
            findings.add(
                "E225",
                (*path, field, index),
                f"{shorten(pattern)} is no absolute path without `..`",
                hint="as in /var/log/*.log, or /var/log/** for everything below",
            )


def _check_urls(findings: Findings, path: KeyPath, entry: Tree) -> None:
    patterns = entry.get("allow_urls")
    if not isinstance(patterns, (list, tuple)):
        return
    for index, pattern in enumerate(patterns):
        problem = find_pattern_problem(pattern)
        if problem is not None:
            findings.add(
                "E226",
                (*path, "allow_urls", index),
                f"{shorten(pattern)} is no pattern of URLs: {problem}",
                hint="as in https://example.com/status, or http://10.0.0.7:8080/api/** for all below",
            )


def _check_publish(findings: Findings, path: KeyPath, entry: Tree, known: Known) -> None:
    if not entry:
        return
    check_bounds(findings, path, _DURATIONS, entry)
    for field in ("method", "reply_method"):
        method = entry.get(field)
        if method is not None and MethodName(method) not in known.methods:
            known.miss("method", method, (*path, field))
    to = entry.get("to")
    if isinstance(to, str):
        _check_node(findings, (*path, "to"), to, known, entry.get("method"))
    elif to:
        _check_nodes(findings, (*path, "to"), to, known, entry.get("method"))
    cron = entry.get("cron")
    if cron is not None:
        reason = known.find_cron_error(cron)
        if reason is not None:
            findings.add(
                "E210",
                (*path, "cron"),
                f"not a cron expression: {reason}",
                hint='five fields: minute hour day month weekday, as in "*/5 * * * *"',
            )
    zone = entry.get("timezone")
    if zone is not None and not known.zones.has(zone):
        nearest = known.suggest("zone", zone, known.zones.names())
        findings.add(
            "E243",
            (*path, "timezone"),
            f"{shorten(zone)} is no time zone{did_you_mean_quoted(nearest)}",
            hint="" if nearest else "an IANA name such as Europe/Berlin, or UTC",
        )
    _add_idle(findings, path, _ON_PUBLISH_IDLE, entry, "on a publisher: the receiver decides")


def _add_idle(
    findings: Findings, path: KeyPath, settings: Iterable[Setting], entry: Tree, where: str
) -> None:
    for setting in settings:
        if find_value(entry, setting.keys) is not None:
            dotted = ".".join(setting.keys)
            findings.add(
                "W202",
                (*path, *setting.keys),
                f"`{dotted}` has no effect {where}",
                hint="set it on the other side, or in a layer below",
                on_key=True,
            )


def _check_senders(findings: Findings, path: KeyPath, senders: Iterable[str], known: Known) -> None:
    senders = list(senders)
    _check_twice(findings, path, senders)
    for index, text in enumerate(senders):
        if not is_selector(text):
            _check_node(findings, (*path, index), text, known, None)
        elif names_unknown_role(text, known.roles):
            known.miss("role", text[1:], (*path, index))


def names_unknown_role(text: str, roles: Container[str]) -> bool:
    """Whether an item of `accept_from` is a role, and no pattern, that is not declared."""
    return text.startswith("@") and not is_selector(text[1:]) and text[1:] not in roles


def _check_nodes(
    findings: Findings,
    path: KeyPath,
    names: Iterable[str],
    known: Known,
    method: str | None = None,
) -> None:
    names = list(names)
    _check_twice(findings, path, names)
    for index, name in enumerate(names):
        _check_node(findings, (*path, index), name, known, method)


def _check_node(
    findings: Findings, path: KeyPath, name: str, known: Known, method: str | None
) -> None:
    special = known.special.get(name)
    if name in known.nodes or name == OWN_NODE or (special is not None and special == method):
        return
    if special is not None:
        findings.add(
            "E202",
            path,
            f"{shorten(name)} is no node; it takes {special} alone",
        )
        return
    known.miss("node", name, path)


def _check_twice(findings: Findings, path: KeyPath, names: Iterable[str]) -> None:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            findings.add(
                "E223",
                (*path, index),
                f"{shorten(name)} is listed twice, first at {PLACE}",
                also=(*path, seen[name]),
            )
        seen.setdefault(name, index)


def _add_unknown_method(
    findings: Findings, path: KeyPath, method: str, known: Known, *, times: int, on_key: bool
) -> None:
    nearest = known.suggest("method", method, known.methods)
    findings.add(
        "E204",
        path,
        f"{shorten(method)} is no method{say_more_places(times)}{did_you_mean_quoted(nearest)}",
        hint="" if nearest else f"known: {', '.join(sorted(known.methods))}",
        on_key=on_key,
    )


def _add_unknown(
    findings: Findings,
    code: str,
    path: KeyPath,
    what: str,
    name: str,
    known: Known,
    *,
    times: int,
) -> None:
    section = f"{what}s"
    nearest = known.suggest(what, name, known.nodes if what == "node" else known.roles)
    findings.add(
        code,
        path,
        f"{what} {shorten(name)} is not declared"
        + say_more_places(times)
        + (f" (closest: {shorten(nearest)}, declared at {PLACE})" if nearest else ""),
        hint="" if nearest else f"declare it below `{section}`",
        also=(section, nearest) if nearest else None,
    )


def idle_schedule_fields(entry: Tree) -> list[str]:
    """Names of the fields that only matter to produced messages, as far as `entry` sets them."""
    return [
        setting.keys[0] for setting in _SCHEDULE_ONLY if find_value(entry, setting.keys) is not None
    ]


def resolve_own(name: str, node: NodeName) -> NodeName:
    """The node that `name` means in an entry of `node`."""
    return node if name == OWN_NODE else NodeName(name)
