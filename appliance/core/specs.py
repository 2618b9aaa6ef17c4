"""Specs: frozen descriptions of what should run, and what is observed to run. Equality is by value.

Fields that the config sets carry all there is to say of the setting as their metadata (`core.settings`). Fields without
are part of a worker's key, follow from it, or are made by the compiler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from appliance.core.hidden import NOTHING_HIDDEN, Hidden
from appliance.core.names import MethodName, NodeName, Subject, WorkerKey, WorkerKind
from appliance.core.public_keys import PUBLIC_KEY_PATTERN
from appliance.core.settings import (
    LABEL,
    METHOD,
    NAME,
    NODE,
    REQUIRED,
    SECRET,
    SENDER,
    TEXT,
    ReloadClass,
    Setting,
    Shape,
    duration,
    entries,
    parts_of,
    percent,
    section,
    setting,
    switch,
    text,
    texts,
    texts_or_any,
    whole,
    word,
)
from appliance.core.user_method import NO_METHODS, UserMethod


class Phase(StrEnum):
    """Where a worker stands."""

    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


DOWN = frozenset({Phase.BACKING_OFF, Phase.FAILED, Phase.STOPPED})
"""Phases in which a worker does not run and should."""


class AckOn(StrEnum):
    """When a subscriber acknowledges: durably taken, or handler finished."""

    RECEIVED = "received"
    DONE = "done"


class CatchUp(StrEnum):
    """What a `cron` schedule does about times that passed while the daemon was down or that the clock jumped over."""

    NONE = "none"
    """Nothing: they are told, and the next time counts."""
    ONCE = "once"
    """One message stands for all of them."""


ANY_SENDER = frozenset({NodeName("*")})
"""The value of `accept_from` that lets every sender in (`accept_from: any`)."""

ANY_METHOD = frozenset({MethodName("*")})
"""The value of `allow_reply_methods` that lets answers arrive as every method (`any`)."""


_DAY_S = 86_400
_YEAR_S = 366 * _DAY_S
_MIB = 1024**2
_SWAP = ReloadClass.SWAP
_RESTART = ReloadClass.RESTART
_SOME_TEXT = {**TEXT, "minLength": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRef:
    """Where a secret is read from when it is needed; its value never stands in a spec."""

    kind: str
    """`file`, `env` or `credential` (below $CREDENTIALS_DIRECTORY)."""
    name: str


def _secret(words: str, reload: ReloadClass = _SWAP) -> SecretRef | None:
    return setting(None, words, shape=SECRET, read=_read_secret, reload=reload)


def _read_secret(value: Mapping[str, str]) -> SecretRef:
    # nothing is left of one whose source was misspelt or is missing; that was told, and the set is refused
    kind, name = next(iter((value or {}).items()), ("file", ""))
    return SecretRef(kind=kind, name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AckSettings:
    """How a publisher waits for acknowledgements.

    `retries` counts resends after the first send; None, the default, bounds a message by `expires_s` alone.
    """

    timeout_s: float = duration(
        5.0,
        "How long a publisher waits for an acknowledgement before it tries again.",
        0.01,
        _DAY_S,
    )
    retries: int | None = whole(
        None,
        "How often a message is sent again after a first try that was not acknowledged. Without it a message is "
        "tried until `expires`: a bound in time holds on any line.",
        0,
        1_000_000,
    )
    retry_wait_s: float = duration(0.0, "The least time between two tries.", 0, _DAY_S)
    expires_s: float = duration(
        86_400.0,
        "A message that nobody acknowledged for this long becomes a dead letter.",
        1,
        _YEAR_S,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A message produced again and again. Exactly one of `every_s` and `cron` is set."""

    every_s: float | None = duration(
        None,
        "Produce a message again and again, this far apart, across restarts too; the first at once. "
        "One message of an entry waits at a time.",
        0.01,
        _YEAR_S,
        reload=_SWAP,
    )
    cron: str | None = text(
        None,
        "Produce messages at the times of this cron expression (five fields, or @hourly, @daily, @weekly, "
        "@monthly, @yearly), read in `timezone`. A time that a change to summer time leaves out comes right after "
        "it; one that a change back repeats comes once, unless the hours begin with `*`.",
        "a cron expression",
        reload=_SWAP,
    )
    timezone: str | None = text(
        None,
        "The time zone that `cron` is read in; the system's when missing.",
        "the name of a time zone, such as Europe/Berlin or UTC",
        shape={"pattern": "^[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*$", "maxLength": 64},
        reload=_SWAP,
    )
    catch_up: CatchUp = word(
        CatchUp.NONE,
        "What becomes of times of `cron` that passed while the daemon was down, or that the clock jumped over: "
        "nothing, or one message for all of them.",
        tuple(CatchUp),
        read=CatchUp,
        reload=_SWAP,
    )
    data: tuple[str, ...] = texts(
        (),
        "The payload of produced messages; `${node}` is the own node.",
        fills_node=True,
        reload=_SWAP,
    )
    method_args: tuple[str, ...] = texts(
        (), "Arguments of the method; `${node}` is the own node.", fills_node=True, reload=_SWAP
    )
    reply_method: str = setting(
        "",
        "The method that carries the reply; REQToFileAppend unless set.",
        shape=METHOD,
        reload=_SWAP,
    )
    reply_method_args: tuple[str, ...] = texts(
        (),
        "Arguments of the reply's method; `${node}` is the own node.",
        fills_node=True,
        reload=_SWAP,
    )
    directory: str = text(
        "",
        "Directory that file methods use, here and for the reply; `${node}` is the own node.",
        fills_node=True,
        reload=_SWAP,
    )
    file_name: str = text(
        "",
        "File name that file methods use, here and for the reply; `${node}` is the own node.",
        fills_node=True,
        reload=_SWAP,
    )
    method_timeout_s: float = 0.0
    """The `method_timeout` of the layers, where the entry itself sets it."""


