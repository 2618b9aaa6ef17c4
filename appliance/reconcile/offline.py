"""What a reload would do, asked of two configs instead of a running daemon."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from appliance.config.loader import LoadedConfig, load_desired
from appliance.core.describe import describe_plan, describe_settings
from appliance.core.names import NodeName
from appliance.core.plan import Plan, apply_to_model, make_plan
from appliance.core.run_options import choose_run_nodes
from appliance.errors import ConfigError
from appliance.methods.registry import METHOD_TABLE
from appliance.reconcile.reload_result import (
    find_problems_of,
    find_rejections_of_plan,
    problem_json,
)


def plan_between(
    paths: Sequence[str], against: Sequence[str], *, nodes: Sequence[str], all_nodes: bool
) -> dict[str, object]:
    """The plan from the config at `against` to the one at `paths`, in the words of the daemon's own plan."""
    try:
        old = _load(against, nodes, all_nodes=all_nodes)
        new = _load(paths, nodes, all_nodes=all_nodes)
    except ConfigError as error:
        problems = [problem_json(problem) for problem in find_problems_of(error)]
        return {"result": "refused", "actions": [], "problems": problems, "summary": {}}
    observed = apply_to_model(make_plan(old.desired.workers, {}, 0.0), {})
    plan: Plan = make_plan(new.desired.workers, observed, 0.0)
    objections = find_rejections_of_plan(old.desired, new.desired, plan, observed, force=True)
    settings = describe_settings(old.desired, new.desired)
    is_same = plan.is_empty and not settings
    return {
        "result": "refused" if objections else "no change" if is_same else "changes",
        "actions": describe_plan(plan, new.desired.hidden.joined(old.desired.hidden)),
        "settings": settings,
        "problems": [problem_json(new.place(problem)) for problem in objections],
        "warnings": [problem_json(problem) for problem in new.warnings],
        "summary": plan.summary(),
        "digest": new.digest,
    }


def _load(paths: Sequence[str], nodes: Sequence[str], *, all_nodes: bool) -> LoadedConfig:
    def choose(declared: Sequence[NodeName]) -> Sequence[NodeName]:
        known = [node for node in nodes if node in declared]
        return choose_run_nodes(
            declared, known or None, all_nodes=all_nodes or not known, hostname=socket.gethostname()
        )

    return load_desired(paths, environ=os.environ, methods=METHOD_TABLE, run_nodes=choose)
