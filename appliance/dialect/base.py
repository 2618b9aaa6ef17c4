"""What the rest of the program must know of a dialect: values, and one interface.

A dialect turns a message into the bytes and headers that peers of one generation read, and tells what an answer on the
reply subject says. It knows nothing of how either is carried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from appliance.core.message import Message
from appliance.dialect.headers import Identity
from appliance.wire.frame import WireLimits


class AnswerKind(Enum):
    """What an answer on the reply subject says of a message."""

    TAKEN = "taken"
    DONE = "done"
    WORKING = "working"
    BUSY = "busy"
    REFUSED = "refused"
    FAILED = "failed"
    STORED = "stored"
    """A stream keeps it, says the broker: it is the stream's from now on."""
    HELD = "held"
    """The broker's word: no stream takes it now."""
    NOBODY = "nobody"
    """The broker's word: nobody subscribes."""
    HERE = "here"
    """The node is back at the broker."""
    FOREIGN = "foreign"
    """No answer of the node that was asked: a stream's, a stranger's, another node's."""


class Answer(NamedTuple):
    """One answer. `detail` is the reason of a refusal or failure, or the daemon that works; `wait_ms` of a busy one.

    `is_undeclared` says that the sender is refused because no config there declares it.
    """

    kind: AnswerKind
    from_appliance: bool = False
    detail: str = ""
    wait_ms: int = 0
    is_unwanted: bool = False
    is_undeclared: bool = False


class Asked(NamedTuple):
    """The node that a lane's messages are for, prepared for reading many answers.

    `confirmed` is how the text of its acknowledgement begins, b"" where any name will do; `accepts` says whether a
    name is that of the node asked.
    """

    confirmed: bytes
    accepts: Callable[[str], bool]


Received = tuple[Message, Identity]
"""A message that came, decoded, and who sent it."""


class LaneWords(Protocol):
    """What the sender of a lane writes beside a message, and how it reads an answer."""

    def write_headers(
        self,
        encoding: str,
        instance: str,
        message_id: int,
        headers: Mapping[str, str] | None,
        *,
        taker: str = "",
        attempt: int = 0,
    ) -> bytes:
        """The header block of a message whose payload is stored in `encoding`.

        Raises:
            EncodeError: an encoding that does not exist here.
        """
        ...

    def read_answer(self, block: bytes, payload: bytes, asked: Asked) -> Answer:
        """What an answer says; anything that is none is `FOREIGN`."""
        ...


class Dialect(LaneWords, Protocol):
    """One generation of peers."""

    def asked(self, to_node: str, method: str) -> Asked:
        """Who may answer for messages with this destination."""
        ...

    def read_headers(self, block: bytes) -> Mapping[str, str]:
        """All that a message came with, by the names in `dialect.headers`."""
        ...

    def hears(self, block: bytes) -> bool:
        """Whether its sender understands more answers than an acknowledgement, told by a glance: it may be wrong where
        somebody writes what is no word of ours.
        """
        ...

    def sender_of(self, block: bytes) -> str:
        """The instance of the appliance that sent a message, told by a glance; "" where nobody says."""
        ...

    def is_compressed(self, block: bytes) -> bool:
        """Whether what is in the payload takes more room than that, told by a glance."""
        ...

    def identify(self, block: bytes) -> Identity:
        """What a header block says of its message, whatever is in the payload."""
        ...

    def read(self, block: bytes, payload: bytes, limits: WireLimits) -> Received:
        """Decode a message.

        Raises:
            DecodeError: whatever is wrong with it; nothing else is raised.
        """
        ...

    def read_name(self, payload: bytes) -> str | None:
        """The node in whose name an answer is given, as its text says; None where it names none."""
        ...

    def read_number(self, payload: bytes) -> int | None:
        """The number of the message that an answer is about, as its text repeats it; None where it names none."""
        ...

    def write_answer(
        self, answer: Answer, node: str, message_id: int, *, to_appliance: bool
    ) -> tuple[bytes, bytes]:
        """Header block and payload of an answer in a node's name."""
        ...
