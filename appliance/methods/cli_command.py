"""REQCliCommand: run a program and reply with what it wrote to its standard output.

The arguments are the program and its arguments, run as they are: no shell, no expansion save that of
``{{STEWARD_DATA}}`` (see `programs.steward`). Which programs a subscriber may run is the config's `allow_commands`. Go nodes
expect stdout as the reply and nothing else there, so the exit status and stderr travel as an error report; nodes of
ours find the status beside the reply as well.
"""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName
from appliance.methods.base import HandlerContext, Method, Result
from appliance.methods.programs.orders import PROGRAM_ORDERS
from appliance.methods.programs.steward import COMMAND_OPTIONS, read_command, run_whole

INFO = MethodInfo(
    name=MethodName("REQCliCommand"),
    summary="Run an allowed program and reply with its standard output.",
    category=Category.COMMAND,
    replies=True,
    on_crash=OnCrash.INTERRUPT,
    runs_programs=True,
    options=COMMAND_OPTIONS,
    is_audited=True,
    arguments="PROGRAM [ARG…]",
)


class CliCommand:
    """Checks, runs, and makes a reply of the outcome, and a report where something is amiss."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Run the command in the message's arguments.

        Raises:
            ArgumentsInvalid: no program is given, or it cannot be given its arguments or the data.
            CommandForbidden: the subscriber's `allow_commands` does not cover it.
        """
        return await run_whole(read_command(message, context), message, context)


METHOD = Method(info=INFO, make=CliCommand, orders=PROGRAM_ORDERS)
