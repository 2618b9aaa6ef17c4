"""`send`: hands a message to the daemon, shows its fate at each node, prints the replies."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.api.model import Line, Messages
from appliance.cli.answer_view import Answers, Style
from appliance.cli.api_client import Answer, ApiClient
from appliance.cli.choosing import (
    ABSENT_GRACE_S,
    INTERRUPTED_WORD,
    TARGETS_HELP,
    AbsentOption,
    BatchOption,
    DryRunOption,
    ExcludeOption,
    GroupOption,
    MaxFailOption,
    RawOption,
    Rollout,
    choose_nodes,
    show_dry_run,
    tell_choice,
    waits_for_absent,
)
from appliance.cli.delivery_view import Deliveries
from appliance.cli.following import (
    LONGEST_S,
    groups_of,
    show_kept,
    tell_job,
    tell_jobs,
    terminal_streams,
    write,
)
from appliance.cli.method_commands import show_usage
from appliance.cli.options import (
    Exit,
    Output,
    StateDirOption,
    print_json,
    print_json_line,
    read_duration,
    warn,
)
from appliance.cli.progress_view import ProgressView
from appliance.cli.server_options import connect, daemon_words
from appliance.core.message import DEFAULT_REPLY_METHOD
from appliance.errors import DaemonUnreachable

IN_PIECES = ("REQCliCommandCont", "REQTailFile")
"""Methods whose answer comes in pieces."""
HANDLER_TIME_S = 10.0
"""What a handler has unless the node's config or --timeout says otherwise (`method_timeout`)."""
DELIVERY_WAIT_S = 20.0
"""What delivery, and the end of a program whose time is over, may take beside it."""
MAX_DATA_BYTES = 5 * 1024 * 1024
"""The API takes 8 MiB per call, in which base64 is a third longer than what it carries."""


