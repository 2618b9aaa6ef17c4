"""What crosses the API: the daemon encodes these, the command line decodes them. Their keys are a contract (product §4).

A key that an answer may lack is `UNSET`, which is false; the others have defaults, so that answers of an earlier version
can be read, and what a later one adds is skipped. Ids exceed 2^53, where many readers of JSON round: each has its text
beside it. Times are RFC 3339 with a zone, digests `sha256:` and 64 hex digits.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from appliance.core.problems import Problem

Fields = dict[str, tuple[Any, Any]]
"""What changes: the path of a field, its old and its new value."""


class _Answer(msgspec.Struct, kw_only=True):
    """Keys are optional when they are read, and all written but those that are UNSET."""


# -- who asks ---------------------------------------------------------------------------------


class Access(_Answer):
    """What the one who asks may do, and who it is where the config has a name for them."""

    may_write: bool = False
    token_configured: bool = False
    name: str | UnsetType = UNSET
    by: str | UnsetType = UNSET
    scopes: list[str] | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET


# -- the status -----------------------------------------------------------------------------------


class Attempt(_Answer):
    """The verdict of the last look at the config: applied, unchanged, refused or reverted."""

    at: str | None = None
    result: str = ""
    trigger: str = ""
    by: str = ""
    problems: list[Problem] = []
    duration_seconds: float = 0.0

    @property
    def is_refused(self) -> bool:
        """Whether another set than the one looked at is in force."""
        return self.result in ("refused", "reverted")


class Pinned(_Answer):
    """An older set that stays in force until the files change, by `rollback` or after a `trial`."""

    reason: str = ""
    by: str = ""
    since: str | None = None


class OnTrial(_Answer):
    """The set in force goes when its workers fail; `baseline` is the digest of the one before."""

    baseline: str = ""
    ends_in_seconds: float = 0.0


class Config(_Answer):
    """The set in force."""

    digest: str | None = None
    revision: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    paths: list[str] = []
    applied_at: str | None = None
    last_attempt: Attempt | None = None
    seen_digest: str | None = None
    pinned: Pinned | None = None
    on_trial: OnTrial | None = None
    signers: str | None = None
    """The file of `run --signed-by`, where the daemon was given one."""


class Broker(_Answer):
    """The connection to NATS."""

    connected: bool = False
    server: str | None = None
    embedded: bool = False
    reconnects: int = 0
    error: str | None = None
    """Why there is no connection."""


class KeptByStream(_Answer):
    """What a stream of the broker keeps for a subscription, as it was some seconds ago."""

    stream: str = ""
    waiting: int = 0
    in_hand: int = 0
    redelivered: int = 0
    parked: int = 0
    oldest_at: str | None = None


class Worker(_Answer):
    """One worker; of one that should be there and is not only the first four are known."""

    name: str = ""
    kind: str = ""
    subject: str = ""
    phase: str = ""
    since: str | UnsetType = UNSET
    restarts: int | UnsetType = UNSET
    in_flight: int | UnsetType = UNSET
    handled: int | UnsetType = UNSET
    failed: int | UnsetType = UNSET
    last_error: str | UnsetType | None = UNSET
    # a subscriber's
    refused: int | UnsetType = UNSET
    repeats: int | UnsetType = UNSET
    dropped: int | UnsetType = UNSET
    turned_away: int | UnsetType = UNSET
    kept: KeptByStream | UnsetType = UNSET
    # a publisher's
    sent: int | UnsetType = UNSET
    missed: int | UnsetType = UNSET
    foreign: int | UnsetType = UNSET
    declared: bool | UnsetType = UNSET
    entry: str | UnsetType | None = UNSET
    override: str | UnsetType = UNSET
    """`started` or `stopped`, where somebody did so against the config."""

    @property
    def is_running(self) -> bool:
        """Whether it does its work."""
        return self.phase == "running"


class Node(_Answer):
    """An own node."""

    workers: list[Worker] = []
    last_hello_at: str | None = None


class Override(_Answer):
    """A worker that is not as the config says because somebody `started` or `stopped` it."""

    worker: str = ""
    node: str = ""
    action: str = ""
    by: str = ""
    at: str = ""


class FleetStanding(_Answer):
    """A node as its hellos tell; without the keys from `version` on it says nothing of its config."""

    node: str
    state: str
    last_hello_at: str | None = None
    version: str | UnsetType | None = UNSET
    generation: int | UnsetType = UNSET
    applied: str | UnsetType | None = UNSET
    desired: str | UnsetType = UNSET
    revision: str | UnsetType | None = UNSET
    branch: str | UnsetType | None = UNSET
    dirty: bool | UnsetType | None = UNSET
    problems: int | UnsetType = UNSET
    first_problem: str | UnsetType | None = UNSET
    roles: list[str] | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class Argument(_Answer):
    """An argument of a declared method."""

    name: str = ""
    required: bool | UnsetType = UNSET
    type: str | UnsetType = UNSET
    choices: list[Any] | UnsetType = UNSET
    description: str | UnsetType = UNSET
    pattern: str | UnsetType = UNSET
    minimum: float | int | UnsetType = UNSET
    maximum: float | int | UnsetType = UNSET
    length: tuple[int, int | None] | UnsetType = UNSET
    repeats: bool | UnsetType = UNSET
    most: int | UnsetType = UNSET


class Method(_Answer):
    """A method: `source` is config or builtin; `args` is None where they are known in words only."""

    name: str = ""
    kind: str = ""
    summary: str = ""
    source: str = ""
    replies: bool = False
    usage: str = ""
    args: list[Argument] | None = None
    does: str | UnsetType = UNSET
    timeout_seconds: float | UnsetType | None = UNSET


class Methods(_Answer):
    """Those of the config first."""

    methods: list[Method] = []


class Input(_Answer):
    """One of Steward's inputs that is open."""

    path: str | UnsetType = UNSET
    waiting: int | UnsetType = UNSET
    error: str | UnsetType | None = UNSET
    listen: str | UnsetType | None = UNSET
    connections: int | UnsetType = UNSET
    accepted: int = 0
    refused: int = 0


