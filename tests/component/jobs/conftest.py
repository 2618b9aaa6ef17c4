"""A ledger on a real file, and a store of which only what is asked is there."""

import contextlib

import pytest

from appliance.core.current import Current
from appliance.core.specs import JobSettings
from appliance.jobs.ledger import JobLedger
from appliance.outbox.job_file import JobFile


class Outbox:
    """A store of which only what is asked is there."""

    def __init__(self):
        self.instance = "0123456789abcdef"
        self.pending = set()
        self.known = {}
        self.dead = {}
        self.time = 1_000.0

    def now(self):
        return self.time

    def is_pending(self, record_id):
        return record_id in self.pending

    def facts(self, kind):
        return self.known

    async def dead_reasons(self, ids):
        return {number: self.dead[number] for number in ids if number in self.dead}

    def put(self, ids, facts):
        self.pending |= set(ids)
        for (_, key), value in facts.items():
            if value is None:
                self.known.pop(key, None)
            else:
                self.known[key] = value


@pytest.fixture
def outbox():
    return Outbox()


@pytest.fixture
async def open_ledger(tmp_path, outbox):
    """Opens the ledger of one directory; the last one opened is closed. `told` is what the file said."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_it(**settings):
            open_it.told = []
            file = await JobFile.open(tmp_path, open_it.told.append)
            ledger = JobLedger(file, outbox, Current(JobSettings(**settings)))
            await ledger.load()
            stack.push_async_callback(ledger.close)
            return ledger

        yield open_it
