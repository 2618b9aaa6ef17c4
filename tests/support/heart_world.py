"""A small world for the heart: daemons made of the real parts, in virtual time, between a broker and disks in memory.

Each `Daemon` holds what a daemon holds that has to do with delivery: router, answers, publishers and subscribers in a
real worker pool that follows a real plan. Around them stand doubles: the store (`memory_store`), the broker
(`bus.memory`), clocks (`virtual_time`) and handlers, which do nothing but note in the `EffectLog` when they began and
how they ended.

A world is made of operations (submit, kill, restart, disconnect, go dark, reload, ...), and a checker looks at what the
log, the disks and the wire say afterwards: see `heart_checks`.

All wiring to the constructors of the product is in `Daemon._build`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import logging
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from appliance.api.fleet import Presence
from appliance.api.inbox import keep_orphans
from appliance.bus.base import Bus, BusMessage, Denial, Frame, OnDenied, OnMessages, Subscription
from appliance.bus.memory import MemoryBus, Passage, Permissions
from appliance.core.current import Current
from appliance.core.message import Message
from appliance.core.names import MethodName, NodeName, WorkerKey
from appliance.core.plan import make_plan
from appliance.core.specs import DesiredState, WorkerSpec
from appliance.daemon.assembly import (
    LaneFollower,
    WorkerFactory,
    find_extra_workers,
    is_subscriber_wanted,
    list_workers,
)
from appliance.delivery.modes import DeliveryModes
from appliance.delivery.signer import Signer, SigningKey
from appliance.delivery.verifier import Verifier
from appliance.dialect.spoken import make_dialect
from appliance.errors import AnswerUnwanted, BeginAgain, BusUnavailable, HandlerError
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.methods.registry import METHOD_TABLE, METHODS
from appliance.outbox.store import MessageStore
from appliance.reconcile.pool import WorkerPool
from appliance.telemetry.events import EventHub
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import DrainReport
from appliance.wire.headers import encode_headers, parse_headers
from appliance.workers.error_reports import ErrorReports
from appliance.workers.given_up import GivenUp
from appliance.workers.inbox_owners import InboxOwners
from appliance.workers.peers import PeerBook
from appliance.workers.publisher import Publisher
from appliance.workers.router import Router
from appliance.workers.services import HandlerServices, WorkerServices
from appliance.workers.stall import StallWatch
from appliance.workers.waiters import AbandonedRequests, DeliveryWaiters
from tests.support.config_files import load_text
from tests.support.memory_jetstream import StreamingBroker
from tests.support.memory_store import MemoryDisk, MemoryStore
from tests.support.virtual_time import Clocks, VirtualLoop

HELLO = MethodName("REQHello")
PASS_S = 20.0
"""How often a daemon looks at its workers when nothing calls for it."""
DRAIN_S = 10.0
NOTICES_DARK_AFTER_S = 12.0
"""When a client calls a silent broker dead: about two pings."""
BROKER_NOTICES_AFTER_S = 300.0
"""When the broker calls a silent client dead; until then it is served as if it were there."""

_OWNER: contextvars.ContextVar[Daemon | None] = contextvars.ContextVar("owner", default=None)


_WORKING = b"working at: "
_ANSWERS = (b"confirmed from: ", b"refused by: ")


class End(StrEnum):
    """How a handler ends, by a test's wish."""

    DONE = "done"
    HANDLER_ERROR = "handler error"
    EXCEPTION = "exception"
    TIMEOUT = "time-out"
    UNWANTED = "unwanted"
    BEGIN_AGAIN = "begin again"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the handler of one message does: it works `work_s`, then ends as `ends` says, the last for every later run."""

    work_s: float = 0.0
    ends: tuple[End, ...] = (End.DONE,)


@dataclass(slots=True)
class Run:
    """One call of a handler. `life` tells the daemon's processes apart; `end` is None while it runs or if it was cut off."""

    text: str
    node: str
    method: str
    message_id: int
    sender: str
    daemon: str
    life: int
    began_at: float
    began_after: int
    """Pieces of evidence on the daemon's disk when it began."""
    ended_at: float | None = None
    end: End | None = None
    taker: str = ""
    """The daemon that had taken the message, by the word of its sender."""
    answers: int | None = None
    """Id of the message that this one is an answer to."""
    was_cut: bool = False
    """Whether the handler was cancelled while its process went on living: a drain was over."""

    @property
    def scope(self) -> str:
        """Where the store remembers the message's id."""
        return f"{self.node}.{self.method}"


