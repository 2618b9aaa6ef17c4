"""What every method that runs programs understands on its subject beside itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from appliance.core.message import Message
from appliance.core.method import PROGRAM_LIST, PROGRAM_STOP
from appliance.dialect.headers import JOB_HEADER
from appliance.methods.base import Handler, HandlerContext
from appliance.methods.program_list import ProgramList
from appliance.methods.program_stop import ProgramStop
from appliance.methods.programs.command import CommandResult
from appliance.methods.programs.running import Leash

PROGRAM_ORDERS: Mapping[str, Callable[[], Handler]] = {
    PROGRAM_STOP: ProgramStop,
    PROGRAM_LIST: ProgramList,
}
CANCELLED = CommandResult(exit_status=128 + 15, signal=15, truncated=True)
"""Of a program that a runner has ended: what it said is not known."""
MAX_JOB_CHARACTERS = 40


def held(
    message: Message, context: HandlerContext, arguments: tuple[str, ...]
) -> AbstractContextManager[Leash]:
    """While the block runs, the program that `message` starts can be seen and ended.

    Raises:
        HandlerError: it was cancelled before it began.
    """
    job = context.headers.get(JOB_HEADER, "")
    is_job = job.isascii() and job.isalnum() and len(job) <= MAX_JOB_CHARACTERS
    return context.programs.entered(
        context.program_key,
        node=context.node,
        method=message.method,
        arguments=arguments,
        job=job if is_job else "",
    )