class Secret(_Answer):
    """A secret or certificate that the config names: where it is read from, what keeps it from being used, its end."""

    kind: str = "file"
    name: str = ""
    usable: bool = True
    error: str | None = None
    expires_at: str | None = None


class Signatures(_Answer):
    """What did not count because of its signature, by the reason, since the start; and by how many seconds clocks of nodes
    that sign are ahead of ours (below 0: behind), where it is worth telling.
    """

    refused: dict[str, int] = {}
    clock_skew_seconds: dict[str, float] = {}


class Inbox(_Answer):
    """Messages taken in and not finished, and those of them that no worker takes."""

    unfinished: int = 0
    orphaned: int = 0


class Store(_Answer):
    """How the store is."""

    state: str = "ok"
    text: str = ""
    since: str | None = None


class Outbox(_Answer):
    """What is to be sent, and dead letters."""

    pending: int = 0
    in_flight: int = 0
    dead: int = 0
    oldest_seconds: float = 0.0


class JobsKept(_Answer):
    """What commands of operators asked: jobs of which something is still to come, all that are kept, their bytes."""

    open: int = 0
    kept: int = 0
    bytes: int = 0


class Asking(_Answer):
    """New nodes that ask to be let in, and what was turned away unread or without room since the start."""

    pending: int = 0
    turned_away: int = 0


class AuditKept(_Answer):
    """The audit trail since the start: entries, what is told by a sum, of that what is not even named, and what was lost.

    `summing` names whose entries are summed up now.
    """

    entered: int = 0
    summed: int = 0
    unnamed: int = 0
    lost: int = 0
    summing: list[str] = []


class HandlerProcess(_Answer):
    """One of the processes that compute. `doing` names the subscription and the message that it works on."""

    number: int = 0
    phase: str = ""
    pid: int | None = None
    restarts: int = 0
    handled: int = 0
    doing: str | None = None
    busy_seconds: float = 0.0
    error: str | None = None


