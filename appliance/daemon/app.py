"""The composition root: what a running daemon is made of, in the order in which it starts; it ends in the reverse one."""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - see below
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from appliance.api.enrolment import EnrolmentDesk
from appliance.api.fleet import FleetView
from appliance.api.health import watch_store
from appliance.api.inbox import keep_orphans
from appliance.api.secret_watch import Follower, SecretWatch
from appliance.api.server import AdminServer
from appliance.api.status import Life
from appliance.api.submission import Submission
from appliance.config.watch import watch_paths
from appliance.core.audit import Trail
from appliance.core.audit_room import Crowd, Sender
from appliance.core.current import Current
from appliance.core.hidden import Hiding
from appliance.core.run_options import RunOptions
from appliance.daemon.clock_watch import ClockWatch
from appliance.daemon.lifetime import Lifetime
from appliance.daemon.operations import build_operations
from appliance.daemon.own_broker import open_broker
from appliance.daemon.reloadables import (
    BrokerPart,
    InputsPart,
    ListenerPart,
    PortsPart,
    UsersPart,
)
from appliance.daemon.signals import Signals
from appliance.daemon.stream_keeper import StreamKeeper
from appliance.daemon.worker_side import open_worker_side
from appliance.garbage import Collector
from appliance.inputs.inputs import Inputs
from appliance.jobs.ledger import JobLedger
from appliance.methods.registry import METHOD_TABLE
from appliance.outbox.job_file import JobFile
from appliance.outbox.store import MessageStore
from appliance.reconcile.activation import Reloadable
from appliance.reconcile.convergence import Convergence
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.history import HISTORY_DIR, History
from appliance.reconcile.kept_files import (
    PIN_FILE,
    SIGNED_COMMIT_FILE,
    KeptFile,
    Pin,
    PinKeeper,
    SignedCommits,
)
from appliance.reconcile.reconciler import Reconciler
from appliance.reconcile.reload_result import ReloadResult
from appliance.reconcile.source import FileConfigSource
from appliance.reconcile.start import Start
from appliance.reconcile.trial import TRIAL_FILE, KeptTrial
from appliance.reconcile.trigger import Trigger
from appliance.service_manager import ServiceManager, settings_of_process
from appliance.telemetry.audit_file import AuditFile
from appliance.telemetry.events import EventHub
from appliance.telemetry.logs import hide_in_logs, set_log_level
from appliance.telemetry.report import Telemetry
from appliance.workers import schedule
from appliance.workers.error_reports import ErrorReports
from appliance.workers.given_up import LaneExpiry
from appliance.workers.router import Router

# NB: Python loads `encodings.idna` when the first host is named. By then its file may be gone: an upgrade whose version
# refuses the config leaves the running daemon alone, and takes its files.

EXIT_OK = 0
EXIT_ABANDONED = 75


