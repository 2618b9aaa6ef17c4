"""`jobs`: what commands of operators asked of whom, and what came of it, late answers included."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from msgspec import UNSET

from appliance.api.model import Job, JobNode, JobOutput, JobPiece, Jobs, JobWords, Line
from appliance.cli.answer_view import Answers, Style
from appliance.cli.api_client import Answer, ApiClient
from appliance.cli.choosing import GroupOption
from appliance.cli.following import show_kept, terminal_streams, write
from appliance.cli.job_view import (
    describe_counts,
    describe_files,
    describe_head,
    describe_node,
    describe_what,
    exit_code_of_job,
    progress_of,
)
from appliance.cli.options import (
    Exit,
    Output,
    OutputOption,
    StateDirOption,
    print_json,
    print_json_line,
    warn,
)
from appliance.cli.server_options import connect
from appliance.cli.standard_streams import end_with_reader
from appliance.cli.terminal import print_table
from appliance.core.escape import escape_line
from appliance.core.outcome import Kind
from appliance.core.times import say_span

LOOK_S = 10
INTERRUPTED = 130

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="The job, or the beginning of its id.")
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")]
NodeOption = Annotated[
    str | None, typer.Option("--node", metavar="NODE", help="Of this node alone.")
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    jobs = typer.Typer(
        help="What `exec`, `send` and `cp` asked of whom, and what came of it; alone it lists.",
    )
    jobs.callback(invoke_without_command=True)(_list_alone)
    jobs.command("list")(jobs_list)
    jobs.command("show")(jobs_show)
    jobs.command("watch")(jobs_watch)
    jobs.command("output")(jobs_output)
    jobs.command("cancel")(jobs_cancel)
    jobs.command("retry")(jobs_retry)
    app.add_typer(jobs, name="jobs")


def _list_alone(
    context: typer.Context,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int | None:
    command = context.invoked_subcommand
    if command is None:
        return jobs_list(limit, output, state_dir)
    # what stands before the word holds for what comes behind it
    if state_dir is not None:
        os.environ["APPLIANCE_STATE_DIR"] = str(state_dir)
    context.default_map = {command: {"output": output.value}}
    return None


def jobs_list(
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """List jobs, the newest first: who asked for what, and how far it is."""
    client = connect(state_dir)
    found = client.get("/api/v1/jobs", Jobs, {"limit": str(limit)})
    if output is Output.JSON:
        print_json(found.plain)
        return Exit.OK
    if not found.value.jobs:
        typer.echo("no jobs")
        return Exit.OK
    rows = [
        [
            *(job.id, say_span(job.age_seconds), escape_line(job.by), job.command),
            *(describe_counts(job), escape_line(describe_what(job))),
        ]
        for job in found.value.jobs
    ]
    print_table(("ID", "AGE", "BY", "COMMAND", "NODES", "WHAT"), rows)
    return Exit.OK


def jobs_show(
    id_: JobArgument, output: OutputOption = Output.TEXT, state_dir: StateDirOption = None
) -> int:
    """Show what became of a job at each node.

    Exits as `exec` does: one node's own status; 0 all done, 1 some failed, 3 something is still to come.
    """
    found = connect(state_dir).get(f"/api/v1/jobs/{id_}", Job)
    job = found.value
    if output is Output.JSON:
        print_json(found.plain)
    else:
        typer.echo(escape_line(describe_head(job)))
        typer.echo(f"  {escape_line(describe_what(job))}")
        for files in [] if job.files is UNSET else job.files:
            typer.echo(f"  {escape_line(files.to)}  {describe_files(files)}")
        last_batch = 0
        for node in _nodes_shown(job):
            if job.batches > 1 and node.batch != last_batch:
                last_batch = node.batch
                typer.echo(f"  batch {last_batch} of {job.batches}:")
            name = f"{node.to}: {node.file}" if node.file else node.to
            typer.echo(f"  {escape_line(name)}  {escape_line(describe_node(node))}")
    return exit_code_of_job(job, _nodes(job))


def jobs_output(
    id_: JobArgument,
    node: NodeOption = None,
    group: GroupOption = False,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Print what is kept of a job's output, as `exec` would have shown it. Exits as `jobs show`."""
    client = connect(state_dir)
    job = client.get(f"/api/v1/jobs/{id_}", Job).value
    shown = _Shown(client, job, node, output, groups=group)
    shown.show_new()
    shown.finish()
    return exit_code_of_job(shown.job, shown.nodes)


