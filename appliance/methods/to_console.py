"""REQToConsole: show the data on the daemon's standard output, or with `stderr` as the argument on its standard error."""

from __future__ import annotations

from appliance.core.escape import escape_controls
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.dialect.headers import MORE_HEADER
from appliance.methods.base import DONE, HandlerContext, Method, Result

INFO = MethodInfo(
    name=MethodName("REQToConsole"),
    summary="Show the data on the daemon's standard output, control characters escaped.",
    category=Category.EVENT,
    is_prompt=True,
    arguments="[stderr]",
    adds_up=True,
)


class ToConsole:
    """Writes all data elements and a newline; nothing in them can command the terminal."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """One write, so that messages shown at the same time do not mix."""
        to_stderr = (message.method_args or ())[:1] == ("stderr",)
        # what a piece of an answer ends in the middle of goes on with the next one
        end = "" if MORE_HEADER in context.headers else "\n"
        text = escape_controls("".join(message.data or ())) + end
        context.console.write(text, to_stderr=to_stderr)
        return DONE


METHOD = Method(info=INFO, make=ToConsole)
