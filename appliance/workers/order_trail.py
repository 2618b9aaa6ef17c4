"""What peers ask of a node in the audit trail: who had it do what on the machine, and what came of it.

Entered are methods that act beyond the data directory (`MethodInfo.is_audited`), when they end, and when they begin as well
where they may do harm twice: a program that ends the daemon is in the trail all the same. What stands there are names (the
program, the file), never arguments, data or output. A message that is turned away before its handler is no entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from appliance.core.allow import is_command_allowed
from appliance.core.audit import Trail
from appliance.core.audit_room import Crowd, Sender
from appliance.core.command_options import NO_OPTIONS, CommandOptions, split_options
from appliance.core.copying import PIECE_HEADER, read_piece
from appliance.core.message import Message
from appliance.core.method import PROGRAM_STOP, MethodInfo, OnCrash
from appliance.core.specs import SubscriberSpec
from appliance.dialect.headers import JOB_HEADER
from appliance.errors import REFUSALS, AnswerUnwanted, ArgumentsInvalid
from appliance.methods.base import Handler, HandlerContext, Method, Result

MAX_NAME_CHARACTERS = 200


def in_trail(method: Method, trail: Trail) -> Method:
    """The method with its work entered; itself where its work is no entry."""
    if not method.info.is_audited:
        return method
    orders = {
        name: _entering(method.info, make, trail) if name == PROGRAM_STOP else make
        for name, make in method.orders.items()
    }
    renew = method.renew

    def renewed(spec: SubscriberSpec) -> Method:
        assert renew is not None
        return in_trail(renew(spec), trail)

    return replace(
        method,
        make=_entering(method.info, method.make, trail),
        orders=orders,
        renew=None if renew is None else renewed,
    )


def _entering(
    info: MethodInfo, make: Callable[[], Handler], trail: Trail
) -> Callable[[], EnteringHandler]:
    return lambda: EnteringHandler(info, make(), trail)


class EnteringHandler:
    """Implements `base.Handler`: another one, whose work is entered."""

    def __init__(self, info: MethodInfo, handler: Handler, trail: Trail) -> None:
        self._info = info
        self._handler = handler
        self._trail = trail

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """As the handler itself."""
        if _is_later_piece(context):
            return await self._handler.handle(message, context)
        what = _facts_of(message, context, self._info)
        if self._info.on_crash is OnCrash.INTERRUPT and _may_begin(message, context, self._info):
            self._note(message, context, what, "begun")
        outcome = "cut off"
        try:
            result = await self._handler.handle(message, context)
            outcome = f"status {result.exit_status}" if result.exit_status else "done"
        except Exception as error:
            outcome = _outcome_of(error)
            raise
        finally:
            self._note(message, context, what, outcome)
        return result

    def _note(
        self, message: Message, context: HandlerContext, what: dict[str, Any], outcome: str
    ) -> None:
        self._trail.note(
            by=f"node {message.from_node}",
            asked=message.method,
            what=what,
            outcome=outcome,
            # whoever is not proved to have sent it may have said that he is any other
            sender=Sender(Crowd.NODES, context.signer),
            **{"from": "NATS"},
        )


def _may_begin(message: Message, context: HandlerContext, info: MethodInfo) -> bool:
    """Whether it is no program that is going to be refused: what never began is one entry, and no two."""
    allowed = context.spec.allow_commands
    if "allow_commands" not in info.options or message.method != info.name or allowed is None:
        return True
    return is_command_allowed(_split(message)[1], allowed)


def _split(message: Message) -> tuple[CommandOptions, tuple[str, ...]]:
    """The program with its arguments, and what it is to be run with; none where that is nonsense."""
    try:
        return split_options(message.method_args or ())
    except ArgumentsInvalid:
        return NO_OPTIONS, ()


def _outcome_of(error: Exception) -> str:
    if isinstance(error, REFUSALS):
        return "refused"
    if isinstance(error, AnswerUnwanted):
        return "unwanted"
    return "timed out" if isinstance(error, asyncio.TimeoutError) else "failed"


def _facts_of(message: Message, context: HandlerContext, info: MethodInfo) -> dict[str, Any]:
    arguments = tuple(message.method_args or ())
    what: dict[str, Any] = {"node": context.node, "arguments": len(arguments)}
    if "allow_commands" in info.options and arguments:
        options, command = (
            _split(message) if message.method == info.name else (NO_OPTIONS, arguments)
        )
        what["program"] = command[0][:MAX_NAME_CHARACTERS] if command else ""
        if options.user:
            what["user"] = options.user[:MAX_NAME_CHARACTERS]
    at = info.path_argument
    if at is not None and at < len(arguments):
        what["path"] = arguments[at][:MAX_NAME_CHARACTERS]
    if context.signer:
        what["signed_by"] = context.signer
    job = context.headers.get(JOB_HEADER, "")
    if job:
        what["job"] = job[:MAX_NAME_CHARACTERS]
    return what


def _is_later_piece(context: HandlerContext) -> bool:
    """Whether it is a piece of a file of which the first one is entered."""
    header = context.headers.get(PIECE_HEADER)
    try:
        return header is not None and read_piece(header).offset > 0
    except ArgumentsInvalid:
        return False
