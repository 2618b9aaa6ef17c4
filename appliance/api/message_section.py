"""What is to be seen of messages on their way in and out, and of the store they lie in."""

from __future__ import annotations

from appliance.api import model
from appliance.api.health import find_delivery_troubles
from appliance.api.standings import Standings
from appliance.api.worker_section import WorkerSection
from appliance.core.times import rfc3339
from appliance.jobs.ledger import JobLedger
from appliance.outbox.records import StoreHealth
from appliance.outbox.store import MessageStore
from appliance.telemetry.metrics import MetricsFacts
from appliance.workers.inbox_owners import InboxOwners


class MessageSection:
    """Outbox, inbox, jobs, store. Owns nothing."""

    def __init__(
        self,
        store: MessageStore,
        inbox_owners: InboxOwners,
        workers: WorkerSection,
        standings: Standings,
        jobs: JobLedger,
    ) -> None:
        self._store = store
        self._inbox_owners = inbox_owners
        self._workers = workers
        self._standings = standings
        self._jobs = jobs

    def show(self, status: model.Status) -> None:
        """Its part of the status."""
        counts, health, orphaned = self._store.counts(), self.health(), self._orphaned
        status.inbox = model.Inbox(
            unfinished=self._workers.unfinished + orphaned, orphaned=orphaned
        )
        status.store = model.Store(
            state=health.state, text=health.text, since=rfc3339(self._store.wall_of(health.since))
        )
        status.outbox = model.Outbox(
            pending=counts.pending,
            in_flight=self._workers.in_flight,
            dead=counts.dead,
            oldest_seconds=round(self._age_s(counts.oldest_created_at), 3),
        )
        status.waiting = self._standings.waiting()
        status.jobs = model.JobsKept(
            open=self._jobs.open_count, kept=len(self._jobs.jobs), bytes=self._jobs.size_bytes
        )

    def measure(self, facts: MetricsFacts) -> None:
        """Its part of the metrics."""
        counts = self._store.counts()
        facts.outbox_pending = counts.pending
        facts.outbox_in_flight = self._workers.in_flight
        facts.outbox_dead = counts.dead
        facts.outbox_oldest_s = self._age_s(counts.oldest_created_at)
        facts.jobs_open = self._jobs.open_count
        facts.jobs_bytes = self._jobs.size_bytes
        facts.waiting = self._standings.waiting()
        facts.inbox_unfinished = self._workers.unfinished + self._orphaned
        facts.inbox_orphaned = self._orphaned
        facts.store_state = self.health().state

    def health(self) -> StoreHealth:
        """How the store is."""
        return self._store.health()

    def troubles(self) -> list[str]:
        """Why messages do not get on, in words."""
        return find_delivery_troubles(
            store=self.health(),
            orphaned=self._orphaned,
            silent_lanes=self._standings.silent_lanes(),
            worker_troubles=self._workers.find_hindered(),
        )

    @property
    def _orphaned(self) -> int:
        return self._inbox_owners.orphan_count

    def _age_s(self, created_at: float | None) -> float:
        return max(0.0, self._store.now() - created_at) if created_at else 0.0
