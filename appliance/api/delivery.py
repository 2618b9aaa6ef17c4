"""Follows submitted messages until each is settled and, if its method answers, answered. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from msgspec import UNSET

from appliance.api.model import Line, Submitted
from appliance.core.delivery import (
    DeliveryState,
    Standing,
    WaitReason,
    state_of_reason,
    why_of_missed,
    why_of_reason,
)
from appliance.core.outcome import AnswerFacts, Outcome, was_cut_off
from appliance.core.relay import is_answer_of

Event = dict[str, Any]

EVENTS = frozenset(
    {
        *("message_delivered", "attempt_missed", "message_dead", "reply_received"),
        *("message_waits", "message_working", "message_taken_back"),
    }
)
"""The facts that concern a submitted message."""

SIGNS_OF_LIFE = EVENTS - {
    *("attempt_missed", "message_waits", "message_dead", "message_taken_back")
}
"""Facts that come from the other side."""

MAX_ASKED = 256
"""Messages whose standing is asked for at once."""

_NOBODY_THERE = Standing(DeliveryState.WAITING, WaitReason.NOBODY)
_EVENT_OF = {
    DeliveryState.WAITING: "waits",
    DeliveryState.SENT: "sent",
    DeliveryState.WORKING: "working",
}
_SOMETIMES = (
    *("has_more", "stream", "stderr", "progress", "truncated", "is_stderr_cut"),
    *("data_base64", "stderr_base64"),
    *("stopped_after_seconds", "is_held", "signal", "place", "not_filed"),
)
"""Fields of a reply that most do not have."""


class DeliveryWatch:
    """Turns facts into lines for the one who waits. Each line tells the state that it leads to, and why."""

    def __init__(
        self,
        submitted: Iterable[Submitted],
        is_appliance: Callable[[str], bool] = lambda _node: True,
    ) -> None:
        """`is_appliance` tells of a node that has taken a message whether it has ever said that it is one."""
        self._all = list(submitted)
        self._is_appliance = is_appliance
        self._by_id = {item.id: item for item in self._all if item.accepted and item.id is not None}
        self._unsettled = dict.fromkeys(self._by_id)
        """In the order in which they are asked after."""
        self._unanswered = {id_ for id_, item in self._by_id.items() if item.replies}
        self._places: dict[int, str] = {}
        """Where the answers have come to that tell it."""
        self._asked = {id_: id_ for id_ in self._by_id}
        """By the id of a message the one that was asked first: another may go on for it."""
        self._now: dict[int, Submitted] = {}
        """What goes on for which."""
        self._went_on: set[int] = set()
        self._told: dict[int, Standing] = {}
        """What was said last of messages that are not settled."""
        self._outcomes = {
            id_: Outcome(wants_answer=item.replies, streams=item.streams)
            for id_, item in self._by_id.items()
        }
        """Of the answers: whether they are complete."""
        self._spoken: set[int] = set()
        """Whose nodes have answered, if only in part."""
        self._open_ended: set[int] = set()
        """Whose answers come in pieces that tell nothing of an end, as a Go node's."""
        self._by_go_nodes: set[int] = set()
        """What was taken by nodes that never said that they are appliances: when they begin, and they tell no end."""
        self._delivered = 0
        self._failed = sum(1 for item in self._all if not item.accepted)

    def opening(self) -> list[Line]:
        """What is known at once."""
        return [self._open(item) for item in self._all]

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return not (self._unsettled or self._unanswered)

    @property
    def is_worked_on(self) -> bool:
        """Whether something was taken and its answer is still to come."""
        return any(id_ not in self._unsettled for id_ in self._unanswered)

    @property
    def is_rest_absent(self) -> bool:
        """Whether nobody is there for anything that is still to come."""
        absent = (self._told.get(id_) == _NOBODY_THERE for id_ in self._unsettled)
        return bool(self._unsettled) and all(absent) and self._unanswered <= self._unsettled.keys()

    @property
    def is_rest_open_ended(self) -> bool:
        """Whether all that is still to come are answers of which nobody tells when they are complete."""
        endless = {id_ for id_ in self._by_go_nodes if self._by_id[id_].streams}
        is_rest = self._unanswered <= self._open_ended | endless
        return not self._unsettled and bool(self._unanswered) and is_rest

    @property
    def unanswered(self) -> list[int]:
        """Ids of messages whose answers have not ended."""
        return sorted(self._unanswered)

    @property
    def answered(self) -> list[int]:
        """Ids of messages of which nothing more is to come, those that others went on for included."""
        return [*(self._by_id.keys() | self._went_on) - {*self.left_speaking(is_kept=False)}]

    def left_speaking(self, *, is_kept: bool) -> list[int]:
        """Ids of messages whose answers have not ended; where answers are kept, of those that have no end of their own."""
        left = [id_ for id_ in self.unanswered if self._by_id[id_].streams or not is_kept]
        return [self._current(id_).id or id_ for id_ in left]

    def cut_off(self, event: Event) -> tuple[Submitted, str] | None:
        """Whose answer an event says to be cut off by the end of its node's daemon, and where it had come to."""
        if event["event"] != "reply_received" or not self.concerns(event):
            return None
        asked = self._asked[event["previous_id"]]
        place = self._places.get(asked)
        if place is None or event.get("has_more") or not was_cut_off(event.get("exit_status")):
            return None
        return self._by_id[asked], place

    def go_on(self, item: Submitted, by: Submitted, why: str) -> Line:
        """Another message goes on for one of ours; what still comes of the one before counts no more."""
        assert item.id is not None
        assert by.id is not None
        self._went_on.add(by.id)
        del self._asked[self._current(item.id).id or item.id]
        self._asked[by.id], self._now[item.id] = item.id, by
        self._told.pop(item.id, None)
        self._unsettled[item.id] = None
        return _line("resumes", item, Standing(DeliveryState.WAITING, why))

    def _current(self, asked: int) -> Submitted:
        return self._now.get(asked, self._by_id[asked])

    def concerns(self, event: Event) -> bool:
        """Whether an event is about one of ours."""
        if event["event"] == "reply_received":
            item = self._by_id.get(self._asked.get(event["previous_id"], 0))
            # a node that was not asked may name our message in its own, too
            sender, asked = str(event.get("from")), event.get("asked")
            relayed_by = str(event.get("relayed_by") or "")
            asked = str(asked or (relayed_by and sender))
            return item is not None and is_answer_of(
                sender, asked, to=item.to, via=item.via or "", relayed_by=relayed_by
            )
        return event.get("id") in self._asked and event["event"] in EVENTS

    def take(self, event: Event) -> Line | None:
        """The line for an event; None when it is not about one of ours or says nothing new."""
        if not self.concerns(event):
            return None
        if event["event"] == "reply_received":
            return self._answer(event)
        id_ = self._asked[event["id"]]
        item = self._by_id[id_]
        if id_ not in self._unsettled:
            return None
        match event["event"]:
            case "attempt_missed":
                return self._miss(item, event)
            case "message_waits":
                return self.note(item, Standing(DeliveryState.WAITING, str(event.get("why") or "")))
            case "message_working":
                return self.note(item, Standing(DeliveryState.WORKING))
            case "message_delivered":
                return self._settle(item, event)
        return self._bury(item, str(event.get("reason") or ""))

    def unheard(self) -> list[int]:
        """Ids of messages of which nothing is known for good, and whose nodes have said nothing."""
        left = [id_ for id_ in self._unsettled if id_ not in self._spoken]
        return [self._current(id_).id or id_ for id_ in left]

    def unsettled(self) -> list[Submitted]:
        """Messages of which nothing is known for good, at most `MAX_ASKED`; the next time the others."""
        asked = list(islice(self._unsettled, MAX_ASKED))
        for id_ in asked if len(asked) < len(self._unsettled) else ():
            self._unsettled[id_] = self._unsettled.pop(id_)
        return [self._current(id_) for id_ in asked]

    def note(self, item: Submitted, standing: Standing) -> Line | None:
        """The line for where a message stands now; None when that was said before, or says nothing."""
        asked = self._asked.get(item.id or 0)
        if asked not in self._unsettled or self._told.get(asked) == standing:
            return None
        item = self._by_id[asked]
        event = _EVENT_OF.get(standing.state)
        if event is None:
            return None
        if standing.state is DeliveryState.SENT and self._told.get(asked) == _NOBODY_THERE:
            # one more try that is just under way: whether somebody is there now is told when that is known
            return None
        self._told[asked] = standing
        return _line(event, item, standing)

    def _miss(self, item: Submitted, event: Event) -> Line:
        why = why_of_missed(str(event.get("outcome") or ""))
        standing = Standing(DeliveryState.WAITING, why)
        assert item.id is not None
        self._told[item.id] = standing
        line = _line("missed", item, standing)
        line.outcome, line.attempt = event.get("outcome"), event.get("attempt")
        line.next_in_seconds = event.get("next_in_seconds")
        return line

    def _settle(self, item: Submitted, event: Event) -> Line:
        self._unsettled.pop(item.id or 0, None)
        self._delivered += 1
        state = DeliveryState(event.get("state") or DeliveryState.TAKEN)
        # NB: an appliance is known as one by its acknowledgement at the latest, and a stream is nobody's
        if state is DeliveryState.TAKEN and not item.via and not self._is_appliance(item.to):
            self._by_go_nodes.add(item.id or 0)
        line = _line("delivered", item, Standing(state))
        line.seconds = event.get("seconds")
        return line

    def _bury(self, item: Submitted, reason: str) -> Line:
        assert item.id is not None
        self._unsettled.pop(item.id, None)
        self._failed += 1
        # what never arrived is never answered
        self._unanswered.discard(item.id)
        standing = Standing(state_of_reason(reason), why_of_reason(reason))
        is_refused = standing.state is DeliveryState.REFUSED
        line = _line("refused" if is_refused else "dead", item, standing)
        line.reason = (standing.why or "no reason given") if is_refused else reason
        return line

    def end(self, *, lost_events: int = 0) -> Line:
        """The last line: what came of it all."""
        silent = sorted(self._unsettled.keys() | self._unanswered)
        return Line(
            event="end",
            delivered=self._delivered,
            failed=self._failed,
            waiting=[self._by_id[id_].to for id_ in silent if id_ in self._unsettled],
            unanswered=[self._by_id[id_].to for id_ in silent if id_ not in self._unsettled],
            go_nodes=[self._by_id[id_].to for id_ in silent if id_ in self._by_go_nodes] or UNSET,
            lost_events=lost_events or UNSET,
        )

    def _open(self, item: Submitted) -> Line:
        if not item.accepted:
            why = item.error or "not accepted"
            return Line(
                event="rejected",
                to=item.to,
                reason=why,
                state="rejected",
                why=why,
                code=item.code or UNSET,
            )
        line = _line("accepted", item, Standing(DeliveryState.ACCEPTED))
        line.from_node, line.replies = item.from_node, item.replies
        line.via, line.note = item.via or UNSET, item.note or UNSET
        line.job = item.job or UNSET
        return line

    def _answer(self, event: Event) -> Line:
        id_ = self._asked[event["previous_id"]]
        self._spoken.add(id_)
        if event.get("place"):
            self._places[id_] = event["place"]
        facts = AnswerFacts(
            exit_status=event.get("exit_status"), has_more=bool(event.get("has_more"))
        )
        if self._outcomes[id_].answer(facts):
            self._unanswered.discard(id_)
        if facts.has_more or facts.exit_status is not None:
            self._open_ended.discard(id_)
        elif not event.get("progress"):
            self._open_ended.add(id_)
        line = Line(event="reply", id=id_, to=self._by_id[id_].to, from_node=event["from"])
        for name in ("method", "data", "is_cut", "exit_status"):
            setattr(line, name, event.get(name))
        for name in _SOMETIMES:
            setattr(line, name, event.get(name) or UNSET)
        return line


def _line(event: str, item: Submitted, standing: Standing) -> Line:
    return Line(
        event=event,
        id=UNSET if item.id is None else item.id,
        to=item.to,
        state=str(standing.state),
        why=standing.why,
    )
