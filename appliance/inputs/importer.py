"""From a text to an answer: every input hands its bytes here and passes the answer on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.api.model import Submitted
from appliance.api.replies import encode_json
from appliance.api.requests import Once
from appliance.api.submission import Submission
from appliance.core.current import Current
from appliance.core.specs import InputSettings
from appliance.errors import RequestInvalid, StoreError
from appliance.inputs.keys import FIELDS
from appliance.inputs.notes import Accepted, Note, Reading
from appliance.inputs.reading import TextKind, read_text_of_messages

_log = logging.getLogger(__name__)

_LARGE_BYTES = 16_384
"""Larger texts are read in a thread, so that the loop goes on meanwhile, and one at a time."""


class Outcome(StrEnum):
    """What became of a text as a whole."""

    TAKEN = "taken"
    PARTLY = "partly"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    UNAUTHORIZED = "unauthorized"
    BUSY = "busy"
    """Nothing was accepted, and later it may be."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What the injector is told."""

    outcome: Outcome
    accepted: list[Accepted] = field(default_factory=list)
    problems: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)

    def encode(self) -> bytes:
        """One line of JSON."""
        shown = {
            "accepted": self.accepted,
            "problems": self.problems,
            "warnings": self.warnings,
        }
        return encode_json(shown) + b"\n"


def refuse(outcome: Outcome, message: str) -> Answer:
    """An answer to a text that nobody looks into."""
    return Answer(outcome=outcome, problems=[Note(message=message)])


class Importer:
    """Reads large texts one at a time, which bounds what they take of memory together."""

    def __init__(self, submission: Submission, settings: Current[InputSettings]) -> None:
        self._submission = submission
        self._settings = settings
        self._large = asyncio.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Messages by input and result."""
        self.opened = asyncio.Event()
        """Set while messages can be taken."""

    def count_refused(self, source: str) -> None:
        """A text was refused before it was read."""
        self.counts[source, "refused"] += 1

    async def inject(
        self,
        source: str,
        raw: bytes,
        *,
        kind: TextKind = TextKind.ANY,
        atomic: bool | None = None,
        once: Once | None = None,
    ) -> Answer:
        """Take a text; what the answer calls accepted is on disk.

        Cancellation: the messages may be accepted all the same.
        """
        if not self.opened.is_set():
            return refuse(Outcome.BUSY, "the daemon is starting or stopping; try again later")
        settings = self._settings.value
        is_atomic = settings.atomic if atomic is None else atomic
        # NB: small texts go side by side, so that one commit on disk serves many
        waiting = self._large if len(raw) > _LARGE_BYTES else contextlib.nullcontext()
        async with waiting:
            reading = await self._read(raw, settings, kind)
            answer = await self._submit(reading, is_atomic=is_atomic, once=once)
        self.counts[source, "accepted"] += len(answer.accepted)
        # what is to come again is judged then
        if answer.outcome is not Outcome.BUSY:
            self.counts[source, "refused"] += _count_refused(answer) + reading.untold
        return answer

    async def is_accepted(self, once: Once) -> bool:
        """Whether a text was accepted under this mark.

        Raises:
            StoreError: it cannot be told now.
        """
        return await self._submission.is_accepted(once)

    async def _read(self, raw: bytes, settings: InputSettings, kind: TextKind) -> Reading:
        def read() -> Reading:
            return read_text_of_messages(
                raw, max_messages=settings.max_messages, from_node=settings.from_node, kind=kind
            )

        # a small one is read sooner than a thread is asked
        return read() if len(raw) <= _LARGE_BYTES else await asyncio.to_thread(read)

    async def _submit(self, reading: Reading, *, is_atomic: bool, once: Once | None) -> Answer:
        answer = Answer(
            outcome=Outcome.REFUSED, problems=reading.problems, warnings=reading.warnings
        )
        if reading.untold:
            more = Note(message=f"and {reading.untold} more problems or warnings")
            (answer.problems if answer.problems else answer.warnings).append(more)
        if not reading.is_whole:
            if reading.is_too_large:
                answer.outcome = Outcome.TOO_LARGE
            return answer
        if is_atomic and reading.problems:
            answer.problems.append(Note(message="nothing was accepted: all or none was asked for"))
            return answer
        requests = [request for _, request in reading.requests]
        try:
            submitted = await self._submission.submit(requests, atomic=is_atomic, once=once)
        except StoreError as error:
            return refuse(Outcome.BUSY, f"nothing was accepted, try again later: {error}")
        except RequestInvalid as error:
            answer.problems.append(Note(message=str(error)))
            return answer
        _sort(reading, submitted, answer)
        if not answer.problems:
            answer.outcome = Outcome.TAKEN
        elif answer.accepted:
            answer.outcome = Outcome.PARTLY
        return answer


_STEWARD_KEYS = {attr: name for name, (attr, _) in FIELDS.items()} | {
    "to_nodes": "toNode",
    "from_node": "fromNode",
}


def _sort(reading: Reading, submitted: Sequence[Submitted], answer: Answer) -> None:
    """Give every verdict to the element it belongs to."""
    indexes = (index for index, request in reading.requests for _ in request.to_nodes)
    for index, item in zip(indexes, submitted, strict=True):
        if item.accepted and item.id is not None:
            answer.accepted.append(
                Accepted(
                    index=index,
                    to=item.to,
                    id=item.id,
                    id_text=str(item.id),
                    from_node=item.from_node,
                )
            )
            if item.note:
                answer.warnings.append(Note(index=index, to=item.to, message=item.note))
        else:
            key = _STEWARD_KEYS.get(item.key or "")
            answer.problems.append(
                Note(
                    index=index,
                    key=key,
                    to=item.to,
                    line=reading.places[index](key),
                    message=item.error or "refused",
                )
            )


def _count_refused(answer: Answer) -> int:
    """Messages that were not taken; at least the text itself where it was refused whole."""
    refused = {(note.index, note.to) for note in answer.problems if note.index is not None}
    return len(refused) or (1 if answer.problems else 0)
