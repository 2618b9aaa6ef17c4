"""The inbox as operators see it, and how what no worker takes ages; over a store in memory and virtual time."""

import asyncio

import pytest

from appliance.api import model
from appliance.api.inbox import ORPHAN_LOOK_S, PIECE, Inbox, keep_orphans
from appliance.outbox.records import TakeIn, TakeInResult
from appliance.workers.inbox_owners import FACT_KIND, ORPHAN_KEEP_S, InboxOwners
from tests.support.memory_store import MemoryDisk, MemoryStore
from tests.support.virtual_time import Clocks, run_virtual

SCOPE = "boat.REQCliCommand"
HOUR_S = 3_600.0


def make_item(number):
    return TakeIn(
        scope=SCOPE, node="boat", method="REQCliCommand", subject=f"{SCOPE}.CommandACK", sender="shore",
        instance="0" * 16, message_id=number, attempt=0, payload=b"x" * number, block=b"", reply_to="",
        keep_body=True,
    )  # fmt: skip


class Told:
    """What telemetry and errorCentral were told."""

    def __init__(self):
        self.log = []
        self.reports = []

    def orphans_given_up(self, scope, count):
        self.log.append((scope, count))

    def report(self, node, text, method):
        self.reports.append((node, text, method))


class Fleet:
    """A store on a disk, opened again as often as a test likes, and those who own rows of it."""

    def __init__(self):
        self.clocks = Clocks()
        self.disk = MemoryDisk("f" * 16)
        self.wanted = set()
        """Scopes whose workers are to run, and cannot or do."""

    async def open(self):
        self.store = await MemoryStore.open(
            self.disk, wall=self.clocks.wall, mono=self.clocks.steady
        )
        self.owners = InboxOwners(self.store, lambda scope: scope in self.wanted)
        self.inbox = Inbox(self.store, self.owners)

    async def take(self, *numbers, held=False):
        taken = await self.store.take_in([make_item(number) for number in numbers])
        ids = [one.row_id for one in taken]
        if held:
            self.owners.held.update(ids)
        return ids

    async def restart(self):
        await self.store.close()
        await self.open()

    async def claim(self):
        return [row.row_id for row in await self.owners.claim("boat", "REQCliCommand", SCOPE)]

    async def look_for(self, seconds):
        """The daemon runs for so long."""
        told = Told()
        keeping = asyncio.create_task(keep_orphans(self.owners, told, told))
        await asyncio.sleep(seconds)
        keeping.cancel()
        await asyncio.wait({keeping})
        return told


def with_fleet(scenario):
    async def run():
        fleet = Fleet()
        await fleet.open()
        await scenario(fleet)
        await fleet.store.close()

    run_virtual(run())


def test_what_a_worker_has_is_waiting_or_at_work_and_the_rest_is_orphaned_with_the_reason():
    async def scenario(fleet):
        one, two = await fleet.take(1, 2, held=True)
        (three,) = await fleet.take(3)
        await fleet.store.mark_started([two])
        await asyncio.sleep(HOUR_S)
        found = await fleet.inbox.list(10)
        assert [(row.id, row.state, row.why) for row in found] == [
            (one, "waiting", ""),
            (two, "working", ""),
            (three, "orphaned", "no worker takes REQCliCommand on boat"),
        ]
        assert found[2].age_seconds == pytest.approx(HOUR_S, abs=1)
        assert (found[2].from_node, found[2].message_id, found[2].bytes) == ("shore", 3, 3)
        assert [row.id for row in await fleet.inbox.list(2)] == [one, two]

    with_fleet(scenario)


def test_a_clock_that_is_set_changes_no_age():
    async def scenario(fleet):
        await fleet.take(1)
        await asyncio.sleep(60.0)
        fleet.clocks.jump_wall(30 * 24 * HOUR_S)
        (row,) = await fleet.inbox.list(10)
        assert row.age_seconds == pytest.approx(60.0, abs=1)
        told = await fleet.look_for(HOUR_S)
        assert told.log == []
        assert len(await fleet.inbox.list(10)) == 1

    with_fleet(scenario)


def test_a_long_list_is_read_in_pieces_and_in_order():
    async def scenario(fleet):
        ids = await fleet.take(*range(1, 3 * PIECE))
        assert [row.id for row in await fleet.inbox.list(10_000)] == ids

    with_fleet(scenario)