class EffectLog:
    """Every run of a handler in the world, in the order in which they began."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.by_text: dict[str, list[Run]] = defaultdict(list)

    def begin(self, run: Run) -> Run:
        """A handler was called."""
        self.runs.append(run)
        self.by_text[run.text].append(run)
        return run

    def of(self, text: str) -> list[Run]:
        """The runs of one message."""
        return self.by_text.get(text, [])

    def texts(self, end: End = End.DONE) -> list[str]:
        """The texts of the runs that ended so, in the order in which they began."""
        return [run.text for run in self.runs if run.end is end]


class EffectHandler:
    """Notes its calls. What it does is told by `World.behaviour` by the message's text."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Begin, work, end as asked."""
        world, daemon = self._world, _OWNER.get()
        assert daemon is not None
        text = "".join(message.data or ())
        if message.is_reply and message.previous_message is not None:
            text = f"answer {message.id} to {message.previous_message.id}"
        run = world.log.begin(
            Run(
                text=text,
                node=context.node,
                method=message.method,
                message_id=message.id,
                sender=message.from_node,
                daemon=daemon.name,
                life=daemon.life,
                began_at=world.clocks.steady(),
                began_after=len(daemon.disk.evidence),
                taker=context.headers.get("appl-taker", ""),
                answers=message.previous_message.id if message.previous_message else None,
            )
        )
        behaviour = world.behaviour.get(text, world.default_behaviour)
        count = sum(1 for other in world.log.of(text) if other.end is not None)
        end = behaviour.ends[min(count, len(behaviour.ends) - 1)]
        try:
            if behaviour.work_s:
                await asyncio.sleep(behaviour.work_s)
            if end is End.TIMEOUT:
                await asyncio.sleep(10 * 86_400.0)
        except asyncio.CancelledError:
            if not daemon.is_dead:
                run.ended_at = world.clocks.steady()
                run.was_cut = end is not End.TIMEOUT
                run.end = end if end is End.TIMEOUT else None
                world.on_run_end(run)
            raise
        run.ended_at, run.end = world.clocks.steady(), end
        world.on_run_end(run)
        if end is End.HANDLER_ERROR:
            raise HandlerError("as the test wished")
        if end is End.EXCEPTION:
            raise ZeroDivisionError("as the test wished")
        if end is End.UNWANTED:
            raise AnswerUnwanted
        if end is End.BEGIN_AGAIN:
            raise BeginAgain("as the test wished")
        if METHOD_TABLE[MethodName(message.method)].replies:
            return Result(output=f"answer to {text}".encode(), exit_status=0)
        return DONE


