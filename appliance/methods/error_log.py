"""REQErrorLog:

error reports of all nodes, collected in one file on every node that subscribes to errorCentral.
"""

from __future__ import annotations

import re

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


_BEGINS = re.compile(r"[^,\n]{1,60}, node: ([^,\n]{1,200}), ").match
"""How a node begins a report: when, and where it was."""


class ErrorLog:
    """Appends the report's text, made safe for the terminal it is read on: no line of it looks like another node's."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """The line already says when and where: the reporting node wrote both into it, and where is looked at."""
        parts = name_parts(
            message,
            ERROR_CENTRAL,
            default_directory=INFO.directory,
            default_file_name=INFO.file_name,
        )
        await context.files.append(
            parts,
            _write_report("".join(message.data or ()), message.from_node).encode(),
            resume=context.resume,
            intend=context.intend,
            rotate_at_bytes=LOG_ROTATE_BYTES,
        )
        return DONE


def _write_report(text: str, sender: str) -> str:
    text = escape_controls(text).removesuffix("\n")
    found = _BEGINS(text)
    if found is None or found[1] != sender:
        text = f"from {sender}: {text}"
    return text.replace("\n", "\n  ") + "\n"


METHOD = Method(info=INFO, make=ErrorLog)