class Delivery(StrEnum):
    """How messages are carried: each is the file of that name in `delivery/`."""

    CORE = "core"
    JETSTREAM = "jetstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSettings:
    """Where in a cluster of brokers a stream lies."""

    cluster: str = text(
        "",
        "The cluster that keeps the stream; the broker's choice when missing.",
        "the name of a cluster",
        shape={"maxLength": 200},
    )
    tags: tuple[str, ...] = texts(
        (),
        "Only servers with all of these tags keep it.",
        "a list of tags",
        _SOME_TEXT,
        shape={"maxItems": 100},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """The stream that keeps what goes by `delivery: jetstream`. It has the bounds that stand here; 0 is none."""

    name: str = text(
        "",
        "The stream's name. Without it each node has a stream of its own, `appl-NODE` (with `=` for a dot). The nodes "
        "that name one stream share it.",
        "a stream's name: letters, digits, '_', '-' and '='",
        shape={"pattern": "^[A-Za-z0-9_=-]{1,200}$"},
        reload=_SWAP,
    )
    domain: str = text(
        "",
        "The domain of JetStream that keeps the stream, where that is not the broker's own: the one on shore, "
        "for a node whose broker is a leaf node on board.",
        "the name of a domain: letters, digits, '_' and '-'",
        shape={"pattern": "^[A-Za-z0-9_-]{1,100}$"},
        reload=_SWAP,
    )
    replicas: int = whole(1, "On how many servers of a cluster the stream is kept.", 1, 5)
    max_age_s: float = duration(
        30 * 86_400.0,
        "How long a message waits in the stream before it is forgotten; 0: for ever.",
        0,
        10 * _YEAR_S,
    )
    max_bytes: int = whole(
        256 * _MIB,
        "Bytes the stream may hold, which the broker sets aside; 0: whatever there is room for. What does not fit waits "
        "with its senders.",
        0,
        2**50,
    )
    discard: str = word(
        "new",
        "What a full stream does: `new` takes no more, and senders wait; `old` forgets its oldest messages, which "
        "nobody is told.",
        ("new", "old"),
        expects="new or old",
    )
    storage: str = word(
        "file",
        "Where the broker keeps it. What is in `memory` is lost when the broker stops.",
        ("file", "memory"),
        expects="file or memory",
        reload=_SWAP,
    )
    placement: PlacementSettings = section(
        PlacementSettings(), "Where in a cluster of brokers the stream lies."
    )

    def is_same_stream(self, other: StreamSettings) -> bool:
        """Whether one stream can become the other: a name, where it lies and what keeps it are for good."""
        return (self.name, self.domain, self.storage) == (other.name, other.domain, other.storage)


class SignaturePolicy(StrEnum):
    """Whether messages and their answers are signed, and whether those that are not count."""

    OFF = "off"
    PREFER = "prefer"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What both sides of a subject have. Where the receiver is declared, what it says holds for both."""

    signatures: SignaturePolicy = word(
        SignaturePolicy.OFF,
        "Whether messages and their acknowledgements are signed, by the key of `signing`. `prefer`: what is signed is "
        "checked, and a node that has a key in `public_keys` and was once heard to sign is heard no more without. "
        "`require`: what is not signed is refused.",
        tuple(SignaturePolicy),
        expects="off, prefer or require",
        read=SignaturePolicy,
    )
    delivery: Delivery = word(
        Delivery.CORE,
        "How messages are carried. `core`: from this disk to that one, while the other side is there. `jetstream`: "
        "a stream of the broker keeps them, so that who sends need not wait for who receives. What is not acknowledged "
        "(`ack.mode: none`) goes by core.",
        tuple(Delivery),
        read=Delivery,
        reload=_SWAP,
    )
    stream: StreamSettings = section(
        StreamSettings(), "The stream, with `delivery: jetstream`. Its subscriber's settings count."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberDefaults(Carried):
    """What a subscription of some node looks like where its entry says nothing.

    These may stand in every layer: `defaults`, a role, a node, the entry itself.
    """

    ack_on: AckOn = word(
        AckOn.RECEIVED,
        "When a subscriber acknowledges: the message is durably received, or its handler is done.",
        tuple(AckOn),
        keys=("ack", "on"),
        read=AckOn,
        reload=_SWAP,
    )
    concurrency: int = whole(16, "Handlers at once in one subscriber.", 1, 4_096)
    backlog: int = whole(
        16_384,
        "Messages that may wait in memory for a handler; more are dropped unacknowledged and counted.",
        1,
        1_000_000,
    )
    method_timeout_s: float = duration(
        10.0,
        "Time a handler has, unless the message asks for another. On a publish entry: the time its messages ask for.",
        0.01,
        _YEAR_S,
    )
    stop_grace_s: float = duration(
        5.0,
        "How long a program that is stopped (its time is over, the daemon stops, the one who waited for a runner has "
        "gone) may tidy up: its group gets SIGTERM first, and SIGKILL after this time. 0s: SIGKILL at once.",
        0,
        600,
    )
    max_output_bytes: int = whole(
        524_288,
        "Where the output of a handler is cut. What goes out while the work goes on (REQCliCommandCont, REQTailFile) "
        "is not.",
        0,
        64 * _MIB,
    )
    max_file_bytes: int = whole(
        1_073_741_824,
        "How large a file REQCopyFileFrom or REQCopyFileTo may carry, in bytes.",
        0,
        2**50,
    )
    pass_environment: tuple[str, ...] = texts(
        (),
        "Variables of the daemon's environment that programs are given beside the usual ones (PATH, HOME, LANG, LC_*, TZ, "
        "TMPDIR, USER, LOGNAME, SHELL, TERM and the like). REQCliCommand, REQCliCommandCont and methods with `exec`; with "
        "a `runner` programs have the environment of that one.",
        "a list of names of variables",
        {
            "type": "string",
            "x-expects": "a variable's name: letters, digits and '_'",
            "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        },
    )
    dedupe: bool = switch(
        True, "Whether a message that was sent again is recognized and not handled again."
    )
    rerun: bool = switch(
        False,
        "Whether a message whose handler was interrupted by a crash is handled again even where the method says it "
        "may do harm.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberSpec(SubscriberDefaults):
    """One subscription of one node.

    `accept_from` is None for "any declared node", `ANY_SENDER`, or the nodes listed. `allow_commands` is None for
    "any command", else argv patterns, ``*`` standing for one argument and a last ``**`` for any rest.
    `allow_paths` and `allow_urls` are patterns in the same manner (`core.allow`). `allow_reply_methods` is None
    for "the methods that command nothing", `ANY_METHOD`, or the methods listed.
    """

    node: NodeName
    subject: Subject
    method: MethodName
    wants_ack: bool
    accept_from: frozenset[NodeName] | None = texts_or_any(
        None,
        "Who may send: a list of nodes, or `any`. Nodes are named, or chosen as for commands: `ship*`, by role `@edge`, by "
        "label `site=oslo`. Without it: every node that the config declares.",
        "a list of nodes",
        SENDER,
        ANY_SENDER,
        frozenset,
    )
    allow_commands: tuple[tuple[str, ...], ...] | None = texts_or_any(
        (),
        "Commands that may run, each as a list of program and arguments; `*` stands for one argument that is no option, "
        "as a part of one (`/srv/app/*`) for a part of one name, a last `**` for any rest, options too. Nothing is "
        "allowed unless it is listed; `any` allows everything. REQCliCommand only.",
        "a list of commands, each a list of texts",
        {
            "type": "array",
            "x-expects": "a list of texts: program and arguments",
            "minItems": 1,
            "items": TEXT,
        },
        None,
        lambda commands: tuple(tuple(map(str, argv)) for argv in commands),
        fills_node=True,
    )
    allow_users: tuple[str, ...] = texts(
        (),
        "Users that a sender may have a command run as (`exec --user`), by name. Nobody but the daemon's own user unless "
        "it is listed; another one takes root's rights, or a `runner`. REQCliCommand and REQCliCommandCont only.",
        "a list of users' names",
        {
            "type": "string",
            "x-expects": "a user's name",
            "pattern": "^[A-Za-z_][A-Za-z0-9_.-]*[$]?$",
        },
    )
    allow_directories: tuple[str, ...] | None = texts_or_any(
        (),
        "Directories that a sender may have a command run in (`exec --cwd`), as absolute paths; patterns as those of "
        "`allow_paths`, links are resolved first. None unless it is listed; `any` allows every one. REQCliCommand and "
        "REQCliCommandCont only.",
        "a list of paths",
        _SOME_TEXT,
        None,
        fills_node=True,
    )
    allow_environment: tuple[str, ...] = texts(
        (),
        "Variables that a sender may give a command (`exec --env NAME=VALUE`), each by its name: some make a program "
        "run others (LD_PRELOAD, PATH). None unless it is listed. REQCliCommand and REQCliCommandCont only.",
        "a list of names of variables",
        {
            "type": "string",
            "x-expects": "a variable's name: letters, digits and '_'",
            "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        },
    )
    runner: str | None = text(
        None,
        "The socket of a runner (`appliance runner`; packaged as /run/appliance-runner.sock), which runs the "
        "commands with its own rights, after `allow_commands` and its own allow list. Without it the daemon runs "
        "them itself. REQCliCommand, REQCliCommandCont and methods with `exec` that have no `environment`.",
        "the absolute path of a socket",
        shape={"pattern": "^/[^\\u0000]{1,106}$"},
    )
    allow_paths: tuple[str, ...] | None = texts_or_any(
        (),
        "Files that may be read, followed or written, as absolute paths; `*` and `?` stand for anything within one "
        "name, a last `**` for everything below. A path counts by where it leads: links are resolved first. Nothing "
        "is allowed unless it is listed; `any` allows everything. REQTailFile, REQCopyFileFrom, REQCopyFileTo and "
        "REQToSocket only.",
        "a list of paths",
        _SOME_TEXT,
        None,
        fills_node=True,
    )
    allow_urls: tuple[str, ...] | None = texts_or_any(
        (),
        "Addresses that may be fetched: scheme, host and port written out, `*` for anything within one part of the "
        "path, a last `**` for everything below with any query; otherwise a query must be in the pattern. Loopback, "
        "link-local (cloud metadata) and private addresses are refused unless the pattern that allows the URL names "
        "the host. `any` allows every public address. REQHttpGet only.",
        "a list of URLs",
        _SOME_TEXT,
        None,
        fills_node=True,
    )
    allow_reply_methods: frozenset[MethodName] | None = texts_or_any(
        None,
        "Methods that a sender may ask its answer to arrive as; `any` allows every method. Without it: those that "
        "command nothing (REQToFile, REQToFileAppend, REQToConsole and the like), since an answer is sent in this "
        "node's name.",
        "a list of methods",
        METHOD,
        ANY_METHOD,
        frozenset,
    )
    relay_methods: frozenset[MethodName] = texts_or_any(
        frozenset(),
        "Methods that may be passed on, or `any`. Nothing is allowed unless it is listed. REQRelay only.",
        "a list of methods",
        METHOD,
        ANY_METHOD,
        frozenset,
    )
    definition: UserMethod | None = None
    """What a method of the config does; None for those of the program itself."""

    @property
    def remembers(self) -> bool:
        """Whether ids of messages are remembered: what is signed may be brought again by whoever has a copy, also where
        nothing is acknowledged.
        """
        return self.wants_ack or self.signatures is not SignaturePolicy.OFF

    @property
    def key(self) -> WorkerKey:
        """The worker's identity."""
        return WorkerKey(self.node, self.subject, WorkerKind.SUBSCRIBER)


class Serialization(StrEnum):
    """How a message becomes bytes: each is the file of that name in `wire/`."""

    CBOR = "cbor"
    GOB = "gob"


class Compression(StrEnum):
    """How bytes become fewer: each but `none` is the file of that name in `wire/`."""

    ZSTD = "zstd"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSettings(Carried):
    """How messages are sent. These may stand in every layer: `defaults`, a role, a node, the entry itself."""

    ack: AckSettings = section(
        AckSettings(),
        "Acknowledgements. `mode` is part of the subject: both sides of a subject must agree on it.",
    )
    serialization: str = word(
        "cbor",
        "How a publisher writes messages. Receivers read every encoding. What holds text that is not UTF-8 goes out "
        "as gob in either case: a Go node reads it in no other.",
        [name.value for name in Serialization],
        expects=" or ".join(Serialization),
        reload=_SWAP,
    )
    compression: str = word(
        "zstd",
        "How a publisher compresses messages. Receivers read every compression.",
        [name.value for name in Compression],
        reload=_SWAP,
    )
    window: int = whole(
        256,
        "Unacknowledged messages a publisher may have in flight; 1 keeps strict order.",
        1,
        65_536,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSpec(PublisherSettings):
    """One subject that one node publishes on. `entry` is the config's name for it, None when made on demand."""

    node: NodeName
    subject: Subject
    to_node: NodeName
    method: MethodName
    wants_ack: bool
    schedule: Schedule | None = None
    entry: str | None = field(default=None, metadata={"reload": ReloadClass.LIVE})

    @classmethod
    def of_settings(
        cls, settings: PublisherSettings, way: Carried, *, wants_ack: bool, **facts: Any
    ) -> PublisherSpec:
        """A publisher with all settings of its sender, carried as the receiver says; `facts` are its other fields.

        No setting is named here but those that are not the sender's to say, so a new one comes along by itself.
        """
        said: dict[str, Any] = {
            part.attr: getattr(settings, part.attr) for part in parts_of(PublisherSettings)
        }
        said["signatures"] = way.signatures
        # what nothing acknowledges is kept by no stream, and so goes from disk to disk
        carried = way if wants_ack else Carried()
        said |= {"delivery": carried.delivery, "stream": carried.stream}
        return cls(wants_ack=wants_ack, **said, **facts)

    @property
    def key(self) -> WorkerKey:
        """The worker's identity."""
        return WorkerKey(self.node, self.subject, WorkerKind.PUBLISHER)


WorkerSpec = SubscriberSpec | PublisherSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherDefaults(PublisherSettings):
    """What a publisher made on demand on some node looks like: `defaults`, the node's roles and the node itself."""

    ack_mode: str | None = None
    """`required`, `none`, or None: as the method's table says."""


ACK_MODE = Setting(
    words="Whether messages are acknowledged. Unless an entry itself says so, methods that are not acknowledged on the wire "
    "(REQHello) stay so.",
    expects="one of required, none",
    shape={"enum": ["required", "none"]},
    keys=("ack", "mode"),
    default="required",
    reload=_SWAP,
)
"""Part of the subject: a change of it is another worker, so it has no field of its own in the specs."""


MAX_LABELS = 32
"""Of one node."""


def _read_labels(value: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(name), str(text)) for name, text in value.items()))


