"""Marks by which a via node knows an answer to what it has passed on: its own signature in the note that goes along.

Without a key there is none, and what comes counts as before: then the config alone decides what is passed on to whom.
"""

from __future__ import annotations

import base64
import binascii

from appliance.core.current import Current
from appliance.core.message import Message
from appliance.core.names import NodeName
from appliance.core.public_keys import raw_user_key
from appliance.core.relay import mark_of, marked_bytes, with_mark
from appliance.core.specs import NO_TRAITS, DesiredState
from appliance.delivery.signer import Signer
from appliance.wire.ed25519 import SIGNATURE_BYTES, is_signature, sign

_MARK_CHARACTERS = len(base64.b64encode(bytes(SIGNATURE_BYTES)))


class RelayMarks:
    """Of one daemon, whose key the config must know as that of the node: any other daemon of the node looks there, too."""

    def __init__(self, signer: Signer, desired: Current[DesiredState]) -> None:
        self._signer = signer
        self._desired = desired

    def marked(self, message: Message) -> Message:
        """A message that the via node passes on, with its mark."""
        key = self._signer.key
        if key is None or key.public not in self._keys_of(message.from_node):
            return message
        mark = base64.b64encode(sign(marked_bytes(message), key.secret))
        return with_mark(message, mark.decode())

    def is_asked(self, asked: Message, node: str) -> bool:
        """Whether `node` is known to have passed this on, or it cannot be known."""
        key, keys = self._signer.key, self._keys_of(node)
        if key is None or key.public not in keys:
            return True
        mark = mark_of(asked)
        if len(mark) != _MARK_CHARACTERS or not mark.isascii():
            return False
        try:
            signature = base64.b64decode(mark, validate=True)
        except binascii.Error:
            return False
        text = marked_bytes(asked)
        return any(is_signature(signature, text, public) for public in keys)

    def _keys_of(self, node: str) -> list[bytes]:
        traits = self._desired.value.traits.get(NodeName(node), NO_TRAITS)
        return [raw_user_key(text) for text in traits.public_keys]
