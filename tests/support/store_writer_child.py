"""A process that writes into a store until it is killed; it prints what was accepted and finished.

Lines: ``put <id>`` after the commit of a record, ``done <id>`` before it is settled, ``seen <id>``
and ``put <id>`` after the commit of a finished message and its reply.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from appliance.core.specs import StateSettings
from appliance.outbox.store import MessageStore
from tests.support.store_bench import KEY, make_finish, make_item, make_record, make_run
from tests.support.waiting import pace_async


async def send(store: MessageStore) -> None:
    """Accept records for ever."""
    while True:
        records = [make_record(store, payload=b"x" * 300) for _ in range(7)]
        await store.put(records)
        for record in records:
            print("put", record.id, flush=True)


async def settle(store: MessageStore) -> None:
    """Conclude every third record."""
    lane = store.lane(KEY)
    count = 0
    while True:
        taken = lane.take(1)
        if not taken:
            await pace_async(time.monotonic() + 0.001)
            continue
        (record,) = taken
        count += 1
        if count % 3 == 0:
            print("done", record.id, flush=True)
            store.settle_done([record])


async def receive(store: MessageStore) -> None:
    """Take in, handle, answer."""
    while True:
        item, *others = [make_item(store.next_id(), keep_body=True) for _ in range(4)]
        (_, row_id, _), *taken = await store.take_in([item, *others])
        reply = make_record(store, payload=b"reply to %d" % item.message_id)
        run = make_run(others, [row_id for _, row_id, _ in taken])
        await store.finish([make_finish(item, row_id)], [reply], done=[run])
        for one in (item, *others):
            print("seen", one.message_id, flush=True)
        print("put", reply.id, flush=True)


async def main() -> None:
    """Run until killed."""
    store = await MessageStore.open(Path(sys.argv[1]), StateSettings())
    await asyncio.gather(send(store), settle(store), receive(store))


if __name__ == "__main__":
    asyncio.run(main())
