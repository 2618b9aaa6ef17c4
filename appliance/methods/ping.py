"""REQPing: is the node there? The answer is an empty reply (as REQPong, if the request says so)."""

from __future__ import annotations

from appliance.core.file_names import name_parts
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.core.times import rfc3339_utc
from appliance.errors import HandlerError
from appliance.methods.base import HandlerContext, Method, Result
from appliance.methods.texts import shorten

INFO = MethodInfo(
    name=MethodName("REQPing"),
    summary="Answer with an empty reply; note the ping in a file if the message names one.",
    category=Category.EVENT,
    journals=True,
    replies=True,
)


class Ping:
    """Answers whatever becomes of the file:

    a ping asks whether the node lives, not whether its disk does.
    """

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """The line is appended, never put in the place of what a file of that name held."""
        if not message.file_name and message.previous_message is None:
            return Result(output=b"")
        line = f'{rfc3339_utc(context.now)}, ping received from "{shorten(message.from_node)}"\n'
        try:
            await context.files.append(
                name_parts(message, context.node),
                line.encode(),
                resume=context.resume,
                intend=context.intend,
            )
        except HandlerError as error:
            return Result(output=b"", report=f"the ping was answered, but not noted: {error}")
        return Result(output=b"")


METHOD = Method(info=INFO, make=Ping)
