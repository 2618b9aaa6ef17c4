"""The routes: each takes one request apart, asks the facade and words the answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from appliance import __version__
from appliance.api.access import Refusal
from appliance.api.audit import tell_audit
from appliance.api.guards import (
    FACE,
    may_read_as_we,
    may_see_values,
    name_peer,
    read_body,
    refuse_for,
)
from appliance.api.model import (
    Access,
    Count,
    InboxRecords,
    Methods,
    OutboxRecords,
    Plan,
    ReloadResult,
    StreamsKept,
    StreamsPruned,
)
from appliance.api.operations import Operations
from appliance.api.page import PageRoutes, wants_page
from appliance.api.replies import refuse, reply
from appliance.api.requests import (
    JOB_COMMANDS,
    JobRequest,
    read_choose,
    read_ids,
    read_inbox_drop,
    read_messages,
    read_plan,
    read_prune,
    read_reject,
    read_reload,
    read_rollback,
)
from appliance.api.streams import NDJSON, Streams, read_count, read_wait
from appliance.core.specs import Scope
from appliance.errors import RequestInvalid
from appliance.telemetry.metrics import Exposition, render

INDEX = f"""appliance {__version__}

/livez            does the daemon live
/readyz           does it do its work
/metrics          for Prometheus
/api/v1/status    nodes, workers, config, broker, outbox
/api/v1/plan      what a reload would do; POST: with other files
/api/v1/methods   what can be sent, with its arguments
/api/v1/targets   nodes, roles and labels of the fleet; POST: which nodes targets mean
/api/v1/traffic   what all workers counted together
/api/v1/access    who asks, by what comes along, and what they may do
/api/v1/reload    POST: look at the config now
/api/v1/rollback  POST: go back to a config that was in force
/api/v1/messages  POST: submit messages; ?wait=10s and Accept: {NDJSON} follow them
/api/v1/copies    POST: bring a file for a node, or fetch one
/api/v1/events    what happens, as server-sent events
/api/v1/outbox    pending messages, ?state=dead dead letters; POST …/retry, …/drop
/api/v1/inbox     messages taken in and not finished; POST …/drop
/api/v1/streams   what streams of the broker keep for the own nodes; POST …/prune
/api/v1/enrolment new nodes that ask to be let in; POST …/reject
/api/v1/jobs      what commands of operators asked, and what came of it; …/ID, …/ID/output; POST …/ID/cancel, …/retry
/api/v1/programs  POST: which programs run on nodes
/api/v1/history   config sets applied and refused
"""
MAX_LISTED = 10_000
MAX_BATCHES = 1_000_000
_HIDDEN = ("(needs the scope config-values)", "(needs the scope config-values)")
_NOT_BY_PATH = (
    "a path is read for root and the daemon's own user only, on the unix socket; others send the files: "
    "POST /api/v1/plan"
)


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers over one facade; shared by both faces."""

    control: Operations
    exposition: Exposition
    streams: Streams
    page: PageRoutes

    def add_to(self, app: web.Application) -> None:
        """Make every route known."""
        app.router.add_get("/", self.index)
        self.page.add_to(app)
        for path in ("/livez", "/-/healthy"):
            app.router.add_get(path, self.livez)
        for path in ("/readyz", "/-/ready"):
            app.router.add_get(path, self.readyz)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/api/v1/status", self.status)
        app.router.add_get("/api/v1/plan", self.plan)
        app.router.add_post("/api/v1/plan", self.plan_given)
        app.router.add_get("/api/v1/methods", self.methods)
        app.router.add_get("/api/v1/targets", self.fleet)
        app.router.add_post("/api/v1/targets", self.choose)
        app.router.add_get("/api/v1/traffic", self.traffic)
        app.router.add_get("/api/v1/access", self.access)
        for path in ("/api/v1/reload", "/-/reload"):
            app.router.add_post(path, self.reload)
        app.router.add_post("/api/v1/rollback", self.rollback)
        app.router.add_post("/api/v1/messages", self.messages)
        app.router.add_get("/api/v1/events", self.streams.follow_events, allow_head=False)
        app.router.add_get("/api/v1/outbox", self.outbox)
        app.router.add_post("/api/v1/outbox/retry", self.outbox_retry)
        app.router.add_post("/api/v1/outbox/drop", self.outbox_drop)
        app.router.add_get("/api/v1/inbox", self.inbox)
        app.router.add_post("/api/v1/inbox/drop", self.inbox_drop)
        app.router.add_get("/api/v1/streams", self.streams_list)
        app.router.add_post("/api/v1/streams/prune", self.streams_prune)
        app.router.add_get("/api/v1/enrolment", self.enrolment_list)
        app.router.add_post("/api/v1/enrolment/reject", self.enrolment_reject)
        app.router.add_get("/api/v1/history", self.history)
        app.router.add_get("/api/v1/history/{key}", self.history_record)

    async def index(self, request: web.Request) -> web.Response:
        """The page for browsers; for everybody else what there is."""
        if wants_page(request):
            return self.page.index()
        return web.Response(text=INDEX, headers={"Vary": "Accept"})

    async def livez(self, _request: web.Request) -> web.Response:
        """200 while the daemon lives."""
        return _health(self.control.liveness())

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 while it does its work. A refused config does not change it: the running set is in
        force.
        """
        return _health(self.control.readiness())

    async def metrics(self, request: web.Request) -> web.Response:
        """The exposition, in the format the scraper asks for."""
        families = self.exposition.collect()
        accept = request.headers.get("Accept", "")

        def render_all() -> tuple[bytes, str]:
            return render([*families, *self.exposition.process_families()], accept)

        body, content_type = await asyncio.to_thread(render_all)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def status(self, _request: web.Request) -> web.Response:
        """The status JSON."""
        return reply(self.control.status())

    async def methods(self, _request: web.Request) -> web.Response:
        """Every method, those of the config first."""
        return reply(Methods(methods=self.control.methods()))

    async def fleet(self, _request: web.Request) -> web.Response:
        """Every node that the config in force declares, with what it is chosen by."""
        return reply(self.control.targets.fleet())

    async def choose(self, request: web.Request) -> web.Response:
        """The nodes that targets mean by the config in force; 400 where they mean none."""
        asked = read_choose(await read_body(request))
        # in a thread: many patterns over many nodes take their time
        return reply(await asyncio.to_thread(self.control.targets.choose, asked))

    async def traffic(self, _request: web.Request) -> web.Response:
        """What all workers counted together, those that are gone included."""
        return reply(self.exposition.traffic())

    async def access(self, request: web.Request) -> web.Response:
        """Who the one who asks is, and what they may; 401 for a token that is none."""
        gate = request.app[FACE].gate
        if gate is None:
            return reply(Access(may_write=True))
        caller = await gate.find_caller(request)
        if caller.trouble or ("Authorization" in request.headers and not caller.is_known):
            return refuse_for(Refusal(401, caller.trouble or "this is no bearer token"))
        found = Access(
            may_write=bool(caller.scopes & {Scope.SEND, Scope.RELOAD}),
            token_configured=gate.has_tokens,
        )
        if caller.has_name:
            found.name, found.by = caller.name, caller.kind
            found.scopes = sorted(map(str, caller.scopes))
            found.expires_at = caller.expires_at or UNSET
        return reply(found)

    async def plan(self, request: web.Request) -> web.Response:
        """What a reload would do, with `force=true` one that is forced.

        Other paths than the daemon's own are read for who could read them anyway; everybody else posts the files.
        """
        paths = request.query.getall("path", [])
        if paths and not may_read_as_we(request):
            return refuse(403, _NOT_BY_PATH)
        is_forced = request.query.get("force") == "true"
        planned = await self.control.plan(paths or None, force=is_forced)
        if paths:
            hide_excerpts(planned)
        return reply(planned if await may_see_values(request) else without_values(planned))

    async def plan_given(self, request: web.Request) -> web.Response:
        """What a reload would do with files that the caller read."""
        asked = read_plan(await read_body(request))
        may_see = may_read_as_we(request)
        planned = await self.control.plan_given(asked, may_see_environment=may_see)
        return reply(planned if await may_see_values(request) else without_values(planned))

    async def reload(self, request: web.Request) -> web.Response:
        """200 applied or unchanged, 422 refused; the verdict either way."""
        asked = read_reload(await read_body(request))
        tell_audit(request, force=asked.force)
        verdict = await self.control.reload(
            force=asked.force, trigger="request", by=await name_peer(request)
        )
        return await _reply_verdict(request, verdict)

    async def rollback(self, request: web.Request) -> web.Response:
        """200 when the older set is in force and pinned, 422 when it was refused or is not there."""
        asked = read_rollback(await read_body(request))
        tell_audit(request, to=asked.to, force=asked.force)
        verdict = await self.control.roll_back(
            to=asked.to, force=asked.force, by=await name_peer(request)
        )
        return await _reply_verdict(request, verdict)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """202 when everything that could be accepted is on disk, 422 when nothing could."""
        requests = read_messages(await read_body(request))
        wait_s = read_wait(request)
        job = await read_job(request)
        tell_audit(
            request,
            command=job.command if job is not None else "",
            methods=[one.method for one in requests],
            to=[node for one in requests for node in one.to_nodes],
            count=sum(len(one.to_nodes) for one in requests),
            from_node=next((one.from_node for one in requests if one.from_node), None),
        )
        if wait_s is not None and NDJSON in request.headers.get("Accept", ""):
            idle_s = read_wait(request, "idle")
            absent_s = read_wait(request, "absent")
            return await self.streams.follow_messages(
                request, requests, wait_s, idle_s, absent_s, job
            )
        submitted = await self.control.submit(requests, job=job)
        if any(item.accepted for item in submitted):
            return reply({"messages": submitted}, 202)
        first = submitted[0].error if submitted else "nothing to send"
        return refuse(422, first or "not accepted", messages=submitted)

    async def outbox(self, request: web.Request) -> web.Response:
        """Records of the outbox."""
        state = request.query.get("state", "pending")
        if state not in ("pending", "dead"):
            raise RequestInvalid("state is pending or dead")
        limit = read_count(request, "limit", 100, MAX_LISTED)
        records = await self.control.outbox_list(state, limit)
        return reply(OutboxRecords(state=state, records=records))

    async def outbox_retry(self, request: web.Request) -> web.Response:
        """Dead letters back into the outbox."""
        asked = read_ids(await read_body(request))
        tell_audit(request, ids=asked.numbers() or "all dead letters")
        return reply(Count(count=await self.control.outbox_retry(asked.numbers())))

    async def outbox_drop(self, request: web.Request) -> web.Response:
        """Forget records."""
        asked = read_ids(await read_body(request))
        if asked.pending and asked.ids is None:
            raise RequestInvalid("pending messages are dropped by their ids only")
        tell_audit(request, ids=asked.numbers() or "all dead letters")
        count = await self.control.outbox_drop(
            asked.numbers(), dead_only=not asked.pending, by=await name_peer(request)
        )
        return reply(Count(count=count))

    async def inbox(self, request: web.Request) -> web.Response:
        """Messages taken in and not finished."""
        limit = read_count(request, "limit", 100, MAX_LISTED)
        return reply(InboxRecords(records=await self.control.inbox_list(limit)))

    async def inbox_drop(self, request: web.Request) -> web.Response:
        """Forget messages that no worker takes."""
        asked = read_inbox_drop(await read_body(request))
        tell_audit(request, ids=asked.numbers() or "all without a worker")
        return reply(await self.control.inbox_drop(asked.numbers()))

    async def streams_list(self, _: web.Request) -> web.Response:
        """What streams of the broker keep for the own nodes."""
        return reply(StreamsKept(streams=await self.control.streams_list()))

    async def streams_prune(self, request: web.Request) -> web.Response:
        """Take away what no config asks for any more."""
        asked = read_prune(await read_body(request))
        tell_audit(request, force=asked.force)
        return reply(StreamsPruned(streams=await self.control.streams_prune(force=asked.force)))

    async def enrolment_list(self, _: web.Request) -> web.Response:
        """New nodes that ask to be let in."""
        return reply(self.control.enrolment.list())

    async def enrolment_reject(self, request: web.Request) -> web.Response:
        """Turn some of them away."""
        asked = read_reject(await read_body(request))
        tell_audit(request, public_keys=asked.public_keys)
        return reply(await self.control.enrolment.reject(asked.public_keys))

    async def history(self, request: web.Request) -> web.Response:
        """Records of config sets, newest first."""
        limit = read_count(request, "limit", 20, MAX_LISTED)
        records = await asyncio.to_thread(self.control.history, limit)
        if not await may_see_values(request):
            records = [without_values(record) for record in records]
        return reply({"records": records})

    async def history_record(self, request: web.Request) -> web.Response:
        """One record."""
        key = request.match_info["key"]
        record = await asyncio.to_thread(self.control.history_record, key)
        if record is None:
            return refuse(404, "no such record")
        return reply(record if await may_see_values(request) else without_values(record))


async def read_job(request: web.Request) -> JobRequest | None:
    """Whether the messages of a call are one job; a query says so.

    Raises:
        RequestInvalid: of no command that we know.
    """
    command = request.query.get("job")
    if command is None:
        return None
    if command not in JOB_COMMANDS:
        raise RequestInvalid(f"job is one of {', '.join(sorted(JOB_COMMANDS))}")
    return JobRequest(
        command=command,
        by=await name_peer(request),
        wants_status=request.query.get("wants_status") == "true",
        is_now=request.query.get("now") == "true",
        into=request.query.get("into", ""),
        batch=max(1, read_count(request, "batch", 1, MAX_BATCHES)),
        batches=max(1, read_count(request, "batches", 1, MAX_BATCHES)),
    )


async def _reply_verdict(request: web.Request, verdict: ReloadResult) -> web.Response:
    shown = verdict if await may_see_values(request) else without_values(verdict)
    return reply(shown, 422 if verdict.result == "refused" else 200)


def without_values(answer: object) -> dict[str, Any]:
    """A plan or a record with what changes, and neither old nor new values nor the difference of the files.

    A problem keeps the line it stands in, without secrets, as in the status.
    """
    shown: dict[str, Any] = msgspec.to_builtins(answer, enc_hook=str)
    for action in shown.get("actions") or ():
        action["fields"] = dict.fromkeys(action.get("fields") or (), _HIDDEN)
    if "settings" in shown:
        shown["settings"] = dict.fromkeys(shown["settings"] or (), _HIDDEN)
    if "diff" in shown:
        shown["diff"] = ""
    return {**shown, "values_hidden": True}


def hide_excerpts(planned: Plan) -> None:
    """A plan without the lines its problems stand in: what is no config may be anything that only we can read."""
    if isinstance(planned, Plan):
        planned.problems = [replace(problem, excerpt="") for problem in planned.problems]


def _health(answer: tuple[bool, str]) -> web.Response:
    is_good, words = answer
    return web.Response(text=f"{words}\n", status=200 if is_good else 503)
