"""The book of jobs on a real file and a store that is a double: what it keeps over kills and damage, what it forgets."""

import contextlib
import json
import sqlite3

import pytest

from appliance.core.delivery import DeliveryState, Standing
from appliance.core.message import body_number
from appliance.core.outcome import UNHEARD, AnswerFacts, Outcome
from appliance.jobs.ledger import LATE_S, NOT_ACCEPTED, NewMessage
from appliance.jobs.records import JobFacts, TargetFacts, TargetState
from appliance.outbox.job_file import FILE_NAME

LARGE_ID = 228705929533587456


def message(number=LARGE_ID, to="ship1", *, answers=True, streams=False):
    outcome = Outcome(wants_answer=answers, streams=streams)
    return NewMessage(number, TargetFacts(to=to, node="central"), TargetState(outcome=outcome))


async def begin(ledger, outbox, *messages):
    job_id = ledger.new_id()
    job = await ledger.begin(job_id, JobFacts(command="exec", wants_status=True), messages)
    outbox.put([item.id for item in messages if item.id], ledger.facts_with(job_id))
    ledger.accepted(job)
    return job


async def rows(ledger, job):
    await ledger.written()
    return await ledger.file.read(
        "SELECT kind, is_open, state FROM target WHERE job = ? ORDER BY key", (job.key,)
    )


def answer(ledger, number=LARGE_ID, to="ship1", data=b"hi\n", status="0", source="a-1", **facts):
    told = AnswerFacts(exit_status=status, **facts)
    ledger.answered(body_number(number), to, told, [("stdout", data)], source)


async def output(ledger, job):
    await ledger.written()
    found = await ledger.file.read("SELECT data FROM piece WHERE job = ? ORDER BY seq", (job.key,))
    return b"".join(data for (data,) in found)


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_go_node_that_says_nothing_is_waited_for_until_its_time_is_over(
    open_ledger, outbox, restarts
):
    """It tells neither that it could not begin, nor that it stopped it, nor the end of what it said in pieces."""
    ledger = await open_ledger()
    speaking = LARGE_ID + 1
    job = await begin(ledger, outbox, message(), message(speaking, "ship2", streams=True))
    for number in (LARGE_ID, speaking):
        ledger.concluded(number, None, by_seed=True)
    answer(ledger, speaking, "ship2", status=None)
    if restarts:
        outbox.pending.clear()
        await ledger.close()
        ledger = await open_ledger()
    outbox.time += LATE_S - 1
    ledger.end_unheard()
    assert ledger.open_count == 1
    outbox.time += 2
    ledger.end_unheard()
    assert ledger.open_count == 0
    states = [json.loads(state)["outcome"] for _, _, state in await rows(ledger, job)]
    assert [state["state"] for state in states] == ["expired", "done"]
    assert states[0]["why"] == UNHEARD
    answer(ledger)
    assert ledger.open_count == 0


async def test_an_appliance_that_says_nothing_is_waited_for(open_ledger, outbox):
    ledger = await open_ledger()
    await begin(ledger, outbox, message())
    ledger.concluded(LARGE_ID, None)
    outbox.time += 10 * LATE_S
    ledger.end_unheard()
    assert ledger.open_count == 1


async def test_an_answer_is_kept_and_ends_the_job(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message())
    assert ledger.open_count == 1
    assert ledger.is_watching
    ledger.concluded(LARGE_ID, None, state=DeliveryState.TAKEN)
    assert not ledger.is_watching
    answer(ledger)
    assert ledger.holds_answers
    ((kind, is_open, _),) = await rows(ledger, job)
    assert (kind, is_open, ledger.open_count) == ("done", 0, 0)
    assert await output(ledger, job) == b"hi\n"
    assert not ledger.holds_answers


async def test_a_node_that_was_not_asked_answers_nothing(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message())
    answer(ledger, to="ship2")
    assert (await rows(ledger, job))[0][:2] == ("silent", 1)
    assert await output(ledger, job) == b""


