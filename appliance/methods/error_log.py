"""REQErrorLog:

error reports of all nodes, collected in one file on every node that subscribes to errorCentral.
"""

from __future__ import annotations

from appliance.core.escape import escape_controls
from appliance.core.file_names import name_parts
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import ERROR_CENTRAL, Category, MethodName
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.methods.texts import LOG_ROTATE_BYTES

INFO = MethodInfo(
    name=MethodName("REQErrorLog"),
    summary="Collect error reports of all nodes in one log.",
    category=Category.EVENT,
    journals=True,
    subject_node=ERROR_CENTRAL,
    directory="errorLog",
    file_name="error.log",
)


class ErrorLog:
    """Appends the report's text, made safe for the terminal it is read on."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """The line already says when and where: the reporting node wrote both into it."""
        parts = name_parts(
            message,
            ERROR_CENTRAL,
            default_directory=INFO.directory,
            default_file_name=INFO.file_name,
        )
        text = escape_controls("".join(message.data or ()))
        if not text.endswith("\n"):
            text += "\n"
        await context.files.append(
            parts,
            text.encode(),
            resume=context.resume,
            intend=context.intend,
            rotate_at_bytes=LOG_ROTATE_BYTES,
        )
        return DONE


METHOD = Method(info=INFO, make=ErrorLog)
