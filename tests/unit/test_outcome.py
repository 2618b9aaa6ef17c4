"""The one model of what became of a message: the daemon's own facts and the lines that the API tells lead to the same."""

import itertools
import random

import pytest

from appliance.api.model import Line
from appliance.cli.standing import Progress
from appliance.core.delivery import DeliveryState, Standing, state_of_reason, why_of_reason
from appliance.core.outcome import AnswerFacts, Kind, Outcome

TAKEN, DONE = Standing(DeliveryState.TAKEN), Standing(DeliveryState.DONE)
SENT, STORED = Standing(DeliveryState.SENT), Standing(DeliveryState.STORED)
EXPIRED = Standing(DeliveryState.EXPIRED, "nobody there")
REFUSED = Standing(DeliveryState.REFUSED, "not in allow_commands")
NOBODY = Standing(DeliveryState.WAITING, "nobody there")


def asked(**facts):
    return Outcome(wants_answer=True, **facts)


def test_a_message_stands_where_it_was_told_last_until_it_is_settled():
    outcome = asked()
    assert outcome.describe() == "accepted"
    assert outcome.stand(NOBODY)
    assert not outcome.stand(NOBODY), "no news"
    assert outcome.describe() == "waiting: nobody there"
    assert outcome.stand(SENT)
    assert outcome.stand(TAKEN, settles=True)
    assert not outcome.stand(NOBODY), "it is there"
    assert outcome.is_delivered
    assert outcome.judge() is Kind.SILENT


@pytest.mark.parametrize(
    ("status", "state", "exit_status", "kind"),
    [
        ("0", "done", 0, Kind.DONE),
        ("3", "done", 3, Kind.FAILED),
        ("failed: not in allow_commands", "failed", None, Kind.FAILED),
        ("９", "failed", None, Kind.FAILED),
        ("9" * 12, "failed", None, Kind.FAILED),
    ],
)
def test_an_answer_tells_more_than_any_acknowledgement(status, state, exit_status, kind):
    for before, after in itertools.product(((), (TAKEN,), (EXPIRED,)), ((), (TAKEN,), (EXPIRED,))):
        outcome = asked()
        for standing in before:
            outcome.stand(standing, settles=True)
        assert outcome.answer(AnswerFacts(exit_status=status))
        for standing in after:
            outcome.stand(standing, settles=True)
        assert (outcome.word, outcome.exit_status, outcome.judge()) == (state, exit_status, kind)
        assert outcome.is_over


def test_an_answer_without_a_status_is_no_success_for_who_wants_one():
    outcome = asked()
    outcome.answer(AnswerFacts())
    assert outcome.judge() is Kind.DONE
    assert outcome.judge(wants_status=True) is Kind.FAILED


@pytest.mark.parametrize("streams", [False, True])
def test_what_only_appliances_understand_was_not_done_by_a_node_that_tells_no_status(streams):
    """A Go node begins a program without a name, and answers with the nothing that this wrote."""
    outcome = asked(streams=streams, for_appliances=True)
    outcome.answer(AnswerFacts())
    assert (outcome.word, outcome.judge(), outcome.is_over) == ("failed", Kind.FAILED, True)
    assert "was not done" in outcome.why
    told = asked(streams=streams, for_appliances=True)
    told.answer(AnswerFacts(exit_status="0"))
    assert told.judge(wants_status=True) is Kind.DONE
    speaking = asked(streams=True, for_appliances=True)
    speaking.answer(AnswerFacts(has_more=True, tells_stream=True))
    assert not speaking.has_failed


def test_pieces_of_a_node_that_tells_no_end_have_none():
    outcome = asked(streams=True)
    assert not outcome.answer(AnswerFacts())
    assert not outcome.is_over
    assert not outcome.is_silent, "it has spoken, and nobody knows of more"
    told = asked(streams=True)
    assert not told.answer(AnswerFacts(has_more=True))
    assert told.is_silent
    assert told.answer(AnswerFacts()), "who told of more tells the end by not doing so"


def test_where_no_answer_is_due_the_acknowledgement_is_the_end():
    outcome = Outcome()
    assert outcome.judge() is Kind.SILENT
    outcome.stand(TAKEN, settles=True)
    assert outcome.judge() is Kind.DONE
    stored = Outcome()
    stored.stand(STORED, settles=True)
    assert (stored.word, stored.judge()) == ("stored", Kind.DONE)


def test_what_is_tried_anew_knows_nothing_of_before():
    outcome = asked(streams=True, for_appliances=True)
    outcome.answer(AnswerFacts(exit_status="3", is_truncated=True))
    outcome.begin_again()
    assert outcome == asked(streams=True, for_appliances=True)


LINES = {
    "waits": lambda s: Line(event="waits", state=str(s.state), why=s.why),
    "delivered": lambda s: Line(event="delivered", state=str(s.state), why=s.why),
    "dead": lambda s: Line(event="dead", state=str(s.state), why=s.why, reason="x"),
}


@pytest.mark.parametrize("seed", range(200))
def test_lines_and_facts_lead_to_the_same(seed):
    """What happens to a message in any order: whoever reads lines stands where the daemon stands."""
    random_ = random.Random(seed)
    streams, wants_answer = random_.random() < 0.5, random_.random() < 0.7
    here = Outcome(wants_answer=wants_answer, streams=streams)
    there = Progress(wants_answer=wants_answer, streams=streams)
    for _ in range(random_.randrange(8)):
        if random_.random() < 0.4:
            status = random_.choice([None, "0", "7", "failed: full"])
            has_more = random_.random() < 0.4
            here.answer(AnswerFacts(exit_status=status, has_more=has_more, is_held=has_more))
            line = Line(event="reply", exit_status=status, is_held=has_more or None)
            if has_more:
                line.has_more = True
            there.hear(line)
        else:
            event, standing = random_.choice(
                [
                    ("waits", NOBODY),
                    ("delivered", TAKEN),
                    ("delivered", DONE),
                    ("delivered", STORED),
                    ("dead", EXPIRED),
                    ("dead", REFUSED),
                ]
            )
            here.stand(standing, settles=event != "waits")
            there.take(LINES[event](standing))
        assert here.describe() == there.describe()
        assert here.judge(wants_status=True) is there.judge(wants_status=True)
        assert (here.is_over, here.is_silent) == (there.is_over, there.is_silent)


def test_a_dead_letter_of_an_earlier_version_is_read_as_its_reason_says():
    reason = "refused by the receiver: no"
    outcome = Outcome()
    outcome.stand(Standing(state_of_reason(reason), why_of_reason(reason)), settles=True)
    assert outcome.describe() == "refused: no"
