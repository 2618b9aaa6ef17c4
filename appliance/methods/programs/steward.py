"""What REQCliCommand and REQCliCommandCont have in common: the command of a message, and where its output goes.

A command may come as an answer (as the asker's `replyMethod`): then it runs here, where the question was asked, and
what it says is for this node and never for the one who answered. It goes into the file that the question named, by
way of this node's own REQToFileAppend.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from appliance.core.allow import is_command_allowed, is_path_allowed
from appliance.core.command_options import (
    MAX_STDIN_BYTES,
    NO_OPTIONS,
    CommandOptions,
    split_options,
)
from appliance.core.escape import escape_controls
from appliance.core.file_names import name_parts
from appliance.core.message import (
    CALLER_FILE,
    DEFAULT_REPLY_METHOD,
    Message,
    bytes_to_text,
    text_to_bytes,
)
from appliance.core.names import WorkerKind, parse_subject
from appliance.dialect.headers import Ending
from appliance.errors import ArgumentsInvalid, CommandForbidden, HandlerError, SubjectInvalid
from appliance.methods.base import HandlerContext, Outgoing, Result
from appliance.methods.files.paths import open_directory
from appliance.methods.programs.account import Account, find_account
from appliance.methods.programs.child import Launch
from appliance.methods.programs.chunks import Say
from appliance.methods.programs.command import (
    CommandResult,
    make_environment,
    run_command,
    stream_command,
)
from appliance.methods.programs.orders import CANCELLED, held
from appliance.methods.programs.runner_client import run_remote
from appliance.methods.texts import join_data, mark_cut, shorten

# What becomes of a program's end: the output as the reply carries it, and a report where something is amiss.

COMMAND_OPTIONS = frozenset(
    {"allow_commands", "allow_users", "allow_directories", "allow_environment", "runner"}
)
"""Settings of the methods that run a sender's command."""

REPORTED_STDERR_BYTES = 8_192
"""How much of stderr an error report carries."""


def show_command(arguments: Sequence[str]) -> str:
    """A command for a text: unambiguous, short and harmless."""
    return shorten(json.dumps(list(arguments), ensure_ascii=False))


def output_of(
    result: CommandResult, timeout_s: float, *, is_marked: bool, max_bytes: int | None = None
) -> bytes:
    """Standard output as it came; `is_marked` adds a line where it was cut or the program stopped.

    For whoever reads no headers: a Go node, or a file here. Appliances are told beside the output.
    """
    output = result.stdout
    if not is_marked:
        return output
    if result.truncated and max_bytes is not None and len(output) >= max_bytes:
        output = mark_cut(output, max_bytes)
    if result.timed_out:
        ends_line = output.endswith(b"\n") if output else result.ends_line
        output += (b"" if ends_line else b"\n") + f"[stopped after {timeout_s:g} s]\n".encode()
    return output


def ending_of(result: CommandResult, timeout_s: float) -> Ending:
    """What appliances are told beside the status."""
    return Ending(timeout_s if result.timed_out else None, result.is_held, result.signal)


def report_of(
    arguments: Sequence[str], message: Message, timeout_s: float, result: CommandResult
) -> str | None:
    """What errorCentral should know of; None if there is nothing.

    What a program wrote to its error output while it succeeded is no error: it travels with the answer.
    """
    if result.start_error is not None:
        what = f"could not be started: {result.start_error}"
    elif result.timed_out:
        what = f"was stopped after {timeout_s:g} s"
    elif result.exit_status:
        what = f"ended with exit status {result.exit_status}"
    else:
        return None
    sender = shorten(message.from_node)
    text = f"command {show_command(arguments)} from {sender}, message {message.id}, {what}"
    if not result.stderr or result.start_error is not None:
        return text
    stderr = result.stderr[:REPORTED_STDERR_BYTES]
    mark = f"\n[cut at {REPORTED_STDERR_BYTES} bytes]" if len(result.stderr) > len(stderr) else ""
    return f"{text}, stderr: {escape_controls(bytes_to_text(stderr)).rstrip()}{mark}"


def report_of_stream(
    arguments: Sequence[str], message: Message, timeout_s: float, result: CommandResult
) -> str | None:
    """As `report_of`, for a program whose streams were passed on: their words alone are no news."""
    stderr = result.stderr_tail if result.start_error is None else result.stderr
    return report_of(arguments, message, timeout_s, replace(result, stderr=stderr))


