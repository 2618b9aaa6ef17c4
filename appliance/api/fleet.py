"""What this daemon says of its config in its hellos, and what it concludes from the hellos it hears."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.api.status import rfc3339
from appliance.core.fleet import NodeReport, NodeStanding, encode_report, judge_fleet
from appliance.core.names import NodeName
from appliance.core.problems import Severity
from appliance.reconcile.verdicts import Verdict
from appliance.workers.publisher import Publisher

if TYPE_CHECKING:
    from appliance.daemon.app import Daemon

FAILED_RESULTS = frozenset({"refused", "reverted"})


class FleetView:
    """Made once by the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._started_mono = time.monotonic()
        self._said: NodeReport | None = None

    def own_report(self) -> NodeReport:
        """What stands here."""
        reconciler = self._daemon.reconciler
        applied, attempt = reconciler.applied, reconciler.last_attempt
        result = attempt.result if attempt is not None else ""
        errors = (
            [item for item in attempt.problems if item.severity is Severity.ERROR]
            if attempt is not None and result in FAILED_RESULTS
            else []
        )
        return NodeReport(
            version=__version__,
            generation=applied.generation if applied else 0,
            applied=applied.digest if applied else "",
            desired=reconciler.files.digest,
            revision=(applied.revision or "") if applied else "",
            branch=(applied.branch or "") if applied else "",
            dirty=applied.dirty if applied else None,
            result=result if result in FAILED_RESULTS else "",
            problems=len(errors),
            first_problem=_say(attempt) if attempt is not None and errors else "",
        )

    def say(self) -> str:
        """The header of a hello."""
        self._said = self.own_report()
        return encode_report(self._said)

    def follow_verdict(self) -> None:
        """A look is over: if it changed what hellos say, say it now."""
        if self._said is None or self.own_report() == self._said:
            return
        for handle in self._daemon.pool.handles.values():
            if isinstance(handle.worker, Publisher):
                handle.worker.say_hello_again()

    def standings(self) -> list[NodeStanding]:
        """Every node that says hello here, or should."""
        applied = self._daemon.reconciler.applied
        if applied is None:
            return []
        own_nodes = applied.desired.run_nodes
        expected: dict[NodeName, float | None] = {}
        for node in own_nodes:
            expected |= applied.desired.hellos.get(node, {})
        return judge_fleet(
            expected,
            self._daemon.presence.sightings(),
            self.own_report(),
            time.monotonic(),
            self._started_mono,
        )

    def as_json(self) -> list[dict[str, object]]:
        """For the status; empty where no hellos are heard."""
        return [_standing_json(item) for item in self.standings()]


def _say(attempt: Verdict) -> str:
    first = next(item for item in attempt.problems if item.severity is Severity.ERROR)
    name = first.file.rsplit("/", 1)[-1]
    place = f"{name}:{first.line}:{first.column} " if first.line else ""
    return f"{first.code} {place}{first.message}"


def _standing_json(item: NodeStanding) -> dict[str, object]:
    report = item.report
    described: dict[str, object] = {
        "node": item.node,
        "state": str(item.state),
        "last_hello_at": rfc3339(item.last_hello_at) if item.last_hello_at is not None else None,
    }
    if report is None:
        return described
    return described | {
        "version": report.version,
        "generation": report.generation,
        "applied": report.applied,
        "desired": report.desired,
        "revision": report.revision or None,
        "branch": report.branch or None,
        "dirty": report.dirty,
        "problems": report.problems,
        "first_problem": report.first_problem or None,
    }
