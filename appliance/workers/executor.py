"""The second half of a subscriber: runs handlers in order of arrival, at most `concurrency` at once.

Handlers that never wait run one after the other in one loop; as soon as one waits, the next loop begins. What came of a
message is made into records by `ReplyBuilder`, and goes to `Finishing`, which commits it and answers the sender.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from appliance.core.current import Current
from appliance.core.message import Message
from appliance.core.method import OnCrash
from appliance.core.specs import AckOn, SubscriberSpec
from appliance.delivery.base import Confirmation, Intake
from appliance.dialect.headers import BEGUN_ELSEWHERE
from appliance.errors import (
    REFUSALS,
    AnswerTooLarge,
    AnswerUnwanted,
    ApplianceError,
    BeginAgain,
    DecodeError,
    HandlerError,
)
from appliance.methods.base import FilePosition, HandlerContext, Method, Result
from appliance.methods.programs.running import CALLED_OFF, ProgramKey
from appliance.outbox.records import DONE_VERDICT
from appliance.telemetry.stats import WorkerStats
from appliance.workers.bounded import rest_within
from appliance.workers.calling_off import CallingOff
from appliance.workers.finishing import Finishing
from appliance.workers.incoming import Incoming, Waiting, wire_limits
from appliance.workers.replies import is_for_caller_only
from appliance.workers.reply_builder import ReplyBuilder
from appliance.workers.reply_policy import ReplyPolicy
from appliance.workers.reply_writer import ReplyOrder, ReplyWriter
from appliance.workers.services import WorkerServices

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
YIELD_EVERY = 64
MAX_RUN_S = 0.01
"""How long handlers that never wait may go on before everybody else gets a turn."""
SOON_S = 0.05
"""Until its turn comes a message may be on no disk and not acknowledged for so long, where it needs to be on none before."""
_DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS})

_BEGUN_ELSEWHERE_TEXT = (
    "interrupted: the appliance that may have begun it stays away; it was not run again"
)


class Drain:
    """The end of a subscriber, once it has begun."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ends_mono: float | None = None
        """What still runs then is cut off."""
        self.left: list[Incoming] = []
        """Not begun any more: on disk, for whoever takes over."""

    def begin(self, ends_mono: float) -> None:
        """From here on nothing begins that would be cut off and never be run again."""
        self.ends_mono = ends_mono
        self.begun.set()