class SendOutput(StrEnum):
    """How the outcome is printed."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("send")(send)


def send(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="For example REQCliCommand.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARG", help="Its arguments. Those that begin with a dash go after --."
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="TARGET", help=f"May be repeated. {TARGETS_HELP}"),
    ] = None,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="N", help="The node that sends.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="TEXT", help="The data: a text, @file, or - for stdin."),
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="TIME",
            help="How long to follow it; 0 not at all. Default: --timeout and 20s more, else 30s.",
        ),
    ] = None,
    reply_method: Annotated[
        str | None,
        typer.Option("--reply-method", metavar="M", help=f"Default: {DEFAULT_REPLY_METHOD}."),
    ] = None,
    directory: Annotated[
        str, typer.Option("--directory", help="Where file methods and replies are filed.")
    ] = "replies",
    file: Annotated[
        str | None, typer.Option("--file", metavar="NAME", help="The file. Default: METHOD.log.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="How long its handler may run.")
    ] = None,
    ack_timeout: Annotated[
        str | None, typer.Option("--ack-timeout", metavar="TIME", help="Per try.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option("--retries", min=0, help="Tries after the first.")
    ] = None,
    via: Annotated[
        str | None,
        typer.Option(
            "--via", metavar="N", help="Have this node relay it; it must subscribe REQRelay."
        ),
    ] = None,
    relay_reply_method: Annotated[
        str | None,
        typer.Option(
            "--relay-reply-method", metavar="M", help="With --via: what the answer arrives as here."
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="After that long it is a dead letter."),
    ] = None,
    exclude: ExcludeOption = None,
    dry_run: DryRunOption = False,
    batch: BatchOption = None,
    max_fail: MaxFailOption = None,
    wait_for_absent: AbsentOption = None,
    group: GroupOption = False,
    raw: RawOption = False,
    output: Annotated[
        SendOutput, typer.Option("-o", "--output", help="For people, or for machines.")
    ] = SendOutput.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Send a message: progress on stderr, replies on stdout.

    --to takes nodes and targets, as exec does: 'ship*', @ROLE, LABEL=VALUE, all, '!TARGET'. Of several
    nodes those where nobody is there are not waited for.

    Exits 0 when every node took it (and answered, where the method answers, with status 0), 1 when
    some failed or were not asked any more, 3 when some were silent until the wait was over: their
    messages stay in the outbox and go on being tried; 64 when no node is meant.
    """
    if not any(map(str.strip, to or ())):
        raise typer.BadParameter("name a node", param_hint="--to")
    timeout_s = read_duration("--timeout", timeout)
    wait_s = read_duration("--wait", wait)
    grace_s = DELIVERY_WAIT_S if wait_s is None and timeout_s is None else None
    if wait_s is None:
        # longer than the work: a handler whose time is over is told as such, and not as silent
        wait_s = (HANDLER_TIME_S if timeout_s is None else timeout_s) + DELIVERY_WAIT_S
    if batch is not None and wait_s == 0:
        raise typer.BadParameter(
            "needs --wait: a batch follows the answers of another", param_hint="--batch"
        )
    client = connect(state_dir)
    chosen = choose_nodes(
        client,
        to or (),
        exclude or (),
        # what is passed on is taken by the node that passes it on
        method=method if via is None else None,
        from_node=from_node,
        hint="--to",
        always_asks=dry_run,
    )
    rollout = Rollout.plan(chosen.names, batch, max_fail)
    if dry_run:
        show_dry_run(
            chosen, rollout, method, arguments or (), as_json=output is not SendOutput.TEXT
        )
        return Exit.OK
    tell_choice(chosen)
    body = {
        "to_nodes": chosen.names,
        "method": method,
        "method_args": list(arguments) if arguments else None,
        "from_node": from_node,
        "data": [_read_data(item) for item in data] if data else None,
        "reply_method": reply_method,
        "directory": directory,
        "file_name": file if file is not None else f"{method}.log",
        "ack_timeout": read_duration("--ack-timeout", ack_timeout),
        "method_timeout": timeout_s,
        "retries": retries,
        "expires": read_duration("--expires", expires),
        "relay_via_node": via,
        "relay_reply_method": relay_reply_method,
    }
    body = {name: value for name, value in body.items() if value is not None}
    count = len(chosen.names)
    absent_s = ABSENT_GRACE_S if not waits_for_absent(wait_for_absent, count) else None
    sending = _Sending(
        output,
        Deliveries(follows=wait_s > 0),
        Answers(
            Style(
                prefixes=count > 1,
                in_lines=count > 1,
                escapes=frozenset() if raw else terminal_streams(),
                keeps=group or output is SendOutput.JSON,
                streams=method in IN_PIECES,
                tells_absence=absent_s is None,
                is_filed=True,
            )
        ),
        groups=group,
        raw=raw,
    )
    deliveries, answers = sending.deliveries, sending.answers
    if wait_s == 0:
        _submit_only(client, body, sending)
    else:
        query = {"wait": f"{wait_s:g}s", "job": "send"}
        query |= {} if grace_s is None else {"grace": f"{grace_s:g}s"}
        query |= {} if absent_s is None else {"absent": f"{absent_s:g}s"}
        try:
            rollout.run(
                lambda names: _submit_and_follow(
                    client,
                    {**body, "to_nodes": names},
                    {**query, **rollout.part_of(answers)},
                    wait_s if grace_s is None else LONGEST_S,
                    sending,
                ),
                answers,
            )
        except DaemonUnreachable:
            # before somebody asks for the same once more
            tell_jobs(answers, daemon_words(state_dir))
            raise
        finally:
            sending.skip()
    exit_code = sending.finish()
    if wait_s == 0 and deliveries.accepted:
        tell_job(deliveries.job, daemon_words(state_dir))
    elif deliveries.silent or deliveries.is_interrupted:
        tell_jobs(answers, daemon_words(state_dir))
    if deliveries.misuse is not None:
        warn(deliveries.misuse)
        show_usage(client, method)
        return Exit.USAGE
    return exit_code


def _submit_only(client: ApiClient, body: Mapping[str, Any], sending: _Sending) -> None:
    answer = client.post("/api/v1/messages?job=send", Messages, body, accept=[422])
    for item, facts in zip(answer.value.messages, answer.plain.get("messages", ()), strict=True):
        kind, error = "accepted" if item.accepted else "rejected", item.error
        sending.take(Answer.of(Line, {"event": kind, "reason": error, **facts}))