class Status(_Answer):
    """Everything an operator asks first."""

    version: str | None = None
    pid: int | None = None
    started_at: str | None = None
    generation: int = 0
    healthy: bool | UnsetType = UNSET
    degraded_by: list[str] = []
    stopping: bool = False
    config: Config = msgspec.field(default_factory=Config)
    broker: Broker = msgspec.field(default_factory=Broker)
    nodes: dict[str, Node] = {}
    overrides: list[Override] = []
    fleet: list[FleetStanding] = []
    methods: list[Method] = []
    hellos: dict[str, str] = {}
    inputs: dict[str, Input] = {}
    inbox: Inbox = msgspec.field(default_factory=Inbox)
    store: Store = msgspec.field(default_factory=Store)
    outbox: Outbox = msgspec.field(default_factory=Outbox)
    waiting: dict[str, int] = {}
    jobs: JobsKept = msgspec.field(default_factory=JobsKept)
    secrets: dict[str, Secret] = {}
    signatures: Signatures = msgspec.field(default_factory=Signatures)
    enrolment: Asking = msgspec.field(default_factory=Asking)
    audit: AuditKept = msgspec.field(default_factory=AuditKept)
    processes: list[HandlerProcess] = []


# -- config sets ----------------------------------------------------------------------------------


class Action(_Answer):
    """What a plan does with one worker: spawn, update, swap or cancel."""

    action: str = ""
    worker: str = ""
    node: str = ""
    fields: Fields = {}


class Plan(_Answer):
    """What a reload would do; `result` is no change, changes or refused."""

    result: str = ""
    actions: list[Action] = []
    settings: Fields | UnsetType = UNSET
    overrides: list[Override] | UnsetType = UNSET
    problems: list[Problem] = []
    warnings: list[Problem] | UnsetType = UNSET
    summary: dict[str, int] = {}
    digest: str | UnsetType = UNSET


class DrainCounts(_Answer):
    """What became of messages in hand when workers stopped."""

    finished: int = 0
    handed_back: int = 0
    abandoned: int = 0


class Drain(DrainCounts):
    """All together, and by worker where there was anything to tell."""

    workers: dict[str, DrainCounts] = {}


class ReloadResult(_Answer):
    """What became of a look at the config, or of a rollback."""

    result: str = ""
    generation: int | None = None
    digest: str | None = None
    revision: str | None = None
    trigger: str = ""
    by: str = ""
    problems: list[Problem] = []
    actions: list[Action] = []
    summary: dict[str, int] = {}
    failed: dict[str, str] = {}
    duration_seconds: float = 0.0
    drain: Drain = msgspec.field(default_factory=Drain)
    pinned: bool | UnsetType = UNSET
    error: str | UnsetType = UNSET
    """Why there is no result."""


class HistoryRecord(ReloadResult):
    """A set that was applied or refused, as the version that recorded it wrote it; `at` in seconds since the epoch."""

    number: int = 0
    at: float | str | None = None
    previous_digest: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    author: str | None = None
    diff: str = ""


class History(_Answer):
    """The newest first."""

    records: list[HistoryRecord] = []


# -- targets --------------------------------------------------------------------------------------


class FleetNode(_Answer):
    """A node that the config declares, and what else it is chosen by."""

    node: str
    roles: list[str] = []
    labels: dict[str, str] = {}


class Fleet(_Answer):
    """All of them."""

    nodes: list[FleetNode] = []


class NotChosen(_Answer):
    """A node that a pattern matches and that is not asked."""

    node: str
    why: str


class Chosen(_Answer):
    """The nodes that targets mean, each once; `left_out` matched and would not take the method."""

    nodes: list[str] = []
    left_out: list[NotChosen] = []
    notes: list[str] = []
    """What looks like a slip."""


# -- messages -------------------------------------------------------------------------------------


