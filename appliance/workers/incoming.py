"""One message on its way through a subscriber, and the decision whether it may enter."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.bus.base import BusMessage
from appliance.core.admission import find_refusal, is_file_asked_for, is_reply_subject_safe
from appliance.core.current import Current
from appliance.core.escape import escape_line
from appliance.core.message import Message
from appliance.core.names import REPLY_TOKEN, is_for_refusals, is_node_name, parse_subject
from appliance.core.signatures import FAULT_WORDS, Fault
from appliance.core.specs import AckOn, DesiredState, SignaturePolicy, SubscriberSpec
from appliance.delivery.verifier import Verifier
from appliance.dialect.base import Dialect
from appliance.dialect.headers import (
    BEGUN_ELSEWHERE,
    MORE_HEADER,
    NOBODY,
    TURN_HEADER,
    Identity,
    with_line,
)
from appliance.errors import DecodeError
from appliance.methods.base import FilePosition, Handler, Method
from appliance.wire.frame import WireLimits

DedupeKey = tuple[str, str, int]

SMALL_BYTES = 1_024
"""What a decoded message takes beside its texts, generously."""
_NO_HEADERS: Mapping[str, str] = {}


class Incoming:
    """One message between admission and the end of its handling.

    `handler` and `ack_on` are those in force when it was taken, so a swap never changes a message in hand. `row_id` names
    its body in the inbox, None where none is kept. `message` is None while only its bytes are kept, see `put_aside`.
    """

    is_order = False
    __slots__ = (
        "_headers",
        "ack_on",
        "block",
        "dialect",
        "handler",
        "held_bytes",
        "identity",
        "is_reply",
        "is_taken",
        "is_unwanted",
        "key",
        "message",
        "message_id",
        "not_filed",
        "payload",
        "reply_tos",
        "resume",
        "row_id",
        "sender",
        "signer",
        "stream",
        "tell_due_mono",
        "tell_every_s",
    )

    def __init__(
        self,
        message: Message,
        identity: Identity,
        ack_on: AckOn,
        handler: Handler,
        payload: bytes,
        block: bytes,
        reply_to: str,
        dialect: Dialect,
    ) -> None:
        self.dialect = dialect
        """That it came in."""
        self.message: Message | None = message
        self.identity = identity
        self.ack_on = ack_on
        self.handler = handler
        self.payload = payload
        self.block = block
        self.reply_tos: list[str] = [reply_to] if reply_to else []
        self.sender = message.from_node
        self.signer = ""
        """Who is proved to have sent it: the same, or nobody."""
        instance = identity.instance
        self.key: DedupeKey | None = (
            None if instance is None else (self.sender, instance, identity.message_id)
        )
        """What a resend of the same message has in common with it; None when the sender gives no usable id."""
        self.message_id = message.id
        """The number in its body, which an acknowledgement repeats."""
        self.is_reply = message.is_reply
        self.not_filed = ""
        """Of an answer that was to be filed here: why it could not be."""
        self.row_id: int | None = None
        self.is_taken = False
        self.is_unwanted = False
        """Whether nobody here wants what it brought, nor what would follow it."""
        self.resume: FilePosition | None = None
        self.held_bytes = 0
        self.tell_due_mono = 0.0
        self.tell_every_s = 0.0
        self._headers: Mapping[str, str] | None = None if block else _NO_HEADERS
        self.stream = ""
        """Which answer in pieces it is a piece of."""
        if message.is_reply and block:
            self.stream = self.headers.get(TURN_HEADER, "").rpartition(".")[0]

    @property
    def headers(self) -> Mapping[str, str]:
        """All headers that it came with."""
        headers = self._headers
        if headers is None:
            headers = self._headers = self.dialect.read_headers(self.block)
        return headers

    @property
    def is_last_of_stream(self) -> bool:
        """Whether this reply completes an answer that came in pieces."""
        return bool(self.stream) and MORE_HEADER not in self.headers

    def measure(self) -> int:
        """Bytes that it holds in memory now, decoded texts included."""
        message = self.message
        size = len(self.payload)
        if not self.dialect.is_compressed(self.block):
            size = (
                3 * size + SMALL_BYTES
            )  # as much text as it has bytes, and once more for a request that rides along
        elif message is not None:
            size += SMALL_BYTES
            for texts in (message.data, message.method_args):
                if texts:
                    size += sum(map(len, texts)) + 64 * len(texts)
            if message.previous_message is not None:
                size += 2 * len(self.payload)
        self.held_bytes = size
        return size

    def put_aside(self) -> None:
        """Keep the bytes only: a small frame may hold megabytes of text, and its turn may be long in coming."""
        self.message = None
        self.held_bytes = len(self.payload)

    def opened(self, limits: WireLimits) -> Message:
        """The message, decoded again where only its bytes were kept.

        Raises:
            DecodeError: not with limits as wide as those it was admitted with.
        """
        message = self.message
        if message is None:
            message = self.message = self.dialect.read(self.block, self.payload, limits)[0]
        return message


class Order(Incoming):
    """A word about what the method has started, on its subject: handled at once."""

    __slots__ = ()
    is_order = True


class Waiting:
    """What messages take that wait for their turn: in all, and of each sender."""

    __slots__ = ("_counts", "_sizes", "decoded_bytes", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self.decoded_bytes = 0
        """Of it what decoded ones hold."""
        self._counts: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def leaves_room(self, sender: str, count: int, share: float, max_bytes: int) -> bool:
        """Whether the sender may have one more message here: no one may have all of the room."""
        return (
            self._counts.get(sender, 0) < max(1.0, count * share)
            and self._sizes.get(sender, 0) < max_bytes * share
        )

    def add(self, work: Incoming) -> None:
        """A message waits for its turn."""
        size = work.held_bytes
        self.size_bytes += size
        if work.message is not None:
            self.decoded_bytes += size
        sender = work.sender
        self._counts[sender] = self._counts.get(sender, 0) + 1
        self._sizes[sender] = self._sizes.get(sender, 0) + size

    def remove(self, work: Incoming) -> None:
        """It waits no longer."""
        size = work.held_bytes
        self.size_bytes -= size
        if work.message is not None:
            self.decoded_bytes -= size
        sender = work.sender
        left = self._counts[sender] - 1
        if left:
            self._counts[sender] = left
            self._sizes[sender] -= size
        else:
            del self._counts[sender]
            del self._sizes[sender]


class Refusal:
    """Why a delivery was not admitted; `sender` is "" when it could not even be read.

    `is_undeclared` says that the sender's name is that of a node, and of none that the config declares; `fault` what is
    wrong with its signature, `signer` who is proved to have sent it, "" for nobody.
    """

    __slots__ = (
        "fault",
        "identity",
        "is_undeclared",
        "message_id",
        "reason",
        "sender",
        "signer",
    )

    def __init__(
        self,
        sender: str,
        identity: Identity,
        reason: str,
        message_id: int = 0,
        *,
        is_undeclared: bool = False,
        fault: Fault | None = None,
        signer: str = "",
    ) -> None:
        self.signer = signer
        self.is_undeclared = is_undeclared
        self.fault = fault
        self.sender = sender
        self.identity = identity
        self.reason = reason
        self.message_id = message_id


def wire_limits(fleet: DesiredState) -> WireLimits:
    """The decoder's bounds as the config sets them."""
    limits = fleet.limits
    return WireLimits(
        max_message_bytes=limits.max_message_bytes,
        max_decompressed_bytes=limits.max_decompressed_bytes,
        max_depth=limits.max_depth,
    )