def test_only_what_no_worker_has_is_dropped_and_a_resend_of_it_is_refused():
    async def scenario(fleet):
        (one,) = await fleet.take(1, held=True)
        two, three, four = await fleet.take(2, 3, 4)
        assert await fleet.inbox.drop([one, two, 99]) == model.Count(count=1, held=1)
        assert [row.id for row in await fleet.inbox.list(10)] == [one, three, four]
        assert await fleet.inbox.drop(None) == model.Count(count=2, held=1)
        assert await fleet.inbox.drop([]) == model.Count(count=0, held=0)
        assert [row.id for row in await fleet.inbox.list(10)] == [one]
        ((result, _, verdict),) = await fleet.store.take_in([make_item(2)])
        assert result is TakeInResult.REPEAT_DONE
        assert verdict.startswith("refused: ")

    with_fleet(scenario)


def test_what_no_worker_takes_for_too_long_is_given_up_and_told_of_once():
    async def scenario(fleet):
        await fleet.take(1, 2)
        told = await fleet.look_for(ORPHAN_KEEP_S)
        assert told.log == []
        told = await fleet.look_for(2 * HOUR_S)
        assert told.log == [(SCOPE, 2)]
        text = "2 messages were taken in for REQCliCommand and given up: no worker took it in time"
        assert told.reports == [("boat", text, "REQCliCommand")]
        assert await fleet.inbox.list(10) == []
        assert fleet.store.facts(FACT_KIND) == {}

    with_fleet(scenario)


def test_a_subscription_that_comes_back_in_time_gets_its_messages():
    async def scenario(fleet):
        ids = await fleet.take(1, 2)
        await fleet.look_for(ORPHAN_KEEP_S - HOUR_S)
        assert await fleet.claim() == ids
        await fleet.look_for(2 * ORPHAN_KEEP_S)  # a worker that has them may take its time
        assert [row.id for row in await fleet.inbox.list(10)] == ids
        assert fleet.store.facts(FACT_KIND) == {}

    with_fleet(scenario)


def test_nothing_runs_because_its_subscription_comes_back_weeks_later():
    """Neither while the daemon runs, nor with its next start, which claims before it looks for the first time."""

    async def scenario(fleet):
        await fleet.take(1, 2)
        await fleet.look_for(2 * ORPHAN_LOOK_S)
        await asyncio.sleep(20 * ORPHAN_KEEP_S)
        await fleet.restart()
        assert await fleet.claim() == []
        told = await fleet.look_for(2 * ORPHAN_LOOK_S)
        assert told.log == [(SCOPE, 2)]

    with_fleet(scenario)


def test_a_worker_that_is_wanted_and_cannot_run_keeps_its_messages():
    """The broker is away for days, say, since before the daemon started."""

    async def scenario(fleet):
        ids = await fleet.take(1, 2)
        fleet.wanted = {SCOPE}
        told = await fleet.look_for(5 * ORPHAN_KEEP_S)
        assert told.log == []
        assert await fleet.claim() == ids

    with_fleet(scenario)


def test_the_time_without_a_worker_begins_anew_after_one_was_wanted():
    async def scenario(fleet):
        await fleet.take(1)
        await fleet.look_for(ORPHAN_KEEP_S - HOUR_S)
        fleet.wanted = {SCOPE}
        await fleet.look_for(2 * ORPHAN_LOOK_S)
        fleet.wanted = set()
        told = await fleet.look_for(ORPHAN_KEEP_S - HOUR_S)
        assert told.log == []
        told = await fleet.look_for(2 * HOUR_S)
        assert told.log == [(SCOPE, 1)]

    with_fleet(scenario)


def test_what_a_worker_left_goes_on_after_however_long_a_stop_of_the_daemon():
    async def scenario(fleet):
        ids = await fleet.take(1, 2, held=True)
        await fleet.look_for(2 * ORPHAN_LOOK_S)
        await fleet.store.close()
        await asyncio.sleep(20 * ORPHAN_KEEP_S)
        await fleet.open()
        assert await fleet.claim() == ids

    with_fleet(scenario)


def test_a_store_that_cannot_is_asked_again():
    async def scenario(fleet):
        await fleet.take(1)
        fleet.disk.is_full = True
        told = await fleet.look_for(ORPHAN_KEEP_S)
        fleet.disk.is_full = False
        told = await fleet.look_for(ORPHAN_KEEP_S + HOUR_S)
        assert told.log == [(SCOPE, 1)]

    with_fleet(scenario)