class Submitted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one message to one node. `replies` tells that its method answers by itself."""

    to: str
    accepted: bool = msgspec.field()
    id: int | None = None
    from_node: str | None = msgspec.field(name="from", default=None)
    via: str | None = None
    subject: str | None = None
    """What it goes out on."""
    replies: bool = False
    streams: bool = False
    """The answer comes in pieces; one without an exit status is none that ends it, as a Go node's."""
    error: str | None = None
    key: str | None = None
    """The field of the request that `error` is about, where that is known."""
    code: str | None = None
    """What kind of error: `arguments` where the method's own usage would help."""
    note: str | None = None
    """What looks like a slip although it was accepted."""
    job: str | None = None
    """The job that it is part of."""
    id_text: str | None = None
    """The id for readers whose numbers end at 2^53."""

    def __post_init__(self) -> None:
        if self.id is not None and self.id_text is None:
            msgspec.structs.force_setattr(self, "id_text", str(self.id))


class Messages(_Answer):
    """What became of those of one request, in its order."""

    messages: list[Submitted] = []


class Line(_Answer):
    """Something that happened to a message that is followed.

    `event` is accepted, rejected, missed (an attempt), waits, sent, working, delivered, refused, dead, reply, resumes
    (an answer was cut off and goes on where it was) or events_lost; the last line is `end`, with counts, or `stopping`
    where the daemon stops before. `state` and `why` are
    the words of `core.delivery`.
    """

    event: str = ""
    id: int | UnsetType = UNSET
    to: str | UnsetType = UNSET
    from_node: str | UnsetType | None = msgspec.field(name="from", default=UNSET)
    replies: bool | UnsetType = UNSET
    # of a reply
    method: str | UnsetType | None = UNSET
    data: str | UnsetType | None = UNSET
    is_cut: bool | UnsetType | None = UNSET
    exit_status: str | UnsetType | None = UNSET
    has_more: bool | UnsetType = UNSET
    stream: str | UnsetType = UNSET
    place: str | UnsetType = UNSET
    """Where in a file it ends, in words of the node's own: `-a PLACE` of REQTailFile goes on there."""
    stderr: str | UnsetType = UNSET
    progress: tuple[int, int] | UnsetType = UNSET
    """Bytes done, and of how many."""
    truncated: bool | UnsetType = UNSET
    is_stderr_cut: bool | UnsetType = UNSET
    """`stderr` is the end of what the program wrote there."""
    data_base64: str | UnsetType = UNSET
    """What `data` shows with escapes, where it is not all text."""
    stderr_base64: str | UnsetType = UNSET
    stopped_after_seconds: float | UnsetType = UNSET
    """The time that its program had, and that was over."""
    is_held: bool | UnsetType = UNSET
    """What the program left behind still held its output, and was ended."""
    signal: int | UnsetType = UNSET
    """The number of the signal that ended the program."""
    not_filed: str | UnsetType = UNSET
    """Why the answer could not be filed, where a file method was to do that."""
    # of an attempt
    outcome: str | UnsetType | None = UNSET
    attempt: int | UnsetType | None = UNSET
    next_in_seconds: float | UnsetType | None = UNSET
    seconds: float | UnsetType | None = UNSET
    reason: str | UnsetType | None = UNSET
    state: str | UnsetType = UNSET
    why: str | UnsetType = UNSET
    code: str | UnsetType = UNSET
    via: str | UnsetType = UNSET
    note: str | UnsetType = UNSET
    job: str | UnsetType = UNSET
    count: int | UnsetType = UNSET
    # of the end
    delivered: int | UnsetType = UNSET
    failed: int | UnsetType = UNSET
    waiting: list[str] | UnsetType = UNSET
    unanswered: list[str] | UnsetType = UNSET
    go_nodes: list[str] | UnsetType = UNSET
    """Of these the ones that never said that they are appliances."""
    lost_events: int | UnsetType = UNSET
    id_text: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.id is not UNSET and self.id_text is UNSET:
            self.id_text = str(self.id)


class OutboxRecord(_Answer):
    """A message that waits, or with the keys from `reason` on a dead letter."""

    id: int = 0
    from_node: str = msgspec.field(name="from", default="")
    to: str = ""
    method: str = ""
    subject: str = ""
    accepted_at: str | None = None
    age_seconds: float | UnsetType = UNSET
    expires_at: str | None = None
    attempts: int | None = None
    next_at: str | None = None
    last_error: str | None = None
    bytes: int | None = None
    state: str = ""
    why: str = ""
    reason: str | UnsetType = UNSET
    died_at: str | UnsetType = UNSET
    dead_seconds: float | UnsetType = UNSET
    id_text: str = ""

    def __post_init__(self) -> None:
        self.id_text = self.id_text or str(self.id)