class NotedHandler(EffectHandler):
    """A real handler whose calls are noted, too."""

    def __init__(self, world: World, method: Method) -> None:
        super().__init__(world)
        self._real = method.make()

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Note it, then have it done."""
        await super().handle(message, context)
        return await self._real.handle(message, context)


class NotedTelemetry(Telemetry):
    """Remembers when workers ended: what they had in hand and not committed may be done again by the next one."""

    def __init__(self, events: EventHub, note: Callable[[WorkerKey], None]) -> None:
        super().__init__(events)
        self._note = note

    def worker_failed(
        self, key: WorkerKey, error: str, retry_in_s: float, *, is_news: bool = True
    ) -> None:
        """It ended by itself."""
        self._note(key)
        super().worker_failed(key, error, retry_in_s, is_news=is_news)

    def worker_stopped(self, key: WorkerKey, report: DrainReport | None) -> None:
        """It was stopped."""
        self._note(key)
        super().worker_stopped(key, report)


class NoFiles:
    """Files of handlers that are real (hello's log): written nowhere."""

    async def append(self, parts: Any, data: bytes, **_: Any) -> None:
        """Nothing."""

    async def write(self, parts: Any, data: bytes) -> None:
        """Nothing."""


class NoConsole:
    """Swallows."""

    def write(self, text: str, *, to_stderr: bool = False) -> None:
        """Nothing."""


@dataclass(slots=True)
class Sent:
    """One frame that a daemon handed to its bus while the line was up."""

    at: float
    daemon: str
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    reply_to: str
    evidence: int
    """Pieces of evidence on the sender's disk at that moment."""

    @property
    def is_answer(self) -> bool:
        """Whether it says what became of a message (and not that the receiver works or is busy)."""
        return ".reply." in self.subject and self.payload.startswith(_ANSWERS)


class Line:
    """A daemon's bus: the memory bus, with the daemon's own context for whatever it calls, and a witness of frames.

    `kill` is the end of the process: nothing goes out or comes in any more.
    """

    def __init__(self, daemon: Daemon, bus: MemoryBus) -> None:
        self._daemon = daemon
        self._world = daemon.world
        self.bus = bus
        self._context = contextvars.copy_context()
        self._is_dead = False

    def kill(self) -> None:
        """The process is gone, and the broker sees its socket close."""
        self._is_dead = True
        self.bus._is_closed = True
        self.bus.lose("the process is gone")

    def stay_away(self, seconds: float, *, noticed_after_s: float = 0.0) -> None:
        """Lose the connection, and get the next one so much later."""
        usual, self.bus._reconnect_wait_s = self.bus._reconnect_wait_s, seconds
        self.bus.lose(noticed_after_s=noticed_after_s)
        self.bus._reconnect_wait_s = usual

    @property
    def is_connected(self) -> bool:
        return bool(self.bus.is_connected) and not self._is_dead

    @property
    def connections(self) -> int:
        return int(self.bus.connections)

    @property
    def connection_epoch(self) -> int:
        return int(self.bus.connection_epoch)

    @property
    def max_payload(self) -> int:
        return int(self.bus.max_payload)

    @property
    def has_streams(self) -> bool:
        return bool(self.bus.has_streams)

    @property
    def is_congested(self) -> bool:
        return bool(self.bus.is_congested)

    async def wait_until_writable(self) -> None:
        await self.bus.wait_until_writable()

    def send(self, frames: Sequence[Frame]) -> None:
        if self._is_dead:
            raise BusUnavailable("the process is gone")
        if not self.bus.is_connected:
            raise BusUnavailable("not connected")
        self.bus.send([frame for frame in frames if not self._is_swallowed(frame)])

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        reply_to: str = "",
    ) -> None:
        self.send([(subject, reply_to, encode_headers(headers) if headers else b"", payload)])

    def _is_swallowed(self, frame: Frame) -> bool:
        subject, reply_to, block, payload = frame
        daemon = self._daemon
        sent = Sent(
            at=self._world.clocks.steady(),
            daemon=daemon.name,
            subject=subject,
            payload=payload,
            headers=parse_headers(block) if block else {},
            reply_to=reply_to,
            evidence=len(daemon.disk.evidence),
        )
        self._world.sent.append(sent)
        swallows = self._world.swallows.get(daemon.name)
        return swallows is not None and swallows(sent)

    async def subscribe(
        self,
        subject: str,
        on_messages: OnMessages,
        *,
        queue: str = "",
        on_denied: OnDenied | None = None,
    ) -> Subscription:
        def hear(messages: list[BusMessage]) -> None:
            if self._is_dead:
                return
            hears = self._world.hears.get(self._daemon.name)
            for message in messages:
                self._note_word(message)
                self.before_handing_over(message)
                if hears is not None:
                    hears(message)
            if self._is_dead:
                return  # what was heard was the end of it
            self._context.copy().run(on_messages, messages)

        def hear_denied(denial: Denial) -> None:
            if on_denied is not None and not self._is_dead:
                self._context.copy().run(on_denied, denial)

        found: Subscription = await self.bus.subscribe(
            subject, hear, queue=queue, on_denied=hear_denied
        )
        return found

    def _note_word(self, message: BusMessage) -> None:
        if message.payload.startswith(_WORKING):
            number = int(message.payload.rpartition(b": ")[2])
            at = self._world.clocks.steady()
            self._world.heard_working.setdefault((self._daemon.name, number), []).append(at)

    def before_handing_over(self, message: BusMessage) -> None:
        """For lines that misbehave on purpose."""

    def on_connected(self, callback: Callable[[], None]) -> Callable[[], None]:
        end: Callable[[], None] = self.bus.on_connected(self._in_context(callback))
        return end

    def on_publish_denied(self, subject: str, callback: OnDenied) -> Callable[[], None]:
        end: Callable[[], None] = self.bus.on_publish_denied(subject, self._in_context(callback))
        return end

    def _in_context(self, callback: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            if not self._is_dead:
                self._context.copy().run(callback, *arguments)

        return call


class Daemon:
    """One process after the other on one disk. `life` counts them."""

    def __init__(self, world: World, name: str, disk: MemoryDisk, desired: DesiredState) -> None:
        self.world = world
        self.name = name
        self.disk = disk
        self.current = Current(desired)
        self.life = 0
        self.died_at: list[float] = []
        """When it was killed, each time."""
        self.signing_key: SigningKey | None = None
        """What it signs with."""
        self.worker_ends: list[tuple[float, str]] = []
        """When a worker ended in a process that went on living, with its subject."""
        self.is_dead = True
        self.is_up = False
        """Whether it has started and lives."""
        self._generation: set[asyncio.Task[Any]] = set()
        disk.on_crash = self._die

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """A new process; returns when its workers have had their first pass."""
        assert self.is_dead, f"{self.name} runs"
        self.is_dead = False
        self.life += 1
        self._generation = set()
        context = contextvars.copy_context()
        context.run(_OWNER.set, self)
        starting = asyncio.get_running_loop().create_task(
            self._start(), name=f"{self.name} starts", context=context
        )
        with contextlib.suppress(asyncio.CancelledError):
            await starting

    async def _start(self) -> None:
        world = self.world
        self.store = await world.store_class.open(
            self.disk, self.desired.state, wall=world.clocks.wall, mono=world.clocks.steady
        )
        self.line = world.line_class(self, await world.connect(self.name))
        self._build()
        self._services = [
            asyncio.create_task(self.error_reports.run(), name=f"{self.name} answers"),
            asyncio.create_task(self._reconcile(), name=f"{self.name} reconciler"),
            asyncio.create_task(
                keep_orphans(self.inbox_owners, self.telemetry, self._report),
                name=f"{self.name} orphans",
            ),
        ]
        await self._has_passed.wait()
        self.is_up = True

    def _build(self) -> None:
        world = self.world
        wall = world.clocks.wall
        bus: Bus = self.line
        store = cast(MessageStore, self.store)
        self._trigger = asyncio.Event()
        self._has_passed = asyncio.Event()
        self.events = EventHub(wall=wall)
        self.telemetry = NotedTelemetry(
            self.events,
            lambda key: self.worker_ends.append((world.clocks.steady(), key.subject)),
        )
        self.router = Router(
            METHOD_TABLE, instance=store.instance, next_id=store.next_id, wall=store.now
        )
        self.router.route_by(self.desired)
        self.error_reports = ErrorReports(
            store=store,
            router=self.router,
            telemetry=self.telemetry,
            desired=self.current,
            wall=wall,
        )
        self.presence = Presence(self.current, wall)
        self.presence.on_seen.append(self._node_seen)
        self.waiters = DeliveryWaiters()
        for_handlers = HandlerServices(
            files=NoFiles(),
            console=NoConsole(),
            hellos=self.presence,
            hidden_environment=Current(frozenset()),
            list_workers=lambda node: list_workers(self.pool, node),
            switch=None,  # type: ignore[arg-type] - no handler here switches workers
        )
        self.peers = PeerBook(store)
        self.given_up = GivenUp(self.error_reports, store, cast(Bus, self.line))
        self.inbox_owners = InboxOwners(
            store, lambda scope: is_subscriber_wanted(self.desired.workers, scope)
        )
        dialect = make_dialect()
        self.signer = Signer(wall)
        self.signer.key = self.signing_key
        self.verifier = Verifier(self.current, store, wall=wall, steady=store.now)
        services = WorkerServices(
            bus=bus,
            store=store,
            dialect=dialect,
            delivery=DeliveryModes(bus, dialect, store.instance, store, self.signer, self.verifier),
            verifier=self.verifier,
            router=self.router,
            telemetry=self.telemetry,
            error_reports=self.error_reports,
            peers=self.peers,
            inbox=self.inbox_owners,
            for_handlers=for_handlers,
            desired=self.current,
            wall=wall,
            mono=world.clocks.steady,
            report_given_up=self.given_up.report_given_up,
            waiters=self.waiters,
            abandoned=AbandonedRequests(),
            stall=StallWatch(world.clocks.steady),
        )
        methods = {
            name: Method(
                info=method.info
                if world.has_prompt_handlers
                else dataclasses.replace(method.info, is_prompt=False),
                make=functools.partial(EffectHandler, world),
                orders=method.orders,
            )
            for name, method in METHODS.items()
        }
        hello = METHODS[HELLO]
        methods[HELLO] = Method(info=hello.info, make=lambda: NotedHandler(world, hello))
        self.stall = services.stall
        factory = WorkerFactory(methods, services)
        self.pool = WorkerPool(factory.build, self.telemetry, wall=wall, on_ended=self._trigger.set)
        self.follower = LaneFollower(store, self.router, self._trigger.set)
        store.on_new_lane.append(lambda *_: self._trigger.set())
        self.line.on_connected(self._on_connected)

    async def _reconcile(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._trigger.clear()
            plan = make_plan(self._wanted(), self.pool.observe(), loop.time())
            if not plan.is_empty:
                await self.pool.apply(plan, DRAIN_S)
            self._has_passed.set()
            delay_s = PASS_S
            if plan.next_due_mono is not None:
                delay_s = min(delay_s, max(0.05, plan.next_due_mono - loop.time()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._trigger.wait()

    def _wanted(self) -> dict[WorkerKey, WorkerSpec]:
        store = cast(MessageStore, self.store)
        self.follower.look(self.desired, self.pool)
        extra = find_extra_workers(self.desired, self.pool, store, self.router)
        return {**extra, **self.desired.workers}

    def _report(self, node: str, text: str, method: str) -> None:
        self.error_reports.report(node, text, method=method)

    def _on_connected(self) -> None:
        self.pool.retry_now()
        self._trigger.set()

    def _node_seen(self, node: NodeName, *, is_appliance: bool) -> None:
        if is_appliance:
            self.peers.learn(node)
        for publisher in self.pool.each(Publisher):
            publisher.node_seen(node)

    @property
    def desired(self) -> DesiredState:
        """The config in force, or to be started with."""
        return self.current.value

    @desired.setter
    def desired(self, desired: DesiredState) -> None:
        self.current.put(desired)

    def reload(self, desired: DesiredState) -> None:
        """Another config is in force from now on; the pool follows in the next pass."""
        self.current.put(desired)
        if not self.is_dead:
            self.router.route_by(desired)
            self._trigger.set()

    async def stop(self) -> None:
        """An orderly end, as at SIGTERM."""
        if self.is_dead:
            return
        loop = asyncio.get_running_loop()
        for service in self._services:
            service.cancel()
        await asyncio.wait(self._services)
        deadline = loop.time() + DRAIN_S
        await self.pool.stop_all(deadline, ["subscriber"])
        await self.pool.stop_all(deadline, ["publisher"])
        await self.follower.close()
        await self.peers.close()
        await self.given_up.close()
        await self.line.bus.close()
        await self.store.close()
        self.is_dead, self.is_up = True, False

    def kill(self) -> None:
        """`kill -9`: nothing reaches disk or wire from this moment on."""
        if self.is_dead:
            return
        self.store.crash()
        self._die()

    def _die(self) -> None:
        self.is_dead, self.is_up = True, False
        self.died_at.append(self.world.clocks.steady())
        if hasattr(self, "line"):
            self.line.kill()
        for task in list(self._generation):
            task.cancel()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task of this process began."""
        self._generation.add(task)
        task.add_done_callback(self._generation.discard)
        if self.is_dead:
            task.cancel()  # it was begun by something that is being cut off

    # -- what a caller does -----------------------------------------------------------------------

    async def submit(
        self,
        texts: Sequence[str],
        *,
        to: str = "beta",
        method: str = "REQToFileAppend",
        from_node: str | None = None,
        retries: int | None = None,
        expires_s: float | None = None,
        order: str = "",
        **fields: Any,
    ) -> list[int]:
        """Accept one message for each text; their ids. With `order` it is a word about what the method has begun.

        Raises what the store raises, and CancelledError when killed."""
        records = [
            self.router.make_record(
                Message(
                    to_node=to,
                    from_node=from_node or self.desired.run_nodes[0],
                    method=method,
                    data=(text,),
                    **fields,
                ),
                retries=retries,
                expires_s=expires_s,
                order=order,
            )
            for text in texts
        ]
        for text, record in zip(texts, records, strict=True):
            self.world.offered[text] = record.id
        await self.run(self.store.put(records))
        for text, record in zip(texts, records, strict=True):
            self.world.accepted[text] = (self.name, record.id)
        return [record.id for record in records]

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something as this process: when that is killed it is cancelled."""
        context = contextvars.copy_context()
        context.run(_OWNER.set, self)
        task = asyncio.get_running_loop().create_task(work, context=context)
        return await task


class World:
    """See the module. Made inside `run_virtual`; `async with` ends every daemon in order."""

    line_class: type[Line] = Line
    store_class: type[MemoryStore] = MemoryStore
    has_prompt_handlers: bool = True
    """Whether those never wait that say so; a scenario in which they do is one of two commits."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.clocks = Clocks()
        self.broker = StreamingBroker(
            rng=random.Random(seed), policy=lambda passage: self.policy(passage)
        )
        self.policy: Callable[[Passage], Iterable[float]] = lambda _: (0.0,)
        self.daemons: dict[str, Daemon] = {}
        self.log = EffectLog()
        self.behaviour: dict[str, Behaviour] = {}
        self.default_behaviour = Behaviour()
        self.offered: dict[str, int] = {}
        self.accepted: dict[str, tuple[str, int]] = {}
        """Text of each message whose acceptance was confirmed: sending daemon and id."""
        self.sent: list[Sent] = []
        self.heard_working: dict[tuple[str, int], list[float]] = {}
        """When a sending daemon heard that somebody works on a message of its own."""
        self.swallows: dict[str, Callable[[Sent], bool]] = {}
        """By daemon: told of every frame that goes out; whether it is lost on the way. May raise BusUnavailable."""
        self.hears: dict[str, Callable[[BusMessage], None]] = {}
        """By daemon: told of every message before it is handed over."""
        self.on_run_end: Callable[[Run], None] = lambda _: None
        self.permissions: dict[str, Permissions] = {}
        """What clients may do, by name; in force from their next connection on."""
        self._strangers: list[Stranger] = []
        self.faults: list[str] = []
        """What was done to it, in words."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.set_task_factory(_make_task)
        self._loop = loop

    # -- making -----------------------------------------------------------------------------------

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for daemon in self.daemons.values():
            if kind is None:
                await daemon.stop()
            else:
                daemon.kill()
        for stranger in self._strangers:
            await stranger.bus.close()

    async def add_daemon(
        self, name: str, config: str, nodes: Sequence[str], *, start: bool = True
    ) -> Daemon:
        """A daemon that runs `nodes` of a config, on a disk of its own."""
        disk = MemoryDisk(instance=f"{len(self.daemons) + 1:016x}")
        daemon = self.daemons[name] = Daemon(self, name, disk, desired_of(config, tuple(nodes)))
        if start:
            await daemon.start()
        return daemon

    async def connect(self, name: str) -> MemoryBus:
        """A client of the broker's."""
        permissions = self.permissions.get(name, Permissions())
        return await MemoryBus.open(self.broker, name=name, permissions=permissions)

    @staticmethod
    def desired(config: str, *nodes: str) -> DesiredState:
        """What a config means for a daemon of these nodes."""
        return desired_of(config, nodes)

    @staticmethod
    def without(desired: DesiredState, method: str) -> DesiredState:
        """The same without the workers of a method, as if an operator had stopped them."""
        kept = {key: spec for key, spec in desired.workers.items() if spec.method != method}
        return dataclasses.replace(desired, workers=kept)

    async def add_stranger(self, subject: str, *, answers: bool) -> Stranger:
        """Somebody who is no appliance and subscribes to a request subject."""
        node = subject.partition(".")[0]
        bus = await self.connect(f"stranger {node}")
        stranger = Stranger(self, bus, node, answers)
        await bus.subscribe(subject, stranger.take, queue=subject)
        self._strangers.append(stranger)
        return stranger

    def sends(self, text: str) -> list[float]:
        """When a message was handed to the wire by its sender, each time."""
        number = self.offered[text]
        return [
            sent.at
            for sent in self.sent
            if ".reply." not in sent.subject
            and sent.headers.get("appl-id", "").split("-")[1:2] == [str(number)]
        ]

    # -- faults -----------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Remember what is done to the world, for the one who has to understand a failure."""
        self.faults.append(f"{self._loop.time():.3f} {text}")

    async def disconnect(self, daemon: Daemon, seconds: float) -> None:
        """The connection breaks, both sides know, and a new one comes up after a while."""
        daemon.line.stay_away(seconds)
        await asyncio.sleep(seconds)

    async def go_dark(self, daemon: Daemon, seconds: float) -> None:
        """Nothing gets through to or from the daemon, and nothing says so.

        The client notices after some pings and connects anew when the line is back. The broker notices later, and until
        then hands the old connection its share of what is for the queue groups.
        """
        line = daemon.line
        line.bus.stall()
        await asyncio.sleep(min(seconds, NOTICES_DARK_AFTER_S))
        if daemon.is_dead or daemon.line is not line:
            return
        if seconds <= NOTICES_DARK_AFTER_S:
            line.bus.resume()
            return
        rest_s = seconds - NOTICES_DARK_AFTER_S
        line.stay_away(rest_s, noticed_after_s=BROKER_NOTICES_AFTER_S - NOTICES_DARK_AFTER_S)
        await asyncio.sleep(rest_s)

    async def restart_broker(self, seconds: float) -> None:
        """The broker is gone for a while, and with it whatever it had not handed on."""
        if self.broker.is_up:
            self.broker.stop()
            await asyncio.sleep(seconds)
            self.broker.start()

    async def kill_for(self, daemon: Daemon, seconds: float) -> None:
        """`kill -9`, and a new process after a while."""
        daemon.kill()
        await asyncio.sleep(seconds)
        if daemon.is_dead:
            await daemon.start()

    async def revive_the_dead(self, after_s: float) -> None:
        """Start whoever died anew, until cancelled."""
        while True:
            for daemon in self.daemons.values():
                if daemon.is_dead and self._loop.time() >= daemon.died_at[-1] + after_s:
                    self.note(f"{daemon.name} starts anew")
                    await daemon.start()
            await asyncio.sleep(0.25)

    async def settle(self, limit_s: float, *, until: Callable[[], bool]) -> bool:
        """Let time pass until it is so; whether it became so."""
        ends_at = self._loop.time() + limit_s
        step_s = 0.05
        while not until():
            if self._loop.time() >= ends_at:
                return False
            await asyncio.sleep(step_s)
            step_s = min(step_s * 1.5, 10.0)
        return True

    def is_quiet(self) -> bool:
        """Whether nothing waits anywhere: outboxes empty but for dead letters, inboxes empty, no handler at work."""
        return all(
            daemon.is_up
            and not daemon.disk.records
            and not daemon.disk.inbox
            and all(_is_at_rest(handle.worker) for handle in daemon.pool.handles.values())
            for daemon in self.daemons.values()
        ) and not any(self.kept_messages())

    def kept_messages(self) -> Iterator[str]:
        """Subjects of the messages that streams hold for nodes."""
        for stream in self.broker.streams.values():
            for subject, _, _ in stream.messages.values():
                if ".claim." not in subject:
                    yield subject


@dataclass(slots=True)
class Stranger:
    """A client of the broker that is no appliance: it takes what comes to a subject and answers as `answers` says."""

    world: World
    bus: MemoryBus
    node: str
    answers: bool
    heard: list[tuple[float, BusMessage]] = field(default_factory=list)

    def take(self, messages: list[BusMessage]) -> None:
        """As a node written in Go: the payload of an acknowledgement says it all."""
        for message in messages:
            self.heard.append((self.world.clocks.steady(), message))
            if self.answers and message.reply_to:
                number = message.headers["appl-id"].split("-")[1]
                payload = f"confirmed from: {self.node}: {number}".encode()
                self.bus.send([(message.reply_to, "", b"", payload)])


def _is_at_rest(worker: Any) -> bool:
    return not getattr(worker, "unfinished", 0)


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    context: contextvars.Context | None = None,
) -> asyncio.Task[Any]:
    """Every task belongs to the process that began it."""
    task = asyncio.Task(coroutine, loop=loop, context=context)
    owner = context.get(_OWNER) if context is not None else _OWNER.get()
    if owner is not None:
        owner.adopt(task)
    return task


@functools.lru_cache(maxsize=1_000)
def desired_of(config: str, nodes: tuple[str, ...]) -> DesiredState:
    """The desired state of a config's text for these nodes."""
    with tempfile.TemporaryDirectory(prefix="heart-") as directory:
        return load_text(Path(directory), config, run_nodes=nodes).desired


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Thousands of daemons that are killed have much to say; nobody reads it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