_OFF = SignaturePolicy.OFF
_BEGUN_ENDING = BEGUN_ELSEWHERE + b"\r\n"


class Admission:
    """Decodes and checks what comes to one subscriber, with what it found out of senders before.

    Made anew when the spec or the desired state changes, so that a sender who was let in is not let in by memory.
    """

    def __init__(
        self,
        spec: SubscriberSpec,
        subject_node: str,
        fleet: DesiredState,
        dialect: Dialect,
        verifier: Verifier,
        orders: Mapping[str, Handler] = {},
    ) -> None:
        self._verifier = verifier
        self.spec = spec
        self.fleet = fleet
        self.limits = wire_limits(fleet)
        self._subject_node = subject_node
        self._dialect = dialect
        self._own_replies = f"{spec.subject}.{REPLY_TOKEN}."
        self._orders = orders
        self._welcome: set[str] = set()
        """Senders that are let in: names of the config mostly, so few."""

    def admit(
        self, delivery: BusMessage, handler: Handler, *, is_known: bool = False
    ) -> Incoming | Refusal:
        """The message, or why it is refused. With `is_known` it was admitted before, and lay on our own disk since."""
        spec, block = self.spec, delivery.block
        if delivery.subject != spec.subject:
            # a stream delivers what it holds wherever its node says, under the subject that it was sent to
            return Refusal("", NOBODY, f"it was sent to {escape_line(delivery.subject[:200])}")
        checks = spec.signatures is not _OFF
        signer = ""
        # NB: what is too large is refused for that, below, without a look at all of it
        is_small = len(delivery.payload) <= self.limits.max_message_bytes
        if checks and is_small and not is_known:
            # before anything is unpacked: who has no key has nothing unpacked here
            opened = self._verifier.open_message(delivery, spec.subject, spec.signatures)
            block, signer = opened.block, opened.signer
            if opened.fault is not None:
                return self._refuse_unproven(opened.fault, delivery, block, signer)
            if delivery.origin is not None and signer and delivery.block.endswith(_BEGUN_ENDING):
                # noted by our own way in, behind the signature
                block = with_line(block, BEGUN_ELSEWHERE)
        try:
            # decoded first: who sent it stands in the body, which the bounds of the decoder keep small
            message, identity = self._dialect.read(block, delivery.payload, self.limits)
            if identity.instance is None and delivery.origin is not None:
                identity = Identity(*delivery.origin, False)
        except DecodeError as error:
            identity = self._dialect.identify(block) if block else NOBODY
            if identity.instance is None and delivery.origin is not None:
                identity = Identity(*delivery.origin, False)
            return Refusal("", identity, f"undecodable: {error}", signer=signer)
        sender, reply_to = message.from_node, delivery.reply_to
        if checks and signer != sender:
            if is_known:
                # it was let in, so it had been signed where that is asked of its sender
                signer = sender if self._verifier.must_sign(sender, spec.signatures) else ""
            else:
                fault = (
                    self._verifier.count(Fault.OTHER_SENDER)
                    if signer
                    else self._verifier.find_unsigned_fault(sender, spec.signatures)
                )
                if fault is not None:
                    return self._refuse_unproven(fault, delivery, block, sender, message.id)
        make: type[Incoming] = Incoming
        if (
            sender not in self._welcome
            or message.method != spec.method
            or message.to_node != self._subject_node
        ):
            asked = message
            if message.method in self._orders and identity.instance is not None:
                make, handler = Order, self._orders[message.method]
                asked = message._replace(method=spec.method)
            is_own = is_file_asked_for(spec, asked)
            refusal = (
                None
                if is_own
                else find_refusal(spec, self._subject_node, asked, self.fleet.declared_nodes)
            )
            if refusal is not None:
                is_undeclared = is_node_name(sender) and sender not in self.fleet.declared_nodes
                return Refusal(
                    sender,
                    identity,
                    refusal,
                    message.id,
                    is_undeclared=is_undeclared,
                    signer=signer,
                )
            # the names of the config are few; with `accept_from: any` they are whatever peers write
            if not is_own and len(self._welcome) < 10_000:
                self._welcome.add(sender)
        if (
            reply_to
            and not reply_to.startswith(self._own_replies)
            and not is_reply_subject_safe(reply_to, spec.subject)
        ):
            # else our right to publish there would be the sender's
            why = "its reply subject is a request subject"
            return Refusal(sender, identity, why, message.id, signer=signer)
        if reply_to and is_for_refusals(reply_to):
            reply_to = ""  # it is none, and that is all that the sender wants to know
        # NB: an appliance that names a reply subject here had promised to deliver, when this was still acknowledged
        is_awaited = bool(reply_to) and identity.hears and not spec.wants_ack
        ack_on = AckOn.DONE if is_awaited else spec.ack_on
        work = make(
            message, identity, ack_on, handler, delivery.payload, block, reply_to, self._dialect
        )
        if signer:
            work.signer = signer
        return work

    def _refuse_unproven(
        self, fault: Fault, delivery: BusMessage, block: bytes, sender: str, number: int = 0
    ) -> Refusal:
        identity = self._dialect.identify(block) if block else NOBODY
        if identity.instance is None and delivery.origin is not None:
            identity = Identity(*delivery.origin, False)
        number = number or identity.message_id
        return Refusal(sender, identity, FAULT_WORDS[fault], number, fault=fault)


