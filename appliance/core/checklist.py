"""The checklist of a machine that is part of a fleet, each point a question about values. Pure.

Its points are those of docs/security.md. What is looked at (files, the daemon, the clock) comes in as facts.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from appliance.core.names import NodeName
from appliance.core.specs import (
    ANY_SENDER,
    BrokerSettings,
    DesiredState,
    SignaturePolicy,
    SubscriberSpec,
)
from appliance.core.streams import find_stream

MAX_NAMED = 5
"""So many of a kind are named, the others counted."""
MIN_FREE_BYTES = 1024**3
MIN_FREE_FRACTION = 0.05
SHELLS = frozenset(
    {"sh", "bash", "dash", "zsh", "fish", "ksh", "busybox", "python", "python3", "perl"}
)
"""Programs that run whatever they are told."""


class Grade(StrEnum):
    """What a point came to."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be looked at."""
    WARNING = "warning"
    BAD = "bad"


class Point(NamedTuple):
    """One point of the list: what was looked at, what it came to, and what would mend it."""

    name: str
    grade: Grade
    text: str
    remedy: str = ""


class FileFacts(NamedTuple):
    """A file or directory as `stat` tells it; `error` where it could not be asked."""

    path: str
    mode: int = 0
    user_id: int = 0
    error: str = ""
    group: tuple[str, ...] = ()
    """Users of its group whom nobody trusts with it; as far as is known."""


class DaemonFacts(NamedTuple):
    """The daemon of this machine, as it answers."""

    version: str
    user_id: int | None
    is_healthy: bool
    degraded_by: tuple[str, ...]
    signers: str = ""
    """The file of those whose commits it takes, where it was started with one."""


def check_writers(
    name: str, files: Iterable[FileFacts], trusted: frozenset[int], what: str
) -> Point:
    """Whether nobody but the `trusted` users may change these files, nor put others in their place."""
    found, wrong = list(files), []
    for one in found:
        if one.error:
            continue
        # in a directory such as /tmp everybody may add files, and none take away another's
        is_shared = stat.S_ISDIR(one.mode) and one.mode & stat.S_ISVTX
        if one.mode & stat.S_IWOTH and not is_shared:
            wrong.append(f"{one.path} (everybody)")
        elif one.mode & stat.S_IWGRP and one.group and not is_shared:
            wrong.append(f"{one.path} ({_listed(one.group)} of its group)")
        elif one.user_id not in trusted:
            wrong.append(f"{one.path} (its owner, user {one.user_id})")
    if wrong:
        return Point(
            name,
            Grade.BAD,
            f"others may change {what}: {_listed(wrong)}",
            "chown root and chmod go-w, for each directory above, too",
        )
    return _unseen(name, found) or Point(name, Grade.OK, f"nobody else may change {what}")


def check_readers(name: str, files: Iterable[FileFacts], what: str) -> Point:
    """Whether these files are no reading for everybody."""
    found = list(files)
    wrong = [
        one.path for one in found if not one.error and one.mode & (stat.S_IROTH | stat.S_IWOTH)
    ]
    if wrong:
        return Point(name, Grade.BAD, f"everybody may read {what}: {_listed(wrong)}", "chmod o-rwx")
    by_group = [
        f"{one.path} ({_listed(one.group)})"
        for one in found
        if one.mode & (stat.S_IRGRP | stat.S_IWGRP) and one.group
    ]
    if by_group:
        text = f"users of their group may read {what}: {_listed(by_group)}"
        return Point(name, Grade.WARNING, text, "chmod g-rwx, or a group of its own for the daemon")
    good = f"{what}: {len(found)} looked at, none readable for everybody"
    return _unseen(name, found) or Point(name, Grade.OK, good)


def find_openings(one: FileFacts, *, is_secret: bool) -> str:
    """What everybody may do with a file that nobody else should; "" where nothing."""
    if one.mode & stat.S_IWOTH:
        return "everybody may change it"
    return "everybody may read it" if is_secret and one.mode & stat.S_IROTH else ""


def _unseen(name: str, files: Sequence[FileFacts]) -> Point | None:
    unseen = [f"{one.path}: {one.error}" for one in files if one.error]
    if not unseen:
        return None
    is_forbidden = any("ermission" in text for text in unseen)
    return Point(name, Grade.UNKNOWN, _listed(unseen), "ask as root" if is_forbidden else "")


