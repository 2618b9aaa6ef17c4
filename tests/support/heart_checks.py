"""What must be true of a `World` once it has come to rest, whatever was done to it.

Each violation is a sentence that begins with the number of its invariant:

- I1 every accepted message was handled, is a dead letter with a reason, or waits for a named reason
- I2 no effect twice: a handler runs again only where a crash or the end of its worker left its outcome undecided (a
  command not even then), where another daemon of a queue group took a message that may run twice (a command only if no
  word of the first had reached the sender), or where an operator asked for a retry of what had failed
- I3 nothing is handled that was not offered
- I4 no acknowledgement before the commit that it tells of
- I6 what failed is never told as done
- I7 nothing becomes a dead letter before its time but for a verdict of the receiver
- I8 nothing is left: no record, no row, no subscription (tasks are checked by `run_virtual`)

(I5, the order of messages, depends on the scenario and is checked there.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from appliance.core.delivery import DeliveryState, state_of_reason
from appliance.core.method import OnCrash
from appliance.core.names import MethodName
from appliance.methods.registry import METHOD_TABLE
from appliance.outbox.records import DeadLetter
from tests.support.heart_world import Daemon, End, Run, Sent, World
from tests.support.memory_store import Evidence

REPORTS = "REQErrorLog"
"""Reports of failures, which nobody hands over."""
CONFIRMED = b"confirmed from: "
_FAILED = (End.HANDLER_ERROR, End.EXCEPTION, End.TIMEOUT, End.BEGIN_AGAIN)


def find_violations(
    world: World, *, may_die: Callable[[str, DeadLetter], bool] = lambda text, dead: False
) -> list[str]:
    """Every violation, as sentences. `may_die` allows dead letters that the scenario means to have, by text."""
    return [
        *_lost(world, may_die),
        *_doubled(world),
        *_forgot_the_taker(world),
        *_invented(world),
        *_told_too_early(world),
        *_told_as_done(world),
        *_left(world),
    ]


def _lost(world: World, may_die: Callable[[str, DeadLetter], bool]) -> Iterator[str]:
    for text, (name, number) in world.accepted.items():
        disk = world.daemons[name].disk
        if number in disk.records:
            record = disk.records[number]
            yield f"I1 {text} still waits at {name} after {record.attempts} tries: {record.last_error}"
            continue
        dead = disk.dead.get(number)
        if dead is not None:
            if not dead.reason:
                yield f"I1 {text} is a dead letter without a reason"
            has_failed = any(run.end in _FAILED or run.end is None for run in world.log.of(text))
            is_verdict = state_of_reason(dead.reason) is not DeliveryState.EXPIRED and (
                has_failed or was_begun(world, number)
            )
            if not is_verdict and not may_die(text, dead):
                yield f"I7 {text} became a dead letter: {dead.reason}"
            continue
        if any(one.what == "dropped" and one.message_id == number for one in disk.evidence):
            continue
        if not any(run.message_id == number for run in world.log.of(text)):
            is_told = any(run.answers == number for run in world.log.runs)
            # a daemon can have claimed a stream's message without ever hearing that it has it: the next one, after that one
            # seems to stay away, cannot know that it was not begun, and says so instead of running a command
            is_claimed = is_told and bool(world.broker.streams)
            if not was_begun(world, number) and not is_claimed:
                yield f"I1 {text} left the outbox of {name} and was never handled"
            elif not is_told:
                yield f"I1 {text} was begun and cut off, and its sender was not told"
    handed_over = {number for _, number in world.accepted.values()}
    for daemon in world.daemons.values():
        for number, dead in daemon.disk.dead.items():
            if number not in handed_over and number not in world.offered.values():
                what = f"{daemon.name}'s own {dead.record.method} to {dead.record.to_node}"
                if not may_die(what, dead):
                    yield f"I7 {what} became a dead letter: {dead.reason}"


def was_begun(world: World, number: int) -> bool:
    """Whether it is on a disk that a handler was about to begin with this message, perhaps without having been called."""
    return any(
        one.what == "started" and one.message_id == number
        for daemon in world.daemons.values()
        for one in daemon.disk.evidence
    )


def _doubled(world: World) -> Iterator[str]:
    for text, runs in world.log.by_text.items():
        by_id: dict[tuple[str, str, int], list[Run]] = {}
        for run in runs:
            by_id.setdefault((run.sender, run.scope, run.message_id), []).append(run)
        for same in by_id.values():
            for at, run in enumerate(same):
                for earlier in same[:at]:
                    why = _why_forbidden(world, earlier, run)
                    if why:
                        yield f"I2 {text} ran again at {run.daemon} ({run.began_at:.3f}): {why}"


def _why_forbidden(world: World, earlier: Run, run: Run) -> str:
    """Why the second run must not have happened after the first; "" where it may."""
    is_command = METHOD_TABLE[MethodName(run.method)].on_crash is OnCrash.INTERRUPT
    if _was_asked_again(world, earlier, run):
        return ""
    if is_command and (earlier.daemon == run.daemon or run.taker):
        known = f", as the sender said: {run.taker}" if run.taker else ""
        return f"it is a command that {earlier.daemon} began at {earlier.began_at:.3f}{known}"
    if earlier.daemon != run.daemon or earlier.was_cut:
        return ""
    daemon = world.daemons[run.daemon]
    if any(
        one.what == "finished" and one.message_id == run.message_id and one.scope == run.scope
        for one in daemon.disk.evidence[earlier.began_after : run.began_after]
    ):
        return f"its outcome of {earlier.ended_at} was committed"
    has_ended = any(
        earlier.began_at <= at <= run.began_at and scope_of(subject) == run.scope
        for at, subject in daemon.worker_ends
    )
    if earlier.life == run.life and not has_ended:
        return f"its run of {earlier.began_at:.3f} belongs to the same process"
    return ""


def _forgot_the_taker(world: World) -> Iterator[str]:
    """Resends that do not name the daemon which was heard to work on the message."""
    for sent in world.sent:
        number = sent.headers.get("appl-id", "").split("-")
        if ".reply." in sent.subject or len(number) < 2 or "appl-taker" in sent.headers:
            continue
        deaths = world.daemons[sent.daemon].died_at
        for at in world.heard_working.get((sent.daemon, int(number[1])), ()):
            is_forgotten = any(at <= died_at <= sent.at for died_at in deaths)
            if at < sent.at and not is_forgotten and "appl-attempt" not in sent.headers:
                yield f"I2 {sent.daemon} sent {number[1]} again at {sent.at:.3f} without the taker heard at {at:.3f}"
                break


def _was_asked_again(world: World, earlier: Run, run: Run) -> bool:
    """Whether an operator of the sending side asked for another try between the two runs of what was not done."""
    evidence = [one for daemon in world.daemons.values() for one in daemon.disk.evidence]
    is_done = any(
        one.what == "finished"
        and one.text == "done"
        and (one.message_id, one.scope) == (run.message_id, run.scope)
        and one.at <= run.began_at
        for one in evidence
    )
    return not is_done and any(
        one.what == "revived"
        and one.message_id == run.message_id
        and earlier.began_at <= one.at <= run.began_at
        for one in evidence
    )


def _invented(world: World) -> Iterator[str]:
    offered = set(world.offered.values())
    for text, runs in world.log.by_text.items():
        first = runs[0]
        if first.answers is not None and first.answers not in offered:
            yield f"I3 {text} at {first.daemon} answers what was never offered"
        if first.answers is None and text not in world.offered and first.method != REPORTS:
            yield f"I3 {text!r} was handled {len(runs)} times at {first.daemon} and never offered"


def _told_too_early(world: World) -> Iterator[str]:
    for sent in world.sent:
        if not sent.payload.startswith(CONFIRMED) or ".reply." not in sent.subject:
            continue
        number = int(sent.payload.rpartition(b": ")[2])
        scope = scope_of(sent.subject)
        is_done = "appl-done" in sent.headers
        if not _is_backed(world.daemons[sent.daemon], sent, scope, number, is_done=is_done):
            word = "done" if is_done else "taken"
            yield f"I4 {sent.daemon} told at {sent.at:.3f} that {number} is {word}, and no commit says so"


def _is_backed(daemon: Daemon, sent: Sent, scope: str, number: int, *, is_done: bool) -> bool:
    for one in daemon.disk.evidence[: sent.evidence]:
        if one.message_id == number and one.scope == scope and _tells(one, is_done=is_done):
            return True
    return False


def _tells(one: Evidence, *, is_done: bool) -> bool:
    if is_done:
        return one.what == "finished" and one.text == "done"
    return one.what in ("taken", "finished")


def scope_of(subject: str) -> str:
    """``<node>.<method>`` of a request's or a reply's subject."""
    node, method = subject.split(".")[:2]
    return f"{node}.{method}"


def _told_as_done(world: World) -> Iterator[str]:
    """For messages whose sender waits until the work is done: settled as delivered, yet no run of them succeeded."""
    for text, (name, number) in world.accepted.items():
        evidence = world.daemons[name].disk.evidence
        if not any(one.what == "settled" and one.message_id == number for one in evidence):
            continue
        runs = [run for run in world.log.of(text) if run.message_id == number]
        waits_until_done = any(
            sent.payload.startswith(CONFIRMED)
            and "appl-done" in sent.headers
            and sent.payload.endswith(b": %d" % number)
            for sent in world.sent
        )
        if waits_until_done and not any(run.end in (End.DONE, End.UNWANTED) for run in runs):
            yield f"I6 {text} was told as done, but no run of it ended well"


def _left(world: World) -> Iterator[str]:
    for daemon in world.daemons.values():
        for number in daemon.disk.records:
            if number not in {number for _, number in world.accepted.values()}:
                yield f"I8 {daemon.name} still has record {number}, which no caller handed over"
        for row in daemon.disk.inbox.values():
            yield f"I8 {daemon.name} still has {row.message_id} of {row.subject} in its inbox"
        if not daemon.is_dead:
            held = sum(daemon.store.lane(key).held for key in daemon.store.lanes_with_records())
            if held and not daemon.disk.records:
                yield f"I8 {daemon.name} still holds {held} records that are on no disk"
