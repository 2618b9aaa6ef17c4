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
from appliance.api.following import NDJSON, Following, read_count, read_wait
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
from appliance.api.routing import route, write_index
from appliance.core.specs import Scope
from appliance.errors import RequestInvalid
from appliance.telemetry.metrics import Exposition, render

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
    following: Following
    page: PageRoutes

    @route("GET", "/", None)
    async def index(self, request: web.Request) -> web.Response:
        """The page for browsers; for everybody else what there is."""
        if wants_page(request):
            return self.page.index()
        text = f"appliance {__version__}\n\n{write_index(request.app)}"
        return web.Response(text=text, headers={"Vary": "Accept"})

    @route("GET", "/livez", None, "does the daemon live")
    @route("GET", "/-/healthy", None)
    async def livez(self, _request: web.Request) -> web.Response:
        """200 while the daemon lives."""
        return _health(self.control.view.liveness())

    @route("GET", "/readyz", None, "does it do its work")
    @route("GET", "/-/ready", None)
    async def readyz(self, _request: web.Request) -> web.Response:
        """200 while it does its work. A refused config does not change it: the running set is in
        force.
        """
        return _health(self.control.view.readiness())

    @route("GET", "/metrics", Scope.READ, "for Prometheus")
    async def metrics(self, request: web.Request) -> web.Response:
        """The exposition, in the format the scraper asks for."""
        families = self.exposition.collect()
        accept = request.headers.get("Accept", "")

        def render_all() -> tuple[bytes, str]:
            return render([*families, *self.exposition.process_families()], accept)

        body, content_type = await asyncio.to_thread(render_all)
        return web.Response(body=body, headers={"Content-Type": content_type})

    @route("GET", "/api/v1/status", Scope.READ, "nodes, workers, config, broker, outbox")
    async def status(self, _request: web.Request) -> web.Response:
        """The status JSON."""
        return reply(self.control.view.status())

    @route("GET", "/api/v1/methods", Scope.READ, "what can be sent, with its arguments")
    async def methods(self, _request: web.Request) -> web.Response:
        """Every method, those of the config first."""
        return reply(Methods(methods=self.control.view.methods()))

    @route(
        "GET",
        "/api/v1/targets",
        Scope.READ,
        "nodes, roles and labels of the fleet; POST: which nodes targets mean",
    )
    async def fleet(self, _request: web.Request) -> web.Response:
        """Every node that the config in force declares, with what it is chosen by."""
        return reply(self.control.targets.fleet())

    @route("POST", "/api/v1/targets", Scope.READ)
    async def choose(self, request: web.Request) -> web.Response:
        """The nodes that targets mean by the config in force; 400 where they mean none."""
        asked = read_choose(await read_body(request))
        # in a thread: many patterns over many nodes take their time
        return reply(await asyncio.to_thread(self.control.targets.choose, asked))

    @route("GET", "/api/v1/traffic", Scope.READ, "what all workers counted together")
    async def traffic(self, _request: web.Request) -> web.Response:
        """What all workers counted together, those that are gone included."""
        return reply(self.exposition.traffic())

    @route("GET", "/api/v1/access", None, "who asks, by what comes along, and what they may do")
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

    @route("GET", "/api/v1/plan", Scope.READ, "what a reload would do; POST: with other files")
    async def plan(self, request: web.Request) -> web.Response:
        """What a reload would do, with `force=true` one that is forced.

        Other paths than the daemon's own are read for who could read them anyway; everybody else posts the files.
        """
        paths = request.query.getall("path", [])
        if paths and not may_read_as_we(request):
            return refuse(403, _NOT_BY_PATH)
        is_forced = request.query.get("force") == "true"
        planned = await self.control.sets.plan(paths or None, force=is_forced)
        if paths:
            hide_excerpts(planned)
        return reply(planned if await may_see_values(request) else without_values(planned))

    @route("POST", "/api/v1/plan", Scope.READ)
    async def plan_given(self, request: web.Request) -> web.Response:
        """What a reload would do with files that the caller read."""
        asked = read_plan(await read_body(request))
        may_see = may_read_as_we(request)
        planned = await self.control.sets.plan_given(asked, may_see_environment=may_see)
        return reply(planned if await may_see_values(request) else without_values(planned))

    @route("POST", "/api/v1/reload", Scope.RELOAD, "POST: look at the config now")
    @route("POST", "/-/reload", Scope.RELOAD)
    async def reload(self, request: web.Request) -> web.Response:
        """200 applied or unchanged, 422 refused; the verdict either way."""
        asked = read_reload(await read_body(request))
        tell_audit(request, force=asked.force)
        verdict = await self.control.sets.reload(
            force=asked.force, trigger="request", by=await name_peer(request)
        )
        return await _reply_verdict(request, verdict)

    @route("POST", "/api/v1/rollback", Scope.RELOAD, "POST: go back to a config that was in force")
    async def rollback(self, request: web.Request) -> web.Response:
        """200 when the older set is in force and pinned, 422 when it was refused or is not there."""
        asked = read_rollback(await read_body(request))
        tell_audit(request, to=asked.to, force=asked.force)
        verdict = await self.control.sets.roll_back(
            to=asked.to, force=asked.force, by=await name_peer(request)
        )
        return await _reply_verdict(request, verdict)

    @route(
        "POST",
        "/api/v1/messages",
        Scope.SEND,
        f"POST: submit messages; ?wait=10s and Accept: {NDJSON} follow them",
    )
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
            grace_s = read_wait(request, "grace")
            return await self.following.follow_messages(
                request, requests, wait_s, idle_s, absent_s, job, grace_s
            )
        submitted = await self.control.submission.submit(requests, job=job)
        if any(item.accepted for item in submitted):
            return reply({"messages": submitted}, 202)
        first = submitted[0].error if submitted else "nothing to send"
        return refuse(422, first or "not accepted", messages=submitted)

    @route(
        "GET",
        "/api/v1/outbox",
        Scope.READ,
        "pending messages, ?state=dead dead letters; POST …/retry, …/drop",
    )
    async def outbox(self, request: web.Request) -> web.Response:
        """Records of the outbox."""
        state = request.query.get("state", "pending")
        if state not in ("pending", "dead"):
            raise RequestInvalid("state is pending or dead")
        limit = read_count(request, "limit", 100, MAX_LISTED)
        records = await self.control.outbox.list(state, limit)
        return reply(OutboxRecords(state=state, records=records))

    @route("POST", "/api/v1/outbox/retry", Scope.SEND)
    async def outbox_retry(self, request: web.Request) -> web.Response:
        """Dead letters back into the outbox."""
        asked = read_ids(await read_body(request))
        tell_audit(request, ids=asked.numbers() or "all dead letters")
        return reply(Count(count=await self.control.outbox.retry(asked.numbers())))

    @route("POST", "/api/v1/outbox/drop", Scope.SEND)
    async def outbox_drop(self, request: web.Request) -> web.Response:
        """Forget records."""
        asked = read_ids(await read_body(request))
        if asked.pending and asked.ids is None:
            raise RequestInvalid("pending messages are dropped by their ids only")
        tell_audit(request, ids=asked.numbers() or "all dead letters")
        count = await self.control.outbox.drop(
            asked.numbers(), dead_only=not asked.pending, by=await name_peer(request)
        )
        return reply(Count(count=count))

    @route("GET", "/api/v1/inbox", Scope.READ, "messages taken in and not finished; POST …/drop")
    async def inbox(self, request: web.Request) -> web.Response:
        """Messages taken in and not finished."""
        limit = read_count(request, "limit", 100, MAX_LISTED)
        return reply(InboxRecords(records=await self.control.inbox.list(limit)))

    @route("POST", "/api/v1/inbox/drop", Scope.SEND)
    async def inbox_drop(self, request: web.Request) -> web.Response:
        """Forget messages that no worker takes."""
        asked = read_inbox_drop(await read_body(request))
        tell_audit(request, ids=asked.numbers() or "all without a worker")
        return reply(await self.control.inbox.drop(asked.numbers()))

    @route(
        "GET",
        "/api/v1/streams",
        Scope.READ,
        "what streams of the broker keep for the own nodes; POST …/prune",
    )
    async def streams_list(self, _: web.Request) -> web.Response:
        """What streams of the broker keep for the own nodes."""
        return reply(StreamsKept(streams=await self.control.streams.list()))

    @route("POST", "/api/v1/streams/prune", Scope.RELOAD)
    async def streams_prune(self, request: web.Request) -> web.Response:
        """Take away what no config asks for any more."""
        asked = read_prune(await read_body(request))
        tell_audit(request, force=asked.force)
        found = await self.control.streams.prune(force=asked.force)
        return reply(StreamsPruned(streams=list(found)))

    @route("GET", "/api/v1/enrolment", Scope.READ, "new nodes that ask to be let in; POST …/reject")
    async def enrolment_list(self, _: web.Request) -> web.Response:
        """New nodes that ask to be let in."""
        return reply(self.control.enrolment.list())

    @route("POST", "/api/v1/enrolment/reject", Scope.RELOAD)
    async def enrolment_reject(self, request: web.Request) -> web.Response:
        """Turn some of them away."""
        asked = read_reject(await read_body(request))
        tell_audit(request, public_keys=asked.public_keys)
        return reply(await self.control.enrolment.reject(asked.public_keys))

    @route("GET", "/api/v1/history", Scope.READ, "config sets applied and refused")
    async def history(self, request: web.Request) -> web.Response:
        """Records of config sets, newest first."""
        limit = read_count(request, "limit", 20, MAX_LISTED)
        records = await asyncio.to_thread(self.control.sets.history, limit)
        if not await may_see_values(request):
            records = [without_values(record) for record in records]
        return reply({"records": records})

    @route("GET", "/api/v1/history/{key}", Scope.READ)
    async def history_record(self, request: web.Request) -> web.Response:
        """One record."""
        key = request.match_info["key"]
        record = await asyncio.to_thread(self.control.sets.history_record, key)
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
