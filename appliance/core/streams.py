"""Streams and their consumers as values: names, what a config asks of them, and what an acknowledgement names. Pure.

A stream is a work queue: what a node has acknowledged leaves it, so its bounds are bounds of what waits. Each subject of
a node has one durable consumer, which all daemons of that node share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from appliance.core.names import REPLY_TOKEN, parse_subject
from appliance.core.specs import Delivery, StreamSettings, WorkerSpec

STREAM_PREFIX = "appl-"
"""How the names of streams begin that no config names."""
CLAIM_TOKEN = "claim"
"""Below a subject: who has a message in hand."""
ACK_WAIT_S = 30.0
"""A message of which nothing is heard for so long goes to the next daemon; one in hand is spoken of in time."""
MAX_DELIVER = 100
"""Deliveries of one message, nearly all of them to daemons that died of it, before the broker parks it."""
MAX_ACK_PENDING = 4_096
"""Messages of one subject that may be in the hands of daemons."""
DUPLICATE_WINDOW_S = 120.0
"""How long the broker knows a message again that is sent once more; the receiver's memory of ids is longer."""
UNUSED_SUBJECT = "unused"
"""What a stream records that is left without a subject of a node: it must have one."""
OTHER_STREAM = 10060
"""The error of a stream that was sent a message for one of another name."""
NO_RESPONDERS = b"NATS/1.0 503"
"""How the broker's word begins that nobody is there."""
_NANOSECONDS = 1_000_000_000

Json = dict[str, Any]
Config = Mapping[str, Any]
"""A stream's or a consumer's settings as the broker's API writes them."""


class StreamAddress(NamedTuple):
    """Which stream it is: one name may stand for another stream in each domain."""

    name: str
    domain: str = ""
    """Of JetStream: "" is that of the broker which one is connected to."""

    def __str__(self) -> str:
        return f"{self.name}@{self.domain}" if self.domain else self.name


def address_of_stream(settings: StreamSettings, subject: str) -> StreamAddress:
    """The stream that keeps a subject."""
    name = settings.name or STREAM_PREFIX + parse_subject(subject).node.replace(".", "=")
    return StreamAddress(name, settings.domain)


def find_stream(spec: WorkerSpec) -> StreamAddress | None:
    """The stream that keeps what a worker sends or takes; None where none does."""
    if spec.delivery is not Delivery.JETSTREAM:
        return None
    return address_of_stream(spec.stream, spec.subject)


def write_note(subject: str, stream: StreamAddress) -> str:
    """A subject and a stream that records it, as they are remembered on disk."""
    return " ".join((subject, *filter(None, stream)))


def read_note(note: str) -> tuple[str, StreamAddress] | None:
    """What `write_note` wrote; None where it is none of these."""
    subject, *address = note.split(" ")
    return (subject, StreamAddress(*address)) if len(address) in (1, 2) else None


def api_prefix(domain: str) -> str:
    """How the subjects begin at which JetStream is asked; leaf nodes pass on what is for another domain."""
    return f"$JS.{domain}.API" if domain else "$JS.API"


def name_of_consumer(subject: str) -> str:
    """The durable consumer of a subject."""
    return subject.replace(".", "=")


def claim_subject(subject: str, stream: str, sequence: str) -> str:
    """Where a daemon says that it has a message of the stream in hand; `*` for all of them."""
    return f"{subject}.{CLAIM_TOKEN}.{stream}.{sequence}"


def begun_subject(subject: str, stream: str, sequence: str) -> str:
    """Where a daemon says that it is about to begin a message of the stream; `*` for all of them."""
    return f"{subject}.{CLAIM_TOKEN}.{stream}.begun.{sequence}"


def recorded_subjects(subject: str, stream: str) -> tuple[str, ...]:
    """What the stream has to record for a subject of a node."""
    return subject, claim_subject(subject, stream, "*"), begun_subject(subject, stream, "*")


def inbox_subjects(node: str) -> str:
    """Where a node hears what it asked of JetStream."""
    return f"_INBOX.appl.{node}.>"


def stream_config(settings: StreamSettings, name: str) -> Json:
    """What the config asks of a stream, without its subjects, as far as the broker can change it."""
    placement: Json = {}
    if settings.placement.cluster:
        placement["cluster"] = settings.placement.cluster
    if settings.placement.tags:
        placement["tags"] = list(settings.placement.tags)
    max_age = round(settings.max_age_s * _NANOSECONDS)
    window = round(DUPLICATE_WINDOW_S * _NANOSECONDS)
    return {
        "name": name,
        "num_replicas": settings.replicas,
        "max_age": max_age,
        "max_bytes": settings.max_bytes or -1,
        "discard": settings.discard,
        "duplicate_window": min(window, max_age) if max_age else window,
        **({"placement": placement} if placement else {}),
    }


def fixed_config(settings: StreamSettings) -> Json:
    """What a stream is made with and keeps."""
    return {"retention": "workqueue", "storage": settings.storage}


def consumer_config(subject: str, concurrency: int) -> Json:
    """What the durable consumer of a subject is. One handler at a time is a promise of order: one message at a time, too."""
    return {
        "durable_name": name_of_consumer(subject),
        "filter_subject": subject,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_wait": round(ACK_WAIT_S * _NANOSECONDS),
        "max_deliver": MAX_DELIVER,
        "headers_only": False,
        "max_ack_pending": MAX_ACK_PENDING if concurrency > 1 else 1,
    }


_LIMITS_OF_OTHERS: Config = {
    "max_batch": 0,
    "max_bytes": 0,
    "max_expires": 0,
    "backoff": [],
    "inactive_threshold": 0,
    "filter_subjects": [],
    "priority_groups": [],
    "priority_policy": "none",
}
"""Settings of a consumer by which it delivers nothing of what it is asked for, or forgets what it knows, with what they
are where nobody has set them. None of them is asked for: a broker that is older than one does not know it."""


