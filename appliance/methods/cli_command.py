"""REQCliCommand: run a program and reply with what it wrote to its standard output.

The arguments are the program and its arguments, run as they are: no shell, no expansion. Which
programs a subscriber may run is the config's `allow_commands`. Go nodes expect stdout as the reply
and nothing else there, so the exit status and stderr travel as an error report; nodes of ours find
the status beside the reply as well.
"""

from __future__ import annotations

import json
import os

from appliance.core.allow import is_command_allowed
from appliance.core.escape import escape_controls
from appliance.core.message import Message, bytes_to_text, text_to_bytes
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName
from appliance.errors import ArgumentsInvalid, CommandForbidden
from appliance.methods._subprocess import CommandResult, make_environment, run_command
from appliance.methods._text import shorten
from appliance.methods.base import HandlerContext, Method, Result

INFO = MethodInfo(
    name=MethodName("REQCliCommand"),
    summary="Run an allowed program and reply with its standard output.",
    category=Category.COMMAND,
    replies=True,
    on_crash=OnCrash.INTERRUPT,
    options=frozenset({"allow_commands"}),
    arguments="PROGRAM [ARG…]",
)

REPORTED_STDERR_BYTES = 8_192
"""How much of stderr an error report carries."""


class CliCommand:
    """Checks, runs, and makes a reply of the outcome, and a report where something is amiss."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Run the command in the message's arguments.

        Raises:
            ArgumentsInvalid: no program is given, or an argument cannot be passed to one.
            CommandForbidden: the subscriber's `allow_commands` does not cover it.
        """
        arguments = message.method_args or ()
        argv = _to_argv(arguments)
        if not is_command_allowed(arguments, context.spec.allow_commands):
            raise CommandForbidden(
                f"command {_show(arguments)} from {shorten(message.from_node)} "
                f"is not in allow_commands of {context.spec.subject}"
            )
        result = await run_command(
            argv,
            environment=make_environment(os.environ, message, context.hidden_environment),
            timeout_s=context.timeout_s,
            max_output_bytes=context.spec.max_output_bytes,
        )
        output = result.stdout
        if result.timed_out:
            gap = b"" if not output or output.endswith(b"\n") else b"\n"
            output += gap + f"[stopped after {context.timeout_s:g} s]\n".encode()
        return Result(
            output=output,
            report=_make_report(arguments, message, context.timeout_s, result),
            exit_status=result.exit_status,
            stderr=result.stderr,
        )


def _to_argv(arguments: tuple[str, ...]) -> list[bytes]:
    if not arguments or not arguments[0]:
        raise ArgumentsInvalid("methodArgs must hold a program and its arguments")
    if any("\0" in argument for argument in arguments):
        raise ArgumentsInvalid("an argument holds a NUL, which no program can be given")
    try:
        return [text_to_bytes(argument) for argument in arguments]
    except UnicodeEncodeError:
        raise ArgumentsInvalid("an argument holds characters that no encoding can carry") from None


def _show(arguments: tuple[str, ...]) -> str:
    """The command for a text: unambiguous, short and harmless."""
    return shorten(json.dumps(arguments, ensure_ascii=False))


def _make_report(
    arguments: tuple[str, ...], message: Message, timeout_s: float, result: CommandResult
) -> str | None:
    """What the sender should know besides stdout; None if there is nothing."""
    if result.start_error is not None:
        what = f"could not be started: {result.start_error}"
    elif result.timed_out:
        what = f"was stopped after {timeout_s:g} s"
    elif result.exit_status or result.stderr:
        what = f"ended with exit status {result.exit_status}"
    else:
        return None
    sender = shorten(message.from_node)
    text = f"command {_show(arguments)} from {sender}, message {message.id}, {what}"
    if not result.stderr:
        return text
    stderr = result.stderr[:REPORTED_STDERR_BYTES]
    mark = f"\n[cut at {REPORTED_STDERR_BYTES} bytes]" if len(result.stderr) > len(stderr) else ""
    return f"{text}, stderr: {escape_controls(bytes_to_text(stderr)).rstrip()}{mark}"


METHOD = Method(info=INFO, make=CliCommand)