def check_broker(broker: BrokerSettings) -> Iterator[Point]:
    """How this daemon gets to the broker, and as whom."""
    if broker.embedded:
        yield Point("broker", Grade.OK, "the broker is the daemon's own, on loopback")
        if broker.embedded.secured:
            yield Point("login", Grade.OK, "it lets in whom the config names, to what it declares")
        else:
            yield Point(
                "login",
                Grade.WARNING,
                "every user of this machine may say and hear anything there",
                "broker: {embedded: {secured: true}}",
            )
        return
    clear = [
        address
        for address in broker.servers
        if broker.tls is None
        and not address.startswith("tls://")
        and not _is_loopback(urlsplit(address).hostname or "")
    ]
    if clear:
        yield Point(
            "broker",
            Grade.BAD,
            f"what is said to {_listed(clear)} can be read and changed on the way",
            "tls:// in broker.servers, or a section broker.tls",
        )
    else:
        yield Point(
            "broker", Grade.OK, "the way to the broker is encrypted, or stays on this machine"
        )
    if broker.auth is None:
        yield Point(
            "login",
            Grade.BAD,
            "the daemon logs in as nobody, and so may anybody",
            "broker.auth; appliance keys new NODE",
        )
    else:
        yield Point("login", Grade.OK, "the daemon has a login of its own")


def check_keys(fleet: DesiredState) -> Point:
    """Whether each node of the fleet has a login whose rights the config writes."""
    nodes = fleet.declared_nodes
    if fleet.broker.embedded:
        nodes -= set(fleet.run_nodes)
        if not nodes:
            return Point("keys", Grade.OK, "nobody else is at the daemon's own broker")
    keyless = sorted(
        node for node in nodes if not (node in fleet.traits and fleet.traits[node].public_keys)
    )
    if keyless and fleet.broker.embedded and fleet.broker.embedded.secured:
        return Point(
            "keys",
            Grade.WARNING,
            f"they have no login at the daemon's own broker: {_listed(keyless)}",
            "appliance enrol NODE, or public_keys",
        )
    if keyless:
        return Point(
            "keys",
            Grade.WARNING,
            f"their rights at the broker are not written from the config: {_listed(keyless)}",
            "public_keys for each node; appliance broker-conf",
        )
    shared = _shared_keys(fleet)
    if shared:
        return Point(
            "keys",
            Grade.WARNING,
            f"each may do what the other may: {_listed(shared)}",
            "a key of its own for each node that another daemon runs",
        )
    counted = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes, each"
    return Point("keys", Grade.OK, f"{counted} with a key of its own")


def _shared_keys(fleet: DesiredState) -> list[str]:
    nodes_of: dict[str, list[NodeName]] = {}
    for node, traits in sorted(fleet.traits.items()):
        for key in traits.public_keys:
            nodes_of.setdefault(key, []).append(node)
    return [" and ".join(nodes) for nodes in nodes_of.values() if len(nodes) > 1]


def check_rights(fleet: DesiredState) -> Iterator[Point]:
    """What nodes let others do that is more than a list of it would be."""
    anything: list[str] = []
    shells: list[str] = []
    anybody: list[str] = []
    for spec in fleet.workers.values():
        if not isinstance(spec, SubscriberSpec):
            continue
        name = f"{spec.method} of {spec.node}"
        if None in (spec.allow_commands, spec.allow_paths, spec.allow_urls):
            anything.append(name)
        if any(_is_open_shell(pattern) for pattern in spec.allow_commands or ()):
            shells.append(name)
        if _can_hurt(spec) and (spec.accept_from is None or spec.accept_from == ANY_SENDER):
            anybody.append(name)
    yield _listing(
        "rights",
        anything,
        "anything is allowed",
        "nothing is allowed without a list",
        "a list in place of `any`",
    )
    yield _listing(
        "shells",
        shells,
        "a program that runs whatever it is told is allowed with any argument",
        "no shell is allowed with any argument",
        "a declared method, or the arguments written out",
    )
    yield _listing(
        "askers",
        anybody,
        "every node may ask",
        "whoever may have commands run or files touched is named",
        "accept_from: [central]",
    )


def check_proof(fleet: DesiredState) -> Iterator[Point]:
    """Whether it takes more than a login at the broker to have something done, or to make streams."""
    subscribers = [spec for spec in fleet.workers.values() if isinstance(spec, SubscriberSpec)]
    if fleet.broker.embedded and fleet.declared_nodes <= set(fleet.run_nodes):
        yield Point("signatures", Grade.OK, "all nodes are this daemon's")
    else:
        unproven = [
            f"{spec.method} of {spec.node}"
            for spec in subscribers
            if _can_hurt(spec) and spec.signatures is not SignaturePolicy.REQUIRE
        ]
        yield _listing(
            "signatures",
            unproven,
            "the broker's word alone says who asks",
            "whoever has commands run or files touched signs",
            "signatures: prefer, then require (docs/signatures.md)",
        )
    kept = [spec for spec in subscribers if find_stream(spec) is not None]
    has_logins = any(traits.public_keys for traits in fleet.traits.values())
    if kept and has_logins and fleet.streams.keeper is None and not fleet.broker.embedded:
        yield Point(
            "streams",
            Grade.WARNING,
            "no node is named that makes the streams: whoever may make one reads and sends as everybody",
            "streams: {keeper: NODE}; appliance broker-conf",
        )


def _can_hurt(spec: SubscriberSpec) -> bool:
    return spec.allow_commands != () or spec.allow_paths != () or spec.definition is not None


