"""What stands in the place of a method that computes: its messages are handled by the processes of a pool."""

from __future__ import annotations

from dataclasses import replace

from appliance.core.message import Message
from appliance.core.method import MethodInfo, OnCrash
from appliance.core.outcome import INTERRUPTED
from appliance.errors import HandlerError
from appliance.methods.base import Handler, HandlerContext, Method, Result
from appliance.methods.computing.frames import BadOutcome, Facts, OrderWriter, read_outcome
from appliance.methods.computing.pool import ProcessPool
from appliance.methods.computing.process import ProcessEnded

MAX_TRIES = 3
"""Processes that one message may take with it; the next one is spared, and the message has failed."""
MOMENT_S = 1.0
"""What a handler gets beyond its time, to say what it did of its work, before its process is killed."""


def in_processes(method: Method, pool: ProcessPool | None) -> Method:
    """The method with its messages handled by processes; itself where it does not compute, or there are none."""
    if pool is None or not method.info.computes:
        return method
    processes = pool

    def make() -> Handler:
        return ComputedHandler(method.info, method.module, processes)

    # its time begins when a process begins, and is minded here: waiting for one is nobody's fault
    return replace(method, info=replace(method.info, keeps_time=True), make=make)


class ComputedHandler:
    """Implements `base.Handler` for a method that computes.

    A process that dies is to its message what the daemon's death is: what may run twice does, what may not is reported as
    interrupted. Unlike a daemon, a process can be had again at once, so there is an end to the tries.
    """

    def __init__(self, info: MethodInfo, module: str, pool: ProcessPool) -> None:
        self._info = info
        self._pool = pool
        self._orders = OrderWriter(module)

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Perform `message` in a process.

        Raises:
            HandlerError: refused or failed, in the handler's words; or no process lived through it.
            TimeoutError: it took longer than it may.
        """
        facts = Facts.of(context)
        order = self._orders.encode(message, facts)
        limit_s = facts.timeout_s + MOMENT_S
        doing = f"{facts.spec.subject} {message.id} of {message.from_node}"
        ended: Exception | None = None
        for _ in range(MAX_TRIES):
            try:
                return read_outcome(await self._pool.compute(order, limit_s, doing))
            except BadOutcome as error:
                raise HandlerError(
                    f"its process answered with what is no outcome: {error}"
                ) from None
            except ProcessEnded as error:
                if self._info.on_crash is OnCrash.INTERRUPT and not facts.spec.rerun:
                    text = f"{INTERRUPTED}its process {error} while it ran; it was not run again"
                    raise HandlerError(text) from None
                ended = error
        raise HandlerError(f"{MAX_TRIES} processes ended while it ran, the last one {ended}")
