"""Jobs, and files that are copied by them, through the API. Over TCP arguments and outputs are for who may send."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET

from appliance.api.audit import tell_audit
from appliance.api.copy_jobs import CopyJobs, CopyRequest
from appliance.api.following import NDJSON, read_count, read_wait
from appliance.api.guards import HIDING, OCTETS, may_see_contents, name_peer, read_body
from appliance.api.job_ending import JobEnding
from appliance.api.jobs import JobsView, NoSuchJob
from appliance.api.model import CopyKept, CopyLine, Job, Jobs
from appliance.api.programs import ProgramWords
from appliance.api.replies import encode_json, refuse, reply
from appliance.api.requests import JobToBegin, read_programs
from appliance.api.routing import route
from appliance.core.specs import Scope
from appliance.errors import ApplianceError, RequestInvalid

MAX_LISTED = 1_000
MAX_LOOK_S = 30.0
"""How long one question may wait for a change."""
MAX_NUMBER = 10**9 - 1

T = TypeVar("T")
_Handler = Callable[[T, web.Request], Awaitable[web.Response]]


def _found(handler: _Handler[T]) -> _Handler[T]:
    """A handler that says 404 where there is no such job."""

    @functools.wraps(handler)
    async def answer(routes: T, request: web.Request) -> web.Response:
        try:
            return await handler(routes, request)
        except NoSuchJob as error:
            return refuse(404, str(error))

    return answer


class JobRoutes:
    """Handlers over the jobs of this daemon."""

    def __init__(self, jobs: JobsView, ending: JobEnding, programs: ProgramWords) -> None:
        self._jobs = jobs
        self._ending = ending
        self._programs = programs

    @route(
        "GET",
        "/api/v1/jobs",
        Scope.READ,
        "what commands of operators asked, and what came of it; …/ID, …/ID/output; POST …/ID/cancel, …/retry",
    )
    async def list(self, request: web.Request) -> web.Response:
        """The newest first, without their nodes."""
        limit = read_count(request, "limit", 50, MAX_LISTED)
        jobs = await self._jobs.newest(limit)
        if not await may_see_contents(request):
            for job in jobs:
                hide_arguments(job)
        return reply(Jobs(jobs=jobs))

    @route("GET", "/api/v1/jobs/{id}", Scope.READ)
    @_found
    async def show(self, request: web.Request) -> web.Response:
        """One with its nodes; with `wait` after the next change, or when that time is over."""
        id_ = _id(request)
        wait_s = read_wait(request)
        if wait_s:
            self._jobs.find(id_)
            await self._jobs.wait_for_change(min(wait_s, MAX_LOOK_S))
        job = await self._jobs.show(id_)
        if not await may_see_contents(request):
            hide_arguments(job)
        return reply(job)

    @route("GET", "/api/v1/jobs/{id}/output", Scope.SEND)
    @_found
    async def output(self, request: web.Request) -> web.Response:
        """What was said, after a piece."""
        after = read_count(request, "after", 0, MAX_NUMBER)
        node = request.query.get("node")
        return reply(await self._jobs.output(_id(request), after=after, node=node))

    @route("POST", "/api/v1/programs", Scope.SEND, "POST: which programs run on nodes")
    async def list_programs(self, request: web.Request) -> web.Response:
        """What runs on nodes, asked of them."""
        asked = read_programs(await read_body(request))
        return reply(await self._programs.list(asked.nodes, asked.from_node))

    @route("POST", "/api/v1/jobs/{id}/cancel", Scope.SEND)
    @_found
    async def cancel(self, request: web.Request) -> web.Response:
        """End what waits and what runs; what came of it, node by node."""
        await read_body(request)
        tell_audit(request, job=_id(request))
        return reply(await self._ending.cancel(_id(request), by=await name_peer(request)))

    @route("POST", "/api/v1/jobs/{id}/retry", Scope.SEND)
    @_found
    async def retry(self, request: web.Request) -> web.Response:
        """Try again what was given up."""
        await read_body(request)
        tell_audit(request, job=_id(request))
        return reply(await self._ending.retry(_id(request)))


def hide_arguments(job: Job) -> None:
    """What was asked is for who may ask: the files of a copy are of that, too."""
    job.args = []
    for node in [] if job.nodes is UNSET else job.nodes:
        node.file = UNSET
    job.values_hidden = True


def _id(request: web.Request) -> str:
    return request.match_info["id"]


SHA256_HEADER = "X-Appliance-SHA256"
BLOCK_BYTES = 256 * 1024
BODY_IDLE_S = 60.0
"""How long a body may stand still."""
DEFAULT_WAIT_S = 30.0


_REQUEST = msgspec.json.Decoder(CopyRequest)
_JOB = msgspec.json.Decoder(JobToBegin)


class CopyRoutes:
    """Handlers over the daemon's copies."""

    def __init__(self, copies: CopyJobs) -> None:
        self._copies = copies

    @route("POST", "/api/v1/copies", Scope.SEND, "POST: bring a file for a node, or fetch one")
    async def begin(self, request: web.Request) -> web.StreamResponse:
        """201 with the token; of a copy whose content came with it the lines of `send`."""
        try:
            asked = _REQUEST.decode(await read_body(request))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestInvalid(f"unusable body: {error}") from error
        if (asked.from_node is None) == (asked.to_node is None):
            raise RequestInvalid("one of from_node and to_node is given")
        tell_audit(
            request,
            command="cp",
            from_node=asked.from_node,
            to=[asked.to_node] if asked.to_node else None,
            path=asked.path,
        )
        if asked.content is not None:
            by, into = await name_peer(request), request.query.get("into", "")
            wait_s = read_wait(request) or DEFAULT_WAIT_S
            return await _tell_copy(request, self._copies.send_whole(asked, wait_s, by, into))
        return reply(self._copies.begin(asked), 201)

    @route("PUT", "/api/v1/copies/{token}/content", Scope.SEND)
    async def bring(self, request: web.Request) -> web.Response:
        """The content, as it is."""
        if request.content_length is None:
            raise RequestInvalid("the content needs a Content-Length")
        blocks = _blocks(request)
        sha256 = await self._copies.store(_token(request), request.content_length, blocks)
        return reply(CopyKept(sha256=sha256))

    @route("POST", "/api/v1/jobs", Scope.SEND)
    async def begin_job(self, request: web.Request) -> web.Response:
        """201 with the id of a job for several files: what is copied `into` it is part of that."""
        try:
            asked = _JOB.decode(await read_body(request))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestInvalid(f"unusable body: {error}") from error
        if not 1 <= asked.files <= MAX_NUMBER:
            raise RequestInvalid("files: how many, at least 1")
        tell_audit(request, command="cp", files=asked.files)
        by = await name_peer(request)
        return reply(await self._copies.begin_job(asked, by, request.app[HIDING]), 201)

    @route("POST", "/api/v1/copies/{token}/send", Scope.SEND)
    async def send(self, request: web.Request) -> web.StreamResponse:
        """One JSON line now and then, the last one says what came of it."""
        wait_s = read_wait(request) or DEFAULT_WAIT_S
        by = await name_peer(request)
        into = request.query.get("into", "")
        return await _tell_copy(request, self._copies.send(_token(request), wait_s, by, into))

    @route("GET", "/api/v1/copies/{token}/content", Scope.SEND, allow_head=False)
    async def fetch(self, request: web.Request) -> web.StreamResponse:
        """The content once it is there; 409 while it is not."""
        place = await self._copies.wait_for(_token(request), read_wait(request) or 0.0)
        if place is None:
            return refuse(409, "the file is not here yet")
        place.is_fetched = True
        return web.FileResponse(
            place.path,
            chunk_size=BLOCK_BYTES,
            headers={"Content-Type": OCTETS, SHA256_HEADER: place.sha256 or ""},
        )

    @route("DELETE", "/api/v1/copies/{token}", Scope.SEND)
    async def end(self, request: web.Request) -> web.Response:
        """Forget it."""
        if not self._copies.end(_token(request)):
            return refuse(404, "no such copy")
        return reply({"ended": True})


async def _tell_copy(
    request: web.Request, telling: AsyncGenerator[CopyLine, None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    async with contextlib.aclosing(telling) as lines:
        # what is wrong with the request itself is told by its status
        first = await anext(lines)
        await response.prepare(request)
        await response.write(encode_json(first) + b"\n")
        try:
            async for line in lines:
                await response.write(encode_json(line) + b"\n")
        except ApplianceError as error:
            reason = request.app[HIDING].text(str(error))
            failed = CopyLine(event="failed", reason=reason)
            await response.write(encode_json(failed) + b"\n")
    await response.write_eof()
    return response


async def _blocks(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(BODY_IDLE_S):
            block = await request.content.read(BLOCK_BYTES)
        if not block:
            return
        yield block


def _token(request: web.Request) -> str:
    return request.match_info["token"]
