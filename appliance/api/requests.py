"""What callers of the API send, checked on the way in, and what they get back."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any, NamedTuple

import msgspec

from appliance.core.durations import parse_duration
from appliance.core.message import bytes_to_text
from appliance.errors import RequestInvalid

MAX_TARGETS = 10_000
"""Destinations of all messages in one call."""
MAX_TOTAL_BYTES = 256 * 1024 * 1024
"""Data times destinations in one call: each destination gets a record of its own."""


class WholeSeconds(int):
    """Seconds as the wire counts them: a duration is rounded up to whole ones."""


class Seconds(float):
    """Seconds, given as a number or a duration."""


class EncodedData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that are no text: JSON has none."""

    base64: str


class SubmitRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message to one or more nodes. What is left out is as the publisher's settings say."""

    to_nodes: list[str]
    method: str
    from_node: str | None = None
    method_args: list[str | EncodedData] | None = None
    data: list[str | EncodedData] | None = None
    reply_method: str | None = None
    reply_method_args: list[str | EncodedData] | None = None
    directory: str | EncodedData | None = None
    file_name: str | EncodedData | None = None
    ack_timeout: WholeSeconds | None = None
    retries: int | None = None
    reply_ack_timeout: WholeSeconds | None = None
    reply_retries: int | None = None
    method_timeout: WholeSeconds | None = None
    reply_method_timeout: WholeSeconds | None = None
    expires: Seconds | None = None
    relay_via_node: str | None = None
    """Send it by way of this node, which must be allowed to relay it."""
    relay_reply_method: str | None = None
    """The method that a relayed answer arrives as; without it the reply method."""
    for_caller: bool = False
    """The answer is for whoever waits for it here: shown, and filed nowhere."""

    def texts(self) -> tuple[str, ...] | None:
        """The data as the message carries it.

        Raises:
            RequestInvalid: something is no base64.
        """
        if self.data is None:
            return None
        return tuple(map(carried, self.data))


class ChooseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Targets, as `core.targets` reads them. With `method` those that match and would not take it are left out."""

    targets: list[str]
    exclude: list[str] = []
    method: str | None = None
    from_node: str | None = None
    """The node that asks, which `local` stands for; chosen as for a message."""


class ProgramsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes of which is asked what runs there."""

    nodes: list[str]
    from_node: str | None = None


JOB_COMMANDS = frozenset({"exec", "send", "cp"})


class JobRequest(NamedTuple):
    """That the messages of a call are one job, and of which command of which operator."""

    command: str
    by: str = ""
    wants_status: bool = False
    """An answer without an exit status is a failure."""
    is_now: bool = False
    """Only for nodes that are there: nothing is to wait for the others."""
    into: str = ""
    """The id of the job of which this is a further batch."""
    batch: int = 1
    batches: int = 1
    """Which batch, and of how many."""


class JobToBegin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a new job: a copy of so many files, in the words that were typed."""

    args: list[str | EncodedData]
    files: int
    from_node: str | None = None


class Once(NamedTuple):
    """A mark that is committed together with messages, so that a caller who was cut off can ask about it.

    It is remembered for `state.dedupe_window`. Numbers of one source grow with time.
    """

    source: str
    number: int


class ReloadRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a reload; may be left out."""

    force: bool = False


class PlanRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files of a config by their absolute names, as the caller read them (base64), and their digest."""

    files: dict[str, bytes]
    digest: str = ""
    force: bool = False


class RollbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a rollback. `to` is a number, generation, digest or revision; None for the set before."""

    to: str | None = None
    force: bool = False


class IdsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which records of the outbox; without `ids` every dead letter."""

    ids: list[int | str] | None = None
    pending: bool = False
    """Drop also records that are not dead; only with `ids`."""

    def numbers(self) -> list[int] | None:
        """The ids as numbers.

        Raises:
            RequestInvalid: one is no number.
        """
        if self.ids is None:
            return None
        try:
            return [int(item) for item in self.ids]
        except ValueError:
            raise RequestInvalid("an id is a number") from None


class PruneRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether what still holds messages goes, too."""

    force: bool = False


class RejectRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys that are to be turned away."""

    public_keys: list[Annotated[str, msgspec.Meta(max_length=60)]]


class InboxDropRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which messages of the inbox; `all` must be said, so that an empty body drops nothing."""

    ids: list[int | str] | None = None
    all: bool = False

    def numbers(self) -> list[int] | None:
        """The ids as numbers, None for all.

        Raises:
            RequestInvalid: one is no number, or neither or both were said.
        """
        if self.all == (self.ids is not None):
            raise RequestInvalid("say which ids, or all")
        return IdsRequest(ids=self.ids).numbers()


def carried(item: str | EncodedData) -> str:
    """A text as a message carries it: bytes of any kind.

    Raises:
        RequestInvalid: it is no base64.
    """
    if isinstance(item, str):
        return item
    try:
        return bytes_to_text(base64.b64decode(item.base64, validate=True))
    except (binascii.Error, ValueError) as error:
        raise RequestInvalid(f"base64 holds something else: {error}") from error