def _is_open_shell(pattern: tuple[str, ...]) -> bool:
    return pattern[0].rpartition("/")[2] in SHELLS and pattern[-1] in ("*", "**")


def check_listeners(fleet: DesiredState) -> Iterator[Point]:
    """What this daemon listens on beside the broker's connection."""
    clear: list[str] = []
    admin, inputs = fleet.admin, fleet.inputs
    if admin.listen is not None and admin.tls is None and not _is_loopback(_host_of(admin.listen)):
        clear.append(f"admin.listen {admin.listen}")
    for name, section in (("tcp", inputs.tcp), ("http", inputs.http)):
        if section is not None and not _is_loopback(_host_of(section.listen)):
            clear.append(f"inputs.{name}.listen {section.listen}")
    yield _listing(
        "listeners",
        clear,
        "the token goes over the network in clear",
        "nothing that takes a token listens beyond this machine in clear",
        "admin.tls; inputs on loopback, behind a proxy with TLS",
    )


def check_source(fleet: DesiredState, signers: str = "") -> Point:
    """Whether a config that comes from elsewhere is taken because somebody signed it; `signers` is the daemon's own file."""
    if signers:
        return Point("source", Grade.OK, f"only commits signed by keys of {signers} are taken")
    if fleet.source.source != "git":
        return Point("source", Grade.OK, "the config is what lies on this machine")
    if not fleet.source.signed_by:
        return Point(
            "source",
            Grade.WARNING,
            "whoever may push to the repository changes this node",
            "config.signed_by, and run --signed-by",
        )
    return Point("source", Grade.OK, "only signed commits are taken")


def check_daemon(daemon: DaemonFacts | None, error: str, version: str) -> Iterator[Point]:
    """The daemon that runs here: as whom, how it is, and whether it is the program that is installed."""
    if daemon is None:
        yield Point("daemon", Grade.UNKNOWN, error, "start it, or name it by --state-dir")
        return
    if daemon.user_id == 0:
        yield Point(
            "user",
            Grade.WARNING,
            "the daemon runs as root: what a peer is allowed, it does with every right",
            "the package's unit, which runs it as its own user; a runner for what needs root",
        )
    elif daemon.user_id is None:
        yield Point("user", Grade.UNKNOWN, "as whom the daemon runs cannot be seen from here")
    else:
        yield Point("user", Grade.OK, f"the daemon runs as user {daemon.user_id}, not as root")
    if daemon.is_healthy:
        yield Point("daemon", Grade.OK, "the daemon is well")
    else:
        yield Point(
            "daemon",
            Grade.BAD,
            "; ".join(daemon.degraded_by[:MAX_NAMED]) or "it is not well",
            "appliance status",
        )
    if daemon.version != version:
        yield Point(
            "version",
            Grade.WARNING,
            f"{daemon.version} runs, and {version} is installed",
            "restart the daemon",
        )
    else:
        yield Point("version", Grade.OK, f"{version} is installed and runs")


def check_clock(is_synchronized: bool | None) -> Point:
    """Whether something keeps the clock right: ages of messages are safe without, times of schedules and logs are not."""
    if is_synchronized is None:
        return Point("clock", Grade.UNKNOWN, "whether the clock is kept right cannot be seen here")
    if not is_synchronized:
        return Point(
            "clock", Grade.WARNING, "nothing keeps the clock right", "chrony or systemd-timesyncd"
        )
    return Point("clock", Grade.OK, "the clock is kept right")


def check_room(free_bytes: int, size_bytes: int, path: str, *, is_read_only: bool = False) -> Point:
    """Whether messages find room on the disk of the state directory."""
    if is_read_only:
        text = f"the file system of {path} is read-only: nothing can be kept there"
        return Point("room", Grade.BAD, text, "dmesg says why; mount -o remount,rw")
    text = f"{free_bytes // 1024**2:,} MiB free for {path}"
    if free_bytes < min(MIN_FREE_BYTES, size_bytes * MIN_FREE_FRACTION):
        return Point("room", Grade.BAD, text, "make room, or lower state.max_bytes")
    return Point("room", Grade.OK, text)


def worst_of(points: Iterable[Point]) -> Grade:
    """The worst grade that there is."""
    order = list(Grade)
    return max((point.grade for point in points), key=order.index, default=Grade.OK)


def count_grades(points: Iterable[Point]) -> Mapping[Grade, int]:
    """How many points came to what."""
    counts = dict.fromkeys(Grade, 0)
    for point in points:
        counts[point.grade] += 1
    return counts


def _listing(name: str, wrong: list[str], bad: str, good: str, remedy: str) -> Point:
    if wrong:
        return Point(name, Grade.WARNING, f"{bad}: {_listed(wrong)}", remedy)
    return Point(name, Grade.OK, good)


def _listed(items: Sequence[str]) -> str:
    more = len(items) - MAX_NAMED
    return ", ".join(items[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _host_of(listen: str) -> str:
    return listen.rpartition(":")[0].strip("[]")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
