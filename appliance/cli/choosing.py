"""Which nodes a command is for: targets made names, what is shown before anything is sent, and how many are asked at a time.

`exec`, `send` and `tail` share it; whoever else takes nodes calls `choose_nodes`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from appliance.api.model import Chosen, NotChosen
from appliance.cli.answer_view import Answers
from appliance.cli.api_client import ApiClient, ApiRefused
from appliance.cli.options import print_json, warn
from appliance.core.batches import Amount, split
from appliance.core.targets import read_targets, split_targets
from appliance.errors import ApplianceError, TargetsUnclear

TARGETS_HELP = "A node, ship*, @ROLE, LABEL=VALUE, all, or !TARGET to leave out."
MAX_SHOWN = 5
"""Names in a line on stderr; `--dry-run` shows all."""

ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "-x",
        "--exclude",
        metavar="TARGET",
        help="Leave these out, as !TARGET does, which shells want in quotes; may be repeated.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show which nodes would be asked and send nothing.")
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="N|N%",
        help="Ask so many nodes at a time; the next when these have answered or --wait is over.",
    ),
]
MaxFailOption = Annotated[
    str | None,
    typer.Option(
        "--max-fail",
        metavar="N|N%",
        help="With --batch: ask no further nodes once more than so many failed.",
    ),
]
AbsentOption = Annotated[
    bool | None,
    typer.Option(
        "--wait-for-absent/--no-wait-for-absent",
        help="Whether nodes are waited for at which nobody is there. By itself: one node is, of several none.",
        show_default=False,
    ),
]
GroupOption = Annotated[
    bool,
    typer.Option("--group", help="Show it at the end, nodes that answered the same together."),
]
RawOption = Annotated[
    bool,
    typer.Option("--raw", help="Show bytes on a terminal as they are, control characters too."),
]

INTERRUPTED_WORD = "interrupted"
"""Why nodes are not asked any more where the one who waits has ended it."""

ABSENT_GRACE_S = 2.0
"""So long nobody must be there for all that is left before it is not waited for: a daemon that restarts is back by then."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of one command. With `by_pattern` the one who typed it did not write all of their names."""

    names: list[str]
    by_pattern: bool = False
    left_out: list[NotChosen] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def choose_nodes(
    client: ApiClient,
    texts: Sequence[str],
    exclude: Sequence[str] = (),
    *,
    method: str | None = None,
    from_node: str | None = None,
    hint: str = "NODE",
    always_asks: bool = False,
) -> Nodes:
    """The nodes that targets mean. Names alone are taken as they are; for the rest the daemon is asked.

    With `method` those that a pattern matches and that do not subscribe it are left out.

    Raises:
        typer.BadParameter: a target is none, or means no node; nothing was sent.
    """
    try:
        targets = read_targets(texts, exclude)
    except TargetsUnclear as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None
    if targets.are_plain and not always_asks:
        return Nodes([target.pattern for target in targets.wanted])
    body = {
        "targets": split_targets(texts),
        "exclude": split_targets(exclude),
        "method": method,
        "from_node": from_node,
    }
    try:
        found = client.post("/api/v1/targets", Chosen, body).value
    except ApiRefused as error:
        if error.status == 400:
            raise typer.BadParameter(str(error), param_hint=hint) from None
        raise
    return Nodes(found.nodes, not targets.are_plain, found.left_out, found.notes)


def tell_choice(nodes: Nodes) -> None:
    """How many nodes a pattern means, before they are asked."""
    if nodes.by_pattern and len(nodes.names) > 1:
        warn(say_nodes(nodes.names))
    if nodes.left_out:
        left_out = say_nodes([item.node for item in nodes.left_out])
        warn(f"not chosen, without a subscription to this method: {left_out}")


def waits_for_absent(asked: bool | None, count: int) -> bool:
    """Whether nodes are waited for at which nobody is there: by itself the only one is, of several none."""
    return count == 1 if asked is None else asked


def say_nodes(names: Sequence[str]) -> str:
    """How many nodes, and the first of them."""
    shown = ", ".join(names[:MAX_SHOWN])
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return f"{len(names)} node{'s' if len(names) != 1 else ''}: {shown}{more}"


