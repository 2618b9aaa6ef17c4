"""REQOpProcessStart: start a subscriber that the config does not have, until the next reload.

Arguments: the method. What it starts beside the config allows nothing (no commands, no paths) unless the config
holds its entry, switched off with `enabled: false`.
"""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.core.times import rfc3339_utc
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import HandlerContext, Method, Result

INFO = MethodInfo(
    name=MethodName("REQOpProcessStart"),
    summary="Start a subscriber beside the config, until the next reload.",
    category=Category.COMMAND,
    replies=True,
    is_audited=True,
)


class OpProcessStart:
    """Asks the daemon's override book and replies with its words."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Start the subscriber of the method in the first argument.

        Raises:
            ArgumentsInvalid: not exactly one argument, or no such method.
        """
        arguments = message.method_args or ()
        if len(arguments) != 1:
            raise ArgumentsInvalid("methodArgs must hold the method to start, and nothing else")
        words = await context.switch.start(context.node, arguments[0], by=message.from_node)
        return Result(output=f"{rfc3339_utc(context.now)}, {words}\n".encode(), exit_status=0)


METHOD = Method(info=INFO, make=OpProcessStart)
