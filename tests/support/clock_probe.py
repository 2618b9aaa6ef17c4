"""Tells what clocks say and how long timed waits take here, as a line of JSON: see `faked_clock`."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import datetime
import json
import queue
import select
import sqlite3
import threading
import time
from collections.abc import Callable

import uvloop

WAIT_S = 0.05


def wait_for_condition() -> None:
    """The wait that the interpreter's lock is made of."""
    library = ctypes.CDLL(None)
    attributes, condition, mutex = (ctypes.create_string_buffer(size) for size in (16, 64, 64))
    library.pthread_condattr_init(attributes)
    library.pthread_condattr_setclock(attributes, time.CLOCK_MONOTONIC)
    library.pthread_cond_init(condition, attributes)
    library.pthread_mutex_init(mutex, None)
    due_ns = time.monotonic_ns() + round(WAIT_S * 1e9)
    due = (ctypes.c_long * 2)(due_ns // 10**9, due_ns % 10**9)
    library.pthread_mutex_lock(mutex)
    library.pthread_cond_timedwait(condition, mutex, due)
    library.pthread_mutex_unlock(mutex)


def wait_for_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=WAIT_S)


def wait_for_queue() -> None:
    with contextlib.suppress(queue.Empty):
        queue.SimpleQueue().get(timeout=WAIT_S)


def wait_in_loop() -> None:
    with contextlib.suppress(TimeoutError):
        uvloop.run(asyncio.wait_for(asyncio.Event().wait(), WAIT_S))


WAITS: dict[str, Callable[[], object]] = {
    "condition": wait_for_condition,
    "lock": wait_for_lock,
    "queue": wait_for_queue,
    "epoll": lambda: select.epoll().poll(WAIT_S),
    "loop": wait_in_loop,
}


def main() -> None:
    seconds = "select (julianday('now') - 2440587.5) * 86400.0"
    walls = [
        time.time(),
        datetime.datetime.now(datetime.UTC).timestamp(),
        sqlite3.connect(":memory:").execute(seconds).fetchone()[0],
    ]
    clocks = {
        "walls": walls,
        "monotonic": time.monotonic(),
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
    }
    waits = {}
    for what, wait in WAITS.items():
        since_mono = time.monotonic()
        wait()
        waits[what] = time.monotonic() - since_mono
    print(json.dumps({**clocks, "wait_s": WAIT_S, "waits": waits}))


if __name__ == "__main__":
    main()