@dataclass(frozen=True, slots=True)
class Rollout:
    """Nodes in batches, and how many of them may fail before the rest is left alone."""

    batches: list[list[str]]
    max_fail: int | None = None

    @classmethod
    def plan(cls, names: Sequence[str], batch: str | None, max_fail: str | None) -> Rollout:
        """From the options.

        Raises:
            typer.BadParameter: they make no sense.
        """
        if batch is None:
            if max_fail is not None:
                raise typer.BadParameter(
                    "goes with --batch: without batches every node is asked at once",
                    param_hint="--max-fail",
                )
            return cls([list(names)])
        size = _read_amount("--batch", batch)
        if not size.number:
            raise typer.BadParameter("at least 1", param_hint="--batch")
        allowed = None if max_fail is None else _read_amount("--max-fail", max_fail)
        return cls(
            split(names, size.at_least_one_of(len(names))),
            None if allowed is None else allowed.at_most_of(len(names)),
        )

    @property
    def stop_reason(self) -> str:
        """Why nodes are not asked once too many have failed."""
        return "one failed" if self.max_fail == 0 else f"more than {self.max_fail} failed"

    def run(self, ask: Callable[[list[str]], str], answers: Answers) -> None:
        """Ask one batch after the other; of nodes that are not asked any more that is noted in `answers`.

        `ask` says why no other batch is to follow, "" where one may.
        """
        for number, batch in enumerate(self.batches, 1):
            if len(self.batches) > 1:
                warn(f"batch {number} of {len(self.batches)}: {say_nodes(batch)}")
            answers.begin_batch(number)
            try:
                why = ask(batch)
            except ApiRefused as error:
                if number == 1 or error.status != 400:
                    raise
                # cancelled meanwhile
                why = str(error)
                answers.skip(batch, why)
            except ApplianceError:
                answers.skip(self._after(number), "the daemon did not answer")
                raise
            if self.max_fail is not None and answers.troubled_count > self.max_fail:
                why = why or self.stop_reason
            if why:
                self._tell_unsure(batch, answers)
                answers.skip(self._after(number), why)
                return

    def _tell_unsure(self, batch: Sequence[str], answers: Answers) -> None:
        """Nodes of which the daemon had not said yet that they are asked."""
        told = {item.node for item in answers.nodes}
        unsure = [name for name in batch if name not in told]
        if unsure:
            where = f"jobs show {answers.first_job}" if answers.first_job else "jobs"
            warn(
                f"{say_nodes(unsure)}: it was interrupted before it was known whether they are asked: appliance {where}"
            )

    def part_of(self, answers: Answers) -> dict[str, str]:
        """For the query of a batch: that it belongs to the job that the first one began."""
        if len(self.batches) == 1:
            return {}
        facts = {"batch": f"{answers.batch}", "batches": f"{len(self.batches)}"}
        begun = answers.first_job
        return {**facts, "into": begun} if begun and answers.batch > 1 else facts

    def _after(self, number: int) -> list[str]:
        return [name for batch in self.batches[number:] for name in batch]


def _read_amount(option: str, text: str) -> Amount:
    try:
        return Amount.read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def show_dry_run(
    nodes: Nodes, rollout: Rollout, method: str, arguments: Sequence[str], *, as_json: bool
) -> None:
    """What would be sent to whom; it is the result, and stands on stdout."""
    if as_json:
        facts: dict[str, Any] = {
            "dry_run": True,
            "method": method,
            "method_args": list(arguments),
            "nodes": nodes.names,
            "batches": rollout.batches,
            "max_fail": rollout.max_fail,
            "left_out": [{"node": item.node, "why": item.why} for item in nodes.left_out],
            "notes": nodes.notes,
        }
        print_json(facts)
        return
    from appliance.cli.grouping import wrap_names

    typer.echo(f"would send {shlex.join([method, *arguments])}")
    count = len(nodes.names)
    typer.echo(f"to {count} node{'s' if count != 1 else ''}:")
    batches = rollout.batches
    if len(batches) == 1:
        typer.echo(wrap_names(nodes.names, begin="  "))
    for number, batch in enumerate(batches if len(batches) > 1 else (), 1):
        typer.echo(wrap_names(batch, begin=f"  batch {number}: "))
    if rollout.max_fail is not None:
        typer.echo(f"no further batch once {rollout.stop_reason}")
    if nodes.left_out:
        typer.echo("not chosen, without a subscription to this method:")
        typer.echo(wrap_names([item.node for item in nodes.left_out], begin="  "))
    for note in nodes.notes:
        warn(f"note: {note}")
