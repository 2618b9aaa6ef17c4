"""From the definition of a method in the config to a `Method` as those of the program have one."""

from __future__ import annotations

from appliance.config.arguments import ArgumentRules, compile_arguments
from appliance.core.message import Message
from appliance.core.specs import SubscriberSpec
from appliance.core.user_method import UserMethod
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import Handler, HandlerContext, Method, Result
from appliance.methods.declared.exec import ExecHandler
from appliance.methods.declared.file import FileHandler
from appliance.methods.declared.http import HttpHandler
from appliance.methods.programs.orders import PROGRAM_ORDERS


class CheckedHandler:
    """Lets a message through to the handler when its arguments are such as the schema wants."""

    def __init__(self, rules: ArgumentRules, handler: Handler) -> None:
        self._rules = rules
        self._handler = handler

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Check, then perform. Raises ArgumentsInvalid before anything was done."""
        problem = self._rules.find_problem(message.method_args or ())
        if problem is not None:
            raise ArgumentsInvalid(problem)
        return await self._handler.handle(message, context)


def make_user_method(spec: SubscriberSpec) -> Method:
    """The method that a subscriber's spec defines; a swap to another definition makes another one."""
    definition = spec.definition
    assert definition is not None
    return Method(
        info=definition.info,
        make=lambda: make_handler(definition),
        orders=PROGRAM_ORDERS if definition.info.runs_programs else {},
        renew=make_user_method,
    )


def make_handler(definition: UserMethod) -> Handler:
    """A handler of one definition, for as long as the last message taken under it is in hand."""
    return CheckedHandler(compile_arguments(definition.args), _make_action(definition))


def _make_action(definition: UserMethod) -> Handler:
    if definition.exec is not None:
        return ExecHandler(definition.exec)
    if definition.http is not None:
        return HttpHandler(definition.http)
    assert definition.file is not None
    return FileHandler(definition.file)
