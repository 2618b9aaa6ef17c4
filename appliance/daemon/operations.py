"""What is asked and seen from outside, put together from the parts that know it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from appliance.api.config_section import ConfigSection
from appliance.api.config_sets import ConfigSets
from appliance.api.copy_jobs import CopyJobs
from appliance.api.enrolment import EnrolmentDesk
from appliance.api.fleet import FleetView
from appliance.api.inbox import Inbox
from appliance.api.job_ending import JobEnding
from appliance.api.jobs import JobsView
from appliance.api.message_section import MessageSection
from appliance.api.operations import Operations
from appliance.api.outbox import Outbox
from appliance.api.programs import ProgramWords
from appliance.api.secret_watch import SecretWatch
from appliance.api.standings import Standings
from appliance.api.status import BrokerSection, Life, StatusView
from appliance.api.streams_kept import StreamsKept
from appliance.api.submission import Submission
from appliance.api.targets import TargetChooser
from appliance.api.trust_section import TrustSection
from appliance.api.worker_section import WorkerSection
from appliance.bus.nats import NatsBus
from appliance.core.current import Current
from appliance.daemon.own_broker import OwnBroker
from appliance.daemon.worker_side import WorkerSide
from appliance.inputs.inputs import Inputs
from appliance.jobs.ledger import JobLedger
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.history import History
from appliance.reconcile.reconciler import Reconciler
from appliance.reconcile.source import FileConfigSource
from appliance.telemetry.audit_file import AuditFile
from appliance.telemetry.events import EventHub


def build_operations(
    stack: AsyncExitStack,
    state_dir: Path,
    *,
    life: Current[Life],
    source: FileConfigSource,
    reader: SourceReader,
    events: EventHub,
    jobs: JobLedger,
    trail: AuditFile,
    history: History,
    own_broker: OwnBroker | None,
    bus: NatsBus,
    enrolment: EnrolmentDesk,
    secrets: SecretWatch,
    workers: WorkerSide,
    reconciler: Reconciler,
    submission: Submission,
    inputs: Inputs,
    fleet: FleetView,
) -> Operations:
    """Nothing of it runs by itself but what ends jobs: `ending`."""
    services, pool = workers.services, workers.pool
    store, desired = services.store, services.desired
    standings = Standings(pool.handles, store, bus)
    seen_workers = WorkerSection(pool, workers.processes, workers.overrides, reconciler)
    view = StatusView(
        life=life,
        config=ConfigSection(source, reconciler),
        broker=BrokerSection(bus, own_broker),
        workers=seen_workers,
        messages=MessageSection(store, services.inbox, seen_workers, standings, jobs),
        trust=TrustSection(secrets, workers.signing, services.verifier, enrolment, trail),
        fleet=fleet,
        inputs=inputs,
        telemetry=services.telemetry,
    )
    copies = CopyJobs(
        workers.spool, services, desired=desired, choose_sender=submission.sender, ledger=jobs
    )
    stack.push_async_callback(copies.close)
    view_of_jobs = JobsView(jobs, store, standings, state_dir)
    programs = ProgramWords(
        services.router, store, jobs.asking, services.peers, submission, desired
    )
    ending = JobEnding(
        view_of_jobs, jobs, store, standings, services.telemetry, programs, copies.call_off
    )
    stack.push_async_callback(ending.close)
    return Operations(
        view=view,
        sets=ConfigSets(reader, reconciler, workers.overrides, history),
        events=events,
        submission=submission,
        targets=TargetChooser(reconciler, submission),
        standings=standings,
        abandoned=services.abandoned,
        copies=copies,
        jobs=view_of_jobs,
        ending=ending,
        programs=programs,
        outbox=Outbox(store, standings, view_of_jobs),
        inbox=Inbox(store, services.inbox),
        streams=StreamsKept(bus, store, desired),
        enrolment=enrolment,
    )
