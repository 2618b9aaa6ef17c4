"""A daemon's facade without a daemon, and a thread that serves it: what the API and the command line are tested against."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec

from appliance.api import model
from appliance.api.model import Submitted
from appliance.api.server import AdminServer
from appliance.core.delivery import DeliveryState
from appliance.core.names import NodeName, Subject, WorkerKey, WorkerKind
from appliance.core.specs import AdminSettings, Phase
from appliance.errors import RequestInvalid
from appliance.telemetry.events import EventHub
from appliance.telemetry.messages import ReplyFacts
from appliance.telemetry.metrics import MetricsFacts, WorkerView
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import WorkerStats

PROBLEM = {
    "code": "E021",
    "severity": "error",
    "file": "ships.yaml",
    "line": 14,
    "column": 11,
    "length": 6,
    "path": "nodes.ship1.subscribe",
    "message": 'unknown method "REQPng"',
    "hint": "did you mean REQPing?",
    "excerpt": "          REQPng: {}",
}
SPAWN = {
    "action": "spawn",
    "worker": "ship1.REQPing.EventACK_subscriber",
    "node": "ship1",
    "fields": {},
}
UPDATE = {
    "action": "update",
    "worker": "ship2.REQPing.EventACK_subscriber",
    "node": "ship2",
    "fields": {"concurrency": [16, 4]},
}


def make_key(node="ship1", method="REQPing", kind=WorkerKind.SUBSCRIBER):
    return WorkerKey(NodeName(node), Subject(f"{node}.{method}.EventACK"), kind)


def make_status(**changes):
    status = {
        "version": "0.1.0",
        "pid": 4711,
        "generation": 12,
        "healthy": True,
        "degraded_by": [],
        "config": {
            "digest": "sha256:0123456789abcdef0123456789abcdef",
            "revision": "fedcba9876543210",
            "paths": ["/etc/appliance"],
            "applied_at": "2026-01-01T00:00:00+00:00",
            "last_attempt": {
                "at": "2026-01-01T00:00:00+00:00",
                "result": "applied",
                "trigger": "watch",
                "problems": [],
            },
        },
        "broker": {
            "connected": True,
            "server": "nats://127.0.0.1:4222",
            "embedded": True,
            "reconnects": 0,
        },
        "nodes": {
            "ship1": {
                "workers": [
                    {
                        "name": "ship1.REQPing.EventACK_subscriber",
                        "kind": "subscriber",
                        "subject": "ship1.REQPing.EventACK",
                        "phase": "running",
                        "since": "2026-01-01T00:00:00+00:00",
                        "restarts": 0,
                        "in_flight": 1,
                        "handled": 17,
                        "failed": 0,
                        "last_error": None,
                    }
                ]
            }
        },
        "outbox": {"pending": 0, "in_flight": 0, "dead": 0, "oldest_seconds": 0.0},
    }
    return status | changes


class NoCopies:
    """There are none: what is asked of copies is tested against a daemon."""

    def give_up(self, requests):
        """Nothing comes for anybody."""


class FakeInbox:
    """Notes what it is asked beside what the facade is."""

    def __init__(self, control):
        self._control = control

    async def list(self, limit):
        self._control.calls.append(("inbox_list", limit))
        return msgspec.convert(self._control.records, list[model.InboxRecord])

    async def drop(self, ids):
        held = self._control.held
        self._control.calls.append(("inbox_drop", ids))
        return model.Count(count=len(ids) - held if ids is not None else 7, held=held)


class FakeOutbox:
    """Likewise."""

    def __init__(self, control):
        self._control = control

    async def list(self, state, limit):
        self._control.calls.append(("outbox_list", state, limit))
        return msgspec.convert(self._control.records, list[model.OutboxRecord])

    async def retry(self, ids):
        self._control.calls.append(("outbox_retry", ids))
        return len(ids) if ids is not None else 7

    async def drop(self, ids, *, dead_only=True, by=""):
        self._control.calls.append(("outbox_drop", ids, dead_only))
        return len(ids) if ids is not None else 7


class FakeControl:
    """Answers what the test tells it to; `after_submit` runs once the messages are accepted."""

    def __init__(self):
        self.events = EventHub()
        self.telemetry = Telemetry(self.events)
        self.answers = {
            "status": make_status(),
            "plan": {"result": "no change", "actions": [], "problems": [], "summary": {"keep": 3}},
            "reload": {"result": "unchanged", "generation": 12, "problems": [], "actions": []},
        }
        self.calls = []
        self.asked_by = ""
        self.is_ready = True
        self.replies = False
        self.after_submit = None
        self.raises = None
        self.workers = [WorkerView(key=make_key(), phase=Phase.RUNNING, stats=WorkerStats())]
        self.gone = WorkerStats()
        self.records = []
        self.marks = []
        self.stands = {}
        self.held = 0
        self._next_id = 100

    def status(self):
        self._check()
        return self.answers["status"]

    def methods(self):
        return [{"name": "Note", "kind": "event", "source": "config", "usage": "", "args": []}]

    def liveness(self):
        return True, "alive"

    def readiness(self):
        return (True, "ready") if self.is_ready else (False, "not connected to the broker")

    jobs = None
    ending = None
    programs = SimpleNamespace(understands=lambda _node: True)
    copies = NoCopies()

    @property
    def view(self):
        return self

    @property
    def sets(self):
        return self

    @property
    def standings(self):
        return self

    @property
    def inbox(self):
        return FakeInbox(self)

    @property
    def outbox(self):
        return FakeOutbox(self)

    def facts(self):
        return MetricsFacts(
            version="0.1.0",
            counts=self.telemetry.counts,
            digest="sha256:00",
            run_nodes=["ship1"],
            workers=self.workers,
            declared_nodes=["ship1"],
            gone=self.gone,
        )

    async def plan(self, paths, *, force=False):
        self.calls.append(("plan", paths))
        return self.answers["plan"]

    async def plan_given(self, asked, *, may_see_environment):
        self.calls.append(("plan_given", asked.files, asked.force, may_see_environment))
        return self.answers["plan"]

    async def roll_back(self, *, to, force, by=""):
        self._check()
        self.calls.append(("rollback", to, force))
        self.asked_by = by
        return msgspec.convert(self.answers["reload"], model.ReloadResult)

    async def reload(self, *, force, trigger, by=""):
        self.calls.append(("reload", force, trigger))
        self.asked_by = by
        return msgspec.convert(self.answers["reload"], model.ReloadResult)

    @property
    def submission(self):
        return self

    @property
    def abandoned(self):
        return self

    def longest_time_s(self, requests):
        return 0.0

    async def forget_awaited(self, ids):
        """Nothing is remembered here."""

    async def is_accepted(self, once):
        return once in self.marks

    async def submit(self, requests, *, atomic=False, once=None, job=None):
        self._check()
        if atomic and any("nowhere" in request.to_nodes for request in requests):
            return [
                Submitted(to=to, accepted=False, error="no such node", key="to_nodes")
                for request in requests
                for to in request.to_nodes
            ]
        if once is not None:
            self.marks.append(once)
        submitted = []
        for request in requests:
            self.calls.append(("submit", request))
            for to in request.to_nodes:
                if to == "nowhere":
                    submitted.append(Submitted(to=to, accepted=False, error="no such node"))
                    continue
                self._next_id += 1
                submitted.append(
                    Submitted(
                        to=to,
                        accepted=True,
                        id=self._next_id,
                        from_node="central",
                        replies=self.replies,
                    )
                )
        if self.after_submit is not None:
            self.after_submit(submitted)
        return submitted

    def of_submitted(self, item):
        return self.stands.get(item.to)

    def left(self, ids):
        self.calls.append(("left", list(ids)))

    def history(self, limit):
        return self.records[:limit]

    def history_record(self, key):
        return next((record for record in self.records if str(record["generation"]) == key), None)

    def deliver(self, item, seconds=0.003, state=DeliveryState.TAKEN):
        self.telemetry.message_delivered("central", item.id, item.to, "REQPing", seconds, state)

    def answer(self, item, data, exit_status="0", **facts):
        self.telemetry.reply_received(
            "central",
            item.to,
            item.id,
            900 + item.id,
            "REQToFileAppend",
            data,
            ReplyFacts(exit_status=exit_status, **facts),
        )

    def die(self, item, reason):
        key = make_key("central", "REQCliCommand", WorkerKind.PUBLISHER)
        self.telemetry.message_dead(key, item.id, item.to, "REQCliCommand", reason)

    def miss(self, item, outcome="no_responder"):
        key = make_key("central", "REQCliCommand", WorkerKind.PUBLISHER)
        self.telemetry.attempt_missed(key, item.id, outcome, attempt=1, next_in_s=0.2)

    def _check(self):
        if self.raises is not None:
            raise self.raises


class ServedControl:
    """Serves a control on `<state_dir>/appliance.sock` from a thread with a loop of its own."""

    def __init__(self, state_dir: Path, control=None):
        self.state_dir = state_dir
        self.control = control or FakeControl()
        self._loop = None
        self._stop = None
        self._started = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(60)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *exc):
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        server = AdminServer(self.control)
        try:
            await server.start_unix(self.state_dir / "appliance.sock")
        except Exception as error:
            self._error = error
            self._started.set()
            return
        self._stop = asyncio.Event()
        self._started.set()
        await self._stop.wait()
        await server.close()


__all__ = [
    "PROBLEM",
    "SPAWN",
    "UPDATE",
    "AdminSettings",
    "FakeControl",
    "RequestInvalid",
    "ServedControl",
]
