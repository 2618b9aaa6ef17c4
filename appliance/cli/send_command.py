"""`send`: hands a message to the daemon, shows its fate at each node, prints the replies."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.api.model import Line, Messages
from appliance.cli.api_client import Answer, ApiClient
from appliance.cli.delivery_view import Deliveries
from appliance.cli.following import tell_job
from appliance.cli.method_commands import show_usage
from appliance.cli.options import (
    Exit,
    StateDirOption,
    print_json,
    print_json_line,
    read_duration,
    split_names,
    warn,
)
from appliance.cli.progress_view import ProgressView
from appliance.cli.server_options import connect, daemon_words
from appliance.core.message import DEFAULT_REPLY_METHOD

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
        typer.Option("--to", metavar="N", help="A node; may be repeated, or several with commas."),
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
    output: Annotated[
        SendOutput, typer.Option("-o", "--output", help="For people, or for machines.")
    ] = SendOutput.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """Send a message: progress on stderr, replies on stdout.

    Exits 0 when every node took it (and answered, where the method answers, with status 0), 1 when
    some failed, 3 when some were silent until the wait was over: their messages stay in the outbox
    and go on being tried.
    """
    nodes = split_names(to or ())
    if not nodes:
        raise typer.BadParameter("name a node", param_hint="--to")
    timeout_s = read_duration("--timeout", timeout)
    wait_s = read_duration("--wait", wait)
    if wait_s is None:
        # longer than the work: a handler whose time is over is told as such, and not as silent
        wait_s = (HANDLER_TIME_S if timeout_s is None else timeout_s) + DELIVERY_WAIT_S
    body = {
        "to_nodes": nodes,
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
    client = connect(state_dir)
    deliveries = Deliveries(follows=wait_s > 0)
    if wait_s == 0:
        _submit_only(client, body, output, deliveries)
    else:
        _submit_and_follow(client, body, wait_s, output, deliveries)
    exit_code = _finish(deliveries, output)
    if deliveries.silent or deliveries.is_interrupted or (wait_s == 0 and deliveries.accepted):
        tell_job(deliveries.job, daemon_words(state_dir))
    if deliveries.misuse is not None:
        warn(deliveries.misuse)
        show_usage(client, method)
        return Exit.USAGE
    return exit_code


def _submit_only(
    client: ApiClient, body: Mapping[str, Any], output: SendOutput, deliveries: Deliveries
) -> None:
    answer = client.post("/api/v1/messages?job=send", Messages, body, accept=[422])
    for item, facts in zip(answer.value.messages, answer.plain.get("messages", ()), strict=True):
        kind, error = "accepted" if item.accepted else "rejected", item.error
        _take(deliveries, Answer.of(Line, {"event": kind, "reason": error, **facts}), output)


def _submit_and_follow(
    client: ApiClient,
    body: Mapping[str, Any],
    wait_s: float,
    output: SendOutput,
    deliveries: Deliveries,
) -> None:
    query = {"wait": f"{wait_s:g}s", "job": "send"}
    view = ProgressView()
    view.begin(body["method"])
    has_bar = output is SendOutput.TEXT and view.is_terminal and len(body["to_nodes"]) == 1
    try:
        with view.ticking():
            for line in client.stream("/api/v1/messages", Line, body, query, wait_s):
                if has_bar and line.value.progress:
                    view.show(*line.value.progress)
                    continue
                view.end()
                _take(deliveries, line, output)
    except KeyboardInterrupt:
        view.end()
        deliveries.interrupt()


def _take(deliveries: Deliveries, line: Answer[Line], output: SendOutput) -> None:
    words = deliveries.take(line.value)
    match output:
        case SendOutput.JSONL:
            print_json_line(line.plain)
        case SendOutput.TEXT:
            for text, is_result in words:
                print(text, file=sys.stdout if is_result else sys.stderr, flush=True)


def _finish(deliveries: Deliveries, output: SendOutput) -> int:
    match output:
        case SendOutput.JSON:
            print_json(deliveries.facts())
        case SendOutput.TEXT if deliveries.misuse is None:
            print(deliveries.summary(), file=sys.stderr)  # noqa: T201
    if deliveries.failed:
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
