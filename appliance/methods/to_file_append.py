"""REQToFileAppend:

the data is added to a file below the data directory. The default method of every reply.
"""

from __future__ import annotations

from appliance.core.file_names import name_parts
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.methods.texts import join_data

INFO = MethodInfo(
    name=MethodName("REQToFileAppend"),
    summary="Append the data to a file.",
    category=Category.EVENT,
    journals=True,
    adds_up=True,
)


class ToFileAppend:
    """Appends the bytes as they came, exactly once whatever crashes (see `methods.files.append`)."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """All elements go into the file in one piece."""
        await context.files.append(
            name_parts(message, context.node),
            join_data(message),
            resume=context.resume,
            intend=context.intend,
        )
        return DONE


METHOD = Method(info=INFO, make=ToFileAppend)