def _submit_and_follow(
    client: ApiClient,
    body: Mapping[str, Any],
    query: Mapping[str, str],
    wait_s: float,
    sending: _Sending,
) -> str:
    """Why no other batch is to follow; "" where one may."""
    view = ProgressView()
    view.begin(body["method"])
    has_bar = sending.output is SendOutput.TEXT and view.is_terminal and len(body["to_nodes"]) == 1
    try:
        with view.ticking():
            for line in client.stream("/api/v1/messages", Line, body, query, wait_s):
                if has_bar and line.value.progress:
                    view.show(*line.value.progress)
                    continue
                view.end()
                sending.take(line)
    except KeyboardInterrupt:
        view.end()
        sending.interrupt()
        return INTERRUPTED_WORD
    return "" if sending.deliveries.misuse is None else "wrong arguments"


@dataclass(slots=True)
class _Sending:
    """What is known of the messages of one call, in the two forms in which it is shown: told as it goes, and by node."""

    output: SendOutput
    deliveries: Deliveries
    answers: Answers
    groups: bool
    raw: bool

    def take(self, line: Answer[Line]) -> None:
        """Note a line, and say what there is to say."""
        words = self.deliveries.take(line.value)
        chunks = self.answers.take(line.value)
        if self.output is SendOutput.JSONL:
            print_json_line(line.plain)
        if self.output is not SendOutput.TEXT:
            return
        if self.groups or self.raw:
            # many nodes: what becomes of each is told at the end, or by what it says
            write(chunks)
            return
        for text, is_result in words:
            print(text, file=sys.stdout if is_result else sys.stderr, flush=True)

    def interrupt(self) -> None:
        """The one who waited has stopped waiting."""
        self.deliveries.interrupt()
        self.answers.is_interrupted = True

    def skip(self) -> None:
        """Those that `answers` knows not to be asked any more are told."""
        for item in self.answers.not_asked:
            self.deliveries.skip([item.node], item.why_not_asked)
            if self.output is SendOutput.JSONL:
                told = {"event": "not_asked", "to": item.node, "state": item.word}
                print_json_line({**told, "why": item.why_not_asked})

    def finish(self) -> Exit:
        """Show what was kept, and the last line."""
        deliveries, chunks = self.deliveries, self.answers.finish()
        match self.output:
            case SendOutput.JSON:
                facts, by_node = deliveries.facts(), self.answers.facts()
                facts["summary"] = {**by_node["summary"], **facts["summary"]}
                facts["job"] = by_node["job"]
                print_json({**by_node, **facts, **groups_of(self.answers, wanted=self.groups)})
            case SendOutput.TEXT if deliveries.misuse is None:
                write(chunks if self.raw and not self.groups else [])
                show_kept(self.answers, Output.TEXT, groups=self.groups, raw=self.raw)
                print(deliveries.summary(), file=sys.stderr)  # noqa: T201
        if deliveries.failed or deliveries.not_asked:
            return Exit.FAILED
        return Exit.SILENT if deliveries.silent else Exit.OK


def _read_data(text: str) -> str | dict[str, str]:
    """A text, or what a file or stdin holds; what is no UTF-8 travels as base64."""
    if text != "-" and not text.startswith("@"):
        try:
            text.encode()
        except UnicodeEncodeError:
            return _encode(text.encode("utf-8", "surrogateescape"))
        return text
    try:
        raw = sys.stdin.buffer.read(MAX_DATA_BYTES + 1) if text == "-" else _read_file(text[1:])
    except OSError as error:
        raise typer.BadParameter(
            f"cannot read {text[1:] or 'stdin'}: {error.strerror or error}", param_hint="--data"
        ) from None
    if len(raw) > MAX_DATA_BYTES:
        raise typer.BadParameter(f"more than {MAX_DATA_BYTES} bytes", param_hint="--data")
    return _encode(raw)


def _read_file(name: str) -> bytes:
    with Path(name).open("rb") as file:
        return file.read(MAX_DATA_BYTES + 1)


def _encode(raw: bytes) -> str | dict[str, str]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}
