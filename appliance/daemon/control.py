"""The facade that the admin API calls: everything an operator can see or ask of a running daemon."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.admin.requests import Once, SubmitRequest, Submitted
from appliance.core.describe import describe_plan, describe_settings
from appliance.core.describe_methods import describe_methods
from appliance.core.file_names import name_parts
from appliance.core.message import CALLER_FILE, Message
from appliance.core.names import ERROR_CENTRAL, MethodName, NodeName, WorkerKind
from appliance.core.relay import wrap
from appliance.core.specs import PublisherSpec
from appliance.daemon.callers import choose_answer_method, describe_unknown
from appliance.daemon.notify import describe_state
from appliance.daemon.status import (
    StatusJson,
    config_json,
    fallback_json,
    find_degradations,
    nodes_json,
    overrides_json,
    rfc3339,
)
from appliance.errors import (
    ArgumentsRefused,
    ConfigInvalid,
    ConfigUnreadable,
    HandlerError,
    RequestInvalid,
)
from appliance.methods.registry import METHOD_TABLE
from appliance.outbox.records import DeadLetter, FinishItem, OutboxRecord, TakeIn, TakeInResult
from appliance.reconcile.history import History, Record
from appliance.reconcile.verdicts import Verdict, drain_json, find_problems_of, problem_json
from appliance.telemetry.metrics import MetricsFacts, WorkerView
from appliance.workers.subscriber import Subscriber

if TYPE_CHECKING:
    from appliance.daemon.app import Daemon

FILE_METHODS = frozenset({"REQToFile", "REQToFileAppend"})
"""Methods whose names of files can be judged before anything is accepted."""

STREAMED_METHODS = frozenset({"REQCliCommandCont", "REQTailFile"})
"""Methods whose answer comes in pieces."""

LOCAL = "local"
"""The word for the own node as a destination."""


class DaemonControl:
    """Implements `admin.control.Control` over the daemon's parts."""

    def __init__(self, daemon: Daemon, history: History) -> None:
        self._daemon = daemon
        self._history = history
        self.events = daemon.events
        self.is_started = False
        self.is_stopping = False

    # -- seeing -----------------------------------------------------------------------------------

    def status(self) -> StatusJson:
        """The status JSON."""
        daemon = self._daemon
        counts = daemon.store.counts()
        attempt = daemon.reconciler.last_attempt
        applied = daemon.reconciler.applied
        overrides = daemon.overrides.all
        problems = find_degradations(
            daemon.pool,
            applied,
            attempt,
            connected=daemon.bus.is_connected,
            dead=counts.dead,
            overrides=overrides,
        )
        return {
            "version": __version__,
            "pid": os.getpid(),
            "generation": applied.generation if applied else 0,
            "healthy": not problems and not self.is_stopping,
            "degraded_by": [] if self.is_stopping else problems,
            "stopping": self.is_stopping,
            "config": {
                **config_json(applied, attempt, list(daemon.config_paths)),
                **fallback_json(daemon.reconciler.fallback),
            },
            "broker": {
                "connected": daemon.bus.is_connected,
                "server": daemon.bus.server,
                "embedded": daemon.broker is not None,
                "reconnects": daemon.bus.reconnects,
            },
            "nodes": nodes_json(daemon.pool, applied, daemon.presence.last_hello_at(), overrides),
            "overrides": overrides_json(overrides),
            "fleet": daemon.fleet.as_json(),
            "methods": self.methods(),
            "hellos": {
                node: rfc3339(at) for node, at in sorted(daemon.presence.last_hello_at().items())
            },
            "inputs": daemon.inputs.status(),
            "inbox": {"unfinished": self._unfinished()},
            "outbox": {
                "pending": counts.pending,
                "in_flight": self._in_flight(),
                "dead": counts.dead,
                "oldest_seconds": round(_age_s(counts.oldest_created_at), 3),
            },
        }

    def methods(self) -> list[dict[str, object]]:
        """Every method that this daemon knows, the config's own first."""
        applied = self._daemon.reconciler.applied
        return describe_methods(METHOD_TABLE, applied.desired.methods if applied else {})

    def summary(self) -> str:
        """One line for the log and the service manager."""
        daemon = self._daemon
        applied = daemon.reconciler.applied
        running = sum(1 for handle in daemon.pool.handles.values() if handle.phase == "running")
        generation = applied.generation if applied else 0
        nodes = ", ".join(applied.desired.run_nodes[:5]) if applied else ""
        return f"generation {generation}, {running} of {len(daemon.pool.handles)} workers running, nodes: {nodes}"

    def service_line(self) -> str:
        """One line for the service manager: what runs, at which revision, and the last verdict."""
        daemon = self._daemon
        applied, attempt = daemon.reconciler.applied, daemon.reconciler.last_attempt
        if self.is_stopping:
            return f"stopping, {self._unfinished()} messages in hand"
        if applied is None:
            return "starting"
        phases = [str(handle.phase) for handle in daemon.pool.handles.values()]
        return describe_state(
            generation=applied.generation,
            revision=applied.revision,
            running=phases.count("running"),
            workers=len(phases),
            connected=daemon.bus.is_connected,
            result=attempt.result if attempt else "",
            at=attempt.at if attempt else 0.0,
            problems=attempt.problems if attempt else (),
        )

    def liveness(self) -> tuple[bool, str]:
        """The loop answers, so it lives."""
        return True, "alive"

    def readiness(self) -> tuple[bool, str]:
        """Connected and the running set settled; a refused config does not make it unready."""
        if self.is_stopping:
            return False, "stopping"
        if not self.is_started:
            return False, "starting"
        if not self._daemon.bus.is_connected:
            return False, "not connected to the broker"
        return True, "ready"

    def metrics(self) -> DaemonControl:
        """The source of the metrics collector."""
        return self

    def facts(self) -> MetricsFacts:
        """The facts of one scrape."""
        daemon = self._daemon
        applied = daemon.reconciler.applied
        counts = daemon.store.counts()
        workers = [
            WorkerView(
                key=key,
                phase=handle.phase,
                restarts=handle.restarts,
                stats=handle.worker.stats if handle.worker is not None else None,
            )
            for key, handle in daemon.pool.handles.items()
        ]
        return MetricsFacts(
            version=__version__,
            counts=daemon.telemetry.counts,
            generation=applied.generation if applied else 0,
            digest=applied.digest if applied else "",
            revision=applied.revision if applied else None,
            branch=applied.branch if applied else None,
            dirty=applied.dirty if applied else None,
            run_nodes=applied.desired.run_nodes if applied else (),
            workers=workers,
            broker_connected=daemon.bus.is_connected,
            broker_reconnects=daemon.bus.reconnects,
            outbox_pending=counts.pending,
            outbox_in_flight=self._in_flight(),
            outbox_dead=counts.dead,
            outbox_oldest_s=_age_s(counts.oldest_created_at),
            declared_nodes=applied.desired.declared_nodes if applied else (),
            last_hello_at={str(node): at for node, at in daemon.presence.last_hello_at().items()},
            fleet_states=Counter(str(item.state) for item in daemon.fleet.standings()),
            events_dropped=daemon.events.dropped,
            inputs=daemon.inputs.totals(),
        )

    def _unfinished(self) -> int:
        workers = (handle.worker for handle in self._daemon.pool.handles.values())
        return sum(worker.unfinished for worker in workers if isinstance(worker, Subscriber))

    def _in_flight(self) -> int:
        return sum(
            handle.worker.stats.in_flight
            for key, handle in self._daemon.pool.handles.items()
            if handle.worker is not None and key.kind is WorkerKind.PUBLISHER
        )

    # -- asking -----------------------------------------------------------------------------------

    async def plan(self, paths: Sequence[str] | None) -> dict[str, object]:
        """What a reload would do, with the daemon's own paths or others."""
        daemon = self._daemon
        try:
            loaded = await daemon.load_set(paths)
        except (ConfigInvalid, ConfigUnreadable) as error:
            problems = find_problems_of(error)
            return {
                "result": "refused",
                "actions": [],
                "problems": [problem_json(problem) for problem in problems],
                "summary": {},
            }
        plan = daemon.reconciler.predict(loaded.desired)
        problems = daemon.reconciler.find_objections(loaded, plan)
        applied = daemon.reconciler.applied
        settings = describe_settings(applied.desired, loaded.desired) if applied else {}
        is_same = plan.is_empty and not settings
        result = "refused" if problems else "no change" if is_same else "changes"
        return {
            "result": result,
            "actions": describe_plan(plan),
            "settings": settings,
            "overrides": overrides_json(daemon.overrides.all),
            "problems": [problem_json(problem) for problem in problems],
            "warnings": [problem_json(problem) for problem in loaded.warnings],
            "summary": plan.summary(),
            "digest": loaded.digest,
        }

    async def reload(self, *, force: bool, trigger: str, by: str = "") -> dict[str, object]:
        """Look again now; the verdict."""
        verdict = await self._daemon.reconciler.reload(force=force, trigger=trigger, by=by)
        return verdict_json(verdict)

    async def roll_back(self, *, to: str | None, force: bool, by: str = "") -> dict[str, object]:
        """Go back to an older set; the verdict."""
        verdict = await self._daemon.reconciler.roll_back(to=to, force=force, by=by)
        return verdict_json(verdict)

    async def submit(
        self,
        requests: Sequence[SubmitRequest],
        *,
        atomic: bool = False,
        once: Once | None = None,
    ) -> list[Submitted]:
        """Accept messages; answers when they are on disk."""
        answers: list[Submitted] = []
        records: list[OutboxRecord] = []
        for request in requests:
            for to_node in request.to_nodes:
                try:
                    record = self._make_record(request, to_node)
                except RequestInvalid as error:
                    code = "arguments" if isinstance(error, ArgumentsRefused) else None
                    answers.append(
                        Submitted(
                            to=to_node, accepted=False, error=str(error), code=code, key=error.key
                        )
                    )
                    continue
                records.append(record)
                answers.append(
                    Submitted(
                        to=record.node if to_node == LOCAL else to_node,
                        accepted=True,
                        id=record.id,
                        from_node=record.node,
                        via=request.relay_via_node,
                        replies=self._daemon.router.methods[MethodName(request.method)].replies,
                        streams=request.method in STREAMED_METHODS,
                        note=self._note(record.node if to_node == LOCAL else to_node),
                    )
                )
        if atomic and len(records) < len(answers):
            return [_withdraw(answer) for answer in answers]
        if records:
            if once is None:
                await self._daemon.store.put(records)
            else:
                await self._daemon.store.finish([self._mark(once)], records)
            self._daemon.telemetry.messages_accepted(len(records))
        return answers

    async def is_accepted(self, once: Once) -> bool:
        """Whether messages were accepted under this mark."""
        mark = self._mark(once)
        item = TakeIn(
            node="",
            subject=mark.subject,
            sender=mark.sender,
            instance=mark.instance,
            message_id=mark.message_id,
            payload=b"",
            headers={},
            reply_to="",
            keep_body=False,
        )
        ((found, _),) = await self._daemon.store.take_in([item])
        return found is not TakeInResult.FRESH

    def _mark(self, once: Once) -> FinishItem:
        return FinishItem(
            row_id=None,
            subject=once.source,
            sender="",
            instance=self._daemon.store.instance,
            message_id=once.number,
        )

    def _make_record(self, request: SubmitRequest, to_node: str) -> OutboxRecord:
        node = self._sender(request.from_node, to_node, request.method)
        message = Message(
            to_node=node if to_node == LOCAL else to_node,
            from_node=node,
            data=request.texts(),
            method=request.method,
            method_args=tuple(request.method_args) if request.method_args is not None else None,
            reply_method=request.reply_method or "",
            reply_method_args=tuple(request.reply_method_args)
            if request.reply_method_args is not None
            else None,
            # NB: plain numbers; the request's own types do not go on the wire
            ack_timeout_s=int(request.ack_timeout or 0),
            retries=int(request.retries or 0),
            reply_ack_timeout_s=int(request.reply_ack_timeout or 0),
            reply_retries=int(request.reply_retries or 0),
            method_timeout_s=int(request.method_timeout or 0),
            reply_method_timeout_s=int(request.reply_method_timeout or 0),
            directory=request.directory or "",
            file_name=request.file_name or "",
            relay_via_node=request.relay_via_node or "",
            relay_reply_method=request.relay_reply_method or "",
        )
        with _about("to_nodes" if message.method in self._daemon.router.methods else "method"):
            self._daemon.router.publisher_for(node, message.to_node, message.method)
        if message.method in FILE_METHODS:
            with _about("file_name"):
                check_file_names(message)
        if request.for_caller:
            message = self._for_caller(message)
        if message.reply_method:
            with _about("reply_method"):
                self._daemon.router.check_reply_method(message.reply_method)
        if message.relay_via_node:
            with _about("relay_via_node"):
                message = self._relay(message)
        return self._daemon.router.make_record(message, expires_s=request.expires)

    def left(self, ids: Sequence[int]) -> None:
        """Nobody waits for the answers to these messages any more."""
        self._daemon.leavers.left(ids)

    def _for_caller(self, message: Message) -> Message:
        """The message with its answer meant for the one who waits; refused where none could come."""
        applied = self._daemon.reconciler.applied
        method = message.reply_method
        if not method and applied:
            method = choose_answer_method(applied.desired, message.from_node, message.to_node)
        return message._replace(reply_method=method, file_name=CALLER_FILE)

    def _note(self, to_node: str) -> str | None:
        """What to say of a destination that no config names: it may exist, and it may be a slip."""
        applied = self._daemon.reconciler.applied
        if applied is None or to_node == ERROR_CENTRAL:
            return None
        unknown = describe_unknown(applied.desired, to_node)
        return None if unknown is None else f"{unknown}; it waits in the outbox until such a node answers"

    def _relay(self, message: Message) -> Message:
        """The message in the envelope for its via node; what would only fail there is refused here."""
        router = self._daemon.router
        router.publisher_for(message.from_node, message.to_node, message.method)
        if message.relay_reply_method:
            router.check_reply_method(message.relay_reply_method)
        wrapped = wrap(message)
        if isinstance(wrapped, str):
            raise RequestInvalid(wrapped)
        return wrapped

    def _sender(self, asked: str | None, to_node: str, method: str) -> NodeName:
        """The sending node: the one asked for, the only one, the one that declares such a publisher, `central`."""
        applied = self._daemon.reconciler.applied
        nodes = applied.desired.run_nodes if applied else ()
        if asked:
            if asked not in nodes:
                raise RequestInvalid(
                    f"this appliance does not run node {asked[:60]!r}; it runs {', '.join(nodes)}"
                )
            return NodeName(asked)
        if len(nodes) == 1:
            return nodes[0]
        for spec in applied.desired.workers.values() if applied else ():
            if isinstance(spec, PublisherSpec) and (spec.to_node, spec.method) == (to_node, method):
                return spec.node
        if "central" in nodes:
            return NodeName("central")
        raise RequestInvalid(
            f"say which node sends (--from): this appliance runs {', '.join(nodes[:10])}"
        )

    # -- outbox and history -------------------------------------------------------------------------

    async def outbox_list(self, state: str, limit: int) -> list[dict[str, object]]:
        """Pending records or dead letters, oldest first."""
        store = self._daemon.store
        if state == "dead":
            return [_dead_json(letter) for letter in await store.list_dead(limit)]
        return [_record_json(record) for record in await store.list_pending(limit)]

    async def outbox_retry(self, ids: Sequence[int] | None) -> int:
        """Put dead letters back into their lanes."""
        return await self._daemon.store.retry_dead(ids)

    async def outbox_drop(self, ids: Sequence[int] | None, *, dead_only: bool = True) -> int:
        """Forget dead letters (or, with ids, pending records)."""
        return await self._daemon.store.drop(ids, dead_only=dead_only)

    def history(self, limit: int) -> list[Record]:
        """Newest first."""
        return self._history.newest(limit)

    def history_record(self, key: str) -> Record | None:
        """One record by number, generation, digest or revision, with what changed in the files."""
        record = self._history.find(key)
        return None if record is None else {**record, "diff": self._history.difference(record)}


