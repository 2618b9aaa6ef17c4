"""The outbox as operators see it: messages that wait, and dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.api import model
from appliance.api.jobs import JobsView
from appliance.api.standings import Standings
from appliance.core.delivery import Standing, state_of_reason, why_of_reason
from appliance.core.times import rfc3339
from appliance.outbox.records import DeadLetter, OutboxRecord
from appliance.outbox.store import MessageStore


class Outbox:
    """Called on the event loop."""

    def __init__(self, store: MessageStore, standings: Standings, jobs: JobsView) -> None:
        self._store = store
        self._standings = standings
        self._jobs = jobs

    async def list(self, state: str, limit: int) -> list[model.OutboxRecord]:
        """Pending records or dead letters, oldest first."""
        store = self._store
        if state == "dead":
            letters = await store.list_dead(limit)
            now = store.now()
            return [describe_dead(letter, now=now, wall_of=store.wall_of) for letter in letters]
        records = await store.list_pending(limit)
        now, as_shown = store.now(), self._standings.as_shown
        return [
            describe_record(
                record,
                as_shown(record.node, record.subject, record.id),
                now=now,
                wall_of=store.wall_of,
            )
            for record in records
        ]

    async def retry(self, ids: Sequence[int] | None) -> int:
        """Try dead letters (None: all) again, as new attempts; how many."""
        await self._jobs.expect_retry(ids)
        return await self._store.retry_dead(ids)

    async def drop(self, ids: Sequence[int] | None, *, dead_only: bool = True, by: str = "") -> int:
        """Forget dead letters (None: all of them), or with ids also pending records; how many."""
        count = await self._store.drop(ids, dead_only=dead_only)
        self._jobs.note_dropped(ids or (), by)
        return count


def describe_record(
    record: OutboxRecord, standing: Standing, *, now: float, wall_of: Callable[[float], float]
) -> model.OutboxRecord:
    """One record of the outbox and where it stands; `now` and its own times are of the store's clock."""
    expires_at, next_at = record.expires_at, record.next_at
    return model.OutboxRecord(
        id=record.id,
        from_node=record.node,
        to=record.to_node,
        method=record.method,
        subject=record.subject,
        accepted_at=rfc3339(wall_of(record.created_at)),
        age_seconds=round(max(0.0, now - record.created_at), 3),
        expires_at=rfc3339(wall_of(expires_at)) if expires_at else None,
        attempts=record.attempts,
        next_at=rfc3339(wall_of(next_at)) if next_at else None,
        last_error=record.last_error,
        bytes=len(record.payload),
        state=str(standing.state),
        why=standing.why,
    )


def describe_dead(
    letter: DeadLetter, *, now: float, wall_of: Callable[[float], float]
) -> model.OutboxRecord:
    """One dead letter, with how it ended and why."""
    standing = Standing(state_of_reason(letter.reason), why_of_reason(letter.reason))
    described = describe_record(letter.record, standing, now=now, wall_of=wall_of)
    described.reason = letter.reason
    described.died_at = rfc3339(wall_of(letter.died_at))
    described.dead_seconds = round(max(0.0, now - letter.died_at), 3)
    return described