def _convert(wanted: type, value: Any) -> Any:
    """Make a duration of ours from what JSON gave."""
    if wanted not in (WholeSeconds, Seconds):
        raise NotImplementedError
    if not isinstance(value, str | int | float):
        raise ValueError("expected a duration")
    seconds = parse_duration(value)
    return Seconds(seconds) if wanted is Seconds else WholeSeconds(math.ceil(seconds))


_MESSAGES = msgspec.json.Decoder(list[SubmitRequest] | SubmitRequest, dec_hook=_convert)
_CHOOSE = msgspec.json.Decoder(ChooseRequest)
_RELOAD = msgspec.json.Decoder(ReloadRequest)
_PLAN = msgspec.json.Decoder(PlanRequest)
_ROLLBACK = msgspec.json.Decoder(RollbackRequest)
_PROGRAMS = msgspec.json.Decoder(ProgramsRequest)
_IDS = msgspec.json.Decoder(IdsRequest)
_INBOX_DROP = msgspec.json.Decoder(InboxDropRequest)
_PRUNE = msgspec.json.Decoder(PruneRequest)
_REJECT = msgspec.json.Decoder(RejectRequest)


def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RequestInvalid(f"unusable body: {error}") from error
    except RecursionError:
        raise RequestInvalid("unusable body: nested too deep") from None


def read_messages(body: bytes) -> list[SubmitRequest]:
    """One message or a list of them.

    Raises:
        RequestInvalid: no JSON, an unknown or missing field, a wrong type, no destination, too
        many.
    """
    found = _read(_MESSAGES, body)
    requests: list[SubmitRequest] = found if isinstance(found, list) else [found]
    targets = total_bytes = 0
    for request in requests:
        if not request.to_nodes:
            raise RequestInvalid("to_nodes names no node")
        if not request.method:
            raise RequestInvalid("method is empty")
        for name in ("retries", "reply_retries"):
            if (getattr(request, name) or 0) < 0:
                raise RequestInvalid(f"{name} must not be negative")
        size = sum(
            len(item if isinstance(item, str) else item.base64) for item in request.data or ()
        )
        targets += len(request.to_nodes)
        # each destination gets a message of its own, with all of the data in it
        total_bytes += size * len(request.to_nodes)
    if targets > MAX_TARGETS:
        raise RequestInvalid(f"{targets} destinations exceed the limit of {MAX_TARGETS} per call")
    if total_bytes > MAX_TOTAL_BYTES:
        raise RequestInvalid(
            f"{total_bytes} bytes of data for all nodes exceed the limit of {MAX_TOTAL_BYTES}"
        )
    return requests


def read_choose(body: bytes) -> ChooseRequest:
    """The body of a question which nodes targets mean.

    Raises:
        RequestInvalid: it is none.
    """
    found: ChooseRequest = _read(_CHOOSE, body)
    return found


def read_reload(body: bytes) -> ReloadRequest:
    """The body of a reload, which may be empty.

    Raises:
        RequestInvalid: it is neither.
    """
    found: ReloadRequest = _read(_RELOAD, body) if body.strip() else ReloadRequest()
    return found


def read_plan(body: bytes) -> PlanRequest:
    """The body of a plan of files that the caller read.

    Raises:
        RequestInvalid: it is none, or a name is not absolute.
    """
    found: PlanRequest = _read(_PLAN, body)
    if not found.files:
        raise RequestInvalid("no files to plan")
    if not all(name.startswith("/") and "\0" not in name for name in found.files):
        raise RequestInvalid("files to plan have absolute names")
    return found


def read_rollback(body: bytes) -> RollbackRequest:
    """The body of a rollback, which may be empty.

    Raises:
        RequestInvalid: it is neither.
    """
    found: RollbackRequest = _read(_ROLLBACK, body) if body.strip() else RollbackRequest()
    return found


def read_ids(body: bytes) -> IdsRequest:
    """The body of an outbox operation, which may be empty.

    Raises:
        RequestInvalid: it is neither.
    """
    found: IdsRequest = _read(_IDS, body) if body.strip() else IdsRequest()
    return found


def read_prune(body: bytes) -> PruneRequest:
    """The body of a request to prune streams.

    Raises:
        RequestInvalid: it is none.
    """
    found: PruneRequest = _read(_PRUNE, body or b"{}")
    return found


def read_reject(body: bytes) -> RejectRequest:
    """The body of a request to turn new nodes away.

    Raises:
        RequestInvalid: it is none.
    """
    found: RejectRequest = _read(_REJECT, body)
    return found


def read_programs(body: bytes) -> ProgramsRequest:
    """The body of a question for what runs.

    Raises:
        RequestInvalid: it is none, or names too many nodes.
    """
    found: ProgramsRequest = _read(_PROGRAMS, body)
    if len(found.nodes) > MAX_TARGETS:
        raise RequestInvalid(f"more than {MAX_TARGETS} nodes")
    return found


def read_inbox_drop(body: bytes) -> InboxDropRequest:
    """The body of a drop from the inbox.

    Raises:
        RequestInvalid: it is none.
    """
    found: InboxDropRequest = _read(_INBOX_DROP, body or b"{}")
    return found
