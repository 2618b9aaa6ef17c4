"""Sends for the one who waits and writes what comes back as it comes: what `exec` and `tail` share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.api.model import Line
from appliance.cli.answer_view import Answers, Chunk, NodeAnswer, Stream
from appliance.cli.api_client import ApiClient
from appliance.cli.grouping import WIDTH, Group, describe_groups, make_groups, show_groups
from appliance.cli.options import Output, print_json, warn
from appliance.core.delivery import DeliveryState
from appliance.core.outcome import say_signal
from appliance.errors import DaemonUnreachable

LONGEST_S = 90_000.0
"""No daemon waits longer for a handler."""
STOPPED_WORDS = "the program was stopped after {:g} s, when its time was over"
HELD_WORDS = (
    "the program has ended, while what it left behind held its output and said nothing: that was ended, too, and the"
    " output may not be complete"
)


def terminal_streams() -> frozenset[Stream]:
    """Which of the two streams a person sees on a terminal, where bytes could do harm."""
    found = {Stream.OUT} if sys.stdout.isatty() else set()
    return frozenset(found | ({Stream.ERR} if sys.stderr.isatty() else set()))


def follow(
    client: ApiClient,
    body: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    wait_s: float,
    answers: Answers,
    *,
    idle_s: float | None = None,
    absent_s: float | None = None,
    job: Mapping[str, str] | None = None,
    goes_on: bool = False,
    grace_s: float | None = None,
) -> bool:
    """Submit and write until all is answered or the wait is over; False when it was interrupted.

    With `grace_s` what was taken is waited for until so long after the time that the node gives it, where that is longer.
    With `idle_s` the wait is also over when no node gave a sign of life for so long, with `absent_s` when for so long
    nobody was there for all that is left. May be called again for further nodes, or with `goes_on` for those that an end
    of the daemon has cut off.

    Raises:
        DaemonUnreachable: the daemon is not there, or went away in the middle; what came until then is written.
    """
    query = {"wait": f"{wait_s:g}s", **(job or {})}
    if idle_s is not None:
        query["idle"] = f"{idle_s:g}s"
    if absent_s is not None:
        query["absent"] = f"{absent_s:g}s"
    if grace_s is not None:
        query["grace"] = f"{grace_s:g}s"
    bodies = [body] if isinstance(body, Mapping) else list(body)
    asked = [{**each, "for_caller": True} for each in bodies]
    new_count = sum(len(each["to_nodes"]) for each in bodies) - answers.again_count
    node_count = len(answers.nodes) + new_count
    try:
        quiet_s = wait_s if grace_s is None else LONGEST_S
        for line in client.stream("/api/v1/messages", Line, asked, query, quiet_s):
            write(answers.take(line.value))
            if answers.are_complete(node_count):
                break  # an answer tells more than the acknowledgement that may follow
    except KeyboardInterrupt:
        answers.is_interrupted = True
        write(answers.finish())
        return False
    except DaemonUnreachable:
        if not goes_on:
            write(answers.finish())
        raise
    write(answers.finish())
    return True


def write(chunks: list[Chunk]) -> None:
    """Bytes as they are, our own words on lines of their own."""
    for stream, data in chunks:
        if stream is Stream.NOTE:
            warn(data.decode())
            continue
        target = sys.stdout if stream is Stream.OUT else sys.stderr
        target.flush()
        target.buffer.write(data)
        target.flush()


def show_kept(answers: Answers, output: Output, *, groups: bool, raw: bool) -> None:
    """What was kept until the end: as JSON, or in groups of nodes that said the same."""
    if output is not Output.JSON and not groups:
        return
    if output is Output.JSON:
        print_json({**answers.facts(), **groups_of(answers, wanted=groups)})
        return
    found = _groups(answers)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    write(show_groups(found, frozenset() if raw else terminal_streams(), width))


def groups_of(answers: Answers, *, wanted: bool) -> dict[str, Any]:
    """The groups as they stand in JSON, where they are wanted."""
    return {"groups": describe_groups(_groups(answers))} if wanted else {}


def _groups(answers: Answers) -> list[Group]:
    return make_groups((item, answers.said(item)) for item in answers.nodes)


def tell_troubles(answers: Answers) -> None:
    """A line for each node that failed, and for what was lost on the way."""
    is_one = len(answers.nodes) == 1
    for item in answers.failed:
        if not (is_one and item.reason is None):
            warn(f"{item.node}: {item.describe()}")
    for item in answers.nodes:
        if item.progress.stopped_after_s is not None:
            warn(f"{item.node}: {STOPPED_WORDS.format(item.progress.stopped_after_s)}")
        elif item.progress.signal is not None:
            warn(f"{item.node}: the program was {say_signal(item.progress.signal)}")
        if item.progress.is_held:
            warn(f"{item.node}: {HELD_WORDS}")
        if item.progress.is_truncated:
            warn(
                f"{item.node}: the output exceeds what the node keeps (max_output_bytes) and was"
                " cut; --stream has no such bound"
            )
        elif item.progress.is_cut:
            warn(f"{item.node}: the answer is too long to be shown and was cut")
        if item.progress.is_stderr_cut:
            warn(f"{item.node}: of its error output only the end came")
    if answers.lost_events:
        warn(
            f"{answers.lost_events} pieces were lost because they were not read quickly enough:"
            " the output is not complete"
        )


def tell_silence(answers: Answers, what: str, *, in_pieces: bool, options: str = "") -> None:
    """What goes on at nodes without an answer, those alike together, and how to end it."""
    alike: dict[tuple[str, bool], list[NodeAnswer]] = {}
    for item in answers.silent:
        words = _describe_silence(item, what, in_pieces=in_pieces)
        alike.setdefault((words, item.progress.is_settled), []).append(item)
    for (words, is_settled), items in alike.items():
        forget = ""
        if not is_settled and not _is_worked_on(items[0]):
            ids = " ".join(str(item.id) for item in items)
            forget = f" (forget it: appliance outbox drop{options} {ids})"
        warn(f"{_names(items)}: {words}{forget}")


def tell_jobs(answers: Answers, options: str = "") -> None:
    """Where to find what is still to come."""
    for job in answers.jobs_to_come:
        tell_job(job, options)


def tell_job(job: str | None, options: str = "") -> None:
    """Where to find what is still to come."""
    if job is not None:
        warn(
            f"job {job}: appliance jobs watch{options} {job} shows what comes later,"
            f" appliance jobs cancel{options} {job} takes back what waits"
        )


def tell_summary(answers: Answers) -> None:
    """With several nodes: how many did well, and which did not."""
    total, failed, silent = len(answers.nodes), answers.failed, answers.silent
    not_asked = answers.not_asked
    if total < 2 or not (failed or silent or not_asked):
        return
    parts = [f"{total - len(failed) - len(silent) - len(not_asked)} of {total} done"]
    if failed:
        parts.append(f"{len(failed)} failed: {_names(failed)}")
    if silent:
        parts.append(f"{len(silent)} silent: {_names(silent)}")
    if not_asked:
        parts.append(
            f"{len(not_asked)} not asked ({not_asked[0].why_not_asked}): {_names(not_asked)}"
        )
    warn("; ".join(parts))


def _is_worked_on(item: NodeAnswer) -> bool:
    return item.progress.state is DeliveryState.WORKING


def _describe_silence(item: NodeAnswer, what: str, *, in_pieces: bool) -> str:
    if _is_worked_on(item):
        return f"{what} is there and is worked on, or waits for its turn; its answer is not shown"
    if not item.progress.is_settled:
        return f"{item.progress.describe_silence()}; {what} stays in the outbox and goes on being tried"
    if item.progress.state is DeliveryState.STORED:
        return (
            f"a stream of the broker keeps {what} for the node, which has not been heard of since: it runs when it is"
            " there; its answer is not shown"
        )
    if item.is_go_node:
        nothing = "says nothing of a program that writes nothing, and " if in_pieces else ""
        return (
            f"{what} was taken there, and the node has not said that it is an appliance: a Go node {nothing}tells nobody"
            " but errorCentral of one that it could not begin, or stopped when its time was over"
        )
    if in_pieces and item.progress.is_appliance:
        return f"{what} was taken and ends there with what comes next, as with a closed pipe"
    return (
        f"{what} was taken there: it runs, or will when its turn comes, until its time is over;"
        " its answer is not shown"
    )


def _names(items: list[NodeAnswer]) -> str:
    shown = ", ".join(item.node for item in items[:10])
    return shown if len(items) <= 10 else f"{shown} and {len(items) - 10} more"
