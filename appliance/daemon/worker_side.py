"""The workers of this daemon: what they are built from, and what all of them are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from appliance.api.fleet import Presence
from appliance.api.submission import AWAITED
from appliance.bus.base import Bus
from appliance.core.audit import Trail
from appliance.core.current import Current
from appliance.core.hidden import Hiding
from appliance.core.names import NodeName, WorkerKey
from appliance.core.overrides import apply_overrides
from appliance.core.secret_refs import secret_variables
from appliance.core.specs import DesiredState, WorkerSpec
from appliance.daemon.assembly import (
    LaneFollower,
    WorkerFactory,
    find_extra_workers,
    is_subscriber_wanted,
    list_workers,
    open_processes,
)
from appliance.daemon.clock_watch import passed_s
from appliance.daemon.console import StdoutConsole
from appliance.delivery.modes import DeliveryModes
from appliance.delivery.signer import Signer, SigningKeys
from appliance.delivery.verifier import Verifier
from appliance.dialect.spoken import make_dialect
from appliance.jobs.ledger import JobLedger
from appliance.methods.computing.pool import ProcessPool
from appliance.methods.copies.receiver import CopyTaker
from appliance.methods.copies.spool import CopySpool
from appliance.methods.files.data_dir import DataFiles
from appliance.methods.programs.running import RunningPrograms
from appliance.methods.registry import METHODS
from appliance.outbox.store import MessageStore
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.trigger import Trigger
from appliance.telemetry.report import Telemetry
from appliance.workers.error_reports import ErrorReports
from appliance.workers.given_up import GivenUp, Revival
from appliance.workers.inbox_owners import InboxOwners
from appliance.workers.peers import PeerBook
from appliance.workers.publisher import Publisher
from appliance.workers.router import Router
from appliance.workers.services import HandlerServices, WorkerServices
from appliance.workers.stall import StallWatch
from appliance.workers.waiters import AbandonedRequests


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSide:
    """Made by `open_worker_side`; ends with its stack, when no worker is left."""

    pool: WorkerPool
    services: WorkerServices
    overrides: OverrideBook
    presence: Presence
    signing: SigningKeys
    spool: CopySpool
    processes: ProcessPool
    revival: Revival
    lane_follower: LaneFollower

    def find_extra(self) -> Mapping[WorkerKey, WorkerSpec]:
        """Publishers that nobody declared and that have something to send; asked at every pass."""
        services = self.services
        desired = services.desired.value
        self.lane_follower.look(desired, self.pool)
        return find_extra_workers(desired, self.pool, services.store, services.router)

    def node_seen(self, node: NodeName, *, is_appliance: bool) -> None:
        """A node of the config said hello."""
        if is_appliance:
            self.services.peers.learn(node)
            self.revival.node_seen(node)
        for publisher in self.pool.each(Publisher):
            publisher.node_seen(node)

    def clock_jumped(self, by_s: float) -> None:
        """The wall clock was set."""
        self.presence.clock_jumped(by_s)
        self.pool.clock_jumped(by_s)
        for publisher in self.pool.each(Publisher):
            publisher.clock_jumped()


async def open_worker_side(
    stack: AsyncExitStack,
    state_dir: Path,
    *,
    store: MessageStore,
    bus: Bus,
    router: Router,
    desired: Current[DesiredState],
    telemetry: Telemetry,
    hiding: Hiding,
    jobs: JobLedger,
    trail: Trail,
    error_reports: ErrorReports,
    passes: Trigger,
    hello_report: Callable[[], str],
) -> WorkerSide:
    """Build it, without a worker so far. `passes` takes reasons to look at them, `hello_report` is what hellos say."""

    def wake() -> None:
        passes.set("worker")

    overrides = OverrideBook(
        state_dir / "overrides.json",
        desired=desired,
        methods=lambda: router.methods,
        wall=time.time,
        on_change=wake,
    )
    await asyncio.to_thread(overrides.load)
    console = StdoutConsole()
    stack.callback(console.close)
    files = DataFiles(state_dir / "data", desired.part(lambda new: new.files))
    await stack.enter_async_context(files)
    taker = CopyTaker(state_dir / "copies" / "parts", now=store.now)
    stack.push_async_callback(taker.close)
    spool = CopySpool(state_dir / "copies" / "spool", taker)
    await spool.open()
    stack.push_async_callback(spool.close)
    presence = Presence(desired, time.time, on_undeclared=telemetry.undeclared_hello)
    hidden_environment = desired.part(secret_variables)
    processes = open_processes(METHODS, desired, hidden_environment, telemetry)
    stack.push_async_callback(processes.close)
    for_handlers = HandlerServices(
        files=files,
        console=console,
        hellos=presence,
        hidden_environment=hidden_environment,
        list_workers=lambda node: list_workers(pool, node),
        switch=overrides,
        files_taker=spool,
        programs=RunningPrograms(hide=hiding.text),
        processes=processes,
    )
    abandoned = AbandonedRequests()
    # nobody who waited for these lives on
    abandoned.left(map(int, store.facts(AWAITED)))
    peers = PeerBook(store)
    stack.push_async_callback(peers.close)
    revival = Revival(store, telemetry, desired)
    stack.push_async_callback(revival.close)
    given_up = GivenUp(error_reports, store, bus)
    stack.push_async_callback(given_up.close)
    lane_follower = LaneFollower(store, router, lambda: passes.set("lane"))
    stack.push_async_callback(lane_follower.close)
    dialect = make_dialect()
    signer = Signer()
    verifier = Verifier(desired, store, wall=time.time, steady=store.now)
    stack.push_async_callback(verifier.close)
    signing = SigningKeys(desired, signer)
    # before any worker starts: what has to be signed cannot go out without
    await signing.load()
    stack.push_async_callback(signing.close)
    services = WorkerServices(
        bus=bus,
        store=store,
        dialect=dialect,
        delivery=DeliveryModes(bus, dialect, store.instance, store, signer, verifier),
        signer=signer,
        verifier=verifier,
        peers=peers,
        inbox=InboxOwners(
            store,
            lambda scope: is_subscriber_wanted(
                apply_overrides(desired.value.workers, overrides.all, desired.value), scope
            ),
        ),
        router=router,
        telemetry=telemetry,
        error_reports=error_reports,
        for_handlers=for_handlers,
        desired=desired,
        wall=time.time,
        abandoned=abandoned,
        hiding=hiding,
        jobs=jobs,
        trail=trail,
        stall=StallWatch(passed_s),
        hello_report=hello_report,
        report_given_up=given_up.report_given_up,
    )
    pool = WorkerPool(
        WorkerFactory(METHODS, services).build,
        telemetry,
        wall=time.time,
        on_ended=wake,
        hiding=hiding,
    )
    side = WorkerSide(
        pool=pool,
        services=services,
        overrides=overrides,
        presence=presence,
        signing=signing,
        spool=spool,
        processes=processes,
        revival=revival,
        lane_follower=lane_follower,
    )
    presence.on_seen.append(side.node_seen)
    return side
