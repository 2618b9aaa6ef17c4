"""Which messages are taken in and done in one commit instead of two.

Two commits are the rule: the first makes a message durable in the inbox, is acknowledged (`ack.on: received`) and lets the
handler begin; the second remembers the verdict and lets go of the body. Between them a message is on disk because its
sender has forgotten it and its handler has not ended. Where the handler ends before anybody could be told of the first
commit, there is nothing to be kept between: the second one alone says all that both say, and the acknowledgement follows
it. What that rests on, and what each condition is for:

- *It may be done twice* (`MethodInfo.is_prompt` says so; never commands and whatever journals). A crash between the effect
  and the commit leaves no trace of the message here. It was not acknowledged, so it is sent again and done again, where
  with two commits its row would have been run again: once more in either case, and only after a crash. Messages that the
  handler sends are in the commit itself, and so go out exactly once.
- *Its handler never waits* (`is_prompt`, too). What waits has to be durable first, or its acknowledgement would come when it
  is done and not when it was received: a sender that knows nothing of us would send it again meanwhile.
- *Its turn comes soon*: no handler is waiting for anything, and those that are before it take a moment. There is one queue
  for all, so none overtakes another; but whoever waits there for long has to be durable, and its sender to know.
- *It is surely new*: above all ids that are remembered of its sender, and none that is in hand, which were sorted out
  before. What may be a repeat is looked up by the writer, before the handler begins.
- *The store can commit, and has room for answers.* Else a handler would run whose end cannot be written down, again after
  each restart, and its sender would take the node for silent.
- *No stream keeps it* (`Intake.is_asked`). Which of two daemons has such a message is settled when it is taken in.
- *It is no answer.* Those have an order among themselves, and their acknowledgement may say that nobody wants more.

With `ack.on: done` the same messages have always had one commit, with the same conditions of a crash; what is journaled or
must not run twice keeps its two commits there as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.core.method import MethodInfo
from appliance.core.specs import AckOn
from appliance.outbox.records import HealthState
from appliance.outbox.store import MessageStore
from appliance.workers.incoming import Incoming


def may_be_done_at_once(
    works: Sequence[Incoming], info: MethodInfo, scope: str, store: MessageStore
) -> bool:
    """Whether the handlers of these messages may run before anything of them is on disk, if they run soon.

    All of them or none: what is in one batch keeps its order.
    """
    if not info.is_prompt or store.is_crowded or store.health().state is not HealthState.OK:
        return False
    received = AckOn.RECEIVED
    for work in works:
        if work.is_reply or work.message is None or work.ack_on is not received:
            return False
    return store.are_surely_new(scope, [work.key for work in works])