async def test_an_answer_that_comes_after_a_kill_is_kept(open_ledger, outbox):
    before = await open_ledger()
    job = await begin(before, outbox, message())
    await before.written()
    # killed: nothing was closed, and the message has been delivered meanwhile
    outbox.pending.clear()
    ledger = await open_ledger()
    assert ledger.jobs.keys() == {job.id}
    kept = ledger.jobs[job.id]
    (target,) = kept.open
    assert target.outcome.state is DeliveryState.TAKEN
    answer(ledger)
    assert (await rows(ledger, kept))[0][:2] == ("done", 0)
    assert await output(ledger, kept) == b"hi\n"


async def test_a_job_whose_messages_were_never_accepted_says_so(open_ledger, outbox):
    before = await open_ledger()
    job_id = before.new_id()
    await before.begin(job_id, JobFacts(command="exec"), [message()])
    # killed between the job and its messages
    ledger = await open_ledger()
    ((kind, is_open, state),) = await rows(ledger, ledger.jobs[job_id])
    assert (kind, is_open) == ("failed", 0)
    assert NOT_ACCEPTED.encode() in state
    assert not ledger.is_watching


async def test_a_kill_right_after_the_messages_were_accepted_loses_no_job(open_ledger, outbox):
    before = await open_ledger()
    job_id = before.new_id()
    await before.begin(job_id, JobFacts(command="exec"), [message()])
    outbox.put([LARGE_ID], before.facts_with(job_id))
    # killed before that was noted; and acknowledged before this start
    outbox.pending.clear()
    ledger = await open_ledger()
    (target,) = ledger.jobs[job_id].open
    assert target.outcome.state is DeliveryState.TAKEN


async def test_a_message_given_up_while_nobody_looked_tells_why(open_ledger, outbox):
    before = await open_ledger()
    job = await begin(before, outbox, message(), message(LARGE_ID + 1, "ship2"))
    await before.written()
    outbox.pending.clear()
    outbox.dead[LARGE_ID] = "refused: not in allow_commands"
    ledger = await open_ledger()
    found = await rows(ledger, ledger.jobs[job.id])
    assert [kind for kind, _, _ in found] == ["failed", "silent"]
    assert b"not in allow_commands" in found[0][2]


async def test_the_same_answer_after_a_kill_is_kept_once(open_ledger, outbox):
    before = await open_ledger()
    job = await begin(before, outbox, message(streams=True))
    answer(before, status=None, has_more=True, source="a-7")
    await before.written()
    ledger = await open_ledger()
    answer(ledger, status=None, has_more=True, source="a-7")
    answer(ledger, data=b"end\n", source="a-8")
    assert await output(ledger, ledger.jobs[job.id]) == b"hi\nend\n"


async def test_a_late_answer_to_what_expired_counts(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message())
    ledger.concluded(LARGE_ID, "expired after 1 s: silent")
    assert (await rows(ledger, job))[0][:2] == ("failed", 1)
    answer(ledger)
    assert (await rows(ledger, job))[0][:2] == ("done", 0)


async def test_of_a_long_output_the_end_is_kept(open_ledger, outbox):
    ledger = await open_ledger(max_output_bytes=1_000)
    job = await begin(ledger, outbox, message(streams=True))
    (target,) = job.open
    for number in range(40):
        answer(
            ledger, data=b"%03d\n" % number * 25, status=None, has_more=True, source=f"a-{number}"
        )
        await ledger.written()
    answer(ledger, data=b"", source="a-end")
    kept = await output(ledger, job)
    assert kept.endswith(b"039\n")
    assert 1_000 <= len(kept) <= 1_250
    assert target.state.forgotten_bytes == 4_000 - len(kept)


async def test_the_oldest_jobs_that_are_over_go_first(open_ledger, outbox):
    ledger = await open_ledger(max_bytes=1024 * 1024)
    waiting = await begin(ledger, outbox, message(1, "away"))
    over = []
    for number in range(2, 12):
        outbox.time += 1
        over.append(await begin(ledger, outbox, message(number)))
        answer(ledger, number, data=bytes(200_000), source=f"a-{number}")
        await ledger.written()
    await begin(ledger, outbox, message(100))
    assert ledger.size_bytes <= 1024 * 1024 + 2_000
    assert waiting.id in ledger.jobs
    assert over[0].id not in ledger.jobs
    assert over[-1].id in ledger.jobs
    await ledger.written()
    assert not await ledger.file.read("SELECT 1 FROM piece WHERE job = ?", (over[0].key,))


