"""Ending a job that its daemon does not live to end: the next one goes on with it, and the job says what became of it."""

import asyncio

from appliance.api.job_ending import JobEnding
from appliance.api.jobs import JobsView
from appliance.core.delivery import DeliveryState, Standing, WaitReason
from appliance.core.message import body_number
from appliance.core.outcome import AnswerFacts
from appliance.jobs.asking import Said
from tests.component.jobs.test_ledger import LARGE_ID, begin, message


class Killed(Exception):
    pass


class Standings:
    """Every message stands where it is said."""

    def __init__(self, why, state=DeliveryState.WAITING):
        self.standing = Standing(state, why)

    def of_record(self, node, subject, record_id):
        return self.standing


class Words:
    """Nodes that answer what they are told to; `asked` are the messages that were to be ended."""

    def __init__(self, said):
        self.said, self.asked = said, []

    def can_end(self, method):
        return True

    def understands(self, node):
        return True

    async def ask(self, node, to_node, method, order, arguments, *, expires_s):
        self.asked += arguments
        return self.said


class Telemetry:
    def message_taken_back(self, *_):
        pass


def make_ending(ledger, store, standings, said=None):
    words = Words(said or Said("told to end", "0"))
    view = JobsView(ledger, store, standings)
    return JobEnding(view, ledger, store, standings, Telemetry(), words, lambda *_: False), words


def drop_from(store, *, dies=False):
    async def drop(ids, *, dead_only):
        store.pending -= set(ids)
        if dies:
            raise Killed

    store.drop = drop
    store.wall_of = lambda at: at


async def cancel_and_die(ending, job):
    try:
        await ending.cancel(job.id, by="anna")
    except Killed:
        return
    raise AssertionError("it was to die")


async def state_of(ledger, job):
    view, job = JobsView(ledger, ledger._outbox, None), ledger.jobs[job.id]
    (target,) = await view.targets(job, await view.read_facts(job))
    return target


async def test_what_was_taken_back_right_before_a_kill_is_not_said_to_be_taken(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message())
    drop_from(outbox, dies=True)
    ending, _ = make_ending(ledger, outbox, Standings(WaitReason.NOBODY))
    await cancel_and_die(ending, job)
    ledger = await open_ledger()
    target = await state_of(ledger, job)
    assert (target.outcome.state, target.outcome.why) == (DeliveryState.FAILED, "cancelled by anna")


async def test_an_answer_counts_to_what_was_taken_back_and_may_have_been_heard(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message())
    drop_from(outbox, dies=True)
    ending, _ = make_ending(ledger, outbox, Standings(WaitReason.SILENT))
    await cancel_and_die(ending, job)
    ledger = await open_ledger()
    target = await state_of(ledger, job)
    assert target.outcome.state is DeliveryState.EXPIRED
    ledger.answered(
        body_number(LARGE_ID), "ship1", AnswerFacts(exit_status="0"), [("stdout", b"x")], "1"
    )
    await ledger.written()
    assert (await state_of(ledger, job)).outcome.state is DeliveryState.DONE


async def test_cancelling_goes_on_after_a_kill(open_ledger, outbox):
    """Killed when it was on disk that the job is cancelled, and no node had been told."""
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message(), message(LARGE_ID + 1, "ship2"))
    drop_from(outbox)
    ending, words = make_ending(ledger, outbox, Standings("", DeliveryState.WORKING))
    facts = await ending._view.read_facts(job)
    facts.cancelled_by, facts.cancelled_at = "anna", outbox.now()
    await ledger.note_facts(job, facts)
    await ending._ledger.note_endings(
        {target: ending._how_it_leaves(target) for target in job.open}
    )
    ledger = await open_ledger()
    ending, words = make_ending(ledger, outbox, Standings("", DeliveryState.WORKING))
    await ending.resume()
    await asyncio.gather(*ending._stopping)
    assert sorted(words.asked) == [str(LARGE_ID), str(LARGE_ID + 1)]
    again, words = make_ending(ledger, outbox, Standings("", DeliveryState.WORKING))
    await again.resume()
    assert words.asked == [], "they have been told"


async def test_what_was_cancelled_long_ago_is_left_alone_at_a_start(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message())
    drop_from(outbox)
    ending, _ = make_ending(ledger, outbox, Standings("", DeliveryState.WORKING))
    facts = await ending._view.read_facts(job)
    facts.cancelled_by, facts.cancelled_at = "anna", outbox.now()
    await ledger.note_facts(job, facts)
    await ledger.note_endings({target: ending._how_it_leaves(target) for target in job.open})
    outbox.time += 7_200
    ledger = await open_ledger()
    ending, words = make_ending(ledger, outbox, Standings("", DeliveryState.WORKING))
    await ending.resume()
    assert (words.asked, ending._stopping) == ([], set())


async def test_what_is_tried_again_after_it_was_cancelled_is_not_cancelled_by_a_restart(
    open_ledger,
    outbox,
):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message())
    drop_from(outbox)
    ending, _ = make_ending(ledger, outbox, Standings("", DeliveryState.WORKING), Said("", "0"))
    await ending.cancel(job.id, by="anna")
    ledger.concluded(LARGE_ID, "failed: cancelled before it began")
    outbox.dead[LARGE_ID] = "failed: cancelled before it began"
    outbox.pending = set()
    await JobsView(ledger, outbox, None).expect_retry([LARGE_ID])
    outbox.pending = {LARGE_ID}
    await ledger.written()
    ledger = await open_ledger()
    ending, words = make_ending(ledger, outbox, Standings("", DeliveryState.WORKING))
    await ending.resume()
    assert words.asked == []
