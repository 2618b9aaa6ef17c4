"""Config sets as operators see them: what a look would do, a look now, the way back, the history."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from appliance.api import model
from appliance.api.requests import PlanRequest
from appliance.api.worker_section import describe_overrides
from appliance.core.describe import describe_plan, describe_settings
from appliance.errors import ConfigInvalid, ConfigUnreadable, RunNodesUnclear
from appliance.reconcile.disk import SourceReader
from appliance.reconcile.history import History, Record
from appliance.reconcile.overrides import OverrideBook
from appliance.reconcile.reconciler import Reconciler
from appliance.reconcile.reload_result import (
    LoadedSet,
    ReloadResult,
    drain_json,
    find_problems_of,
    unkept_pin_note,
)


class ConfigSets:
    """Called on the event loop, but for the history."""

    def __init__(
        self,
        reader: SourceReader,
        reconciler: Reconciler,
        overrides: OverrideBook,
        history: History,
    ) -> None:
        self._reader = reader
        self._reconciler = reconciler
        self._overrides = overrides
        self._history = history

    async def plan(self, paths: Sequence[str] | None, *, force: bool = False) -> model.Plan:
        """What a reload would do, with the daemon's own paths or others."""
        try:
            loaded = await (self._reader.load_from(paths) if paths else self._reader.load())
        except (ConfigInvalid, ConfigUnreadable, RunNodesUnclear) as error:
            return model.Plan(result="refused", problems=list(find_problems_of(error)))
        return self._predict(loaded, force=force)

    async def plan_given(self, asked: PlanRequest, *, may_see_environment: bool) -> model.Plan:
        """What a reload would do with files that the caller read, with his own rights.

        Of the daemon's environment they see what the set in force sees anyway: ``${NAME}`` must be no way to read the
        rest of it.
        """
        if asked.digest and asked.digest == await self._reader.fingerprint():
            # judged as a look would judge them: a commit that is not signed has the same files
            return await self.plan(None, force=asked.force)
        applied = self._reconciler.applied
        in_force = applied.variables if applied is not None else frozenset()
        variables = None if may_see_environment else in_force
        try:
            loaded = await self._reader.load_given(asked.files, asked.digest, variables)
        except (ConfigInvalid, RunNodesUnclear) as error:
            return model.Plan(result="refused", problems=list(find_problems_of(error)))
        return self._predict(loaded, force=asked.force)

    def _predict(self, loaded: LoadedSet, *, force: bool) -> model.Plan:
        prediction = self._reconciler.predict(loaded, force=force)
        applied = self._reconciler.applied
        moves = applied is not None and not prediction.is_pinned
        settings = describe_settings(applied.desired, loaded.desired) if applied and moves else {}
        is_same = prediction.plan.is_empty and not settings
        hidden = loaded.desired.hidden
        if applied is not None:
            hidden = hidden.joined(applied.desired.hidden)
        return model.Plan(
            result="refused" if prediction.objections else "no change" if is_same else "changes",
            actions=msgspec.convert(describe_plan(prediction.plan, hidden), list[model.Action]),
            settings=msgspec.convert(settings, model.Fields),
            overrides=describe_overrides(self._overrides.all),
            problems=list(prediction.objections),
            warnings=list(prediction.warnings),
            summary=prediction.plan.summary(),
            digest=loaded.digest,
        )

    async def reload(self, *, force: bool, trigger: str, by: str = "") -> model.ReloadResult:
        """Look at the config now."""
        return describe_verdict(await self._reconciler.reload(force=force, trigger=trigger, by=by))

    async def roll_back(self, *, to: str | None, force: bool, by: str = "") -> model.ReloadResult:
        """Go back to a set that was in force, and pin it.

        Raises:
            RequestInvalid: there is no such set.
        """
        result = describe_verdict(await self._reconciler.roll_back(to=to, force=force, by=by))
        rollback = self._reconciler.rollback
        result.pinned = rollback.pin is not None
        if result.pinned and not rollback.is_pin_kept:
            result.problems = [*result.problems, unkept_pin_note()]
        return result

    def history(self, limit: int) -> list[Record]:
        """Records of config sets as they were written, newest first. Reads files: called in a thread."""
        return [
            {key: value for key, value in record.items() if key != "diff"}
            for record in self._history.newest(limit)
        ]

    def history_record(self, key: str) -> Record | None:
        """One record by number, generation, digest or revision, with what changed in the files.

        Reads files: called in a thread.
        """
        record = self._history.find(key)
        return None if record is None else {**record, "diff": self._history.difference(record)}


def describe_verdict(verdict: ReloadResult) -> model.ReloadResult:
    """A verdict as the API shows it."""
    return model.ReloadResult(
        result=verdict.result,
        generation=verdict.generation,
        digest=verdict.digest,
        revision=verdict.revision,
        trigger=verdict.trigger,
        by=verdict.by,
        problems=list(verdict.problems),
        actions=msgspec.convert(describe_plan(verdict.plan, verdict.hidden), list[model.Action]),
        summary=verdict.plan.summary(),
        failed=dict(verdict.failed),
        duration_seconds=round(verdict.duration_s, 6),
        drain=msgspec.convert(drain_json(verdict.drains), model.Drain),
    )