PUBLIC_KEY: Shape = {
    "type": "string",
    "x-expects": "a public NKEY of a user: U and 55 letters and digits, as `appliance keys` prints it",
    "pattern": PUBLIC_KEY_PATTERN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTraits:
    """What a node of the fleet is chosen and known by, beside its name. No worker depends on it."""

    roles: tuple[str, ...] = texts(
        (),
        "Roles of this node; later ones override earlier ones.",
        "a list of role names",
        NAME,
        tells_default=False,
    )
    labels: tuple[tuple[str, str], ...] = setting(
        (),
        "Words of your own about this node, such as `site: oslo`: commands choose nodes by them (`site=oslo`), and the "
        "fleet is shown with them, and `accept_from` may name them. Up to 32.",
        type=("object", "null"),
        expects="a map from label to text",
        shape={"propertyNames": LABEL, "additionalProperties": LABEL, "maxProperties": MAX_LABELS},
        read=_read_labels,
        tells_default=False,
    )
    """By name, in order."""
    public_keys: tuple[str, ...] = texts(
        (),
        "The public NKEYs that this node may log in to the broker by, and that its signatures are checked with "
        "(`signatures`), as `appliance keys` prints them; two while one takes the other's place. `appliance broker-conf` "
        "writes the broker's users from them.",
        "a list of public NKEYs of users",
        PUBLIC_KEY,
        shape={"maxItems": 4},
        tells_default=False,
    )


NO_TRAITS = NodeTraits()


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSettings:
    """What signs, and how exact clocks have to be. Without `key` the one that the daemon logs in by signs, too."""

    key: SecretRef | None = _secret(
        "The NKEY seed that the daemon signs with, for all of its nodes; without it that of `broker.auth` (`nkey_seed` or "
        "`credentials`). A new one is taken without a reload.",
        ReloadClass.LIVE,
    )
    clock_skew_s: float = duration(
        300.0, "By how much the clocks of two nodes may differ.", 1, 6 * 3_600.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS towards the broker."""

    ca: SecretRef | None = _secret(
        "The authority that signed the broker's certificate; the system's when missing."
    )
    cert: SecretRef | None = _secret("Our certificate, with its chain.")
    key: SecretRef | None = _secret("The key of our certificate.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Credentials towards the broker."""

    nkey_seed: SecretRef | None = _secret("An NKEY seed.")
    credentials: SecretRef | None = _secret("A credentials file (JWT and seed).")
    user: str | None = text(None, "User name, with `password`.", "a user name", reload=_SWAP)
    password: SecretRef | None = _secret("The user's password.")
    token: SecretRef | None = _secret("A token.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The broker that starts with the daemon."""

    jetstream: bool = False
    secured: bool = False


def _read_embedded(value: bool | Mapping[str, bool]) -> Embedded | None:
    if isinstance(value, Mapping):
        return Embedded(jetstream=bool(value.get("jetstream")), secured=bool(value.get("secured")))
    return Embedded() if value else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Which broker to use. With `embedded` a private nats-server on loopback; `port` 0 picks a free one."""

    embedded: Embedded | None = setting(
        None,
        "Start a private nats-server on loopback with this daemon; `{jetstream: true}` starts it with JetStream, which "
        "writes every message to the state directory before it says that it has it. With `{secured: true}` it lets in "
        "this daemon and nodes with `public_keys` alone, and each of them to what the config declares.",
        type=("boolean", "object"),
        expects="true, false or {secured: true, jetstream: true}",
        shape={
            "additionalProperties": False,
            "properties": {
                "jetstream": {
                    "description": "Whether it keeps streams.",
                    "type": "boolean",
                    "x-expects": "true or false",
                    "x-reload": "restart",
                },
                "secured": {
                    "description": "Whether it has the users and permissions that `appliance broker-conf` writes. They "
                    "follow the config without a restart.",
                    "type": "boolean",
                    "x-expects": "true or false",
                    "x-reload": "restart",
                },
            },
        },
        read=_read_embedded,
        tells_default=False,
        reload=_RESTART,
    )
    port: int = whole(
        0, "The embedded broker's port; 0 picks a free one.", 0, 65_535, reload=_RESTART
    )
    servers: tuple[str, ...] = texts(
        (),
        "Addresses of the broker, one or more members of one cluster.",
        "a list of addresses such as nats://host:4222",
        {
            "type": "string",
            "x-expects": "an address such as nats://host:4222 or tls://host:4222, without credentials",
            "pattern": r"^(?:nats|tls)://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?$",
        },
        reload=_SWAP,
    )
    tls: TlsSettings | None = section(
        None,
        "TLS towards the broker. It is used when this section is there or an address starts with tls://.",
        spec=TlsSettings,
    )
    auth: AuthSettings | None = section(
        None,
        "How this daemon logs in. One of: nkey_seed, credentials, user and password, token.",
        needs_content=True,
        spec=AuthSettings,
    )
    connect_timeout_s: float = duration(
        2.0, "Time one attempt to connect may take.", 0.05, 600, reload=_SWAP
    )
    ping_interval_s: float = duration(
        5.0, "How often a quiet connection is tested.", 0.1, 3_600, reload=_SWAP
    )
    reconnect_wait_s: float = duration(
        0.25, "Time between attempts to connect, spread by chance.", 0.01, 600, reload=_SWAP
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentSettings:
    """How new nodes ask to be let in; off without `node`."""

    node: str | None = setting(
        None,
        "The node whose daemon keeps the requests of new nodes: `appliance nodes pending` there.",
        shape=NODE,
        reload=_SWAP,
    )
    invitations: tuple[str, ...] = texts(
        (),
        "Public NKEYs, as `appliance keys new` prints them, of invitations: whoever has the seed of one may ask, by "
        "`appliance enrol`, and nothing else. Taken out, it is worth nothing any more.",
        "a list of public NKEYs",
        PUBLIC_KEY,
        shape={"maxItems": 100},
        reload=_SWAP,
    )
    max_pending: int = whole(100, "Requests that may wait; more are told to come again.", 1, 10_000)
    keep_s: float = duration(
        7 * 86_400.0,
        "How long a request waits that is not made again.",
        60,
        _YEAR_S,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsSettings:
    """Who makes the streams of the fleet, of `delivery: jetstream`."""

    keeper: str | None = setting(
        None,
        "The node whose daemon makes all streams of the fleet, and keeps them as the config says. `broker-conf` lets it do "
        "that, and nobody else: whoever may make a stream can have the broker send to every subject. Without it, the "
        "daemon of a secured embedded broker does.",
        shape=NODE,
        reload=_SWAP,
    )


class Scope(StrEnum):
    """What a caller of the API on TCP may do; the unix socket is guarded by the rights of its file."""

    READ = "read"
    """Look: status, plan, history, metrics, events, what waits."""
    SEND = "send"
    """Send messages and files, retry and drop what waits."""
    RELOAD = "reload"
    """Reload and roll back, and take away what no config asks for."""
    CONFIG_VALUES = "config-values"
    """See the values of the config in plans and in the history."""


class ReadingBy(StrEnum):
    """Who may look at a listener without a token or certificate."""

    ANYBODY = "anybody"
    KNOWN = "known"


ALL_SCOPES = frozenset(Scope)
_NAME_OF_CALLER: Shape = {"pattern": "^[A-Za-z0-9_](?:[A-Za-z0-9_.@-]{0,98}[A-Za-z0-9_])?$"}
_NAME_EXPECTED = "a name: letters, digits, '_', '-', and '.' or '@' within"


def _scopes() -> frozenset[Scope]:
    return texts(
        REQUIRED,
        "What is allowed: `read` (look), `send` (messages, copies, the outbox), `reload` (and roll back, prune streams), "
        "`config-values` (values of the config in plans and history).",
        "a list of scopes",
        {"enum": list(Scope), "x-expects": "one of read, send, reload, config-values"},
        shape={"minItems": 1},
        read=lambda found: frozenset(map(Scope, found)),
    )


def _expires_at() -> str | None:
    return text(
        None,
        "When it ends, as 2027-01-31T00:00:00Z; a date alone is its first instant in UTC.",
        "a time such as 2027-01-31T00:00:00Z",
        shape={
            "maxLength": 40,
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}"
            "(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2}))?$",
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminTls:
    """TLS on the listener."""

    cert: SecretRef | None = _secret(
        "The listener's certificate, with its chain.", ReloadClass.LIVE
    )
    key: SecretRef | None = _secret("The key of the certificate.", ReloadClass.LIVE)
    client_ca: SecretRef | None = _secret(
        "The authority whose certificates callers may bring instead of a token; `certificates` names them.",
        ReloadClass.LIVE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminToken:
    """A token with a name, so that the history tells who asked, and one can be taken back alone."""

    name: str = text(
        REQUIRED, "Who brings it, as the history tells.", _NAME_EXPECTED, shape=_NAME_OF_CALLER
    )
    token: SecretRef = setting(REQUIRED, "The token.", shape=SECRET, read=_read_secret)
    scopes: frozenset[Scope] = _scopes()
    expires_at: str | None = _expires_at()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminCertificate:
    """A client certificate with a name. One of `cn` and `san` says which."""

    name: str = text(
        REQUIRED, "Who brings it, as the history tells.", _NAME_EXPECTED, shape=_NAME_OF_CALLER
    )
    cn: str | None = text(
        None,
        "The common name (CN) of its subject.",
        "a common name",
        shape={"minLength": 1, "maxLength": 200},
    )
    san: str | None = text(
        None,
        "One of its alternative names (SAN): a DNS name, an email address, a URI or an IP address.",
        "a name such as anna@example.org",
        shape={"minLength": 1, "maxLength": 300},
    )
    scopes: frozenset[Scope] = _scopes()
    expires_at: str | None = _expires_at()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """The optional TCP listener. `listen` is ``host:port``; what a caller may beyond reading is said by what it brings:
    `token` everything, one of `tokens` or `certificates` its scopes.
    """

    listen: str | None = text(
        None,
        "Address and port to listen on, such as 127.0.0.1:8090. Beyond loopback a token or certificates are needed.",
        "an address and port such as 127.0.0.1:8090",
        reload=_SWAP,
    )
    token: SecretRef | None = _secret("The bearer token that allows everything.")
    tls: AdminTls | None = section(
        None,
        "TLS on the listener. Files that change are taken without a reload, and no connection ends.",
        spec=AdminTls,
        needs_content=True,
    )
    tokens: tuple[AdminToken, ...] = entries(
        AdminToken, "Bearer tokens with a name and scopes of their own.", "a list of tokens"
    )
    certificates: tuple[AdminCertificate, ...] = entries(
        AdminCertificate,
        "Client certificates, signed by `tls.client_ca`, with a name and scopes.",
        "a list of certificates",
    )
    reading: ReadingBy = word(
        ReadingBy.ANYBODY,
        "Who may look: `anybody` who reaches the listener, or who is `known` by a token or certificate with the scope "
        "`read`. The probes /livez and /readyz are for everybody.",
        tuple(ReadingBy),
        read=ReadingBy,
    )
    insecure_http: bool = switch(
        False,
        "That a listener beyond loopback without TLS is meant, as within the network of a pod: `check` does not warn.",
    )
    hosts: tuple[str, ...] = texts(
        (),
        "Names under which the listener is asked, beside its address and this machine's name: in DNS, or those of a "
        "proxy before it. Other names are turned away, and told in the log, unless the request brings the token; "
        "probes and metrics beyond loopback are for every name.",
        "a list of host names",
        {
            "type": "string",
            "x-expects": "a host name such as ship1.example.org, without a port",
            "maxLength": 253,
            "pattern": r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$",
        },
        shape={"maxItems": 100},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketInput:
    """The unix socket that takes message lists. A relative path counts from the state directory."""

    path: str = text(
        "steward.sock",
        "Where the socket stands; relative paths count from the state directory.",
        "a path",
        shape={"minLength": 1},
        reload=_SWAP,
    )
    mode: str = text(
        "0660",
        "Rights of the socket, in octal, in quotes.",
        'rights in octal and in quotes, such as "0660"',
        shape={"pattern": "^0?[0-7]{3}$"},
        reload=_SWAP,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenInput:
    """A TCP or HTTP listener that takes message lists; `token` may be missing on loopback alone."""

    listen: str = text(
        REQUIRED,
        "Address and port to listen on, such as 127.0.0.1:7701; port 0 takes a free one. "
        "Beyond loopback a token is needed.",
        "an address and port such as 127.0.0.1:7701",
        reload=_SWAP,
    )
    token: SecretRef | None = _secret(
        "The token that a connection must begin with.", ReloadClass.LIVE
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpInput(ListenInput):
    """The same for requests."""

    listen: str = text(
        REQUIRED,
        "Address and port to listen on, such as 127.0.0.1:7702; port 0 takes a free one. "
        "Beyond loopback a token is needed.",
        "an address and port such as 127.0.0.1:7702",
        reload=_SWAP,
    )
    token: SecretRef | None = _secret(
        "The bearer token that a request must carry.", ReloadClass.LIVE
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderInput:
    """The folder whose files are message lists. `keep_s` bounds how long taken ones stay."""

    path: str = text(
        REQUIRED,
        "The folder; absolute, or relative to the config file it is named in. It is made if its parent is there.",
        "a path",
        shape={"minLength": 1},
        is_path=True,
        reload=_SWAP,
    )
    settle_s: float = duration(0.5, "A file is taken when it holds still for this long.", 0, 60)
    poll_interval_s: float = duration(
        2.0, "How often the folder is looked at; events make it look at once.", 0.05, 3_600
    )
    keep_s: float = duration(
        7 * 86_400.0, "How long taken files and their answers are kept.", 0, 10 * _YEAR_S
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """Steward's inputs; what is None is off. Bounds are of one text, `max_connections` of one listener."""

    from_node: str | None = setting(
        None,
        "The node that sends what comes in; without it the one that `send` would choose.",
        shape=NODE,
        keys=("from",),
    )
    atomic: bool = switch(False, "Whether one bad message of a list refuses the others too.")
    max_bytes: int = whole(4_194_304, "Bytes of one text.", 1_024, 64 * _MIB)
    max_messages: int = whole(1_000, "Messages of one text, every destination counted.", 1, 10_000)
    max_connections: int = whole(
        32, "Connections, or HTTP requests, that one listener serves at a time.", 1, 4_096
    )
    idle_timeout_s: float = duration(
        10.0, "A connection that is silent for this long is answered and closed.", 0.05, 3_600
    )
    timeout_s: float = duration(60.0, "Time one connection has to hand over its text.", 0.1, 3_600)
    socket: SocketInput | None = section(
        None, "A unix socket; whoever may write to it may send.", spec=SocketInput
    )
    tcp: ListenInput | None = section(
        None,
        "A TCP listener. With a token the first line of a connection is `Authorization: Bearer TOKEN`.",
        spec=ListenInput,
    )
    http: ListenInput | None = section(
        None, "An HTTP listener that takes POST requests at any path.", spec=HttpInput
    )
    folder: FolderInput | None = section(
        None,
        "A folder whose files are taken as they appear, with their answers beside them in `done` and `failed`.",
        spec=FolderInput,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadSettings:
    """How reloads behave. `max_cancel_fraction` of the workers may go in one reload without force."""

    max_cancel_fraction: float = percent(
        0.5,
        "A reload that would stop more than this part of the workers is refused unless forced.",
        keys=("max_cancel",),
    )
    watch: bool = switch(
        True, "Whether file events make the daemon look at once; the poll looks anyway."
    )
    poll_interval_s: float = duration(
        2.0, "How often the content of the files is looked at.", 0.05, _DAY_S
    )
    settle_s: float = duration(0.3, "Files are taken when they hold still for this long.", 0, 60)
    drain_timeout_s: float = duration(
        10.0, "Time a worker that goes has to finish what it holds.", 0, 3_600
    )
    overrides: str = word(
        "clear",
        "What a reload does to workers that REQOpProcessStart and REQOpProcessStop started or stopped beside the "
        "config: `clear` makes them as the config says, `keep` leaves them.",
        ("clear", "keep"),
        expects="clear or keep",
    )
    trial_s: float = duration(
        0.0,
        "How long a new config is on trial. If workers that it started or changed do not run when the time is over, "
        "the daemon goes back to the config before, until the files change again. 0: no trial.",
        0,
        _DAY_S,
    )


class StartFallback(StrEnum):
    """What starts where a reload would refuse what the files hold."""

    LAST_GOOD = "last_good"
    """The last set that was in force; the refusal is told."""
    NONE = "none"
    """Nothing: a start takes what the files hold, and fails where they cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSettings:
    """How the daemon starts."""

    fallback: StartFallback = word(
        StartFallback.LAST_GOOD,
        "What starts where a reload would refuse what the files hold, or they cannot be used: `last_good`, the last set "
        "that was in force, with the refusal told; `none`: a start takes what the files hold, and fails where that is "
        "not possible.",
        tuple(StartFallback),
        read=StartFallback,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """Durable state: directory and bounds of outbox and inbox.

    A compiled config holds a `dedupe_window_s` that covers its longest `ack.expires`, whether or not it was written
    (`config.compiler.cross_checks`); the number here fits the default of `ack.expires`.
    """

    dir: str | None = text(
        None,
        "The state directory; absolute, or relative to the config file it is named in.",
        "a path",
        shape={"minLength": 1},
        is_path=True,
        reload=_RESTART,
    )
    max_messages: int = whole(1_000_000, "Messages the outbox may hold.", 1, 10**9)
    max_bytes: int = whole(2 * 1024**3, "Bytes the outbox may hold.", _MIB, 2**50)
    dedupe_window_s: float = duration(
        90_000.0,
        "How long ids of handled messages are remembered. Unless set: an hour longer than the longest `ack.expires` "
        "of the config, and 25h at least. Shorter than an `ack.expires` is refused: a resend could be handled twice.",
        1,
        _YEAR_S,
    )
    dead_letter_keep_s: float = duration(
        30 * 86_400.0, "How long dead letters are kept.", 1, 10 * _YEAR_S
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What is kept of what the command line asked for (`exec`, `send`, `cp`), and of what came of it."""

    keep_s: float = duration(
        7 * 86_400.0,
        "How long a job is kept: who asked for what, what became of it at each node, and its output.",
        0,
        10 * _YEAR_S,
    )
    max_bytes: int = whole(
        256 * _MIB,
        "Bytes that all jobs together may take; the oldest go first.",
        _MIB,
        2**50,
    )
    max_output_bytes: int = whole(
        4 * _MIB,
        "Bytes of one node's output that are kept with a job. Of more the end is kept.",
        0,
        2**40,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """What becomes of files that messages add to: answers, above all."""

    max_bytes: int = whole(
        0,
        "Bytes of a file; one that would grow beyond is moved aside to `<name>.1` first, what was there to `<name>.2`, "
        "and so on. 0: it grows.",
        0,
        2**50,
    )
    every_s: float = duration(
        0.0,
        "Begin a file anew with the first message after each multiple of this time (24h: after midnight, UTC). 0: never.",
        0,
        366 * 86_400.0,
    )
    keep_files: int = whole(
        8, "Files moved aside that are kept of each name; the oldest goes.", 1, 1_000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """The trail of what operators and peers asked: `audit.jsonl` in the state directory."""

    max_bytes: int = whole(
        8 * _MIB, "Bytes of one file; a full one makes room for a new one.", 4_096, 2**40
    )
    keep_files: int = whole(
        8, "Full files that are kept beside the one in use; the oldest goes.", 1, 1_000
    )
    keep_s: float = duration(
        259_200.0,
        "Entries stay for at least this time, whoever enters how much: who would need more room than his share of the "
        "files leaves him in it has what he repeats summed up. 72h by itself.",
        60,
        366 * 86_400.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Where the config comes from. `source` is `files` or `git`; `signed_by` are SSH public keys."""

    source: str = word(
        "files",
        "`files`: the files as they are. `git`: the files of a work tree (a clone, or a link that git-sync moves); "
        "they must lie in one, and whether they differ from its commit is shown.",
        ("files", "git"),
        expects="files or git",
    )
    signed_by: tuple[str, ...] = texts(
        (),
        "With `source: git`: SSH public keys (`ssh-ed25519 AAAA… comment`). Only commits that one of them signed are "
        "taken, and only as they are committed. The keys of the set in force, or those of `run --signed-by`, decide "
        "about the next one.",
        "a list of public keys",
        {
            "type": "string",
            "x-expects": "a public key, as in `ssh-ed25519 AAAA… comment`",
            "maxLength": 1000,
            "pattern": "^ssh-ed25519 [A-Za-z0-9+/]{68}={0,3}( .*)?$",
        },
        shape={"maxItems": 100},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Bounds on what comes in."""

    max_message_bytes: int = whole(_MIB, "Bytes of one message.", 1_024, 64 * _MIB)
    max_decompressed_bytes: int = whole(
        4 * _MIB, "Bytes of one message after decompression.", 1_024, 1024**3
    )
    max_depth: int = whole(16, "How deep a message may be nested.", 4, 64)
    error_reports_per_minute: int = whole(
        60, "Reports to errorCentral per minute; more are counted and left out.", 0, 100_000
    )
    max_process_bytes: int = whole(
        1024**3,
        "Memory that a process of `workers` may take; a handler that wants more fails. Holds for those that start.",
        64 * _MIB,
        1024**4,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Processes for methods that compute."""

    workers: int = whole(
        1,
        "How many processes of this machine handle messages of methods that compute, one message each at a time. "
        "They are there while such a method is subscribed to; other methods stay in the daemon's own.",
        1,
        64,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What the daemon says on stderr."""

    level: str = word(
        "info", "The least important level that is shown.", ("debug", "info", "warning", "error")
    )
    format: str = word("text", "Lines for people, or JSON.", ("text", "json"))


class KeptStream(NamedTuple):
    """A subject of a node that a stream keeps, and what that stream is to be."""

    subject: Subject
    settings: StreamSettings


class Permissions(NamedTuple):
    """What one login may do at the broker, each sorted. A subscription reads ``<subject> <queue group>`` where it is one
    of a group.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Everything one accepted config asks of this daemon, compiled."""

    run_nodes: tuple[NodeName, ...]
    """The nodes this daemon runs."""
    declared_nodes: frozenset[NodeName]
    """Every node of the fleet that the config names."""
    traits: Mapping[NodeName, NodeTraits] = field(default_factory=dict)
    """Of every declared node, what else commands choose it by."""
    workers: Mapping[WorkerKey, WorkerSpec]
    publisher_defaults: Mapping[NodeName, PublisherDefaults]
    subscriber_defaults: Mapping[NodeName, SubscriberDefaults] = field(default_factory=dict)
    declared_acks: Mapping[tuple[NodeName, MethodName], bool] = field(default_factory=dict)
    """For every declared subscription of the fleet, whether it stands on the ACK subject of its method."""
    declared_ways: Mapping[tuple[NodeName, MethodName], Carried] = field(default_factory=dict)
    """For every declared subscription of the fleet that does not go by core, how it is carried."""
    declared_times: Mapping[tuple[NodeName, MethodName], float] = field(default_factory=dict)
    """For every declared subscription of the fleet that says so, the seconds that its handler has."""
    error_centrals: frozenset[NodeName] = frozenset()
    """The declared nodes that hear error reports; empty where this config does not say who does."""
    hellos: Mapping[NodeName, Mapping[NodeName, float | None]] = field(default_factory=dict)
    """For every node that the fleet says hello to: who does, and every how many seconds (None: by cron)."""
    switched_off: Mapping[WorkerKey, SubscriberSpec] = field(default_factory=dict)
    """Subscriptions of the run nodes whose entries say `enabled: false`."""
    methods: Mapping[MethodName, UserMethod] = field(default_factory=lambda: NO_METHODS)
    """Methods that the config declares."""
    rights: Mapping[NodeName, Permissions] = field(default_factory=dict)
    """What the embedded broker lets each declared node do, where it is secured."""
    kept_streams: tuple[KeptStream, ...] = ()
    """Where this daemon makes the streams of the fleet, all that they keep."""
    hidden: Hidden = field(default=NOTHING_HIDDEN, compare=False, repr=False)
    """What came from the environment: no difference of the config, and shown nowhere."""
    broker: BrokerSettings = section(BrokerSettings(), "The NATS broker.")
    signing: SigningSettings = section(
        SigningSettings(), "The key that messages are signed with; `signatures` says which are."
    )
    admin: AdminSettings = section(
        AdminSettings(),
        "The HTTP listener; the unix socket in the state directory is always there.",
    )
    inputs: InputSettings = section(
        InputSettings(),
        "Steward's inputs: they take its JSON and YAML message lists. Each is off unless its section is there.",
    )
    state: StateSettings = section(StateSettings(), "What is kept on disk.")
    jobs: JobSettings = section(
        JobSettings(), "What is kept of the jobs of the command line: `appliance jobs`."
    )
    files: FileSettings = section(
        FileSettings(),
        "Files below `data` that messages add to: when they begin anew, and how many are kept.",
    )
    reload: ReloadSettings = section(ReloadSettings(), "How changes of the config are taken.")
    start: StartSettings = section(StartSettings(), "How the daemon starts.")
    limits: LimitSettings = section(LimitSettings(), "Bounds on what comes in.")
    processes: ProcessSettings = section(ProcessSettings(), is_flat=True)
    audit: AuditSettings = section(
        AuditSettings(),
        "The trail of what operators and peers asked, each line bound to the one before: `appliance audit`.",
    )
    log: LogSettings = section(LogSettings(), "What the daemon says on stderr.")
    enrolment: EnrolmentSettings = section(
        EnrolmentSettings(), "How new nodes ask to be let in: `appliance enrol`, `appliance nodes`."
    )
    streams: StreamsSettings = section(
        StreamsSettings(), "Who makes the streams of `delivery: jetstream`."
    )
    source: SourceSettings = section(
        SourceSettings(), "Where the config itself comes from.", keys=("config",)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedWorker:
    """One worker as the pool sees it. `retry_at_mono` is set while it backs off."""

    spec: WorkerSpec
    phase: Phase
    retry_at_mono: float | None = None
    restarts: int = 0
    last_error: str | None = None


ObservedState = Mapping[WorkerKey, ObservedWorker]