class Executor:
    """Queue of admitted messages, and the loops that handle them."""

    def __init__(
        self,
        spec: SubscriberSpec,
        method: Method,
        services: WorkerServices,
        *,
        intake: Intake,
        scope: str,
        stats: WorkerStats,
        on_progress: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.scope = scope
        self.method = Current(method)
        self._services = services
        self._spec_in_force = Current(spec)
        """For the parts that read it now and then; `spec` is the same, for every message."""
        self._reply_policy = ReplyPolicy(services, self._spec_in_force)
        self.reply_builder = ReplyBuilder(
            services, self._reply_policy, self._spec_in_force, self.method
        )
        self._reply_order = ReplyOrder(self.reply_builder.tell_reply)
        self._stats = stats
        self._mono = services.mono
        self._on_progress = on_progress
        self.queue: deque[Incoming] = deque()
        self.waiting = Waiting()
        """What those in the queue, and those that are taken in meanwhile, take."""
        self._running: set[Incoming] = set()
        self.finishing = Finishing(
            spec,
            services,
            intake=intake,
            scope=scope,
            must_send=self.reply_builder.must_send,
            on_progress=on_progress,
        )
        self._calling_off = CallingOff(
            services, scope, self._spec_in_force, self.unfinished, self._conclude_called_off
        )
        self.drain = Drain()
        self._group: asyncio.TaskGroup | None = None
        self._loops = 0
        self._starting = 0
        """Loops that have been made and have not run yet."""

    # -- state ------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Messages in hand, those whose commit is under way included."""
        return len(self.queue) + len(self._running) + len(self.finishing)

    @property
    def runs_once(self) -> bool:
        """Whether a message that a crash cut off is not run again, here or elsewhere."""
        return self.method.value.info.on_crash is OnCrash.INTERRUPT and not self.spec.rerun

    def end_soon(self, count: int) -> bool:
        """Whether so many messages that come now are handled within a moment, going by how long others took."""
        mean_s = self._stats.handler.mean(0.0)
        return not self._running and (len(self.queue) + count) * mean_s <= SOON_S

    @property
    def held_count(self) -> int:
        """Messages that wait: for their turn, or handled for their commit."""
        return len(self.queue) + len(self.finishing)

    def unfinished(self) -> list[Incoming]:
        """Everything that a stop now would cut off."""
        return [*self.queue, *self.drain.left, *self._running, *self.finishing.works]

    def busy_ms(self, least: int, most: int) -> int:
        """After how many milliseconds there may be room, going by how long handlers have taken so far."""
        mean_s = self._stats.handler.mean(0.05)
        wait_s = mean_s * (len(self.queue) + 1) / max(1, self.spec.concurrency) / 4
        return int(min(most, max(least, wait_s * 1000)))

    def enqueue(self, works: list[Incoming]) -> None:
        """Hand messages over, in order; they are counted already (`waiting`)."""
        if not works:
            return
        self.queue.extend(works)
        for work in works:
            if work.stream:
                self._reply_order.enter(work)
        self.spawn_loops()

    def obey(self, works: list[Incoming]) -> None:
        """Words about what runs here wait for none of it, however many run."""
        if self._group is None:
            self.enqueue(works)
            return
        for work in works:
            self.waiting.remove(work)
            self._handle_beside(self._group, work, None)

    def use(self, spec: SubscriberSpec) -> None:
        """More concurrency holds for what is queued already."""
        self.spec = self.finishing.spec = spec
        self._spec_in_force.put(spec)
        self.spawn_loops()

    # -- loops ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit finished messages until cancelled; handler loops come and go inside."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.spawn_loops()
            telling = group.create_task(
                self.finishing.telling.run(), name=f"tell {self.spec.key.name}"
            )
            try:
                await self.finishing.run()
            finally:
                self._group = None
                telling.cancel()

    def spawn_loops(self) -> None:
        """See that somebody takes what is queued: one loop more than those that wait, up to the bound in force now."""
        if (
            self._group is not None
            and self.queue
            and not self._starting
            and self._loops < self.spec.concurrency
        ):
            self._loops += 1
            self._starting += 1
            self._group.create_task(self._handle_loop(), name=f"handle {self.spec.key.name}")

    async def _handle_loop(self) -> None:
        self._starting -= 1
        handled = 0
        queue, running, drain = self.queue, self._running, self.drain
        look = asyncio.get_running_loop().time
        yield_at = look() + MAX_RUN_S
        try:
            # a bound that a reload has lowered ends loops, one message later
            while queue and self._loops <= self.spec.concurrency:
                work = queue.popleft()
                # from here it counts as running and not as waiting, for the share of its sender
                self.waiting.remove(work)
                if drain.ends_mono is not None and self._ends_after(drain.ends_mono, work, look()):
                    drain.left.append(work)
                    continue
                begun: _Begun | None = None
                # the short way: most handlers end in their first step. Not for replies, whose order is kept in
                # `finally`, and not for what has to be marked on disk first
                if not work.is_reply and work.message is not None and not self._needs_mark(work):
                    begun = self._begin(work, work.message)
                    if begun is None:
                        handled += 1
                        if handled % YIELD_EVERY and look() <= yield_at:
                            continue
                        await asyncio.sleep(0)
                        yield_at = look() + MAX_RUN_S
                        continue
                running.add(work)
                try:
                    if begun is not None:
                        await self._go_on(begun)
                    else:
                        await self._handle_opened(work)
                finally:
                    if work.stream:
                        self._reply_order.leave(work)
                    running.discard(work)
                handled += 1
                if not handled % YIELD_EVERY or look() > yield_at:
                    # a handler that never waits must not keep the loop from the sockets
                    await asyncio.sleep(0)
                    yield_at = look() + MAX_RUN_S
        finally:
            self._loops -= 1
            self._stats.in_flight = len(running)
        if queue:
            self.spawn_loops()
        self._on_progress()

    @property
    def is_free(self) -> bool:
        """Whether a message that comes now can be handled in this very turn of the event loop, and overtakes none."""
        return self._group is not None and not self.queue and not self._running

    def handle_now(self, works: list[Incoming]) -> None:
        """Handle messages that `may_be_done_at_once`, and hand over what came of them; none of them is held."""
        self.finishing.gather()
        for work in works:
            message = work.message
            assert message is not None
            begun = self._begin(work, message)
            if begun is None:
                work.message = None  # its commit may take a while, and memory with it
            else:
                assert self._group is not None
                self._handle_beside(self._group, work, begun)
        self.finishing.flush()

    def _handle_beside(
        self, group: asyncio.TaskGroup, work: Incoming, begun: _Begun | None
    ) -> None:
        """In no loop, and beside all that these run."""
        self._running.add(work)
        group.create_task(self._handle_alone(work, begun), name=f"handle {self.spec.key.name}")

    async def _handle_alone(self, work: Incoming, begun: _Begun | None) -> None:
        try:
            if begun is not None:
                await self._go_on(begun)
            else:
                await self._handle_opened(work)
        finally:
            self._running.discard(work)
            # it waits for the disk, and what it ended may have ended before it
            self._stats.in_flight = len(self._running)
            self._on_progress()

    async def _handle_opened(self, work: Incoming) -> None:
        try:
            message = work.message or work.opened(wire_limits(self._services.desired.value))
        except DecodeError as error:
            text = self._services.hiding.text(str(error))
            self.finishing.add((work, (), f"failed: undecodable: {text}"))
            return
        if self._needs_mark(work) and BEGUN_ELSEWHERE in work.block:
            self._fail(work, message, HandlerError(_BEGUN_ELSEWHERE_TEXT), None)
            return
        if work.is_reply:
            # before anything that waits: pieces are kept in the order in which they came
            self.reply_builder.file_reply(work, message)
        if work.is_reply and is_for_caller_only(work, message):
            self._reply_order.say(work)
            # who still speaks hears of it with the word that this piece is done
            work.is_unwanted = self._services.abandoned.is_unwanted(work, message)
            self.finishing.add((work, self.reply_builder.forwarded(work, message), DONE_VERDICT))
            return
        await self._handle(work, message)

    def _begin(self, work: Incoming, message: Message) -> _Begun | None:
        """Run the handler up to its first wait: most end before one, and cost no task and no timer then.

        None when it has ended, done or failed; else what `_go_on` has to wait for.
        """
        started = self._mono()  # NB: the loop's own clock knows whole milliseconds only
        context = _MessageContext(self, work, message)
        handling = work.handler.handle(message, context)  # type: ignore[arg-type]
        try:
            waits_for = handling.send(None)
        except StopIteration as ended:
            self._conclude_handling(work, message, ended.value, context, started)
            return None
        except Exception as error:  # noqa: BLE001 - the boundary around a handler: every failure becomes a value
            return _Begun(work, message, context, started, None, None, error)
        except asyncio.CancelledError:
            return _Begun(work, message, context, started, None, None, _own_cancellation())
        return _Begun(work, message, context, started, handling, waits_for, None)

    async def _go_on(self, begun: _Begun) -> None:
        """Wait for the rest of a handler that has begun; after trouble with the disk it is tried again."""
        work, message, context = begun.work, begun.message, begun.context
        delay_s = RETRY_FIRST_S
        failure = begun.error
        if work.reply_tos and work.ack_on is AckOn.RECEIVED:
            # it was to be done at once (see `may_be_done_at_once`), and so was what is behind it
            self.finishing.telling.add_unacknowledged([work, *self.queue])
        handling, waits_for = begun.handling, begun.waits_for
        self._on_handler_waits()
        while True:
            if handling is not None:
                try:
                    result = await rest_within(handling, waits_for, self._limit_s(work, message))
                except Exception as error:  # noqa: BLE001 - the boundary around a handler, as in `_begin`
                    failure = error
                except asyncio.CancelledError:
                    failure = _own_cancellation()
                else:
                    self._conclude_handling(work, message, result, context, begun.started)
                    return
            assert failure is not None
            if not (isinstance(failure, OSError) and failure.errno in _DISK_TROUBLE):
                self._conclude_failure(work, message, failure, context)
                return
            self._services.telemetry.worker_troubled(
                self.spec.key, f"waiting to handle {message.id}: {failure}"
            )
            # what it had said meanwhile is not waited for: the next try says it anew
            context.close()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)
            again = self._begin(work, message)
            if again is None:
                return
            context, failure = again.context, again.error
            handling, waits_for = again.handling, again.waits_for

    async def _handle(self, work: Incoming, message: Message) -> None:
        if self._needs_mark(work):
            await self._mark_started(work, message)
        begun = self._begin(work, message)
        if begun is not None:
            await self._go_on(begun)

    def _conclude_handling(
        self,
        work: Incoming,
        message: Message,
        result: Result,
        context: _MessageContext,
        started: float,
    ) -> None:
        outlet = context.outlet
        if outlet is not None:
            outlet.close()
        stats = self._stats
        stats.handled += 1
        stats.handler.observe(self._mono() - started)
        if work.is_reply:
            self._reply_order.say(work)
        try:
            records = self.reply_builder.of_result(work, message, result, outlet)
        except AnswerTooLarge as error:
            self._fail(work, message, error, outlet)
            return
        self.finishing.add((work, records, DONE_VERDICT))

    def _conclude_failure(
        self, work: Incoming, message: Message, error: Exception, context: _MessageContext
    ) -> None:
        context.close()
        if isinstance(error, AnswerUnwanted):
            work.is_unwanted = True
            self._stats.handled += 1
            self.finishing.add((work, (), DONE_VERDICT))
            return
        self._fail(work, message, error, context.outlet)

    def _conclude_called_off(self, work: Incoming) -> None:
        """Its turn does not come any more; what has begun meanwhile ends by itself."""
        if work not in self.queue:
            return
        self.queue.remove(work)
        self.waiting.remove(work)
        key = ProgramKey(work.sender, work.identity.instance or "", work.identity.message_id)
        self._services.for_handlers.programs.let_begin(key)
        try:
            message = work.opened(wire_limits(self._services.desired.value))
        except DecodeError:
            self.finishing.add((work, (), f"failed: {CALLED_OFF}"))
        else:
            self._fail(work, message, HandlerError(CALLED_OFF), None)
        self._on_progress()

    def _needs_mark(self, work: Incoming) -> bool:
        return work.row_id is not None and self.runs_once

    def _ends_after(self, end_mono: float, work: Incoming, now: float) -> bool:
        """Whether it would be cut off by then, going by how long others took, and never be run again."""
        return self._needs_mark(work) and now + self._stats.handler.mean(0.0) > end_mono

    async def _mark_started(self, work: Incoming, message: Message) -> None:
        """Note durably that a message which must not run twice is about to run."""
        # the mark waits for the disk, and whoever comes next need not
        self.spawn_loops()
        row_id = work.row_id
        assert row_id is not None
        await self._services.until_stored(
            lambda: self._services.store.mark_started([row_id]),
            self.spec.key,
            f"cannot start {message.id}",
        )

    def _limit_s(self, work: Incoming, message: Message) -> float | None:
        # a handler that minds the time itself gets a moment to say what it did before it is cut off
        return (
            None
            if self.method.value.info.keeps_time
            else self.timeout_of(work, message) + self.spec.stop_grace_s + 5.0
        )

    def _on_handler_waits(self) -> None:
        self._stats.in_flight = len(self._running)
        if self.queue:
            self.spawn_loops()

    def timeout_of(self, work: Incoming, message: Message) -> float:
        """Seconds that the message has: its own methodTimeout, else the spec's."""
        if message.method_timeout_s > 0 and not work.identity.timeout_filled:
            return float(message.method_timeout_s)
        return self.spec.method_timeout_s

    def will_tell(self, work: Incoming, said: list[Confirmation]) -> None:
        """The sender of a message that is not acknowledged yet is to hear in the meantime that it is worked on.

        At once for what must not be begun by another daemon as well; that word goes to `said`.
        """
        self.finishing.telling.add(work, said if self.runs_once else None)

    # -- outcomes ---------------------------------------------------------------------------------

    def _fail(
        self, work: Incoming, message: Message, error: Exception, outlet: ReplyWriter | None
    ) -> None:
        """A handler refused or broke. That is what is remembered of the message, and what its sender hears."""
        self._stats.failed += 1
        text = (
            str(error)
            if isinstance(error, ApplianceError)
            else f"internal error: {type(error).__name__}: {error}"
        )
        if isinstance(error, TimeoutError):
            text = "the handler did not end in time"
        # once, for everybody who hears of it: the log, errorCentral, the sender, the store
        text = self._services.hiding.text(text)
        # what is asked for again comes again, or its sender says what became of it: nobody else has to look
        if not isinstance(error, BeginAgain):
            self._services.telemetry.handler_failed(
                self.spec.key, message.from_node, message.id, text
            )
            self._services.error_reports.report(
                self.spec.node,
                f"{message.method} {message.id} failed: {text}",
                method=message.method,
            )
        if work.is_reply:
            # whoever waits for it sees it all the same, and why it lies nowhere
            self.reply_builder.tell_not_filed(work, message, text)
            self._reply_order.say(work)
        word = "refused" if isinstance(error, REFUSALS) else "failed"
        records = self.reply_builder.of_failure(work, message, text, outlet)
        self.finishing.add((work, records, f"{word}: {text}"))