class OutboxRecords(_Answer):
    """Those of a state, pending or dead, the oldest first."""

    state: str = ""
    records: list[OutboxRecord] = []


class StreamKept(_Answer):
    """What a stream of the broker keeps of one subject; `is_wanted` where the config in force asks for it."""

    stream: str = ""
    domain: str = ""
    """Of JetStream; "" is the broker's own."""
    subject: str = ""
    is_wanted: bool = True
    exists: bool = True
    waiting: int = 0
    in_hand: int = 0
    redelivered: int = 0
    oldest_at: str | None = None
    bytes: int = 0
    """Of the whole stream."""


class StreamsKept(_Answer):
    """Those of the own nodes."""

    streams: list[StreamKept] = []


class StreamPruned(_Answer):
    """A subject of a stream that no config asks for, and whether it was taken away with its messages."""

    stream: str = ""
    domain: str = ""
    subject: str = ""
    messages: int = 0
    is_pruned: bool = False


class StreamsPruned(_Answer):
    """What was left over."""

    streams: list[StreamPruned] = []


class EnrolmentRequest(_Answer):
    """A new node that asks to be let in, and what to look at before it is accepted."""

    node: str = ""
    public_key: str = ""
    fingerprint: str = ""
    first_at: str = ""
    last_at: str = ""
    count: int = 0
    warnings: list[str] = []


class Enrolment(_Answer):
    """Who asks; `turned_away` counts requests that were none, came too fast or found no room."""

    requests: list[EnrolmentRequest] = []
    turned_away: int = 0


class InboxRecord(_Answer):
    """A message that was taken in and is not finished: waiting, working or orphaned."""

    id: int = 0
    from_node: str = msgspec.field(name="from", default="")
    node: str = ""
    method: str = ""
    subject: str = ""
    message_id: int = 0
    taken_at: str | None = None
    age_seconds: float | UnsetType = UNSET
    state: str = ""
    why: str = ""
    bytes: int | None = None
    id_text: str = ""
    message_id_text: str = ""

    def __post_init__(self) -> None:
        self.id_text = self.id_text or str(self.id)
        self.message_id_text = self.message_id_text or str(self.message_id)


class InboxRecords(_Answer):
    """The oldest first."""

    records: list[InboxRecord] = []


class Count(_Answer):
    """How many records were changed, and how many stay because a worker has them in hand."""

    count: int = 0
    held: int | UnsetType = UNSET


# -- jobs -----------------------------------------------------------------------------------------


class JobCounts(_Answer):
    """How many of its messages came to what; `silent` are those of which something is still to come."""

    total: int = 0
    done: int = 0
    failed: int = 0
    silent: int = 0


class JobNode(_Answer):
    """What became of a job at one node: `state` and `why` are the words of `core.delivery`, `rejected` for a message
    that was not accepted; `kind` is how it counts.
    """

    to: str = ""
    from_node: str = msgspec.field(name="from", default="")
    via: str | UnsetType = UNSET
    id: int | None = None
    state: str = ""
    why: str = ""
    kind: str = ""
    is_delivered: bool = False
    is_answered: bool = False
    exit_status: int | None = None
    is_status_unknown: bool = False
    signal: int | None = None
    stopped_after_seconds: float | None = None
    is_held: bool = False
    is_truncated: bool = False
    is_cut: bool = False
    is_stderr_cut: bool = False
    output_bytes: int = 0
    """What is kept of its output."""
    forgotten_bytes: int = 0
    """What is not: its beginning."""
    batch: int = 1
    """Which batch of the job it was asked in."""
    file: str | UnsetType = UNSET
    """Of a copy of several files the one that it is about."""
    filed: str | UnsetType = UNSET
    """Where its answer lies, below the state directory, if a file method files it."""
    filed_before: list[str] | UnsetType = UNSET
    """Files that this one was moved aside to, the newest first: an older answer may lie there."""
    not_filed: str | UnsetType = UNSET
    """Why it does not lie there."""
    stopped: str | UnsetType = UNSET
    """What came of cancelling it."""
    id_text: str = ""

    def __post_init__(self) -> None:
        self.id_text = self.id_text or ("" if self.id is None else str(self.id))


