"""What the store costs a message: event loop and writer thread apart, beside the floor.

Run: ``python -m tests.measure.store_cost [COUNT]``. Prints microseconds of processor time a message for sending (put
and settle) and for receiving (take in with a body, and finish), in batches of 64 and 256; then the floor: one blob a
batch in a table, and nothing else. Compare ratios within one run, on a machine that does nothing else.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from appliance.core.specs import StateSettings
from appliance.outbox.store import MessageStore
from tests.support.store_bench import KEY, make_finish, make_item, make_record

IN_FLIGHT = 4
"""Batches that are under way at once."""

Work = Callable[[MessageStore, int, int], Awaitable[None]]


def writer_clock() -> int:
    """The clock of the processor time of the store's thread, found by its name."""
    (ident,) = (one.ident for one in threading.enumerate() if one.name == "store writer")
    assert ident is not None
    return time.pthread_getcpuclockid(ident)


async def send(store: MessageStore, count: int, batch: int) -> None:
    """Put and settle."""
    payload = os.urandom(256)
    lane = store.lane(KEY)
    for _ in range(0, count, batch):
        records = [make_fresh(store, payload) for _ in range(batch)]
        await store.put(records)
        store.settle_done(lane.take(batch))


def make_fresh(store: MessageStore, payload: bytes):
    record = make_record(store.next_id())
    record.payload = payload
    record.expires_at = record.created_at + 86_400
    record.headers = {"appl-id": f"00112233aabbccdd-{record.id}"}
    return record


async def receive(store: MessageStore, count: int, batch: int) -> None:
    """Take in with a body, and finish."""
    payload = os.urandom(256)
    for _ in range(0, count, batch):
        items = [make_item(store.next_id(), payload=payload, keep_body=True) for _ in range(batch)]
        taken = await store.take_in(items)
        finished = [make_finish(item, one.row_id) for item, one in zip(items, taken, strict=True)]
        await store.finish(finished, (), is_urgent=False)


async def prepare_only(store: MessageStore, count: int, _batch: int) -> None:
    """What making the records costs the measurement itself."""
    payload = os.urandom(256)
    for _ in range(count):
        make_fresh(store, payload)


async def prepare_items(store: MessageStore, count: int, _batch: int) -> None:
    """The same for items."""
    payload = os.urandom(256)
    for _ in range(count):
        make_finish(make_item(store.next_id(), payload=payload, keep_body=True), 1)


async def measure(work: Work, count: int, batch: int) -> tuple[float, float, float]:
    """Microseconds a message: loop, writer, and from beginning to end."""
    with tempfile.TemporaryDirectory() as name:
        store = await MessageStore.open(Path(name), StateSettings())
        try:
            await work(store, batch * 4, batch)
            clock = writer_clock()
            loop_s, writer_s = time.thread_time(), time.clock_gettime(clock)
            started = time.perf_counter()
            share = count // IN_FLIGHT
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(work(store, share, batch))
            await store.list_pending(1)
            wall_s = time.perf_counter() - started
            loop_s = time.thread_time() - loop_s
            writer_s = time.clock_gettime(clock) - writer_s
        finally:
            await store.close()
    return tuple(seconds / count * 1e6 for seconds in (loop_s, writer_s, wall_s))  # type: ignore[return-value]


def measure_floor(count: int, batch: int) -> float:
    """Microseconds a message: one blob a batch, and one for what is settled, deleted in time."""
    body = os.urandom(300 * batch)
    settled = os.urandom(8 * batch)
    with tempfile.TemporaryDirectory() as name:
        connection = sqlite3.connect(f"{name}/floor.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE log(seq INTEGER PRIMARY KEY, head BLOB, body BLOB)")
        started = time.thread_time()
        for seq in range(count // batch):
            zlib.crc32(body)
            connection.execute("INSERT INTO log VALUES (?, ?, ?)", (2 * seq, settled, body))
            connection.execute("INSERT INTO log VALUES (?, ?, ?)", (2 * seq + 1, settled, b""))
            if seq % 64 == 63:
                connection.execute("DELETE FROM log WHERE seq < ?", (2 * seq,))
        spent = time.thread_time() - started
        connection.close()
    return spent / count * 1e6


async def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print(f"{threading.active_count()} thread, {count} messages; us a message")
    for batch in (64, 256):
        for name, work, preparation in (
            ("put + settle", send, prepare_only),
            ("take + finish", receive, prepare_items),
        ):
            own, _, _ = await measure(preparation, count, batch)
            loop_us, writer_us, wall_us = await measure(work, count, batch)
            print(
                f"batch {batch:4} {name:14} loop {loop_us - own:5.2f} writer {writer_us:5.2f}"
                f" wall {wall_us:5.2f}"
            )
        print(f"batch {batch:4} floor          writer {measure_floor(count, batch):5.2f}")


if __name__ == "__main__":
    asyncio.run(main())
