"""REQOpProcessList: which workers run on the node."""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.core.times import rfc3339_utc
from appliance.methods.base import HandlerContext, Method, Result

INFO = MethodInfo(
    name=MethodName("REQOpProcessList"),
    summary="Reply with one line per worker of the node.",
    category=Category.COMMAND,
    is_prompt=True,
    replies=True,
)


class OpProcessList:
    """Replies with date, kind, number and subject of each worker."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """The lines keep the word "process", for scripts that read them."""
        date = rfc3339_utc(context.now)
        lines = [
            f"{date}, process: {worker.kind}, id: {worker.number}, name: {worker.subject}\n"
            for worker in context.list_workers()
        ]
        return Result(output="".join(lines).encode())


METHOD = Method(info=INFO, make=OpProcessList)
