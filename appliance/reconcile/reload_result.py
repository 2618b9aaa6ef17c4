"""Verdicts of looks at the config: values, why a valid set is refused all the same, and how they show as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.config.revision import Revision, SignedCommit
from appliance.core.hidden import NOTHING_HIDDEN, Hidden
from appliance.core.names import WorkerKey
from appliance.core.plan import Plan, find_excess_cancels, find_restart_fields
from appliance.core.problems import Problem, Severity
from appliance.core.specs import DesiredState, ObservedState
from appliance.errors import ConfigError, ConfigInvalid, ConfigUnreadable
from appliance.reconcile.kept_files import Pin
from appliance.telemetry.stats import DrainReport

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSet:
    """A config set that was read and compiled without an error."""

    desired: DesiredState
    digest: str
    revision: str | None
    files: Mapping[str, str]
    blank: frozenset[str] = frozenset()
    """Names of files that hold nothing."""
    branch: str | None = None
    dirty: bool | None = None
    """Whether the files differ from the commit; None where that is not known."""
    author: str | None = None
    signed: SignedCommit | None = None
    """The commit that it is of, where only signed ones are taken."""
    older_than: str | None = None
    """The newest commit that was in force, where the set is of a signed one that came before it."""
    warnings: Sequence[Problem] = ()
    place: Callable[[Problem], Problem] = field(default=lambda problem: problem, compare=False)
    """Gives a problem that knows its path only its place in the files."""

    @property
    def variables(self) -> frozenset[str]:
        """Names of environment variables that the files refer to."""
        return frozenset(name for text in self.files.values() for name in _VARIABLE.findall(text))

    @property
    def filled(self) -> frozenset[str]:
        """Names of files that hold something."""
        return frozenset(self.files) - self.blank

    @property
    def label(self) -> Revision | None:
        """Where the files come from, as one value."""
        if self.revision is None:
            return None
        return Revision(
            commit=self.revision, branch=self.branch, dirty=self.dirty, author=self.author
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The set in force."""

    desired: DesiredState
    digest: str
    revision: str | None
    generation: int
    applied_at: float
    branch: str | None = None
    dirty: bool | None = None
    filled: frozenset[str] = frozenset()
    """Names of the files that held something of it."""
    variables: frozenset[str] = frozenset()
    """Names of environment variables that its files refer to."""

    @classmethod
    def from_loaded(cls, loaded: LoadedSet, *, generation: int, applied_at: float) -> Applied:
        """A set that comes into force, or was."""
        return cls(
            desired=loaded.desired,
            digest=loaded.digest,
            revision=loaded.revision,
            branch=loaded.branch,
            dirty=loaded.dirty,
            generation=generation,
            applied_at=applied_at,
            filled=loaded.filled,
            variables=loaded.variables,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadResult:
    """What became of one look. `result` is applied, unchanged, refused or reverted (a trial that failed).

    `by` tells who asked, where that is known.
    """

    result: str
    at: float
    trigger: str
    by: str = ""
    digest: str = ""
    revision: str | None = None
    generation: int = 0
    problems: tuple[Problem, ...] = ()
    plan: Plan = field(default_factory=Plan)
    duration_s: float = 0.0
    drains: tuple[DrainReport, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    hidden: Hidden = field(default=NOTHING_HIDDEN, compare=False, repr=False)
    """Of both sets that the plan compares."""

    def says_the_same(self, other: ReloadResult) -> bool:
        """Whether both say the same of the same files: a late event is nothing new."""
        return (self.result, self.digest, self.problems) == (
            other.result,
            other.digest,
            other.problems,
        )

    @property
    def may_pass_later(self) -> bool:
        """Whether what refused it lies outside of the files, so that the same set may be taken in a while."""
        return self.result == "refused" and any(one.code in OUTSIDE for one in self.problems)


OUTSIDE = frozenset({"E001", "E303", "E304", "E306", "E307", "E311", "E312", "E313", "E314"})
"""Of problems with what the files do not say: a disk, an address, a broker, a key that is not there yet."""


def find_rejections(
    loaded: LoadedSet,
    old: DesiredState,
    filled: frozenset[str],
    plan: Plan,
    observed: ObservedState,
    *,
    force: bool = False,
    restarts: bool = False,
    is_known: bool = False,
) -> tuple[Problem, ...]:
    """Why a valid set is refused all the same, with its places in the files: for starts, reloads and what predicts them.

    Args:
        old, filled: the set in force, and its files that held something.
        plan, observed: what would change, and what runs.
        restarts: whether the daemon starts, which takes what only a restart can change.
        is_known: whether the set was in force before, so that no commit of its is too old.
    """
    found = () if force or is_known else find_older(loaded)
    # before the guard of the plan, which could only count workers: this one names the file
    found = found or (() if force else find_emptied(old, filled, loaded))
    found = found or find_rejections_of_plan(
        old, loaded.desired, plan, observed, force=force, restarts=restarts
    )
    return tuple(map(loaded.place, found))


def find_rejections_of_plan(
    old: DesiredState,
    new: DesiredState,
    plan: Plan,
    observed: ObservedState,
    *,
    force: bool = False,
    restarts: bool = False,
) -> tuple[Problem, ...]:
    """What speaks against a plan, whichever files it comes from: it needs a restart, or it would cancel too much at once.

    Of the guards of the old set and of the new one the stricter holds: a set must not lift the guard against itself.
    """
    needed = () if restarts else find_restart_fields(old, new)
    if needed:
        return tuple(_needs_restart(name) for name in needed)
    most = min(old.reload.max_cancel_fraction, new.reload.max_cancel_fraction)
    gone = find_excess_cancels(plan, observed, most)
    return (_too_many(gone, len(observed)),) if gone and not force else ()


def find_emptied(
    old: DesiredState, filled: frozenset[str], loaded: LoadedSet
) -> tuple[Problem, ...]:
    """Files that held something of the old set and hold nothing now, where nodes go with them.

    That is how a file looks that was being written when the disk ran full.
    """
    gone = ", ".join(sorted(old.declared_nodes - loaded.desired.declared_nodes)[:5])
    emptied = sorted(filled & loaded.blank) if gone else ()
    return tuple(
        Problem(
            code="E308",
            file=name,
            line=1,
            column=1,
            message=f"the file has become empty, and nodes would go with it: {gone}",
            hint="restore the file, or remove it; if it is meant: `appliance reload --force`",
        )
        for name in emptied
    )


def find_older(loaded: LoadedSet) -> tuple[Problem, ...]:
    """A signed commit that came before the one in force: somebody may have put it there again."""
    if loaded.older_than is None:
        return ()
    return (
        Problem(
            code="E314",
            path="config.signed_by",
            message=f"commit {(loaded.revision or '')[:12]} is older than {loaded.older_than[:12]}, which was in force",
            hint="go back with a new commit, signed (git revert); if it is meant: `appliance reload --force`",
        ),
    )


def _needs_restart(name: str) -> Problem:
    return Problem(
        code="E301",
        path=name,
        message=f"{name} cannot change while the daemon runs",
        hint="restart the daemon to take this change, or undo it to let the rest through",
    )


def _too_many(gone: tuple[WorkerKey, ...], total: int) -> Problem:
    names = ", ".join(key.name for key in gone[:5]) + (" …" if len(gone) > 5 else "")
    return Problem(
        code="E302",
        path="reload.max_cancel",
        message=f"would cancel {len(gone)} of {total} workers at once: {names}",
        hint="if it is meant: `appliance reload --force`, or raise reload.max_cancel first",
    )


def pinned_note(pin: Pin | None) -> Problem:
    """Why a look changes nothing while an older set is pinned."""
    why = "taken back after its trial" if pin and pin.reason == "trial" else "rolled back"
    return Problem(
        code="W301",
        severity=Severity.WARNING,
        message=f"the config in the files was {why} and stays out of force until the files change",
        hint="change the files, or take them as they are with `appliance reload --force`",
    )


def unkept_pin_note() -> Problem:
    """What somebody who went back must know before the next restart."""
    return Problem(
        code="W302",
        severity=Severity.WARNING,
        message="the pin could not be written: a restart would take what the files say",
        hint="make room in the state directory; it is tried again every moment",
    )


def lost_pin_note(why: str) -> Problem:
    """What somebody who went back must know: the set that was taken back is in force again."""
    return Problem(
        code="W304",
        severity=Severity.WARNING,
        message=f"the set that was pinned does not hold any more: {why}",
        hint="the files decide again; go back once more with `appliance rollback`, or mend the files",
    )


def unjudged_note() -> Problem:
    """What a plan of texts cannot tell where only signed commits are taken."""
    return Problem(
        code="W303",
        severity=Severity.WARNING,
        path="config.signed_by",
        message="these files are planned without their commit, and only signed commits are taken",
        hint="once they are what the daemon's paths hold, `appliance plan` judges the commit, too",
    )


def trial_problems(generation: int, failed: Mapping[str, str]) -> tuple[Problem, ...]:
    """What a set did wrong on its trial."""
    return tuple(
        Problem(
            code="E310",
            path=name,
            message=f"{name} does not run with generation {generation}: {reason}",
            hint="mend the config; until the files change the set before it stays in force",
        )
        for name, reason in failed.items()
    )


def find_problems_of(error: ConfigError) -> tuple[Problem, ...]:
    """The problems that an exception of the loader stands for."""
    if isinstance(error, ConfigInvalid):
        return error.problems
    if isinstance(error, ConfigUnreadable):
        return (Problem(code="E001", message=error.reason, file=error.path),)
    return (Problem(code="E305", path="nodes", message=str(error)),)


def problem_json(problem: Problem) -> dict[str, object]:
    """A problem as the status and the API show it."""
    return {
        "code": problem.code,
        "severity": str(problem.severity),
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "length": problem.length,
        "path": problem.path,
        "message": problem.message,
        "hint": problem.hint,
        "excerpt": problem.excerpt,
    }


def drain_json(drains: Sequence[DrainReport]) -> dict[str, object]:
    """Drain counts, summed and per worker where there was anything to tell."""
    return {
        "finished": sum(drain.finished for drain in drains),
        "handed_back": sum(drain.handed_back for drain in drains),
        "abandoned": sum(drain.abandoned for drain in drains),
        "workers": {
            drain.worker: {
                "finished": drain.finished,
                "handed_back": drain.handed_back,
                "abandoned": drain.abandoned,
            }
            for drain in drains
            if drain.finished or drain.handed_back or drain.abandoned
        },
    }
