"""Questions of the daemon's own to other nodes, whose answers are no part of a job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from appliance.core.message import body_number

MAX_ANSWER_BYTES = 65_536


class Said(NamedTuple):
    """What came of a question: `failure` tells why there is no answer."""

    text: str = ""
    exit_status: str = ""
    failure: str = ""


@dataclass(slots=True, eq=False)
class _Question:
    node: str
    answer: asyncio.Future[Said]


class Asking:
    """Futures by message id; costs nothing while nobody asks."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Question] = {}

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def expect(self, record_id: int, node: str) -> asyncio.Future[Said]:
        """The answer of `node` to a message, when it is there; end the waiting by cancelling it."""
        answer: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self._by_id[record_id] = _Question(node, answer)
        answer.add_done_callback(lambda _: self._by_id.pop(record_id, None))
        return answer

    def knows(self, number: int) -> bool:
        """Whether an answer to a message with this number is waited for."""
        return self._find(number) is not None

    def concluded(self, record_id: int, reason: str | None) -> None:
        """A message left the outbox; with `reason` it was given up."""
        question = self._by_id.get(record_id)
        if question is not None and reason is not None and not question.answer.done():
            question.answer.set_result(Said(failure=reason))

    def answered(self, number: int, from_node: str, data: bytes, exit_status: str | None) -> None:
        """An answer, whole."""
        question = self._find(number)
        if question is None or question.node != from_node or question.answer.done():
            return
        text = data[:MAX_ANSWER_BYTES].decode("utf-8", "replace").strip()
        status = exit_status or ""
        if status and not status.isdecimal():
            question.answer.set_result(Said(failure=status.removeprefix("failed: ")))
        else:
            question.answer.set_result(Said(text, status))

    def _find(self, number: int) -> _Question | None:
        wanted = body_number(number)
        for record_id, question in self._by_id.items():
            if body_number(record_id) == wanted:
                return question
        return None