DATA_PLACEHOLDER = "{{STEWARD_DATA}}"
DATA_VARIABLE = "STEWARD_DATA"
MAX_DATA_BYTES = 128 * 1024 - len(f"{DATA_VARIABLE}=\0")
"""Linux gives a program no longer text than 128 KiB, whether argument or variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that is allowed and can be given to a program."""

    arguments: tuple[str, ...]
    """As they were sent."""
    argv: list[bytes]
    environment: dict[str, str]
    options: CommandOptions = NO_OPTIONS
    stdin: bytes = b""
    account: Account | None = None
    directories: tuple[str, ...] | None = ()
    """Which it may run in."""

    @contextlib.contextmanager
    def launch(self) -> Iterator[Launch]:
        """As whom and where it is started here; raises HandlerError where that cannot be."""
        if not self.options.directory:
            yield Launch(self.account)
            return
        directory_fd = open_directory(self.options.directory, self.directories)
        try:
            yield Launch(self.account, directory_fd)
        finally:
            os.close(directory_fd)


def read_command(message: Message, context: HandlerContext) -> Command:
    """The command in the message's arguments, with its data where the placeholder stands.

    An argument's ``{{STEWARD_DATA}}`` becomes ``$STEWARD_DATA``, and that variable holds the data: it is for shells,
    as in ``["bash", "-c", "echo {{STEWARD_DATA}}"]``. A shell splits and globs what it expands without quotes and
    obeys nothing in it, unless the command has it do so (`eval`, `bash -c "$STEWARD_DATA"`).

    Raises:
        ArgumentsInvalid: no program is given, or an argument or the data cannot be passed to one.
        CommandForbidden: the subscriber's `allow_commands` does not cover it, as it was sent.
    """
    options, arguments = split_options(message.method_args or ())
    argv = _to_argv(arguments)
    if not is_command_allowed(arguments, context.spec.allow_commands):
        raise CommandForbidden(
            f"command {show_command(arguments)} from {shorten(message.from_node)} "
            f"is not in allow_commands of {context.spec.subject}"
        )
    _check_options(options, context)
    environment = make_environment(
        os.environ,
        message,
        passed=context.spec.pass_environment,
        hidden=context.hidden_environment,
    )
    account = None
    if options.user and context.spec.runner is None:
        account = find_account(options.user)
        environment |= account.variables
    if context.spec.runner is None:
        environment |= options.variables
    if any(DATA_PLACEHOLDER in argument for argument in arguments):
        old, new = DATA_PLACEHOLDER.encode(), f"${DATA_VARIABLE}".encode()
        argv = [argument.replace(old, new) for argument in argv]
        environment[DATA_VARIABLE] = bytes_to_text(_read_data(message))
    return Command(
        arguments=arguments,
        argv=argv,
        environment=environment,
        options=options,
        stdin=_read_stdin(options, message),
        account=account,
        directories=context.spec.allow_directories,
    )


def _check_options(options: CommandOptions, context: HandlerContext) -> None:
    """Whether the subscriber lets a command have these.

    Raises:
        CommandForbidden: it does not; the text names the setting.
    """
    spec = context.spec
    if options.user and options.user not in spec.allow_users:
        raise CommandForbidden(
            f"user {shorten(options.user)} is not in allow_users of {spec.subject}"
        )
    for name in options.variables:
        if name not in spec.allow_environment:
            raise CommandForbidden(
                f"variable {shorten(name)} is not in allow_environment of {spec.subject}"
            )
        _to_argv((f"{name}={options.variables[name]}",))
    directory = options.directory
    if not directory:
        return
    if ".." in directory.split("/"):
        raise ArgumentsInvalid("write the directory of the command without `..`")
    # with a runner the links on the way are resolved there, and judged by its own list, too
    if spec.runner is not None and not is_path_allowed(directory, spec.allow_directories):
        raise CommandForbidden(
            f"{shorten(directory)} is not in allow_directories of {spec.subject}"
        )


def _read_stdin(options: CommandOptions, message: Message) -> bytes:
    if not options.has_stdin:
        return b""
    data = join_data(message)
    if len(data) > MAX_STDIN_BYTES:
        raise ArgumentsInvalid(
            f"standard input of {len(data)} bytes exceeds the limit of {MAX_STDIN_BYTES};"
            " copy it to the node (cp) and have the program read the file"
        )
    return data


