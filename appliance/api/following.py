"""What somebody follows: the events of the daemon, and the fate of what was just submitted. Answers that go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
from aiohttp import web

from appliance.api.clients import Shares
from appliance.api.delivery import EVENTS, SIGNS_OF_LIFE, DeliveryWatch
from appliance.api.guards import FACE, WITHDRAWN, find_client
from appliance.api.model import Line, Submitted
from appliance.api.operations import Operations
from appliance.api.replies import encode_json, refuse, with_id_texts
from appliance.api.requests import JobRequest, SubmitRequest
from appliance.api.routing import route
from appliance.api.submission import COPY_COMMAND, STREAMED_METHODS
from appliance.core.durations import parse_duration
from appliance.core.specs import Scope
from appliance.errors import RequestInvalid, StoreError
from appliance.telemetry.events import Event, Listener
from appliance.workers.router import GO_METHOD_TIMEOUT_S

MAX_WAIT_S = 90_000.0
"""A day and an hour: a file may be followed for a day."""
MAX_STREAMS = 64
"""Event streams at once of one kind of client, and one client half as many; each costs a queue and a little of every
fact.
"""
MAX_FOLLOWED = 1_024
"""Likewise for requests that wait for the fate of their messages."""
HEARTBEAT_S = 15.0
"""A comment this often keeps the way open and finds out that the reader is gone."""
GONE_CHECK_S = 1.0
"""How soon it is noticed that the one who followed messages has gone, or that one waits for another reason, while
nothing is to be told.
"""
MAX_NUMBER_DIGITS = 18
"""Of an event; a longer one is none of ours."""
GONE_WORDS = "its caller, who has gone"
NDJSON = "application/x-ndjson"
LAST_WORDS_S = 5.0


class Following:
    """Serves both kinds; knows those under way so that they can be ended."""

    def __init__(self, control: Operations) -> None:
        self._control = control
        self._streams = Shares()
        self._followed = Shares()

    def end_all(self) -> None:
        """End every stream: the daemon stops."""
        self._control.events.close_listeners()

    async def follow_messages(
        self,
        request: web.Request,
        requests: Sequence[SubmitRequest],
        wait_s: float,
        idle_s: float | None = None,
        absent_s: float | None = None,
        job: JobRequest | None = None,
        grace_s: float | None = None,
    ) -> web.StreamResponse:
        """Submit, then one JSON line per thing that happens, until all is settled, the wait is
        over, no node gave a sign of life for `idle_s`, or for `absent_s` nobody was there for all that is left.

        With `grace_s` what was taken is waited for until so long after the time that the config gives its handler.
        """
        client = await find_client(request)
        if not self._followed.has_room(client, MAX_FOLLOWED):
            return refuse(503, "too many requests wait for their messages; try again later")
        began_mono = asyncio.get_running_loop().time()
        deadline_mono = began_mono + wait_s
        work_mono = deadline_mono
        if grace_s is not None:
            work_s = self._control.submission.longest_time_s(requests) + grace_s
            work_mono = max(deadline_mono, began_mono + min(work_s, MAX_WAIT_S))
        watch: DeliveryWatch | None = None

        def wants(event: Event) -> bool:
            return event["event"] in EVENTS and (watch is None or watch.concerns(event))

        # NB: listening starts before the put: an ack may be quicker than our answer to the caller
        with self._followed.held(client), self._control.events.listen(wants) as listener:
            submitted = await self._control.submission.submit(requests, job=job)
            watch = DeliveryWatch(submitted, self._control.programs.understands)
            response = web.StreamResponse(status=202, headers={"Content-Type": NDJSON})
            try:
                await response.prepare(request)
                await self._tell_fates(
                    request,
                    response,
                    watch,
                    listener,
                    deadline_mono,
                    idle_s,
                    absent_s,
                    asked=_asked_for_caller(requests, submitted),
                    seed_s=_seed_time_s(requests),
                    work_mono=work_mono,
                )
            except ConnectionError:
                pass  # the one who asked has gone
            else:
                with contextlib.suppress(StoreError):
                    await self._control.submission.forget_awaited(watch.answered)
            finally:
                if _is_gone(request):
                    self._control.copies.give_up(requests)
                    await self._take_back(requests, watch, job)
                # a copy that nobody waits for is given up; what a program says is kept all the same
                is_kept = job is not None and job.command != "cp"
                left = watch.left_speaking(is_kept=is_kept)
                if left and any(asked.for_caller for asked in requests):
                    # so that who still speaks to a caller that has gone is told to stop; other answers are kept
                    self._control.abandoned.left(left)
            return response

    async def _take_back(
        self, requests: Sequence[SubmitRequest], watch: DeliveryWatch, job: JobRequest | None
    ) -> None:
        """What nobody has taken of that which is for nobody any more: a file that was to be followed, or copied to a caller
        that has gone, however it ended.
        """
        is_copy = job is not None and job.command == COPY_COMMAND
        is_followed = job is None and all(
            asked.for_caller and asked.method in STREAMED_METHODS for asked in requests
        )
        ids = watch.unheard()
        if ids and (is_copy or is_followed):
            with contextlib.suppress(StoreError):
                await self._control.outbox.drop(ids, dead_only=False, by=GONE_WORDS)

    async def _tell_fates(
        self,
        request: web.Request,
        response: web.StreamResponse,
        watch: DeliveryWatch,
        listener: Listener,
        deadline_mono: float,
        idle_s: float | None,
        absent_s: float | None = None,
        *,
        asked: Mapping[int, SubmitRequest] = MappingProxyType({}),
        seed_s: float = MAX_WAIT_S,
        work_mono: float = 0.0,
    ) -> None:
        await response.write(b"".join(map(_line, watch.opening())))
        dropped = 0
        loop = asyncio.get_running_loop()
        began_mono = loop.time()
        idle_mono = deadline_mono if idle_s is None else loop.time() + idle_s
        asked_mono = loop.time()
        absent_mono = seed_mono = deadline_mono
        while not watch.is_over:
            if absent_s is not None:
                # the first that somebody is there for again begins the time anew
                ends_mono = loop.time() + absent_s
                absent_mono = min(absent_mono, ends_mono) if watch.is_rest_absent else deadline_mono
            if watch.is_rest_open_ended and seed_mono == deadline_mono:
                # what a Go node runs has spoken, so it began before now, and is ended there when its time is over
                seed_mono = min(deadline_mono, loop.time() + seed_s)
            if deadline_mono < work_mono and watch.is_worked_on and loop.time() >= deadline_mono:
                # a handler whose time is over is told as such, and not as silent
                longer_s = work_mono - deadline_mono
                idle_mono, absent_mono = idle_mono + longer_s, absent_mono + longer_s
                seed_mono, deadline_mono = seed_mono + longer_s, work_mono
            left_s = min(deadline_mono, idle_mono, absent_mono, seed_mono) - loop.time()
            if left_s <= 0 or _is_gone(request) or WITHDRAWN in request:
                break
            # no longer, for nobody tells that the one who asked has gone
            event = await listener.next(min(left_s, GONE_CHECK_S))
            if event is None and listener.is_closed:
                break
            # told before what follows: whoever counts must know that something is missing
            if listener.dropped > dropped:
                dropped = listener.dropped
                await response.write(_line(Line(event="events_lost", count=dropped)))
            line = None
            if event is not None:
                now = loop.time()
                line = await self._go_on(
                    watch, event, asked, deadline_mono - now, now - began_mono
                ) or watch.take(event)
            if line is not None:
                await response.write(_line(line))
            # only what the other side does counts: our own tries and waits go on for a silent node as well
            if event is not None and idle_s is not None and event["event"] in SIGNS_OF_LIFE:
                idle_mono = loop.time() + idle_s
            if loop.time() - asked_mono >= GONE_CHECK_S:
                asked_mono = loop.time()
                await self._tell_standings(response, watch)
        if listener.is_closed:
            # no word of an end: what was accepted goes on when we are back, and nobody's time is over
            await response.write(_line(Line(event="stopping")))
            await response.write_eof()
        elif WITHDRAWN in request:
            # what was accepted goes on; only nobody is told any more
            await response.write(_line(Line(event="withdrawn", reason=request[WITHDRAWN])))
            await response.write_eof()
        elif not _is_gone(request):
            # a daemon that had much to do comes to the end of a wait late: what happened before it is told first
            for event in listener.take_waiting():
                if not watch.is_over and (line := watch.take(event)) is not None:
                    await response.write(_line(line))
            # once more, as a message may have come to stand elsewhere within the last second
            await self._tell_standings(response, watch)
            await response.write(_line(watch.end(lost_events=listener.dropped)))
            await response.write_eof()

    async def _go_on(
        self,
        watch: DeliveryWatch,
        event: Event,
        asked: Mapping[int, SubmitRequest],
        left_s: float,
        taken_s: float,
    ) -> Line | None:
        """Ask once more, from where an answer was cut off by the end of its node's daemon; the line that tells so."""
        found = watch.cut_off(event)
        if found is None or left_s < LAST_WORDS_S:
            return None
        item, place = found
        first = asked.get(item.id or 0)
        option = self._control.submission.goes_on_with(first.method if first is not None else "")
        if first is None or not option:
            return None
        # it was to go on for so long, and not until nobody waits any more
        span_s = min(left_s, (first.method_timeout or left_s) - taken_s)
        if span_s < 1:
            return None
        again = msgspec.structs.replace(
            first,
            to_nodes=[item.to],
            method_args=[*(first.method_args or ())[:1], option, place],
            method_timeout=int(span_s),
            expires=span_s + LAST_WORDS_S,
        )
        try:
            (by,) = await self._control.submission.submit([again])
        except (RequestInvalid, StoreError):
            return None
        if not by.accepted:
            return None
        why = str(event.get("exit_status") or "").removeprefix("failed: ")
        return watch.go_on(item, by, why)

    async def _tell_standings(self, response: web.StreamResponse, watch: DeliveryWatch) -> None:
        """Lines for messages that stand elsewhere than was told last."""
        for item in watch.unsettled():
            standing = self._control.standings.of_submitted(item)
            line = None if standing is None else watch.note(item, standing)
            if line is not None:
                await response.write(_line(line))

    @route(
        "GET", "/api/v1/events", Scope.READ, "what happens, as server-sent events", allow_head=False
    )
    async def follow_events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events; `?kinds=a,b` or `?without=a,b` choose, `?recent=N` or Last-Event-ID reach back."""
        client = await find_client(request)
        if not self._streams.has_room(client, MAX_STREAMS):
            return refuse(503, "too many streams are open already; close one, or try again later")
        kinds = frozenset(filter(None, request.query.get("kinds", "").split(",")))
        without = frozenset(request.query.get("without", "").split(","))
        hides_data = request.app[FACE].is_tcp
        past = self._past(request)

        def wants(event: Event) -> bool:
            kind = event["event"]
            return kind not in without and (not kinds or kind in kinds)

        with self._streams.held(client), self._control.events.listen(wants) as listener:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            begin = b"".join(_frame(event, hides_data) for event in past if wants(event))
            await response.write(b": listening\n\n" + begin)
            dropped, quiet_s = 0, 0.0
            while not listener.is_closed:
                event = await listener.next(GONE_CHECK_S)
                if WITHDRAWN in request:
                    withdrawn = {"event": "withdrawn", "reason": request[WITHDRAWN]}
                    await response.write(_frame(withdrawn, hides_data))
                    break
                quiet_s = 0.0 if event is not None else quiet_s + GONE_CHECK_S
                if event is None and not listener.is_closed and quiet_s < HEARTBEAT_S:
                    continue
                quiet_s = 0.0
                if listener.dropped > dropped:
                    dropped = listener.dropped
                    lost = {"event": "events_lost", "count": dropped}
                    await response.write(_frame(lost, hides_data))
                await response.write(_frame(event, hides_data) if event else b": alive\n\n")
            await response.write_eof()
            return response

    def _past(self, request: web.Request) -> list[Event]:
        last = request.headers.get("Last-Event-ID", "")
        if last.isdecimal() and len(last) <= MAX_NUMBER_DIGITS:
            return self._control.events.recent(after=int(last))
        return self._control.events.recent(limit=read_count(request, "recent", 0, 1_000))


def _asked_for_caller(
    requests: Sequence[SubmitRequest], submitted: Sequence[Submitted]
) -> dict[int, SubmitRequest]:
    """What was asked for whoever waits, by message; there is one for each node of a request, in order."""
    asked = [request for request in requests for _ in request.to_nodes]
    return {
        item.id: request
        for item, request in zip(submitted, asked, strict=False)
        if item.id is not None and request.for_caller
    }


def _seed_time_s(requests: Sequence[SubmitRequest]) -> float:
    """How long a Go node goes on with what was asked of it, and what its last words take to come."""
    times = [asked.method_timeout or GO_METHOD_TIMEOUT_S for asked in requests]
    return max(times, default=GO_METHOD_TIMEOUT_S) + LAST_WORDS_S


_CONTENTS = frozenset({"data", "data_base64", "stderr", "stderr_base64"})


def _frame(event: Event, hides_data: bool) -> bytes:
    """One server-sent event. Contents of messages are for the unix socket only."""
    if hides_data and "data" in event:
        event = {name: value for name, value in event.items() if name not in _CONTENTS}
    number = f"id: {event['seq']}\n" if "seq" in event else ""
    shown = encode_json(with_id_texts(event))
    return f"{number}event: {event['event']}\ndata: ".encode() + shown + b"\n\n"


def _is_gone(request: web.Request) -> bool:
    """Whether the one who asked has closed the connection; a handler is not told otherwise."""
    return request.transport is None or request.transport.is_closing()


def _line(line: Line) -> bytes:
    return encode_json(line) + b"\n"


def read_wait(request: web.Request, name: str = "wait") -> float | None:
    """The `wait` of a query, or another span of it, in seconds.

    Raises:
        RequestInvalid: no duration, or beyond `MAX_WAIT_S`.
    """
    text = request.query.get(name)
    if text is None:
        return None
    try:
        wait_s = float(text) if text.replace(".", "", 1).isdecimal() else parse_duration(text)
    except ValueError as error:
        raise RequestInvalid(f"{name}: {error}") from error
    if wait_s > MAX_WAIT_S:
        raise RequestInvalid(f"{name}: {wait_s:g} s exceed the limit of {MAX_WAIT_S:g} s")
    return wait_s


def read_count(request: web.Request, name: str, default: int, most: int) -> int:
    """A number of a query, at most `most`.

    Raises:
        RequestInvalid: no number.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise RequestInvalid(f"{name} is no number")
    return min(int(text), most)
