"""REQHello: a node says that it is there.

Kept as a line in a log, and told to whoever shows presence.
"""

from __future__ import annotations

from appliance.core.file_names import join_parts
from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName, NodeName
from appliance.core.times import rfc3339_utc
from appliance.dialect.headers import HELLO_HEADER
from appliance.methods.base import DONE, HandlerContext, Method, Result
from appliance.methods.texts import LOG_ROTATE_BYTES, shorten

INFO = MethodInfo(
    name=MethodName("REQHello"),
    summary="Note that a node said hello, in a log per node.",
    category=Category.EVENT,
    journals=True,
    acks_by_default=False,
    directory="hello-messages",
    file_name="hello.log",
)


class Hello:
    """Appends ``date, received hello from "node", data`` to a log below the sender's name."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """The sender names the folder here, unlike anywhere else (wire section 6.12)."""
        parts = join_parts(
            message.directory or INFO.directory,
            message.from_node,
            message.file_name or INFO.file_name,
        )
        context.hellos.saw_hello(NodeName(message.from_node), context.headers.get(HELLO_HEADER))
        line = f'{rfc3339_utc(context.now)}, received hello from "{message.from_node}"'
        text = shorten("".join(message.data or ()).strip())
        if text:
            line = f"{line}, {text}"
        await context.files.append(
            parts,
            f"{line}\n".encode(),
            resume=context.resume,
            intend=context.intend,
            rotate_at_bytes=LOG_ROTATE_BYTES,
        )
        return DONE


METHOD = Method(info=INFO, make=Hello)