class JobFiles(_Answer):
    """Of a copy of several files: how many of them a node has or has sent."""

    to: str = ""
    counts: JobCounts = msgspec.field(default_factory=JobCounts)


class JobBegun(_Answer):
    """A job that messages and copies can be asked into (`into=ID`)."""

    id: str = ""
    takes_content: int = 0
    """Up to how many bytes of a file come as `content` of the request that copies it."""


class Job(_Answer):
    """What one command sent. `state` is open, or over where nothing more is to come."""

    id: str = ""
    at: str | None = None
    age_seconds: float = 0.0
    state: str = ""
    command: str = ""
    by: str = ""
    from_node: str = msgspec.field(name="from", default="")
    method: str = ""
    args: list[str] = []
    data_bytes: int = 0
    bytes: int = 0
    counts: JobCounts = msgspec.field(default_factory=JobCounts)
    batches: int = 1
    """In how many batches it was to be asked; those after one in which too many failed are not."""
    cancelled_by: str | UnsetType = UNSET
    cancelled_at: str | UnsetType = UNSET
    nodes: list[JobNode] | UnsetType = UNSET
    files: list[JobFiles] | UnsetType = UNSET
    """Of a copy of several files, by node; `nodes` then holds an entry a file, of many those that are not done first."""
    left_out: int | UnsetType = UNSET
    """How many entries `nodes` has not."""
    values_hidden: bool | UnsetType = UNSET
    """Arguments are for who brings the token."""


class Jobs(_Answer):
    """The newest first."""

    jobs: list[Job] = []


class JobPiece(_Answer):
    """A piece of what a node said; `data_base64` where it is not all text."""

    number: int = 0
    to: str = ""
    id: int | None = None
    stream: str = ""
    data: str = ""
    data_base64: str | UnsetType = UNSET


class JobOutput(_Answer):
    """Pieces in order; `next` is where to go on, None when that was all there is."""

    pieces: list[JobPiece] = []
    next: int | None = None


class RunningProgram(_Answer):
    """A program that runs on a node: `id` is that of the message that started it, `from_node` who sent that."""

    job: str = ""
    from_node: str = msgspec.field(name="from", default="")
    id: str = ""
    method: str = ""
    program: str = ""
    seconds: float = 0.0
    pid: int | None = None


class ProgramsOfNode(_Answer):
    """What runs on one node, or why that is not known; `runs_programs` is false where the config lets it run none."""

    node: str = ""
    programs: list[RunningProgram] = []
    runs_programs: bool = True
    is_silent: bool = False
    error: str | None = None


class Programs(_Answer):
    """In the order in which they were asked about."""

    nodes: list[ProgramsOfNode] = []


class JobWord(_Answer):
    """What came of an order at one node."""

    to: str = ""
    done: bool = False
    words: str = ""


class JobWords(_Answer):
    """Node by node."""

    job: str = ""
    nodes: list[JobWord] = []


# -- copies ---------------------------------------------------------------------------------------


class CopyBegun(_Answer):
    """A copy that was begun: the own `node`, and the word that the other node is given as the `path`."""

    token: str
    node: str
    path: str = ""
    note: str | None = None
    """What looks like a slip."""
    hint: str | None = None
    """What may be the reason if nothing comes of it."""


class CopyKept(_Answer):
    """What was brought is there."""

    sha256: str


class CopyLine(_Answer):
    """How far a copy is (`progress`), or what came of it (`copied`, `failed`)."""

    event: str = ""
    note: str | UnsetType | None = UNSET
    hint: str | UnsetType | None = UNSET
    """Of `begun`, as in `CopyBegun`."""
    progress: tuple[int, int] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    size: int | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    is_confirmed: bool | UnsetType = UNSET