async def run_until_stopped(
    options: RunOptions, source: FileConfigSource, start: Start, state_dir: Path
) -> int:
    """Build everything, run until a signal, close everything; returns the exit code."""
    first = start.built
    desired = Current(first)
    hiding = Hiding(first.hidden)
    # before all others that follow: they may have something to tell
    desired.follow(lambda new: hiding.add_set(new.hidden))
    hide_in_logs(hiding)
    events = EventHub(hiding=hiding)
    telemetry = Telemetry(events)
    clock_watch = ClockWatch()
    clock_watch.on_jump.append(telemetry.clock_jumped)
    collector = Collector()
    life = Current(Life.BUILDING)
    looks, passes = Trigger(), Trigger()
    signals = Signals(telemetry, looks, desired)
    manager = ServiceManager(
        settings_of_process(),
        summary=lambda: view.service_line(),
        # what is built has limits of its own
        is_alive=lambda: life.value is Life.BUILDING or lifetime.is_alive(),
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(manager.close)
        manager.start()

        # What lies on disk. The store first: its lock keeps a second daemon out, and all else keeps something in it.
        store = await MessageStore.open(state_dir, first.state)
        stack.push_async_callback(store.close)
        desired.follow(lambda new: store.update(new.state))
        jobs = JobLedger(
            await JobFile.open(state_dir, telemetry.jobs_troubled),
            store,
            desired.part(lambda new: new.jobs),
        )
        await jobs.load()
        stack.push_async_callback(jobs.close)
        trail = AuditFile(state_dir, desired.part(lambda new: new.audit), store.now, hiding=hiding)
        await trail.open()
        stack.push_async_callback(trail.close)
        history = History(state_dir / HISTORY_DIR)
        await asyncio.to_thread(history.open)

        # The broker, and what is kept and asked there.
        bus, own_broker = await open_broker(stack, state_dir, desired, telemetry)
        router = Router(
            METHOD_TABLE, instance=store.instance, next_id=store.next_id, wall=store.now
        )
        commits = SignedCommits(state_dir / SIGNED_COMMIT_FILE, telemetry.history_not_written)
        await asyncio.to_thread(commits.load)
        desired.follow(source.trust)
        desired.follow(router.route_by)
        desired.follow(lambda new: set_log_level(options.log_level or new.log.level))
        enrolment = EnrolmentDesk(bus, desired, state_dir / "enrolment.json", telemetry, time.time)
        await enrolment.open()
        streams = StreamKeeper(bus, desired, store, telemetry)
        error_reports = ErrorReports(
            store=store,
            router=router,
            telemetry=telemetry,
            desired=desired,
            wall=time.time,
            hiding=hiding,
        )

        # Workers, none so far, and what brings them about.
        workers = await open_worker_side(
            stack,
            state_dir,
            store=store,
            bus=bus,
            router=router,
            desired=desired,
            telemetry=telemetry,
            hiding=hiding,
            jobs=jobs,
            trail=trail,
            error_reports=error_reports,
            passes=passes,
            hello_report=lambda: fleet.say(),
        )
        clock_watch.on_jump.append(workers.clock_jumped)
        pool, services = workers.pool, workers.services
        reader = SourceReader(source, ", ".join(source.paths))
        reloadables: list[Reloadable] = []
        reconciler = Reconciler(
            reader,
            Convergence(pool, workers.overrides, workers.find_extra, telemetry, passes),
            telemetry,
            history,
            trigger=looks,
            reloadables=reloadables,
            on_accepted=desired.put,
            overrides=workers.overrides,
            pins=PinKeeper(KeptFile(state_dir / PIN_FILE, Pin), telemetry.history_not_written),
            commits=commits,
            trial_file=KeptFile(state_dir / TRIAL_FILE, KeptTrial),
            bus=bus,
            wall=time.time,
        )
        source.compare_with(reconciler.find_newest_commit)
        fleet = FleetView(reconciler, pool, workers.presence)

        # What is asked and handed over from outside.
        submission = Submission(store, router, reconciler, telemetry, hiding, jobs)
        inputs = Inputs(
            submission,
            state_dir,
            store=store.instance,
            now=store.now,
            desired=desired,
            on_trouble=telemetry.input_troubled,
        )
        secrets = SecretWatch(
            desired,
            telemetry,
            followers=(
                Follower("broker", "broker.", bus.renew),
                # NB: the listener is made later than the one that looks at its files
                Follower("listener", "admin.tls.", lambda: admin.renew_tls()),
                Follower("signatures", "signing.", workers.signing.load),
                Follower("signatures", "broker.auth.", workers.signing.load),
            ),
            wall=time.time,
            mono=asyncio.get_running_loop().time,
            hiding=hiding,
        )
        operations = build_operations(
            stack,
            state_dir,
            life=life,
            source=source,
            reader=reader,
            events=events,
            jobs=jobs,
            trail=trail,
            history=history,
            own_broker=own_broker,
            bus=bus,
            enrolment=enrolment,
            secrets=secrets,
            workers=workers,
            reconciler=reconciler,
            submission=submission,
            inputs=inputs,
            fleet=fleet,
        )
        view, ending, standings = operations.view, operations.ending, operations.standings
        clock_watch.on_jump.append(view.clock_jumped)
        signals.report_by(lambda: telemetry.status_dumped(msgspec.to_builtins(view.status())))
        admin = AdminServer(operations, hiding, trail)
        await ending.resume()
        # NB: what moves with a set is not there yet when the reconciler is made, for it asks the reconciler
        reloadables += [PortsPart(admin, inputs), ListenerPart(admin), InputsPart(inputs)]
        if own_broker is not None:
            reloadables.append(UsersPart(own_broker))
        reloadables.append(BrokerPart(bus, own_broker))
        stack.push_async_callback(reader.close)

        # Built: from here on connections, signals and callers find everything in its place.
        lifetime = Lifetime(
            life=life,
            signals=signals,
            manager=manager,
            desired=desired,
            telemetry=telemetry,
            reconciler=reconciler,
            pool=pool,
            inputs=inputs,
            view=view,
        )
        life.put(Life.STARTING)

        def broker_connected() -> None:
            telemetry.broker_connected(bus.server)
            pool.retry_now()
            passes.set("worker")

        if bus.is_connected:
            telemetry.broker_connected(bus.server)
        bus.on_connected(broker_connected)
        store.on_new_lane.append(lambda _: passes.set("lane"))
        await admin.start_unix(state_dir / "appliance.sock")
        stack.push_async_callback(admin.close)
        await admin.move_tcp(first.admin)
        stack.push_async_callback(inputs.close)
        await (await inputs.stage(first.inputs)).commit()

        def follow_verdict(verdict: ReloadResult) -> None:
            if own_broker is not None:
                own_broker.settle()
            note_verdict(trail, verdict)

        def follow_look(verdict: ReloadResult | None) -> None:
            if verdict is None:
                manager.reloading()
                return
            manager.reloaded()
            follow_verdict(verdict)
            fleet.follow_verdict()
            collector.settle(pool.moves, len(pool.handles))

        async def bring_into_force() -> None:
            # signals given while this was starting are one look afterwards
            with collector.starting():
                follow_verdict(await reconciler.start(start))
            collector.settle(pool.moves, len(pool.handles))
            reconciler.on_look = follow_look

        beside: dict[str, Callable[[], Awaitable[None]]] = {
            "error reports": error_reports.run,
            "config watch": lambda: watch_paths(
                map(Path, source.paths), on_hint=reconciler.hint, stop=asyncio.Event()
            ),
            "clock watch": clock_watch.run,
            "secret watch": secrets.run,
            "stall watch": services.stall.run,
            "store watch": lambda: watch_store(store, telemetry),
            "orphans": lambda: keep_orphans(services.inbox, telemetry, error_reports),
            "expiry": LaneExpiry(services, pool.gone, standings.lane_reason).run,
            "jobs": jobs.run,
            "audit trail": trail.run,
            "jobs of now": ending.run,
            "stale schedules": lambda: schedule.forget_stale(desired, store),
            "enrolment": enrolment.run,
            "streams of the fleet": streams.run,
        }
        if own_broker is not None:
            beside["users of the embedded broker"] = own_broker.run
        drains = await lifetime.run(bring_into_force, beside)
    telemetry.drain_finished(drains)
    return EXIT_ABANDONED if any(drain.abandoned for drain in drains) else EXIT_OK


def note_verdict(trail: Trail, verdict: ReloadResult) -> None:
    """A set that came into force or was refused, whoever caused it: files that somebody has put there, too."""
    if verdict.result == "unchanged":
        return
    what = {
        "generation": verdict.generation,
        "digest": verdict.digest,
        "revision": verdict.revision,
        "trigger": verdict.trigger,
    }
    whose = Sender(Crowd.OPERATORS, "config")
    trail.note(by=verdict.by, asked="config", what=what, outcome=verdict.result, sender=whose)
