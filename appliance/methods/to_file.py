"""REQToFile: the data becomes the content of a file below the data directory."""

from __future__ import annotations

from appliance.core.file_names import name_parts
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.methods.texts import join_data

INFO = MethodInfo(
    name=MethodName("REQToFile"),
    summary="Replace a file's content by the data, atomically.",
    category=Category.EVENT,
)


class ToFile:
    """Replaces the file in one step; running it twice leaves the same file."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """A reader of the file sees the old or the new content, never a part."""
        await context.files.write(name_parts(message, context.node), join_data(message))
        return DONE


METHOD = Method(info=INFO, make=ToFile)
