"""The daemon's life: build all parts in order, run until told to stop, stop in the reverse order within one deadline."""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - see below
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from appliance import early
from appliance.api.copy_jobs import CopyJobs
from appliance.api.enrolment import EnrolmentDesk
from appliance.api.fleet import FleetView, Presence
from appliance.api.health import watch_store
from appliance.api.inbox import Inbox, keep_orphans
from appliance.api.job_ending import JobEnding
from appliance.api.jobs import JobsView
from appliance.api.operations import Operations
from appliance.api.programs import ProgramWords
from appliance.api.secret_watch import Follower, SecretWatch
from appliance.api.server import AdminServer
from appliance.api.standings import Standings
from appliance.api.status import Life, StatusView
from appliance.api.streams_kept import StreamsKept
from appliance.api.submission import AWAITED, Submission
from appliance.api.targets import TargetChooser
from appliance.bus.events import BusEvents
from appliance.bus.nats import NatsBus
from appliance.config.revision import SignedCommit
from appliance.config.watch import watch_paths
from appliance.core.audit_room import Crowd, Sender
from appliance.core.current import Current
from appliance.core.durations import format_duration
from appliance.core.hidden import Hiding
from appliance.core.names import NodeName, WorkerKey, WorkerKind
from appliance.core.overrides import apply_overrides
from appliance.core.run_options import RunOptions
from appliance.core.secret_refs import secret_variables
from appliance.core.specs import BrokerSettings, DesiredState, WorkerSpec
from appliance.daemon.assembly import (
    LaneFollower,
    WorkerFactory,
    find_extra_workers,
    list_workers,
    open_processes,
)
from appliance.daemon.clock_watch import ClockWatch, passed_s
from appliance.daemon.console import StdoutConsole
from appliance.daemon.own_broker import OwnBroker
from appliance.daemon.reloadables import (
    BrokerPart,
    InputsPart,
    ListenerPart,
    PortsPart,
    UsersPart,
)
from appliance.daemon.stream_keeper import StreamKeeper
from appliance.delivery.modes import DeliveryModes
from appliance.delivery.signer import Signer, SigningKeys
from appliance.delivery.verifier import Verifier
from appliance.dialect.spoken import make_dialect
from appliance.errors import StoreError
from appliance.garbage import Collector
from appliance.inputs.inputs import Inputs
from appliance.jobs.ledger import JobLedger
from appliance.methods.copies.receiver import CopyTaker
from appliance.methods.copies.spool import CopySpool
from appliance.methods.files.data_dir import DataFiles
from appliance.methods.programs.running import RunningPrograms
from appliance.methods.registry import METHOD_TABLE, METHODS
from appliance.outbox.job_file import JobFile
from appliance.outbox.store import MessageStore
from appliance.reconcile.activation import Reloadable
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.history import History
from appliance.reconcile.kept_files import (
    PIN_FILE,
    SIGNED_COMMIT_FILE,
    KeptFile,
    Pin,
    PinKeeper,
    SignedCommits,
)
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.pool import WorkerPool
from appliance.reconcile.reconciler import Reconciler
from appliance.reconcile.reload_result import ReloadResult
from appliance.reconcile.source import FileConfigSource
from appliance.reconcile.start import Start
from appliance.reconcile.trial import TRIAL_FILE, KeptTrial
from appliance.service_manager import ServiceManager, settings_of_process
from appliance.supervision import keep_running
from appliance.telemetry.audit_file import AuditFile
from appliance.telemetry.events import EventHub
from appliance.telemetry.logs import hide_in_logs, set_log_level
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import DrainReport
from appliance.workers import schedule
from appliance.workers.error_reports import ErrorReports
from appliance.workers.given_up import GivenUp, LaneExpiry, Revival
from appliance.workers.inbox_owners import InboxOwners, scope_of
from appliance.workers.peers import PeerBook
from appliance.workers.publisher import Publisher
from appliance.workers.router import Router
from appliance.workers.services import HandlerServices, WorkerServices
from appliance.workers.stall import StallWatch
from appliance.workers.waiters import AbandonedRequests

# NB: Python loads `encodings.idna` when the first host is named. By then its file may be gone: an upgrade whose version
# refuses the config leaves the running daemon alone, and takes its files.

EXIT_OK = 0
EXIT_ABANDONED = 75

MAX_PASS_S = 300.0
"""What a pass may take beside its drains: reading a large fleet, connecting to a broker that is slow."""


