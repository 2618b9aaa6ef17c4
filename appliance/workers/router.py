"""From a message to an outbox record: which subject, which publisher's settings, encoded once.

The router holds the desired state of the moment; everything that sends (the API, replies, error reports, schedules)
asks it, so there is one place that decides where a message goes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set

from appliance.config.arguments import find_argument_problem
from appliance.core.message import Message, body_number
from appliance.core.method import MethodTable
from appliance.core.names import (
    ERROR_CENTRAL,
    MethodName,
    NodeName,
    Subject,
    WorkerKey,
    WorkerKind,
    make_kind,
    make_subject,
)
from appliance.core.specs import (
    ANY_METHOD,
    Carried,
    DesiredState,
    PublisherDefaults,
    PublisherSpec,
)
from appliance.core.suggest import did_you_mean, find_nearest
from appliance.core.user_method import NO_METHODS, UserMethod
from appliance.dialect.headers import ID_HEADER
from appliance.errors import ArgumentsRefused, EncodeError, RequestInvalid, SubjectInvalid
from appliance.outbox.records import OutboxRecord
from appliance.wire.frame import FrameStencil, encode_fields

GO_RETRIES = 3
"""What a Go node reads where the config bounds a message by time alone; it would take 0 as "none asked for"."""
GO_METHOD_TIMEOUT_S = 10
"""What a Go node puts where nothing was asked; it would take 0 as "stop at once"."""

# positions of fields that are filled in for every message; `_make` on a list is the fast way on this path
_TO_NODES, _ID, _FROM_NODE, _ACK_TIMEOUT, _RETRIES, _METHOD_TIMEOUT = (
    Message._fields.index(name)
    for name in ("to_nodes", "id", "from_node", "ack_timeout_s", "retries", "method_timeout_s")
)


MAX_SENT_NUMBERS = 10_000
MAX_FORMS = 1_024
"""Of messages that are remembered: more than a daemon has lanes, and it begins anew where arguments are many."""
_FIRST_OF_REST = Message._fields.index("data") + 1

_Form = tuple[PublisherSpec, FrameStencil]
"""What is the same for messages that differ in number and data only."""


class Router:
    """Makes outbox records; `next_id` gives unique, time-ordered message ids."""

    def __init__(
        self,
        methods: MethodTable,
        *,
        instance: str,
        next_id: Callable[[], int],
        wall: Callable[[], float],
    ) -> None:
        self._builtin = methods
        self._methods = methods
        self._definitions: Mapping[MethodName, UserMethod] = NO_METHODS
        self._instance = instance
        self._next_id = next_id
        self._wall = wall
        self._sent_numbers: OrderedDict[int, int] = OrderedDict()
        """Ids of the newest messages, by the number in their bodies, which Go nodes repeat in answers.

        NB: a plain dictionary finds its oldest key by passing over all that have gone since it grew last.
        """
        self._desired: DesiredState | None = None
        self._specs: dict[tuple[str, str, str], PublisherSpec] = {}
        self._forms: dict[tuple[str, tuple[object, ...]], _Form] = {}

    def route_by(self, desired: DesiredState) -> None:
        """Route by this desired state from now on."""
        self._desired = desired
        self._forms.clear()
        self._definitions = desired.methods
        self._methods = {
            **self._builtin,
            **{name: method.info for name, method in desired.methods.items()},
        }
        self._specs = {
            (spec.node, spec.to_node, spec.method): spec
            for spec in desired.workers.values()
            if isinstance(spec, PublisherSpec)
        }

    def id_of(self, number: int) -> int:
        """The id of a message of ours, by the number that its body held, or the id itself; the number where it is not
        known any more.
        """
        return self._sent_numbers.get(number, number)

    @property
    def methods(self) -> MethodTable:
        """Every method that can be sent: the program's, and those of the config in force."""
        return self._methods

    def publisher_for(self, node: str, to_node: str, method: str) -> PublisherSpec:
        """The declared publisher, or the one that would be made on demand.

        Raises:
            RequestInvalid: the method is unknown or the destination is no valid name. A method that the receiver
                does not know kills a Go node, so it is never sent.
        """
        spec = self._specs.get((node, to_node, method))
        if spec is None:
            spec = self._on_demand(node, to_node, method)
            # destinations come from callers and peers, and need not be remembered
            if len(self._specs) < 10_000:
                self._specs[node, to_node, method] = spec
        return spec

    def spec_of_lane(
        self, node: NodeName, subject: Subject, to_node: str, method: str
    ) -> PublisherSpec:
        """The on-demand publisher for a lane whose subject is given (left by an earlier run or config)."""
        defaults = self._defaults(node)
        return PublisherSpec.of_settings(
            defaults,
            self._way(NodeName(to_node), MethodName(method), defaults),
            node=node,
            subject=subject,
            to_node=NodeName(to_node),
            method=MethodName(method),
            wants_ack=not subject.endswith("NACK"),
        )

    def check_reply_method(
        self, method: str, *, allowed: Set[MethodName] | None = ANY_METHOD
    ) -> None:
        """Whether an answer may go out as `method`: `allowed` is a subscriber's `allow_reply_methods`.

        Raises:
            RequestInvalid: it may not.
        """
        info = self._methods.get(MethodName(method))
        if info is None:
            raise RequestInvalid(self._unknown(method))
        # an error report is no answer: it goes to whoever is errorCentral
        if info.subject_node is not None:
            raise RequestInvalid(f"{method} is not for answers")
        if allowed is None:
            if not info.may_reply:
                raise RequestInvalid(f"{method} is not in allow_reply_methods")
        elif allowed != ANY_METHOD and info.name not in allowed:
            raise RequestInvalid(f"{method} is not in allow_reply_methods")

    def make_record(
        self,
        message: Message,
        *,
        expires_s: float | None = None,
        headers: dict[str, str] | None = None,
        retries: int | None = None,
        in_name_of: str = "",
        order: str = "",
    ) -> OutboxRecord:
        """Give the message its id, its subject and its bytes.

        `retries` is for who wants none: on the wire 0 means that nothing was asked for. With `in_name_of` the body
        names that node as the sender, while lane and record are those of the node that sends. With `order` the body
        names that method: a word about what the message's method has started.

        Raises:
            RequestInvalid: unknown method, bad destination, or the message cannot be encoded; ArgumentsRefused
                where the config says which arguments the method takes and these are none.
        """
        form = None if in_name_of or order else self._form_of(message)
        if form is None:
            spec = self.publisher_for(message.from_node, message.to_node, message.method)
            if not order:
                self._check_arguments(spec, message)
        else:
            spec = form[0]
        now = self._wall()
        message_id = self._next_id()
        number = body_number(message_id)
        self._sent_numbers[number] = message_id
        if len(self._sent_numbers) > MAX_SENT_NUMBERS:
            self._sent_numbers.popitem(last=False)
        encoded = None if form is None else form[1].encode(number, message.data)
        if encoded is None:
            written = message._replace(method=order) if order else message
            encoded = self._encode(written, spec, number, in_name_of)
        if message.method_timeout_s >= 1:
            # NB: without a word of its own the dialect says that the time was filled in, which is the rule
            headers = {ID_HEADER: f"{self._instance}-{message_id}", **(headers or {})}
        asked_timeout_s, asked_retries = message.ack_timeout_s, message.retries
        return OutboxRecord(
            message_id,
            message.from_node,
            spec.subject,
            message.to_node,
            message.method,
            encoded[0],
            encoded[1],
            spec.wants_ack,
            now,
            now + (expires_s if expires_s is not None else spec.ack.expires_s),
            float(asked_timeout_s) if asked_timeout_s > 0 else None,
            asked_retries if asked_retries > 0 else retries,
            headers,
        )

    def _form_of(self, message: Message) -> _Form | None:
        """What was found out of messages that differ from this one in number and data only; None where each is one of
        its kind.

        Raises:
            RequestInvalid: as `make_record`.
        """
        key = (message.to_node, message[_FIRST_OF_REST:])
        try:
            form = self._forms.get(key)
        except TypeError:
            return None  # a field of a type that it must not have, and is refused for
        if form is not None or message.previous_message is not None:
            return form
        spec = self.publisher_for(message.from_node, message.to_node, message.method)
        self._check_arguments(spec, message)
        fields = self._fields(message, spec, 0, "")
        try:
            stencil = FrameStencil(fields, spec.serialization, spec.compression)
        except EncodeError:
            return None  # said in full when it is encoded
        if not stencil.is_of_use:
            return None
        if len(self._forms) >= MAX_FORMS:
            self._forms.clear()
        form = self._forms[key] = (spec, stencil)
        return form

    def _check_arguments(self, spec: PublisherSpec, message: Message) -> None:
        definition = self._definitions.get(spec.method)
        if definition is not None:
            # judged here already: who asks hears it at once, not after a journey
            reason = find_argument_problem(definition.args, message.method_args or ())
            if reason is not None:
                raise ArgumentsRefused(message.method, reason)

    def _encode(
        self, message: Message, spec: PublisherSpec, number: int, in_name_of: str
    ) -> tuple[bytes, str]:
        fields = self._fields(message, spec, number, in_name_of)
        try:
            return encode_fields(fields, spec.serialization, spec.compression)
        except EncodeError as error:
            raise RequestInvalid(str(error)) from error

    @staticmethod
    def _fields(
        message: Message, spec: PublisherSpec, number: int, in_name_of: str
    ) -> list[object]:
        """The values as they go out."""
        fields: list[object] = list(message)
        fields[_TO_NODES] = None
        fields[_ID] = number
        if in_name_of:
            fields[_FROM_NODE] = in_name_of
        if message.ack_timeout_s < 1:
            fields[_ACK_TIMEOUT] = max(1, math.ceil(spec.ack.timeout_s))
        if message.retries < 1:
            retries_set = spec.ack.retries
            fields[_RETRIES] = GO_RETRIES if retries_set is None else max(1, retries_set)
        if message.method_timeout_s < 1:
            fields[_METHOD_TIMEOUT] = GO_METHOD_TIMEOUT_S
        return fields

    def _defaults(self, node: str) -> PublisherDefaults:
        if self._desired is None:
            return PublisherDefaults()
        return self._desired.publisher_defaults.get(NodeName(node), PublisherDefaults())

    def _way(self, to_node: NodeName, method: MethodName, defaults: Carried) -> Carried:
        """As the receiver's entry says where the config knows it, else as the sender's defaults."""
        desired = self._desired
        if desired is None or (to_node, method) not in desired.declared_acks:
            return defaults
        return desired.declared_ways.get((to_node, method), Carried())

    def _on_demand(self, node: str, to_node: str, method: str) -> PublisherSpec:
        info = self._methods.get(MethodName(method))
        if info is None:
            raise RequestInvalid(self._unknown(method))
        if info.subject_node is not None and to_node != info.subject_node:
            raise RequestInvalid(f"{method} goes to {info.subject_node!r}, not to {to_node[:60]!r}")
        if info.subject_node is None and to_node == ERROR_CENTRAL:
            raise RequestInvalid(f"{ERROR_CENTRAL} takes no {method}")
        try:
            kind = make_kind(info.category, wants_ack=self._wants_ack(node, to_node, method))
            subject = make_subject(to_node, method, kind)
        except SubjectInvalid as error:
            raise RequestInvalid(str(error)) from error
        return self.spec_of_lane(NodeName(node), subject, to_node, method)

    def _unknown(self, method: str) -> str:
        nearest = find_nearest(method[:60], self._methods)
        return f"unknown method {method[:60]!r}{did_you_mean(nearest)}"

    def _wants_ack(self, node: str, to_node: str, method: str) -> bool:
        """The destination's declared ack mode if the config knows it, else the sender's defaults."""
        if self._desired is not None:
            declared = self._desired.declared_acks.get((NodeName(to_node), MethodName(method)))
            # as the receiver's entry says, or the message would go to a subject that nobody hears
            if declared is not None:
                return declared
        info = self._methods[MethodName(method)]
        if info.acks_when_done is not None:
            return True
        if not info.acks_by_default:
            return False
        return self._defaults(node).ack_mode != "none"


def lane_key(spec: PublisherSpec) -> tuple[NodeName, Subject]:
    """The outbox lane that a publisher empties."""
    return (spec.node, spec.subject)


def publisher_key(node: str, subject: str) -> WorkerKey:
    """The worker key of the publisher of a lane."""
    return WorkerKey(NodeName(node), Subject(subject), WorkerKind.PUBLISHER)
