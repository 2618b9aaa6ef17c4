"""Writes verdicts into the history, with what else is worth knowing later: who asked, which set stood before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from appliance.config.revision import Revision
from appliance.core.describe import describe_plan
from appliance.reconcile.contracts import ReloadTelemetry
from appliance.reconcile.history import History
from appliance.reconcile.verdicts import Verdict, drain_json, problem_json

MAX_ACTIONS = 1_000
MAX_PROBLEMS = 200


class Recorder:
    """A record that cannot be written is told and holds nothing up."""

    def __init__(self, history: History, telemetry: ReloadTelemetry) -> None:
        self._history = history
        self._telemetry = telemetry

    async def record(
        self,
        verdict: Verdict,
        *,
        revision: Revision | None,
        previous_digest: str | None,
        files: Mapping[str, str],
        attempted: Mapping[str, str] | None = None,
    ) -> None:
        """Keep one verdict.

        `files` are those of a set in force, kept for a rollback; `attempted` those of a refused one.
        """
        record = {
            "at": verdict.at,
            "result": verdict.result,
            "trigger": verdict.trigger,
            "by": verdict.by,
            "generation": verdict.generation,
            "digest": verdict.digest,
            "previous_digest": previous_digest,
            "revision": revision.commit if revision else None,
            "branch": revision.branch if revision else None,
            "dirty": revision.dirty if revision else None,
            "author": revision.author if revision else None,
            "actions": describe_plan(verdict.plan)[:MAX_ACTIONS],
            "problems": [problem_json(problem) for problem in verdict.problems[:MAX_PROBLEMS]],
            "duration_seconds": round(verdict.duration_s, 6),
            "drain": drain_json(verdict.drains),
            "failed": dict(verdict.failed),
        }
        try:
            await asyncio.to_thread(self._history.append, record, files, attempted)
        except OSError as error:
            self._telemetry.history_not_written(str(error))