class Daemon:
    """Everything that runs between reading the first config and the exit code."""

    def __init__(
        self, options: RunOptions, source: FileConfigSource, start: Start, state_dir: Path
    ) -> None:
        self._options = options
        self._source = source
        self.reader = SourceReader(source, ", ".join(source.paths))
        self._start = start
        self._state_dir = state_dir
        self.desired = Current(start.built)
        self._hidden_environment = Current(secret_variables(start.built))
        self._job_settings = Current(start.built.jobs)
        self._audit_settings = Current(start.built.audit)
        self._file_settings = Current(start.built.files)
        self.hiding = Hiding(start.built.hidden)
        hide_in_logs(self.hiding)
        self.events = EventHub(hiding=self.hiding)
        self.telemetry = Telemetry(self.events)
        self.clock_watch = ClockWatch(self._on_clock_jump)
        self._collector = Collector()
        self._life = Current(Life.BUILDING)
        self._has_followed = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()
        self._drains: list[DrainReport] = []
        self.manager = ServiceManager(
            settings_of_process(),
            summary=lambda: self.view.service_line(),
            is_alive=self._is_alive,
        )

    # -- start ------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run until a signal; returns the exit code."""
        self._watch_signals()
        async with self._stack:
            self._stack.push_async_callback(self.manager.close)
            self.manager.start()
            await self._build()
            async with asyncio.TaskGroup() as group:
                services = [
                    group.create_task(
                        keep_running(name, run, self.telemetry.service_broke), name=name
                    )
                    for name, run in self._services().items()
                ]
                # signals given while this was starting are one look afterwards
                with self._collector.starting():
                    self._note_verdict(await self.reconciler.start(self._start))
                reconciling = group.create_task(self.reconciler.run(), name="reconciler")
                self._collector.settle(self.pool.moves, len(self.pool.handles))
                self.reconciler.on_look = self._on_look
                self._life.put(Life.RUNNING)
                # not before a set is in force: until then there is no node in whose name to send
                self.inputs.start_taking()
                self.telemetry.daemon_ready(self.view.summary())
                self.manager.ready()
                await self._stop.wait()
                await self._shut_down(reconciling)
                for service in services:
                    service.cancel()
        abandoned = sum(drain.abandoned for drain in self._drains)
        self.telemetry.drain_finished(self._drains)
        return EXIT_ABANDONED if abandoned else EXIT_OK

    def _services(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs beside the reconciler as long as the daemon does."""
        expiry = LaneExpiry(self.worker_services, self.pool.gone, self.standings.lane_reason)
        services: dict[str, Callable[[], Awaitable[None]]] = {
            "error reports": self.error_reports.run,
            "config watch": self._watch,
            "clock watch": self.clock_watch.run,
            "secret watch": self.secrets.run,
            "stall watch": self.worker_services.stall.run,
            "store watch": lambda: watch_store(self.store, self.telemetry),
            "orphans": lambda: keep_orphans(self.inbox_owners, self.telemetry, self.error_reports),
            "expiry": expiry.run,
            "jobs": self.jobs.run,
            "audit trail": self.trail.run,
            "jobs of now": self.ending.run,
            "stale schedules": self._forget_schedules,
            "enrolment": self.enrolment.run,
            "streams of the fleet": self.streams.run,
        }
        if self.broker is not None:
            services["users of the embedded broker"] = self.broker.run
        return services

    def _on_look(self, begins: bool) -> None:
        self.manager.follow_look(begins)
        if not begins:
            self._note_verdict(self.reconciler.last_attempt)
            self.fleet.follow_verdict()
            self._collector.settle(self.pool.moves, len(self.pool.handles))

    def _note_verdict(self, verdict: ReloadResult | None) -> None:
        """A set that came into force or was refused, whoever caused it: files that somebody has put there, too."""
        if self.broker is not None:
            self.broker.settle()
        if verdict is None or verdict.result == "unchanged":
            return
        what = {
            "generation": verdict.generation,
            "digest": verdict.digest,
            "revision": verdict.revision,
            "trigger": verdict.trigger,
        }
        whose = Sender(Crowd.OPERATORS, "config")
        self.trail.note(
            by=verdict.by, asked="config", what=what, outcome=verdict.result, sender=whose
        )

    async def _build(self) -> None:
        desired = self.desired.value
        # first: its lock keeps a second daemon out, and everything else keeps something in it
        self.store = await MessageStore.open(self._state_dir, desired.state)
        self._stack.push_async_callback(self.store.close)
        self.jobs = JobLedger(
            await JobFile.open(self._state_dir, self.telemetry.jobs_troubled),
            self.store,
            self._job_settings,
        )
        await self.jobs.load()
        self._stack.push_async_callback(self.jobs.close)
        self.trail = AuditFile(
            self._state_dir, self._audit_settings, self.store.now, hiding=self.hiding
        )
        await self.trail.open()
        self._stack.push_async_callback(self.trail.close)
        history = History(self._state_dir / "history")
        await asyncio.to_thread(history.open)
        self.broker: OwnBroker | None = None
        if desired.broker.embedded:
            self.broker = OwnBroker(
                self._state_dir / "broker",
                self.desired,
                desired.broker.embedded,
                self.telemetry.broker_error,
            )
            await self.broker.start()
            self._stack.push_async_callback(self.broker.stop)
        self.bus = await NatsBus.open(
            self._reach_broker(desired.broker),
            name=f"appliance {', '.join(desired.run_nodes)[:100]}",
            loopback_node=desired.run_nodes[0] if desired.run_nodes else None,
            events=self._bus_events(),
            # a broker that is away keeps nobody from handing messages over
            require_connection=False,
        )
        self._stack.push_async_callback(self.bus.close)
        self.router = Router(
            METHOD_TABLE,
            instance=self.store.instance,
            next_id=self.store.next_id,
            wall=self.store.now,
        )
        self.commits = SignedCommits(
            self._state_dir / SIGNED_COMMIT_FILE, self.telemetry.history_not_written
        )
        await asyncio.to_thread(self.commits.load)
        self._begin_to_follow()
        self.secrets = SecretWatch(
            self.desired,
            self.telemetry,
            followers=(
                Follower("broker", "broker.", self.bus.renew),
                # NB: the listener is made later than the one that looks at its files
                Follower("listener", "admin.tls.", lambda: self.admin.renew_tls()),
                Follower("signatures", "signing.", lambda: self.signing.load()),
                Follower("signatures", "broker.auth.", lambda: self.signing.load()),
            ),
            wall=time.time,
            mono=asyncio.get_running_loop().time,
            hiding=self.hiding,
        )
        self.enrolment = EnrolmentDesk(
            self.bus, self.desired, self._state_dir / "enrolment.json", self.telemetry, time.time
        )
        await self.enrolment.open()
        self.streams = StreamKeeper(self.bus, self.desired, self.store, self.telemetry)
        self.error_reports = ErrorReports(
            store=self.store,
            router=self.router,
            telemetry=self.telemetry,
            desired=self.desired,
            wall=time.time,
            hiding=self.hiding,
        )
        await self._build_pool()
        reloadables: list[Reloadable] = []
        self.reconciler = Reconciler(
            self.reader,
            self.pool,
            self.telemetry,
            history,
            reloadables=reloadables,
            on_accepted=self.desired.put,
            extra_workers=self._extra_workers,
            overrides=self.overrides,
            pins=PinKeeper(
                KeptFile(self._state_dir / PIN_FILE, Pin), self.telemetry.history_not_written
            ),
            commits=self.commits,
            trial_file=KeptFile(self._state_dir / TRIAL_FILE, KeptTrial),
            bus=self.bus,
            wall=time.time,
        )
        submission = Submission(
            self.store, self.router, self.reconciler, self.telemetry, self.hiding, self.jobs
        )
        self.inputs = Inputs(
            submission,
            self._state_dir,
            store=self.store.instance,
            now=self.store.now,
            desired=self.desired,
            on_trouble=self.telemetry.input_troubled,
        )
        self.admin = AdminServer(
            self._build_operations(submission, history), self.hiding, self.trail
        )
        await self.ending.resume()
        # NB: what moves with a set is not there yet when the reconciler is made, for it asks the reconciler
        reloadables += [
            PortsPart(self.admin, self.inputs),
            ListenerPart(self.admin),
            InputsPart(self.inputs),
            *([] if self.broker is None else [UsersPart(self.broker)]),
            BrokerPart(self.bus, self._reach_broker),
        ]
        self._stack.push_async_callback(self.reader.close)
        self._life.put(Life.STARTING)
        if early.take_hup() or self._options.hup_pending:
            self.reconciler.trigger.set("signal")
        if self.bus.is_connected:
            self.telemetry.broker_connected(self.bus.server)
        self.store.on_new_lane.append(lambda *_: self._wake_pass("lane"))
        await self.admin.start_unix(self._state_dir / "appliance.sock")
        self._stack.push_async_callback(self.admin.close)
        await self.admin.move_tcp(desired.admin)
        self._stack.push_async_callback(self.inputs.close)
        await (await self.inputs.stage(desired.inputs)).commit()

    def _build_operations(self, submission: Submission, history: History) -> Operations:
        self.fleet = FleetView(self.reconciler, self.pool, self.presence)
        self.standings = Standings(self.pool.handles, self.store, self.bus)
        self.view = StatusView(
            life=self._life,
            config_paths=self._source.paths,
            signers=self._source.signed_by,
            own_broker=self.broker,
            store=self.store,
            bus=self.bus,
            pool=self.pool,
            reconciler=self.reconciler,
            overrides=self.overrides,
            fleet=self.fleet,
            inbox_owners=self.inbox_owners,
            standings=self.standings,
            telemetry=self.telemetry,
            events=self.events,
            inputs=self.inputs,
            secrets=self.secrets,
            jobs=self.jobs,
            signing=self.signing,
            verifier=self.verifier,
            enrolment=self.enrolment,
            processes=self.processes,
            trail=self.trail,
        )
        copies = CopyJobs(
            self.spool,
            self.worker_services,
            desired=self.desired,
            choose_sender=submission.sender,
            ledger=self.jobs,
        )
        self._stack.push_async_callback(copies.close)
        view_of_jobs = JobsView(self.jobs, self.store, self.standings, self._state_dir)
        programs = ProgramWords(
            self.router,
            self.store,
            self.jobs.asking,
            self.peers,
            submission,
            self.desired,
        )
        self.ending = JobEnding(
            view_of_jobs,
            self.jobs,
            self.store,
            self.standings,
            self.telemetry,
            programs,
            copies.call_off,
        )
        self._stack.push_async_callback(self.ending.close)
        return Operations(
            view=self.view,
            events=self.events,
            submission=submission,
            targets=TargetChooser(self.reconciler, submission),
            standings=self.standings,
            abandoned=self.abandoned,
            copies=copies,
            jobs=view_of_jobs,
            ending=self.ending,
            programs=programs,
            store=self.store,
            inbox=Inbox(self.store, self.inbox_owners),
            streams=StreamsKept(self.bus, self.store, self.desired),
            enrolment=self.enrolment,
            history=history,
            reader=self.reader,
            reconciler=self.reconciler,
            overrides=self.overrides,
        )

    def _wake_pass(self, reason: str) -> None:
        """Something may want another look at the workers."""
        self.reconciler.convergence.trigger.set(reason)

    async def _build_pool(self) -> None:
        self.overrides = OverrideBook(
            self._state_dir / "overrides.json",
            desired=self.desired,
            methods=lambda: self.router.methods,
            wall=time.time,
            on_change=lambda: self._wake_pass("worker"),
        )
        await asyncio.to_thread(self.overrides.load)
        console = StdoutConsole()
        self._stack.callback(console.close)
        files = DataFiles(self._state_dir / "data", self._file_settings)
        await self._stack.enter_async_context(files)
        taker = CopyTaker(self._state_dir / "copies" / "parts", now=self.store.now)
        self._stack.push_async_callback(taker.close)
        self.spool = CopySpool(self._state_dir / "copies" / "spool", taker)
        await self.spool.open()
        self._stack.push_async_callback(self.spool.close)
        self.presence = Presence(
            self.desired,
            time.time,
            self._node_seen,
            on_undeclared=self.telemetry.undeclared_hello,
        )
        self.processes = open_processes(
            METHODS, self.desired, self._hidden_environment, self.telemetry
        )
        self._stack.push_async_callback(self.processes.close)
        for_handlers = HandlerServices(
            files=files,
            console=console,
            hellos=self.presence,
            hidden_environment=self._hidden_environment,
            list_workers=lambda node: list_workers(self.pool, node),
            switch=self.overrides,
            files_taker=self.spool,
            programs=RunningPrograms(hide=self.hiding.text),
            processes=self.processes,
        )
        self.abandoned = AbandonedRequests()
        # nobody who waited for these lives on
        self.abandoned.left(map(int, self.store.facts(AWAITED)))
        self.peers = PeerBook(self.store)
        self._stack.push_async_callback(self.peers.close)
        self.revival = Revival(self.store, self.telemetry, self.desired)
        self._stack.push_async_callback(self.revival.close)
        given_up = GivenUp(self.error_reports, self.store, self.bus)
        self._stack.push_async_callback(given_up.close)
        self.inbox_owners = InboxOwners(self.store, self._is_subscriber_wanted)
        self.lane_follower = LaneFollower(self.store, self.router, lambda: self._wake_pass("lane"))
        self._stack.push_async_callback(self.lane_follower.close)
        dialect = make_dialect()
        signer = Signer()
        self.verifier = Verifier(self.desired, self.store, wall=time.time, steady=self.store.now)
        self._stack.push_async_callback(self.verifier.close)
        self.signing = SigningKeys(self.desired, signer)
        # before any worker starts: what has to be signed cannot go out without
        await self.signing.load()
        self._stack.push_async_callback(self.signing.close)
        services = WorkerServices(
            bus=self.bus,
            store=self.store,
            dialect=dialect,
            delivery=DeliveryModes(
                self.bus, dialect, self.store.instance, self.store, signer, self.verifier
            ),
            signer=signer,
            verifier=self.verifier,
            peers=self.peers,
            inbox=self.inbox_owners,
            router=self.router,
            telemetry=self.telemetry,
            error_reports=self.error_reports,
            for_handlers=for_handlers,
            desired=self.desired,
            wall=time.time,
            abandoned=self.abandoned,
            hiding=self.hiding,
            jobs=self.jobs,
            trail=self.trail,
            stall=StallWatch(passed_s),
            hello_report=lambda: self.fleet.say(),
            report_given_up=given_up.report_given_up,
        )
        self.worker_services = services
        factory = WorkerFactory(METHODS, services)
        self.pool = WorkerPool(
            factory.build,
            self.telemetry,
            wall=time.time,
            on_ended=lambda: self._wake_pass("worker"),
            hiding=self.hiding,
        )

    def _reach_broker(self, settings: BrokerSettings) -> BrokerSettings:
        return settings if self.broker is None else self.broker.reach(settings)

    def _is_subscriber_wanted(self, scope: str) -> bool:
        wanted = apply_overrides(self.desired.value.workers, self.overrides.all, self.desired.value)
        return any(
            key.kind is WorkerKind.SUBSCRIBER and scope_of(key.subject) == scope for key in wanted
        )

    # -- what the reconciler asks -------------------------------------------------------------------

    def _find_newest_commit(self) -> SignedCommit | None:
        applied = self.reconciler.applied
        if self.commits.newest is not None or applied is None or applied.revision is None:
            return self.commits.newest
        return SignedCommit(applied.revision)  # an earlier version has kept no more

    def _begin_to_follow(self) -> None:
        """Everything that reads the desired state and keeps something of it takes the new one over, in this order."""
        desired, state = self.desired, self.desired.value.state
        self._source.compare_with(self._find_newest_commit)

        def follow_state(new: DesiredState) -> None:
            nonlocal state
            if new.state != state:
                self.store.update(new.state)
                state = new.state

        # first: whatever follows may have something to tell
        desired.follow(lambda new: self.hiding.add_set(new.hidden))
        desired.follow(follow_state)
        desired.follow(lambda new: self._job_settings.put(new.jobs))
        desired.follow(lambda new: self._audit_settings.put(new.audit))
        desired.follow(lambda new: self._file_settings.put(new.files))
        desired.follow(self._source.trust)
        desired.follow(lambda new: self._hidden_environment.put(secret_variables(new)))
        desired.follow(self.router.route_by)
        desired.follow(lambda _: self._has_followed.set())
        desired.follow(lambda new: set_log_level(self._options.log_level or new.log.level))

    def _extra_workers(self) -> Mapping[WorkerKey, WorkerSpec]:
        self.lane_follower.look(self.desired.value, self.pool)
        return find_extra_workers(self.desired.value, self.pool, self.store, self.router)

    def _bus_events(self) -> BusEvents:
        return BusEvents(
            on_connected=self._on_bus_connected,
            on_disconnected=lambda: self.telemetry.broker_disconnected("connection lost"),
            on_error=self.telemetry.broker_error,
            on_repeated_error=self.telemetry.broker_error_again,
        )

    def _on_bus_connected(self) -> None:
        if self._life.value is Life.BUILDING:
            return  # the first connection, told once everything is built
        self.telemetry.broker_connected(self.bus.server)
        self.pool.retry_now()
        self._wake_pass("worker")

    def _node_seen(self, node: NodeName, *, is_appliance: bool) -> None:
        if is_appliance:
            self.peers.learn(node)
            self.revival.node_seen(node)
        for handle in self.pool.handles.values():
            if isinstance(handle.worker, Publisher):
                handle.worker.node_seen(node)

    def _on_clock_jump(self, by_s: float) -> None:
        self.telemetry.clock_jumped(by_s)
        self.view.clock_jumped(by_s)
        self.presence.clock_jumped(by_s)
        self.pool.clock_jumped(by_s)
        for handle in self.pool.handles.values():
            if isinstance(handle.worker, Publisher):
                handle.worker.clock_jumped()

    async def _forget_schedules(self) -> None:
        """What is remembered of schedules that a set has no more goes with it."""
        while True:
            await self._has_followed.wait()
            self._has_followed.clear()
            known = self.store.facts(schedule.FACT_KIND)
            stale = schedule.stale_facts(known, self.desired.value, self.store.is_pending)
            if stale:
                with contextlib.suppress(StoreError):  # they are looked for again with the next set
                    await self.store.remember(schedule.FACT_KIND, dict.fromkeys(stale))

    async def _watch(self) -> None:
        stop = asyncio.Event()
        await watch_paths(
            [Path(path) for path in self._source.paths],
            on_hint=self.reconciler.hint,
            stop=stop,
        )

    def _is_alive(self) -> bool:
        """Whether the reconciler waits, or is at work for no longer than a pass can honestly take, and nothing else
        needs a restart.
        """
        if self._life.value is Life.BUILDING or self._stop.is_set():
            return True  # starting and stopping have limits of their own
        if not self.view.liveness()[0]:
            return False
        limit_s = MAX_PASS_S + 2 * self.desired.value.reload.drain_timeout_s
        return self.reconciler.busy_s() <= limit_s

    # -- signals and the end ------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._on_hup())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(
            signal.SIGUSR1,
            lambda: self.telemetry.status_dumped(msgspec.to_builtins(self.view.status())),
        )

    def _on_hup(self) -> None:
        if self._life.value is Life.BUILDING:
            self._options.hup_pending = True
        else:
            self.reconciler.trigger.set("signal")

    def _on_stop(self, number: int) -> None:
        if self._stop.is_set():
            self._stop_now.set()
            return
        self.telemetry.daemon_stopping(signal.Signals(number).name)
        if number == signal.SIGINT:
            limit = format_duration(self.desired.value.reload.drain_timeout_s)
            print(  # noqa: T201 - for the one at the terminal, whatever the log's format
                f"appliance: stopping: what is in hand may end, up to {limit}; a second Ctrl-C stops at once",
                file=sys.stderr,
                flush=True,
            )
        self._stop.set()

    async def _shut_down(self, reconciling: asyncio.Task[None]) -> None:
        """Intake ends first, then sending; what is left by the deadline stays in the store."""
        self._life.put(Life.STOPPING)
        self.manager.stopping()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.desired.value.reload.drain_timeout_s
        self.reconciler.stop()
        draining = asyncio.create_task(self._drain(deadline, reconciling), name="drain")
        hurry = asyncio.create_task(self._stop_now.wait(), name="second signal")
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not draining.done():
            self.telemetry.daemon_stopping("second signal: not waiting for work in hand")
            draining.cancel()
            await asyncio.wait({draining})
            draining = asyncio.create_task(
                self._stop_workers(loop.time(), reconciling), name="stop at once"
            )
        await asyncio.wait({draining, hurry})
        draining.result()

    async def _drain(self, deadline_mono: float, reconciling: asyncio.Task[None]) -> None:
        await self.inputs.close()
        await self._stop_workers(deadline_mono, reconciling)

    async def _stop_workers(self, deadline_mono: float, reconciling: asyncio.Task[None]) -> None:
        # a pass in hand could start what is being stopped here
        await asyncio.wait(
            {reconciling}, timeout=max(0.1, deadline_mono - asyncio.get_running_loop().time())
        )
        reconciling.cancel()
        self._drains += await self.pool.stop_all(deadline_mono, [WorkerKind.SUBSCRIBER])
        # after the subscribers: what their last messages caused to be sent still goes out
        self._drains += await self.pool.stop_all(deadline_mono, [WorkerKind.PUBLISHER])
