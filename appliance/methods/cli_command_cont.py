"""REQCliCommandCont: run a program and pass on what it writes while it runs, line by line, both streams in one order.

Ends when the program does. Nothing but the time bounds the whole of the output; what is held at once is bounded, and
a requester who is slow or away slows the program down. To a Go node every piece is a plain reply, as the original's
are, and standard error is in it as there; appliances are told which stream a piece is of.
"""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName
from appliance.methods.base import HandlerContext, Method, Result
from appliance.methods.programs.orders import PROGRAM_ORDERS
from appliance.methods.programs.steward import (
    COMMAND_OPTIONS,
    ending_of,
    output_of,
    read_command,
    report_of_stream,
    run_held,
    run_whole,
)

INFO = MethodInfo(
    name=MethodName("REQCliCommandCont"),
    summary="Run an allowed program and reply with its output, line by line while it runs.",
    category=Category.COMMAND,
    replies=True,
    on_crash=OnCrash.INTERRUPT,
    runs_programs=True,
    options=COMMAND_OPTIONS,
    is_audited=True,
    arguments="PROGRAM [ARG…]",
)


class CliCommandCont:
    """The pieces go out by the outlet, what is to be said at the end with the result."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Run the command in the message's arguments.

        Raises:
            ArgumentsInvalid: no program is given, or it cannot be given its arguments or the data.
            CommandForbidden: the subscriber's `allow_commands` does not cover it.
            HandlerError: the output cannot be sent to the requester at all; the program is killed.
        """
        command = read_command(message, context)
        if message.is_reply:
            return await run_whole(command, message, context)

        async def say(data: bytes, stream: str) -> None:
            await context.outlet.reply(data, stream=stream)

        result = await run_held(command, message, context, say)
        return Result(
            output=output_of(result, context.timeout_s, is_marked=not context.asker_is_appliance),
            report=report_of_stream(command.arguments, message, context.timeout_s, result),
            exit_status=result.exit_status,
            stderr=result.stderr,
            is_truncated=result.truncated,
            ending=ending_of(result, context.timeout_s),
        )


METHOD = Method(info=INFO, make=CliCommandCont, orders=PROGRAM_ORDERS)