@contextlib.contextmanager
def _about(key: str) -> Iterator[None]:
    """What is refused inside is refused because of this field of the request."""
    try:
        yield
    except RequestInvalid as error:
        error.key = error.key or key
        raise


def _withdraw(answer: Submitted) -> Submitted:
    """Not accepted, since another one was refused."""
    if not answer.accepted:
        return answer
    return Submitted(to=answer.to, accepted=False, error="another message was refused")


def check_file_names(message: Message) -> None:
    """Refuse at once what the receiver could only refuse. Raises RequestInvalid."""
    try:
        name_parts(message, message.to_node)
    except HandlerError as error:
        raise RequestInvalid(str(error)) from error


def _age_s(created_at: float | None) -> float:
    return max(0.0, time.time() - created_at) if created_at else 0.0


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """A verdict as the API shows it."""
    return {
        "result": verdict.result,
        "generation": verdict.generation,
        "digest": verdict.digest,
        "trigger": verdict.trigger,
        "by": verdict.by,
        "problems": [problem_json(problem) for problem in verdict.problems],
        "actions": describe_plan(verdict.plan),
        "summary": verdict.plan.summary(),
        "failed": dict(verdict.failed),
        "duration_seconds": round(verdict.duration_s, 6),
        "drain": drain_json(verdict.drains),
    }


def _record_json(record: OutboxRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "from": record.node,
        "to": record.to_node,
        "method": record.method,
        "subject": record.subject,
        "accepted_at": rfc3339(record.created_at),
        "expires_at": rfc3339(record.expires_at) if record.expires_at else None,
        "attempts": record.attempts,
        "next_at": rfc3339(record.next_at) if record.next_at else None,
        "last_error": record.last_error,
        "bytes": len(record.payload),
    }


def _dead_json(letter: DeadLetter) -> dict[str, object]:
    described = _record_json(letter.record)
    described["reason"] = letter.reason
    described["died_at"] = rfc3339(letter.died_at)
    return described
