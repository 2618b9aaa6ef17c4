"""REQOpProcessStop: stop a worker that the config has, until the next reload.

Arguments: method, node, kind (``subscriber`` or ``publisher``); an id after them, which the original's documentation
names, is accepted and means nothing here. The node of a subscriber is the own one, that of a publisher the one it
sends to. What is queued for a stopped publisher stays in the outbox.
"""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.core.times import rfc3339_utc
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import HandlerContext, Method, Result

INFO = MethodInfo(
    name=MethodName("REQOpProcessStop"),
    summary="Stop a worker against the config, until the next reload.",
    category=Category.COMMAND,
    replies=True,
    is_audited=True,
)


class OpProcessStop:
    """Asks the daemon's override book and replies with its words."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Stop the worker that the arguments name.

        Raises:
            ArgumentsInvalid: not method, node and kind, or no such method.
            HandlerError: no such worker runs, or it must not be stopped from afar.
        """
        arguments = message.method_args or ()
        if len(arguments) not in (3, 4):
            raise ArgumentsInvalid("methodArgs must hold method, node and kind")
        method, node, kind = arguments[:3]
        words = await context.switch.stop(context.node, method, node, kind, by=message.from_node)
        return Result(output=f"{rfc3339_utc(context.now)}, {words}\n".encode(), exit_status=0)


METHOD = Method(info=INFO, make=OpProcessStop)
