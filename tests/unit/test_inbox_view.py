"""The inbox as operators see it, over rows and owners that the test makes."""

from types import SimpleNamespace

from appliance.daemon.inbox import Inbox


class FakeRows:
    """Rows with ids 1, 2, …; the steady clock shows 1,000 s and the wall an hour more."""

    def __init__(self, *started):
        self.rows = [
            SimpleNamespace(
                row_id=number,
                node="boat",
                method="REQCliCommand",
                subject="boat.REQCliCommand.CommandACK",
                sender="shore",
                message_id=2**60 + number,
                payload=b"x" * number,
                taken_at=1_000.0 - 60 * number,
                started=is_started,
            )
            for number, is_started in enumerate(started, start=1)
        ]

    async def list_inbox(self, limit):
        return self.rows[:limit]

    async def drop_inbox(self, row_ids):
        before = len(self.rows)
        self.rows = [row for row in self.rows if row.row_id not in row_ids]
        return before - len(self.rows)

    def now(self):
        return 1_000.0

    def wall_of(self, steady):
        return steady + 3_600.0


def make(*started, held=()):
    rows = FakeRows(*started)
    return rows, Inbox(rows, SimpleNamespace(held=set(held), orphan_count=len(started) - len(held)))


async def test_what_a_worker_has_is_waiting_or_at_work_and_the_rest_is_orphaned_with_the_reason():
    _, inbox = make(False, True, False, held={1, 2})
    found = await inbox.list(10)
    assert [(row["id"], row["state"], row["why"]) for row in found] == [
        (1, "waiting", ""),
        (2, "working", ""),
        (3, "orphaned", "no worker takes REQCliCommand on boat"),
    ]
    assert (found[2]["age_seconds"], found[2]["bytes"]) == (180.0, 3)
    assert found[0]["taken_at"] == "1970-01-01T01:15:40.000+00:00"
    assert len(await inbox.list(2)) == 2


async def test_only_what_no_worker_has_is_dropped_and_the_rest_is_counted():
    rows, inbox = make(True, False, False, False, held={1})
    assert await inbox.drop([1, 2, 99]) == {"count": 1, "held": 1}
    assert [row.row_id for row in rows.rows] == [1, 3, 4]
    assert await inbox.drop(None) == {"count": 2, "held": 1}
    assert [row.row_id for row in rows.rows] == [1]
    assert await inbox.drop([]) == {"count": 0, "held": 0}