def _own_cancellation() -> HandlerError:
    """The error of a handler that was cancelled by something of its own; raises on if this task is being cancelled."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise
    return HandlerError("the handler was cancelled from within")


class _MessageContext:
    """The `HandlerContext` of one message, made when the handler first looks at it; most never do."""

    __slots__ = ("_executor", "_made", "_message", "_work", "outlet")

    def __init__(self, executor: Executor, work: Incoming, message: Message) -> None:
        self._executor = executor
        self._work = work
        self._message = message
        self._made: HandlerContext | None = None
        self.outlet: ReplyWriter | None = None

    def close(self) -> None:
        """The handler has ended."""
        if self.outlet is not None:
            self.outlet.close()

    def __getattr__(self, name: str) -> object:
        made = self._made
        if made is None:
            made = self._made = self._make()
        return getattr(made, name)

    def _make(self) -> HandlerContext:
        executor, work, message = self._executor, self._work, self._message
        services, spec = executor._services, executor.spec
        lent = services.for_handlers
        is_appliance = work.identity.is_appliance
        self.outlet = ReplyWriter(
            message, spec.node, services, executor._reply_policy, asker_is_appliance=is_appliance
        )
        row_id = work.row_id

        async def intend(position: FilePosition) -> None:
            if row_id is not None:
                await services.store.note(row_id, position.to_note())

        return HandlerContext(
            node=spec.node,
            spec=spec,
            timeout_s=executor.timeout_of(work, message),
            now=services.wall(),
            files=lent.files,
            console=lent.console,
            hellos=lent.hellos,
            list_workers=lambda: lent.list_workers(spec.node),
            switch=lent.switch,
            intend=intend,
            outlet=self.outlet,
            headers=work.headers,
            asker_is_appliance=is_appliance,
            signer=work.signer,
            is_known_appliance=services.peers.is_appliance,
            files_taker=lent.files_taker,
            max_payload_bytes=services.bus.max_payload,
            leaving=executor.drain.begun,
            resume=work.resume,
            hidden_environment=lent.hidden_environment.value,
            programs=lent.programs,
            call_off=executor._calling_off.call_off,
            program_key=ProgramKey(
                work.sender, work.identity.instance or "", work.identity.message_id
            ),
        )


class _Begun(NamedTuple):
    """A handler that has begun and not ended: it waits for something, or failed with `error` in its first step."""

    work: Incoming
    message: Message
    context: _MessageContext
    started: float
    handling: Coroutine[Any, Any, Result] | None
    waits_for: Any
    error: Exception | None
