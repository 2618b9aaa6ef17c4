"""REQCliCommand: run a program and reply with what it wrote to its standard output.

The arguments are the program and its arguments, run as they are: no shell, no expansion. Which
programs a subscriber may run is the config's `allow_commands`. Go nodes expect stdout as the reply
and nothing else there, so the exit status and stderr travel as an error report; nodes of ours find
the status beside the reply as well.
"""

from __future__ import annotations

import os

from appliance.core.allow import is_command_allowed
from appliance.core.message import Message, text_to_bytes
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName
from appliance.errors import ArgumentsInvalid, CommandForbidden
from appliance.methods._reports import output_of, report_of, show_command
from appliance.methods._subprocess import make_environment, run_command
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
                f"command {show_command(arguments)} from {shorten(message.from_node)} "
                f"is not in allow_commands of {context.spec.subject}"
            )
        result = await run_command(
            argv,
            environment=make_environment(os.environ, message, context.hidden_environment),
            timeout_s=context.timeout_s,
            max_output_bytes=context.spec.max_output_bytes,
        )
        return Result(
            output=output_of(result, context.timeout_s),
            report=report_of(arguments, message, context.timeout_s, result),
            exit_status=result.exit_status,
            stderr=result.stderr,
            is_truncated=result.truncated,
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


METHOD = Method(info=INFO, make=CliCommand)
