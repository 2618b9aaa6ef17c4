"""REQRelayInitial: the first step of a relay, at the asking node itself.

Our own messages with a `relayViaNode` take this step when they are accepted, so nothing is subscribed for them; the
method is here for what a Go process of the same node name hands over.
"""

from __future__ import annotations

from appliance.core.message import Message
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName
from appliance.core.relay import wrap
from appliance.errors import ArgumentsInvalid, HandlerError
from appliance.methods.base import HandlerContext, Method, Outgoing, Result

INFO = MethodInfo(
    name=MethodName("REQRelayInitial"),
    summary="Send a message of the own node on by way of another one.",
    category=Category.EVENT,
    is_prompt=True,
    takes_own=True,
)


class RelayInitial:
    """Turns what the seed's router left in the relay fields into a REQRelay message."""

    async def handle(self, message: Message, context: HandlerContext) -> Result:
        """Take the first step.

        Raises:
            HandlerError: the message is not the own node's.
            ArgumentsInvalid: the relay fields make no sense.
        """
        if message.from_node != context.node or message.relay_from_node != context.node:
            raise HandlerError("only the own node's messages begin their way here")
        original = message._replace(
            to_node=message.relay_to_node,
            method=message.relay_original_method,
            relay_via_node=message.relay_original_via_node,
            previous_message=None,
            is_reply=False,
        )
        wrapped = wrap(original)
        if isinstance(wrapped, str):
            raise ArgumentsInvalid(wrapped)
        return Result(messages=(Outgoing(message=wrapped),))


METHOD = Method(info=INFO, make=RelayInitial)