def consumer_differences(wanted: Config, found: Config) -> Json:
    """What is to be changed of a consumer that is there."""
    harm = {key: off for key, off in _LIMITS_OF_OTHERS.items() if (found.get(key) or off) != off}
    return {**differences(wanted, found), **harm}


def differences(wanted: Config, found: Config) -> Json:
    """What of `wanted` is otherwise in `found`; the broker leaves out what is nothing."""
    return {
        key: value for key, value in wanted.items() if (found.get(key) or None) != (value or None)
    }


def with_subjects(found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The subjects of a stream with those that it has to record, in the order in which they came."""
    kept = [subject for subject in found if subject != UNUSED_SUBJECT]
    return list(dict.fromkeys((*kept, *wanted)))


def without_subjects(found: Sequence[str], released: Sequence[str]) -> list[str]:
    """The subjects of a stream without some, and never none."""
    return [subject for subject in found if subject not in released] or [UNUSED_SUBJECT]


_HARMFUL = (
    "max_msgs_per_subject",
    "allow_rollup_hdrs",
    "persist_mode",
    "no_ack",
    "subject_transform",
)
"""Settings of a stream that somebody else made: by them it forgets what it said it keeps, unseen, or keeps it where nobody
fetches it, or says nothing to those who wait for its word."""
_HARMLESS_VALUES = (None, False, 0, -1, "", "default")


def describe_harm(settings: StreamSettings, name: str, found: Config) -> str:
    """In words, what is wrong with a stream as it is and stays so; "" for nothing."""
    told: list[str] = []
    other = differences(fixed_config(settings), found)
    if other:
        told.append(
            f"the stream {name} is of another kind, which cannot be changed (delete it, or have `stream.name` say "
            f"another one): {_describe_differences(other, found)}"
        )
    harm = [key for key in _HARMFUL if found.get(key) not in _HARMLESS_VALUES]
    if harm:
        listed = ", ".join(f"{key} is {repr(found[key])[:100]}" for key in harm)
        told.append(f"somebody has set the stream {name} so that messages get lost in it: {listed}")
    return "; ".join(told)


def is_work_queue(found: Config) -> bool:
    """Whether a stream keeps messages for one consumer of their subject, from which nobody else copies them."""
    is_copy = found.get("mirror") or found.get("sources") or found.get("republish")
    return found.get("retention") == "workqueue" and not is_copy


def describe_drift(kind: str, name: str, drift: Config, found: Config) -> str:
    """A difference in words."""
    return f"the {kind} {name} was changed: {_describe_differences(drift, found)}"


def _describe_differences(drift: Config, found: Config) -> str:
    return ", ".join(
        f"{key} is {repr(found.get(key))[:100]} and shall be {value!r}"
        for key, value in drift.items()
    )


class Receipt(NamedTuple):
    """Which delivery of a stream an acknowledgement is for."""

    ack_subject: str
    """Where the broker takes it."""
    stream: str
    delivered: int
    """How often the message was delivered, this time counted."""
    sequence: int
    """Its place in the stream."""
    is_last: bool
    """Whether the stream had nothing more for the consumer then."""
    number: int = 0
    """Which delivery of the consumer it is."""
    stored_ns: int = 0
    """When the message was stored, since the epoch."""


def read_receipt(ack_subject: str) -> Receipt | None:
    """What the reply subject of a delivered message says; None where it is none of a stream's.

    ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>``, from servers 2.11
    on with the domain and a hash of the account after ``ACK``.
    """
    words = ack_subject.split(".")
    if len(words) < 9 or words[:2] != ["$JS", "ACK"]:
        return None
    first = 2 if len(words) == 9 else 4
    if len(words) < first + 7:
        return None
    stream, _, delivered, sequence, number, stored, pending = words[first : first + 7]
    if not (
        delivered.isdecimal()
        and sequence.isdecimal()
        and number.isdecimal()
        and stored.isdecimal()
        and len(ack_subject) < 4_096
    ):
        return None
    return Receipt(
        ack_subject,
        stream,
        int(delivered),
        int(sequence),
        pending == "0",
        int(number),
        int(stored),
    )


Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A place or a number of messages, as the broker writes them."""


class _Error(msgspec.Struct):
    description: str = ""
    err_code: int = 0


class PubAck(msgspec.Struct):
    """The broker's answer to a message that a stream was to keep."""

    stream: str = ""
    domain: str = ""
    seq: Count = 0
    count: Count = 0
    """Of a batch: how many messages it had; the place is the last one's."""
    error: _Error | None = None

    def is_of(self, stream: StreamAddress) -> bool:
        """Whether that stream has the message; where no domain is asked for, the broker's own may have a name."""
        return self.seq > 0 and self.stream == stream.name and stream.domain in ("", self.domain)


_decode_puback = msgspec.json.Decoder(PubAck).decode


def read_puback(payload: bytes) -> PubAck | None:
    """The broker's answer; None for what is none, since whoever hears a reply subject may write there what he likes."""
    try:
        return _decode_puback(payload)
    except (msgspec.DecodeError, RecursionError):
        return None


write_puback = msgspec.json.Encoder().encode


# What both ends of a stream must agree on: what is for the stream alone, and where ends of messages are told.

EXPECTED_STREAM = b"Nats-Expected-Stream: "
"""The first of the headers that are for the stream alone; they stand last, and the receiver cuts them off."""


def verdict_prefix(subject: str, instance: str) -> str:
    """How the subjects begin on which a sender hears what became of messages that a stream had; the id ends them."""
    return f"{subject}.{REPLY_TOKEN}.{instance}."
