"""REQPong: the answer to a ping of ours, noted in the file the ping named."""

from __future__ import annotations

from appliance.core.file_names import name_parts
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.core.times import rfc3339_utc
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.methods.texts import shorten

INFO = MethodInfo(
    name=MethodName("REQPong"),
    summary="Note the answer to a ping, in a file if the ping named one.",
    category=Category.EVENT,
    journals=True,
)


class Pong:
    """Appends a line naming the node that was pinged."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """A pong that answers no ping names its sender; a ping without a file leaves no trace."""
        ping = message.previous_message
        if not (message if ping is None else ping).file_name:
            return DONE
        pinged = (ping.to_node if ping is not None else "") or message.from_node
        line = f'{rfc3339_utc(context.now)}, pong received from "{shorten(pinged)}"\n'
        await context.files.append(
            name_parts(message, context.node),
            line.encode(),
            resume=context.resume,
            intend=context.intend,
        )
        return DONE


METHOD = Method(info=INFO, make=Pong)
