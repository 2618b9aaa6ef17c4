"""REQProgramList: which programs run on the node. Between appliances only.

It comes on the subject of a method that runs programs: whoever may start some may see them.
"""

from __future__ import annotations

import json

from appliance.core.message import Message
from appliance.core.method import PROGRAM_LIST, MethodInfo
from appliance.core.names import Category, MethodName
from appliance.methods.base import HandlerContext, Method, Result

INFO = MethodInfo(
    name=MethodName(PROGRAM_LIST),
    summary="Reply with the programs that run; understood by every method that runs one.",
    category=Category.COMMAND,
    replies=True,
    is_companion=True,
)


class ProgramList:
    """One JSON object a line."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Numbers are what the system gave: the process's, and since how many seconds it runs."""
        lines = [
            json.dumps(
                {
                    "job": leash.job,
                    "from": leash.key.from_node,
                    "id": str(leash.key.message_id),
                    "method": leash.method,
                    "program": leash.program,
                    "seconds": round(seconds, 1),
                    "pid": leash.pid,
                }
            )
            for leash, seconds in context.programs.of_node(context.node)
        ]
        return Result(output="".join(f"{line}\n" for line in lines).encode(), exit_status=0)


METHOD = Method(info=INFO, make=ProgramList)
