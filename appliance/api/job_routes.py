"""Jobs through the API. Over TCP arguments and outputs are for who may send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from appliance.api.audit import tell_audit
from appliance.api.guards import may_see_contents, name_peer, read_body
from appliance.api.job_ending import JobEnding
from appliance.api.jobs import JobsView, NoSuchJob
from appliance.api.model import Job, Jobs
from appliance.api.programs import ProgramWords
from appliance.api.replies import refuse, reply
from appliance.api.requests import read_programs
from appliance.api.streams import read_count, read_wait

MAX_LISTED = 1_000
MAX_LOOK_S = 30.0
"""How long one question may wait for a change."""
MAX_NUMBER = 10**9 - 1

_Route = Callable[[web.Request], Awaitable[web.Response]]


class JobRoutes:
    """Handlers over the jobs of this daemon."""

    def __init__(self, jobs: JobsView, ending: JobEnding, programs: ProgramWords) -> None:
        self._jobs = jobs
        self._ending = ending
        self._programs = programs

    def add_to(self, app: web.Application) -> None:
        """Make the routes known."""
        app.router.add_post("/api/v1/programs", self.list_programs)
        app.router.add_get("/api/v1/jobs", self.list)
        app.router.add_get("/api/v1/jobs/{id}", _found(self.show))
        app.router.add_get("/api/v1/jobs/{id}/output", _found(self.output))
        app.router.add_post("/api/v1/jobs/{id}/cancel", _found(self.cancel))
        app.router.add_post("/api/v1/jobs/{id}/retry", _found(self.retry))

    async def list(self, request: web.Request) -> web.Response:
        """The newest first, without their nodes."""
        limit = read_count(request, "limit", 50, MAX_LISTED)
        jobs = await self._jobs.newest(limit)
        if not await may_see_contents(request):
            for job in jobs:
                _hide(job)
        return reply(Jobs(jobs=jobs))

    async def show(self, request: web.Request) -> web.Response:
        """One with its nodes; with `wait` after the next change, or when that time is over."""
        id_ = _id(request)
        wait_s = read_wait(request)
        if wait_s:
            self._jobs.find(id_)
            await self._jobs.wait_for_change(min(wait_s, MAX_LOOK_S))
        job = await self._jobs.show(id_)
        if not await may_see_contents(request):
            _hide(job)
        return reply(job)

    async def output(self, request: web.Request) -> web.Response:
        """What was said, after a piece."""
        after = read_count(request, "after", 0, MAX_NUMBER)
        node = request.query.get("node")
        return reply(await self._jobs.output(_id(request), after=after, node=node))

    async def list_programs(self, request: web.Request) -> web.Response:
        """What runs on nodes, asked of them."""
        asked = read_programs(await read_body(request))
        return reply(await self._programs.list(asked.nodes, asked.from_node))

    async def cancel(self, request: web.Request) -> web.Response:
        """End what waits and what runs; what came of it, node by node."""
        await read_body(request)
        tell_audit(request, job=_id(request))
        return reply(await self._ending.cancel(_id(request), by=await name_peer(request)))

    async def retry(self, request: web.Request) -> web.Response:
        """Try again what was given up."""
        await read_body(request)
        tell_audit(request, job=_id(request))
        return reply(await self._ending.retry(_id(request)))


def _hide(job: Job) -> None:
    job.args = []
    job.values_hidden = True


def _id(request: web.Request) -> str:
    return request.match_info["id"]


def _found(route: _Route) -> _Route:
    async def answer(request: web.Request) -> web.Response:
        try:
            return await route(request)
        except NoSuchJob as error:
            return refuse(404, str(error))

    return answer
