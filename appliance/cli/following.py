"""Sends for the one who waits and writes what comes back as it comes: what `exec` and `tail` share."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from appliance.api.model import Line
from appliance.cli.answer_view import Answers, Chunk, NodeAnswer, Stream
from appliance.cli.api_client import ApiClient
from appliance.cli.options import warn
from appliance.core.delivery import DeliveryState
from appliance.errors import DaemonUnreachable

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
    body: Mapping[str, Any],
    wait_s: float,
    answers: Answers,
    *,
    idle_s: float | None = None,
    job: Mapping[str, str] | None = None,
) -> bool:
    """Submit and write until all is answered or the wait is over; False when it was interrupted.

    With `idle_s` the wait is also over when no node gave a sign of life for so long.

    Raises:
        DaemonUnreachable: the daemon is not there, or went away in the middle; what came until then is written.
    """
    query = {"wait": f"{wait_s:g}s", **(job or {})}
    if idle_s is not None:
        query["idle"] = f"{idle_s:g}s"
    asked = {**body, "for_caller": True}
    try:
        for line in client.stream("/api/v1/messages", Line, asked, query, wait_s):
            write(answers.take(line.value))
            if answers.are_complete(len(body["to_nodes"])):
                break  # an answer tells more than the acknowledgement that may follow
    except KeyboardInterrupt:
        write(answers.finish())
        return False
    except DaemonUnreachable:
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


def tell_troubles(answers: Answers) -> None:
    """A line for each node that failed, and for what was lost on the way."""
    is_one = len(answers.nodes) == 1
    for item in answers.failed:
        if not (is_one and item.reason is None):
            warn(f"{item.node}: {item.describe()}")
    for item in answers.nodes:
        if item.stopped_after_s is not None:
            warn(f"{item.node}: {STOPPED_WORDS.format(item.stopped_after_s)}")
        if item.is_held:
            warn(f"{item.node}: {HELD_WORDS}")
        if item.is_truncated:
            warn(
                f"{item.node}: the output exceeds what the node keeps (max_output_bytes) and was"
                " cut; --stream has no such bound"
            )
        elif item.is_cut:
            warn(f"{item.node}: the answer is too long to be shown and was cut")
        if item.is_stderr_cut:
            warn(f"{item.node}: of its error output only the end came")
    if answers.lost_events:
        warn(
            f"{answers.lost_events} pieces were lost because they were not read quickly enough:"
            " the output is not complete"
        )


def tell_silence(answers: Answers, what: str, *, in_pieces: bool, options: str = "") -> None:
    """For each node without an answer what goes on there, and how to end it."""
    for item in answers.silent:
        warn(f"{item.node}: {_describe_silence(item, what, options, in_pieces=in_pieces)}")


def tell_job(job: str | None, options: str = "") -> None:
    """Where to find what is still to come."""
    if job is not None:
        warn(f"job {job}: appliance jobs watch{options} {job} shows what comes later")


def tell_summary(answers: Answers) -> None:
    """With several nodes: how many did well, and which did not."""
    total, failed, silent = len(answers.nodes), answers.failed, answers.silent
    if total < 2 or not (failed or silent):
        return
    parts = [f"{total - len(failed) - len(silent)} of {total} done"]
    if failed:
        parts.append(f"{len(failed)} failed: {_names(failed)}")
    if silent:
        parts.append(f"{len(silent)} silent: {_names(silent)}")
    warn("; ".join(parts))


def _describe_silence(item: NodeAnswer, what: str, options: str, *, in_pieces: bool) -> str:
    if item.progress.state is DeliveryState.WORKING:
        return f"{what} is there and is worked on, or waits for its turn; its answer is not shown"
    if not item.progress.is_settled:
        return (
            f"{item.progress.describe_silence()}; {what} stays in the outbox and goes on being tried"
            f" (forget it: appliance outbox drop{options} {item.id})"
        )
    if in_pieces and item.is_appliance:
        return f"{what} was taken and ends there with what comes next, as with a closed pipe"
    return (
        f"{what} was taken there: it runs, or will when its turn comes, until its time is over;"
        " its answer is not shown"
    )


def _names(items: list[NodeAnswer]) -> str:
    shown = ", ".join(item.node for item in items[:10])
    return shown if len(items) <= 10 else f"{shown} and {len(items) - 10} more"
