"""Specs: frozen descriptions of what should run, and what is observed to run. Equality is by value.

`RELOAD_CLASSES` says for every field of a spec what a change of it does to the running worker; the JSON Schema's
`x-reload` marks repeat it and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.core.names import MethodName, NodeName, Subject, WorkerKey, WorkerKind
from appliance.core.user_method import NO_METHODS, UserMethod


class Phase(StrEnum):
    """Where a worker stands."""

    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


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


class ReloadClass(StrEnum):
    """What a changed field does to a running worker."""

    LIVE = "live"
    SWAP = "swap"
    RESTART = "restart"


ANY_SENDER = frozenset({NodeName("*")})
"""The value of `accept_from` that lets every sender in (`accept_from: any`)."""

ANY_METHOD = frozenset({MethodName("*")})
"""The value of `allow_reply_methods` that lets answers arrive as every method (`any`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AckSettings:
    """How a publisher waits for acknowledgements.

    `retries` counts resends after the first send; None, the default, bounds a message by `expires_s` alone.
    """

    timeout_s: float = 5.0
    retries: int | None = None
    retry_wait_s: float = 0.0
    expires_s: float = 86_400.0
    """A message that nobody acknowledged for this long becomes a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A message produced again and again. Exactly one of `every_s` and `cron` is set."""

    every_s: float | None = None
    cron: str | None = None
    timezone: str | None = None
    """IANA name of the zone that `cron` is read in; None: the system's."""
    catch_up: CatchUp = CatchUp.NONE
    """What becomes of times of `cron` that passed unseen."""
    data: tuple[str, ...] = ()
    method_args: tuple[str, ...] = ()
    reply_method: str = ""
    reply_method_args: tuple[str, ...] = ()
    method_timeout_s: float = 0.0
    directory: str = ""
    file_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberSpec:
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
    ack_on: AckOn = AckOn.RECEIVED
    concurrency: int = 16
    backlog: int = 16_384
    """Messages that may wait in memory for a handler; beyond it they are dropped unacknowledged and counted."""
    accept_from: frozenset[NodeName] | None = None
    allow_commands: tuple[tuple[str, ...], ...] | None = ()
    runner: str | None = None
    """Socket of the runner that runs its commands; None: the daemon itself does."""
    allow_paths: tuple[str, ...] | None = ()
    allow_urls: tuple[str, ...] | None = ()
    allow_reply_methods: frozenset[MethodName] | None = None
    max_file_bytes: int = 1_073_741_824
    relay_methods: frozenset[MethodName] = frozenset()
    """REQRelay only: the methods that may be passed on, or `ANY_METHOD`."""
    method_timeout_s: float = 10.0
    max_output_bytes: int = 524_288
    dedupe: bool = True
    rerun: bool = False
    definition: UserMethod | None = None
    """What a method of the config does; None for those of the program itself."""

    @property
    def key(self) -> WorkerKey:
        """The worker's identity."""
        return WorkerKey(self.node, self.subject, WorkerKind.SUBSCRIBER)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSpec:
    """One subject that one node publishes on. `entry` is the config's name for it, None when made on demand."""

    node: NodeName
    subject: Subject
    to_node: NodeName
    method: MethodName
    wants_ack: bool
    ack: AckSettings = field(default_factory=AckSettings)
    window: int = 256
    serialization: str = "cbor"
    compression: str = "zstd"
    schedule: Schedule | None = None
    entry: str | None = None

    @property
    def key(self) -> WorkerKey:
        """The worker's identity."""
        return WorkerKey(self.node, self.subject, WorkerKind.PUBLISHER)


WorkerSpec = SubscriberSpec | PublisherSpec

RELOAD_CLASSES: Mapping[type, Mapping[str, ReloadClass]] = {
    SubscriberSpec: {
        "ack_on": ReloadClass.SWAP,
        "concurrency": ReloadClass.LIVE,
        "backlog": ReloadClass.LIVE,
        "accept_from": ReloadClass.LIVE,
        "allow_commands": ReloadClass.LIVE,
        "runner": ReloadClass.LIVE,
        "allow_paths": ReloadClass.LIVE,
        "allow_urls": ReloadClass.LIVE,
        "allow_reply_methods": ReloadClass.LIVE,
        "max_file_bytes": ReloadClass.LIVE,
        "relay_methods": ReloadClass.LIVE,
        "method_timeout_s": ReloadClass.LIVE,
        "max_output_bytes": ReloadClass.LIVE,
        "dedupe": ReloadClass.LIVE,
        "rerun": ReloadClass.LIVE,
        "definition": ReloadClass.SWAP,
    },
    PublisherSpec: {
        "ack": ReloadClass.LIVE,
        "window": ReloadClass.LIVE,
        "serialization": ReloadClass.SWAP,
        "compression": ReloadClass.SWAP,
        "schedule": ReloadClass.SWAP,
        "entry": ReloadClass.LIVE,
    },
}
"""Fields not listed are part of the key or follow from it (`method`, `to_node`, `wants_ack`): no change in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherDefaults:
    """What a publisher made on demand on some node looks like: `defaults`, the node's roles and the node itself."""

    ack_mode: str | None = None
    """`required`, `none`, or None: as the method's table says."""
    ack: AckSettings = field(default_factory=AckSettings)
    window: int = 256
    serialization: str = "cbor"
    compression: str = "zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberDefaults:
    """What a subscription of some node looks like where its entry says nothing."""

    ack_on: AckOn = AckOn.RECEIVED
    concurrency: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRef:
    """Where a secret is read from when it is needed; its value never stands in a spec."""

    kind: str
    """`file`, `env` or `credential` (below $CREDENTIALS_DIRECTORY)."""
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS towards the broker."""

    ca: SecretRef | None = None
    cert: SecretRef | None = None
    key: SecretRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Credentials towards the broker."""

    nkey_seed: SecretRef | None = None
    credentials: SecretRef | None = None
    user: str | None = None
    password: SecretRef | None = None
    token: SecretRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Which broker to use. With `embedded` a private nats-server on loopback; `port` 0 picks a free one."""

    embedded: bool = False
    port: int = 0
    servers: tuple[str, ...] = ()
    tls: TlsSettings | None = None
    auth: AuthSettings | None = None
    connect_timeout_s: float = 2.0
    ping_interval_s: float = 5.0
    reconnect_wait_s: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """The optional TCP listener. `listen` is ``host:port``; `token` unlocks the writing part."""

    listen: str | None = None
    token: SecretRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketInput:
    """The unix socket that takes message lists. A relative path counts from the state directory."""

    path: str = "steward.sock"
    mode: str = "0660"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenInput:
    """A TCP or HTTP listener that takes message lists; `token` may be missing on loopback alone."""

    listen: str
    token: SecretRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderInput:
    """The folder whose files are message lists. `keep_s` bounds how long taken ones stay."""

    path: str
    settle_s: float = 0.5
    poll_interval_s: float = 2.0
    keep_s: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """Steward's inputs; what is None is off. Bounds are of one text, `max_connections` of one listener."""

    from_node: str | None = None
    atomic: bool = False
    max_bytes: int = 4_194_304
    max_messages: int = 1_000
    max_connections: int = 32
    idle_timeout_s: float = 10.0
    timeout_s: float = 60.0
    socket: SocketInput | None = None
    tcp: ListenInput | None = None
    http: ListenInput | None = None
    folder: FolderInput | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadSettings:
    """How reloads behave. `max_cancel_fraction` of the workers may go in one reload without force."""

    max_cancel_fraction: float = 0.5
    watch: bool = True
    poll_interval_s: float = 2.0
    settle_s: float = 0.3
    """A file set is taken when two looks this far apart see the same content."""
    drain_timeout_s: float = 10.0
    overrides: str = "clear"
    """What a reload does to workers started or stopped beside the config: `clear` or `keep`."""
    trial_s: float = 0.0
    """How long a new set is on trial: if workers that it touched do not run at the end, it is taken back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """Durable state: directory and bounds of outbox and inbox.

    A compiled config holds a `dedupe_window_s` that covers its longest `ack.expires`, whether or not it was written
    (`core.promises`); the number here fits the default of `ack.expires`.
    """

    dir: str | None = None
    max_messages: int = 1_000_000
    max_bytes: int = 2 * 1024**3
    dedupe_window_s: float = 90_000.0
    dead_letter_keep_s: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Where the config comes from. `source` is `files` or `git`; `signed_by` are SSH public keys."""

    source: str = "files"
    signed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Bounds on what comes in."""

    max_message_bytes: int = 1_048_576
    max_decompressed_bytes: int = 4_194_304
    max_depth: int = 16
    error_reports_per_minute: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What the daemon says on stderr."""

    level: str = "info"
    format: str = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Everything one accepted config asks of this daemon, compiled."""

    run_nodes: tuple[NodeName, ...]
    """The nodes this daemon runs."""
    declared_nodes: frozenset[NodeName]
    """Every node of the fleet that the config names."""
    workers: Mapping[WorkerKey, WorkerSpec]
    publisher_defaults: Mapping[NodeName, PublisherDefaults]
    subscriber_defaults: Mapping[NodeName, SubscriberDefaults] = field(default_factory=dict)
    declared_acks: Mapping[tuple[NodeName, MethodName], bool] = field(default_factory=dict)
    """For every declared subscription of the fleet, whether it stands on the ACK subject of its method."""
    hellos: Mapping[NodeName, Mapping[NodeName, float | None]] = field(default_factory=dict)
    """For every node that the fleet says hello to: who does, and every how many seconds (None: by cron)."""
    switched_off: Mapping[WorkerKey, SubscriberSpec] = field(default_factory=dict)
    """Subscriptions of the run nodes whose entries say `enabled: false`."""
    methods: Mapping[MethodName, UserMethod] = field(default_factory=lambda: NO_METHODS)
    """Methods that the config declares."""
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    inputs: InputSettings = field(default_factory=InputSettings)
    state: StateSettings = field(default_factory=StateSettings)
    reload: ReloadSettings = field(default_factory=ReloadSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    log: LogSettings = field(default_factory=LogSettings)
    source: SourceSettings = field(default_factory=SourceSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedWorker:
    """One worker as the pool sees it. `retry_at_mono` is set while it backs off."""

    spec: WorkerSpec
    phase: Phase
    retry_at_mono: float | None = None
    restarts: int = 0
    last_error: str | None = None


ObservedState = Mapping[WorkerKey, ObservedWorker]