class Entrance:
    """What comes in to one subscriber: the method in force, its handler, and who is admitted."""

    def __init__(
        self,
        spec: SubscriberSpec,
        method: Method,
        *,
        desired: Current[DesiredState],
        dialect: Dialect,
        verifier: Verifier,
    ) -> None:
        self._spec = spec
        self._desired = desired
        self._dialect = dialect
        self._verifier = verifier
        self.put(method)
        self.orders = {name: make() for name, make in method.orders.items()}
        """Words about what the method has started, which come on its subject."""
        self._admission = self._make()

    def _make(self) -> Admission:
        spec = self._spec
        node = parse_subject(spec.subject).node
        fleet = self._desired.value
        return Admission(spec, node, fleet, self._dialect, self._verifier, self.orders)

    def use(self, spec: SubscriberSpec) -> None:
        """Limits and allow lists hold for the next message."""
        self._spec = spec

    def put(self, method: Method) -> None:
        """The next message goes to a handler of this one. What making it raises leaves the old one in force."""
        self.handler = method.make()
        self.method = method

    def current(self) -> Admission:
        """The admission as spec and desired state have it now."""
        admission = self._admission
        # a sender who was let in under the old config is looked at anew under the next
        if admission.spec is not self._spec or admission.fleet is not self._desired.value:
            admission = self._admission = self._make()
        return admission
