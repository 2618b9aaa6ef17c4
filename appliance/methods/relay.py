"""REQRelay: pass a message on to the node that the subject names, in the own name.

Subscribed once per node of `relay_to`, so that the broker's permissions and `accept_from` decide who may reach whom.
The relayed message leaves in the commit that marks this one as handled: it is neither lost nor sent twice.
"""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.core.relay import unwrap
from appliance.errors import ArgumentsInvalid
from appliance.methods.base import HandlerContext, Method, Outgoing, Result

INFO = MethodInfo(
    name=MethodName("REQRelay"),
    summary="Pass a message on to a node of relay_to.",
    category=Category.EVENT,
    is_prompt=True,
    relays=True,
    options=frozenset({"relay_to", "relay_methods"}),
)


class Relay:
    """Checks that body, subject and config agree, and sends the original on."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Relay one message.

        Raises:
            ArgumentsInvalid: the body says something else than the subject, or the method is not allowed.
        """
        relayed = unwrap(message, context.spec)
        if isinstance(relayed, str):
            raise ArgumentsInvalid(relayed)
        return Result(messages=(Outgoing(message=relayed),))


METHOD = Method(info=INFO, make=Relay)
