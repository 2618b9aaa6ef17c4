"""Jobs in words. Pure: what the API tells in, lines of text out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from msgspec import UNSET

from appliance.api.model import Job, JobFiles, JobNode
from appliance.cli.options import Exit
from appliance.cli.progress_view import say_bytes
from appliance.cli.standing import Progress
from appliance.core.copying import COPY_FROM, SPOOL_WORD, split_target
from appliance.core.delivery import DeliveryState
from appliance.core.outcome import Kind
from appliance.core.times import say_span
from appliance.errors import ArgumentsInvalid

MAX_WHAT_CHARACTERS = 200


def describe_what(job: Job) -> str:
    """Method and arguments, as they would be typed."""
    words = [job.method, *map(shlex.quote, job.args)]
    if job.command == "cp":
        words = ["cp", *map(shlex.quote, _places_of(job))]
    if job.values_hidden is True:
        words.append("(arguments need the token)")
    if job.data_bytes:
        words.append(f"({say_bytes(job.data_bytes)} of data)")
    text = " ".join(words)
    return text if len(text) <= MAX_WHAT_CHARACTERS else f"{text[: MAX_WHAT_CHARACTERS - 1]}…"


def _places_of(job: Job) -> list[str]:
    """From where to where a copy goes; nothing of the words that daemons have among themselves."""
    if job.method != COPY_FROM or len(job.args) < 3:
        return job.args
    # a list of jobs is without their nodes
    nodes = [] if job.nodes is UNSET else job.nodes
    source = f"{nodes[0].to}:{job.args[0]}" if len(nodes) == 1 else job.args[0]
    if job.args[2].startswith(SPOOL_WORD):
        return [source]
    try:
        return [source, f"{job.args[1]}:{split_target(job.args).path}"]
    except ArgumentsInvalid:
        return [source, *job.args[1:]]


def describe_counts(job: Job) -> str:
    """``3 of 4 done, 1 failed``; what is still to come last."""
    counts = job.counts
    what = " files" if job.command == "cp" and counts.total > 1 else ""
    parts = [f"{counts.done} of {counts.total}{what} done"]
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    if counts.silent:
        parts.append(f"{counts.silent} open")
    return ", ".join(parts)


def describe_files(found: JobFiles) -> str:
    """``998 of 1000 files done, 2 failed``: of those that were begun there."""
    return describe_counts(Job(command="cp", counts=found.counts))


def describe_head(job: Job) -> str:
    """Who asked for what, when."""
    by = f", by {job.by}" if job.by else ""
    head = f"job {job.id}: {job.command} from {job.from_node}{by}, {say_span(job.age_seconds)} ago"
    if job.cancelled_by is not UNSET:
        head += f"; cancelled by {job.cancelled_by or 'somebody'}"
    return head


def describe_node(node: JobNode) -> str:
    """Where it stands and how it ended, in one line."""
    words = [f"{node.state}: {node.why}" if node.why else node.state]
    if node.exit_status is not None:
        words.append(f"exit {node.exit_status}")
    elif node.is_status_unknown and node.kind == Kind.FAILED:
        words.append("exit status unknown")
    if node.stopped_after_seconds is not None:
        words.append(f"stopped after {node.stopped_after_seconds:g} s")
    if node.is_held:
        words.append("what it left behind held its output and was ended")
    if node.is_truncated or node.is_cut:
        words.append("its output is not complete")
    if node.output_bytes:
        words.append(f"{say_bytes(node.output_bytes)} of output")
    if node.forgotten_bytes:
        words.append(f"the first {say_bytes(node.forgotten_bytes)} are not kept")
    if node.not_filed is not UNSET:
        words.append(f"not filed: {node.not_filed}")
    elif node.filed is not UNSET and node.is_answered:
        before = f" or {node.filed_before[0]} …" if node.filed_before else ""
        words.append(f"filed at {node.filed}{before}")
    if node.stopped is not UNSET:
        words.append(node.stopped)
    return ", ".join(words)


def progress_of(node: JobNode) -> Progress:
    """The same model that `exec` has of it while it waits."""
    is_known = node.state in {str(state) for state in DeliveryState}
    return Progress(
        state=DeliveryState(node.state) if is_known else None,
        why=node.why,
        is_settled=node.is_delivered,
        wants_answer=node.is_answered or node.kind == Kind.SILENT,
        is_answered=node.is_answered,
        has_spoken=node.is_answered,
        exit_status=node.exit_status,
        is_cut=node.is_cut,
        is_truncated=node.is_truncated,
        is_stderr_cut=node.is_stderr_cut,
        is_held=node.is_held,
        stopped_after_s=node.stopped_after_seconds,
        signal=node.signal,
        not_filed=node.not_filed or "",
    )


def exit_code_of_job(job: Job, nodes: Sequence[JobNode]) -> int:
    """Likewise of the whole; a copy that has ended before all of its files is none that went well."""
    if job.files is UNSET:
        return exit_code_of(nodes)
    counts = job.counts
    if counts.failed or (not counts.silent and counts.done < counts.total):
        return Exit.FAILED
    return Exit.SILENT if counts.silent else Exit.OK


def exit_code_of(nodes: Sequence[JobNode]) -> int:
    """As `exec` ends: with one node the program's own status, with several what became of all."""
    if len(nodes) == 1:
        (node,) = nodes
        is_whole = not (node.is_cut or node.is_truncated)
        if node.exit_status is not None and (node.exit_status or is_whole):
            return min(node.exit_status, 255)
    kinds = {node.kind for node in nodes}
    if Kind.FAILED in kinds:
        return Exit.FAILED
    return Exit.SILENT if Kind.SILENT in kinds else Exit.OK
