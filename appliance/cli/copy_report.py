"""What came of the copies of one call: for people, for machines, as an exit status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from appliance.cli.copy_places import Job
from appliance.cli.options import Exit
from appliance.core.copying import Copied


class CopyState(StrEnum):
    """How one copy ended."""

    COPIED = "copied"
    FAILED = "failed"
    SILENT = "silent"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
    """No regular file: nothing that is copied."""


TROUBLES = frozenset({CopyState.FAILED, CopyState.SILENT})
"""A node where one file ended so counts as one that failed."""


@dataclass(slots=True, eq=False)
class CopyOutcome:
    """One copy; `copied` is None where the node that copied does not say what, as a Go node."""

    job: Job
    state: CopyState = CopyState.FAILED
    copied: Copied | None = None
    reason: str | None = None
    seconds: float = 0.0


def exit_code_of(outcomes: Sequence[CopyOutcome]) -> Exit:
    """How bad it is."""
    states = {outcome.state for outcome in outcomes}
    if CopyState.FAILED in states:
        return Exit.FAILED
    return Exit.SILENT if CopyState.SILENT in states else Exit.OK


def summary_of(outcomes: Sequence[CopyOutcome], total: int) -> str:
    """One line; nothing where all went well."""
    counts = {state: sum(outcome.state is state for outcome in outcomes) for state in CopyState}
    if counts[CopyState.COPIED] == total:
        return ""
    parts = [f"{counts.pop(CopyState.COPIED)} of {total} copied"]
    parts += [f"{count} {state}" for state, count in counts.items() if count]
    if len(outcomes) < total:
        parts.append(f"{total - len(outcomes)} not begun")
    return ", ".join(parts)


def facts_of(
    outcomes: Sequence[CopyOutcome], total: int, job_id: str = "", not_asked: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything as JSON."""
    return {
        "job": job_id or None,
        "copies": [_facts_of(outcome) for outcome in outcomes],
        "summary": {
            "total": total,
            "not_asked": list(not_asked),
            **{
                str(state): [
                    str(outcome.job.source) for outcome in outcomes if outcome.state is state
                ]
                for state in CopyState
            },
        },
    }


def _facts_of(outcome: CopyOutcome) -> dict[str, Any]:
    copied = outcome.copied
    return {
        "source": str(outcome.job.source),
        "target": str(outcome.job.target),
        "state": str(outcome.state),
        "size": None if copied is None else copied.size,
        "sha256": None if copied is None else copied.sha256,
        "is_confirmed": copied is not None and copied.is_confirmed,
        "seconds": round(outcome.seconds, 3),
        "reason": outcome.reason,
    }
