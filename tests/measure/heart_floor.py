"""How fast a durable, acknowledged, deduplicating heart can be in plain Python on these libraries: a bare model of one.

CBOR texts in a window; one blob a commit in SQLite (WAL, FULL) on both sides; ids remembered; acknowledged by a token in
the reply subject. No reload, no resend, no checks beyond types: the floor under the product, not a product. Run by
`heart_bench.py`.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import cbor2

from tests.measure.side import Meter, Plan, make_text
from tests.support.bare_publisher import seed_message

SUBJECT = b"beta.REQToConsole.EventACK"
PREFIX = SUBJECT + b".reply.abcdef."
HEADER = b"NATS/1.0\r\nserial: cbor\r\nappl-id: inst."
TO_ACCEPT = 64
MOST_WAITING = 2_000
MOST_SETTLED = 256
MASK = 2**64 - 1
CONNECT = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}


class Log:
    """A thread that makes blobs durable in groups; `on_durable` gets their tags, on the loop."""

    def __init__(self, path: Path, on_durable: Callable[[list], None]) -> None:
        self._path = path
        self._on_durable = on_durable
        self._loop = asyncio.get_running_loop()
        self._items: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, name="store writer", daemon=True).start()

    def put(self, blob: bytes, tag: object) -> None:
        self._items.put((blob, tag))

    def _run(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("pragma journal_mode=wal")
        database.execute("pragma synchronous=full")
        database.execute("create table segments (id integer primary key, body blob, checksum int)")
        while True:
            items = [self._items.get()]
            while not self._items.empty():
                items.append(self._items.get_nowait())
            body = b"".join(blob for blob, _ in items)
            database.execute(
                "insert into segments (body, checksum) values (?, ?)", (body, zlib.crc32(body))
            )
            self._loop.call_soon_threadsafe(self._on_durable, [tag for _, tag in items])


class Wire(asyncio.Protocol):
    """NATS over a socket: all messages of a read in one list, all frames of a turn in one write."""

    def __init__(self, on_messages: Callable[[list], None]) -> None:
        self._on_messages = on_messages
        self._rest = b""
        self._out: list[bytes] = []
        self._transport: asyncio.Transport
        self.is_answered = asyncio.Event()

    def connection_made(self, transport) -> None:
        self._transport = transport
        transport.write(b"CONNECT %b\r\n" % json.dumps(CONNECT).encode())

    def write(self, *parts: bytes) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out += parts

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        messages = []
        while at < end:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                break
            kind = data[at]
            if kind in b"HM":
                words = data[at:line_end].split(b" ")
                start = line_end + 2
                stop = start + int(words[-1])
                if stop + 2 > end:
                    break
                body = start
                if kind == b"H"[0]:
                    body += int(words.pop(-2))
                reply_to = words[3] if len(words) == 5 else b""
                messages.append((words[1], reply_to, data[start:body], data[body:stop]))
                at = stop + 2
                continue
            if data.startswith(b"PING", at):
                self._transport.write(b"PONG\r\n")
            elif data.startswith(b"PONG", at):
                self.is_answered.set()
            at = line_end + 2
        self._rest = data[at:]
        if messages:
            self._on_messages(messages)


async def connect(url: str, subject: bytes, on_messages: Callable[[list], None]) -> Wire:
    where = urlsplit(url)
    _, wire = await asyncio.get_running_loop().create_connection(
        lambda: Wire(on_messages), where.hostname, where.port
    )
    wire.write(b"SUB %b 1\r\nPING\r\n" % subject)
    await wire.is_answered.wait()
    return wire


async def send(plan: Plan, meter: Meter) -> None:
    waiting: deque[tuple[int, bytes]] = deque()
    in_flight: dict[bytes, int] = {}
    settled: list[int] = []
    has_room, is_done = asyncio.Event(), asyncio.Event()
    left, token, message_id = plan.count, 0, 1 << 40

    def pump() -> None:
        nonlocal token
        while waiting and len(in_flight) < plan.window:
            number, payload = waiting.popleft()
            token += 1
            name = b"%016x" % (token * 2_654_435_761 & MASK)
            in_flight[name] = number
            header = HEADER + b"%d\r\n\r\n" % number
            sizes = (len(header), len(header) + len(payload))
            line = b"HPUB %b %b%b %d %d\r\n" % (SUBJECT, PREFIX, name, *sizes)
            wire.write(line, header, payload, b"\r\n")
        has_room.set()

    def on_messages(messages: list) -> None:
        nonlocal left
        acked = 0
        for subject, _, _, _ in messages:
            number = in_flight.pop(subject[len(PREFIX) :], None)
            if number is not None:
                settled.append(number)
                acked += 1
        if len(settled) >= MOST_SETTLED:
            log.put(struct.pack(f"<{len(settled)}Q", *settled), ())
            settled.clear()
        pump()
        left -= acked
        meter.acked(acked)
        if not left:
            is_done.set()

    def on_durable(tags: list) -> None:
        for records in tags:
            waiting.extend(records)
        pump()

    log = Log(Path(plan.directory, "sender.db"), on_durable)
    wire = await connect(plan.url, PREFIX + b"*", on_messages)
    text = make_text(plan)
    for first in range(0, plan.count, TO_ACCEPT):
        records, blob = [], []
        for _ in range(min(TO_ACCEPT, plan.count - first)):
            message_id += 1
            message = seed_message("beta", "alpha", "REQToConsole", [text], id=message_id)
            payload = cbor2.dumps(message)
            records.append((message_id, payload))
            blob += (struct.pack("<QI", message_id, len(payload)), payload)
        log.put(b"".join(blob), records)
        while len(waiting) > MOST_WAITING:
            has_room.clear()
            await has_room.wait()
        await asyncio.sleep(0)
    await is_done.wait()


async def receive(plan: Plan, say_ready: Callable[[], None]) -> None:
    seen: set[int] = set()

    def on_messages(messages: list) -> None:
        work, blob = [], []
        for _, reply_to, header, payload in messages:
            at = header.find(b"appl-id: ")
            number = int(header[at + 14 : header.find(b"\r\n", at)])
            fields = cbor2.loads(payload)
            if (
                len(fields) != 25
                or type(fields[0]) is not str
                or fields[4] != "REQToConsole"
                or type(fields[2]) is not int
                or number in seen
            ):
                continue
            seen.add(number)
            work.append((reply_to, fields[2]))
            blob += (struct.pack("<QI", number, len(payload)), payload)
        log.put(b"".join(blob), work)

    def on_durable(tags: list) -> None:
        for work in tags:
            for reply_to, number in work:
                body = b"confirmed from: beta: %d" % number
                wire.write(b"PUB %b %d\r\n" % (reply_to, len(body)), body, b"\r\n")

    log = Log(Path(plan.directory, "receiver.db"), on_durable)
    wire = await connect(plan.url, SUBJECT, on_messages)
    say_ready()
    await asyncio.Event().wait()