async def test_what_is_old_goes_but_not_what_still_waits(open_ledger, outbox):
    ledger = await open_ledger(keep_s=10.0)
    waiting = await begin(ledger, outbox, message(1, "away"))
    over = await begin(ledger, outbox, message(2))
    answer(ledger, 2)
    outbox.time += 11
    await begin(ledger, outbox, message(3))
    assert waiting.id in ledger.jobs
    assert over.id not in ledger.jobs


@pytest.mark.parametrize("damage", ["no database", "torn page", "another program's"])
async def test_a_damaged_file_is_set_aside_and_keeps_nobody_from_starting(
    open_ledger, outbox, tmp_path, damage
):
    path = tmp_path / FILE_NAME
    if damage == "no database":
        path.write_bytes(b"rubbish" * 1_000)
    elif damage == "torn page":
        ledger = await open_ledger()
        await begin(ledger, outbox, message())
        await ledger.close()
        raw = bytearray(path.read_bytes())
        raw[4_096 : 8 * 4_096] = b"\xff" * (7 * 4_096)
        path.write_bytes(raw)
    else:
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA user_version = 77")
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message(9))
    assert (await rows(ledger, job))[0][0] == "silent"
    assert any("damaged" in said for said in open_ledger.told)
    assert path.with_name(f"{FILE_NAME}.damaged").exists()


async def test_what_was_given_up_and_is_tried_anew_is_open_again(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message())
    (target,) = job.open
    ledger.concluded(LARGE_ID, "failed: disk full")
    assert (await rows(ledger, job))[0][:2] == ("failed", 0)
    ledger.begin_again([target])
    assert (await rows(ledger, job))[0][:2] == ("silent", 1)
    answer(ledger)
    assert (await rows(ledger, job))[0][:2] == ("done", 0)


async def test_what_was_dropped_by_hand_says_by_whom(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, message(1), message(2, "ship2"))
    outbox.pending.discard(1)
    ledger.dropped([1, 2], Standing(DeliveryState.FAILED, "dropped by root"))
    found = await rows(ledger, job)
    assert [kind for kind, _, _ in found] == ["failed", "silent"]
    assert b"dropped by root" in found[0][2]


def of_batch(number, batch):
    told = message(LARGE_ID + number, f"ship{number}")
    told.facts.batch = batch
    return told


@pytest.mark.parametrize("was_accepted", [True, False])
async def test_of_a_further_batch_a_kill_tells_whether_it_was_accepted(
    open_ledger, outbox, was_accepted
):
    before = await open_ledger()
    job = await begin(before, outbox, of_batch(1, 1))
    await before.extend(job, JobFacts(command="exec"), [of_batch(2, 2)])
    if was_accepted:
        outbox.put([LARGE_ID + 2], before.facts_with(job.id, 2))
    await before.written()
    outbox.pending.clear()  # what was accepted has been delivered meanwhile
    ledger = await open_ledger()
    found = await rows(ledger, ledger.jobs[job.id])
    assert [kind for kind, *_ in found] == ["silent", "silent" if was_accepted else "failed"]


async def test_a_further_batch_that_was_not_taken_leaves_the_job_as_it_was(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, of_batch(1, 1))
    targets = await ledger.extend(job, JobFacts(command="exec"), [of_batch(2, 2)])
    assert len(job.open) == 2
    ledger.withdraw_batch(targets)
    await ledger.written()
    assert len(await rows(ledger, job)) == len(job.open) == 1


async def test_a_job_that_was_cancelled_is_known_as_such_after_a_kill(open_ledger, outbox):
    ledger = await open_ledger()
    job = await begin(ledger, outbox, of_batch(1, 1))
    await ledger.note_facts(job, JobFacts(command="exec", cancelled_by="anna"))
    assert job.is_cancelled
    assert (await open_ledger()).jobs[job.id].is_cancelled