async def run_held(
    command: Command, message: Message, context: HandlerContext, say: Say | None = None
) -> CommandResult:
    """Run it by the subscriber's runner or here, so that whoever asked can end it; with `say` it is heard while it runs."""
    spec = context.spec
    with held(message, context, command.arguments) as leash:
        if spec.runner is not None:
            running = run_remote(
                spec.runner,
                command.argv,
                environment=command.environment,
                timeout_s=context.timeout_s,
                stop_grace_s=spec.stop_grace_s,
                max_output_bytes=spec.max_output_bytes if say is None else None,
                say=say,
                stdin=command.stdin,
                options=command.options,
            )
            return await leash.race(running) or CANCELLED
        with command.launch() as launch:
            run = (
                partial(run_command, max_output_bytes=spec.max_output_bytes)
                if say is None
                else partial(stream_command, say=say)
            )
            return await run(
                command.argv,
                environment=command.environment,
                timeout_s=context.timeout_s,
                stop_grace_s=spec.stop_grace_s,
                stdin=command.stdin,
                launch=launch,
                leash=leash,
            )


async def run_whole(command: Command, message: Message, context: HandlerContext) -> Result:
    """Run it and give its output back in one piece, to whom it is due."""
    limit_bytes = context.spec.max_output_bytes
    result = await run_held(command, message, context)
    output = output_of(
        result,
        context.timeout_s,
        is_marked=message.is_reply or not context.asker_is_appliance,
        max_bytes=limit_bytes,
    )
    report = report_of(command.arguments, message, context.timeout_s, result)
    if message.is_reply:
        return _keep_here(message, context, output, report)
    return Result(
        output=output,
        report=report,
        exit_status=result.exit_status,
        stderr=result.stderr,
        is_truncated=result.truncated,
        ending=ending_of(result, context.timeout_s),
    )


def _keep_here(
    answer: Message, context: HandlerContext, output: bytes, report: str | None
) -> Result:
    """The output of a command that came as an answer, as a message to the own node."""
    if not output:
        return Result(report=report)
    message = Message(
        to_node=context.node,
        method=DEFAULT_REPLY_METHOD,
        data=(bytes_to_text(output),),
        directory=answer.directory,
        file_name=answer.file_name,
        previous_message=answer.previous_message,
    )
    problem = _find_filing_problem(message, context)
    if problem is not None:
        said = f"output of {show_command(answer.method_args or ())} is kept nowhere: {problem}"
        return Result(report=said if report is None else f"{said}; {report}")
    return Result(report=report, messages=(Outgoing(message=message),))


def _find_filing_problem(message: Message, context: HandlerContext) -> str | None:
    asked = message.previous_message
    if (asked or message).file_name == CALLER_FILE:
        return "the question named no file"
    try:
        name_parts(message, context.node)
    except HandlerError as error:
        return str(error)
    if not any(_is_filing(line.kind, line.subject, context) for line in context.list_workers()):
        return f"{context.node} does not subscribe {DEFAULT_REPLY_METHOD}"
    return None


def _is_filing(kind: str, subject: str, context: HandlerContext) -> bool:
    if kind != WorkerKind.SUBSCRIBER:
        return False
    try:
        parts = parse_subject(subject)
    except SubjectInvalid:
        return False
    return parts.node == context.node and parts.method == DEFAULT_REPLY_METHOD


def _to_argv(arguments: tuple[str, ...]) -> list[bytes]:
    if any("\0" in argument for argument in arguments):
        raise ArgumentsInvalid("an argument holds a NUL, which no program can be given")
    try:
        return [text_to_bytes(argument) for argument in arguments]
    except UnicodeEncodeError:
        raise ArgumentsInvalid("an argument holds characters that no encoding can carry") from None


def _read_data(message: Message) -> bytes:
    data = join_data(message)
    if b"\0" in data:
        raise ArgumentsInvalid(
            f"the data holds a NUL, which no program can be given in {DATA_VARIABLE}"
        )
    if len(data) > MAX_DATA_BYTES:
        raise ArgumentsInvalid(
            f"data of {len(data)} bytes exceeds the {MAX_DATA_BYTES} bytes that Linux lets a "
            f"program be given in {DATA_VARIABLE}; send it as a file"
        )
    return data
