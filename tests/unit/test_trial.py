"""What the end of a trial says of the workers that a set touched."""

import pytest

from appliance.core.names import MethodName, NodeName, Subject
from appliance.core.specs import ObservedWorker, Phase, SubscriberSpec
from appliance.reconcile.trial import CLEARER_AFTER_S, MAX_UNCLEAR_S, Trial, examine

NOW_MONO = 100.0
SPEC = SubscriberSpec(
    node=NodeName("ship1"),
    subject=Subject("ship1.REQPing.EventACK"),
    method=MethodName("REQPing"),
    wants_ack=True,
)
NAME = SPEC.key.name
TRIAL = Trial(
    baseline=None,
    touched=frozenset({SPEC.key}),
    until_mono=NOW_MONO,
    length_s=1.0,
    changes_broker=False,
)


def findings(phase, now_mono=NOW_MONO, trial=TRIAL, **seen):
    worker = ObservedWorker(spec=SPEC, phase=phase, **seen)
    found = examine(trial, {SPEC.key: SPEC}, {SPEC.key: worker}, now_mono)
    return dict(found.failed), dict(found.unclear)


@pytest.mark.parametrize("phase", [Phase.BACKING_OFF, Phase.FAILED, Phase.STOPPED])
def test_one_that_does_not_run_speaks_against_the_set(phase):
    assert findings(phase, last_error="denied", retry_at_mono=NOW_MONO + 1) == (
        {NAME: "denied"}, {},
    )  # fmt: skip


@pytest.mark.parametrize(
    "seen",
    [
        {"phase": Phase.STARTING, "last_error": "denied"},
        {"phase": Phase.STARTING},
        {"phase": Phase.RUNNING, "last_error": "denied"},
        {"phase": Phase.BACKING_OFF, "last_error": "denied", "retry_at_mono": NOW_MONO},
    ],
)
def test_one_that_is_just_being_tried_says_nothing_until_it_was_tried_all_the_while(seen):
    reason = seen.get("last_error", "still starting")
    assert findings(**seen) == ({}, {NAME: reason})
    waiting = TRIAL.unclear(NOW_MONO)
    assert waiting.until_mono == NOW_MONO + CLEARER_AFTER_S
    later = NOW_MONO + MAX_UNCLEAR_S
    # however often it was looked at meanwhile
    waiting = waiting.unclear(later - 1)
    assert findings(**seen, trial=waiting, now_mono=later - 0.1) == ({}, {NAME: reason})
    assert findings(**seen, trial=waiting, now_mono=later) == ({NAME: reason}, {})
    # the broker was away since: the trial begins anew
    assert findings(**seen, trial=waiting.extended(), now_mono=later) == ({}, {NAME: reason})


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.DRAINING])
def test_one_that_runs_or_ends_as_it_should_speaks_for_the_set(phase):
    assert findings(phase) == ({}, {})


def test_one_that_is_not_there_counts_where_it_is_wanted_alone():
    found = examine(TRIAL, {SPEC.key: SPEC}, {}, NOW_MONO)
    assert dict(found.failed) == {NAME: "did not start"}
    assert not examine(TRIAL, {}, {}, NOW_MONO).failed