def jobs_watch(
    id_: JobArgument,
    node: NodeOption = None,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Show a job's output as it comes, from its beginning, until nothing more is to come.

    Ctrl-C ends the watching, and nothing else. Exits as `exec` would have.
    """
    client = connect(state_dir)
    job = client.get(f"/api/v1/jobs/{id_}", Job).value
    shown = _Shown(client, job, node, output)
    try:
        with end_with_reader():
            while True:
                shown.show_new()
                if not shown.is_open:
                    break
                shown.take(client.get(f"/api/v1/jobs/{job.id}", Job, {"wait": f"{LOOK_S}s"}).value)
        # what came between the last look at the output and the end
        shown.show_new()
    except KeyboardInterrupt:
        shown.finish()
        warn(f"job {job.id} goes on: {describe_counts(shown.job)}")
        return INTERRUPTED
    shown.finish()
    return exit_code_of_job(shown.job, shown.nodes)


def jobs_cancel(
    id_: JobArgument, output: OutputOption = Output.TEXT, state_dir: StateDirOption = None
) -> int:
    """End a job: what waits is taken back from the outbox, what runs is ended at its node.

    A program gets SIGTERM with its group, and SIGKILL after the node's `stop_grace`. What was there is told for each
    node. A Go node cannot be told to end a program. Exits 1 where something could not be cancelled.
    """
    return print_words(cancel_job(connect(state_dir), id_), output)


def jobs_retry(
    id_: JobArgument, output: OutputOption = Output.TEXT, state_dir: StateDirOption = None
) -> int:
    """Try again what was given up (refused, failed, expired), as `outbox retry` does.

    What was answered is not asked again, whatever its exit status. Exits 1 where there was nothing to try.
    """
    found = connect(state_dir).post(f"/api/v1/jobs/{id_}/retry", JobWords, {})
    return print_words(found, output)


def cancel_job(client: ApiClient, id_: str) -> Answer[JobWords]:
    """Have the daemon cancel it. Raises as `ApiClient.post`."""
    return client.post(f"/api/v1/jobs/{id_}/cancel", JobWords, {})


def print_words(found: Answer[JobWords], output: Output, *, is_result: bool = True) -> int:
    """What came of an order, node by node; the exit code."""
    if output is Output.JSON:
        print_json(found.plain)
    else:
        for node in found.value.nodes:
            text = f"{escape_line(node.to)}: {escape_line(node.words)}"
            if is_result:
                typer.echo(text)
            else:
                warn(text)
    return Exit.OK if all(node.done for node in found.value.nodes) else Exit.FAILED


class _Shown:
    """A job whose output is printed as `exec` prints it."""

    def __init__(
        self,
        client: ApiClient,
        job: Job,
        node: str | None,
        output: Output,
        *,
        groups: bool = False,
    ) -> None:
        self._client = client
        self._node = node
        self._output = output
        self._groups = groups
        """Whether it is shown at the end, nodes that said the same together."""
        self.job = job
        self._after = 0
        several = len(self.nodes) > 1
        style = Style(prefixes=several, escapes=terminal_streams(), keeps=groups)
        self._answers = Answers(style)
        for item in self.nodes:
            self._answers.take(Line(event="accepted", to=item.to, id=item.id or 0))

    @property
    def is_open(self) -> bool:
        """Whether anything is still to come."""
        return any(item.kind == Kind.SILENT for item in self.nodes)

    @property
    def nodes(self) -> list[JobNode]:
        """Those that are asked about."""
        return [item for item in _nodes(self.job) if self._node in (None, item.to)]

    def take(self, job: Job) -> None:
        """The job as it is now; what has changed at its nodes is told."""
        self.job = job

    def show_new(self) -> None:
        """What came since."""
        while True:
            query = {"after": str(self._after)}
            if self._node is not None:
                query["node"] = self._node
            found = self._client.get(f"/api/v1/jobs/{self.job.id}/output", JobOutput, query)
            for piece, plain in zip(found.value.pieces, found.plain["pieces"], strict=True):
                self._after = piece.number
                if self._output is Output.JSON and not self._groups:
                    print_json_line(plain)
                else:
                    write(self._answers.take(_line(piece)))
            if found.value.next is None:
                return

    def finish(self) -> None:
        """The rest, and what went wrong, on stderr."""
        write(self._answers.finish())
        if self._groups:
            for answer, item in zip(self._answers.nodes, self.nodes, strict=True):
                answer.progress, answer.job, answer.batch = (
                    progress_of(item),
                    self.job.id,
                    item.batch,
                )
                answer.wants_status = item.is_status_unknown and item.kind == Kind.FAILED
            show_kept(self._answers, self._output, groups=True, raw=False)
        for files in [] if self.job.files is UNSET else self.job.files:
            warn(f"{files.to}: {describe_files(files)}")
        for item in self.nodes:
            if self._groups and not item.forgotten_bytes:
                continue
            if _is_to_tell(item, is_one=len(self.nodes) == 1):
                name = f"{item.to}: {item.file}" if item.file else item.to
                warn(f"{name}: {describe_node(item)}")


def _is_to_tell(node: JobNode, *, is_one: bool) -> bool:
    """Whether its output alone does not say how it went; of one node the exit status does."""
    if node.forgotten_bytes or node.is_cut or node.is_truncated or node.state != "done":
        return True
    return node.kind == Kind.FAILED and not (is_one and node.exit_status)


def _line(piece: JobPiece) -> Line:
    return Line(
        event="reply",
        id=piece.id or 0,
        to=piece.to,
        stream=piece.stream,
        data=piece.data,
        data_base64=piece.data_base64,
        has_more=True,
    )


def _nodes_shown(job: Job) -> list[JobNode]:
    """Of a copy of many files those that are not done, and were begun."""
    is_many = job.files is not UNSET
    return [node for node in _nodes(job) if not (is_many and node.kind == Kind.DONE)]


def _nodes(job: Job) -> list[JobNode]:
    return [] if job.nodes is UNSET else job.nodes
