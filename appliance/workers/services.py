"""What every worker is built from; made once by the daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from appliance.bus.base import Bus
from appliance.core.audit import NoTrail, Trail
from appliance.core.current import Current
from appliance.core.delivery import DeliveryState
from appliance.core.hidden import Hiding
from appliance.core.names import NodeName, WorkerKey
from appliance.core.outcome import AnswerFacts
from appliance.core.specs import DesiredState
from appliance.delivery.base import DeliveryMode
from appliance.delivery.signer import Signer
from appliance.delivery.verifier import Verifier
from appliance.dialect.base import Dialect
from appliance.errors import StoreError
from appliance.methods.base import Console, Files, FileTaker, HelloSink, WorkerLine, WorkerSwitch
from appliance.methods.computing.pool import ProcessPool
from appliance.methods.programs.running import RunningPrograms
from appliance.outbox.records import OutboxRecord
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry
from appliance.workers.error_reports import ErrorReports
from appliance.workers.inbox_owners import InboxOwners
from appliance.workers.peers import PeerBook
from appliance.workers.router import Router
from appliance.workers.stall import StallWatch
from appliance.workers.waiters import AbandonedRequests, DeliveryWaiters

STORE_RETRY_S = 0.2

T = TypeVar("T")

# What the daemon lends to every handler.


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerServices:
    """Shared by all subscribers of a daemon."""

    files: Files
    console: Console
    hellos: HelloSink
    hidden_environment: Current[frozenset[str]]
    list_workers: Callable[[NodeName], Sequence[WorkerLine]]
    switch: WorkerSwitch
    files_taker: FileTaker | None = None
    programs: RunningPrograms = field(default_factory=RunningPrograms)
    processes: ProcessPool | None = None
    """Those that compute; None where methods that do are called like all others."""


class Jobs(Protocol):
    """Who keeps what became of the messages that an operator's command sent: `jobs.ledger`."""

    @property
    def is_watching(self) -> bool:
        """Whether any message in the outbox belongs to a job; who would tell of many asks first."""
        ...

    def concluded(
        self,
        record_id: int,
        reason: str | None,
        *,
        state: DeliveryState = DeliveryState.TAKEN,
        by_seed: bool = False,
    ) -> None:
        """A message left the outbox: delivered to where `state` says, with `by_seed` to a node that is no appliance, as far
        as it says; or with `reason` as a dead letter.
        """
        ...

    def knows(self, number: int) -> bool:
        """Whether an answer to a message with this number in its body is waited for."""
        ...

    def answered(
        self,
        number: int,
        from_node: str,
        facts: AnswerFacts,
        pieces: Sequence[tuple[str, bytes]],
        source: str | None,
        *,
        asked: str = "",
        relayed_by: str = "",
    ) -> None:
        """An answer to a message of ours, or a piece of one; `source` is what tells it from a resend, `asked` the node that
        it says the message was for, `relayed_by` the Go node that passed it on.
        """
        ...

    def not_filed(
        self, number: int, from_node: str, why: str, *, asked: str = "", relayed_by: str = ""
    ) -> None:
        """The answer that was told of before could not be filed after all."""
        ...

    @property
    def holds_answers(self) -> bool:
        """Whether there are answers that are not on disk yet."""
        ...

    async def written(self) -> None:
        """Until everything that was told so far is on disk, or turned out not to be possible."""
        ...


class _NoJobs(Jobs):
    is_watching = holds_answers = False

    def knows(self, number: int) -> bool:
        return False


def _report_nothing(_record: OutboxRecord, _reason: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """`desired` is the set in force, `wall` gives seconds since the epoch, `mono` seconds that never jump."""

    bus: Bus
    store: MessageStore
    dialect: Dialect
    delivery: DeliveryMode
    verifier: Verifier
    signer: Signer = field(default_factory=Signer)
    """By whose key the nodes of the daemon sign what they say; without one by default."""
    router: Router
    telemetry: Telemetry
    error_reports: ErrorReports
    peers: PeerBook
    inbox: InboxOwners
    for_handlers: HandlerServices
    desired: Current[DesiredState]
    wall: Callable[[], float]
    mono: Callable[[], float] = time.monotonic
    hello_report: Callable[[], str | None] = lambda: None
    """What hellos say of the config in force."""
    report_given_up: Callable[[OutboxRecord, str], None] = _report_nothing
    """Tells errorCentral of a record that became a dead letter, and why."""
    hiding: Hiding = field(default_factory=Hiding)
    """What no text that leaves a worker shows: neither an answer nor what is remembered."""
    stall: StallWatch = field(default_factory=lambda: StallWatch(time.monotonic))
    waiters: DeliveryWaiters = field(default_factory=DeliveryWaiters)
    abandoned: AbandonedRequests = field(default_factory=AbandonedRequests)
    jobs: Jobs = field(default_factory=_NoJobs)
    trail: Trail = field(default_factory=NoTrail)
    """Where what peers ask of this machine is entered."""

    async def until_stored(
        self, attempt: Callable[[], Awaitable[T]], worker: WorkerKey, cannot: str
    ) -> T:
        """What the store answers; while it has trouble that may pass it is asked again, and told what `worker` cannot do.

        Raises:
            StoreError: trouble that stays.
        """
        while True:
            try:
                return await attempt()
            except StoreError as error:
                if not error.retryable:
                    raise
                self.telemetry.worker_troubled(worker, f"{cannot}: {error}")
                await asyncio.sleep(STORE_RETRY_S)
